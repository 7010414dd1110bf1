"""Waiting that survives: a watch list in a database, and workers that poll what is in it. Extra ``durable``.

On asyncio only. See `WatchList` and `Worker`.
"""

from smilejobs.durable.rows import Counts
from smilejobs.durable.watchlist import Added, WatchedJob, WatchList, WatchOutcome
from smilejobs.durable.worker import Worker

__all__ = ["Added", "Counts", "WatchList", "WatchOutcome", "WatchedJob", "Worker"]
