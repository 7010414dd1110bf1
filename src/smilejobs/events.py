"""What happens while a client polls, told to its hooks; the default hook writes it to the standard library's log."""

import logging
import traceback
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import Self

from attrs import asdict, frozen

from smilejobs.errors import SmileJobsError
from smilejobs.model.codes import code_label, describe
from smilejobs.model.jobs import JobRef, JobStatus
from smilejobs.polling.rules import Done, GiveUp, PollState, describe_error

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
class Throttled:
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


Event = PollFinished | PollFailed | PollScheduled | WaitEnded | Throttled | Notified
Hook = Callable[[Event], None]
"""Called in the event loop, between polls: it must be quick. What it raises is logged and does not affect the wait."""


def log_event(event: Event) -> None:
    """Write an event to the logger ``smilejobs``: the default hook.

    INFO for a wait that ended, WARNING for an absorbed failure and for `Throttled`, DEBUG for the rest. Jobs are
    named by `JobRef.tag`; of a failed poll, the class and the text of its error are written. Each record has the event
    as fields as well, for structured logging.
    """
    if isinstance(event, PollScheduled) and event.error is None:
        return
    level = _LEVELS[type(event)]
    if logger.isEnabledFor(level):
        text, *values = _line(event)
        logger.log(level, text, *values, extra=_fields(event))


_LEVELS: Mapping[type[Event], int] = MappingProxyType(
    {
        PollFinished: logging.DEBUG,
        PollFailed: logging.DEBUG,
        PollScheduled: logging.WARNING,
        WaitEnded: logging.INFO,
        Throttled: logging.WARNING,
        Notified: logging.DEBUG,
    }
)


def _line(event: Event) -> tuple[str, *tuple[object, ...]]:
    """Return the text of a log line, and the values in it."""
    if isinstance(event, PollFinished):
        return "job %s: polled: %s", event.ref.tag, describe(event.status.code)
    if isinstance(event, PollFailed):
        return "job %s: poll failed: %s", event.ref.tag, describe_error(event.error)
    if isinstance(event, PollScheduled):
        assert event.error is not None  # no line is written for a job that is pending
        text = "job %s: poll %d failed, trying again in %.1f s: %s"
        return text, event.ref.tag, event.polls, event.delay, describe_error(event.error)
    if isinstance(event, WaitEnded):
        outcome = event.status if event.error is None else type(event.error).__name__
        text = f"job %s: wait ended after %d poll{'' if event.polls == 1 else 's'} and %.1f s: %s"
        return text, event.ref.tag, event.polls, event.elapsed, outcome
    if isinstance(event, Throttled):
        text = "the API cannot keep up: no polls for %.1f s, then %.0f per second"
        return text, event.pause, event.polls_per_second
    return "job %s: notified", event.ref.tag


def _fields(event: Event) -> dict[str, object]:
    """Return an event as the fields of a log record: no ids, no texts of the API, and codes out of a bounded set."""
    values = asdict(event, recurse=False)
    values.pop("wait", None)
    ref: JobRef | None = values.pop("ref", None)
    status: JobStatus | None = values.pop("status", None)
    error: SmileJobsError | None = values.pop("error", None)
    if ref is not None:
        values["tag"] = ref.tag
    if status is not None:
        verdict = status.verdict
        values |= {"code": code_label(status.code), "verdict": None if verdict is None else verdict.value}
    if error is not None:
        kind = type(error).__name__
        values |= {"code": code_label(error.code), "error_type": kind, "http_status": error.http_status}
    return {"event_name": type(event).__name__, **{name: value for name, value in values.items() if value is not None}}


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
        """Call each hook with an event; log what a hook raises."""
        for hook in self._hooks:
            try:
                hook(event)
            except Exception as error:  # noqa: BLE001  # a broken hook must not end a wait
                _report(error, event)


def _report(error: Exception, event: Event) -> None:
    """Log what a hook raised: its text, and the frames of the hook as text.

    The log gets no ``exc_info``: a hook may be called while the failure of a poll is handled, which then is the
    ``__context__`` of what the hook raises. A crash reporter that watches the log would copy the variables of the
    frames of that failure, the signed request among them.
    """
    text = "".join(traceback.format_exception_only(error)).strip()
    frames = error.__traceback__ and traceback.format_tb(error.__traceback__.tb_next)
    fields = {"event_name": "HookFailed", "error_type": type(error).__name__}
    with suppress(Exception):  # a broken filter of the log must not end a wait either
        logger.error("a hook raised for %s: %s\n%s", type(event).__name__, text, "".join(frames or ()), extra=fields)
