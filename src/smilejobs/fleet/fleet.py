"""Polls the jobs of an agenda."""

import math
from collections.abc import Iterable
from contextlib import aclosing

import anyio

from smilejobs.errors import ApiError, CredentialsError, RequestError, SmileJobsError, WaitTimeoutError
from smilejobs.events import PollFailed, PollScheduled, Throttled
from smilejobs.fleet.agenda import Entry, kept
from smilejobs.fleet.base import BaseFleet
from smilejobs.model.jobs import JobRef, JobStatus
from smilejobs.outcomes import JobRefLike, each, job_ref
from smilejobs.polling.rules import (
    CLOCK_TOLERANCE_SECONDS,
    Decision,
    GiveUp,
    Sleep,
    Terms,
    begin,
    end,
    is_outage,
    make_timeout_error,
    start,
    step,
    wake,
)
from smilejobs.wire.protocol import accepts_credentials

_TOGETHER = 1.0
"""Seconds within which the throttles of several fleets are one: they have met the same trouble."""


class Fleet(BaseFleet):
    """Polls jobs until each has ended. Its arguments are those of `BaseFleet`."""

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
            while self._clock.is_stopped("consumer"):
                await self._taken.wait()
            real_now = anyio.current_time()
            while self._notified:
                self._bring_forward(self._notified.pop(), self._clock.at(real_now))
            held = self._throttle.ready_at() - real_now
            delay = self._until_first(real_now)
            # No job's time runs while the throttle keeps back all polls, or those of jobs that are due.
            if held >= CLOCK_TOLERANCE_SECONDS and (
                delay < CLOCK_TOLERANCE_SECONDS or self._throttle.stopped_for(real_now)
            ):
                self._clock.stop("throttle")
                delay = held
            else:
                self._clock.go_on("throttle")
                if delay < CLOCK_TOLERANCE_SECONDS:
                    return
                delay = min(delay, self._until_deadline(real_now))
            with anyio.move_on_after(delay):
                await self._changed.wait()

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

    def is_stuck(self, patience: float) -> bool:
        """Return whether no poll begins although jobs are due and nothing throttles.

        Args:
            patience: Seconds, beside those that a poll may take and those that the rate leaves between two polls.
        """
        now = anyio.current_time()
        if self._throttle.ready_at() > now:
            return False
        between = 0.0 if self._exchange.rate is None else 2 / self._exchange.rate
        return min(-self._until_first(now), now - self._begun_at) > patience + self._exchange.longest_poll + between

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
        while max(self._until_first(real_now), self._throttle.ready_at() - real_now) < CLOCK_TOLERANCE_SECONDS:
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
                self._begun_at = real_now
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
            self._finish(entry, GiveUp(make_timeout_error(entry, now)), now)
            return
        if isinstance(observation, JobStatus):
            decision = step(entry, observation, now, api_has_answered=True)
        else:
            decision = self._decide(entry, observation, now, real_now)
        if isinstance(decision, Sleep):
            entry.last = kept(entry.last)
            self._put(entry, now + decision.delay)
            self._exchange.emit(PollScheduled.of(entry, decision.delay))
        else:
            self._finish(entry, decision, now)
        if self._failures >= self._max_failures and isinstance(observation, SmileJobsError):
            self._give_up(observation)

    def _decide(self, entry: Entry, error: SmileJobsError, now: float, real_now: float) -> Decision:
        """Apply the rules to a failure; the time for which everything is stopped counts as rest of the job that failed.

        This fleet's clock stands still meanwhile, so that the rest would come on top.
        """
        api_has_answered = self._exchange.api_has_answered
        if not is_outage(error):
            return step(entry, error, now, api_has_answered=api_has_answered)
        stopped = self._throttle.stopped_for(real_now)
        decision = step(entry, error, now - stopped, api_has_answered=api_has_answered)
        if isinstance(decision, Sleep):
            return Sleep(max(0.0, decision.delay - stopped))
        if isinstance(decision, GiveUp) and isinstance(decision.error, WaitTimeoutError):
            rest = min(error.retry_after or 0.0, entry.terms.max_hint)
            if not self._owes_a_poll_to(entry):
                return GiveUp(make_timeout_error(entry, now, retry_after=error.retry_after))
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
        if isinstance(observation, JobStatus):
            self._throttle.end(observation, began=began, now=now)
            self._distrusted = False
            self._failures = 0
            return
        throttles = self._throttles(observation, began, now)
        if accepts_credentials(observation):
            self._distrusted = False
        if _is_refusal(observation):
            self._failures = 0
        elif began >= self._failed_at:
            self._failures += 1
            self._failed_at = now
        if throttles and self._on_throttle is not None:
            self._on_throttle(observation)

    def _throttles(self, trouble: SmileJobsError, began: float, now: float) -> bool:
        throttles = self._throttle.end(trouble, began=began, now=now)
        if throttles:
            pause = self._throttle.ready_at() - now
            self._changed.set()
            self._exchange.emit(Throttled(pause=pause, polls_per_second=self._throttle.limit(now)))
        return throttles


def _is_refusal(error: SmileJobsError) -> bool:
    """Return whether the API has answered about the job: it refuses it for good."""
    is_permanent = isinstance(error, ApiError) and error.code is not None and not error.transient
    return is_permanent and not isinstance(error, CredentialsError)
