"""The statements of a watch list, in SQLAlchemy's language, for SQLite and PostgreSQL alike."""

import json
from collections.abc import AsyncGenerator, Collection, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Self

import anyio
from attrs import asdict
from sqlalchemy import ARRAY, bindparam, case, delete, func, insert, or_, select, type_coerce, update
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.types import NullType

from smilejobs.durable.database import Database, damaged, open_database
from smilejobs.durable.learning import LearnedRow
from smilejobs.durable.named_leases import CLOCK_SLACK_SECONDS, NamedLeases
from smilejobs.durable.reading import ENDED_COLUMNS, PENDING_COLUMNS, UNREADABLE, Unreadable, instant_of, read_pending
from smilejobs.durable.retrying import Retries
from smilejobs.durable.rows import Counts, Ended, Ending, Health, Pending, epoch, failure, key_of
from smilejobs.durable.schema import (
    ABOUT,
    BUCKETS,
    FAILED,
    IS_PENDING,
    NOTIFICATIONS,
    PENDING,
    SHARED_RATE,
    STATES,
    WATCH,
)
from smilejobs.durable.tuning import DEFAULTS, Tuning
from smilejobs.durable.urls import parse
from smilejobs.errors import WatchListError
from smilejobs.events import logger
from smilejobs.model.jobs import JobRef

_NEW_COLUMNS = ("key", "bucket", "state", "final", "user_id", "job_id", "submitted_at", "added_at", "deadline")


def _select(names: Sequence[str]) -> Any:
    """Select columns as the driver reads them: values that cannot be converted are handled row by row."""
    return select(*(type_coerce(WATCH.c[name], NullType()).label(name) for name in names))


_PENDING_ROWS = _select(PENDING_COLUMNS).where(IS_PENDING)

PERMIT_CHUNK_SECONDS = 0.1
"""The longest time for which a worker reserves permits of the shared rate; another worker's throttle takes effect
within it."""

_PERMIT_SLACK_SECONDS = 0.02
"""The delay of a request for more permits that costs none."""

LOOK = "look"
"""The notification that something may have been missed, or that much has changed."""

ADDED = "added"
"""The notification that there are new jobs."""


class Store:
    """The rows of one watch list.

    All methods raise `WatchListError` where the database cannot be used.

    Attributes:
        name: Of the list, in its cursors.
        is_shared: Whether many workers may use it: PostgreSQL.
        tuning: Intervals and limits, for the modules that use the store.
        connect: Opens a connection to PostgreSQL outside the pool.
        leases: The named leases of the workers.
        learned: What the workers have learned about how long jobs take.
        retry: Does work again while the database is unavailable, see `Retries.while_unavailable`.
    """

    def __init__(self, database: Database, name: str) -> None:
        self._database = database
        self.name = name
        self.retry = Retries().while_unavailable
        self.is_shared = database.is_shared
        self.tuning = database.tuning
        self.connect = database.connect
        self.leases = NamedLeases(database)
        self.learned = LearnedRow(database)

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str, tuning: Tuning = DEFAULTS) -> AsyncGenerator[Self, None]:
        """Open the database that *url* names; see `parse` and `open_database` for what is raised."""
        parsed = parse(url)
        del url  # it holds a password: crash reporters copy the locals of each frame of a traceback
        async with open_database(parsed, tuning) as database:
            yield cls(database, await database.read_one(select(ABOUT.c.list), str))

    # Adding

    async def add(
        self, refs: Collection[JobRef], *, final: bool, deadline: float | None, now: float
    ) -> tuple[int, list[JobRef]]:
        """Add jobs that are not there yet; the others stay as they are.

        Args:
            refs: The jobs, a few thousand.
            final: Wait for a final answer.
            deadline: Seconds from now.
            now: Seconds since 1970.

        Returns:
            How many were added, and those that were there on other terms.
        """
        keys = {key_of(ref): ref for ref in refs}
        rows = (  # crash reporters copy the ids in a list
            (key, key[0], PENDING, final, ref.user_id, ref.job_id, epoch(ref.submitted_at), now, deadline)
            for key, ref in sorted(keys.items())  # in one order: else two transactions could deadlock
        )
        other = select(WATCH.c.key).where(
            WATCH.c.key.in_(list(keys)),
            or_(WATCH.c.final != final, WATCH.c.deadline.is_distinct_from(deadline)),
        )
        async with self._database.writing() as connection:
            added = await (self._add_arrays if self.is_shared else self._add_rows)(connection, rows)
            differ = () if added == len(keys) else (await connection.execute(other)).scalars().all()
            if self.is_shared:
                await self._notify(connection, ADDED)
        return added, [keys[key] for key in differ]

    async def _add_arrays(self, connection: AsyncConnection, rows: Iterable[tuple[object, ...]]) -> int:
        """Add rows as a few arrays, which PostgreSQL takes in many times faster than rows."""
        columns = [WATCH.c[name] for name in _NEW_COLUMNS]
        arrays = select(*(func.unnest(bindparam(column.name, type_=ARRAY(column.type))) for column in columns))
        statement = self._database.insert(WATCH).from_select(columns, arrays, include_defaults=False)
        statement = statement.on_conflict_do_nothing().execution_options(preserve_rowcount=True)
        columns_of_rows = zip(_NEW_COLUMNS, zip(*rows, strict=True), strict=True)
        result = await connection.execute(statement, {name: list(column) for name, column in columns_of_rows})
        return result.rowcount

    async def _add_rows(self, connection: AsyncConnection, rows: Iterable[tuple[object, ...]]) -> int:
        statement = self._database.insert(WATCH).on_conflict_do_nothing()
        result = await connection.execute(statement, [dict(zip(_NEW_COLUMNS, row, strict=True)) for row in rows])
        return result.rowcount

    async def reopen(self, now: float) -> int:
        """Make the jobs that have failed by now pending again, with their whole deadline; return how many.

        After an error, the groups before it are done. The workers are notified at the end: each reads all its jobs
        then.
        """
        last = await self.places()  # what is opened may have failed again before all is
        again = update(WATCH).values(
            state=PENDING,
            submitted_at=func.coalesce(WATCH.c.submitted_at, WATCH.c.added_at),
            added_at=now,
            ended_at=None,
            place=None,
            outcome=None,
            raw=None,
        )
        total = await self._in_groups(again, WATCH.c.state == FAILED, WATCH.c.place <= last)
        await self.notify(LOOK)
        return total

    async def prune(self, before: float) -> int:
        """Delete what ended before the instant *before* (seconds since 1970); return how many."""
        return await self._in_groups(delete(WATCH), WATCH.c.ended_at < before)

    async def _in_groups(self, change: Any, *conditions: Any) -> int:
        """Change the rows that have ended and meet some conditions, in the order of their places; return how many."""
        place = total = 0
        while True:
            left = select(WATCH.c.place).where(WATCH.c.place > place, *conditions).order_by(WATCH.c.place)
            group = left.limit(self.tuning.change_rows).subquery()
            ((last,),) = await self._database.read(select(func.max(group.c.place)))
            if last is None:
                return total
            some = change.where(WATCH.c.place > place, WATCH.c.place <= last, *conditions)
            async with self._database.writing() as connection:
                await self._lock(connection)
                total += (await connection.execute(some)).rowcount
            place = last

    # Polling

    async def pending(
        self, buckets: Collection[int], *, after: int = 0, limit: int | None = None
    ) -> list[Pending | Unreadable]:
        """Return the pending jobs of some buckets, those added after the row *after*, oldest first."""
        some = _PENDING_ROWS.where(WATCH.c.seq > after, _of(buckets)).order_by(WATCH.c.seq).limit(limit)
        return [read_pending(row) for row in await self._database.read(some)]

    async def named(self, key: bytes) -> list[Pending | Unreadable]:
        """Return the pending job that *key* stands for, in a list; an empty one if there is none."""
        one = _PENDING_ROWS.where(WATCH.c.key == key)
        return [read_pending(row) for row in await self._database.read(one, quick=True)]

    async def sums(self, buckets: Collection[int]) -> tuple[int, int]:
        """Return how many jobs of some buckets are pending, and the sum of the numbers of their rows."""
        both = select(func.count(), func.coalesce(func.sum(WATCH.c.seq), 0)).where(IS_PENDING, _of(buckets))
        ((count, numbers),) = await self._database.read(both)
        return int(count), int(numbers)  # PostgreSQL adds big integers as decimals

    async def last(self) -> int:
        """Return the number of the row that was added last."""
        number: int = await self._database.read_one(select(func.coalesce(func.max(WATCH.c.seq), 0)), int)
        return number

    async def buckets(self) -> set[int]:
        """Return the buckets that have pending jobs."""
        every = select(func.generate_series(0, BUCKETS - 1).column_valued("bucket")).subquery()
        some = select(WATCH.c.seq).where(IS_PENDING, WATCH.c.bucket == every.c.bucket).exists()
        return {row[0] for row in await self._database.read(select(every.c.bucket).where(some))}

    async def end(self, endings: Sequence[Ending], now: float) -> None:
        """Store how jobs have ended, at the instant *now* (seconds since 1970).

        The outcome of a job is stored exactly once. It is in the row of the job, and the same statement makes the row
        no longer pending, and changes only rows that are. So a call whose commit was not confirmed can be repeated, and
        of two workers that have polled the same job, the first to store its outcome does, and the other changes
        nothing.

        An outcome that cannot be stored does not keep the others from being: its job has failed.
        """
        try:
            await self._end(WATCH.c.key, [(key_of(ending.ref), ending) for ending in endings], now)
        except WatchListError as error:
            if error.transient:
                raise
            if len(endings) > 1:
                for ending in endings:
                    await self.end([ending], now)
                return
            (ref,) = (ending.ref for ending in endings)
            text = f"the outcome of the job cannot be stored: {error}"
            await self._end(WATCH.c.key, [(key_of(ref), Ending(ref, FAILED, json.dumps(failure(text))))], now)
            logger.error("job %s: %s", ref.tag, text)  # the traceback may quote the answer

    async def fail(self, rows: Sequence[Unreadable], now: float) -> None:
        """Store, at the instant *now*, that jobs have failed whose rows cannot be read."""
        ends = [(row.seq, Ending(UNREADABLE, FAILED, json.dumps(failure(row.text)))) for row in rows]
        await self._end(WATCH.c.seq, ends, now)

    async def _end(self, column: Any, ends: Sequence[tuple[object, Ending]], now: float) -> None:
        """Store the ends of the jobs with some values of a column."""
        statement = (
            update(WATCH)
            .where(column == bindparam("of"), IS_PENDING)
            .values(
                state=bindparam("ended"),
                ended_at=now,
                place=bindparam("at"),
                outcome=bindparam("how"),
                raw=bindparam("answer"),
            )
        )
        async with self._database.writing() as connection:
            first = await self._lock(connection, places=len(ends)) - len(ends) + 1
            await connection.execute(
                statement,
                [
                    {"of": of, "ended": end.state, "how": end.outcome, "answer": end.raw, "at": place}
                    for place, (of, end) in enumerate(ends, first)
                ],
            )

    async def _lock(self, connection: AsyncConnection, *, places: int = 0) -> int:
        """Keep other transactions from changing rows that have ended; return the last place that was given out."""
        statement = update(ABOUT).values(places=ABOUT.c.places + places).returning(ABOUT.c.places)
        return int((await connection.execute(statement)).scalar_one())

    async def pause(self, why: str | None) -> None:
        """Pause the list, and store *why*; None ends the pause."""
        async with self._database.writing(quick=True) as connection:
            await connection.execute(update(ABOUT).values(paused=why))
            await self._notify(connection, LOOK)

    async def paused(self) -> str | None:
        """Return why nothing is polled; None if that is not so."""
        why: str | None = await self._database.read_one(select(ABOUT.c.paused), str, optional=True)
        return why

    async def health(self) -> Health:
        """Return whether the list is worked on. It reads a few rows, however long the list is."""
        return await self.leases.health(await self.paused())

    async def reserve_permits(self, count: int, interval: float) -> tuple[float, float | None]:
        """Reserve the next *count* permits of the shared rate, *interval* seconds apart.

        PostgreSQL only: on SQLite there is one worker, which has the rate to itself. A worker reserves permits for
        `PERMIT_CHUNK_SECONDS` at most, or a single one. So permits further ahead than all workers could have reserved
        are of a clock that has been set back since, or was ahead for a moment: they count as not given out.

        Returns:
            The instant of the first permit, and by how many seconds the permits were too far ahead; None if they were
            not.
        """
        at = self._database.clock
        share = max(PERMIT_CHUNK_SECONDS, interval)
        most = (2 + 2 * self.leases.count_workers(at)) * share + CLOCK_SLACK_SECONDS
        before = select(SHARED_RATE.c.next_permit, at.label("now"), most.label("most"))
        next_permit, now, most = before.with_for_update().cte("before").c
        is_ahead = next_permit > now + most
        begin = case((is_ahead, now), else_=func.greatest(next_permit, now - _PERMIT_SLACK_SECONDS))
        statement = (
            update(SHARED_RATE)
            .values(next_permit=begin + count * interval)
            .returning(begin - at, case((is_ahead, next_permit - now)))
        )
        async with self._database.writing(quick=True) as connection:
            # Permits that are lost with the database do no harm: the disk need not be waited for.
            await connection.execute(select(func.set_config("synchronous_commit", "off", True)))  # noqa: FBT003  # PostgreSQL's signature
            found = (await connection.execute(statement)).all()
            if len(found) != 1:
                raise damaged(len(found))
            delay, ahead = tuple(found[0])
            return anyio.current_time() + delay, ahead

    # Notifications

    async def notify(self, text: str) -> None:
        """Send a notification to all workers."""
        async with self._database.writing(quick=True) as connection:
            await self._notify(connection, text)

    async def _notify(self, connection: AsyncConnection, text: str) -> None:
        if self.is_shared:
            await connection.execute(select(func.pg_notify(self.channel, text)))
        else:
            await connection.execute(insert(NOTIFICATIONS).values(text=text))
            latest = select(func.max(NOTIFICATIONS.c.seq)).scalar_subquery()
            is_old = NOTIFICATIONS.c.seq <= latest - self.tuning.kept_notifications
            await connection.execute(delete(NOTIFICATIONS).where(is_old))

    @property
    def channel(self) -> str:
        """The channel of the notifications in PostgreSQL."""
        return f"smilejobs_{self.name}"

    async def take_notifications(self) -> list[object]:
        """Return and delete the notifications that have been sent. SQLite only: PostgreSQL has LISTEN."""
        if not await self._database.read(select(NOTIFICATIONS.c.seq).limit(1)):
            return []
        async with self._database.writing() as connection:
            return list((await connection.execute(delete(NOTIFICATIONS).returning(NOTIFICATIONS.c.text))).scalars())

    # The view from outside

    async def counts(self) -> Counts:
        """Return how the list stands. A row in an unknown state counts as failed."""
        states = select(WATCH.c.state, func.count(), func.min(WATCH.c.added_at)).group_by(WATCH.c.state)
        by_state: dict[str, Any] = dict.fromkeys(STATES, 0)
        oldest = None
        for state, count, first in await self._database.read(states):
            by_state[STATES[state if state in range(len(STATES)) else FAILED]] += count
            if state == PENDING:
                oldest = instant_of(first)
        health, learned = await self.health(), await self.learned.summary()
        return Counts(**by_state, oldest=oldest, learned=learned, **asdict(health))

    async def ended(self, *, after: int, limit: int) -> list[Ended]:
        """Return the jobs that ended after the place *after*, in order."""
        some = _select(ENDED_COLUMNS).where(WATCH.c.place > after).order_by(WATCH.c.place).limit(limit)
        return [Ended(*row) for row in await self._database.read(some)]

    async def places(self) -> int:
        """Return the last place that was given out."""
        place: int = await self._database.read_one(select(ABOUT.c.places), int)
        return place


def _of(buckets: Collection[int]) -> Any:
    return WATCH.c.bucket >= 0 if len(buckets) == BUCKETS else WATCH.c.bucket.in_(sorted(buckets))
