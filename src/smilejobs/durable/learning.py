"""How the workers of a watch list learn together how long its jobs take; see `LearnedPace`.

The list has one row with what has been learned. Each worker keeps the lessons of its waits, and about once a minute it
locks the row, teaches these lessons to the pace in it, writes it, and polls by it. So the row has learned exactly what
one worker would have that saw all these jobs in the order of the writes: no lesson is lost, none counts twice, and all
are forgotten at the same rate.
"""

import json
import random
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import anyio
from sqlalchemy import select, type_coerce, update
from sqlalchemy.types import NullType

from smilejobs.durable.database import Database
from smilejobs.durable.reading import instant_of
from smilejobs.durable.rows import Learned
from smilejobs.durable.schema import LEARNED_PACE
from smilejobs.errors import WatchListError
from smilejobs.events import logger
from smilejobs.polling.learned_pace import LearnedPace
from smilejobs.polling.saved import OtherVersionError

MAX_LESSONS = 3000
"""Lessons that a worker keeps while it cannot write them; an older one would weigh less than one in a hundred."""

_ROW = 1
"""The key of the row."""


class Lesson(NamedTuple):
    """What one wait teaches; see `LearnedPace.observe`."""

    pending_at: float
    complete_at: float | None
    provisional: bool

    def teach(self, pace: LearnedPace) -> None:
        """Teach it to a pace."""
        pace.observe(pending_at=self.pending_at, complete_at=self.complete_at, provisional=self.provisional)


class Change(NamedTuple):
    """What is stored in the row: a pace as JSON, and how many more jobs and reviews it has learned from."""

    pace: str
    jobs: int
    reviews: int


class LearnedRow:
    """The row of a watch list with what has been learned about it.

    All methods raise `WatchListError` where the database cannot be used.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._clock = database.clock

    async def change(self, decide: Callable[[object], Change | None]) -> None:
        """Change what is stored, in one transaction for which those of other workers wait.

        Args:
            decide: Returns the change for the pace that is stored, which is None if there is none yet; None for none.
        """
        new = self._database.insert(LEARNED_PACE).values(id=_ROW, jobs=0, reviews=0, since=self._clock)
        text = self._select(LEARNED_PACE.c.pace).with_for_update()
        async with self._database.writing(quick=True) as connection:
            await connection.execute(new.on_conflict_do_nothing())  # a row that is not there cannot be locked
            change = decide((await connection.execute(text)).scalar_one())
            if change is not None:
                values = {
                    "pace": change.pace,
                    "jobs": LEARNED_PACE.c.jobs + change.jobs,
                    "reviews": LEARNED_PACE.c.reviews + change.reviews,
                    "updated_at": self._clock,
                }
                await connection.execute(update(LEARNED_PACE).where(LEARNED_PACE.c.id == _ROW).values(values))

    async def summary(self) -> Learned | None:
        """Return what has been learned, in figures; None if nothing has been."""
        columns = LEARNED_PACE.c
        statement = self._select(columns.pace, columns.jobs, columns.reviews, columns.since, columns.updated_at)
        for pace, jobs, reviews, since, updated_at in await self._database.read(statement, quick=True):
            if pace is not None:
                return Learned(
                    jobs=jobs if isinstance(jobs, int) else 0,
                    reviews=reviews if isinstance(reviews, int) else 0,
                    remembered=_remembered(pace),
                    since=instant_of(since),
                    updated_at=instant_of(updated_at),
                )
        return None

    def _select(self, *columns: Any) -> Any:
        """Return a statement that reads columns as the driver does: other programs can write the row."""
        return select(*(type_coerce(column, NullType()) for column in columns)).where(LEARNED_PACE.c.id == _ROW)


def _remembered(text: object) -> int | None:
    try:
        return round(_read(text).jobs)
    except ValueError:
        return None


def _read(text: object) -> LearnedPace:
    """Return the pace that is stored.

    Raises:
        OtherVersionError: Another version of this library has written it.
        ValueError: It is not a whole pace.
    """
    if not isinstance(text, str):
        raise ValueError("it is no text")  # noqa: TRY004  # the row is wrong, no argument
    return LearnedPace.from_json(text)


class ListPace(LearnedPace):
    """A pace that keeps what it is taught, until the lessons are written; it begins with what *first* knows.

    Attributes:
        lessons: Those that are not written yet, the newest last; at most `MAX_LESSONS`.
        taught: How many lessons there were in all.
    """

    def __init__(self, first: LearnedPace) -> None:
        super().__init__(base=first.base, lateness=first.lateness)
        self.lessons: deque[Lesson] = deque(maxlen=MAX_LESSONS)
        self.taught = 0
        self.take_over(LearnedPace.from_json(first.to_json()))

    def observe(self, *, pending_at: float, complete_at: float | None, provisional: bool = False) -> None:
        """Learn from one job, and keep the lesson. See `LearnedPace.observe`."""
        super().observe(pending_at=pending_at, complete_at=complete_at, provisional=provisional)
        self.lessons.append(Lesson(pending_at, complete_at, provisional))
        self.taught += 1

    def drop(self, taught: int) -> None:
        """Drop the lessons up to number *taught*: they are written."""
        while len(self.lessons) > self.taught - taught:
            self.lessons.popleft()

    def take_over(self, pace: LearnedPace) -> None:
        """Go on from what *pace* has learned, and from the lessons that are kept; *pace* must not be used any more."""
        for lesson in self.lessons:
            lesson.teach(pace)
        self._complete, self._final = pace._complete, pace._final  # noqa: SLF001  # of its own class


class Learning:
    """Shares what one worker learns with the other workers of its list.

    Nothing about it ends a worker or its polling: where the row cannot be used, the worker learns on its own.

    Args:
        row: The row of the list.
        first: The pace for a list about which nothing has been learned.
        retry: `Store.retry`.
        interval: Seconds between two writes.

    Attributes:
        pace: The pace of the worker.
    """

    def __init__(
        self,
        row: LearnedRow,
        first: LearnedPace,
        retry: Callable[[Callable[[], Awaitable[None]]], Awaitable[None]],
        interval: float,
    ) -> None:
        self._row = row
        self._retry = retry
        self._interval = interval
        self._first = first.to_json()
        self._sent: tuple[str, int] | None = None
        self._warnings: set[str] = set()
        self.pace = ListPace(first)

    async def run(self) -> None:
        """Share what is learned at regular intervals, until cancelled."""
        while True:
            await anyio.sleep(self._interval * random.uniform(1.0, 1.2))  # workers that start at once drift apart
            await self.sync()

    async def sync(self) -> None:
        """Write the lessons that are kept, and take over those of the other workers."""
        try:
            await self._retry(self._sync)
        except WatchListError as error:
            self._warn(f"the learned pace cannot be stored, so this worker learns on its own: {error}")

    async def _sync(self) -> None:
        stored: LearnedPace | None = None
        taught = 0

        def decide(found: object) -> Change | None:
            nonlocal stored, taught
            if self._sent is not None and found == self._sent[0]:  # the commit of the last attempt was not confirmed
                self.pace.drop(self._sent[1])
            stored, taught = self._with_lessons(found), self.pace.taught
            lessons = len(self.pace.lessons)
            if stored is None or not lessons:
                return None
            self._sent = stored.to_json(), taught
            reviews = sum(lesson.provisional for lesson in self.pace.lessons)
            return Change(self._sent[0], lessons - reviews, reviews)

        await self._row.change(decide)
        self._sent = None
        if stored is not None:
            self.pace.drop(taught)
            self.pace.take_over(stored)

    def _with_lessons(self, found: object) -> LearnedPace | None:
        """Return what the row says, and the lessons besides; None if the row must stay as it is."""
        try:
            pace = LearnedPace.from_json(self._first) if found is None else self._rebased(_read(found))
            for lesson in self.pace.lessons:
                lesson.teach(pace)
        except OtherVersionError as error:
            self._warn(
                f"the learned pace of the watch list stays as it is, and this worker learns on its own: {error}; run "
                "the same version of smilejobs in all workers"
            )
            return None
        except Exception as error:  # noqa: BLE001  # other programs can write the row, and numbers that fit no estimate
            self._warn(
                f"the learned pace of the watch list is damaged ({type(error).__name__}: {error}); what this worker "
                "knows replaces it, nothing needs to be done"
            )
            return LearnedPace.from_json(self.pace.to_json())
        return pace

    def _rebased(self, pace: LearnedPace) -> LearnedPace:
        """Return a pace with what *pace* has learned and the base of this worker: how long jobs take is the same."""
        base, lateness = self.pace.base, self.pace.lateness
        if (pace.base, pace.lateness) == (base, lateness):
            return pace
        self._warn(
            f"the learned pace of the watch list has the base {pace.base} and the lateness {pace.lateness}, and goes "
            "on with those of this worker; give all workers the same, so that it is not planned anew at each change"
        )
        own = LearnedPace(base=base, lateness=lateness)
        kept = json.loads(own.to_json())
        parts = {name: kept[name] for name in ("base", "lateness")}
        return LearnedPace.from_json(json.dumps(json.loads(pace.to_json()) | parts)).merge(own)

    def _warn(self, problem: str) -> None:
        """Log a warning once."""
        if problem not in self._warnings:
            self._warnings.add(problem)
            logger.warning("%s", problem)
