"""Bytes to model and back: sign, verify and read. This package does no I/O and has no clock."""
