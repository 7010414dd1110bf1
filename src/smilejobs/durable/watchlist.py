"""The watch list as a service sees it: jobs go in, outcomes come out; `smilejobs.durable.Worker` does the polling."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Self, get_args

import anyio
from attrs import field, frozen

from smilejobs.clock import require_aware, utcnow
from smilejobs.durable.reading import YEARS, State, Unreadable, instant_of, read_outcome, read_ref
from smilejobs.durable.rows import Counts, Ended, Pending, instant, key_of
from smilejobs.durable.schema import BUCKETS
from smilejobs.durable.store import Store
from smilejobs.durable.tuning import DEFAULTS, Tuning
from smilejobs.durable.urls import parse
from smilejobs.durations import Duration, seconds
from smilejobs.events import logger
from smilejobs.model.callback import Callback
from smilejobs.model.jobs import JobRef
from smilejobs.outcomes import JobRefs, Record, each, job_ref
from smilejobs.polling.rules import Until

_EPOCH = instant(0.0)
"""In place of an instant that cannot be read."""

_LAST = datetime(YEARS[1], 12, 31, tzinfo=UTC).timestamp()

_MAX_DIGITS = 18
"""Digits of a place, which every database can hold as a number."""


@frozen(kw_only=True)
class Added:
    """The result of `WatchList.add`.

    Attributes:
        new: How many jobs it added.
        known: How many were in the list before, or came twice.
        different: Those of the known that are in the list on other terms, which stay as they are.
    """

    new: int
    known: int
    different: tuple[JobRef, ...]


@frozen(kw_only=True)
class WatchedJob:
    """A job that a watch list waits for.

    Attributes:
        ref: The job.
        until: "complete" or "final".
        added_at: When it was added, or opened again (aware).
        expires_at: When its deadline is (aware); None for never.
    """

    ref: JobRef
    until: Until
    added_at: datetime
    expires_at: datetime | None


@frozen(kw_only=True)
class WatchOutcome(Record):
    """The outcome of a job of a watch list: a `Record` with its place in the list.

    The values of an expired job are those of the last answer; its *error* is None.

    Attributes:
        cursor: Its place in the list, for `WatchList.outcomes`.
        ref: The job.
        state: "complete", "failed" (the API refused the job for good, or its answer could not be trusted), or "expired"
            (its deadline came first).
        added_at: When the job was added (aware).
        ended_at: When its outcome was stored (aware).
        raw: The answer as it came, personal data included, if the worker was asked to keep it.
    """

    cursor: str
    ref: JobRef
    state: State
    added_at: datetime
    ended_at: datetime
    raw: dict[str, object] | None = field(default=None, repr=False, eq=False)


class WatchList:
    """Jobs that are waited for in a database, by workers that may start and stop at any time; see `WatchList.open`.

    Every method raises `WatchListError` if the database cannot be used; transient where it may be later.

    Attributes:
        store: The rows, for the workers.
        url: The URL of the database.
        now: The wall clock.
    """

    def __init__(self, store: Store, url: str, now: Callable[[], datetime]) -> None:
        self.store = store
        self.url = url
        self.now = now

    @classmethod
    def open(
        cls, url: str, *, now: Callable[[], datetime] = utcnow, tuning: Tuning = DEFAULTS
    ) -> AbstractAsyncContextManager[Self]:
        """Open the watch list in a database, and make its tables if they are not there.

        ::

            async with WatchList.open("sqlite:///jobs.db") as watch:
                await watch.add(refs)

        Args:
            url: ``sqlite:///`` and a path, or ``postgresql://`` and so on. On PostgreSQL, all tables are in the schema
                ``smilejobs``.
            now: The wall clock, aware.
            tuning: Intervals and limits of this watch list and of its workers; the defaults are for production.

        Raises:
            TypeError: An argument of the wrong type.
            ValueError: No watch list can be stored there.
            WatchListError: On entering: the database cannot be reached or written, or its tables are of a newer version
                of smilejobs or of another program.
        """
        address = _Address(url)
        del url

        @asynccontextmanager
        async def opening() -> AsyncGenerator[Self, None]:
            async with Store.open(address.url, tuning) as store:
                yield cls(store, address.url, clock)

        parse(address.url)
        clock = require_aware(now)
        return opening()

    @property
    def path(self) -> str:
        """The file of a watch list in SQLite."""
        return parse(self.url).database or ""

    async def add(
        self, refs: JobRefs, *, until: Until = "complete", deadline: Duration | None = timedelta(days=7)
    ) -> Added:
        """Add jobs. Those that are in the list already, pending or not, stay as they are.

        The jobs are stored in groups of some thousands; after an error, add all of them again.

        Args:
            refs: `JobRef`s, or pairs of user_id and job_id, from any iterable or async iterable. The age of a job, by
                which it is paced, counts from its ``submitted_at``, or else from now.
            until: "complete" or "final", as for `Client.wait`.
            deadline: Seconds from now (or a timedelta) after which a job expires; one poll at least is made before.
                None for never.

        Raises:
            TypeError: An argument of the wrong type.
            ValueError: An argument is invalid; the groups before it are stored.
            WatchListError: The database cannot be used.
        """
        if until not in get_args(Until):
            raise ValueError("until must be 'complete' or 'final'")
        within = None if deadline is None else seconds(deadline, "deadline", zero=False)
        count = new = 0
        different: list[JobRef] = []
        async with aclosing(_grouped(refs, self.store.tuning.add_rows)) as groups:
            async for group in groups:
                now = self.now().timestamp()
                added, differ = await self.store.add(group, final=until == "final", deadline=within, now=now)
                count += len(group)
                new += added
                different += differ
        return Added(new=new, known=count - new, different=tuple(different))

    async def pending(self) -> AsyncIterator[WatchedJob]:
        """Yield the jobs that are waited for, in the order in which they were added."""
        seq = 0
        while rows := await self.store.pending(range(BUCKETS), after=seq, limit=self.store.tuning.page_rows):
            for row in rows:
                seq = row.seq
                if isinstance(row, Unreadable):
                    logger.warning("%s; a worker will store that the job has failed", row.text)
                else:
                    yield _watched(row)

    async def outcomes(self, *, after: str | None = None, follow: bool = False) -> AsyncIterator[WatchOutcome]:
        """Yield outcomes in the order in which they were stored.

        Args:
            after: The cursor of the last outcome that you have processed; None for all from the beginning. Every
                outcome after it is yielded, once.
            follow: Wait for more after the last one. Otherwise the iteration ends there.

        Raises:
            ValueError: *after* is no cursor of this watch list, or is ahead of it, as after a restore of a backup.
            WatchListError: The database cannot be used.
        """
        place = self._place(after)
        if place and place > await self.store.places():
            raise ValueError(
                "this cursor is ahead of the watch list, whose database is an older one, perhaps a backup: begin with "
                "an older cursor, or without one"
            )
        while True:
            rows = await self.store.ended(after=place, limit=self.store.tuning.page_rows)
            for row in rows:
                place = row.place
                yield self._outcome(row)
            if not rows:
                if not follow:
                    return
                await anyio.sleep(self.store.tuning.follow_seconds)

    async def counts(self) -> Counts:
        """Return how many jobs are pending, complete, failed and expired, since when, and whether polling is paused."""
        return await self.store.counts()

    async def retry(self) -> int:
        """Make the jobs that have failed pending again, with their whole deadline; return how many.

        Their outcomes are deleted; each job gets a new one, after all that there are now. Jobs are changed in groups of
        some thousands; after an error, or a kill, call it again.
        """
        return await self.store.reopen(self.now().timestamp())

    async def prune(self, *, older_than: Duration) -> int:
        """Delete the jobs that ended more than *older_than* seconds (or a timedelta) ago; return how many.

        A job that was deleted is a new one if it is added again. Jobs are deleted in groups of some thousands.

        Raises:
            TypeError: It is no duration.
            ValueError: It is negative or not finite.
        """
        return await self.store.prune(self.now().timestamp() - seconds(older_than, "older_than"))

    async def notify(self, news: Callback | JobRef) -> None:
        """Notify the worker that has a job, so that it polls it at once: there may be news of it. See `Client.notify`.

        Args:
            news: What `CallbackVerifier.verify` returned, or just the job.

        Raises:
            TypeError: *news* is something else.
        """
        ref = news.ref if isinstance(news, Callback) else news
        if not isinstance(ref, JobRef):
            raise TypeError(f"news must be a Callback or a JobRef, not {type(news).__name__}")
        await self.store.notify(f"news {key_of(ref).hex()}")

    def _place(self, cursor: str | None) -> int:
        if cursor is None:
            return 0
        name, _, place = cursor.partition("-") if isinstance(cursor, str) else ("", "", "")
        if not (place.isascii() and place.isdecimal() and len(place) <= _MAX_DIGITS):
            raise ValueError("after must be the cursor of an outcome of this watch list")
        if name != self.store.name:
            raise ValueError("this cursor is of another watch list: begin without one, or open the other list")
        return int(place)

    def _outcome(self, row: Ended) -> WatchOutcome:
        ref, state, known, raw = read_outcome(row)
        return WatchOutcome(
            cursor=f"{self.store.name}-{row.place}",
            ref=ref,
            state=state,
            added_at=instant_of(row.added_at) or _EPOCH,
            ended_at=instant_of(row.ended_at) or _EPOCH,
            raw=raw,
            **known,
        )


def _watched(row: Pending) -> WatchedJob:
    return WatchedJob(
        ref=read_ref(row),
        until="final" if row.final else "complete",
        added_at=instant(row.added_at),
        expires_at=None if row.deadline is None else instant(min(row.added_at + row.deadline, _LAST)),
    )


def problem_of(ref: JobRef) -> str | None:
    """Return why a job cannot be stored; None if it can."""
    if "\0" in ref.user_id or "\0" in ref.job_id:
        return "an id with a NUL character cannot be stored"
    if ref.submitted_at is not None and not YEARS[0] <= ref.submitted_at.year <= YEARS[1]:
        return f"submitted_at must be in the years {YEARS[0]} to {YEARS[1]}"
    return None


@frozen
class _Address:
    """The URL of a database; its repr leaves out the URL, which holds a password."""

    url: str = field(repr=False)


async def _grouped(refs: JobRefs, size: int) -> AsyncGenerator[list[JobRef], None]:
    """Yield refs in groups of *size*.

    Raises:
        ValueError: A ref cannot be stored.
    """
    group: list[JobRef] = []
    index = 0
    async with aclosing(each(refs)) as items:
        async for item in items:
            ref = job_ref(item, index)
            problem = problem_of(ref)
            if problem is not None:
                del item, ref, group  # crash reporters copy the locals of each frame of a traceback
                raise ValueError(f"refs[{index}]: {problem}")
            group.append(ref)
            index += 1
            if len(group) == size:
                yield group
                group = []
    if group:
        yield group
