"""The tables of a watch list, and how those of an older version become those of today."""

from collections.abc import Awaitable, Callable

from sqlalchemy import (
    BigInteger,
    Boolean,
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
    sqlite_autoincrement=True,
)
"""The jobs. A row that has ended has its outcome with it: one row per job, and so one outcome."""

IS_PENDING = WATCH.c.state == literal_column(str(PENDING))
"""Spelled out: a statement with a parameter in its place cannot use the index below."""

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
"""One row. Whoever stores outcomes locks it: so places appear in their order, and a cursor misses nothing."""

LEASES = Table(
    "leases",
    TABLES,
    Column("name", String(40), primary_key=True, comment="what only one may have: see durable/signs.py"),
    Column("holder", String(40), nullable=False, comment="the worker that has it"),
    Column("since", Double, nullable=False, comment="since when, without a break; by the clock of the database"),
    Column("renewed_at", Double, nullable=False),
    Column("expires_at", Double, nullable=False, comment="from then on, any worker may have it"),
    Column("text", Text, comment="what the holder has to say"),
)
"""What workers hold for a while, or say for a while. An expired row means as much as none."""

TURNS = Table("turns", TABLES, Column("next", Double, nullable=False, comment="the next turn of the rate"))
"""One row: up to when the turns of all workers have been given out."""

BELLS = Table(
    "bells",
    TABLES,
    Column("seq", _SEQUENCE, primary_key=True, autoincrement=True),
    Column("text", Text, nullable=False),
    sqlite_autoincrement=True,
)
"""What is called out to the workers, where the database has no NOTIFY."""


async def _version_1(connection: AsyncConnection, name: str) -> None:
    await connection.run_sync(TABLES.create_all)
    await connection.execute(insert(ABOUT).values(version=1, list=name, places=0))
    await connection.execute(insert(TURNS).values(next=0.0))


async def _version_2(connection: AsyncConnection, _name: str) -> None:
    await connection.run_sync(LEASES.create, checkfirst=True)


STEPS: tuple[Callable[[AsyncConnection, str], Awaitable[None]], ...] = (_version_1, _version_2)
"""Forward, from each version to the next; none of them drops anything."""


async def migrate(connection: AsyncConnection, version: int, name: str) -> None:
    """Bring the tables from *version* (0: there are none) to today's, within the transaction of *connection*.

    Where they are today's, nothing is written: who only looks waits for nobody who stores outcomes.

    Args:
        connection: Nobody else may be doing the same.
        version: That of the tables now.
        name: For a new list.
    """
    if version == len(STEPS):
        return
    for step in STEPS[version:]:
        await step(connection, name)
    await connection.execute(update(ABOUT).values(version=len(STEPS)))
