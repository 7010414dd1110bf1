"""What waits teach a learned pace."""

import random
from datetime import timedelta

import anyio
import pytest

from smilejobs import Client, JobRef, JobResult, JobStatus, LearnedPace, Pace, WaitTimeoutError
from smilejobs.polling.lessons import delay_of_pace, record_answer, record_end
from smilejobs.polling.rules import Done, PollState, Sleep, Terms, begin, end, step, wake
from smilejobs.testing import EPOCH, Script, complete, cut, pending, provisional

pytestmark = pytest.mark.anyio

STEADY = Pace(min=2, max=2, jitter=0)


class Recorder(LearnedPace):
    """A learned pace that remembers what it was taught."""

    def __init__(self) -> None:
        super().__init__(base=STEADY)
        self.lessons: list[tuple[float, float | None, bool]] = []

    def observe(self, *, pending_at: float, complete_at: float | None, provisional: bool = False) -> None:
        """Learn, and remember."""
        super().observe(pending_at=pending_at, complete_at=complete_at, provisional=provisional)
        self.lessons.append((round(pending_at, 6), None if complete_at is None else round(complete_at, 6), provisional))


async def test_a_wait_teaches_when_its_job_was_pending_and_complete() -> None:
    """The ages at the last pending answer and at the first complete one; a failed poll says nothing."""
    pace = Recorder()
    script = Script({"job-1": [pending(), pending(), cut(), complete()]})
    async with script.client(pace=pace, rate=None) as client:
        await client.wait("user-1", "job-1")
        ended = script.polls["job-1"][-1].at
    assert pace.lessons == [(2.0, round(ended, 6), False)]


async def test_a_watch_teaches_as_well() -> None:
    """Each change is one answer, the last one completes the job."""
    pace = Recorder()
    script = Script({"job-1": [pending(), complete()]})
    async with script.client(pace=pace, rate=None) as client:
        assert [status.job_complete async for status in client.watch("user-1", "job-1")] == [False, True]
    assert pace.lessons == [(0.0, 2.0, False)]


async def test_a_batch_teaches_one_pace() -> None:
    """Every job of a batch, by the ages since it was submitted where that is known."""
    pace = Recorder()
    script = Script({"job-1": [pending(), complete()], "job-2": [pending(), pending(), complete()]})
    refs = [JobRef("user-1", "job-1"), JobRef("user-1", "job-2", EPOCH - timedelta(seconds=10))]
    async with script.client(pace=pace, rate=None) as client, client.wait_many(refs) as outcomes:
        assert [outcome.error async for outcome in outcomes] == [None, None]
    assert sorted(pace.lessons) == [(0.0, 2.0, False), (12.0, 14.0, False)]


async def test_the_pace_of_a_call_wins() -> None:
    """It is used and taught, that of the client is not."""
    of_the_client, of_the_call = Recorder(), Recorder()
    script = Script({"job-1": [pending(), complete()], "job-2": [pending(), complete()]})
    async with script.client(pace=of_the_client, rate=None) as client:
        await client.wait("user-1", "job-1", pace=of_the_call)
        await client.wait("user-1", "job-2", pace=Pace(min=7, max=7, jitter=0))
    assert of_the_client.lessons == []
    assert of_the_call.lessons == [(0.0, 2.0, False)]
    assert [poll.at for poll in script.polls["job-2"]] == pytest.approx([2, 9])


async def test_the_pace_of_the_client_is_the_default() -> None:
    """Any pace can be it, and one that is none is refused."""
    script = Script({"job-1": [pending(), complete()]})
    async with script.client(pace=lambda age, polls: 5.0) as client:
        await client.wait("user-1", "job-1")
    assert [poll.at for poll in script.polls["job-1"]] == pytest.approx([0, 5])
    with pytest.raises(TypeError, match="pace"):
        Client(partner_id="085", api_key="k", environment="sandbox", pace=5)  # type: ignore[arg-type]  # what is tested


async def test_a_job_of_unknown_age_that_is_complete_at_once_teaches_nothing() -> None:
    """It may have been complete for days; with the instant of its submission, its age is an upper bound."""
    pace = Recorder()
    script = Script({"job-1": [complete()], "job-2": [complete()]})
    async with script.client(pace=pace, rate=None) as client:
        await client.wait("user-1", "job-1")
        assert pace.lessons == []
        await client.wait("user-1", "job-2", submitted_at=EPOCH - timedelta(seconds=30))
    assert pace.lessons == [(0.0, 30.0, False)]


async def test_a_timeout_teaches_that_the_job_was_pending() -> None:
    """Up to its last answer; a wait without an answer teaches nothing."""
    pace = Recorder()
    script = Script({"job-1": [pending()] * 4, "job-2": [pending(delay=60)]})
    async with script.client(pace=pace, rate=None) as client:
        with pytest.raises(WaitTimeoutError):
            await client.wait("user-1", "job-1", timeout=5)
        last = script.polls["job-1"][-1].at
        with pytest.raises(WaitTimeoutError):
            await client.wait("user-1", "job-2", timeout=5)
    assert pace.lessons == [(round(last, 6), None, False)]


async def test_a_batch_that_ends_teaches_that_its_jobs_were_pending() -> None:
    """Each pending job of a batch whose deadline has come, and of one whose job has timed out."""
    pace = Recorder()
    script = Script({"job-1": [pending()] * 3, "job-2": [pending()] * 3})
    refs = [JobRef("user-1", "job-1"), JobRef("user-1", "job-2")]
    async with script.client(pace=pace, rate=None) as client, client.wait_many(refs, deadline=5) as outcomes:
        assert len([outcome async for outcome in outcomes]) == 2
    assert pace.lessons == [(4.0, None, False)] * 2


async def test_the_review_is_learned_apart() -> None:
    """With ``until="final"`` the first phase ends with the provisional answer, and ages of the second begin there."""
    pace = Recorder()
    script = Script({"job-1": [pending(), provisional(), provisional(), complete()]})
    async with script.client(pace=pace, rate=None) as client:
        await client.wait("user-1", "job-1", until="final")
    assert pace.lessons == [(0.0, 2.0, False), (2.0, 4.0, True)]


async def test_a_review_that_times_out_is_known_to_last_longer() -> None:
    """The age of the review at its last provisional answer."""
    pace = Recorder()
    script = Script({"job-1": [pending(), *[provisional()] * 5]})
    async with script.client(pace=pace, rate=None) as client:
        with pytest.raises(WaitTimeoutError):
            await client.wait("user-1", "job-1", until="final", timeout=9)
    assert pace.lessons[0] == (0.0, 2.0, False)
    assert pace.lessons[1][1:] == (None, True)
    assert 4.0 <= pace.lessons[1][0] < 7.0


async def test_a_review_is_polled_by_its_own_pace() -> None:
    """Once the answer is provisional, the delays are those of reviews."""
    random.seed(1)  # one in ten long delays is cut at random
    pace = LearnedPace(base=Pace(jitter=0))
    for _ in range(400):
        pace.observe(pending_at=0, complete_at=2)
        pace.observe(pending_at=80, complete_at=100, provisional=True)
    script = Script({"job-1": [pending(), pending(), pending(), provisional(), complete()]})
    async with script.client(pace=pace, rate=None) as client:
        await client.wait("user-1", "job-1", until="final")
    delays = [later.at - poll.at for poll, later in zip(script.polls["job-1"], script.polls["job-1"][1:], strict=False)]
    assert max(delays[:3]) < 3
    assert delays[3] > 5


async def test_the_instant_of_a_notification_is_the_better_bound() -> None:
    """The job was complete when the callback came, not only when the next poll saw it."""
    pace = Recorder()
    script = Script({"job-1": [pending(), pending(), complete(delay=0.5)]})
    async with script.client(pace=pace, rate=None) as client, anyio.create_task_group() as tasks:

        async def notify() -> None:
            await anyio.sleep(3.1)
            client.notify(JobRef("user-1", "job-1"))

        tasks.start_soon(notify)
        await client.wait("user-1", "job-1")
    assert len(pace.lessons) == 1
    pending_at, complete_at, _ = pace.lessons[0]
    assert complete_at == pytest.approx(3.1)
    assert pending_at == 2.0


async def test_a_notification_without_news_leaves_no_bound() -> None:
    """After a pending answer, the next complete one counts; polls follow by the base, from the notification."""
    pace = Recorder()
    script = Script({"job-1": [pending(), pending(), pending(), complete()]})
    async with script.client(pace=pace, rate=None) as client, anyio.create_task_group() as tasks:

        async def notify() -> None:
            await anyio.sleep(1)
            client.notify(JobRef("user-1", "job-1"))
            client.notify(JobRef("user-1", "job-1"))

        tasks.start_soon(notify)
        await client.wait("user-1", "job-1")
    at = [round(poll.at, 6) for poll in script.polls["job-1"]]
    assert pace.lessons == [(at[-2], at[-1], False)]


async def test_news_during_the_poll_of_a_provisional_answer_causes_a_poll() -> None:
    """The notification may be about the final answer already; the review is then polled at once."""
    pace = Recorder()
    script = Script({"job-1": [pending(), pending(delay=0.5), provisional(), complete()]})
    ref = JobRef("user-1", "job-1")
    async with script.client(pace=pace, rate=None) as client, anyio.create_task_group() as tasks:

        async def notify() -> None:
            await anyio.sleep(2.2)
            client.notify(ref)
            await anyio.sleep(0.4)
            client.notify(ref)

        tasks.start_soon(notify)
        await client.wait("user-1", "job-1", until="final")
    assert [lesson[2] for lesson in pace.lessons] == [False, True]


def test_a_first_complete_answer_keeps_a_notification_that_waits() -> None:
    """A notification that no poll has followed yet still decides when the next poll is due."""
    state = PollState(ref=JobRef("user-1", "job-1"), terms=Terms(until="final", pace=Recorder()))
    assert begin(state, 0.0) is None
    wake(state, 0.5)
    under_review = JobStatus(user_id="user-1", job_id="job-1", code="2302", job_complete=True)
    record_answer(state, under_review, 1.0)
    assert (state.woken_at, state.complete_at) == (0.5, 0.5)


UNDER_REVIEW = JobStatus(
    user_id="user-1", job_id="job-1", code="2302", job_complete=True, result=JobResult(result_code="0814")
)
"""Complete, and provisional."""


def resumed(pace: LearnedPace, *ages: float, is_age_known: bool = True) -> PollState:
    """A wait for a job that another process may have polled before; its answers at these ages are provisional."""
    terms = Terms(until="final", timeout=1000, pace=pace, is_resumed=True, is_age_known=is_age_known)
    state = PollState(ref=JobRef("user-1", "job-1", EPOCH), terms=terms)
    assert begin(state, 0.0) is None
    for age in ages:
        assert isinstance(step(state, UNDER_REVIEW, age, api_has_answered=True), Sleep)
    return state


@pytest.mark.parametrize(("is_age_known", "lessons"), [(True, [(0.0, 50.0, False), (0.0, 90.0, True)]), (False, [])])
def test_a_review_of_unknown_beginning_teaches_its_longest_duration(
    *, is_age_known: bool, lessons: list[tuple[float, float | None, bool]]
) -> None:
    """It began at any age of the job; if that is not known either, nothing is known."""
    pace = Recorder()
    state = resumed(pace, 50.0, 70.0, is_age_known=is_age_known)
    result = JobResult(result_code="0810")
    final = JobStatus(user_id="user-1", job_id="job-1", code="2302", job_complete=True, result=result)
    assert isinstance(step(state, final, 90.0, api_has_answered=True), Done)
    assert pace.lessons == lessons


def test_a_review_of_unknown_beginning_that_times_out_teaches_nothing() -> None:
    """How long it was seen is no duration from its beginning on."""
    pace = Recorder()
    state = resumed(pace, 50.0, 70.0)
    over = end(state, 1000.0)
    assert over is not None
    record_end(state, over)
    assert pace.lessons == [(0.0, 50.0, False)]


def test_a_review_of_unknown_beginning_is_polled_by_the_age_of_its_job() -> None:
    """A worker that starts again does not poll old reviews as often as young ones."""
    state = resumed(LearnedPace(base=Pace(max=3600, jitter=0)), 400.0)
    assert delay_of_pace(state, 400.0) == pytest.approx(60.0)


def test_a_review_is_polled_by_its_own_age() -> None:
    """It is ten seconds old, its job 400."""
    pace = LearnedPace(base=Pace(max=3600, jitter=0))
    state = PollState(ref=JobRef("user-1", "job-1"), terms=Terms(until="final", pace=pace), complete_at=390.0)
    assert delay_of_pace(state, 400.0) == pytest.approx(1.5)


def test_after_news_a_pace_counts_from_them() -> None:
    """From 0, also for a poll that comes before the instant at which the news want one."""
    ages: list[float] = []

    def pace(age: float, _: int) -> float:
        ages.append(age)
        return 1.0

    state = PollState(ref=JobRef("user-1", "job-1"), terms=Terms(pace=pace), woken_at=7.0)
    for now in (7.0, 9.5, 6.0):
        delay_of_pace(state, now)
    assert ages == [0.0, 2.5, 0.0]


def test_after_news_delays_are_those_of_the_base() -> None:
    """A pace has learned for which ages of the job polls are of use, but these ages count from the news."""
    pace = LearnedPace(base=STEADY)
    for _ in range(50):
        pace.observe(pending_at=80.0, complete_at=100.0)
    state = PollState(ref=JobRef("user-1", "job-1"), terms=Terms(pace=pace), woken_at=7.0)
    assert [delay_of_pace(state, now) for now in (7.0, 30.0)] == [2.0, 2.0]
