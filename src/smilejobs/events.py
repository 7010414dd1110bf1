"""The events of a client, and the hooks that receive them; the default hook writes to the standard library's log."""

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
        wait: An object that identifies the wait, the same one in all of its events; None for a `Client.job_status`.
        status: The answer.
        seconds: The duration of the request.
        late: Seconds for which the poll waited for a connection and its turn of the rate after it was due.
        requests: How many requests it took: more than one if a kept connection turned out to be closed, or if the
            first answer must not be believed.
    """

    ref: JobRef
    wait: object | None
    status: JobStatus
    seconds: float
    late: float
    requests: int = 1


@frozen(kw_only=True, eq=False)
class PollFailed:
    """A poll failed; the next event of its wait says whether the wait goes on.

    Attributes:
        ref: The job.
        wait: As for `PollFinished`.
        error: The failure.
        seconds: The duration of the request.
        late: As for `PollFinished`.
        requests: As for `PollFinished`.
    """

    ref: JobRef
    wait: object | None
    error: SmileJobsError
    seconds: float
    late: float
    requests: int = 1


@frozen(kw_only=True, eq=False)
class PollScheduled:
    """The job is pending, or a failure was absorbed: there will be another poll.

    Attributes:
        ref: The job.
        wait: As for `PollFinished`.
        polls: The number of polls so far.
        delay: The seconds until the next poll, unless a notification comes.
        error: The failure that was absorbed; None if the job is pending.
    """

    ref: JobRef
    wait: object
    polls: int
    delay: float
    error: SmileJobsError | None

    @classmethod
    def of(cls, state: PollState, delay: float) -> Self:
        """Return the event of a wait that sleeps for *delay* seconds."""
        error = state.last_error if state.failures else None
        return cls(ref=state.ref, wait=state, polls=state.polls, delay=delay, error=error)


@frozen(kw_only=True, eq=False)
class WaitEnded:
    """A wait ended with an answer or an error. A cancelled wait ends without an event.

    Attributes:
        ref: The job.
        wait: As for `PollFinished`.
        status: The answer that ended the wait; None if it ended with an error.
        error: The error that ended the wait; None if it ended with an answer.
        polls: The number of polls of the wait.
        elapsed: The duration of the wait, in seconds.
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
        pause: The seconds during which no poll begins.
        polls_per_second: The rate of polls after the pause.
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
"""Called on the event loop, so it must return quickly. Exceptions are logged and do not affect the wait."""


def log_event(event: Event) -> None:
    """Write an event to the logger ``smilejobs``: the default hook.

    The level is INFO for a wait that ended, WARNING for an absorbed failure and for `Throttled`, DEBUG for all other
    events. `JobRef.tag` stands for the job. For a failed poll, the class and the text of its error are written. Each
    record also has the values of the event as fields, for structured logging.
    """
    if isinstance(event, PollScheduled) and event.error is None:
        return
    level = _LEVELS[type(event)]
    if logger.isEnabledFor(level):
        text, *values = _format_line(event)
        logger.log(level, text, *values, extra=_record_fields(event))


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


def _format_line(event: Event) -> tuple[str, *tuple[object, ...]]:
    """Return the format string of a log line and its values."""
    if isinstance(event, PollFinished):
        return "job %s: polled: %s", event.ref.tag, describe(event.status.code)
    if isinstance(event, PollFailed):
        return "job %s: poll failed: %s", event.ref.tag, describe_error(event.error)
    if isinstance(event, PollScheduled):
        assert event.error is not None  # no line is written for a pending job
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


def _record_fields(event: Event) -> dict[str, object]:
    """Return the fields of a log record: no ids, no texts of the API, and codes from a bounded set."""
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
    """The hooks of one client, called in this order.

    Raises:
        TypeError: A hook cannot be called.
    """

    def __init__(self, hooks: Iterable[Hook]) -> None:
        self._hooks = tuple(hooks)
        for hook in self._hooks:
            if not callable(hook):
                raise TypeError(f"hooks must be functions that take an event, not {type(hook).__name__}")

    def __call__(self, event: Event) -> None:
        """Call each hook with an event; log the exceptions that hooks raise."""
        for hook in self._hooks:
            try:
                hook(event)
            except Exception as error:  # noqa: BLE001  # a hook is foreign code; its exceptions must not end a wait
                _report(error, event)


def _report(error: Exception, event: Event) -> None:
    """Log the exception of a hook: its text, and the frames of the hook as text.

    The record has no ``exc_info``. A hook may be called while the failure of a poll is handled; that failure is then
    the ``__context__`` of the hook's exception, and a crash reporter that reads the log would copy the variables of its
    frames, among them the signed request.
    """
    text = "".join(traceback.format_exception_only(error)).strip()
    frames = error.__traceback__ and traceback.format_tb(error.__traceback__.tb_next)
    fields = {"event_name": "HookFailed", "error_type": type(error).__name__}
    with suppress(Exception):  # an exception in a filter of the log must not end the wait either
        logger.error("a hook raised for %s: %s\n%s", type(event).__name__, text, "".join(frames or ()), extra=fields)
