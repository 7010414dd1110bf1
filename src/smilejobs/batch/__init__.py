"""Batches: rows in from a file, outcomes out to a file and to a report."""

from smilejobs.batch.check import Batch, check

__all__ = ["Batch", "check"]
