"""When to poll again, and when to stop."""

from datetime import UTC, datetime, timedelta
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import example, given, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from smilejobs import (
    ApiError,
    BadRequestError,
    BadResponseError,
    CredentialsError,
    GatewayError,
    JobNotFoundError,
    JobRef,
    JobStatus,
    NoZipError,
    Pace,
    RateLimitedError,
    RequestError,
    ServerError,
    SignatureError,
    SmileJobsError,
    TooManyFailuresError,
    WaitTimeoutError,
    WrongJobError,
)
from smilejobs.polling.pace import Backoff
from smilejobs.polling.rules import (
    Decision,
    Done,
    GiveUp,
    PollState,
    Sleep,
    Terms,
    begin,
    is_outage,
    make_batch_timeout_error,
    make_timeout_error,
    start,
    step,
    wake,
)
from tests.helpers.bodies import REF, complete, pending, read, result, signed

BACKOFF = Backoff()
RUNNING = read(signed(pending()))
NO_ZIP = read(signed(pending(code="2314", result="No zip uploaded yet")))
APPROVED = read(signed(complete()))
REJECTED = read(signed(complete(result=result("0811"))))
PROVISIONAL = read(signed(complete(result=result("0814", IsFinalResult="false"))))
NOT_FOUND = JobNotFoundError("no such job", code="2304", ref=REF)
TRANSIENT: list[SmileJobsError] = [
    RequestError("cut"),
    BadResponseError("HTML"),
    RateLimitedError("slow down"),
    ServerError("oh"),
    ApiError("later", transient=True),
    GatewayError("maintenance", http_status=403),
    GatewayError("unknown code", code="2399", http_status=400),
]
PERMANENT: list[SmileJobsError] = [
    CredentialsError("key", code="2205"),
    SignatureError("forged"),
    WrongJobError("other"),
    ApiError("no", code="2222"),
]
UNLIKE_THE_API: list[SmileJobsError] = [
    RequestError("untrusted certificate", transient=False),
    GatewayError("no such path", http_status=404, wrong_url=True),
    CredentialsError("sign in", http_status=401),
]
"""What lasts if the settings are wrong, and is an outage if they are right."""


def hinted(seconds: float | None, *, code: str | None = "2302") -> JobStatus:
    """Return a pending answer with a Retry-After."""
    return JobStatus(user_id=REF.user_id, job_id=REF.job_id, code=code, retry_after=seconds)


def waiting(*, age: float = 0.0, started: float = 1000.0, **terms: Any) -> PollState:
    """Return a wait that has begun."""
    given = {"pace": Pace(jitter=0), **terms}
    return PollState(ref=REF, terms=Terms(**given), started=started, age_at_start=age)


def poll(
    state: PollState, observation: JobStatus | SmileJobsError, now: float, *, api_has_answered: bool = True
) -> Decision:
    """Do one poll, *now* seconds after the start."""
    assert begin(state, state.started + now) is None
    return step(state, observation, state.started + now, api_has_answered=api_has_answered)


def slept(decision: Decision) -> float:
    assert isinstance(decision, Sleep)
    return decision.delay


def given_up(decision: Decision | None) -> SmileJobsError:
    assert isinstance(decision, GiveUp)
    return decision.error


# Answers


@pytest.mark.parametrize("answer", [APPROVED, REJECTED])
@pytest.mark.parametrize("until", ["complete", "final"])
def test_a_final_answer_ends_the_wait(answer: JobStatus, until: str) -> None:
    """A rejection ends it like an approval."""
    assert poll(waiting(until=until), answer, 0.1) == Done(answer)


def test_a_provisional_answer_is_complete_but_not_final() -> None:
    """By default it ends the wait; a wait for the final one continues, and keeps it as the last answer."""
    assert poll(waiting(), PROVISIONAL, 0.1) == Done(PROVISIONAL)
    state = waiting(until="final")
    assert slept(poll(state, PROVISIONAL, 0.1)) == 1.0
    assert state.last is PROVISIONAL
    assert poll(state, APPROVED, 1.2) == Done(APPROVED)


def test_a_rejection_that_is_not_final_is_waited_on_for_the_final_one() -> None:
    """IsFinalResult false means that a review is going on, with any code."""
    answer = read(signed(complete(result=result("0811", IsFinalResult="false"))))
    assert poll(waiting(), answer, 0.1) == Done(answer)
    assert slept(poll(waiting(until="final"), answer, 0.1)) == 1.0


def test_a_pending_job_is_polled_at_the_pace_of_its_age() -> None:
    """The age of the job is the time of the wait plus the age of the job at its start."""
    assert slept(poll(waiting(timeout=None), RUNNING, 100.0)) == pytest.approx(15.0)
    assert slept(poll(waiting(timeout=None, age=100.0), RUNNING, 100.0)) == pytest.approx(30.0)
    assert slept(poll(waiting(timeout=None, age=1e6), RUNNING, 0.1)) == 60.0


def test_a_pace_may_be_a_function_of_age_and_polls() -> None:
    """It is called with both, and may return a timedelta."""
    asked: list[tuple[float, int]] = []

    def pace(age: float, polls: int) -> float:
        asked.append((age, polls))
        return 7.0

    state = waiting(age=10.0, pace=pace)
    assert slept(poll(state, RUNNING, 1.0)) == 7.0
    assert slept(poll(state, NO_ZIP, 8.0)) == 7.0
    assert asked == [(11.0, 1), (18.0, 2)]
    assert slept(poll(waiting(pace=lambda age, polls: timedelta(seconds=3)), RUNNING, 0.0)) == 3.0


@pytest.mark.parametrize(
    ("delay", "error"),
    [(-1.0, ValueError), (float("nan"), ValueError), (float("inf"), ValueError), (None, TypeError), ("1", TypeError)],
)
def test_a_pace_that_returns_no_duration_is_the_callers_mistake(delay: Any, error: type[Exception]) -> None:
    """The error names the pace."""
    with pytest.raises(error, match="^the delay that pace returned must "):
        poll(waiting(pace=lambda age, polls: delay), RUNNING, 0.0)


# Not found yet


@pytest.mark.parametrize("age", [0.0, 100.0])
def test_a_job_that_is_not_found_is_pending_for_a_while(age: float) -> None:
    """Up to 120 s of the job's age, at the pace of a pending job; then the error is raised."""
    state = waiting(age=age)
    for now in (0.0, 5.0, 119.9 - age):
        assert slept(poll(state, NOT_FOUND, now)) == pytest.approx(max(1.0, 0.15 * (age + now)))
        assert state.failures == 0
    assert given_up(poll(state, NOT_FOUND, 120.0 - age)) is NOT_FOUND


def test_a_job_without_a_zip_is_pending_for_a_while() -> None:
    """Up to 120 s of the job's age; then the error is raised, with the vendor's text."""
    state = waiting(age=60.0)
    assert slept(poll(state, NO_ZIP, 0.0)) == pytest.approx(9.0)
    assert slept(poll(state, NO_ZIP, 59.9)) > 0
    error = given_up(poll(state, NO_ZIP, 60.0))
    assert isinstance(error, NoZipError)
    assert (error.code, error.ref, error.text) == ("2314", REF, "No zip uploaded yet")
    assert error.args[0] == "the job was registered, but its images never arrived: submit it again"


def test_a_job_that_may_have_been_found_before_is_not_given_up_at_once() -> None:
    """The fifth "not found" in a row ends its wait; failures of another kind do not count."""
    state = waiting(age=3600.0, is_resumed=True, max_failures=1000, timeout=None)
    for now in range(30):
        slept(poll(state, TRANSIENT[0], float(now)))
    for now in range(30, 34):
        assert slept(poll(state, NOT_FOUND, float(now))) >= 0.5
    assert slept(poll(state, TRANSIENT[0], 34.0)) >= 0.5
    for now in range(35, 39):
        slept(poll(state, NOT_FOUND, float(now)))
    assert given_up(poll(state, NOT_FOUND, 39.0)) is NOT_FOUND

    state = waiting(age=3600.0, is_resumed=True)
    for now in range(4):
        slept(poll(state, NOT_FOUND, float(now)))
    assert poll(state, APPROVED, 4.0) == Done(APPROVED)


@pytest.mark.parametrize("answer", [APPROVED, PROVISIONAL, RUNNING])
def test_old_jobs_are_not_given_up_for_being_old(answer: JobStatus) -> None:
    """The grace period is for jobs that are not found; a running job may run for ever."""
    decision = poll(waiting(age=1e6, timeout=None, until="final"), answer, 1.0)
    assert isinstance(decision, (Done, Sleep))


def test_a_complete_answer_with_the_code_of_no_zip_is_complete() -> None:
    """job_complete has precedence over the code."""
    answer = read(signed(complete(code="2314")))
    assert poll(waiting(age=1e6), answer, 0.0) == Done(answer)
    provisional = read(signed(complete(code="2314", result=result("0814"))))
    assert slept(poll(waiting(age=1e6, until="final"), provisional, 0.0)) == 60.0


@pytest.mark.parametrize("seen", [RUNNING, NO_ZIP, PROVISIONAL])
def test_a_job_that_was_there_and_is_not_found_is_a_failure_that_passes(seen: JobStatus) -> None:
    """After a good answer, "not found" is an absorbed and counted failure, at any age."""
    state = waiting(until="final", timeout=None)
    poll(state, seen, 0.0)
    assert BACKOFF.min <= slept(poll(state, NOT_FOUND, 500.0)) <= BACKOFF.max
    assert (state.failures, state.last, state.last_error) == (1, seen, NOT_FOUND)


# Failures


@pytest.mark.parametrize("error", TRANSIENT, ids=lambda error: type(error).__name__)
def test_what_may_pass_is_absorbed_up_to_a_limit(error: SmileJobsError) -> None:
    """19 failures in a row are absorbed, the 20th ends the wait, and is the cause."""
    state = waiting(timeout=None)
    poll(state, RUNNING, 0.0)
    for failures in range(1, 20):
        assert BACKOFF.min <= slept(poll(state, error, failures)) <= BACKOFF.max
        assert (state.failures, state.last_error, state.last) == (failures, error, RUNNING)
    ended = given_up(poll(state, error, 20.0))
    assert isinstance(ended, TooManyFailuresError)
    assert ended.__cause__ is ended.last_error is error
    assert (ended.last, ended.polls, ended.ref, ended.transient) == (RUNNING, 21, REF, False)
    assert ended.args[0] == (
        f"20 polls in a row failed, the last one with {type(error).__name__}: {error.args[0]}. The job may be fine: "
        "wait again when the API can be reached"
    )


@pytest.mark.parametrize("error", [*TRANSIENT, *UNLIKE_THE_API], ids=lambda error: f"{type(error).__name__} {error}")
def test_once_the_api_has_answered_what_is_not_from_it_may_pass(error: SmileJobsError) -> None:
    """URL and certificate are right then: a wrong path, a login page or an untrusted certificate is temporary."""
    state = waiting(timeout=None)
    for failures in range(1, 20):
        assert BACKOFF.min <= slept(poll(state, error, failures)) <= BACKOFF.max
    assert isinstance(given_up(poll(state, error, 20.0)), TooManyFailuresError)


@pytest.mark.parametrize("error", UNLIKE_THE_API, ids=lambda error: f"{type(error).__name__} {error}")
@pytest.mark.parametrize("before", [None, *TRANSIENT[:2]])
def test_before_the_api_has_answered_wrong_settings_end_the_wait_at_once(
    error: SmileJobsError, before: SmileJobsError | None
) -> None:
    """A wrong URL, a certificate that is not trusted and credentials that are refused would stay so."""
    state = waiting()
    if before is not None:
        assert slept(poll(state, before, 0.0, api_has_answered=False)) > 0
    assert given_up(poll(state, error, 1.0, api_has_answered=False)) is error


@pytest.mark.parametrize("error", TRANSIENT, ids=lambda error: f"{type(error).__name__} {error}")
def test_what_does_not_look_like_wrong_settings_may_pass_before_the_api_has_answered(error: SmileJobsError) -> None:
    """An error page without a hint at the URL, an unknown code, a lost connection."""
    assert slept(poll(waiting(), error, 0.0, api_has_answered=False)) > 0


@pytest.mark.parametrize("error", UNLIKE_THE_API, ids=lambda error: f"{type(error).__name__} {error}")
def test_outages_are_sat_out_before_the_api_has_answered(error: SmileJobsError) -> None:
    """All but refused credentials: they pause a whole list, and end nothing."""
    decision = poll(waiting(sits_out_outages=True), error, 0.0, api_has_answered=False)
    if isinstance(error, CredentialsError):
        assert given_up(decision) is error
    else:
        assert slept(decision) > 0


@pytest.mark.parametrize("error", PERMANENT, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("api_has_answered", [False, True])
def test_other_failures_are_not_sat_out(error: SmileJobsError, api_has_answered: bool) -> None:
    """What the API says ends the wait; so does what must not be believed."""
    decision = poll(waiting(sits_out_outages=True), error, 0.0, api_has_answered=api_has_answered)
    assert given_up(decision) is error


@pytest.mark.parametrize("code", ["2204", "2303", "2313"])
@pytest.mark.parametrize("api_has_answered", [False, True])
def test_a_refused_request_is_sat_out(code: str, api_has_answered: bool) -> None:
    """The clock of this machine may be wrong: that says nothing about the job. Any other wait ends at once."""
    error = BadRequestError("no", code=code)
    patient, other = waiting(sits_out_outages=True, timeout=None), waiting()
    for failures in range(1, 20):
        assert slept(poll(patient, error, failures, api_has_answered=api_has_answered)) > 0
    assert given_up(poll(other, error, 0.0, api_has_answered=api_has_answered)) is error


@pytest.mark.parametrize("error", [*TRANSIENT, *UNLIKE_THE_API, *PERMANENT, NOT_FOUND], ids=repr)
def test_which_failures_are_outages(error: SmileJobsError) -> None:
    """Those that say nothing about the job, the request or the credentials."""
    assert is_outage(error) is (error in (*TRANSIENT, *UNLIKE_THE_API))


@pytest.mark.parametrize("good", [RUNNING, NO_ZIP, NOT_FOUND])
def test_a_good_answer_starts_the_count_anew(good: JobStatus | SmileJobsError) -> None:
    """Only failures in a row count; "not yet" is not a failure."""
    state = waiting(timeout=None, max_failures=3)
    for _ in range(10):
        assert slept(poll(state, TRANSIENT[0], 1.0)) > 0
        assert slept(poll(state, TRANSIENT[1], 1.0)) > 0
        assert slept(poll(state, good, 1.0)) > 0
        assert state.failures == 0


def test_a_good_answer_forgets_the_failure() -> None:
    """last_error is None after an answer."""
    state = waiting()
    poll(state, TRANSIENT[0], 0.0)
    poll(state, RUNNING, 1.0)
    assert state.last_error is None


@pytest.mark.parametrize("error", PERMANENT, ids=lambda error: f"{type(error).__name__} {error}")
@pytest.mark.parametrize("before", [None, RUNNING, TRANSIENT[0]])
def test_what_will_not_pass_ends_the_wait_at_once(
    error: SmileJobsError, before: JobStatus | SmileJobsError | None
) -> None:
    """The error itself is raised, whatever came before."""
    state = waiting()
    if before is not None:
        poll(state, before, 0.0)
    assert given_up(poll(state, error, 1.0)) is error


def test_failures_have_a_curve_of_their_own() -> None:
    """The backoff is called with the number of failures, and the pace is not called."""

    def pace(age: float, polls: int) -> float:
        raise AssertionError("a failure is not paced")

    state = waiting(timeout=None, pace=pace, backoff=Backoff(min=2, max=2))
    assert [slept(poll(state, TRANSIENT[0], now)) for now in range(4)] == [2.0, 2.0, 2.0, 2.0]


# Hints


@pytest.mark.parametrize(
    ("hint", "expected"), [(None, 1.0), (0.0, 1.0), (0.5, 1.0), (7.0, 7.0), (300.0, 300.0), (1e9, 300.0)]
)
def test_a_hint_is_a_floor_with_a_cap(hint: float | None, expected: float) -> None:
    """The delay is at least the hint, of which at most 300 s count, and at least the pace."""
    assert slept(poll(waiting(timeout=None), hinted(hint), 0.0)) == expected
    failure = RateLimitedError("slow down", retry_after=hint)
    backoff = Backoff(min=1, max=1)
    assert slept(poll(waiting(timeout=None, backoff=backoff), failure, 0.0)) == expected
    missing = JobNotFoundError("no such job", retry_after=hint)
    assert slept(poll(waiting(timeout=None), missing, 0.0)) == expected


def test_a_hint_counts_for_one_poll() -> None:
    """It is read from every answer anew."""
    state = waiting(timeout=None)
    assert slept(poll(state, hinted(50.0), 0.0)) == 50.0
    assert slept(poll(state, hinted(None), 1.0)) == 1.0
    assert slept(poll(state, hinted(20.0), 2.0)) == 20.0


@pytest.mark.parametrize("observation", [hinted(61.0), RateLimitedError("slow down", retry_after=61.0)])
def test_a_hint_beyond_the_deadline_ends_the_wait_now(observation: JobStatus | SmileJobsError) -> None:
    """No further poll would be possible; the error says for how long the API asks to pause."""
    error = given_up(poll(waiting(timeout=60.0), observation, 0.0))
    assert isinstance(error, WaitTimeoutError)
    assert (error.retry_after, error.elapsed, error.polls) == (61.0, 0.0, 1)
    assert "61 s" in str(error)


def test_a_long_hint_does_not_end_a_longer_wait() -> None:
    """The capped hint is compared with the deadline."""
    assert slept(poll(waiting(timeout=400.0), hinted(1e9), 0.0)) == 300.0
    assert isinstance(given_up(poll(waiting(timeout=299.0), hinted(1e9), 0.0)), WaitTimeoutError)


# The deadline


def test_the_last_sleep_leaves_room_for_one_more_poll() -> None:
    """A sleep that would end at the deadline or after it ends a second before it."""
    state = waiting(timeout=10.0, pace=lambda age, polls: 60.0)
    assert slept(poll(state, RUNNING, 2.0)) == pytest.approx(7.0)
    assert slept(poll(state, RUNNING, 9.0)) == pytest.approx(1.0)
    assert isinstance(given_up(begin(state, 1010.0)), WaitTimeoutError)


@given(started=st.floats(0.0, 1e9), timeout=st.floats(0.1, 1e4))
@example(started=5.549999999999999, timeout=3.0)
def test_how_a_clock_rounds_brings_no_further_poll(started: float, timeout: float) -> None:
    """After the poll for which time was left there is none before the deadline, wherever its clock began."""
    state = waiting(started=started, timeout=timeout, pace=lambda age, polls: 2 * timeout)
    last = slept(poll(state, RUNNING, 0.0))
    assert last + slept(poll(state, RUNNING, last)) == pytest.approx(timeout, abs=1e-6)


def test_just_before_the_last_second_two_polls_are_not_close_together() -> None:
    """A sleep that would end at once for the last second to be left takes half of that second."""
    state = waiting(timeout=10.0, pace=lambda age, polls: 60.0)
    assert slept(poll(state, RUNNING, 8.9)) == pytest.approx(0.5)


@pytest.mark.parametrize("timeout", [0.5, 5.0, 10.0, 300.0])
def test_after_a_short_wait_the_last_poll_has_its_share(timeout: float) -> None:
    """The time for the last poll is a second, or a tenth of a shorter wait."""
    state = waiting(timeout=timeout, pace=lambda age, polls: 1000.0)
    assert slept(poll(state, RUNNING, 0.0)) == pytest.approx(timeout - min(1.0, timeout / 10))


def test_a_hint_is_not_shortened() -> None:
    """The hint is respected also before the deadline, even if no poll is possible then."""
    assert slept(poll(waiting(timeout=60.0), hinted(59.5), 0.0)) >= 59.5
    assert slept(poll(waiting(timeout=60.0), hinted(58.0), 0.0)) == 58.0


@pytest.mark.parametrize(("now", "delay"), [(8.2, 1.3), (8.6, 1.0), (9.5, 0.25)])
def test_a_sleep_that_ends_before_the_deadline_is_not_made_longer(now: float, delay: float) -> None:
    """If the pace itself leaves time for a poll, the sleep is unchanged."""
    assert slept(poll(waiting(timeout=10.0, pace=lambda age, polls: delay), RUNNING, now)) <= delay


def test_a_hint_that_ends_before_the_deadline_leaves_room_for_a_poll() -> None:
    """The hint ends before the wait does, so there is another poll."""
    assert 59.5 <= slept(poll(waiting(timeout=60.0), hinted(59.5), 0.0)) < 60.0


def test_the_first_poll_is_never_refused() -> None:
    """At any time; the second poll is refused from the deadline on."""
    state = waiting(timeout=10.0)
    assert begin(state, 1e9) is None
    assert isinstance(given_up(begin(state, 1010.0)), WaitTimeoutError)
    assert state.polls == 1
    assert begin(state, 1009.9) is None
    assert state.polls == 2


def test_a_poll_that_is_owed_begins_after_the_deadline() -> None:
    """It counts like any other; the next one, which is not owed, is refused."""
    state = waiting(timeout=10.0)
    poll(state, RUNNING, 0.0)
    assert begin(state, 1010.0, is_owed=True) is None
    assert state.polls == 2
    assert isinstance(given_up(begin(state, 1010.0)), WaitTimeoutError)


def test_a_wait_without_a_timeout_has_no_deadline() -> None:
    """It continues at any time."""
    state = waiting(timeout=None)
    assert state.deadline is None
    poll(state, RUNNING, 0.0)
    assert begin(state, 1e12) is None
    assert waiting(timeout=5.0, started=3.0).deadline == 8.0


@pytest.mark.parametrize("observation", [RUNNING, NO_ZIP, NOT_FOUND, TRANSIENT[0]])
def test_an_answer_at_or_after_the_deadline_leaves_no_sleep(observation: JobStatus | SmileJobsError) -> None:
    """The wait has ended, or ends without another poll; no sleep is negative."""
    for late in (0.0, 0.5):
        state = waiting(timeout=10.0)
        decision = poll(state, observation, 10.0 + late)
        assert not isinstance(decision, Sleep) or decision.delay == 0.0
        end = begin(state, 1010.0 + late) if isinstance(decision, Sleep) else decision
        assert isinstance(given_up(end), WaitTimeoutError)


def test_a_complete_answer_after_the_deadline_is_still_an_answer() -> None:
    """It is not discarded."""
    assert poll(waiting(timeout=10.0), APPROVED, 11.0) == Done(APPROVED)


DESCRIPTIONS: dict[str, tuple[list[JobStatus | SmileJobsError], str]] = {
    "never answered": ([], "there was no answer yet"),
    "never found": ([NOT_FOUND], "the API knows no such job yet"),
    "never a good answer": (
        [RequestError("cut")],
        "there was no good answer yet, the last poll failed with RequestError: cut",
    ),
    "not found, then cut off": (
        [NOT_FOUND, RequestError("cut")],
        "there was no good answer yet, the last poll failed with RequestError: cut",
    ),
    "running": ([RUNNING], "the job is still running"),
    "running, then cut off": (
        [RUNNING, RequestError("cut")],
        "the job is still running; the last poll failed with RequestError: cut",
    ),
    "no zip": ([NO_ZIP], "the job has no images yet"),
    "no zip, then cut off": (
        [NO_ZIP, RequestError("cut")],
        "the job has no images yet; the last poll failed with RequestError: cut",
    ),
    "provisional": ([PROVISIONAL], "the outcome is provisional, under review"),
    "provisional, then cut off": ([PROVISIONAL, RequestError("cut")], "the outcome is provisional, under review"),
}


def timed_out(case: str) -> PollState:
    """Return a wait of 100 s with these observations, for a job that was 7 s old when it began."""
    state = waiting(timeout=100.0, until="final", age=7.0)
    for observation in DESCRIPTIONS[case][0]:
        poll(state, observation, 1.0)
    return state


@pytest.mark.parametrize("case", DESCRIPTIONS)
def test_the_text_of_a_timeout_is_true_in_each_case(case: str) -> None:
    """It describes the last answer, and says how to continue."""
    observations, description = DESCRIPTIONS[case]
    state = timed_out(case)
    error = make_timeout_error(state, 1100.0)
    assert isinstance(error, TimeoutError)
    assert error.args[0] == (
        f"{description}. The wait of 100 s is over, but the job is not: wait again to go on, with the time of its "
        "submission if you know it"
    )
    assert (error.ref, error.polls, error.elapsed, error.age, error.timeout) == (
        REF,
        len(observations),
        100.0,
        107.0,
        100.0,
    )
    assert (error.last, error.last_error) == (state.last, state.last_error)
    assert error.retry_after is None


def test_the_text_of_a_timeout_names_the_pause_that_is_too_long() -> None:
    """The API asks for more time than is left."""
    error = make_timeout_error(timed_out("running"), 1090.0, retry_after=12.5)
    assert error.args[0] == (
        "the job is still running. The API asks for a pause of 12.5 s, but less is left of the wait of 100 s: wait "
        "again to go on, with the time of its submission if you know it"
    )
    assert (error.elapsed, error.retry_after) == (90.0, 12.5)


def test_the_text_of_a_batch_that_ends_says_why() -> None:
    """The job can be waited for again; the timeout is that of the batch."""
    state = timed_out("running, then cut off")
    error = make_batch_timeout_error(state, 1030.0, "the deadline of the batch is over", timeout=25.0)
    assert error.args[0] == (
        "the job is still running; the last poll failed with RequestError: cut. the deadline of the batch is over: "
        "wait for the job again to go on"
    )
    assert (error.ref, error.polls, error.elapsed, error.age, error.timeout) == (REF, 2, 30.0, 37.0, 25.0)
    assert (error.last, error.last_error, error.retry_after) == (state.last, state.last_error, None)


# The start, and notifications


def test_the_age_at_the_start_is_the_time_since_the_submission() -> None:
    """0 where that is unknown or in the future."""
    wall_clock = datetime(2026, 3, 4, tzinfo=UTC)
    for submitted_at, age in (
        (None, 0.0),
        (wall_clock - timedelta(seconds=30), 30.0),
        (wall_clock + timedelta(days=1), 0.0),
    ):
        state = PollState(ref=JobRef("user-1", "job-1", submitted_at), terms=Terms())
        start(state, 7.0, wall_clock)
        assert (state.started, state.age(7.0), state.age(9.5)) == (7.0, age, age + 2.5)


def test_a_notification_brings_the_next_poll_forward() -> None:
    """It is due at once; the pace counts from the notification then."""
    state = waiting(timeout=None, age=1e6)
    assert slept(poll(state, RUNNING, 0.0)) == 60.0
    assert wake(state, 1010.0) == 1010.0
    assert slept(poll(state, RUNNING, 10.0)) == 1.0
    assert slept(poll(state, RUNNING, 30.0)) == pytest.approx(0.15 * 20)


def test_notifications_cause_one_poll_per_shortest_delay() -> None:
    """Those in between are about the same news, and those later are not."""
    state = waiting(timeout=None, pace=Pace(min=2, jitter=0))
    poll(state, RUNNING, 0.0)
    assert [wake(state, 1000.0 + at) for at in (10.0, 10.4, 11.9, 12.5, 50.0)] == [1010, 1012, 1012, 1014, 1050]


def test_a_second_notification_at_the_instant_of_its_poll_waits_for_the_shortest_delay() -> None:
    """The poll has begun, so the news may be newer; but two polls at one instant are one too many."""
    state = waiting(timeout=None, pace=Pace(min=2, jitter=0))
    assert wake(state, 1010.0) == 1010.0
    assert begin(state, 1010.0) is None
    assert wake(state, 1010.0) == 1012.0


def test_the_shortest_delay_is_what_the_pace_says_for_an_age_of_0() -> None:
    """The pace is told of the polls so far, as ever."""
    asked: list[tuple[float, int]] = []

    def pace(age: float, polls: int) -> float:
        asked.append((age, polls))
        return 3.0

    state = waiting(timeout=None, pace=pace)
    poll(state, RUNNING, 0.0)
    assert [wake(state, 1010.0), wake(state, 1011.0)] == [1010.0, 1013.0]
    assert asked == [(0.0, 1), (0.0, 1)]


def test_a_notification_during_a_poll_causes_another_poll() -> None:
    """The answer may be older than the news: the next poll follows as soon as notifications may cause one."""
    state = waiting(timeout=None, age=1e6)
    assert begin(state, 1000.0) is None
    wake(state, 1001.0)
    assert slept(step(state, RUNNING, 1001.25, api_has_answered=True)) == 0.0
    assert begin(state, 1001.25) is None
    wake(state, 1001.5)
    assert slept(step(state, RUNNING, 1001.75, api_has_answered=True)) == 0.25
    assert begin(state, 1002.0) is None
    assert slept(step(state, RUNNING, 1002.5, api_has_answered=True)) > 0.0


def test_a_notification_does_not_shorten_a_retry_after() -> None:
    """The API has asked for it."""
    state = waiting(timeout=None)
    assert slept(poll(state, hinted(50.0), 0.0)) == 50.0
    assert wake(state, 1010.0) == 1050.0
    assert slept(poll(state, hinted(20.0), 60.0)) == 20.0
    assert wake(state, 1061.0) == 1080.0


# The terms


def test_terms_have_these_defaults() -> None:
    """Every limit is finite."""
    terms = Terms()
    assert (terms.until, terms.timeout, terms.first_after, terms.pace) == ("complete", 300.0, 0.0, Pace())
    assert (terms.backoff, terms.grace, terms.max_failures, terms.max_hint) == (Backoff(), 120.0, 20, 300.0)
    assert terms.sits_out_outages is False


def test_terms_take_durations() -> None:
    """Seconds or timedeltas."""
    terms = Terms(timeout=timedelta(minutes=1), first_after=timedelta(seconds=5))
    assert (terms.timeout, terms.first_after) == (60.0, 5.0)


@pytest.mark.parametrize(
    ("given", "error", "text"),
    [
        ({"timeout": 0}, ValueError, "^timeout must be more than 0"),
        ({"timeout": -1}, ValueError, "^timeout must"),
        ({"timeout": float("nan")}, ValueError, "^timeout must"),
        ({"timeout": float("inf")}, ValueError, "^timeout must"),
        ({"timeout": "5"}, TypeError, "^timeout must"),
        ({"timeout": True}, TypeError, "^timeout must"),
        ({"first_after": -1}, ValueError, "^first_after must"),
        ({"first_after": None}, TypeError, "^first_after must"),
        ({"timeout": 5, "first_after": 5}, ValueError, "^first_after must be less than timeout"),
        ({"until": "done"}, ValueError, "^until must be 'complete' or 'final'"),
        ({"until": None}, ValueError, "^until must"),
        ({"pace": 5}, TypeError, r"^pace must be a Pace or a function \(age, polls\) -> seconds$"),
    ],
)
def test_terms_that_can_never_be_right_are_refused(given: dict[str, Any], error: type[Exception], text: str) -> None:
    """The text names the argument."""
    with pytest.raises(error, match=text):
        Terms(**given)


def test_without_a_timeout_the_first_poll_may_be_late() -> None:
    """There is no deadline."""
    assert Terms(timeout=None, first_after=1e6).first_after == 1e6


# A state machine of all rules

seconds = st.floats(-1, 0, exclude_max=True) | st.floats(0, 2) | st.floats(0, 400)
"""How long a poll takes; below zero, that share of what is left before the deadline."""

hints = st.none() | st.floats(0, 10) | st.floats(0, 1000)


class Waiting(RuleBasedStateMachine):
    """A wait with its own clock, compared with a second, simpler model."""

    @initialize(
        timeout=st.none() | st.floats(0.1, 10) | st.floats(0.1, 2000),
        until=st.sampled_from(["complete", "final"]),
        delay=st.floats(0, 2) | st.floats(0, 100),
        age=st.floats(0, 200),
        grace=st.floats(0, 200) | st.floats(0, 5000),
        patience=st.integers(0, 12),
        max_failures=st.integers(1, 8),
        max_hint=st.floats(1, 500),
        sits_out_outages=st.booleans(),
        is_resumed=st.booleans(),
        started=st.floats(0, 1e6),
    )
    def start(
        self,
        *,
        timeout: float | None,
        until: Any,
        delay: float,
        age: float,
        started: float,
        patience: int,
        **limits: Any,
    ) -> None:
        terms = Terms(timeout=timeout, until=until, pace=lambda age, polls: delay, **limits)
        self.now = started
        self.delay = delay
        self.patience = patience  # in polls, before anything may come that ends the wait at once
        self.api_has_answered = False
        self.begin_with(terms, age)

    def begin_with(self, terms: Terms, age: float) -> None:
        self.started = self.now
        self.state = PollState(ref=REF, terms=terms, started=self.now, age_at_start=age)
        self.polls = self.failures = 0
        self.age_seen = age
        self.last: JobStatus | None = None
        self.in_flight = False
        self.end: Decision | None = None

    def left(self) -> float:
        timeout = self.state.terms.timeout
        return float("inf") if timeout is None else self.started + timeout - self.now

    def age(self) -> float:
        return self.state.age_at_start + self.now - self.started

    @precondition(lambda self: not self.in_flight and self.end is None)
    @rule()
    def poll(self) -> None:
        """Before the deadline, and the first time always, a poll may begin."""
        over = begin(self.state, self.now)
        if over is None:
            assert self.polls == 0 or self.left() > 0
            self.polls += 1
            self.in_flight = True
        else:
            assert self.polls > 0
            assert self.left() <= 1e-5
            self.end = over

    def bring(self, observation: JobStatus | SmileJobsError, took: float) -> Decision:
        """The poll ends after *took* seconds, or just after the deadline, which cancels it."""
        self.in_flight = False
        left = max(0.0, self.left())
        self.now += min(-took * min(left, 1000.0) if took < 0 else took, left + 0.01)
        self.age_seen = self.age()
        decision = step(self.state, observation, self.now, api_has_answered=self.api_has_answered)
        if isinstance(decision, Sleep):
            self.check_sleep(decision.delay, observation.retry_after)
        else:
            self.end = decision
        if isinstance(decision, GiveUp) and isinstance(decision.error, WaitTimeoutError):
            asked = min(observation.retry_after or 0.0, self.state.terms.max_hint)
            assert asked > self.left()
        return decision

    def check_sleep(self, delay: float, hint: float | None) -> None:
        """Check that a sleep is at least the hint, and does not pass the deadline."""
        assert 0 <= delay < float("inf")
        assert delay >= min(hint or 0.0, self.state.terms.max_hint)
        assert delay <= self.left()
        self.now += delay

    def goes_on(self, decision: Decision) -> bool:
        """Check that the wait continues, or ends only because of a hint beyond the deadline."""
        return isinstance(decision, Sleep) or (
            isinstance(decision, GiveUp) and isinstance(decision.error, WaitTimeoutError)
        )

    @precondition(lambda self: self.in_flight)
    @rule(took=seconds, hint=hints, no_zip=st.booleans())
    def is_pending(self, took: float, hint: float | None, no_zip: bool) -> None:
        """A pending job continues the wait, without images only during the grace period."""
        self.api_has_answered = True
        answer = hinted(hint, code="2314" if no_zip else "2302")
        decision = self.bring(answer, took)
        self.failures = 0
        if self.last is None or not self.last.job_complete:
            self.last = answer  # a provisional outcome is not forgotten
        if no_zip and self.age_seen >= self.state.terms.grace:
            assert isinstance(given_up(decision), NoZipError)
            return
        assert self.goes_on(decision)
        if isinstance(decision, Sleep):
            assert decision.delay <= max(self.delay, hint or 0.0)
        if isinstance(decision, Sleep) and decision.delay < self.delay:
            assert self.left() <= 1.0 + 1e-6  # shortened, for one more poll before the deadline

    @precondition(lambda self: self.in_flight and self.polls > self.patience)
    @rule(took=seconds, answer=st.sampled_from([APPROVED, REJECTED, PROVISIONAL]))
    def is_complete(self, took: float, answer: JobStatus) -> None:
        """A complete job ends the wait; a provisional one does not if the wait is for the final one."""
        decision = self.bring(answer, took)
        self.failures, self.last = 0, answer
        if answer is PROVISIONAL and self.state.terms.until == "final":
            assert self.goes_on(decision)
        else:
            assert decision == Done(answer)

    @precondition(lambda self: self.in_flight)
    @rule(took=seconds, hint=hints)
    def is_not_found(self, took: float, hint: float | None) -> None:
        """A job that was never found continues the wait for a while; later it counts as a failure."""
        self.api_has_answered = True
        error = JobNotFoundError("no such job", retry_after=hint)
        if self.last is not None:
            self.fails(error, took)
            return
        was_missing = isinstance(self.state.last_error, JobNotFoundError)
        decision = self.bring(error, took)
        if self.age_seen < self.state.terms.grace:
            self.failures = 0
            assert self.goes_on(decision)
            return
        if self.state.terms.is_resumed and not was_missing:
            self.failures = 0
        if not self.state.terms.is_resumed or self.failures == 4:
            assert given_up(decision) is error
        else:
            self.has_failed(error, decision)

    @precondition(lambda self: self.in_flight)
    @rule(
        took=seconds,
        hint=hints,
        cls=st.sampled_from([RequestError, BadResponseError, RateLimitedError, ServerError, GatewayError]),
    )
    def fails_for_now(self, took: float, hint: float | None, cls: type[SmileJobsError]) -> None:
        """A transient failure is absorbed until there are too many in a row."""
        self.fails(cls("oh", retry_after=hint), took)

    def fails(self, error: SmileJobsError, took: float) -> None:
        self.has_failed(error, self.bring(error, took))

    def has_failed(self, error: SmileJobsError, decision: Decision) -> None:
        self.failures += 1
        if self.failures < self.state.terms.max_failures:
            assert self.goes_on(decision)
            return
        ended = given_up(decision)
        assert isinstance(ended, TooManyFailuresError)
        assert ended.__cause__ is error
        assert (ended.last, ended.polls) == (self.last, self.polls)

    @precondition(lambda self: self.in_flight and self.polls > self.patience)
    @rule(took=seconds, error=st.sampled_from(PERMANENT))
    def fails_for_good(self, took: float, error: SmileJobsError) -> None:
        """A permanent failure ends the wait at once and is its error."""
        assert given_up(self.bring(error, took)) is error

    @precondition(lambda self: self.in_flight and (self.api_has_answered or self.polls > self.patience))
    @rule(took=seconds, error=st.sampled_from(UNLIKE_THE_API))
    def is_not_the_api(self, took: float, error: SmileJobsError) -> None:
        """An answer that is not from the API is absorbed like a lost connection, unless it is the first answer."""
        pauses = isinstance(error, CredentialsError)
        if self.api_has_answered or (self.state.terms.sits_out_outages and not pauses):
            self.fails(error, took)
        else:
            assert given_up(self.bring(error, took)) is error

    @precondition(lambda self: self.end is not None)
    @rule(later=st.floats(0, 100))
    def waits_again(self, later: float) -> None:
        """A new wait for the same job begins with its greater age."""
        self.now += later
        self.begin_with(self.state.terms, self.age())

    @invariant()
    def the_accounts_agree(self) -> None:
        """Polls, failures and the last good answer are the same in the model."""
        state = self.state
        assert (state.polls, state.failures, state.last) == (self.polls, self.failures, self.last)
        assert state.deadline == (None if state.terms.timeout is None else self.started + state.terms.timeout)

    @invariant()
    def the_end_is_true(self) -> None:
        """Done is complete; a timeout comes at the deadline, or names the pause that the API asks for."""
        if isinstance(self.end, Done):
            assert self.end.status.job_complete
            assert self.state.terms.until == "complete" or self.end.status.is_final
        elif isinstance(self.end, GiveUp) and isinstance(self.end.error, WaitTimeoutError):
            error = self.end.error
            assert (error.last, error.polls, error.timeout) == (self.last, self.polls, self.state.terms.timeout)
            assert self.left() <= 1e-5 or (error.retry_after is not None and error.retry_after > self.left())


TestWaiting = Waiting.TestCase
TestWaiting.settings = settings(deadline=None, max_examples=200, stateful_step_count=30)
