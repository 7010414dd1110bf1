"""Many jobs: one heap, few workers, the same rules as for one job.

A pending job is an entry in a heap, ordered by the instant at which it is due; no task waits for it. One worker at a
time stands at the head of the heap until something is due and it may be sent, then takes it, and the next one stands
there. The fleet's clock stands still while the consumer has more outcomes than it takes: nothing is polled then, and no
job's timeout runs.
"""

import math
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sized
from contextlib import aclosing, asynccontextmanager
from datetime import datetime
from functools import partial
from heapq import heapify, heappop, heappush
from sys import intern
from types import MappingProxyType
from typing import Self

import anyio
from attrs import define, evolve

from smilejobs.errors import CredentialsError, SmileJobsError
from smilejobs.events import FleetBraked, PollScheduled, WaitEnded
from smilejobs.exchange import Exchange
from smilejobs.model.jobs import JobRef, JobStatus
from smilejobs.outcomes import JobRefLike, JobRefs, Outcome, Progress, each, job_ref
from smilejobs.polling.brake import Brake
from smilejobs.polling.rules import (
    SAME_INSTANT,
    Done,
    GiveUp,
    PollState,
    Sleep,
    Terms,
    begin,
    end,
    start,
    step,
    timed_out,
    wake,
)
from smilejobs.tasks import beside
from smilejobs.wakeups import Signal, Wakeups

_NOTHING: Mapping[str, object] = MappingProxyType({})
_TOGETHER = 1.0
"""Seconds within which the brakes of several fleets are one: they have met the same trouble."""

_TICK = 0.2
"""Seconds between two reports of progress."""


@define(kw_only=True, eq=False, repr=False)
class _Entry(PollState):
    index: int
    is_started: bool = False
    others: list[tuple[int, JobRef]] | None = None
    due: float | None = None


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
        on_brake: Told of an answer that braked this fleet.
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
        on_brake: Callable[[SmileJobsError], None] | None = None,
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
        self._on_brake = on_brake
        self._heap: list[tuple[float, int, _Entry]] = []
        self._entries: dict[JobRef, _Entry] = {}
        self._notified: set[JobRef] = set()
        self._cuts: dict[anyio.CancelScope, float] = {}
        self._total = len(refs) if isinstance(refs, Sized) else None
        self._brake = Brake(max_hint=terms.max_hint)
        self._outcomes: deque[Outcome] = deque()
        self._started = 0.0
        self._stood_still = 0.0
        self._still_since: float | None = None
        self._read = 0
        self._pending = 0
        self._unstarted = 0
        self._done = 0
        self._failed = 0
        self._polls = 0
        self._input_ended = False
        self._distrusted = False
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
            if self._error is not None:
                error, self._error = self._error, None
                raise error
            if self._over:
                raise StopAsyncIteration
            await self._news.wait()
        outcome = self._outcomes.popleft()
        self._go_on()
        return outcome

    async def _run(self) -> None:
        with self._scope, self._wakeups.listening(self._wake):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._guarded, self._feed)
                for _ in range(self._concurrency):
                    tasks.start_soon(self._guarded, self._work)
                if self._on_progress is not None:
                    tasks.start_soon(self._guarded, partial(self._tell, self._on_progress))

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
        except Exception as error:  # noqa: BLE001  # see above
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

    # The input

    async def _feed(self) -> None:
        async with aclosing(each(self._refs)) as items:
            async for item in items:
                await self._admit(item)
        self._input_ended = True
        if not self._entries:
            self._complete()

    async def _admit(self, item: JobRefLike) -> None:
        """Take a job in, and wait until there is room for another.

        Few wait for their first poll: those that are pending would be polled after them, and so too late.
        """
        index = self._read
        ref = job_ref(item, index)
        self._read += 1
        self._pending += 1
        pending = self._entries.get(ref)
        if pending is None:
            entry = self._entries[ref] = _Entry(index=index, ref=ref, terms=self._terms)
            self._unstarted += 1
            self._push(entry, self._instant(anyio.current_time()))
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
        if ref in self._entries:
            return
        now = self._instant(anyio.current_time())
        entry = self._entries[ref] = _Entry(index=self._read, ref=ref, terms=terms)
        self._start(entry, now)
        self._read += 1
        self._pending += 1
        self._unstarted += 1
        self._push(entry, now + first_after)

    def withdraw(self, refs: Iterable[JobRef]) -> None:
        """Forget jobs, those that are being polled too: there will be no outcome."""
        for ref in refs:
            entry = self._entries.pop(ref, None)
            if entry is not None:
                self._pending -= 1
                self._unstarted -= not entry.polls
                entry.due = entry.last = entry.last_error = None
        self._tidy()

    def _start(self, entry: _Entry, now: float) -> None:
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

    async def _next(self) -> tuple[_Entry, float, float]:
        """Return the job that is due first, as soon as it may be polled, that instant, and how late it is."""
        while True:
            await self._until_due()
            await self._exchange.take_turn()
            began = anyio.current_time()
            try:
                taken = self._pop(began)
            except BaseException:
                self._exchange.end_turn()
                raise
            if taken is not None:
                entry, late = taken
                return entry, began, late
            self._exchange.end_turn()

    async def _until_due(self) -> None:
        while True:
            while self._still_since is not None:
                await self._taken.wait()
            real_now = anyio.current_time()
            while self._notified:
                self._bring_forward(self._notified.pop(), self._instant(real_now))
            delay = self._delay(real_now)
            if delay < SAME_INSTANT:
                return
            with anyio.move_on_after(min(delay, self._until_deadline(real_now))):
                await self._changed.wait()

    def _stand_still(self) -> None:
        """Stop the clock when the consumer has more than it takes; what is under way may take as long as it likes."""
        if self._still_since is None and len(self._outcomes) >= self._concurrency:
            self._still_since = anyio.current_time()
            for scope in self._cuts:
                scope.deadline = math.inf
            self._changed.set()

    def _go_on(self) -> None:
        if self._still_since is not None and len(self._outcomes) < self._concurrency:
            real_now = anyio.current_time()
            self._stood_still += real_now - self._still_since
            self._still_since = None
            for scope, deadline in self._cuts.items():
                scope.deadline = deadline + self._stood_still
            self._taken.set()

    def _wake(self, ref: JobRef) -> None:
        if ref in self._entries:
            self._notified.add(ref)
            self._changed.set()

    def _bring_forward(self, ref: JobRef, now: float) -> None:
        entry = self._entries.get(ref)
        if entry is None:
            return
        due = wake(entry, now)
        if entry.due is not None and due < entry.due:
            self._push(entry, due)
            self._tidy()

    def _tidy(self) -> None:
        """Drop the places of what was brought forward or withdrawn, once they are the most."""
        if len(self._heap) > 2 * len(self._entries) + self._concurrency:
            self._heap = [place for place in self._heap if place[0] == place[2].due]
            heapify(self._heap)

    def hold_back(self, trouble: SmileJobsError) -> None:
        """Brake as if a poll of this fleet had met *trouble* now: another fleet did."""
        now = anyio.current_time()
        self._brakes(trouble, now - _TOGETHER, now)

    def _delay(self, real_now: float) -> float:
        """Seconds until something is due and may be polled."""
        first = self._first()
        if first is None or first.due is None:
            return math.inf
        return max(first.due - self._instant(real_now), self._brake.ready_at() - real_now)

    def _until_deadline(self, real_now: float) -> float:
        """End the jobs whose time is over although they were not polled when due; return the seconds to the next."""
        now = self._instant(real_now)
        while (entry := self._first()) is not None:
            over = end(entry, now)
            if over is None:
                return math.inf if entry.deadline is None or not entry.polls else entry.deadline - now
            self._take_first()
            self._finish(entry, over, now)
        return math.inf

    def _pop(self, real_now: float) -> tuple[_Entry, float] | None:
        """Take the job that is due first, if there still is one; those whose time is over end here."""
        now = self._instant(real_now)
        while self._delay(real_now) < SAME_INSTANT:
            entry, due = self._take_first()
            if not entry.is_started:
                self._start(entry, now)
            if not entry.polls:
                self._unstarted -= 1
                if self._unstarted <= self._concurrency // 2:
                    self._room.set()
            over = begin(entry, now)
            if over is None:
                self._polls += 1
                self._brake.begin(real_now)
                return entry, now - due
            self._finish(entry, over, now)
        return None

    def _first(self) -> _Entry | None:
        """The job that is due first; what was brought forward is still in the heap at its old place."""
        while self._heap and self._heap[0][0] != self._heap[0][2].due:
            heappop(self._heap)
        return self._heap[0][2] if self._heap else None

    def _take_first(self) -> tuple[_Entry, float]:
        due, _, entry = heappop(self._heap)
        entry.due = None
        return entry, due

    def _push(self, entry: _Entry, due: float) -> None:
        entry.due = due
        heappush(self._heap, (due, entry.index, entry))
        if self._heap[0][2] is entry:
            self._changed.set()

    async def _poll(self, entry: _Entry, began: float, late: float) -> None:
        observation: JobStatus | SmileJobsError | None = None
        try:
            now = self._instant(began)
            left = math.inf if entry.deadline is None else entry.deadline - now
            # A job that was taken in when its time was almost over gets one whole poll all the same.
            if left > self._exchange.longest_poll or (entry.polls == 1 and entry.started < now):
                observation = await self._ask(entry, began, late)
            else:
                observation = await self._ask_until(began + left, entry, began, late)
        except SmileJobsError as error:
            # Its traceback would keep the frames of the poll, and with them the whole answer.
            observation = error.with_traceback(None)
        real_now = anyio.current_time()
        now = self._instant(real_now)
        if observation is not None:
            self._heed(observation, began, real_now)
        if self._entries.get(entry.ref) is not entry:
            return
        if observation is None:
            self._finish(entry, GiveUp(timed_out(entry, now)), now)
            return
        decision = step(entry, observation, now)
        if isinstance(decision, Sleep):
            entry.last = _kept(entry.last)
            self._push(entry, now + decision.delay)
            self._exchange.emit(PollScheduled.of(entry, decision.delay))
        else:
            self._finish(entry, decision, now)

    async def _ask(self, entry: _Entry, began: float, late: float) -> JobStatus:
        return await self._exchange.poll_in_turn(
            entry.ref, image_links=self._image_links, history=self._history, wait=entry, began=began, late=late
        )

    async def _ask_until(self, real_deadline: float, entry: _Entry, began: float, late: float) -> JobStatus | None:
        """Ask, up to a deadline that is put off while the clock stands still."""
        deadline = math.inf if self._still_since is not None else real_deadline
        with anyio.CancelScope(deadline=deadline) as scope:
            self._cuts[scope] = real_deadline - self._stood_still
            try:
                return await self._ask(entry, began, late)
            finally:
                del self._cuts[scope]
        return None

    def _heed(self, observation: JobStatus | SmileJobsError, began: float, now: float) -> None:
        """Take in what a poll says of the API as a whole."""
        brakes = self._brakes(observation, began, now)
        if isinstance(observation, JobStatus):
            self._distrusted = False
        elif brakes and self._on_brake is not None:
            self._on_brake(observation)

    def _brakes(self, observation: JobStatus | SmileJobsError, began: float, now: float) -> bool:
        brakes = self._brake.end(observation, began=began, now=now)
        if brakes:
            pause = self._brake.ready_at() - now
            self._exchange.emit(FleetBraked(pause=pause, polls_per_second=self._brake.limit(now)))
        return brakes

    def _finish(self, entry: _Entry, decision: Done | GiveUp, now: float) -> None:
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
        for index, ref in ((entry.index, entry.ref), *(entry.others or ())):
            self._outcomes.append(
                Outcome(index=index, ref=ref, status=end.status, error=end.error, polls=end.polls, elapsed=end.elapsed)
            )
            self._pending -= 1
            self._done += end.error is None
            self._failed += end.error is not None
        del self._entries[entry.ref]
        entry.last = entry.last_error = None  # its place in the heap may outlive it
        self._stand_still()
        self._news.set()
        self._room.set()
        if self._input_ended and not self._entries:
            self._complete()

    # The clock, and the view from outside

    def _instant(self, real_now: float) -> float:
        """The instant by the fleet's clock; by the event loop's it is *real_now*."""
        return (real_now if self._still_since is None else self._still_since) - self._stood_still

    async def _tell(self, on_progress: Callable[[Progress], None]) -> None:
        while True:
            await anyio.sleep(_TICK)
            on_progress(self._progress())

    def _progress(self) -> Progress:
        now = anyio.current_time()
        total = self._read if self._input_ended else self._total
        ended = self._done + self._failed
        left = None if total is None or not ended else (total - ended) / ended * (self._instant(now) - self._started)
        return Progress(
            pending=self._pending,
            done=self._done,
            failed=self._failed,
            polls=self._polls,
            braked=self._brake.is_on(now),
            polls_per_second=self._brake.speed(now),
            eta=left,
        )


def _kept(status: JobStatus | None) -> JobStatus | None:
    """What is kept of an answer while its job is pending: all but the raw bodies. There are few different codes."""
    if status is None or not status.raw:
        return status
    return evolve(
        status,
        code=None if status.code is None else intern(status.code),
        result=None if status.result is None else evolve(status.result, raw=_NOTHING),
        history=tuple(evolve(entry, raw=_NOTHING) for entry in status.history),
        raw=_NOTHING,
    )
