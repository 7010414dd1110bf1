"""How a fleet runs and ends, and what is seen of it from outside."""

import math
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sized
from contextlib import asynccontextmanager
from datetime import datetime
from functools import partial
from typing import Self

import anyio

from smilejobs.errors import CredentialsError, SmileJobsError, TooManyFailuresError
from smilejobs.events import WaitEnded
from smilejobs.exchange import Exchange
from smilejobs.fleet.agenda import Agenda, Entry
from smilejobs.fleet.clock import Clock
from smilejobs.model.jobs import JobRef
from smilejobs.outcomes import TICK, JobRefs, Outcome, Progress, time_left
from smilejobs.polling.rules import Done, GiveUp, Terms, describe_error, make_batch_timeout_error
from smilejobs.polling.throttle import Throttle
from smilejobs.tasks import beside
from smilejobs.wakeups import Signal, Wakeups

MAX_FAILURES = 30
"""So many polls in a row without one good answer end a batch. A poll counts if it began after the failure before it was
known, so all that are under way when a connection breaks are one. With the pauses of the throttle they take about ten
minutes: longer than an API needs to restart. More than the 20 that end the wait for one job: the job goes first."""


class BaseFleet(ABC):
    """What `Fleet` is before it polls: iterate over it to get the outcomes. See `Client.wait_many`.

    Args:
        exchange: Asks.
        refs: The jobs.
        terms: What the caller wants, for each.
        wakeups: Says of which jobs there may be news.
        now: The wall clock, aware; read once per job, for its age.
        concurrency: How many polls may be under way at once.
        max_pending: How many jobs may be pending at once.
        on_progress: Told every 0.2 s, and at the end.
        image_links: Ask for links.
        history: Ask for the history.
        on_throttle: Told of an answer that throttled this fleet.
        deadline: Seconds after which what is pending is reported as pending; None for no limit.
        max_failures: So many polls in a row without one good answer end the batch likewise, with an error; None to sit
            out any outage.
    """

    def __init__(
        self,
        exchange: Exchange,
        refs: JobRefs,
        terms: Terms,
        *,
        wakeups: Wakeups,
        now: Callable[[], datetime],
        concurrency: int,
        max_pending: int,
        on_progress: Callable[[Progress], None] | None,
        image_links: bool,
        history: bool,
        on_throttle: Callable[[SmileJobsError], None] | None = None,
        deadline: float | None = None,
        max_failures: int | None = None,
    ) -> None:
        self._exchange = exchange
        self._refs = refs
        self._terms = terms
        self._wakeups = wakeups
        self._wall_clock = now
        self._concurrency = concurrency
        self._max_pending = max_pending
        self._on_progress = on_progress
        self._image_links = image_links
        self._history = history
        self._on_throttle = on_throttle
        self._deadline = deadline
        self._max_failures = math.inf if max_failures is None else max_failures
        self._agenda = Agenda(concurrency)
        self._clock = Clock()
        self._notified: set[JobRef] = set()
        self._total = len(refs) if isinstance(refs, Sized) else None
        self._throttle = Throttle(max_hint=terms.max_hint)
        self._outcomes: deque[Outcome] = deque()
        self._started = 0.0
        self._read = 0
        self._pending = 0
        self._unstarted = 0
        self._done = 0
        self._failed = 0
        self._polls = 0
        self._begun_at = -math.inf
        self._input_ended = False
        self._failures = 0
        self._failed_at = -math.inf
        self._distrusted = False
        self._leftovers: Iterator[Outcome] = iter(())
        self._over = False
        self._error: Exception | None = None
        self._changed = Signal()
        self._news = Signal()
        self._taken = Signal()
        self._room = Signal()

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[Self, None]:
        """Poll while the block runs.

        Raises:
            RuntimeError: The client is closed, or belongs to another event loop.
        """
        self._exchange.check_usable()
        self._started = anyio.current_time()
        self._lead = anyio.Lock(fast_acquire=True)
        self._scope = anyio.CancelScope()
        async with beside(self._run, self._end):
            yield self

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Outcome:
        while not self._outcomes:
            for outcome in self._leftovers:
                return outcome
            if self._error is not None:
                error, self._error = self._error, None
                raise error
            if self._over:
                raise StopAsyncIteration
            await self._news.wait()
        outcome = self._outcomes.popleft()
        if len(self._outcomes) < self._concurrency:
            self._clock.go_on("consumer")
            self._taken.set()
        return outcome

    async def _run(self) -> None:
        with self._scope, self._wakeups.listening(self._wake):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._guarded, self._feed)
                for _ in range(self._concurrency):
                    tasks.start_soon(self._guarded, self._work)
                if self._on_progress is not None:
                    tasks.start_soon(self._guarded, partial(self._tell, self._on_progress))
                if self._deadline is not None:
                    tasks.start_soon(self._guarded, partial(self._until_cut_short, self._deadline))

    async def _guarded(self, work: Callable[[], Awaitable[None]]) -> None:
        """Let an error end the batch; the iteration raises it, bare, after the outcomes that are known."""
        try:
            await work()
        except anyio.get_cancelled_exc_class():
            if not self._scope.cancel_called:
                # By nobody who cancels the batch: a task group takes that for an end like any other.
                self._error = self._error or RuntimeError("something that the batch waited for was cancelled by itself")
                self._end()
            raise
        except Exception as error:  # noqa: BLE001  # the caller's own code runs here, which may raise anything
            self._error = self._error or error
            self._end()

    def _end(self) -> None:
        self._over = True
        self._news.set()
        self._scope.cancel()

    def _complete(self) -> None:
        """All is done."""
        if self._on_progress is not None:
            self._on_progress(self._progress())
        self._end()

    async def _until_cut_short(self, deadline: float) -> None:
        await anyio.sleep_until(self._started + deadline)
        self._cut_short(f"The deadline of the batch, {deadline:.10g} s, has come")

    def _cut_short(self, why: str, last_error: SmileJobsError | None = None) -> None:
        """End the batch; what is pending is reported as pending, and what was not read stays unread."""
        self._leftovers = self._report_pending(why, anyio.current_time(), last_error)
        self._failed += self._pending
        self._pending = 0
        self._complete()

    def _give_up(self, last_error: SmileJobsError) -> None:
        """End the batch with an error: the API cannot be reached, or does not speak of any job."""
        why = f"{self._failures} polls in a row failed without one good answer"
        error = TooManyFailuresError(
            f"{why}, the last one with {describe_error(last_error)}. The jobs may be fine: those that are pending are "
            "reported as pending, wait for them and for the rest of the input again when the API can be reached",
            last_error=last_error,
            polls=self._polls,
        )
        error.__cause__ = last_error
        self._error = error
        self._cut_short(f"The batch has ended: {why}", last_error)

    def _report_pending(self, why: str, real_now: float, last_error: SmileJobsError | None) -> Iterator[Outcome]:
        for entry in self._agenda:
            now = max(self._clock.at(real_now), entry.started)  # not by a rounding error before it
            if not entry.is_started:
                entry.started = now
            entry.last_error = entry.last_error or last_error
            error = make_batch_timeout_error(entry, now, why, timeout=real_now - self._started)
            end = WaitEnded.of(entry, GiveUp(error), now)
            self._exchange.emit(end)
            yield from self._outcomes_of(entry, end)

    def _stand_still(self) -> None:
        """Stop the clock when the consumer has more than it takes; what is under way may take as long as it likes."""
        if len(self._outcomes) >= self._concurrency:
            self._clock.stop("consumer")
            self._changed.set()

    @abstractmethod
    async def _feed(self) -> None:
        """Take in the input."""

    @abstractmethod
    async def _work(self) -> None:
        """Poll jobs, one after another."""

    @abstractmethod
    def _wake(self, ref: JobRef) -> None:
        """Take note that there may be news of a job."""

    def _finish(self, entry: Entry, decision: Done | GiveUp, now: float) -> None:
        """Report the job for every time that the input named it.

        Raises:
            CredentialsError: It is the second in a row.
        """
        end = WaitEnded.of(entry, decision, now)
        self._exchange.emit(end)
        if isinstance(end.error, CredentialsError):
            if self._distrusted:
                raise end.error
            self._distrusted = True
        for outcome in self._outcomes_of(entry, end):
            self._outcomes.append(outcome)
            self._pending -= 1
            self._done += end.error is None
            self._failed += end.error is not None
        self._agenda.remove(entry.ref)
        self._stand_still()
        self._news.set()
        self._room.set()
        if self._input_ended and not self._agenda:
            self._complete()

    @staticmethod
    def _outcomes_of(entry: Entry, end: WaitEnded) -> Iterator[Outcome]:
        for index, ref in ((entry.index, entry.ref), *(entry.others or ())):
            yield Outcome(
                index=index, ref=ref, status=end.status, error=end.error, polls=end.polls, elapsed=end.elapsed
            )

    # The view from outside

    async def _tell(self, on_progress: Callable[[Progress], None]) -> None:
        while True:
            await anyio.sleep(TICK)
            on_progress(self._progress())

    def _progress(self) -> Progress:
        now = anyio.current_time()
        total = self._read if self._input_ended else self._total
        return Progress(
            pending=self._pending,
            done=self._done,
            failed=self._failed,
            polls=self._polls,
            throttled=self._throttle.is_on(now),
            polls_per_second=self._throttle.speed(now),
            eta=time_left(total, self._done + self._failed, now - self._started),
        )
