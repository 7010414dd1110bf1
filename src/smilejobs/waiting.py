"""Wait for one job: tenacity applies the rules to the polls, within one deadline."""

import math
from collections.abc import Callable
from functools import partial
from typing import Self

import anyio
from tenacity import AsyncRetrying, retry_if_result

from smilejobs.engine import Engine
from smilejobs.errors import SmileJobsError
from smilejobs.events import PollScheduled, WaitEnded
from smilejobs.model.jobs import Include, JobRef, JobStatus
from smilejobs.polling.lessons import record_end
from smilejobs.polling.pace import Backoff
from smilejobs.polling.rules import (
    Decision,
    GiveUp,
    PollState,
    Sleep,
    Terms,
    begin,
    make_timeout_error,
    start,
    step,
    wake,
)

_BACKOFF = Backoff()


async def poll_with_retries(engine: Engine, ref: JobRef, include: Include) -> JobStatus:
    """Poll once, and retry transient failures, up to ``engine.attempts`` polls in all.

    An error is raised at once if the API asks for a longer pause than any backoff.
    """
    poll = partial(engine.exchange.poll, ref, include)
    # A plain loop: setting up tenacity would take a tenth of the time of a call that succeeds at once.
    for attempt in range(1, engine.attempts):
        try:
            return await poll()
        except SmileJobsError as error:
            rest = error.retry_after or 0.0
            if not error.transient or rest > _BACKOFF.max:
                raise
        await anyio.sleep(max(rest, _BACKOFF(attempt)))
    return await poll()


class Wait:
    """One wait for one job; it begins with `result`, or with the first step of an iteration over it.

    Args:
        engine: What the client shares.
        ref: The job.
        terms: What the caller wants.
        include: What the polls ask for besides the state of the job.
    """

    def __init__(self, engine: Engine, ref: JobRef, terms: Terms, include: Include) -> None:
        self._exchange = engine.exchange
        self._now = engine.now
        self._news = engine.notifications.subscribe(ref)
        self._notifications = self._news.count
        self._include = include
        self._state = PollState(ref=ref, terms=terms)
        self._due = 0.0
        self._last_content: tuple[object, ...] | None = None
        self._started = False
        self._stepping = False
        self._ended = False

    async def result(self) -> JobStatus:
        """Poll until the rules end the wait.

        Raises:
            SmileJobsError: The rules gave up.
        """
        self._start()
        return self._end(await self._poll_while(lambda decision: isinstance(decision, Sleep)))

    def __aiter__(self) -> Self:
        """Iterate over the first answer and every answer that differs from the one before."""
        return self

    async def __anext__(self) -> JobStatus:
        """Return the next change; the last one is the answer that ends the wait.

        This is not a generator: between two answers nothing is held that an abandoned iteration would keep.

        Raises:
            SmileJobsError: The rules gave up.
            StopAsyncIteration: The wait has ended.
        """
        if self._ended:
            raise StopAsyncIteration
        if not self._started:
            self._start()
        last_content = self._last_content

        def is_unchanged(decision: Decision) -> bool:
            return isinstance(decision, Sleep) and _content(self._state.last) == last_content

        if self._stepping:
            raise RuntimeError("this watch is being iterated by another task")
        self._stepping = True
        try:
            decision = await self._poll_while(is_unchanged)
        except Exception:
            self._ended = True
            raise
        finally:
            self._stepping = False
        if not isinstance(decision, Sleep):
            return self._end(decision)
        assert self._state.last is not None, "a change is an answer"
        self._last_content = _content(self._state.last)
        return self._state.last

    def _start(self) -> None:
        self._exchange.check_usable()
        self._started = True
        state = self._state
        start(state, self._exchange.time(), self._now())
        self._due = state.started + state.terms.first_after

    async def _poll_while(self, goes_on: Callable[[Decision], bool]) -> Decision:
        """Poll when it is due, and again while *goes_on* is true of the decision, up to the deadline."""
        deadline = self._state.deadline
        with anyio.CancelScope(deadline=math.inf if deadline is None else deadline):
            await self._until_due()
            retrying = AsyncRetrying(retry=retry_if_result(goes_on), sleep=self._until_due, reraise=True)
            return await retrying(self._poll)
        return GiveUp(make_timeout_error(self._state, self._exchange.time()))

    async def _until_due(self, _: float = 0.0) -> None:
        """Sleep until the next poll is due; a notification brings it forward."""
        while True:
            now = self._exchange.time()
            self._listen(now)
            with anyio.move_on_after(self._due - now) as scope:
                await self._news.wait()
            if scope.cancelled_caught:
                return

    def _listen(self, now: float) -> None:
        if self._notifications != self._news.count:
            self._notifications = self._news.count
            self._due = min(self._due, wake(self._state, now))

    async def _poll(self) -> Decision:
        over = begin(self._state, self._exchange.time())
        if over is not None:
            return over
        observation: JobStatus | SmileJobsError
        try:
            observation = await self._exchange.poll(self._state.ref, self._include, wait=self._state)
        except SmileJobsError as error:
            observation = error
        now = self._exchange.time()
        self._listen(now)
        decision = step(self._state, observation, now, api_has_answered=self._exchange.api_has_answered)
        if isinstance(decision, Sleep):
            self._due = now + decision.delay
            self._exchange.emit(PollScheduled.of(self._state, decision.delay))
        return decision

    def _end(self, decision: Decision) -> JobStatus:
        """Return the status that ends the wait, or raise the error."""
        assert not isinstance(decision, Sleep), "a wait does not end with a sleep"
        self._ended = True
        record_end(self._state, decision)
        self._exchange.emit(WaitEnded.of(self._state, decision, self._exchange.time()))
        if isinstance(decision, GiveUp):
            raise decision.error
        return decision.status


def _content(status: JobStatus | None) -> tuple[object, ...] | None:
    """Return the parts of an answer that make a change; timestamps, signatures and links do not."""
    if status is None:
        return None
    return (status.code, status.message, status.job_complete, status.job_success, status.result, status.history)
