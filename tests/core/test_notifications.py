"""`Client.notify`: a notification ends a sleep, and costs a poll."""

import asyncio
import gc
import itertools
import threading
import weakref
from typing import Any

import anyio
import anyio.from_thread
import anyio.to_thread
import pytest
from hypothesis import given, strategies

from smilejobs import Client, JobRef, JobResult, JobStatus, Pace
from smilejobs.model.callback import Callback
from smilejobs.notifications import Notifications
from smilejobs.polling.rules import PollState, Sleep, Terms, begin, start, step, wake
from smilejobs.testing import EPOCH, Script, complete, pending, rate_limited, virtual_clock

pytestmark = pytest.mark.anyio

REF = JobRef("user-1", "job-1")
SLOW = Pace(min=20, max=20, jitter=0)


def instants(script: Script) -> list[float]:
    first = script.polls["job-1"][0].at
    return [poll.at - first for poll in script.polls["job-1"]]


async def by_wait(client: Client, pace: Pace, **options: Any) -> JobStatus:
    return await client.wait("user-1", "job-1", pace=pace, **options)


async def by_watch(client: Client, pace: Pace, **options: Any) -> JobStatus:
    return [status async for status in client.watch("user-1", "job-1", pace=pace, **options)][-1]


async def by_wait_many(client: Client, pace: Pace, **options: Any) -> JobStatus:
    async with client.wait_many([REF], pace=pace, **options) as outcomes:
        (outcome,) = [outcome async for outcome in outcomes]
    assert outcome.status is not None
    return outcome.status


@pytest.fixture(params=[by_wait, by_watch, by_wait_many])
def waiting(request: pytest.FixtureRequest) -> Any:
    return request.param


async def notify_at(client: Client, *delays: float) -> None:
    for delay in delays:
        await anyio.sleep(delay)
        client.notify(REF)


async def test_a_notification_ends_the_sleep(waiting: Any) -> None:
    """The job is polled at once, and that answer counts."""
    script = Script({"job-1": [pending(), complete()]})
    async with script.client() as client, anyio.create_task_group() as tasks:
        tasks.start_soon(notify_at, client, 3)
        assert (await waiting(client, SLOW)).job_complete
    assert instants(script) == pytest.approx([0, 3])


async def test_a_callback_notifies_like_its_job(waiting: Any) -> None:
    """What the verifier returned can be handed over as it is."""
    script = Script({"job-1": [pending(), complete()]})
    callback = Callback(ref=REF, result=JobResult(), image_links=None, timestamp=EPOCH, duplicate=True)
    async with script.client() as client, anyio.create_task_group() as tasks:

        async def notify() -> None:
            await anyio.sleep(3)
            client.notify(callback)

        tasks.start_soon(notify)
        await waiting(client, SLOW)
    assert instants(script) == pytest.approx([0, 3])


async def test_a_lie_costs_one_poll_and_the_pace_begins_anew(waiting: Any) -> None:
    """The next polls come at the shortest delays, as those of a young job."""
    script = Script({"job-1": [*[pending()] * 5, complete()]})
    pace = Pace(min=2, max=100, fraction=0.5, jitter=0)
    async with script.client() as client, anyio.create_task_group() as tasks:
        tasks.start_soon(notify_at, client, 8)
        await waiting(client, pace)
    assert instants(script) == pytest.approx([0, 2, 4, 6, 8, 10])


async def test_notifications_coalesce(waiting: Any) -> None:
    """However many come, no more than one poll per shortest delay of the pace."""
    script = Script({"job-1": [*[pending()] * 4, complete()]})
    async with script.client() as client, anyio.create_task_group() as tasks:
        tasks.start_soon(notify_at, client, 5, 0.1, 0.1, 0.1, 15.7, 0.1, 0.1)
        await waiting(client, Pace(min=10, max=60, fraction=1, jitter=0))
    assert instants(script) == pytest.approx([0, 5, 15, 25, 35])


async def test_one_that_comes_during_a_poll_is_kept_for_after_it(waiting: Any) -> None:
    """The answer under way may be older than the news."""
    script = Script({"job-1": [pending(delay=4), complete()]})
    async with script.client() as client, anyio.create_task_group() as tasks:
        tasks.start_soon(notify_at, client, 2)
        await waiting(client, SLOW)
    assert instants(script) == pytest.approx([0, 4])


async def test_the_first_poll_is_brought_forward_too() -> None:
    """With first_after the callback is what the first poll waits for."""
    script = Script({"job-1": [complete()]})
    async with script.client() as client, anyio.create_task_group() as tasks:
        begun = anyio.current_time()
        tasks.start_soon(notify_at, client, 3)
        await client.wait("user-1", "job-1", first_after=60)
        assert anyio.current_time() - begun == pytest.approx(3)


async def test_the_rest_that_the_api_asks_for_is_respected(waiting: Any) -> None:
    """A notification does not overrule Retry-After."""
    script = Script({"job-1": [rate_limited(30), complete()]})
    async with script.client() as client, anyio.create_task_group() as tasks:
        tasks.start_soon(notify_at, client, 3)
        await waiting(client, SLOW)
    assert instants(script) == pytest.approx([0, 30])


async def test_between_two_steps_of_a_watch() -> None:
    """A notification that comes while the caller looks at an answer is not lost."""
    script = Script({"job-1": [pending(), complete()]})
    async with script.client() as client:
        watch = client.watch("user-1", "job-1", pace=SLOW)
        await anext(watch)
        client.notify(REF)
        await anext(watch)
    assert instants(script) == pytest.approx([0, 0.01])


async def test_everybody_who_waits_is_woken() -> None:
    """Two waits and two fleets of one job; another job sleeps on."""
    script = Script(
        {"job-1": itertools.chain([pending()] * 4, itertools.repeat(complete())), "other": [pending(), complete()]}
    )
    async with script.client() as client, anyio.create_task_group() as tasks:
        tasks.start_soon(by_wait, client, SLOW)
        tasks.start_soon(by_wait, client, SLOW)
        tasks.start_soon(by_wait_many, client, SLOW)
        tasks.start_soon(by_wait_many, client, SLOW)
        tasks.start_soon(lambda: client.wait("user-1", "other", pace=SLOW))
        await notify_at(client, 3)
    assert [round(at) for at in instants(script)] == [0] * 4 + [3] * 4
    assert script.polls["other"][1].at - script.polls["other"][0].at == pytest.approx(20)


async def test_several_jobs_are_woken_at_once() -> None:
    """Notifications of one moment are all heard, and what the woken jobs leave behind in the queue is cleared away."""
    refs = [JobRef("user-1", f"job-{index}") for index in range(400)]
    script = Script({ref.job_id: [pending(), complete()] for ref in refs})
    async with (
        script.client(rate=None) as client,
        client.wait_many(refs, pace=Pace(min=250, max=250, jitter=0), concurrency=2) as outcomes,
    ):
        await anyio.sleep(20)
        for ref in refs[1:]:
            client.notify(ref)
        ended = [(await anext(outcomes)).ref for _ in refs[1:]]
        assert anyio.current_time() - script.polls["job-0"][0].at < 30
        assert set(ended) == set(refs[1:])
        client.notify(refs[0])
        assert (await anext(outcomes)).ref == refs[0]
        assert anyio.current_time() - script.polls["job-0"][0].at < 30
    assert {len(polls) for polls in script.polls.values()} == {2}


async def test_nobody_waits() -> None:
    """That is fine, before the first poll, after the last, and for a job that is unknown."""
    script = Script({"job-1": [complete()]})
    async with script.client() as client:
        client.notify(REF)
        await client.wait("user-1", "job-1")
        client.notify(REF)
        async with client.wait_many([]) as outcomes:
            client.notify(REF)
            assert [outcome async for outcome in outcomes] == []


async def test_a_job_that_ended_before_its_notification_was_heard() -> None:
    """The fleet forgets it."""
    other = JobRef("user-1", "other")
    script = Script({"job-1": [complete(delay=5)], "other": [pending(), complete()]})
    async with script.client(max_connections=1) as client, client.wait_many([REF, other], pace=SLOW) as outcomes:
        await anyio.sleep(1)
        client.notify(REF)
        assert [outcome.ref.job_id async for outcome in outcomes] == ["job-1", "other"]


async def test_what_was_brought_forward_is_not_polled_twice() -> None:
    """The place in the queue that a woken job left behind is nothing, also when its time comes."""
    refs = [JobRef("user-1", f"job-{index}") for index in range(3)]
    script = Script(
        {"job-0": [pending(), complete()], "job-1": [pending(), complete()], "job-2": [pending(), complete()]}
    )
    async with script.client() as client, anyio.create_task_group() as tasks:
        tasks.start_soon(notify_at, client, 2, 0.5)
        async with client.wait_many(refs, pace=SLOW, timeout=25) as outcomes:
            ended = [outcome async for outcome in outcomes]
    assert (ended[0].ref.job_id, ended[0].polls) == ("job-1", 2)
    assert len(ended) == 3


@pytest.mark.parametrize("news", [None, "job-1", ("user-1", "job-1")])
async def test_news_must_be_a_callback_or_a_ref(news: Any) -> None:
    """Anything else is a mistake that would go unnoticed."""
    async with Script({}).client() as client:
        with pytest.raises(TypeError, match="Callback or a JobRef"):
            client.notify(news)


async def test_from_another_thread() -> None:
    """An event loop hears only its own thread; the error says how to get there."""
    script = Script({"job-1": [pending(), complete()]})
    async with script.client() as client:
        await client.job_status("user-1", "job-1")
        errors: list[BaseException] = []

        def notify() -> None:
            try:
                client.notify(REF)
            except RuntimeError as error:
                errors.append(error)

        thread = threading.Thread(target=notify)
        thread.start()
        thread.join()
        assert str(errors[0]) == (
            "this smilejobs client lives in another thread: there, anyio.from_thread.run_sync or "
            "loop.call_soon_threadsafe call a function in its event loop"
        )
        await client.wait("user-1", "job-1")


@pytest.mark.parametrize("anyio_backend", [virtual_clock("asyncio")])
async def test_outside_any_task(anyio_backend: object, waiting: Any) -> None:
    """A driver's listener calls back from the event loop itself, where there is no task."""
    script = Script({"job-1": [pending(), complete()]})
    async with script.client() as client:
        asyncio.get_running_loop().call_later(3, client.notify, REF)
        await waiting(client, SLOW)
    assert instants(script) == pytest.approx([0, 3])


async def test_a_watch_that_is_dropped_leaves_nothing_behind() -> None:
    """Nobody is kept to be woken who is not there any more."""
    notifications = Notifications()
    subscription = notifications.subscribe(REF)
    assert notifications.subscribe(JobRef("user-1", "job-1")) is subscription
    gone = weakref.ref(subscription)
    del subscription
    gc.collect()
    assert gone() is None


@given(
    events=strategies.lists(
        strategies.tuples(strategies.sampled_from(["notify", "pass"]), strategies.floats(0, 30, allow_subnormal=False)),
        max_size=60,
    ),
    latency=strategies.floats(0, 5, allow_subnormal=False),
)
def test_woken_polls_are_bounded_and_none_is_lost(events: list[tuple[str, float]], latency: float) -> None:
    """Every notification is followed by a poll within the shortest delay; there are no more than the pace explains."""
    pace = Pace(min=3, max=60, fraction=0.5, jitter=0)
    state = PollState(ref=REF, terms=Terms(timeout=None, pace=pace))
    start(state, 0.0, EPOCH)
    answer = JobStatus(user_id="user-1", job_id="job-1", code="2302")
    due, under_way_until, now = 0.0, None, 0.0
    polls: list[float] = []
    notified: list[float] = []

    def run_to(instant: float) -> None:
        nonlocal due, under_way_until
        while True:
            if under_way_until is None:
                if due > instant:
                    return
                begin(state, due)
                polls.append(due)
                under_way_until = due + latency
            if under_way_until > instant:
                return
            decision = step(state, answer, under_way_until, api_has_answered=True)
            assert isinstance(decision, Sleep)
            due = under_way_until + decision.delay
            under_way_until = None

    for kind, delay in events:
        now += delay
        run_to(now)
        if kind == "notify":
            notified.append(now)
            wanted = wake(state, now)
            if under_way_until is None:
                due = max(now, min(due, wanted))
    run_to(now + 100)
    for instant in notified:
        assert any(instant <= poll <= instant + 3 + latency + 1e-6 for poll in polls)
    assert all(later - earlier >= min(latency, 3) - 1e-6 for earlier, later in itertools.pairwise(polls))
    assert len(polls) <= 1 + len(notified) + (now + 100) / 3 + 1
