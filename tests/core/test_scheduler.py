"""What a worker of a watch list needs of a scheduler: jobs come and go, other workers throttle it.

By script, under the virtual clock.
"""

import itertools
import math
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

import anyio
import pytest

from smilejobs import (
    Client,
    Event,
    JobRef,
    JobResult,
    JobStatus,
    Outcome,
    Pace,
    RateLimitedError,
    SmileJobsError,
    Throttled,
    WaitTimeoutError,
)
from smilejobs.polling.rules import GiveUp, Sleep, Terms
from smilejobs.scheduler import Scheduler
from smilejobs.scheduler.clock import Clock
from smilejobs.scheduler.pending import Entry, without_raw
from smilejobs.scheduler.polls import decide
from smilejobs.scheduler.results import Results
from smilejobs.testing import EPOCH, Script, complete, cut, pending, provisional, rate_limited, refused

pytestmark = pytest.mark.anyio

STEADY = Pace(min=1, max=1, jitter=0)
FOREVER = Terms(timeout=None, pace=STEADY)
ONE, OTHER = JobRef("user-1", "one"), JobRef("user-1", "other")


@asynccontextmanager
async def running(
    client: Client, concurrency: int = 10, on_throttle: Callable[[SmileJobsError], None] | None = None
) -> AsyncGenerator[Scheduler, None]:
    """A scheduler that has no jobs yet."""
    scheduler = Scheduler(client.engine, concurrency=concurrency, on_throttle=on_throttle)
    async with scheduler.running():
        yield scheduler


async def take(scheduler: Scheduler, count: int) -> list[Outcome]:
    with anyio.fail_after(10_000):
        return [await anext(scheduler.outcomes) for _ in range(count)]


def instants(script: Script, ref: JobRef, since: float) -> list[float]:
    return [round(poll.at - since, 3) for poll in script.polls[ref.job_id]]


async def test_a_job_may_come_at_any_time() -> None:
    """Each on its own terms, and polled when it is said to be."""
    script = Script({"one": [provisional()], "other": [provisional(), pending(), complete()]})
    async with script.client() as client, running(client) as scheduler:
        began = anyio.current_time()
        await anyio.sleep(7)
        scheduler.add(OTHER, Terms(until="final", timeout=None, pace=STEADY), first_after=0)
        scheduler.add(ONE, FOREVER, first_after=2.5)
        one, other = await take(scheduler, 2)
    assert instants(script, OTHER, began) == [7, 8, 9]
    assert instants(script, ONE, began) == [9.5]
    assert (one.ref, one.polls, other.ref, other.polls) == (OTHER, 3, ONE, 1)
    assert {one.index, other.index} == {0, 1}


async def test_a_job_that_comes_is_as_old_as_its_submission() -> None:
    """Its first poll may come later: it is paced by its age then."""
    ref = JobRef("user-1", "one", EPOCH)
    script = Script({"one": [pending(), complete()]})
    async with script.client() as client, running(client) as scheduler:
        began = anyio.current_time()
        await anyio.sleep(50)
        scheduler.add(ref, Terms(timeout=None, pace=Pace(min=1, max=60, fraction=0.5, jitter=0)), first_after=10)
        (outcome,) = await take(scheduler, 1)
    assert instants(script, ref, began) == [60, 90]
    assert outcome.elapsed == pytest.approx(40)


async def test_there_is_always_room() -> None:
    """However many are pending: whoever takes them in knows how many there are."""
    refs = [JobRef("user-1", f"job-{index}") for index in range(50)]
    script = Script({ref.job_id: [pending(), complete()] for ref in refs})
    async with script.client(rate=None) as client, running(client, concurrency=5) as scheduler:
        for ref in refs:
            scheduler.add(ref, FOREVER, first_after=0)
        assert {outcome.ref for outcome in await take(scheduler, 50)} == set(refs)


async def test_a_job_that_is_pending_is_not_polled_twice() -> None:
    """It goes on as it did and has an outcome for each time that it was added; after that, it is a new job."""
    script = Script({"one": [pending(), pending(), complete(), complete()]})
    async with script.client() as client, running(client) as scheduler:
        began = anyio.current_time()
        assert ONE not in scheduler
        scheduler.add(ONE, FOREVER, first_after=0)
        await anyio.sleep(0.5)
        assert ONE in scheduler
        scheduler.add(ONE, Terms(timeout=0.1), first_after=0)
        assert scheduler.pending == 2
        outcomes = await take(scheduler, 2)
        assert [(outcome.index, outcome.polls) for outcome in outcomes] == [(0, 3), (1, 3)]
        assert ONE not in scheduler
        scheduler.add(ONE, FOREVER, first_after=3)
        await take(scheduler, 1)
    assert instants(script, ONE, began) == [0, 1, 2, 5]


async def test_a_discarded_job_has_no_outcome_however_often_it_was_added() -> None:
    """All its outcomes are gone."""
    script = Script({"one": [pending()], "other": [complete()]})
    async with script.client() as client, running(client) as scheduler:
        scheduler.add(ONE, FOREVER, first_after=0)
        scheduler.add(ONE, FOREVER, first_after=0)
        scheduler.add(OTHER, FOREVER, first_after=0.5)
        await anyio.sleep(0.2)
        scheduler.discard([ONE])
        assert scheduler.pending == 1
        (outcome,) = await take(scheduler, 1)
        assert outcome.ref == OTHER
        assert scheduler.pending == 0


async def test_its_timeout_runs_from_then() -> None:
    """Not from the first poll: it is what is left of a deadline."""
    script = Script({"one": itertools.repeat(pending())})
    async with script.client() as client, running(client) as scheduler:
        await anyio.sleep(30)
        scheduler.add(ONE, Terms(timeout=10, pace=Pace(min=3, max=3, jitter=0)), first_after=4)
        began = anyio.current_time()
        (outcome,) = await take(scheduler, 1)
        assert anyio.current_time() - began == pytest.approx(10)
    assert isinstance(outcome.error, WaitTimeoutError)
    assert outcome.error.last is not None


async def test_one_whole_poll_for_a_job_whose_time_is_over() -> None:
    """It may be complete; if it is not, its wait is over."""
    script = Script({"one": [complete(delay=5)], "other": [pending(delay=5)]})
    async with script.client() as client, running(client) as scheduler:
        for ref in (ONE, OTHER):
            scheduler.add(ref, Terms(timeout=0.001, pace=STEADY), first_after=3)
        ended = {outcome.ref: outcome for outcome in await take(scheduler, 2)}
    assert ended[ONE].status is not None
    error = ended[OTHER].error
    assert isinstance(error, WaitTimeoutError)
    assert error.last is not None


async def test_what_was_withdrawn_is_not_polled() -> None:
    """Neither before its first poll nor after; what is not there cannot be withdrawn."""
    script = Script({"one": [pending()], "other": [], "last": [complete()]})
    last = JobRef("user-1", "last")
    async with script.client() as client, running(client) as scheduler:
        scheduler.add(ONE, FOREVER, first_after=0)
        scheduler.add(OTHER, FOREVER, first_after=1.2)
        await anyio.sleep(0.5)
        scheduler.discard([ONE, OTHER, last, ONE])
        client.notify(ONE)
        scheduler.add(last, FOREVER, first_after=100)
        (outcome,) = await take(scheduler, 1)
    assert outcome.ref == last


async def test_what_is_withdrawn_while_it_is_polled_has_no_outcome() -> None:
    """Also if it comes back meanwhile: the new one has its own polls."""
    script = Script({"one": [complete(delay=5), complete()], "other": [complete(delay=5)]})
    async with script.client() as client, running(client) as scheduler:
        began = anyio.current_time()
        scheduler.add(ONE, FOREVER, first_after=0)
        scheduler.add(OTHER, FOREVER, first_after=0)
        await anyio.sleep(1)
        scheduler.discard([ONE, OTHER])
        scheduler.add(ONE, FOREVER, first_after=1)
        (outcome,) = await take(scheduler, 1)
        assert anyio.current_time() - began == pytest.approx(2)
        assert (outcome.ref, outcome.polls, outcome.index) == (ONE, 1, 2)
        with anyio.move_on_after(60) as scope:
            await anext(scheduler.outcomes)
        assert scope.cancelled_caught


async def test_what_comes_and_goes_leaves_nothing() -> None:
    """The places of what was withdrawn are given up long before they are due."""
    script = Script({"last": [complete()]})
    refs = [JobRef("user-1", f"job-{index}") for index in range(200)]
    async with script.client() as client, running(client) as scheduler:
        for _ in range(20):
            for ref in refs:
                scheduler.add(ref, FOREVER, first_after=3600)
            scheduler.discard(refs)
        later = scheduler._jobs._later.values()  # noqa: SLF001  # the one place where they could pile up
        assert sum(map(len, later)) <= 2 * len(refs)
        assert scheduler.pending == scheduler._unpolled == 0  # noqa: SLF001  # what it would wait for
        scheduler.add(JobRef("user-1", "last"), FOREVER, first_after=0)
        await take(scheduler, 1)


async def test_news_of_a_job_that_was_taken_in() -> None:
    """Bring it to the front."""
    script = Script({"one": [pending(), complete()]})
    async with script.client() as client, running(client) as scheduler:
        began = anyio.current_time()
        scheduler.add(ONE, Terms(timeout=None, pace=Pace(min=3600, max=3600)), first_after=0)
        await anyio.sleep(10)
        client.notify(ONE)
        await take(scheduler, 1)
    assert instants(script, ONE, began) == [0, 10]


async def test_news_of_a_job_while_others_are_always_due() -> None:
    """It is polled after those that were due before."""
    busy = {f"job-{number}": itertools.repeat(pending()) for number in range(10)}
    script = Script({**busy, "one": [pending(), complete()]})
    async with script.client(rate=1) as client, running(client) as scheduler:
        scheduler.add(ONE, Terms(timeout=None, pace=Pace(min=3600, max=3600)), first_after=0)
        for job_id in busy:
            scheduler.add(JobRef("user-1", job_id), FOREVER, first_after=0)
        await anyio.sleep(30)
        client.notify(ONE)
        began = anyio.current_time()
        await take(scheduler, 1)
        assert 8 < anyio.current_time() - began < 12


async def test_a_throttle_of_another_scheduler_holds_this_one_back() -> None:
    """For as long as the API asked; then it starts again with care, and nobody is told of it in turn."""
    told: list[SmileJobsError] = []
    script = Script({"one": itertools.repeat(pending()), "other": itertools.repeat(pending())})
    async with script.client() as client, running(client, on_throttle=told.append) as scheduler:
        began = anyio.current_time()
        scheduler.add(ONE, FOREVER, first_after=0)
        await anyio.sleep(3.5)
        scheduler.throttle(RateLimitedError("another worker throttled", http_status=429, retry_after=5))
        scheduler.add(OTHER, FOREVER, first_after=0)
        await anyio.sleep(10)
    polls = instants(script, ONE, began) + instants(script, OTHER, began)
    assert not [at for at in polls if 3.5 < at < 8.5]
    assert [at for at in polls if 8.5 <= at < 10]
    assert told == []


async def test_a_throttle_without_a_hint_is_short() -> None:
    """Some polls are late, none is lost."""
    script = Script({"one": itertools.repeat(pending())})
    async with script.client() as client, running(client) as scheduler:
        began = anyio.current_time()
        scheduler.add(ONE, FOREVER, first_after=0.1)
        scheduler.throttle(RateLimitedError("another worker throttled", http_status=429, retry_after=0.0))
        await anyio.sleep(2)
    assert 0.1 < instants(script, ONE, began)[0] <= 0.5


async def test_a_throttle_of_another_scheduler_counts_once() -> None:
    """Throttles within a second have met the same trouble."""
    seen: list[Event] = []
    script = Script({})
    async with script.client(hooks=[seen.append]) as client, running(client) as scheduler:
        await anyio.sleep(10)
        for _ in range(2):
            scheduler.throttle(RateLimitedError("another worker throttled", http_status=429))
    assert [type(event) for event in seen] == [Throttled]


async def test_others_are_told_of_a_throttle_of_ones_own() -> None:
    """Once per throttle, of the answer that throttled; not of failures that are a job's own."""
    told: list[SmileJobsError] = []
    script = Script({"one": [pending(), rate_limited(2), cut(), complete()], "other": [refused("2307")]})
    async with script.client() as client, running(client, on_throttle=told.append) as scheduler:
        scheduler.add(ONE, FOREVER, first_after=0)
        scheduler.add(OTHER, FOREVER, first_after=0)
        await take(scheduler, 2)
    assert [(type(error).__name__, error.http_status, error.retry_after) for error in told] == [
        ("RateLimitedError", 429, 2)
    ]


async def test_an_answer_about_a_job_that_is_gone_throttles_as_well() -> None:
    """It says something about the API."""
    told: list[SmileJobsError] = []
    script = Script({"one": [rate_limited(2)]})
    async with script.client() as client, running(client, on_throttle=told.append) as scheduler:
        scheduler.add(ONE, FOREVER, first_after=0)
        await anyio.lowlevel.checkpoint()
        while not script.polls["one"]:  # it has just begun
            await anyio.lowlevel.checkpoint()
        scheduler.discard([ONE])
        await anyio.sleep(1)
    assert len(told) == 1


class NoPermits:
    """Permits that another role of the database keeps back."""

    async def take(self) -> None:
        await anyio.sleep_forever()


@pytest.mark.parametrize(("rate", "allowed"), [(None, 45), (0.1, 65)])
async def test_a_scheduler_is_stuck_that_begins_no_poll_of_due_jobs(rate: float | None, allowed: float) -> None:
    """Not before the time is over that a poll may take, two polls are apart by the rate, and the caller allows."""
    script = Script({"one": itertools.repeat(pending())})
    async with script.client(rate=rate, request_timeout=30) as client, running(client) as scheduler:
        assert not scheduler.is_stuck(15)
        scheduler.add(ONE, FOREVER, first_after=0)
        await anyio.sleep(30.5)
        assert not scheduler.is_stuck(0)
        client.engine.exchange.permits = NoPermits()  # as a worker does on PostgreSQL
        await anyio.sleep(allowed - 1)
        assert not scheduler.is_stuck(15)
        await anyio.sleep(15)
        assert scheduler.is_stuck(15)
        scheduler.throttle(RateLimitedError("throttled", http_status=429, retry_after=100))
        assert not scheduler.is_stuck(15)


async def test_a_scheduler_that_polls_rarely_is_not_stuck() -> None:
    """At a poll per minute the fourth of four jobs is late by three minutes."""
    script = Script({f"job-{number}": itertools.repeat(pending()) for number in range(4)})
    async with script.client(rate=1 / 60, request_timeout=30) as client, running(client) as scheduler:
        await anyio.sleep(100)
        for job_id in script.polls:
            scheduler.add(JobRef("user-1", job_id), FOREVER, first_after=0)
        await anyio.sleep(175)
        assert not scheduler.is_stuck(0)
        assert scheduler.polls == 3


async def test_a_job_that_was_reported_as_pending_has_no_other_outcome() -> None:
    """Also if the answer to its poll comes after that, before the polling has ended."""
    script = Script({"refused": [refused("2307")], "one": [complete(delay=5.5)], "other": [complete(delay=5.6)]})
    async with script.client() as client:
        scheduler = Scheduler(client.engine, concurrency=2)

        async def work() -> None:
            for ref in (JobRef("user-1", "refused"), ONE, OTHER):
                scheduler.add(ref, FOREVER)
            await anyio.sleep(5)
            scheduler.cut_short("Enough")
            await anyio.sleep(1)

        outcomes: list[Outcome] = []
        async with scheduler.running(work):
            async for outcome in scheduler.outcomes:
                outcomes.append(outcome)
                await anyio.sleep(2)
        progress = scheduler.progress(3)
    assert [(outcome.ref, type(outcome.error)) for outcome in outcomes[1:]] == [
        (ONE, WaitTimeoutError),
        (OTHER, WaitTimeoutError),
    ]
    assert (progress.pending, progress.done, progress.failed) == (0, 0, 3)


def test_all_of_an_answer_is_kept_but_its_raw_bodies() -> None:
    """While a job is pending, its last answer takes little memory."""
    raw = {"ResultText": "raw"}
    outcome, earlier = JobResult(result_code="0812", raw=raw), JobResult(result_text="earlier", raw=raw)
    status = JobStatus(user_id="u", job_id="j", code="2302", result=outcome, history=(earlier,), raw=raw)
    kept = without_raw(status)
    assert kept == status
    assert kept is not None
    assert kept.result is not None
    assert [dict(kept.raw), dict(kept.result.raw), *(dict(entry.raw) for entry in kept.history)] == [{}, {}, {}]
    assert without_raw(None) is None


async def test_the_clock_leaves_out_every_stop() -> None:
    """It runs again when no reason is left, and a deadline under it moves by all the time that it was stopped."""
    clock, scope, other = Clock(), anyio.CancelScope(), anyio.CancelScope()
    await anyio.sleep(7)
    began = anyio.current_time()
    assert clock.at(began) == began
    stopped = 0
    with clock.limiting(scope, began + 100):
        for seconds in (5, 8):
            with clock.limiting(other, began + 50):
                assert other.deadline == began + 50 + stopped
            clock.stop("consumer")
            clock.stop("throttle")
            await anyio.sleep(seconds)
            clock.resume("consumer")
            assert (clock.is_running, scope.deadline) == (False, math.inf)
            with clock.limiting(other, began + 50):
                assert other.deadline == math.inf
                clock.resume("throttle")
                stopped += seconds
                assert scope.deadline == pytest.approx(began + 100 + stopped)
                assert other.deadline == pytest.approx(began + 50 + stopped)
            await anyio.sleep(1)
            assert clock.at(anyio.current_time()) == pytest.approx(anyio.current_time() - stopped)


def test_results_end_with_their_first_error() -> None:
    """Also if they had ended without one before, and once only."""
    results: Results[int] = Results(1, lambda: None)
    results.end()
    results.end(ValueError("first"))
    results.end(KeyError("second"))
    results.end()
    with pytest.raises(ValueError, match="first"):
        results.raise_error()
    results.raise_error()


@pytest.mark.parametrize(("retry_after", "rest"), [(None, 0.0), (2.0, 2.0), (10_000.0, FOREVER.max_hint)])
def test_a_poll_that_is_still_owed_comes_after_the_rest_that_is_asked_for(
    retry_after: float | None, rest: float
) -> None:
    """At once if none is asked for; the time of the job does not run meanwhile."""
    entry = Entry(index=0, ref=ONE, terms=Terms(timeout=10, pace=STEADY), polls_owed=1, started=100.0, polls=1)
    error = RateLimitedError("throttled", http_status=429, retry_after=retry_after)
    assert decide(entry, error, 111.0, stopped_for=0.0, api_has_answered=True) == Sleep(rest)
    assert entry.started == 100.0 + rest


@pytest.mark.parametrize(
    ("retry_after", "stopped_for", "delay"),
    [(30.0, 25.0, 5.0), (30.0, 30.0, 0.0), (30.0, 31.0, 0.0), (None, 25.0, 0.0)],
)
def test_the_time_for_which_everything_is_stopped_is_a_part_of_the_delay(
    retry_after: float | None, stopped_for: float, delay: float
) -> None:
    """The timeout of the job does not run during that time."""
    entry = Entry(index=0, ref=ONE, terms=Terms(timeout=40, pace=STEADY), polls_owed=0, started=100.0, polls=1)
    error = RateLimitedError("throttled", http_status=429, retry_after=retry_after)
    assert decide(entry, error, 130.0, stopped_for=stopped_for, api_has_answered=True) == Sleep(delay)


@pytest.mark.parametrize(
    ("polls_owed", "now", "is_polled"), [(2, 101.0, True), (1, 101.0, False), (1, 110.0, True), (0, 110.0, False)]
)
def test_a_rest_that_is_longer_than_the_timeout(polls_owed: int, now: float, is_polled: bool) -> None:
    """It ends a job, unless the poll was the first of two that are owed, or the second is owed and the time is over."""
    entry = Entry(index=0, ref=ONE, terms=Terms(timeout=10, pace=STEADY), polls_owed=polls_owed, started=100.0, polls=1)
    error = RateLimitedError("throttled", http_status=429, retry_after=20.0)
    decision = decide(entry, error, now, stopped_for=0.0, api_has_answered=True)
    if is_polled:
        assert decision == Sleep(20.0)
    else:
        assert isinstance(decision, GiveUp)
        assert isinstance(decision.error, WaitTimeoutError)
        assert (decision.error.retry_after, decision.error.elapsed) == (20.0, now - 100.0)
