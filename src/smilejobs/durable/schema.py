"""The tables of a watch list, and how those of an older version become those of the current one."""

from collections.abc import Awaitable, Callable

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Double,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
    insert,
    literal_column,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

SCHEMA = "smilejobs"
"""On PostgreSQL, the schema that holds all tables."""

BUCKETS = 256

PENDING, COMPLETE, FAILED, EXPIRED = range(4)
STATES = ("pending", "complete", "failed", "expired")
"""What the numbers in ``watch.state`` mean."""

TABLES = MetaData()

_SEQUENCE = BigInteger().with_variant(Integer, "sqlite")

WATCH = Table(
    "watch",
    TABLES,
    Column("seq", _SEQUENCE, primary_key=True, autoincrement=True, comment="in the order of addition"),
    Column("key", LargeBinary(16), nullable=False, unique=True, comment="a hash of the ids"),
    Column("bucket", SmallInteger, nullable=False, comment="the first byte of the key"),
    Column("state", SmallInteger, nullable=False, default=PENDING),
    Column("final", Boolean, nullable=False, comment="wait for a final answer"),
    Column("user_id", Text, nullable=False),
    Column("job_id", Text, nullable=False),
    Column("submitted_at", Double, comment="seconds since 1970, as all instants here"),
    Column("added_at", Double, nullable=False, comment="or when it was opened again"),
    Column("deadline", Double, comment="seconds after added_at"),
    Column("ended_at", Double),
    Column("place", BigInteger, comment="in the order of completion"),
    Column("outcome", Text, comment="JSON"),
    Column("raw", Text, comment="JSON, as it came"),
    CheckConstraint(f"bucket BETWEEN 0 AND {BUCKETS - 1}", name="watch_bucket"),  # no worker would poll another one
    sqlite_autoincrement=True,
)
"""The jobs. A row that has ended has its outcome with it: one row per job, and so one outcome."""

IS_PENDING = WATCH.c.state == literal_column(str(PENDING))
"""A literal: a statement with a parameter in its place cannot use the index below."""

Index("watch_pending", WATCH.c.bucket, WATCH.c.seq, postgresql_where=IS_PENDING, sqlite_where=IS_PENDING)

_HAS_ENDED = WATCH.c.place.is_not(None)

Index("watch_ended", WATCH.c.place, unique=True, postgresql_where=_HAS_ENDED, sqlite_where=_HAS_ENDED)

ABOUT = Table(
    "about",
    TABLES,
    Column("version", Integer, nullable=False),
    Column("list", String(8), nullable=False, comment="the name of this watch list in its cursors"),
    Column("places", BigInteger, nullable=False, comment="the last place that was given out"),
    Column("paused", Text, comment="why nothing is polled"),
)
"""One row. Transactions that store outcomes lock it: so places appear in order, and a cursor misses nothing."""

LEASES = Table(
    "leases",
    TABLES,
    Column("name", String(40), primary_key=True, comment="what one worker at a time may hold: see named_leases.py"),
    Column("holder", String(40), nullable=False, comment="the worker that holds it"),
    Column("since", Double, nullable=False, comment="since when, without a break; by the clock of the database"),
    Column("renewed_at", Double, nullable=False),
    Column("expires_at", Double, nullable=False, comment="from then on, any worker may take it"),
    Column("text", Text, comment="what the holder reports"),
)
"""What workers hold, or report, for a limited time. An expired row means as much as none."""

SHARED_RATE = Table(
    "shared_rate", TABLES, Column("next_permit", Double, nullable=False, comment="when the next poll may begin")
)
"""One row: up to when the permits of the rate of all workers have been given out."""

LEARNED_PACE = Table(
    "learned_pace",
    TABLES,
    Column("id", SmallInteger, primary_key=True, autoincrement=False, comment="1: there is one row"),
    Column("pace", Text, comment="JSON, see LearnedPace.to_json"),
    Column("jobs", BigInteger, nullable=False, comment="how many jobs it has learned from"),
    Column("reviews", BigInteger, nullable=False, comment="how many final outcomes after provisional ones, likewise"),
    Column("since", Double, nullable=False, comment="by the clock of the database"),
    Column("updated_at", Double, comment="likewise"),
)
"""One row, or none: what the workers have learned about how long jobs take, see learning.py."""

NOTIFICATIONS = Table(
    "notifications",
    TABLES,
    Column("seq", _SEQUENCE, primary_key=True, autoincrement=True),
    Column("text", Text, nullable=False),
    sqlite_autoincrement=True,
)
"""Notifications of the workers, where the database has no NOTIFY."""


async def _version_1(connection: AsyncConnection, name: str) -> None:
    # Where another session has created the tables meanwhile, this must fail: the rows below would be second ones.
    await connection.run_sync(TABLES.create_all, checkfirst=False)
    await connection.execute(insert(ABOUT).values(version=1, list=name, places=0))
    await connection.execute(insert(SHARED_RATE).values(next_permit=0.0))


STEPS: tuple[Callable[[AsyncConnection, str], Awaitable[None]], ...] = (_version_1,)
"""Migrations, from each version to the next; none of them drops anything. One from a version that exists must lock the
row of `ABOUT` first."""


async def migrate(connection: AsyncConnection, version: int, name: str) -> None:
    """Bring the tables from *version* (0: there are none) to the current one, in one transaction.

    The *name* is for a new list. Nothing is written where the tables are current: a reader does not wait for a
    transaction that stores outcomes.
    """
    if version == len(STEPS):
        return
    for step in STEPS[version:]:
        await step(connection, name)
    await connection.execute(update(ABOUT).values(version=len(STEPS)))
