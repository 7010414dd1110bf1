"""One poll of a pending job, and what follows from it."""

import math

import anyio

from smilejobs.errors import RequestError, SmileJobsError, WaitTimeoutError
from smilejobs.events import PollFailed
from smilejobs.exchange import Exchange
from smilejobs.model.jobs import Include, JobStatus
from smilejobs.polling.rules import (
    CLOCK_TOLERANCE_SECONDS,
    Decision,
    GiveUp,
    Sleep,
    end,
    is_outage,
    make_timeout_error,
    step,
)
from smilejobs.scheduler.clock import Clock
from smilejobs.scheduler.pending import POLLS_OWED, Entry


class Polls:
    """Polls the jobs of a scheduler, each up to its timeout.

    Args:
        exchange: Polls.
        include: What the polls ask for besides the state of a job.
        clock: The scheduler's clock.
    """

    def __init__(self, exchange: Exchange, include: Include, clock: Clock) -> None:
        self._exchange = exchange
        self._include = include
        self._clock = clock

    async def poll(self, entry: Entry, began: float, late: float) -> JobStatus | SmileJobsError | None:
        """Return what a poll has brought: the answer or the failure; None if the job's time was over before.

        Args:
            entry: The job.
            began: When the poll began, by the event loop's clock.
            late: How many seconds after it was due.
        """
        now = self._clock.at(began)
        deadline = math.inf if entry.deadline is None else entry.deadline
        left = deadline - now
        try:
            # A job that was added when its time was almost over gets one whole poll all the same, and a job that is
            # owed a second poll gets a whole one after its time is over.
            added_late = entry.polls == 1 and entry.started < now
            if left > self._exchange.longest_poll or left < CLOCK_TOLERANCE_SECONDS or added_late:
                return await self._exchange.poll_acquired(entry.ref, self._include, wait=entry, began=began, late=late)
            with anyio.CancelScope() as scope, self._clock.limiting(scope, deadline):
                return await self._exchange.poll_acquired(entry.ref, self._include, wait=entry, began=began, late=late)
        except SmileJobsError as error:
            # Its traceback would keep the frames of the poll, and with them the whole answer.
            return error.with_traceback(None)
        except Exception as error:  # noqa: BLE001  # an unexpected error of one job must not end the others
            return self._unexpected(entry, error, began, late)
        return None

    def _unexpected(self, entry: Entry, error: Exception, began: float, late: float) -> RequestError:
        """Return an error of the library in place of one that nothing below has expected."""
        ours = RequestError(
            f"the poll failed unexpectedly with {type(error).__name__}; report it to smilejobs if it stays",
            ref=entry.ref,
        )
        seconds = self._exchange.time() - began
        self._exchange.emit(PollFailed(ref=entry.ref, wait=entry, error=ours, seconds=seconds, late=late))
        return ours


def decide(
    entry: Entry, error: SmileJobsError | None, now: float, *, stopped_for: float, api_has_answered: bool
) -> Decision:
    """Apply the rules to the failure of a poll.

    Args:
        entry: The job.
        error: The failure; None if the job's time was over before there was an answer.
        now: An instant of the scheduler's clock.
        stopped_for: The seconds for which the throttle stops everything. They are a part of the delay before the next
            poll of the job: the scheduler's clock is stopped meanwhile, so the whole delay would come after them.
        api_has_answered: Whether the API has ever answered this client.
    """
    if error is None:
        return GiveUp(make_timeout_error(entry, now))
    if not is_outage(error):
        return step(entry, error, now, api_has_answered=api_has_answered)
    decision = step(entry, error, now - stopped_for, api_has_answered=api_has_answered)
    if isinstance(decision, Sleep):
        return Sleep(max(0.0, decision.delay - stopped_for))
    if isinstance(decision, GiveUp) and isinstance(decision.error, WaitTimeoutError):
        is_granted = entry.polls_owed == POLLS_OWED or end(entry, now) is not None
        if not (entry.is_owed_a_poll and is_granted):
            return GiveUp(make_timeout_error(entry, now, retry_after=error.retry_after))
        rest = min(error.retry_after or 0.0, entry.terms.max_hint)
        entry.started += rest
        return Sleep(rest)
    return decision
