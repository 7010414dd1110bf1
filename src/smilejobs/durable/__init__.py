"""A watch list keeps waits in a database, and workers poll its jobs. Extra ``durable``.

On asyncio only. See `WatchList` and `Worker`.
"""

try:
    import aiosqlite  # noqa: F401  # SQLAlchemy imports it by name
    import procrastinate  # noqa: F401  # imported to see whether the extra is installed
    import psycopg  # noqa: F401  # as above
    import sqlalchemy  # noqa: F401  # as above
except ImportError as error:
    raise ImportError("smilejobs.durable needs a few packages more: pip install 'smilejobs[durable]'") from error

from smilejobs.durable.rows import Counts, Learned
from smilejobs.durable.watchlist import Added, WatchedJob, WatchList, WatchOutcome
from smilejobs.durable.worker import Worker

__all__ = ["Added", "Counts", "Learned", "WatchList", "WatchOutcome", "WatchedJob", "Worker"]
