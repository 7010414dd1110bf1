"""Named leases in the database, which a worker holds, or reports something with, for a limited time.

A lease is a row that expires. Only roles that may write the tables can touch it; an advisory lock is open to every
role of the database. Its instants are of the database's clock alone. A lease that has a renewal time later than now was
renewed before that clock was set back: it counts as expired.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import case, delete, func, or_, select, update

from smilejobs.durable.database import Database
from smilejobs.durable.reading import instant_of
from smilejobs.durable.rows import Health
from smilejobs.durable.schema import IS_PENDING, LEASES, WATCH

SWEEPER = "sweeper"
"""Held by the worker that assigns the buckets: the sweeper of `leases`."""

OUTAGE = "outage"
"""Held by a worker that gets no good answer from the API; its text says what it gets."""

WORKER = "worker "
"""With the name of a worker: held by that worker while it works."""

CLOCK_SLACK_SECONDS = 1.0
"""A step back of the database's clock that is not taken for another clock."""

_MAX_SECONDS = 7 * 86_400.0
"""No lease is longer: one that seems to be was not written by a worker."""

_PRUNED_AFTER_SECONDS = 3600.0
"""Leases that expired so long ago are deleted."""


class NamedLeases:
    """The named leases of one watch list.

    All methods raise `WatchListError` where the database cannot be used.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._clock = database.clock

    async def acquire(self, name: str, holder: str, seconds: float, text: str | None = None) -> bool:
        """Acquire or renew a lease for so many seconds; return whether *holder* holds it then."""
        now = self._clock
        statement = self._database.insert(LEASES).values(
            name=name, holder=holder, since=now, renewed_at=now, expires_at=now + seconds, text=text
        )
        new = statement.excluded
        is_mine, is_free = LEASES.c.holder == holder, self._is_free(new.renewed_at)
        statement = statement.on_conflict_do_update(
            index_elements=[LEASES.c.name],
            set_={
                "holder": new.holder,
                "since": case((is_mine & ~is_free, LEASES.c.since), else_=new.since),
                "renewed_at": new.renewed_at,
                "expires_at": new.expires_at,
                "text": new.text,
            },
            where=or_(is_mine, is_free),
        ).returning(LEASES.c.name)
        async with self._database.writing(quick=True) as connection:
            return bool((await connection.execute(statement)).all())

    async def release(self, holder: str, *names: str) -> None:
        """Give leases back: they expire now. Delete those that expired long ago."""
        mine = update(LEASES).where(LEASES.c.name.in_(names), LEASES.c.holder == holder, ~self._is_free(self._clock))
        is_old = LEASES.c.expires_at < self._clock - _PRUNED_AFTER_SECONDS
        async with self._database.writing(quick=True) as connection:
            await connection.execute(mine.values(expires_at=self._clock))
            await connection.execute(delete(LEASES).where(is_old))

    def count_workers(self, now: Any) -> Any:
        """Return the number of workers that are at work at the instant *now*, as a part of a statement."""
        is_held = ~self._is_free(now)
        return select(func.count()).where(LEASES.c.name.startswith(WORKER), is_held).scalar_subquery()

    async def health(self, paused: str | None) -> Health:
        """Return whether the list is worked on.

        Args:
            paused: Why nothing is polled, if that is so.
        """
        columns = (LEASES.c.name, LEASES.c.since, LEASES.c.text, LEASES.c.expires_at)
        statement = select(*columns, self._is_free(self._clock))
        found = await self._database.read(statement, quick=True)
        rows = [(str(name), *rest) for name, *rest in found]  # SQLite takes values of any type
        texts = {name: (text, since) for name, since, text, _, is_free in rows if not is_free}
        outage, since = texts.get(OUTAGE, (None, None))
        return Health(
            paused=paused,
            outage=None if outage is None else str(outage),
            outage_since=instant_of(since),
            stalled=None if paused is not None else await self._stalled(set(texts), rows),
        )

    async def _stalled(self, held: set[str], rows: Sequence[Sequence[Any]]) -> str | None:
        has_worker = any(name.startswith(WORKER) for name in held)
        if has_worker and (SWEEPER in held or not self._database.is_shared):
            return None
        age = self._clock - WATCH.c.added_at
        first = select(age).where(IS_PENDING).order_by(WATCH.c.bucket, WATCH.c.seq).limit(1)
        ages = [row[0] for row in await self._database.read(first, quick=True)]
        if not any(age is None or age > self._database.tuning.stalled_seconds for age in ages):
            return None
        what = "no worker assigns the buckets" if has_worker else "no worker is at work"
        ended = [end for name, _, _, end, is_free in rows if is_free and name.startswith((WORKER, SWEEPER))]
        ends = [at for at in map(instant_of, ended) if at is not None]
        since = f"since {max(ends).isoformat(timespec='seconds')}" if ends else "and none has been yet"
        return f"jobs are pending, but {what}, {since}: start a worker, or see the log of those that run"

    def _is_free(self, now: Any) -> Any:
        """Return the condition under which a lease has expired at the instant *now*."""
        return or_(
            LEASES.c.expires_at <= now,
            LEASES.c.renewed_at > now + CLOCK_SLACK_SECONDS,
            LEASES.c.expires_at > now + _MAX_SECONDS,  # for PostgreSQL, NaN is the greatest number
        )
