"""`Client.wait_many`: many jobs, by script, under the virtual clock."""

import asyncio
import contextlib
import itertools
import random
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator
from datetime import timedelta
from itertools import repeat
from typing import Any

import anyio
import pytest
from attrs import evolve
from hypothesis import example, given, strategies

import smilejobs
from smilejobs import JobRef, Outcome, Pace, Progress, WaitManyOptions
from smilejobs.testing import (
    EPOCH,
    Reply,
    Script,
    complete,
    cut,
    html,
    no_zip,
    not_found,
    pending,
    provisional,
    rate_limited,
    refused,
    virtual_clock,
)

pytestmark = pytest.mark.anyio

STEADY = Pace(jitter=0)


def refs(count: int) -> list[JobRef]:
    return [JobRef("user-1", f"job-{index}") for index in range(count)]


def scripts(count: int, steps: Iterable[Reply | Exception]) -> Script:
    listed = list(steps)
    return Script({f"job-{index}": listed for index in range(count)})


async def collect(ended: list[Outcome], client: smilejobs.Client, jobs: Any, **options: Any) -> None:
    async with client.wait_many(jobs, **options) as outcomes:
        async for outcome in outcomes:
            ended.append(outcome)  # noqa: PERF401  # what came before an error is to be seen


async def everything(outcomes: AsyncIterator[Outcome]) -> list[Outcome]:
    return [outcome async for outcome in outcomes]


async def test_outcomes_come_in_the_order_of_completion() -> None:
    """The index ties an outcome to its place in the input."""
    script = Script({f"job-{index}": [*[pending()] * (3 - index), complete()] for index in range(3)})
    async with script.client() as client, client.wait_many(refs(3), pace=STEADY) as outcomes:
        ended = await everything(outcomes)
    assert [outcome.index for outcome in ended] == [2, 1, 0]
    assert [outcome.ref.job_id for outcome in ended] == ["job-2", "job-1", "job-0"]
    assert [outcome.polls for outcome in ended] == [2, 3, 4]
    assert [outcome.elapsed for outcome in ended] == pytest.approx([1, 2, 3])
    assert all(outcome.status is not None and outcome.error is None for outcome in ended)


async def test_an_unexpected_error_of_one_poll_fails_that_job_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its class is told, and nothing of its text, which may hold anything; its event is that of any failed poll."""
    script = Script({"job-0": [complete()], "job-1": []})
    events: list[smilejobs.Event] = []
    async with script.client(rate=2, hooks=[events.append]) as client:
        poll = client.engine.exchange.poll_acquired  # what is below it raises errors of ours only

        async def fail(ref: JobRef, *args: Any, **options: Any) -> smilejobs.JobStatus:
            if ref.job_id == "job-1":
                await anyio.sleep(0.2)
                raise ZeroDivisionError("secret")
            return await poll(ref, *args, **options)

        monkeypatch.setattr(client.engine.exchange, "poll_acquired", fail)
        async with client.wait_many(refs(2), timeout=10) as outcomes:
            found = {outcome.ref.job_id: outcome async for outcome in outcomes}
    assert found["job-0"].status is not None
    error = found["job-1"].error
    assert isinstance(error, smilejobs.WaitTimeoutError)
    assert error.last_error is not None
    assert error.last_error.ref == found["job-1"].ref
    text = "the poll failed unexpectedly with ZeroDivisionError; report it to smilejobs if it stays"
    assert error.last_error.args[0] == text
    assert "secret" not in f"{error} {error.last_error}"
    failed = next(event for event in events if isinstance(event, smilejobs.PollFailed))
    (ended,) = [event for event in events if isinstance(event, smilejobs.WaitEnded) and event.ref == failed.ref]
    assert (failed.ref, failed.wait, type(failed.error)) == (error.ref, ended.wait, smilejobs.RequestError)
    assert (failed.seconds, failed.late) == pytest.approx((0.2, 0.5))


async def test_no_jobs_no_outcomes() -> None:
    """An empty input ends at once."""
    async with Script({}).client() as client, client.wait_many([]) as outcomes:
        assert await everything(outcomes) == []


async def test_pairs_are_refs() -> None:
    """The names of jobs may come as pairs, from anything that can be iterated over."""

    async def read() -> AsyncIterator[tuple[str, str]]:
        yield "user-1", "job-0"
        await anyio.sleep(5)
        yield "user-1", "job-1"

    async with scripts(2, [complete()]).client() as client, client.wait_many(read()) as outcomes:
        assert [outcome.ref for outcome in await everything(outcomes)] == refs(2)


class Queue:
    """An async iterable that is no generator."""

    def __init__(self, items: list[JobRef]) -> None:
        self._items = iter(items)

    def __aiter__(self) -> "Queue":
        return self

    async def __anext__(self) -> JobRef:
        await anyio.sleep(1)
        for item in self._items:
            return item
        raise StopAsyncIteration


async def test_any_async_iterable_will_do() -> None:
    """A queue, say, or a cursor."""
    async with scripts(5, [complete()]).client() as client, client.wait_many(Queue(refs(5))) as outcomes:
        assert [outcome.ref for outcome in await everything(outcomes)] == refs(5)


async def test_the_timeout_cuts_through_a_poll() -> None:
    """To the second, as that of a single wait."""
    script = Script({"job-0": [pending(), pending(delay=20)], "job-1": [complete(delay=9)]})
    async with script.client() as client, client.wait_many(refs(2), timeout=10, pace=STEADY) as outcomes:
        one, other = await everything(outcomes)
    assert other.status is None
    assert isinstance(other.error, smilejobs.WaitTimeoutError)
    assert other.polls == 2
    assert other.elapsed == pytest.approx(10)
    assert one.status is not None


async def test_a_failure_is_an_outcome() -> None:
    """Every job that fails is reported with what `wait` would have raised; the others go on."""
    script = Script(
        {
            "job-0": [refused("2307")],
            "job-1": itertools.repeat(pending()),
            "job-2": itertools.repeat(not_found()),
            "job-3": [html(), pending(), complete("0811")],
        }
    )
    seen: list[Progress] = []
    options: WaitManyOptions = {"timeout": timedelta(minutes=3), "on_progress": seen.append}
    async with script.client() as client, client.wait_many(refs(4), **options) as outcomes:
        ended = {outcome.index: outcome for outcome in await everything(outcomes)}
    assert (seen[-1].done, seen[-1].failed) == (1, 3)
    kinds = {index: type(outcome.error).__name__ for index, outcome in ended.items()}
    assert kinds == {0: "UserDisabledError", 1: "WaitTimeoutError", 2: "JobNotFoundError", 3: "NoneType"}
    timed_out = ended[1].error
    assert isinstance(timed_out, smilejobs.WaitTimeoutError)
    assert timed_out.last is not None
    assert timed_out.last.code == "2302"
    assert ended[1].elapsed == pytest.approx(180)


async def test_the_rest_of_the_terms_holds_too() -> None:
    """until, image_links and history are those of every job."""
    script = Script({"job-0": [complete("0814", IsFinalResult="false"), complete()]})
    async with (
        script.client() as client,
        client.wait_many(refs(1), until="final", image_links=True, history=True) as outcomes,
    ):
        (outcome,) = await everything(outcomes)
    assert outcome.polls == 2
    assert [(poll.body["image_links"], poll.body["history"]) for poll in script.polls["job-0"]] == [(True, True)] * 2


async def test_the_age_of_each_job_counts() -> None:
    """A ref that says when the job was submitted is paced by the job's age."""
    old = JobRef("user-1", "job-0", EPOCH - timedelta(seconds=100))
    script = Script({"job-0": [pending(), complete()]})
    async with script.client() as client, client.wait_many([old], pace=STEADY) as outcomes:
        (outcome,) = await everything(outcomes)
    assert outcome.elapsed == pytest.approx(15)
    assert outcome.ref is old


async def test_a_job_that_comes_twice_is_polled_once() -> None:
    """While it is pending, it is reported for each time that the input names it; later, it is asked for again."""
    (first,) = refs(1)
    again = JobRef("user-1", "job-0", EPOCH)

    async def read() -> AsyncIterator[JobRef]:
        yield first
        yield again
        yield first
        await anyio.sleep(60)
        yield first

    script = Script({"job-0": [pending(), complete(), complete()]})
    async with script.client() as client, client.wait_many(read()) as outcomes:
        ended = await everything(outcomes)
    assert [outcome.index for outcome in ended] == [0, 1, 2, 3]
    assert ended[1].ref is again
    assert [outcome.polls for outcome in ended] == [2, 2, 2, 1]


async def test_nothing_is_read_before_there_is_room() -> None:
    """No more than max_pending jobs are pending at any time."""
    read = ended = 0
    most = 0

    def listed() -> Iterator[JobRef]:
        nonlocal read, most
        for ref in refs(50):
            read += 1
            most = max(most, read - ended)
            yield ref

    script = scripts(50, [pending(), complete()])
    async with script.client() as client, client.wait_many(listed(), max_pending=7) as outcomes:
        async for _ in outcomes:
            ended += 1
    assert ended == 50
    assert most <= 8


async def test_few_jobs_wait_for_their_first_poll() -> None:
    """With 10 polls per second and 300 jobs, those that were begun keep their pace while the rest is not read yet."""
    script = scripts(300, [pending(), complete()])
    async with script.client(rate=10) as client, client.wait_many(refs(300), pace=STEADY, concurrency=5) as outcomes:
        ended = await everything(outcomes)
    assert len(ended) == 300
    assert max(outcome.elapsed for outcome in ended) < 3
    instants = sorted(poll.at for polls in script.polls.values() for poll in polls)
    assert instants[-1] == pytest.approx(59.9, abs=0.5)


async def test_one_poll_at_a_time_does_not_mean_one_job_at_a_time() -> None:
    """The next job is read once the first poll of the one before has begun."""
    script = scripts(3, [pending(), complete()])
    async with script.client() as client, client.wait_many(refs(3), pace=STEADY, concurrency=1) as outcomes:
        await everything(outcomes)
    assert anyio.current_time() < 2


async def test_jobs_are_polled_in_the_order_in_which_they_fall_due() -> None:
    """When the rate cannot keep up, nobody overtakes."""
    polled: list[tuple[float, str]] = []
    script = scripts(40, [*[pending()] * 5, complete()])
    async with (
        script.client(rate=5) as client,
        client.wait_many(refs(40), pace=Pace(min=1, max=1, jitter=0), timeout=None) as outcomes,
    ):
        ended = await everything(outcomes)
    assert len(ended) == 40
    for job_id, polls in script.polls.items():
        polled += [(poll.at, job_id) for poll in polls]
    counts = dict.fromkeys(script.polls, 0)
    for _, job_id in sorted(polled):
        counts[job_id] += 1
        begun = [count for count in counts.values() if count]
        assert max(begun) - min(begun) <= 1
    assert {outcome.polls for outcome in ended} == {6}


@pytest.mark.parametrize("concurrency", [1, 3, 100])
async def test_concurrency_is_how_many_polls_are_under_way(concurrency: int) -> None:
    """No more than that, and no fewer where there is work."""
    script = scripts(200, [complete(delay=1)])
    async with script.client(rate=None) as client, client.wait_many(refs(200), concurrency=concurrency) as outcomes:
        assert len(await everything(outcomes)) == 200
    at_once = Counter(round(poll.at) for (poll,) in script.polls.values())
    assert sorted(at_once.values())[1:] == [concurrency] * (len(at_once) - 1)


async def test_a_single_wait_is_not_starved_by_a_fleet() -> None:
    """A fleet that has more to do than the rate allows takes turns with the other calls of its client."""
    script = Script({**{f"job-{index}": [complete()] for index in range(100)}, "single": [complete()]})
    async with (
        script.client(rate=10) as client,
        client.wait_many(refs(100)) as outcomes,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(everything, outcomes)
        await anyio.sleep(1)
        await client.wait("user-1", "single")
    assert script.polls["single"][0].at < 1.5


async def test_a_slow_consumer_loses_nothing() -> None:
    """While outcomes wait to be taken nothing more is polled, and no job's timeout runs."""
    script = scripts(60, [pending(), complete()])
    most = 0
    async with (
        script.client(max_connections=5) as client,
        client.wait_many(refs(60), timeout=10, pace=STEADY) as outcomes,
    ):
        ended = []
        async for outcome in outcomes:
            ended.append(outcome)
            await anyio.sleep(30)
            most = max(most, sum(len(polls) == 2 for polls in script.polls.values()) - len(ended))
    assert [outcome.error for outcome in ended] == [None] * 60
    assert max(outcome.elapsed for outcome in ended) < 10
    assert most <= 10


async def test_leaving_the_block_stops_all_work() -> None:
    """After the first outcome that matters nobody is asked any more."""
    script = Script({"job-0": [complete()], "job-1": itertools.repeat(pending())})
    async with script.client() as client:
        async with client.wait_many(refs(2)) as outcomes:
            async for outcome in outcomes:
                assert outcome.index == 0
                break
        polls = len(script.polls["job-1"])
        await anyio.sleep(1000)
        assert len(script.polls["job-1"]) == polls
        assert [outcome async for outcome in outcomes] == []


@pytest.mark.parametrize("error", [ValueError("mine"), KeyboardInterrupt(), ExceptionGroup("mine", [OSError()])])
async def test_an_error_of_the_block_comes_out_bare(error: BaseException) -> None:
    """The caller sees his own exception, not a group around it."""

    async def fail(client: smilejobs.Client) -> None:
        async with client.wait_many(refs(1)) as outcomes:
            with anyio.move_on_after(10):
                await everything(outcomes)
            raise error

    async with Script({"job-0": itertools.repeat(pending())}).client() as client:
        with pytest.raises(type(error)) as caught:
            await fail(client)
    assert caught.value is error


async def test_cancelling_stops_all_work() -> None:
    """A scope around the block cancels the fleet with it, also in the middle of a request, and the client goes on."""
    script = Script({"job-0": itertools.repeat(pending(delay=5)), "other": [complete()]})
    async with script.client() as client:
        with anyio.move_on_after(12) as scope:
            async with client.wait_many(refs(1)) as outcomes:
                await everything(outcomes)
        assert scope.cancelled_caught
        assert anyio.current_time() == pytest.approx(script.polls["job-0"][0].at + 12)
        await client.job_status("user-1", "other")


@pytest.mark.parametrize("anyio_backend", [virtual_clock("asyncio")])
async def test_cancelling_the_task_stops_all_work(anyio_backend: object) -> None:
    """So does asyncio's own cancellation, and its own timeout."""
    script = Script({"job-0": itertools.repeat(pending(delay=0.5))})

    async def check(client: smilejobs.Client) -> None:
        async with client.wait_many(refs(1)) as outcomes:
            await everything(outcomes)

    before = len(asyncio.all_tasks())
    async with script.client() as client:
        for after in (0.0, 0.2, 0.7, 3.3):
            task = asyncio.create_task(check(client))
            await asyncio.sleep(after)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(7):
                await check(client)
        assert len(asyncio.all_tasks()) == before


@pytest.mark.parametrize("known", [0, 3])
async def test_an_input_that_raises(known: int) -> None:
    """What is known by then is delivered, what is pending is dropped, and the error comes out bare."""

    async def read() -> AsyncIterator[JobRef]:
        for ref in refs(known):
            yield ref
        yield JobRef("user-1", "pending")
        await anyio.sleep(10)
        raise OSError("the input broke")

    script = Script(
        {**{f"job-{index}": [complete()] for index in range(known)}, "pending": itertools.repeat(pending())}
    )
    ended: list[Outcome] = []
    async with script.client() as client:
        with pytest.raises(OSError, match="the input broke"):
            await collect(ended, client, read())
    assert len(ended) == known


async def test_an_input_is_closed_when_nobody_reads_it_any_more() -> None:
    """An async generator does not keep what it has opened until it is collected."""
    closed = False

    async def read() -> AsyncIterator[JobRef]:
        nonlocal closed
        try:
            for ref in itertools.cycle(refs(100)):
                yield ref
        finally:
            closed = True

    script = scripts(100, [complete()])
    with contextlib.suppress(AssertionError):
        async with script.client() as client, client.wait_many(read()) as outcomes:
            async for _ in outcomes:
                break
    assert closed


@pytest.mark.parametrize(
    ("item", "text"),
    [
        ("job-0", r"refs\[1\] must be a JobRef or a pair \(user_id, job_id\), not str"),
        (("user-1", "job-0", "x"), r"refs\[1\] must be a JobRef or a pair"),
        (("user-1", 5), r"refs\[1\]: job_id must be a string, not int"),
        (("", "job-0"), r"refs\[1\]: user_id must not be empty"),
        (None, r"refs\[1\] must be a JobRef or a pair"),
    ],
)
async def test_a_ref_that_is_none(item: Any, text: str) -> None:
    """The error says which, and nothing that is known is lost."""

    async def read() -> AsyncIterator[Any]:
        yield ["user-1", "job-0"]
        await anyio.sleep(1)
        yield item

    async with scripts(1, [complete()]).client() as client, client.wait_many(read()) as outcomes:
        assert (await anext(outcomes)).index == 0
        with pytest.raises((TypeError, ValueError), match=text):
            await anext(outcomes)
        with pytest.raises(StopAsyncIteration):
            await anext(outcomes)


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"refs": 5}, TypeError, "refs must be an iterable"),
        ({"refs": "job-1"}, TypeError, "refs must be an iterable"),
        ({"refs": JobRef("user-1", "job-1")}, TypeError, "refs must be an iterable"),
        ({"concurrency": 0}, ValueError, "concurrency must be at least 1"),
        ({"concurrency": -1}, ValueError, "concurrency must be at least 1"),
        ({"concurrency": 1.5}, TypeError, "concurrency must be a whole number"),
        ({"concurrency": 101}, ValueError, "max_connections"),
        ({"max_pending": 0}, ValueError, "max_pending must be at least 1"),
        ({"on_progress": 5}, TypeError, "on_progress must be a function"),
        ({"timeout": 0}, ValueError, "timeout"),
        ({"deadline": 0}, ValueError, "deadline"),
        ({"deadline": "1h"}, TypeError, "deadline"),
        ({"until": "done"}, ValueError, "until"),
        ({"pace": 5}, TypeError, "pace"),
        ({"image_links": "yes"}, TypeError, "image_links"),
        ({"history": 1}, TypeError, "history"),
    ],
)
async def test_arguments_that_can_never_be_right(arguments: dict[str, Any], error: type[Exception], text: str) -> None:
    """They are refused by the call itself."""
    async with Script({}).client() as client:
        with pytest.raises(error, match=text):
            client.wait_many(**{"refs": [], **arguments})


async def test_a_closed_client() -> None:
    """The block is not entered."""
    client = smilejobs.Client(partner_id="085", api_key="sandbox-key", environment="sandbox")
    await client.aclose()
    with pytest.raises(RuntimeError, match="closed"):
        async with client.wait_many(refs(1)):
            pytest.fail("it was entered")


async def test_a_client_that_is_closed_meanwhile() -> None:
    """The batch ends with the error that says so."""
    script = Script({"job-0": itertools.repeat(pending())})
    async with script.client() as client, client.wait_many(refs(1)) as outcomes:
        await anyio.sleep(3)
        await client.aclose()
        with pytest.raises(RuntimeError, match="closed"):
            await anext(outcomes)


async def test_a_pace_that_returns_nonsense_ends_the_batch() -> None:
    """A bug of the caller's is the caller's to see."""
    async with (
        Script({"job-0": [pending()]}).client() as client,
        client.wait_many(refs(1), pace=lambda age, polls: -1) as outcomes,
    ):
        with pytest.raises(ValueError, match="pace"):
            await anext(outcomes)


async def test_wrong_credentials_end_the_batch() -> None:
    """The first may be an accident and is an outcome; the second in a row is raised, and a million jobs are spared."""
    script = Script({f"job-{index}": itertools.repeat(refused("2405")) for index in range(1000)})
    ended: list[Outcome] = []
    async with script.client() as client:
        with pytest.raises(smilejobs.CredentialsError) as caught:
            await collect(ended, client, refs(1000))
    assert [type(outcome.error) for outcome in ended] == [smilejobs.CredentialsError]
    assert caught.value.ref != ended[0].ref
    assert sum(len(polls) for polls in script.polls.values()) < 150


@pytest.mark.parametrize("between", [complete(), refused("2307"), complete(PartnerParams={"user_id": "other"})])
async def test_what_was_accepted_between_clears_the_credentials(between: Reply) -> None:
    """Two refusals with an answer about a job between them, a good one or not, are two outcomes."""
    script = Script({"job-0": [refused("2405")], "job-1": [between], "job-2": [refused("2405")]})
    async with script.client() as client, client.wait_many(refs(3), concurrency=1) as outcomes:
        ended = await everything(outcomes)
    assert [isinstance(outcome.error, smilejobs.CredentialsError) for outcome in ended] == [True, False, True]


async def test_what_says_nothing_of_the_credentials_clears_nothing() -> None:
    """A refusal of the request as such may come before anybody looks at them."""
    script = Script({"job-0": [refused("2405")], "job-1": [refused("2204")], "job-2": [refused("2405")]})
    async with script.client() as client:
        with pytest.raises(smilejobs.CredentialsError):
            async with client.wait_many(refs(3), concurrency=1) as outcomes:
                await everything(outcomes)


async def test_retry_after_stops_everybody() -> None:
    """Until it has passed nobody asks, and then everybody goes on."""
    script = Script({"job-0": [rate_limited(30), complete()], **{f"job-{n}": [complete()] for n in range(1, 200)}})
    async with script.client() as client, client.wait_many(refs(200), concurrency=5) as outcomes:
        ended = await everything(outcomes)
    assert {outcome.error for outcome in ended} == {None}
    instants = sorted(poll.at for polls in script.polls.values() for poll in polls)
    assert not [at for at in instants if 0.1 < at < 30]
    assert sum(at < 0.1 for at in instants) <= 6


async def test_no_timeout_runs_while_everybody_is_stopped() -> None:
    """Though the API asks for more rest than a job has time, each job is polled again, at its pace."""
    steps = [pending(), complete()]
    script = Script({"job-0": steps, "job-1": steps, "job-2": [rate_limited(200), complete()]})
    instants = {}
    slow = Pace(min=100, max=100, jitter=0)
    async with script.client() as client:
        begun = anyio.current_time()
        async with client.wait_many(refs(3), timeout=120, pace=slow, concurrency=1) as outcomes:
            async for outcome in outcomes:
                instants[outcome.index] = anyio.current_time() - begun
                assert outcome.error is None
                assert outcome.elapsed <= 100.01
    assert instants == pytest.approx({0: 300, 1: 300.01, 2: 200.02})


async def test_no_timeout_runs_while_the_throttle_holds_due_jobs_back() -> None:
    """An API of one poll per second: 60 jobs of two polls and 20 s each take two minutes, and none times out."""
    last = -10.0

    def steps() -> Iterator[Reply]:
        nonlocal last
        good = 0
        while True:
            now = anyio.current_time()
            if now - last < 0.99:
                yield rate_limited()
                continue
            last = now
            good += 1
            yield complete() if good == 2 else pending()

    script = Script({f"job-{index}": steps() for index in range(60)})
    async with script.client() as client, client.wait_many(refs(60), timeout=20) as outcomes:
        ended = await everything(outcomes)
    assert [outcome.error for outcome in ended] == [None] * 60
    assert anyio.current_time() > 100


@pytest.mark.parametrize("hint", [None, 2, 30])
async def test_a_batch_whose_polls_are_refused_at_random(hint: int | None) -> None:
    """One in ten, with a Retry-After or without: no job ends after one poll, and soon nobody else waits for it."""
    draw = random.Random(1)

    def steps() -> Iterator[Reply]:
        good = 0
        while True:
            if draw.random() < 0.1:
                yield rate_limited(hint)
            else:
                good += 1
                yield complete() if good == 2 else pending()

    script = Script({f"job-{index}": steps() for index in range(200)})
    async with script.client() as client:
        begun = anyio.current_time()
        async with client.wait_many(refs(200), timeout=40) as outcomes:
            ended = await everything(outcomes)
        taken = anyio.current_time() - begun
    assert min(outcome.polls for outcome in ended) > 1
    assert sum(outcome.error is not None for outcome in ended) <= 10
    assert taken < 10 * (hint or 2) + 20


async def test_every_job_gets_more_than_one_poll() -> None:
    """Also where the rate is so low that its time is over before it is due again."""
    script = scripts(30, [pending(), complete()])
    async with script.client(rate=1) as client, client.wait_many(refs(30), timeout=3, concurrency=30) as outcomes:
        ended = await everything(outcomes)
    assert {outcome.polls for outcome in ended} == {2}
    assert {outcome.error for outcome in ended} == {None}


@pytest.mark.parametrize("step", [cut(), pending()])
async def test_a_job_whose_time_is_over_gets_its_second_poll_and_no_third(step: Reply | Exception) -> None:
    """The poll may take as long as any; unless the job is complete then, its wait ends."""
    script = Script({"job-0": itertools.repeat(step)})
    async with script.client(rate=1) as client, client.wait_many(refs(1), timeout=0.5) as outcomes:
        (outcome,) = await everything(outcomes)
    assert isinstance(outcome.error, smilejobs.WaitTimeoutError)
    assert outcome.polls == len(script.polls["job-0"]) == 2
    assert outcome.elapsed == pytest.approx(1.0, abs=0.3)
    assert anyio.current_time() == pytest.approx(1.0, abs=0.3)


async def test_a_refused_poll_is_not_the_second_one() -> None:
    """The API has not looked at the job, so it is polled again although its time is over."""
    script = Script({"job-0": [pending(), rate_limited(2), rate_limited(2), complete()]})
    async with script.client(rate=1) as client, client.wait_many(refs(1), timeout=0.5) as outcomes:
        (outcome,) = await everything(outcomes)
    assert (outcome.error, outcome.polls) == (None, 4)


async def test_a_second_poll_after_its_time_may_take_long() -> None:
    """No deadline of the job cuts it."""
    script = Script({"job-0": [pending(), complete(delay=5)]})
    async with script.client(rate=1) as client, client.wait_many(refs(1), timeout=0.5) as outcomes:
        (outcome,) = await everything(outcomes)
    assert (outcome.error, outcome.polls) == (None, 2)


async def test_a_job_that_is_refused_for_longer_than_its_time() -> None:
    """While the others are not stopped any more, it is polled once more after that rest; from then on its time runs."""
    draw = random.Random(1)

    def busy() -> Iterator[Reply]:
        while anyio.current_time() < begun + 60:
            yield rate_limited() if draw.random() < 0.2 else pending()
        while True:
            yield complete()

    async def read() -> AsyncIterator[JobRef]:
        for ref in refs(100):
            yield ref
        await anyio.sleep(30)
        yield JobRef("user-1", "late")
        yield JobRef("user-1", "later")

    begun = 0.0
    late = {"late": [rate_limited(100), complete()], "later": [pending(), rate_limited(100)]}
    script = Script({**{f"job-{index}": busy() for index in range(100)}, **late})
    async with script.client() as client:
        begun = anyio.current_time()
        async with client.wait_many(read(), timeout=90) as outcomes:
            ended = {outcome.ref.job_id: outcome for outcome in await everything(outcomes)}
    later = ended.pop("later")
    assert {outcome.error for outcome in ended.values()} == {None}
    assert isinstance(later.error, smilejobs.WaitTimeoutError)
    assert later.error.retry_after == 100
    assert later.elapsed < 10
    assert script.polls["late"][1].at - script.polls["late"][0].at == pytest.approx(100, abs=1)


@pytest.mark.parametrize(("step", "most"), [(html(), 900), (cut(), 900), (rate_limited(40), 1300)])
async def test_an_api_that_never_answers_well_ends_the_batch(step: Reply | Exception, most: float) -> None:
    """What is pending is reported as pending with the last error, and the error says how to go on."""
    read = 0

    def listed() -> Iterator[JobRef]:
        nonlocal read
        for ref in refs(300):
            read += 1
            yield ref

    script = Script({f"job-{index}": itertools.repeat(step) for index in range(300)})
    ended: list[Outcome] = []
    seen: list[Progress] = []
    events: list[smilejobs.Event] = []
    async with script.client(hooks=[events.append]) as client:
        begun = anyio.current_time()
        with pytest.raises(smilejobs.TooManyFailuresError, match="30 polls in a row failed .* wait for them") as caught:
            await collect(ended, client, listed(), timeout=60, on_progress=seen.append)
        assert anyio.current_time() - begun < most
    assert 0 < len(ended) == read < 300
    for outcome in ended:
        assert isinstance(outcome.error, smilejobs.WaitTimeoutError)
        assert outcome.error.last_error is not None
        assert outcome.elapsed >= 0
    why = ". The batch has ended: 30 polls in a row failed without one good answer: wait for the job again to go on ["
    assert why in str(ended[-1].error)
    assert str(caught.value).endswith(
        "The jobs may be fine: those that are pending are reported as pending, wait for them and for the rest of the "
        "input again when the API can be reached"
    )
    assert (caught.value.ref, caught.value.polls) == (None, seen[-1].polls)
    assert caught.value.last_error is caught.value.__cause__
    assert f"the last one with {type(caught.value.last_error).__name__}: {caught.value.last_error.args[0]}. " in str(
        caught.value
    )
    assert (seen[-1].pending, seen[-1].failed) == (0, read)
    assert sum(isinstance(event, smilejobs.WaitEnded) for event in events) == read


async def test_a_good_answer_now_and_then_keeps_a_batch_going() -> None:
    """What ends a batch are failures in a row; an answer that refuses a job for good is a good one here."""
    script = Script({**{f"job-{index}": [*[cut()] * 15, refused("2307")] for index in range(4)}})
    async with script.client() as client, client.wait_many(refs(4), concurrency=1, timeout=None) as outcomes:
        ended = await everything(outcomes)
    assert {type(outcome.error) for outcome in ended} == {smilejobs.UserDisabledError}


async def test_a_batch_of_one_job_ends_as_a_wait_does() -> None:
    """The job's own end comes first."""
    script = Script({"job-0": itertools.repeat(cut())})
    async with script.client() as client, client.wait_many(refs(1), timeout=None) as outcomes:
        (outcome,) = await everything(outcomes)
    assert isinstance(outcome.error, smilejobs.TooManyFailuresError)


async def test_a_deadline_ends_the_batch() -> None:
    """At that instant what is pending is reported as pending, what was not read stays unread, and nothing is lost."""
    read = 0

    def listed() -> Iterator[JobRef]:
        nonlocal read
        for ref in refs(300):
            read += 1
            yield ref

    script = Script(
        {f"job-{index}": [complete()] if index < 10 else itertools.repeat(pending(delay=9)) for index in range(300)}
    )
    async with script.client() as client:
        await anyio.sleep(30)
        begun = anyio.current_time()
        async with client.wait_many(listed(), deadline=timedelta(minutes=1), concurrency=20) as outcomes:
            ended = await everything(outcomes)
        assert anyio.current_time() - begun == pytest.approx(60)
    assert 10 < len(ended) == read < 300
    assert sorted(outcome.index for outcome in ended) == list(range(read))
    assert [outcome.error is None for outcome in ended] == [True] * 10 + [False] * (read - 10)
    for outcome in ended[10:]:
        assert isinstance(outcome.error, smilejobs.WaitTimeoutError)
        assert "The deadline of the batch, 60 s, has come" in str(outcome.error)
        assert outcome.error.timeout == pytest.approx(60)


@pytest.mark.parametrize("deadline", [30, None])
async def test_an_error_of_the_last_report_is_raised(deadline: float | None) -> None:
    """After all outcomes, also after those of the jobs that were pending at the deadline."""
    broken = LookupError("the file is gone")

    def report(progress: Progress) -> None:
        if not progress.pending:
            raise broken

    script = Script({f"job-{index}": itertools.repeat(pending()) if deadline else [complete()] for index in range(2)})
    ended: list[Outcome] = []
    async with script.client() as client:
        with pytest.raises(LookupError) as raised:
            await collect(ended, client, refs(2), timeout=None, deadline=deadline, on_progress=report)
    assert raised.value is broken
    assert {outcome.index for outcome in ended} == {0, 1}


async def test_a_deadline_that_does_not_come() -> None:
    """A batch that is done earlier ends then."""
    async with scripts(3, [complete()]).client() as client, client.wait_many(refs(3), deadline=600) as outcomes:
        ended = await everything(outcomes)
        assert anyio.current_time() < 600
    assert {outcome.error for outcome in ended} == {None}


async def test_nothing_foreign_ends_more_than_one_job() -> None:
    """Whatever a poll raises is a failure of that job, and the batch goes on."""
    foreign = UnicodeEncodeError("ascii", "\xe9", 0, 1, "a secret")
    seen: list[smilejobs.Event] = []
    script = Script({"job-0": itertools.repeat(foreign), "job-1": [*[pending()] * 9, complete()]})
    async with script.client(hooks=[seen.append]) as client, client.wait_many(refs(2), timeout=None) as outcomes:
        ended = {outcome.index: outcome for outcome in await everything(outcomes)}
    assert ended[1].error is None
    error = ended[0].error
    assert isinstance(error, smilejobs.TooManyFailuresError)
    assert isinstance(error.last_error, smilejobs.RequestError)
    assert "secret" not in str(error.last_error)
    assert any(isinstance(event, smilejobs.PollFailed) for event in seen)


async def test_an_outage_is_not_hammered() -> None:
    """Of a thousand jobs whose connections break, few ask again and again; when all is well, all end."""
    well_at = 120.0
    asked: list[float] = []

    def steps() -> Iterator[Reply | Exception]:
        while anyio.current_time() < begun + well_at:
            asked.append(anyio.current_time() - begun)
            yield cut()
        while True:
            yield complete()

    begun = 0.0
    script = Script({f"job-{index}": steps() for index in range(1000)})
    async with script.client() as client:
        begun = anyio.current_time()
        async with client.wait_many(refs(1000), timeout=3600) as outcomes:
            ended = await everything(outcomes)
    assert [outcome.error for outcome in ended] == [None] * 1000
    assert len([at for at in asked if at > 5]) < 200


async def test_progress() -> None:
    """Snapshots come five times a second at most, and the last one says how it ended."""
    seen: list[tuple[float, Progress]] = []
    script = Script({"job-0": [complete()], "job-1": [refused("2307")], "job-2": [*[pending()] * 3, complete()]})
    async with script.client() as client:

        def on_progress(progress: Progress) -> None:
            seen.append((anyio.current_time(), progress))

        async with client.wait_many(refs(3), pace=STEADY, on_progress=on_progress) as outcomes:
            await everything(outcomes)
    instants = [at for at, _ in seen]
    assert all(later - earlier > 0.19 for earlier, later in itertools.pairwise(instants[:-1]))
    first, last = seen[0][1], seen[-1][1]
    assert (first.pending, first.done, first.failed, first.polls) == (1, 1, 1, 3)
    assert not first.throttled
    assert first.polls_per_second > 0
    assert first.eta == pytest.approx(0.1)
    assert (last.pending, last.done, last.failed, last.polls, last.eta) == (0, 2, 1, 6, 0.0)


async def test_progress_of_an_input_without_an_end_in_sight() -> None:
    """There is no estimate before the input has ended, or before anything has."""

    async def read() -> AsyncIterator[JobRef]:
        yield JobRef("user-1", "job-0")
        await anyio.sleep(1.1)
        yield JobRef("user-1", "job-1")

    seen: list[Progress] = []
    script = Script({"job-0": [complete()], "job-1": [rate_limited(5), complete()]})
    async with script.client() as client, client.wait_many(read(), on_progress=seen.append) as outcomes:
        await everything(outcomes)
    assert [progress.eta is None for progress in seen[:6]] == [True, True, True, True, True, False]
    assert [progress.throttled for progress in (seen[0], seen[8])] == [False, True]


async def test_a_progress_function_that_raises_ends_the_batch() -> None:
    """Its error comes out bare."""

    def on_progress(progress: Progress) -> None:
        raise ZeroDivisionError

    script = Script({"job-0": itertools.repeat(pending())})
    async with script.client() as client, client.wait_many(refs(1), on_progress=on_progress) as outcomes:
        with pytest.raises(ZeroDivisionError):
            await anext(outcomes)


async def test_what_is_kept_of_a_pending_job_is_small() -> None:
    """The last answer of a job that timed out has everything but the raw bodies."""
    provisional = complete("0814", IsFinalResult="false", FullName="Jane Roe")
    script = Script({"job-0": itertools.repeat(provisional)})
    async with script.client() as client, client.wait_many(refs(1), until="final", timeout=60) as outcomes:
        (outcome,) = await everything(outcomes)
    assert isinstance(outcome.error, smilejobs.WaitTimeoutError)
    last = outcome.error.last
    assert last is not None
    assert last.result is not None
    assert (last.raw, last.result.raw, last.result.full_name) == ({}, {}, "Jane Roe")


async def test_an_outcome_in_a_log_says_nothing_about_the_person() -> None:
    """Its repr names the job by its tag."""
    script = Script({"job-0": [complete(FullName="Jane Roe")]})
    async with script.client() as client, client.wait_many(refs(1)) as outcomes:
        (outcome,) = await everything(outcomes)
    assert "user-1" not in repr(outcome)
    assert "Jane" not in repr(outcome)
    assert JobRef("user-1", "job-0").tag in repr(outcome)


async def test_a_poll_under_way_is_not_cut_short_while_the_consumer_is_slow() -> None:
    """The clock of the timeouts stands still at once, also for what has been sent."""
    script = Script({"job-0": [complete(delay=6)], **{f"job-{index}": [complete()] for index in range(1, 40)}})
    ended: list[Outcome] = []
    async with script.client(rate=None) as client, client.wait_many(refs(40), timeout=5, concurrency=4) as outcomes:
        async for outcome in outcomes:
            if not ended:
                await anyio.sleep(100)
            ended.append(outcome)
    assert [outcome.error for outcome in ended] == [None] * 40


async def test_a_deadline_goes_on_when_the_consumer_does() -> None:
    """What is left of the timeout after standing still is still a limit."""
    script = Script({"job-0": [complete(delay=25)], **{f"job-{index}": [complete()] for index in range(1, 9)}})
    ended: dict[int, Outcome] = {}
    async with script.client(rate=None) as client, client.wait_many(refs(9), timeout=10, concurrency=2) as outcomes:
        async for outcome in outcomes:
            if not ended:
                await anyio.sleep(12)
            ended[outcome.index] = outcome
    assert isinstance(ended.pop(0).error, smilejobs.WaitTimeoutError)
    assert {outcome.error for outcome in ended.values()} == {None}


@pytest.mark.parametrize("anyio_backend", [virtual_clock("asyncio")])
async def test_an_input_that_is_cancelled_by_itself(anyio_backend: object) -> None:
    """A future that somebody else has cancelled does not leave the iteration waiting for ever."""

    async def read() -> AsyncIterator[JobRef]:
        yield JobRef("user-1", "job-0")
        await anyio.sleep(1)
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        future.cancel()
        await future

    async with scripts(1, [complete()]).client() as client, client.wait_many(read()) as outcomes:
        assert (await anext(outcomes)).index == 0
        with pytest.raises(RuntimeError, match="cancelled by itself"):
            await anext(outcomes)


async def test_a_clock_that_raises_costs_no_connection() -> None:
    """The error of the caller's own `now` comes out, and the client goes on."""
    broken = True

    def now() -> Any:
        if broken:
            raise ZeroDivisionError
        return EPOCH

    script = scripts(1, [complete()])
    async with script.client(max_connections=1, now=now) as client:
        async with client.wait_many(refs(1)) as outcomes:
            with pytest.raises(ZeroDivisionError):
                await anext(outcomes)
        broken = False
        await client.job_status("user-1", "job-0")


async def test_an_error_of_the_block_beats_its_cancellation() -> None:
    """As it does with a plain task group."""

    async def fail(client: smilejobs.Client) -> None:
        async with client.wait_many(refs(1)) as outcomes:
            try:
                await everything(outcomes)
            finally:
                raise ValueError("mine")

    async with Script({"job-0": itertools.repeat(pending())}).client() as client:
        with pytest.raises(ValueError, match="mine"), anyio.move_on_after(3):
            await fail(client)


async def test_errors_that_were_absorbed_keep_no_answers() -> None:
    """Nothing of a poll that failed is alive but its error."""
    script = Script({"job-0": itertools.repeat(not_found())})
    seen: list[smilejobs.Event] = []
    async with script.client(hooks=[seen.append]) as client, client.wait_many(refs(1)) as outcomes:
        await anyio.sleep(10)
        errors = [event.error for event in seen if isinstance(event, smilejobs.PollFailed)]
        assert len(errors) > 5
        assert {error.__traceback__ for error in errors} == {None}
        del outcomes


class Cursor:
    """An async iterable whose iterator is a generator."""

    closed = False

    async def __aiter__(self) -> AsyncIterator[JobRef]:
        try:
            for ref in itertools.cycle(refs(100)):
                yield ref
        finally:
            self.closed = True


async def test_every_kind_of_generator_is_closed() -> None:
    """Also one that an object returns, and one that is not async."""
    closed = False

    def read() -> Iterator[JobRef]:
        nonlocal closed
        try:
            yield from itertools.cycle(refs(100))
        finally:
            closed = True

    cursor = Cursor()
    for jobs in (cursor, read()):
        async with (
            Script({f"job-{index}": itertools.repeat(complete()) for index in range(100)}).client() as client,
            client.wait_many(jobs) as outcomes,
        ):
            await anext(outcomes)
    assert (cursor.closed, closed) == (True, True)


async def test_the_size_of_an_input_is_taken_once() -> None:
    """An input that is used up by reading does not make the end seem near."""

    class Queue(list[JobRef]):
        def __iter__(self) -> Iterator[JobRef]:
            while self:
                yield self.pop()

    seen: list[Progress] = []
    script = scripts(100, [complete()])
    async with script.client(rate=10) as client:
        await anyio.sleep(30)  # the time before the batch does not count
        async with client.wait_many(Queue(refs(100)), concurrency=5, on_progress=seen.append) as outcomes:
            await everything(outcomes)
    assert seen[9].eta == pytest.approx(8, abs=1.5)


GOES_ON: dict[str, Reply | Exception] = {
    "pending": pending(),
    "not found": not_found(),
    "no zip": no_zip(),
    "502": html(),
    "429": rate_limited(),
    "429 and 7 s": rate_limited(7),
    "2301": refused("2301"),
    "cut": cut(),
    "provisional": provisional(),
}
ENDS: dict[str, Reply | Exception] = {
    "approved": complete(),
    "rejected": complete("0811"),
    "2307": refused("2307"),
    "2310": refused("2310"),
}
THROTTLES = {"429", "429 and 7 s"}
TROUBLE = {"502", "2301", "cut"}


@given(
    names=strategies.tuples(
        strategies.lists(strategies.sampled_from(sorted(GOES_ON)), max_size=12), strategies.sampled_from(sorted(ENDS))
    ),
    until=strategies.sampled_from(["complete", "final"]),
    timeout=strategies.sampled_from([None, 3.0, 40.0, 600.0]),
    seed=strategies.integers(0, 9),
    backend=strategies.sampled_from(["asyncio", "trio"]),
)
@example(names=(["2301"] * 3, "2307"), until="complete", timeout=3.0, seed=2, backend="trio")
def test_one_job_of_many_ends_as_it_would_alone(
    names: tuple[list[str], str], until: Any, timeout: float | None, seed: int, backend: str
) -> None:
    """The same answers lead to the same polls at the same instants, and to the same end."""
    steps: list[Reply | Exception] = [*(GOES_ON[name] for name in names[0]), ENDS[names[1]]]
    name, options = virtual_clock(backend)

    async def alone() -> tuple[list[float], object]:
        script = Script({"job-0": iter(steps)})
        async with script.client() as client:
            begun = anyio.current_time()
            try:
                end: object = await client.wait("user-1", "job-0", until=until, timeout=timeout)
            except smilejobs.SmileJobsError as error:
                end = (type(error), str(error))
        return [poll.at - begun for poll in script.polls["job-0"]], end

    async def one_of_many() -> tuple[list[float], object]:
        script = Script({"job-0": iter(steps)})
        async with script.client() as client:
            begun = anyio.current_time()
            async with client.wait_many(refs(1), until=until, timeout=timeout) as outcomes:
                (outcome,) = await everything(outcomes)
        assert outcome.polls == len(script.polls["job-0"])
        end = outcome.status if outcome.error is None else (type(outcome.error), str(outcome.error))
        return [poll.at - begun for poll in script.polls["job-0"]], end

    random.seed(seed)
    expected = anyio.run(alone, backend=name, backend_options=options)
    random.seed(seed)
    got = anyio.run(one_of_many, backend=name, backend_options=options)
    if THROTTLES.isdisjoint(names[0]) and sum(each in TROUBLE for each in names[0]) < 5:
        assert got[0] == pytest.approx(expected[0])
        assert without_timestamp(got[1]) == without_timestamp(expected[1])
    elif timeout is None:
        assert len(got[0]) == len(expected[0])
        assert without_timestamp(got[1]) == without_timestamp(expected[1])
        if "429 and 7 s" not in names[0]:  # a job does not age while everything is stopped: its polls come sooner then
            assert all(throttled >= 0.8 * free - 1e-6 for throttled, free in zip(got[0], expected[0], strict=True))


def without_timestamp(end: object) -> object:
    return evolve(end, timestamp=None) if isinstance(end, smilejobs.JobStatus) else end


async def test_an_outcome_has_the_ages_between_which_its_job_ended() -> None:
    """By the submission where it is known, else by the first poll; without a pending answer there is one age alone."""
    script = Script(
        {
            "job-1": [pending(), pending(), complete()],
            "job-2": [pending(), provisional(), complete()],
            "job-3": [complete()],
            "job-4": repeat(pending()),
            "job-5": [pending(delay=100)],
        }
    )
    minute_ago = EPOCH - timedelta(seconds=60)
    refs = [JobRef("user-1", job_id, minute_ago if job_id == "job-2" else None) for job_id in script.polls]
    options: WaitManyOptions = {"until": "final", "timeout": 7, "pace": Pace(min=2, max=2, jitter=0)}
    async with script.client(rate=None) as client, client.wait_many(refs, **options) as outcomes:
        ages = {outcome.ref.job_id: (outcome.pending_age, outcome.end_age) async for outcome in outcomes}
    assert ages == {
        "job-1": pytest.approx((2, 4)),
        "job-2": pytest.approx((62, 64)),
        "job-3": (None, 0),
        "job-4": pytest.approx((6.3, 7), abs=0.4),
        "job-5": (None, pytest.approx(7)),
    }


async def test_a_job_that_was_never_polled_has_no_age() -> None:
    """The deadline of the batch came before."""
    script = Script({"job-1": [pending(delay=100)], "job-2": repeat(pending())})
    refs = [JobRef("user-1", "job-1"), JobRef("user-1", "job-2")]
    async with script.client(max_connections=1) as client, client.wait_many(refs, deadline=5) as outcomes:
        ages = [(outcome.polls, outcome.pending_age, outcome.end_age) async for outcome in outcomes]
    assert ages == [(1, None, 5), (0, None, None)]
