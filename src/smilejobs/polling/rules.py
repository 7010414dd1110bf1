"""When to poll again, and when to stop: one state machine for every kind of waiting.

`step` takes what the last poll brought and says what to do: `Sleep`, `Done` or `GiveUp`. Whoever polls, for one job or
for many, does as he is told; nobody else knows what "pending", "transient", "not found yet" and "final" mean.
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
from smilejobs.polling.pace import Backoff, Pace, PaceFunction

Until = Literal["complete", "final"]

SAME_INSTANT = 1e-6
"""Seconds: what a clock of floating point numbers cannot tell apart after some sums."""


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
    """What a wait was asked to do; one object may serve many jobs.

    Attributes:
        until: "complete" ends at ``job_complete``; "final" goes on while the answer is provisional.
        timeout: Seconds for the whole wait, None for no limit.
        pace: Between polls of a pending job.
        first_after: Seconds before the first poll.
        backoff: After failures.
        grace: Age in seconds up to which "job not found" (2304) and "no zip" (2314) mean "not yet": a submission has
            two steps, and the API knows nothing before the first and has nothing before the second is through.
        max_failures: So many consecutive transient failures end the wait.
        max_hint: A ``Retry-After`` of more seconds is taken for this many.
        sits_out_outages: Whether a certificate that is not trusted and a URL that looks wrong are absorbed even before
            the API has ever answered, and a request that the API refuses (`BadRequestError`) always: the clock of this
            machine may be wrong, which says nothing about the job.

    Raises:
        TypeError: An argument of the wrong type.
        ValueError: An argument that can never be right.
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

    def __attrs_post_init__(self) -> None:
        if self.until not in get_args(Until):
            raise ValueError("until must be 'complete' or 'final'")
        if self.timeout is not None and self.first_after >= self.timeout:
            raise ValueError("first_after must be less than timeout, or there would be no poll at all")


@define(kw_only=True, eq=False, repr=False)
class PollState:
    """What is known of one wait. All instants are of one monotonic clock, in seconds.

    Attributes:
        ref: The job.
        terms: What was asked for.
        started: When the wait began.
        age_at_start: How old the job was then, in seconds; 0 if unknown.
        polls: How many polls were begun; one that waits for a connection or its turn has begun.
        failures: How many polls in a row have failed by now.
        last: The last good answer; a complete one is not replaced by one that is not.
        last_error: What the last poll failed with; None after a good answer.
        not_before: Until then the API has asked not to be asked.
        woken_at: The instant that the last notification asked to poll at; the pace counts from there.
        woken: Whether no poll has begun since.
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

    @property
    def deadline(self) -> float | None:
        """When the wait must end."""
        return None if self.terms.timeout is None else self.started + self.terms.timeout

    def age(self, now: float) -> float:
        """The age of the job, in seconds."""
        return self.age_at_start + now - self.started


@frozen
class Sleep:
    """Poll again after *delay* seconds."""

    delay: float


@frozen
class Done:
    """The wait has what it was for."""

    status: JobStatus


@frozen
class GiveUp:
    """Going on makes no sense."""

    error: SmileJobsError


Decision = Sleep | Done | GiveUp


def start(state: PollState, now: float, wall_clock: datetime) -> None:
    """Take note that the wait begins at the instant *now*, which the wall clock (aware) calls *wall_clock*."""
    state.started = now
    if state.ref.submitted_at is not None:
        state.age_at_start = max(0.0, (wall_clock - state.ref.submitted_at).total_seconds())


def begin(state: PollState, now: float) -> GiveUp | None:
    """Take note that a poll begins at the instant *now*; refuse it if the wait is over."""
    over = end(state, now)
    if over is None:
        state.polls += 1
        state.woken = False
    return over


def end(state: PollState, now: float) -> GiveUp | None:
    """Say whether the deadline has come by the instant *now*; before the first poll it has not."""
    if state.polls and state.deadline is not None and now >= state.deadline - SAME_INSTANT:
        return GiveUp(timed_out(state, now))
    return None


def wake(state: PollState, now: float) -> float:
    """Take note that there may be news at the instant *now*; return the instant at which to poll, unless it is earlier.

    Notifications cost at most one poll per shortest delay of the pace, and none while the API wants to rest.
    """
    state.woken = True
    if state.woken_at is None:
        state.woken_at = now
    elif state.woken_at <= now:
        state.woken_at = max(now, state.woken_at + _pace_at(state, 0.0))
    return max(state.woken_at, state.not_before)


def step(state: PollState, observation: JobStatus | SmileJobsError, now: float, *, api_has_answered: bool) -> Decision:
    """Take in what a poll brought at the instant *now*, and say what to do next.

    Args:
        state: The wait; it is updated.
        observation: The answer, or the failure.
        now: An instant of the clock of *state*.
        api_has_answered: Whether the API has ever answered this client: URL and certificates are right then.
    """
    if isinstance(observation, JobStatus):
        return _after_answer(state, observation, now)
    return _after_failure(state, observation, now, api_has_answered=api_has_answered)


def is_outage(error: SmileJobsError) -> bool:
    """Return whether the failure of a poll says nothing about the job: the API was not reached, or has trouble itself.

    True for every transient failure, a connection that failed or is not trusted, an answer that cannot be read, and an
    answer without a code of the API. False for what the API says about the job, the request or the credentials, and for
    an answer that must not be believed.
    """
    if isinstance(error, CredentialsError):
        return error.code is None
    return error.transient or isinstance(error, (RequestError, BadResponseError, GatewayError))


def named(error: SmileJobsError) -> str:
    """Return the class of an error with its text, which names no job."""
    return f"{type(error).__name__}: {error.args[0]}"


def timed_out(state: PollState, now: float, *, retry_after: float | None = None) -> WaitTimeoutError:
    """Return the error of a wait that ends at *now* because of its timeout."""
    timeout = state.terms.timeout or 0.0
    if retry_after is None:
        end = f"The wait of {timeout:.10g} s is over, the job is not"
    else:
        end = (
            f"The API asks for {retry_after:.10g} s of rest, which is more than is left of the wait of {timeout:.10g} s"
        )
    return WaitTimeoutError(
        f"{_what_is_known(state)}. {end}: wait again to go on, with the time of its submission if you know it",
        ref=state.ref,
        last=state.last,
        last_error=state.last_error,
        polls=state.polls,
        elapsed=now - state.started,
        age=state.age(now),
        timeout=timeout,
        retry_after=retry_after,
    )


def cut_short(state: PollState, now: float, why: str, *, timeout: float) -> WaitTimeoutError:
    """Return the error of a wait that ends at *now* because the batch that it belongs to does.

    Args:
        state: The wait.
        now: The instant of the end.
        why: Why the batch ends, as a sentence without its full stop.
        timeout: The seconds that the batch had.
    """
    return WaitTimeoutError(
        f"{_what_is_known(state)}. {why}: wait for the job again to go on",
        ref=state.ref,
        last=state.last,
        last_error=state.last_error,
        polls=state.polls,
        elapsed=now - state.started,
        age=state.age(now),
        timeout=timeout,
    )


def _after_answer(state: PollState, status: JobStatus, now: float) -> Decision:
    state.failures = 0
    state.last_error = None
    if status.job_complete or state.last is None or not state.last.job_complete:
        state.last = status
    if status.job_complete and (state.terms.until == "complete" or status.is_final):
        return Done(status)
    if status.code == NO_ZIP and not status.job_complete and state.age(now) >= state.terms.grace:
        return GiveUp(
            NoZipError(
                "the job was registered, but its images never arrived; submit it again",
                ref=state.ref,
                code=NO_ZIP,
                text=status.message,
            )
        )
    return _sleep(state, _paced(state, now), status.retry_after, now)


def _after_failure(state: PollState, error: SmileJobsError, now: float, *, api_has_answered: bool) -> Decision:
    state.last_error = error
    missing = isinstance(error, JobNotFoundError)
    if missing and state.last is None:
        if state.age(now) >= state.terms.grace:
            return GiveUp(error)
        state.failures = 0
        return _sleep(state, _paced(state, now), error.retry_after, now)
    if not (missing or _may_pass(error, state.terms, api_has_answered=api_has_answered)):
        return GiveUp(error)
    state.failures += 1
    if state.failures < state.terms.max_failures:
        return _sleep(state, state.terms.backoff(state.failures), error.retry_after, now)
    too_many = TooManyFailuresError(
        f"{state.failures} polls in a row failed, the last one with {named(error)}. The job may be fine: "
        "wait again when the API can be reached",
        ref=state.ref,
        last=state.last,
        last_error=error,
        polls=state.polls,
    )
    too_many.__cause__ = error
    return GiveUp(too_many)


def _may_pass(error: SmileJobsError, terms: Terms, *, api_has_answered: bool) -> bool:
    """Return whether a later poll of the same wait may do better.

    Before the first answer of the API, some outages look like wrong settings, which would last: a certificate that is
    not trusted, the HTTP status of a wrong URL, a 401. A request that the API refuses will be refused again, unless
    this machine is mended meanwhile.
    """
    if isinstance(error, BadRequestError):
        return terms.sits_out_outages
    if not is_outage(error):
        return False
    if error.transient or api_has_answered or (isinstance(error, GatewayError) and not error.wrong_url):
        return True
    return terms.sits_out_outages and not isinstance(error, CredentialsError)


def _paced(state: PollState, now: float) -> float:
    return _pace_at(state, state.age(now) if state.woken_at is None else max(0.0, now - state.woken_at))


def _pace_at(state: PollState, age: float) -> float:
    return seconds(state.terms.pace(age, state.polls), "the delay that pace returned")


def _sleep(state: PollState, delay: float, retry_after: float | None, now: float) -> Decision:
    """Sleep *delay* seconds or as long as the API asks; before a deadline, leave room for one more poll."""
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
        return GiveUp(timed_out(state, now, retry_after=retry_after))
    reserve = min(1.0, timeout / 10)
    latest = left - reserve
    if delay > latest:
        delay = min(delay, max(latest, floor, reserve / 2) if latest > 0 else left)
    return Sleep(delay)


def _what_is_known(state: PollState) -> str:
    if state.last is None:
        if isinstance(state.last_error, JobNotFoundError):
            return "the API knows no such job yet"
        if state.last_error is None:
            return "there was no answer yet"
        return f"there was no good answer yet, the last poll failed with {named(state.last_error)}"
    if state.last.job_complete:
        return "the outcome is provisional, under review"
    what = "the job has no images yet" if state.last.code == NO_ZIP else "the job is still running"
    return what if state.last_error is None else f"{what}; the last poll failed with {named(state.last_error)}"
