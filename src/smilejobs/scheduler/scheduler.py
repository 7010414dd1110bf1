"""Polls pending jobs when they are due."""

import math
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from itertools import chain

import anyio

from smilejobs.engine import Engine
from smilejobs.errors import CredentialsError, RateLimitedError, SmileJobsError, TooManyFailuresError
from smilejobs.events import PollScheduled, WaitEnded
from smilejobs.model.jobs import Include, JobRef, JobStatus
from smilejobs.notifications import Signal
from smilejobs.outcomes import Outcome, Progress, time_left
from smilejobs.polling.lessons import record_end
from smilejobs.polling.rules import (
    CLOCK_TOLERANCE_SECONDS,
    Done,
    GiveUp,
    Sleep,
    Terms,
    begin,
    make_batch_timeout_error,
    start,
    step,
    wake,
)
from smilejobs.scheduler.api import ApiState
from smilejobs.scheduler.clock import Clock
from smilejobs.scheduler.pending import POLLS_OWED, Entry, PendingJobs, without_raw
from smilejobs.scheduler.polls import Polls, decide
from smilejobs.scheduler.results import Results
from smilejobs.tasks import beside, run_bare

_SAME_TROUBLE_SECONDS = 1.0
"""Throttles of several schedulers within this time are one: they have met the same trouble."""


class Scheduler:
    """Polls jobs from when they are added until each of them has ended.

    Args:
        engine: What the client shares.
        concurrency: How many polls may be under way at once.
        include: What the polls ask for besides the state of a job.
        on_throttle: Called with each answer that throttles this scheduler.
        on_failures: Called after each failed poll, with the number of polls in a row that have failed and the last
            error. What it raises ends the polling.

    Attributes:
        outcomes: How the jobs have ended, to be iterated over once. The iteration raises what has ended the polling:
            the second `CredentialsError` in a row, or an error of the pace of a job.
        polls: How many polls have begun.
        pending: How many outcomes are still to come.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        concurrency: int,
        include: Include = Include(),  # noqa: B008  # frozen
        on_throttle: Callable[[SmileJobsError], None] | None = None,
        on_failures: Callable[[int, SmileJobsError], None] | None = None,
    ) -> None:
        self._exchange = engine.exchange
        self._notifications = engine.notifications
        self._wall_clock = engine.now
        self._concurrency = concurrency
        self._on_failures = on_failures
        self._jobs = PendingJobs(concurrency)
        self._others: dict[JobRef, list[tuple[int, JobRef]]] = {}
        """The index and the ref of each addition of a job that was pending already."""
        self._clock = Clock()
        self._polls = Polls(engine.exchange, include, self._clock)
        self._api = ApiState(engine.exchange.emit, on_throttle)
        self._throttle = self._api.throttle
        self._notified: set[JobRef] = set()
        self.outcomes: Results[Outcome] = Results(concurrency, self._on_room)
        self.polls = 0
        self.pending = 0
        self._started_at = 0.0
        self._added = 0
        self._unpolled = 0
        self._done = 0
        self._failed = 0
        self._last_poll_at = -math.inf
        self._read_at = -math.inf
        self._changed = Signal()
        self._consumed = Signal()
        self._room = Signal()
        self._idle = Signal()

    @asynccontextmanager
    async def running(
        self,
        work: Callable[[], Awaitable[None]] = anyio.sleep_forever,
        *background: Callable[[], Awaitable[None]],
    ) -> AsyncGenerator[Results[Outcome], None]:
        """Poll while the block runs, and return the outcomes.

        Args:
            work: Runs in a task; when it ends, the polling and the outcomes end.
            background: Run in tasks until then. An error of any task ends the polling; the iteration over the outcomes
                raises it.

        Raises:
            RuntimeError: The client is closed, or belongs to another event loop.
        """
        self._exchange.check_usable()
        self._started_at = self._exchange.time()
        self._turn = anyio.Lock(fast_acquire=True)
        scope = anyio.CancelScope()

        async def run() -> None:
            with scope, self._notifications.listen(self._notify), self.outcomes.ending():
                await run_bare(work, background=[*background, *[self._poll_jobs] * self._concurrency])

        async with beside(run, scope.cancel):
            yield self.outcomes

    def __contains__(self, ref: JobRef) -> bool:
        """Return whether a job is pending."""
        return ref in self._jobs

    def add(self, ref: JobRef, terms: Terms, *, first_after: float | None = None) -> None:
        """Add a job. One that is pending already goes on as it does, and has one more outcome.

        Args:
            ref: The job.
            terms: What is wanted for it.
            first_after: Seconds before its first poll; its timeout runs from now then. With None, it is polled as soon
                as there is room, its timeout runs from that poll, and it is polled at least twice.
        """
        index = self._added
        self._added += 1
        self.pending += 1
        if ref in self._jobs:
            self._others.setdefault(ref, []).append((index, ref))
            return
        now = self._clock.at(self._exchange.time())
        entry = Entry(index=index, ref=ref, terms=terms, polls_owed=POLLS_OWED if first_after is None else 0)
        self._jobs.add(entry)
        self._unpolled += 1
        if first_after is not None:
            start(entry, now, self._wall_clock())
        self._put(entry, now + (first_after or 0.0))

    def discard(self, refs: Iterable[JobRef]) -> None:
        """Forget jobs, also those that are being polled: they have no outcome."""
        for ref in refs:
            entry = self._jobs.remove(ref)
            if entry is not None:
                self.pending -= 1 + len(self._others.pop(ref, ()))
                self._unpolled -= not entry.polls
        self._jobs.tidy()

    async def wait_for_room(self, max_pending: int) -> None:
        """Wait until fewer than *max_pending* outcomes are to come, and few jobs wait for their first poll.

        Jobs that wait for a later poll come after those, and so would be late.
        """
        while self.pending >= max_pending or self._unpolled >= self._concurrency:
            await self._room.wait()

    async def wait_until_idle(self) -> None:
        """Wait until no job is pending."""
        while self.pending:
            await self._idle.wait()

    def cut_short(self, why: str, error: TooManyFailuresError | None = None) -> None:
        """Report every pending job as pending, and end the outcomes; the caller ends the polling.

        Args:
            why: Why the polling ends, as a sentence without its full stop.
            error: What the iteration over the outcomes raises at the end.
        """
        now, last_error = self._exchange.time(), None if error is None else error.last_error
        reports = (self._report_pending(entry, why, now, last_error) for entry in self._jobs.clear())
        self.outcomes.end(error, chain.from_iterable(reports))  # the results of polls under way are dropped
        self._failed += self.pending
        self.pending = 0

    def _report_pending(self, entry: Entry, why: str, at: float, last_error: SmileJobsError | None) -> list[Outcome]:
        now = max(self._clock.at(at), entry.started)  # not before it by a rounding error
        if entry.polls_owed and not entry.polls:
            entry.started = now
        entry.last_error = entry.last_error or last_error
        error = make_batch_timeout_error(entry, now, why, timeout=at - self._started_at)
        return self._end_of(entry, GiveUp(error), now)

    def _notify(self, ref: JobRef) -> None:
        if ref in self._jobs:
            self._notified.add(ref)
            self._changed.set()

    def _bring_forward(self, ref: JobRef, now: float) -> None:
        entry = self._jobs.get(ref)
        if entry is None:
            return
        due = wake(entry, now)
        if entry.due is not None and due < entry.due:
            self._jobs.put(entry, due)
            self._jobs.tidy()

    def _put(self, entry: Entry, due: float) -> None:
        if self._jobs.put(entry, due):
            self._changed.set()

    def throttle(self, error: SmileJobsError) -> None:
        """Throttle as if a poll of this scheduler had failed with *error* now: another scheduler's poll has."""
        now = self._exchange.time()
        if self._api.throttled(error, began=now - _SAME_TROUBLE_SECONDS, now=now):
            self._changed.set()

    def is_stuck(self, patience: float) -> bool:
        """Return whether no poll begins although jobs are due and nothing throttles.

        Args:
            patience: Seconds, besides those that a poll may take and those that the rate leaves between two polls.
        """
        now = self._exchange.time()
        if self._throttle.ready_at() > now:
            return False
        between = 0.0 if self._exchange.rate is None else 2 / self._exchange.rate
        return min(-self._until_first(now), now - self._last_poll_at) > patience + self._exchange.longest_poll + between

    def progress(self, total: int | None) -> Progress:
        """Return how far the polling is, if there are *total* jobs in all; None where that is not known."""
        now = self._exchange.time()
        return Progress(
            pending=self.pending,
            done=self._done,
            failed=self._failed,
            polls=self.polls,
            throttled=self._throttle.is_on(now),
            polls_per_second=self._throttle.speed(now),
            eta=time_left(total, self._done + self._failed, now - self._started_at),
        )

    async def _poll_jobs(self) -> None:
        while True:
            async with self._turn:
                entry, began, late = await self._next()
            try:
                await self._poll(entry, began, late)
            finally:
                self._exchange.release()

    async def _next(self) -> tuple[Entry, float, float]:
        """Return the job that is due first as soon as it may be polled, that instant, and how late it is."""
        while True:
            if not self._is_due():
                await self._until_due()
            await self._exchange.acquire()
            self._read_at = real_now = self._exchange.time()
            try:
                taken = self._take(real_now)
            except BaseException:
                self._exchange.release()
                raise
            if taken is not None:
                return taken
            self._exchange.release()

    def _is_due(self) -> bool:
        """Return whether a job was due already when the clock was read last, which saves reading it."""
        if self._notified or not self._clock.is_running:
            return False
        return self._jobs.first_due() < self._clock.at(self._read_at) and self._throttle.ready_at() < self._read_at

    async def _until_due(self) -> None:
        while True:
            while self._clock.is_stopped("consumer"):
                await self._consumed.wait()
            real_now = self._exchange.time()
            while self._notified:
                self._bring_forward(self._notified.pop(), self._clock.at(real_now))
            held = self._throttle.ready_at() - real_now
            delay = self._until_first(real_now)
            # No job's time runs while the throttle keeps back all polls, or those of jobs that are due.
            is_due = delay < CLOCK_TOLERANCE_SECONDS
            if held >= CLOCK_TOLERANCE_SECONDS and (is_due or self._throttle.stopped_for(real_now)):
                self._clock.stop("throttle")
                delay = held
            else:
                self._clock.resume("throttle")
                if is_due:
                    return
            with anyio.move_on_after(delay):
                await self._changed.wait()

    def _until_first(self, real_now: float) -> float:
        """Return the seconds until a job is due."""
        return self._jobs.first_due() - self._clock.at(real_now)

    def _take(self, real_now: float) -> tuple[Entry, float, float] | None:
        """Take the job that is due first, if there still is one, and return it, *real_now*, and how late it is.

        Jobs whose time is over end here.
        """
        now = self._clock.at(real_now)
        while (
            self._jobs.first_due() - now < CLOCK_TOLERANCE_SECONDS
            and self._throttle.ready_at() - real_now < CLOCK_TOLERANCE_SECONDS
        ):
            entry, due = self._jobs.pop_first()
            if not entry.polls:
                if entry.polls_owed:
                    start(entry, now, self._wall_clock())
                self._unpolled -= 1
                if self._unpolled <= self._concurrency // 2:
                    self._room.set()
            over = begin(entry, now, is_owed=entry.is_owed_a_poll)
            if over is None:
                self.polls += 1
                self._last_poll_at = real_now
                self._throttle.begin(real_now)
                return entry, real_now, now - due
            self._finish(entry, over, now)
        return None

    async def _poll(self, entry: Entry, began: float, late: float) -> None:
        observation = await self._polls.poll(entry, began, late)
        self._read_at = real_now = self._exchange.time()
        now = self._clock.at(real_now)
        if observation is not None and self._api.observe(observation, began=began, now=real_now):
            self._changed.set()
        if entry.due is not None:  # it has ended meanwhile
            return
        if entry.polls_owed and not isinstance(observation, RateLimitedError):
            entry.polls_owed -= 1
        if isinstance(observation, JobStatus):
            decision = step(entry, observation, now, api_has_answered=True)
        else:
            stopped_for = self._throttle.stopped_for(real_now)
            has_answered = self._exchange.api_has_answered
            decision = decide(entry, observation, now, stopped_for=stopped_for, api_has_answered=has_answered)
        if isinstance(decision, Sleep):
            entry.last = without_raw(entry.last)
            self._put(entry, now + decision.delay)
            self._exchange.emit(PollScheduled.of(entry, decision.delay))
        else:
            self._finish(entry, decision, now)
        if self._on_failures is not None and isinstance(observation, SmileJobsError):
            self._on_failures(self._api.failures, observation)

    def _finish(self, entry: Entry, decision: Done | GiveUp, now: float) -> None:
        """Put the outcomes of a job that has ended.

        Raises:
            CredentialsError: It is the second in a row.
        """
        outcomes = self._end_of(entry, decision, now)
        if isinstance(decision, GiveUp) and isinstance(decision.error, CredentialsError):
            if self._api.is_refused:
                raise decision.error
            self._api.is_refused = True
        for outcome in outcomes:
            self.outcomes.put(outcome)
            self.pending -= 1
            self._done += outcome.error is None
            self._failed += outcome.error is not None
        self._jobs.remove(entry.ref)
        if self.outcomes.is_full:
            self._clock.stop("consumer")  # the polls under way may take as long as they need
            self._changed.set()
        self._room.set()
        if not self.pending:
            self._idle.set()

    def _end_of(self, entry: Entry, decision: Done | GiveUp, now: float) -> list[Outcome]:
        """Emit the end of a wait, and return its outcomes."""
        record_end(entry, decision)
        self._exchange.emit(ended := WaitEnded.of(entry, decision, now))
        return entry.outcomes(ended, self._others.pop(entry.ref, ()))

    def _on_room(self) -> None:
        self._clock.resume("consumer")
        self._consumed.set()
