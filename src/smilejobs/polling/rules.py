"""Decide when to poll again and when to stop: one state machine for every kind of waiting.

`step` takes the result of a poll and returns a decision: `Sleep`, `Done` or `GiveUp`. Callers carry out the decision.
Only this module interprets "pending", "transient", "not found yet" and "final".
"""

from datetime import datetime
from typing import Literal, get_args

from attrs import define, field, frozen

from smilejobs.durations import Duration, seconds
from smilejobs.errors import (
    BadRequestError,
    BadResponseError,
    CredentialsError,
    GatewayError,
    JobNotFoundError,
    NoZipError,
    RequestError,
    SmileJobsError,
    TooManyFailuresError,
    WaitTimeoutError,
)
from smilejobs.model.codes import NO_ZIP
from smilejobs.model.jobs import JobRef, JobStatus
from smilejobs.polling.lessons import delay_of_pace, pace_after_news, record_answer, record_notification
from smilejobs.polling.pace import Backoff, Pace, PaceFunction

Until = Literal["complete", "final"]

CLOCK_TOLERANCE_SECONDS = 1e-6
"""Instants that differ by less are equal: rounding errors of sums of floating-point numbers are smaller."""

_NOT_FOUND_POLLS = 5
"""Consecutive "not found" that end the wait for a job that may have been found before, by another process."""


def _timeout(value: Duration | None) -> float | None:
    return None if value is None else seconds(value, "timeout", zero=False)


def _first_after(value: Duration) -> float:
    return seconds(value, "first_after")


def _pace(value: PaceFunction | None) -> PaceFunction:
    if value is None:
        return Pace()
    if not callable(value):
        raise TypeError("pace must be a Pace or a function (age, polls) -> seconds")
    return value


@frozen(kw_only=True)
class Terms:
    """The options of a wait; one object may serve many jobs.

    Attributes:
        until: "complete" ends the wait at ``job_complete``; "final" continues while the answer is provisional.
        timeout: The limit of the whole wait in seconds; None for no limit.
        pace: The delay between polls of a pending job.
        first_after: The delay in seconds before the first poll.
        backoff: The delay after failures.
        grace: The age in seconds up to which "job not found" (2304) and "no zip" (2314) mean "not yet". A submission
            has two steps: the API answers 2304 before the first one and 2314 before the second one is finished.
        max_failures: The number of consecutive transient failures that ends the wait.
        max_hint: The maximum in seconds for a ``Retry-After``; a longer one is reduced to it.
        sits_out_outages: Whether to continue after failures that end other waits. These are an untrusted certificate
            and an apparently wrong URL before the API has ever answered, and a request that the API refuses
            (`BadRequestError`), for example because the clock of this machine is wrong. None of them says anything
            about the job.
        is_age_known: Whether the job's ``submitted_at``, if it has one, is when it was submitted, and not a later
            instant that stands in for it.
        is_resumed: Whether the job may have been polled before, with answers that are not known here. After *grace*,
            one "job not found" does not end such a wait, but five in a row do.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument is invalid.
    """

    until: Until = "complete"
    timeout: float | None = field(default=300.0, converter=_timeout)
    pace: PaceFunction = field(default=None, converter=_pace)
    first_after: float = field(default=0.0, converter=_first_after)
    backoff: Backoff = field(factory=Backoff)
    grace: float = 120.0
    max_failures: int = 20
    max_hint: float = 300.0
    sits_out_outages: bool = False
    is_age_known: bool = True
    is_resumed: bool = False

    def __attrs_post_init__(self) -> None:
        if self.until not in get_args(Until):
            raise ValueError("until must be 'complete' or 'final'")
        if self.timeout is not None and self.first_after >= self.timeout:
            raise ValueError("first_after must be less than timeout, else the wait ends without a poll")


@define(kw_only=True, eq=False, repr=False)
class PollState:
    """The state of one wait. All instants are of one monotonic clock, in seconds.

    Attributes:
        ref: The job.
        terms: The options of the wait.
        started: When the wait began.
        age_at_start: The age of the job at that instant, in seconds; 0 if unknown.
        polls: The number of polls that have begun, including one that waits for a connection or a permit.
        failures: The number of consecutive failures up to now.
        last: The last good answer; a pending answer does not replace a complete one.
        last_error: The error of the last poll; None after a good answer.
        not_before: The instant before which the API asked for no further poll (``Retry-After``).
        woken_at: The instant at which the last notification wants a poll; None without a notification. The pace counts
            from it.
        woken: Whether no poll has begun since that notification.
        pending_at: The age at the last answer that did not end the wait; None without one.
        complete_at: The age at which the job was seen complete, for a pace that learns; None before; 0 if it may have
            been seen complete before, by another process.
        notified_at: The age at the first notification since the last answer, likewise.
    """

    ref: JobRef
    terms: Terms
    started: float = 0.0
    age_at_start: float = 0.0
    polls: int = 0
    failures: int = 0
    last: JobStatus | None = None
    last_error: SmileJobsError | None = None
    not_before: float = 0.0
    woken_at: float | None = None
    woken: bool = False
    pending_at: float | None = None
    complete_at: float | None = None
    notified_at: float | None = None

    @property
    def deadline(self) -> float | None:
        """The instant at which the wait must end; None without a timeout."""
        return None if self.terms.timeout is None else self.started + self.terms.timeout

    def age(self, now: float) -> float:
        """Return the age of the job at the instant *now*, in seconds."""
        return self.age_at_start + now - self.started


@frozen
class Sleep:
    """Poll again after *delay* seconds."""

    delay: float


@frozen
class Done:
    """End the wait with an answer."""

    status: JobStatus


@frozen
class GiveUp:
    """End the wait with an error."""

    error: SmileJobsError


Decision = Sleep | Done | GiveUp


def start(state: PollState, now: float, wall_clock: datetime) -> None:
    """Record the beginning of the wait: *now* on the monotonic clock, *wall_clock* (aware) on the wall clock."""
    state.started = now
    if state.ref.submitted_at is not None:
        state.age_at_start = max(0.0, (wall_clock - state.ref.submitted_at).total_seconds())


def begin(state: PollState, now: float, *, is_owed: bool = False) -> GiveUp | None:
    """Record that a poll begins at the instant *now*; if the wait is over, return its end instead.

    With *is_owed*, the poll begins even if the wait is over; if the job is not complete then, the wait ends with it.
    """
    over = None if is_owed else end(state, now)
    if over is None:
        state.polls += 1
        state.woken = False
    return over


def end(state: PollState, now: float) -> GiveUp | None:
    """Return the end of the wait if its deadline has passed at *now* and at least one poll has begun, else None."""
    deadline = state.deadline
    if deadline is not None and state.polls and now >= deadline - CLOCK_TOLERANCE_SECONDS:
        return GiveUp(make_timeout_error(state, now))
    return None


def wake(state: PollState, now: float) -> float:
    """Record a notification at the instant *now*; return the instant of the next poll, unless one is due earlier.

    Notifications cause at most one poll per shortest delay of the pace, and no poll during a ``Retry-After``.
    """
    state.woken = True
    record_notification(state, now)
    if state.woken_at is None:
        state.woken_at = now
    elif state.woken_at <= now:
        state.woken_at = max(now, state.woken_at + _checked_delay(pace_after_news(state.terms.pace)(0.0, state.polls)))
    return max(state.woken_at, state.not_before)


def step(state: PollState, observation: JobStatus | SmileJobsError, now: float, *, api_has_answered: bool) -> Decision:
    """Record the result of a poll at the instant *now*, and return what to do next.

    Args:
        state: The wait; it is updated.
        observation: The answer, or the failure.
        now: An instant of the clock of *state*.
        api_has_answered: Whether the API has ever answered this client, which proves that the URL and the certificates
            are right.
    """
    if isinstance(observation, JobStatus):
        return _after_answer(state, observation, now)
    return _after_failure(state, observation, now, api_has_answered=api_has_answered)


def is_outage(error: SmileJobsError) -> bool:
    """Return whether a failure says nothing about the job: the API was not reached or reported an internal error.

    True for every transient failure, a connection that failed or is not trusted, an answer that cannot be read, and an
    answer without a code of the API. False for an answer of the API about the job, the request or the credentials, and
    for an answer that must not be trusted.
    """
    if isinstance(error, CredentialsError):
        return error.code is None
    return error.transient or isinstance(error, (RequestError, BadResponseError, GatewayError))


def describe_error(error: SmileJobsError) -> str:
    """Return the class and the text of an error, without the tag of its job."""
    return f"{type(error).__name__}: {error.args[0]}"


def make_timeout_error(state: PollState, now: float, *, retry_after: float | None = None) -> WaitTimeoutError:
    """Return the error of a wait that ends at *now* because of its timeout."""
    timeout = state.terms.timeout or 0.0
    if retry_after is None:
        end = f"The wait of {timeout:.10g} s is over, but the job is not"
    else:
        end = f"The API asks for a pause of {retry_after:.10g} s, but less is left of the wait of {timeout:.10g} s"
    advice = "wait again to go on, with the time of its submission if you know it"
    return _make_wait_timeout_error(state, now, f"{end}: {advice}", timeout=timeout, retry_after=retry_after)


def make_batch_timeout_error(state: PollState, now: float, why: str, *, timeout: float) -> WaitTimeoutError:
    """Return the error of a wait that ends at *now* because its batch ends.

    Args:
        state: The wait.
        now: The instant of the end.
        why: Why the batch ends, as a sentence without its full stop.
        timeout: The duration of the batch, in seconds.
    """
    return _make_wait_timeout_error(state, now, f"{why}: wait for the job again to go on", timeout=timeout)


def _make_wait_timeout_error(
    state: PollState, now: float, end: str, *, timeout: float, retry_after: float | None = None
) -> WaitTimeoutError:
    return WaitTimeoutError(
        f"{_describe_state(state)}. {end}",
        ref=state.ref,
        last=state.last,
        last_error=state.last_error,
        polls=state.polls,
        elapsed=now - state.started,
        age=state.age(now),
        timeout=timeout,
        retry_after=retry_after,
    )


def _after_answer(state: PollState, status: JobStatus, now: float) -> Decision:
    state.failures = 0
    state.last_error = None
    record_answer(state, status, now)
    if status.job_complete or state.last is None or not state.last.job_complete:
        state.last = status
    if status.job_complete and (state.terms.until == "complete" or status.is_final):
        return Done(status)
    state.pending_at = age = state.age(now)
    if status.code == NO_ZIP and not status.job_complete and age >= state.terms.grace:
        return GiveUp(
            NoZipError(
                "the job was registered, but its images never arrived: submit it again",
                ref=state.ref,
                code=NO_ZIP,
                text=status.message,
            )
        )
    return _sleep(state, _pace_delay(state, now), status.retry_after, now)


def _after_failure(state: PollState, error: SmileJobsError, now: float, *, api_has_answered: bool) -> Decision:
    previous, state.last_error = state.last_error, error
    missing = isinstance(error, JobNotFoundError)
    if missing and state.last is None:
        if state.age(now) < state.terms.grace:
            state.failures = 0
            return _sleep(state, _pace_delay(state, now), error.retry_after, now)
        if not state.terms.is_resumed:
            return GiveUp(error)
        if not isinstance(previous, JobNotFoundError):
            state.failures = 0  # the API answers again
        if state.failures + 1 >= _NOT_FOUND_POLLS:
            return GiveUp(error)
    if not (missing or _is_recoverable(error, state.terms, api_has_answered=api_has_answered)):
        return GiveUp(error)
    state.failures += 1
    if state.failures < state.terms.max_failures:
        return _sleep(state, state.terms.backoff(state.failures), error.retry_after, now)
    too_many = TooManyFailuresError(
        f"{state.failures} polls in a row failed, the last one with {describe_error(error)}. The job may be fine: "
        "wait again when the API can be reached",
        ref=state.ref,
        last=state.last,
        last_error=error,
        polls=state.polls,
    )
    too_many.__cause__ = error
    return GiveUp(too_many)


def _is_recoverable(error: SmileJobsError, terms: Terms, *, api_has_answered: bool) -> bool:
    """Return whether a later poll of the same wait may succeed.

    Before the first answer of the API, some failures point to wrong settings, which do not change during the wait: an
    untrusted certificate, the HTTP status of a wrong URL, a 401. A request that the API refuses will be refused again,
    unless this machine is corrected during the wait.
    """
    if isinstance(error, BadRequestError):
        return terms.sits_out_outages
    if not is_outage(error):
        return False
    if error.transient or api_has_answered or (isinstance(error, GatewayError) and not error.wrong_url):
        return True
    return terms.sits_out_outages and not isinstance(error, CredentialsError)


def _pace_delay(state: PollState, now: float) -> float:
    return _checked_delay(delay_of_pace(state, now))


def _checked_delay(delay: float) -> float:
    return seconds(delay, "the delay that pace returned")


def _sleep(state: PollState, delay: float, retry_after: float | None, now: float) -> Decision:
    """Return a sleep of *delay* or *retry_after* seconds, the longer one; leave time for a poll before the deadline."""
    floor = 0.0 if retry_after is None else min(retry_after, state.terms.max_hint)
    if floor:
        state.not_before = now + floor
    if state.woken and state.woken_at is not None:
        delay = min(delay, max(0.0, state.woken_at - now))
    delay = max(delay, floor)
    timeout = state.terms.timeout
    if timeout is None:
        return Sleep(delay)
    left = state.started + timeout - now
    if floor > left:
        return GiveUp(make_timeout_error(state, now, retry_after=retry_after))
    reserve = min(1.0, timeout / 10)
    latest = left - reserve
    if delay > latest:
        delay = min(delay, max(latest, floor, reserve / 2) if latest > CLOCK_TOLERANCE_SECONDS else left)
    return Sleep(delay)


def _describe_state(state: PollState) -> str:
    if state.last is None:
        if isinstance(state.last_error, JobNotFoundError):
            return "the API knows no such job yet"
        if state.last_error is None:
            return "there was no answer yet"
        return f"there was no good answer yet, the last poll failed with {describe_error(state.last_error)}"
    if state.last.job_complete:
        return "the outcome is provisional, under review"
    what = "the job has no images yet" if state.last.code == NO_ZIP else "the job is still running"
    return what if state.last_error is None else f"{what}; the last poll failed with {describe_error(state.last_error)}"
