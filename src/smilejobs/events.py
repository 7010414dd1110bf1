"""What happens while a client polls, told to its hooks; the default hook writes it to the standard library's log."""

import logging
from collections.abc import Callable, Iterable
from typing import Self

from attrs import frozen

from smilejobs.errors import SmileJobsError
from smilejobs.model.codes import describe
from smilejobs.model.jobs import JobRef, JobStatus
from smilejobs.polling.rules import Done, GiveUp, PollState

logger = logging.getLogger("smilejobs")
logger.addHandler(logging.NullHandler())


@frozen(kw_only=True, eq=False)
class PollFinished:
    """A poll brought a verified answer.

    Attributes:
        ref: The job.
        wait: Stands for the wait, the same object in all of its events; None for a `Client.job_status`.
        status: The answer.
        seconds: How long the request took.
        late: Seconds for which the poll waited for a connection and its turn of the rate after it was due.
    """

    ref: JobRef
    wait: object | None
    status: JobStatus
    seconds: float
    late: float


@frozen(kw_only=True, eq=False)
class PollFailed:
    """A poll failed; what becomes of the wait is told by the event that follows.

    Attributes:
        ref: The job.
        wait: As for `PollFinished`.
        error: What it failed with.
        seconds: How long the request took.
        late: As for `PollFinished`.
    """

    ref: JobRef
    wait: object | None
    error: SmileJobsError
    seconds: float
    late: float


@frozen(kw_only=True, eq=False)
class PollScheduled:
    """The job is pending, or a failure was absorbed: there will be another poll.

    Attributes:
        ref: The job.
        wait: As for `PollFinished`.
        polls: How many polls there have been.
        delay: Seconds to the next one, unless a notification comes.
        error: The failure that was absorbed; None if the job is pending.
    """

    ref: JobRef
    wait: object
    polls: int
    delay: float
    error: SmileJobsError | None

    @classmethod
    def of(cls, state: PollState, delay: float) -> Self:
        """Return the event of a wait that sleeps now."""
        error = state.last_error if state.failures else None
        return cls(ref=state.ref, wait=state, polls=state.polls, delay=delay, error=error)


@frozen(kw_only=True, eq=False)
class WaitEnded:
    """A wait has its answer, or gave up. A wait that is cancelled ends without an event.

    Attributes:
        ref: The job.
        wait: As for `PollFinished`.
        status: The answer that ended it.
        error: Why there is none.
        polls: How many polls it took.
        elapsed: Seconds from its beginning.
    """

    ref: JobRef
    wait: object
    status: JobStatus | None
    error: SmileJobsError | None
    polls: int
    elapsed: float

    @classmethod
    def of(cls, state: PollState, decision: Done | GiveUp, now: float) -> Self:
        """Return the event of a wait that ended at the instant *now* of its clock."""
        status, error = (decision.status, None) if isinstance(decision, Done) else (None, decision.error)
        elapsed = now - state.started
        return cls(ref=state.ref, wait=state, status=status, error=error, polls=state.polls, elapsed=elapsed)


@frozen(kw_only=True, eq=False)
class FleetBraked:
    """The API cannot keep up: all polls of a `Client.wait_many` slow down.

    Attributes:
        pause: Seconds for which no poll begins.
        polls_per_second: How fast they go on then.
    """

    pause: float
    polls_per_second: float


@frozen(kw_only=True, eq=False)
class Notified:
    """`Client.notify` was called.

    Attributes:
        ref: The job.
    """

    ref: JobRef


Event = PollFinished | PollFailed | PollScheduled | WaitEnded | FleetBraked | Notified
Hook = Callable[[Event], None]
"""Called in the event loop, between polls: it must be quick. What it raises is logged, and is nobody's end."""


def log_event(event: Event) -> None:
    """Write an event to the logger ``smilejobs``: the default hook.

    INFO for a wait that ended, WARNING for a failure that was absorbed and for a brake, DEBUG for the rest. Jobs are
    named by `JobRef.tag`.
    """
    if isinstance(event, PollFinished):
        if logger.isEnabledFor(logging.DEBUG):
            logger.debug("job %s: polled: %s", event.ref.tag, describe(event.status.code))
    elif isinstance(event, PollScheduled):
        if event.error is not None:
            logger.warning(
                "job %s: poll %d failed, trying again in %.1f s: %s",
                event.ref.tag,
                event.polls,
                event.delay,
                type(event.error).__name__,
            )
    elif isinstance(event, WaitEnded):
        if logger.isEnabledFor(logging.INFO):
            logger.info(
                "job %s: wait ended after %d polls and %.1f s: %s",
                event.ref.tag,
                event.polls,
                event.elapsed,
                event.status if event.error is None else type(event.error).__name__,
            )
    elif isinstance(event, PollFailed):
        logger.debug("job %s: poll failed: %s", event.ref.tag, type(event.error).__name__)
    elif isinstance(event, FleetBraked):
        logger.warning(
            "the API cannot keep up: no polls for %.1f s, then %.0f per second", event.pause, event.polls_per_second
        )
    else:
        logger.debug("job %s: notified", event.ref.tag)


class Hooks:
    """The hooks of one client.

    Args:
        hooks: Called in this order.

    Raises:
        TypeError: One of them cannot be called.
    """

    def __init__(self, hooks: Iterable[Hook]) -> None:
        self._hooks = tuple(hooks)
        for hook in self._hooks:
            if not callable(hook):
                raise TypeError(f"hooks must be functions that take an event, not {type(hook).__name__}")

    def __call__(self, event: Event) -> None:
        """Tell them."""
        for hook in self._hooks:
            try:
                hook(event)
            except Exception as error:  # noqa: BLE001  # a broken hook must not end a wait
                # Without its traceback, which may quote ids.
                logger.error("a hook raised %s for %s", type(error).__name__, type(event).__name__)  # noqa: TRY400  # logger.exception would show the traceback
