"""Polls the jobs of an agenda, and hands out their outcomes."""

import math
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator, Sized
from contextlib import aclosing, asynccontextmanager
from datetime import datetime
from functools import partial
from typing import Self

import anyio

from smilejobs.errors import (
    ApiError,
    CredentialsError,
    RequestError,
    SmileJobsError,
    TooManyFailuresError,
    WaitTimeoutError,
)
from smilejobs.events import PollFailed, PollScheduled, Throttled, WaitEnded
from smilejobs.exchange import Exchange
from smilejobs.fleet.agenda import Agenda, Entry, kept
from smilejobs.fleet.clock import Clock, Stop
from smilejobs.model.jobs import JobRef, JobStatus
from smilejobs.outcomes import TICK, JobRefLike, JobRefs, Outcome, Progress, each, job_ref, time_left
from smilejobs.polling.rules import (
    SAME_INSTANT,
    Decision,
    Done,
    GiveUp,
    Sleep,
    Terms,
    begin,
    cut_short,
    end,
    is_outage,
    start,
    step,
    timed_out,
    wake,
)
from smilejobs.polling.throttle import Throttle
from smilejobs.tasks import beside
from smilejobs.wakeups import Signal, Wakeups
from smilejobs.wire.protocol import accepts_credentials

_TOGETHER = 1.0
"""Seconds within which the throttles of several fleets are one: they have met the same trouble."""


MAX_FAILURES = 30
"""So many polls in a row without one good answer end a batch. A poll counts if it began after the failure before it was
known, so all that are under way when a connection breaks are one. With the pauses of the throttle they take about ten
minutes: longer than an API needs to restart. More than the 20 that end the wait for one job: the job goes first."""


class Fleet:
    """Polls jobs until each has ended; iterate over it to get the outcomes. See `Client.wait_many`.

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
            self._clock.go_on(Stop.CONSUMER)
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
            f"{why}, the last one with {type(last_error).__name__}; the jobs may be fine: those that are pending are "
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
            error = cut_short(entry, now, why, timeout=real_now - self._started)
            end = WaitEnded.of(entry, GiveUp(error), now)
            self._exchange.emit(end)
            yield from self._outcomes_of(entry, end)

    # The input

    async def _feed(self) -> None:
        async with aclosing(each(self._refs)) as items:
            async for item in items:
                await self._admit(item)
        self._input_ended = True
        if not self._agenda:
            self._complete()

    async def _admit(self, item: JobRefLike) -> None:
        """Take a job in, and wait until there is room for another.

        Few wait for their first poll: those that are pending would be polled after them, and so too late.
        """
        index = self._read
        ref = job_ref(item, index)
        self._read += 1
        self._pending += 1
        pending = self._agenda.get(ref)
        if pending is None:
            entry = Entry(index=index, ref=ref, terms=self._terms)
            self._agenda.add(entry)
            self._unstarted += 1
            self._put(entry, self._clock.at(anyio.current_time()))
        elif pending.others is None:
            pending.others = [(index, ref)]
        else:
            pending.others.append((index, ref))
        while self._pending >= self._max_pending or self._unstarted >= self._concurrency:
            await self._room.wait()

    def take_in(self, ref: JobRef, terms: Terms, *, first_after: float) -> None:
        """Take in a job beside the input, unless it is pending. There is always room, and its timeout runs from now.

        Args:
            ref: The job.
            terms: What is wanted for it.
            first_after: Seconds before its first poll.
        """
        if self._agenda.get(ref) is not None:
            return
        now = self._clock.at(anyio.current_time())
        entry = Entry(index=self._read, ref=ref, terms=terms)
        self._agenda.add(entry)
        self._start(entry, now)
        self._read += 1
        self._pending += 1
        self._unstarted += 1
        self._put(entry, now + first_after)

    def withdraw(self, refs: Iterable[JobRef]) -> None:
        """Forget jobs, those that are being polled too: there will be no outcome."""
        for ref in refs:
            entry = self._agenda.remove(ref)
            if entry is not None:
                self._pending -= 1
                self._unstarted -= not entry.polls
        self._agenda.tidy()

    def _start(self, entry: Entry, now: float) -> None:
        start(entry, now, self._wall_clock())
        entry.is_started = True

    # The workers

    async def _work(self) -> None:
        while True:
            async with self._lead:
                entry, began, late = await self._next()
            try:
                await self._poll(entry, began, late)
            finally:
                self._exchange.end_turn()

    async def _next(self) -> tuple[Entry, float, float]:
        """Return the job that is due first, as soon as it may be polled, that instant, and how late it is."""
        while True:
            await self._until_due()
            await self._exchange.take_turn()
            began = anyio.current_time()
            try:
                taken = self._take(began)
            except BaseException:
                self._exchange.end_turn()
                raise
            if taken is not None:
                entry, late = taken
                return entry, began, late
            self._exchange.end_turn()

    async def _until_due(self) -> None:
        while True:
            while self._clock.is_stopped(Stop.CONSUMER):
                await self._taken.wait()
            real_now = anyio.current_time()
            while self._notified:
                self._bring_forward(self._notified.pop(), self._clock.at(real_now))
            held = self._throttle.ready_at() - real_now
            delay = self._until_first(real_now)
            # No job's time runs while the throttle keeps back all polls, or those of jobs that are due.
            if held >= SAME_INSTANT and (delay < SAME_INSTANT or self._throttle.stopped_for(real_now)):
                self._clock.stop(Stop.THROTTLE)
                delay = held
            else:
                self._clock.go_on(Stop.THROTTLE)
                if delay < SAME_INSTANT:
                    return
                delay = min(delay, self._until_deadline(real_now))
            with anyio.move_on_after(delay):
                await self._changed.wait()

    def _stand_still(self) -> None:
        """Stop the clock when the consumer has more than it takes; what is under way may take as long as it likes."""
        if len(self._outcomes) >= self._concurrency:
            self._clock.stop(Stop.CONSUMER)
            self._changed.set()

    def _wake(self, ref: JobRef) -> None:
        if self._agenda.get(ref) is not None:
            self._notified.add(ref)
            self._changed.set()

    def _bring_forward(self, ref: JobRef, now: float) -> None:
        entry = self._agenda.get(ref)
        if entry is None:
            return
        due = wake(entry, now)
        if entry.due is not None and due < entry.due:
            self._agenda.put(entry, due)
            self._agenda.tidy()

    def throttle(self, trouble: SmileJobsError) -> None:
        """Throttle as if a poll of this fleet had met *trouble* now: another fleet did."""
        now = anyio.current_time()
        self._throttles(trouble, now - _TOGETHER, now)

    def _until_first(self, real_now: float) -> float:
        """Return the seconds until something is due."""
        first = self._agenda.first()
        return math.inf if first is None or first.due is None else first.due - self._clock.at(real_now)

    def _until_deadline(self, real_now: float) -> float:
        """End the jobs whose time is over although they were not polled when due; return the seconds to the next."""
        now = self._clock.at(real_now)
        while (entry := self._agenda.first()) is not None:
            over = end(entry, now)
            if over is None:
                return math.inf if entry.deadline is None or not entry.polls else entry.deadline - now
            self._agenda.take_first()
            self._finish(entry, over, now)
        return math.inf

    def _take(self, real_now: float) -> tuple[Entry, float] | None:
        """Take the job that is due first, if there still is one; those whose time is over end here."""
        now = self._clock.at(real_now)
        while max(self._until_first(real_now), self._throttle.ready_at() - real_now) < SAME_INSTANT:
            entry, due = self._agenda.take_first()
            if not entry.is_started:
                self._start(entry, now)
            if not entry.polls:
                self._unstarted -= 1
                if self._unstarted <= self._concurrency // 2:
                    self._room.set()
            over = begin(entry, now)
            if over is not None and self._owes_a_poll_to(entry):
                entry.started = now + self._exchange.longest_poll - (entry.terms.timeout or 0.0)
                over = begin(entry, now)
            if over is None:
                self._polls += 1
                self._throttle.begin(real_now)
                return entry, now - due
            self._finish(entry, over, now)
        return None

    def _put(self, entry: Entry, due: float) -> None:
        if self._agenda.put(entry, due):
            self._changed.set()

    async def _poll(self, entry: Entry, began: float, late: float) -> None:
        observation: JobStatus | SmileJobsError | None = None
        try:
            now = self._clock.at(began)
            left = math.inf if entry.deadline is None else entry.deadline - now
            # A job that was taken in when its time was almost over gets one whole poll all the same.
            if left > self._exchange.longest_poll or (entry.polls == 1 and entry.started < now):
                observation = await self._ask(entry, began, late)
            else:
                observation = await self._ask_until(began + left, entry, began, late)
        except SmileJobsError as error:
            # Its traceback would keep the frames of the poll, and with them the whole answer.
            observation = error.with_traceback(None)
        except Exception as error:  # noqa: BLE001  # whatever one job meets must not end the others
            observation = self._unexpected(entry, error, began, late)
        real_now = anyio.current_time()
        now = self._clock.at(real_now)
        if observation is not None:
            self._heed(observation, began, real_now)
        if self._agenda.get(entry.ref) is not entry:
            return
        if observation is None:
            self._finish(entry, GiveUp(timed_out(entry, now)), now)
            return
        decision = self._decide(entry, observation, real_now)
        if isinstance(decision, Sleep):
            entry.last = kept(entry.last)
            self._put(entry, now + decision.delay)
            self._exchange.emit(PollScheduled.of(entry, decision.delay))
        else:
            self._finish(entry, decision, now)
        if self._failures >= self._max_failures and isinstance(observation, SmileJobsError):
            self._give_up(observation)

    def _decide(self, entry: Entry, observation: JobStatus | SmileJobsError, real_now: float) -> Decision:
        """Apply the rules; the time for which everything is stopped counts as rest of a job that has failed.

        This fleet's clock stands still meanwhile, so that the rest would come on top.
        """
        now = self._clock.at(real_now)
        api_has_answered = self._exchange.api_has_answered
        if isinstance(observation, JobStatus) or not is_outage(observation):
            return step(entry, observation, now, api_has_answered=api_has_answered)
        stopped = self._throttle.stopped_for(real_now)
        decision = step(entry, observation, now - stopped, api_has_answered=api_has_answered)
        if isinstance(decision, Sleep):
            return Sleep(max(0.0, decision.delay - stopped))
        if isinstance(decision.error, WaitTimeoutError):
            rest = min(observation.retry_after or 0.0, entry.terms.max_hint)
            if not self._owes_a_poll_to(entry):
                return GiveUp(timed_out(entry, now, retry_after=observation.retry_after))
            entry.started += rest
            return Sleep(rest)
        return decision

    def _owes_a_poll_to(self, entry: Entry) -> bool:
        """Whether a job of the input has been polled only once, so that its time cannot be over."""
        return entry.polls == 1 and entry.terms is self._terms

    def _unexpected(self, entry: Entry, error: Exception, began: float, late: float) -> RequestError:
        """Return an error of ours for one that nothing below this has expected."""
        ours = RequestError(
            f"the poll failed unexpectedly with {type(error).__name__}; report it to smilejobs if it stays",
            ref=entry.ref,
        )
        seconds = anyio.current_time() - began
        self._exchange.emit(PollFailed(ref=entry.ref, wait=entry, error=ours, seconds=seconds, late=late))
        return ours

    async def _ask(self, entry: Entry, began: float, late: float) -> JobStatus:
        return await self._exchange.poll_in_turn(
            entry.ref, image_links=self._image_links, history=self._history, wait=entry, began=began, late=late
        )

    async def _ask_until(self, real_deadline: float, entry: Entry, began: float, late: float) -> JobStatus | None:
        """Ask, up to a deadline that is put off while the clock stands still."""
        with anyio.CancelScope() as scope, self._clock.cutting(scope, real_deadline):
            return await self._ask(entry, began, late)
        return None

    def _heed(self, observation: JobStatus | SmileJobsError, began: float, now: float) -> None:
        """Take in what a poll says of the API as a whole."""
        throttles = self._throttles(observation, began, now)
        if accepts_credentials(observation):
            self._distrusted = False
        if _is_about_the_job(observation):
            self._failures = 0
        elif began >= self._failed_at:
            self._failures += 1
            self._failed_at = now
        if throttles and self._on_throttle is not None and not isinstance(observation, JobStatus):
            self._on_throttle(observation)

    def _throttles(self, observation: JobStatus | SmileJobsError, began: float, now: float) -> bool:
        throttles = self._throttle.end(observation, began=began, now=now)
        if throttles:
            pause = self._throttle.ready_at() - now
            self._changed.set()
            self._exchange.emit(Throttled(pause=pause, polls_per_second=self._throttle.limit(now)))
        return throttles

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


def _is_about_the_job(observation: JobStatus | SmileJobsError) -> bool:
    """Whether the API has answered about the job, be it that it refuses it for good."""
    if isinstance(observation, JobStatus):
        return True
    is_refusal = isinstance(observation, ApiError) and observation.code is not None and not observation.transient
    return is_refusal and not isinstance(observation, CredentialsError)
