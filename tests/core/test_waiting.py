"""`Client.wait` and `Client.watch`: the whole loop, by script, under the virtual clock."""

import asyncio
import gc
import itertools
import logging
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta

import anyio
import pytest
import sniffio
import trio
import trio.testing

import smilejobs
from smilejobs import JobStatus, Pace, Verdict, WaitTimeoutError
from smilejobs.testing import (
    EPOCH,
    Reply,
    Script,
    VirtualClockEventLoop,
    complete,
    cut,
    html,
    no_zip,
    not_found,
    pending,
    provisional,
    rate_limited,
    refused,
)

pytestmark = pytest.mark.anyio

STEADY = Pace(jitter=0)


def instants(script: Script, job_id: str = "job-1") -> list[float]:
    return [poll.at for poll in script.polls[job_id]]


async def test_a_wait_ends_with_the_complete_answer() -> None:
    """Pending answers are not results; the first complete one is returned, whatever its verdict."""
    script = Script({"job-1": [pending(), pending(), complete("0811")]})
    async with script.client() as client:
        status = await client.wait("user-1", "job-1")
    assert status.job_complete
    assert status.verdict is Verdict.REJECTED


async def test_the_pace_follows_the_age_of_the_wait() -> None:
    """The first poll is at once, then a share of the age passes, at least the minimum, at most the maximum."""
    script = Script({"job-1": [*[pending()] * 12, complete()]})
    async with script.client() as client:
        await client.wait("user-1", "job-1", pace=Pace(min=1, max=4, fraction=0.5, jitter=0))
    assert instants(script) == pytest.approx([0, 1, 2, 3, 4.5, 6.75, 10.125, *range_by(14.125, 4, 6)])


def range_by(start: float, step: float, count: int) -> list[float]:
    return [start + step * index for index in range(count)]


async def test_the_age_is_that_of_the_job_where_it_is_known() -> None:
    """A job that was submitted 100 s ago is polled every 15 s, not every second."""
    script = Script({"job-1": [pending(), complete()]})
    async with script.client() as client:
        await client.wait("user-1", "job-1", submitted_at=EPOCH - timedelta(seconds=100), pace=STEADY)
    assert instants(script) == pytest.approx([0, 15])


async def test_a_job_from_the_future_has_no_age() -> None:
    """A clock that is off does not make the age negative."""
    script = Script({"job-1": [pending(), complete()]})
    async with script.client() as client:
        await client.wait("user-1", "job-1", submitted_at=EPOCH + timedelta(hours=1), pace=STEADY)
    assert instants(script) == pytest.approx([0, 1])


async def test_the_first_poll_can_be_put_off() -> None:
    """With first_after nothing is asked before."""
    script = Script({"job-1": [complete()]})
    async with script.client() as client:
        await client.wait("user-1", "job-1", first_after=timedelta(seconds=12))
    assert instants(script) == pytest.approx([12])


async def test_a_pace_of_ones_own() -> None:
    """A function gets the age and the number of polls, and returns the delay."""
    seen: list[tuple[float, int]] = []

    def pace(age: float, polls: int) -> float:
        seen.append((age, polls))
        return 10.0 * polls

    script = Script({"job-1": [pending(), pending(), complete()]})
    async with script.client() as client:
        await client.wait("user-1", "job-1", pace=pace)
    assert instants(script) == pytest.approx([0, 10, 30])
    assert [polls for _, polls in seen] == [1, 2]
    assert [age for age, _ in seen] == pytest.approx([0, 10])


@pytest.mark.parametrize("delay", [-1.0, float("nan"), float("inf")])
async def test_a_pace_that_returns_nonsense_is_named(delay: float) -> None:
    """A delay that cannot be slept is a ValueError that blames the pace."""
    async with Script({"job-1": [pending()]}).client() as client:
        with pytest.raises(ValueError, match="pace"):
            await client.wait("user-1", "job-1", pace=lambda age, polls: delay)


async def test_a_timeout_is_a_state_of_the_waiter() -> None:
    """At the timeout, to the second, the error says what is known and how to go on; the last poll was 1 s before."""
    script = Script({"job-1": itertools.repeat(pending())})
    async with script.client() as client:
        with pytest.raises(WaitTimeoutError) as caught:
            await client.wait("user-1", "job-1", timeout=60, submitted_at=EPOCH - timedelta(hours=1), pace=STEADY)
    error = caught.value
    assert isinstance(error, TimeoutError)
    assert error.elapsed == pytest.approx(60)
    assert error.timeout == 60
    assert error.age == pytest.approx(3660)
    assert error.ref == smilejobs.JobRef("user-1", "job-1")
    assert error.last is not None
    assert not error.last.job_complete
    assert error.last_error is None
    assert error.polls == len(instants(script)) == 2
    assert instants(script) == pytest.approx([0, 59])
    assert "still running" in str(error)
    assert "wait again to go on" in str(error)
    assert "user-1" not in str(error)


@pytest.mark.parametrize(
    ("step", "known"),
    [
        (pending(), "still running"),
        (not_found(), "knows no such job"),
        (no_zip(), "no images"),
        (html(), "no good answer yet, the last poll failed with BadResponseError"),
        (pending(delay=1000), "no answer yet"),
        (provisional(), "provisional"),
    ],
)
async def test_the_error_of_a_timeout_says_what_is_known(step: Reply, known: str) -> None:
    """The text is true in each case."""
    async with Script({"job-1": itertools.repeat(step)}).client() as client:
        with pytest.raises(WaitTimeoutError, match=known) as caught:
            await client.wait("user-1", "job-1", timeout=10, until="final")
    assert caught.value.elapsed == pytest.approx(10)


async def test_a_timeout_after_a_good_answer_and_a_failure_names_both() -> None:
    """What is known of the job and of the last poll are two things."""
    async with Script({"job-1": itertools.chain([pending()], itertools.repeat(html()))}).client() as client:
        with pytest.raises(WaitTimeoutError, match="still running; the last poll failed with BadResp") as caught:
            await client.wait("user-1", "job-1", timeout=5)
    assert caught.value.last is not None
    assert isinstance(caught.value.last_error, smilejobs.BadResponseError)


async def test_the_deadline_cuts_through_a_request() -> None:
    """A server that does not answer cannot hold the waiter beyond its timeout."""
    async with Script({"job-1": [pending(delay=1000)]}).client(request_timeout=500) as client:
        with pytest.raises(WaitTimeoutError):
            await client.wait("user-1", "job-1", timeout=7)
    assert anyio.current_time() == pytest.approx(7)


async def test_a_loop_that_was_blocked_beyond_the_deadline_does_not_poll_again() -> None:
    """Whatever held up the event loop, here a pace that takes an hour: the deadline has passed, so it is over."""

    def slow(age: float, polls: int) -> float:
        jump(3600)
        return 0.0

    script = Script({"job-1": [pending()]})
    async with script.client() as client:
        with pytest.raises(WaitTimeoutError):
            await client.wait("user-1", "job-1", pace=slow)


def jump(seconds: float) -> None:
    """Move the virtual clock without anybody sleeping."""
    if sniffio.current_async_library() == "trio":
        clock = trio.lowlevel.current_clock()
        assert isinstance(clock, trio.testing.MockClock)
        clock.jump(seconds)
    else:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualClockEventLoop)
        loop._jump(seconds)  # noqa: SLF001  # trio has a public jump, asyncio none


@pytest.mark.parametrize(("delay", "last"), [(298.2, 299.0), (298.9, 299.4), (299.5, 299.0), (8.0, 299.0)])
async def test_the_last_poll_is_about_a_second_before_the_deadline(delay: float, last: float) -> None:
    """Whatever the pace, a wait does not end with seconds unused, nor with two polls in one instant."""
    script = Script({"job-1": itertools.repeat(pending())})
    async with script.client() as client:
        with pytest.raises(WaitTimeoutError):
            await client.wait("user-1", "job-1", pace=lambda age, polls: delay)
    assert instants(script)[-1] == pytest.approx(last)


async def test_no_timeout_has_to_be_written() -> None:
    """With timeout=None a wait goes on for days; by default it ends after 300 s."""
    script = Script({"job-1": [*[pending()] * 3000, complete()], "job-2": itertools.repeat(pending())})
    async with script.client() as client:
        assert (await client.wait("user-1", "job-1", timeout=None)).job_complete
        started = anyio.current_time()
        with pytest.raises(WaitTimeoutError):
            await client.wait("user-1", "job-2")
    assert started > 86_400
    assert anyio.current_time() - started == pytest.approx(300)


async def test_retry_after_is_a_floor_on_every_answer() -> None:
    """Seconds or a date, on a refusal or on a pending answer: it is not asked again earlier."""
    date = (EPOCH + timedelta(seconds=60)).strftime("%a, %d %b %Y %H:%M:%S GMT")
    asked_to_wait = Reply(body={"job_complete": False}, headers={"retry-after": "30"})
    script = Script({"job-1": [asked_to_wait, rate_limited(date), rate_limited("soon"), complete()]})
    async with script.client() as client:
        await client.wait("user-1", "job-1", pace=STEADY)
    first, second, third, fourth = instants(script)
    assert (first, second, third) == pytest.approx((0, 30, 60))
    assert 60.5 <= fourth <= 62


async def test_an_absurd_retry_after_is_not_believed() -> None:
    """A hint of a year is taken for 300 s."""
    script = Script({"job-1": [rate_limited(31_536_000), complete()]})
    async with script.client() as client:
        await client.wait("user-1", "job-1", timeout=1000)
    assert instants(script) == pytest.approx([0, 300])


async def test_a_retry_after_beyond_the_deadline_ends_the_wait_now() -> None:
    """There is no use in sleeping until a deadline before which nothing may be asked."""
    async with Script({"job-1": [rate_limited(90)]}).client() as client:
        with pytest.raises(WaitTimeoutError, match="90 s") as caught:
            await client.wait("user-1", "job-1", timeout=60)
    assert caught.value.retry_after == 90
    assert caught.value.elapsed == pytest.approx(0)
    assert isinstance(caught.value.last_error, smilejobs.RateLimitedError)


async def test_a_job_that_is_not_there_yet_is_pending_for_a_while() -> None:
    """2304 and then 2314 are the usual beginning of a job."""
    script = Script({"job-1": [not_found(), not_found(), no_zip(), pending(), complete()]})
    async with script.client() as client:
        status = await client.wait("user-1", "job-1", pace=STEADY)
    assert status.verdict is Verdict.APPROVED
    assert instants(script) == pytest.approx([0, 1, 2, 3, 4])


@pytest.mark.parametrize(
    ("step", "error"), [(not_found(), smilejobs.JobNotFoundError), (no_zip(), smilejobs.NoZipError)]
)
async def test_what_is_not_there_when_its_grace_is_over_never_comes(
    step: Reply, error: type[smilejobs.ApiError]
) -> None:
    """After 120 s of the job's age the two become errors, at once for a job that is old already."""
    script = Script({"job-1": itertools.repeat(step), "job-2": [step]})
    async with script.client() as client:
        with pytest.raises(error):
            await client.wait("user-1", "job-1", pace=STEADY)
        assert 120 <= anyio.current_time() <= 140
        with pytest.raises(error):
            await client.wait("user-1", "job-2", submitted_at=EPOCH - timedelta(days=1))


async def test_a_job_that_was_there_cannot_vanish() -> None:
    """A 2304 after a good answer is a failure that passes."""
    script = Script({"job-1": [pending(), *[not_found()] * 5, complete()]})
    async with script.client() as client:
        status = await client.wait("user-1", "job-1", submitted_at=EPOCH - timedelta(days=1), timeout=600)
    assert status.job_complete


@pytest.mark.parametrize("step", [html(), cut(), rate_limited(), refused("2301"), refused("2301", http_status=200)])
async def test_failures_that_pass_are_absorbed(step: Reply | Exception) -> None:
    """19 in a row do not end a wait; a good answer in between begins the count anew."""
    script = Script({"job-1": [*[step] * 19, pending(), *[step] * 19, complete()]})
    async with script.client() as client:
        assert (await client.wait("user-1", "job-1", timeout=None)).job_complete


async def test_too_many_failures_in_a_row_end_the_wait() -> None:
    """The twentieth is the cause; what was known before is kept."""
    script = Script({"job-1": [pending(), *[html(503)] * 20]})
    async with script.client() as client:
        with pytest.raises(smilejobs.TooManyFailuresError, match="20 polls in a row") as caught:
            await client.wait("user-1", "job-1", timeout=None)
    error = caught.value
    assert isinstance(error.__cause__, smilejobs.BadResponseError)
    assert error.last_error is error.__cause__
    assert error.http_status == 503
    assert error.last is not None
    assert error.polls == 21


@pytest.mark.parametrize(
    ("step", "error"),
    [
        (refused("2305"), smilejobs.CredentialsError),
        (refused("2307"), smilejobs.UserDisabledError),
        (refused("2310"), smilejobs.UserNotFoundError),
        (refused("2313"), smilejobs.BadRequestError),
        (refused("2222", http_status=429), smilejobs.ApiError),
        (Reply(body={"job_complete": True, "signature": "forged"}), smilejobs.SignatureError),
        (complete(PartnerParams={"user_id": "user-2"}), smilejobs.WrongJobError),
    ],
)
async def test_what_does_not_pass_ends_the_wait_at_once(step: Reply, error: type[smilejobs.SmileJobsError]) -> None:
    """Wrong credentials, refusals and answers that must not be believed are asked for once."""
    async with Script({"job-1": [pending(), step]}).client() as client:
        with pytest.raises(error) as caught:
            await client.wait("user-1", "job-1")
    assert type(caught.value) is error
    assert caught.value.ref == smilejobs.JobRef("user-1", "job-1")


async def test_until_final_waits_for_the_human() -> None:
    """A provisional answer is complete but not final."""
    script = Script({"job-1": [provisional()], "job-2": [pending(), provisional(), provisional(), complete("0811")]})
    async with script.client() as client:
        assert (await client.wait("user-1", "job-1")).verdict is Verdict.PROVISIONAL
        assert (await client.wait("user-1", "job-2", until="final")).verdict is Verdict.REJECTED


async def test_a_timeout_under_review_keeps_the_provisional_answer() -> None:
    """It is in .last."""
    async with Script({"job-1": itertools.repeat(provisional())}).client() as client:
        with pytest.raises(WaitTimeoutError) as caught:
            await client.wait("user-1", "job-1", until="final", timeout=30)
    assert caught.value.last is not None
    assert caught.value.last.verdict is Verdict.PROVISIONAL


async def test_a_provisional_answer_is_not_forgotten() -> None:
    """An answer that is not complete, which need not even be signed, does not take its place in .last."""
    script = Script({"job-1": itertools.chain([provisional()], itertools.repeat(pending()))})
    async with script.client() as client:
        with pytest.raises(WaitTimeoutError, match="provisional") as caught:
            await client.wait("user-1", "job-1", until="final", timeout=30)
        with pytest.raises(WaitTimeoutError):
            assert len(await watched(client.watch("user-1", "job-1", until="final", timeout=30))) == 1
    assert caught.value.last is not None
    assert caught.value.last.verdict is Verdict.PROVISIONAL


async def watched(answers: AsyncIterator[JobStatus]) -> list[JobStatus]:
    return [status async for status in answers]


async def test_watch_yields_every_change_and_the_end() -> None:
    """Answers that say the same are not repeated, although each has a timestamp and a signature of its own."""
    steps: Sequence[Reply] = [
        *[no_zip()] * 2,
        *[pending()] * 3,
        *[provisional()] * 3,
        complete(ImageLinks={"selfie_image": "https://example.invalid/1"}),
    ]
    script = Script({"job-1": steps})
    async with script.client() as client:
        seen = await watched(client.watch("user-1", "job-1", until="final"))
    assert [(status.code, status.verdict) for status in seen] == [
        ("2314", None),
        ("2302", None),
        ("2302", Verdict.PROVISIONAL),
        ("2302", Verdict.APPROVED),
    ]


async def test_watch_is_silent_until_there_is_an_answer() -> None:
    """A job that is not there yet, or an API that is not, is no news."""
    script = Script({"job-1": [not_found(), html(), not_found(), pending(), html(), complete()]})
    async with script.client() as client:
        seen = await watched(client.watch("user-1", "job-1"))
    assert [status.verdict for status in seen] == [None, Verdict.APPROVED]


async def test_watch_does_not_count_links_as_news() -> None:
    """A link is signed anew in every answer."""
    links = [
        Reply(body={"job_complete": False, "image_links": {"selfie_image": f"https://example.invalid/{n}"}})
        for n in range(5)
    ]
    async with Script({"job-1": [*links, complete()]}).client() as client:
        assert len(await watched(client.watch("user-1", "job-1", image_links=True))) == 2


async def test_watch_raises_what_wait_raises() -> None:
    """After the changes that there were."""
    async with Script({"job-1": [pending(), refused("2305")]}).client() as client:
        answers = client.watch("user-1", "job-1")
        assert not (await anext(answers)).job_complete
        with pytest.raises(smilejobs.CredentialsError):
            await anext(answers)


async def test_the_clock_of_a_watch_runs_on_while_the_caller_is_busy() -> None:
    """A consumer that takes longer than the timeout finds the wait at its end."""
    async with Script({"job-1": [pending()]}).client() as client:
        answers = client.watch("user-1", "job-1", timeout=10)
        await anext(answers)
        await anyio.sleep(60)
        with pytest.raises(WaitTimeoutError):
            await anext(answers)


async def test_the_pace_of_a_watch_does_not_add_up_with_the_callers_time() -> None:
    """The next poll is due a second after the last one, not after the caller is done with it."""
    script = Script({"job-1": [pending(), complete()]})
    async with script.client() as client:
        async for status in client.watch("user-1", "job-1", pace=STEADY):
            if not status.job_complete:
                await anyio.sleep(0.75)
    assert instants(script) == pytest.approx([0, 1])


async def test_a_watch_can_be_abandoned() -> None:
    """Leaving the loop ends the polling, without a warning; the client goes on."""
    async with Script({"job-1": [pending()], "job-2": [complete()]}).client() as client:
        async for _ in client.watch("user-1", "job-1"):
            break
        gc.collect()
        assert (await client.wait("user-1", "job-2")).job_complete


async def test_a_watch_holds_nothing_between_two_answers() -> None:
    """It can be begun in one task and continued in another, and a scope around one step does not cover the next."""
    async with Script({"job-1": [pending(), provisional(), complete()]}).client() as client:
        answers = client.watch("user-1", "job-1", until="final")
        seen: list[JobStatus] = []

        async def one_step() -> None:
            seen.append(await anext(answers))

        for _ in range(3):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(one_step)
            with anyio.move_on_after(0):
                await anyio.sleep(1)
        with pytest.raises(StopAsyncIteration):
            await anext(answers)
    assert [status.verdict for status in seen] == [None, Verdict.PROVISIONAL, Verdict.APPROVED]


async def one_step(answers: AsyncIterator[JobStatus]) -> None:
    await anext(answers)


async def test_a_watch_is_for_one_task() -> None:
    """A second one is told so, and polls nothing."""
    script = Script({"job-1": [pending(), complete(delay=5)]})
    async with script.client() as client:
        answers = aiter(client.watch("user-1", "job-1"))
        await anext(answers)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(one_step, answers)
            await anyio.sleep(2)
            with pytest.raises(RuntimeError, match="another task"):
                await anext(answers)


async def test_a_watch_ends_with_an_error_of_the_caller() -> None:
    """What a pace raises ends it as an error of the tree does."""
    async with Script({"job-1": [pending()]}).client() as client:
        answers = aiter(client.watch("user-1", "job-1", pace=lambda age, polls: -1.0))
        with pytest.raises(ValueError, match="pace"):
            await anext(answers)
        with pytest.raises(StopAsyncIteration):
            await anext(answers)


async def test_the_options_of_the_request_are_sent_with_every_poll() -> None:
    """image_links and history are JSON booleans, always present; timestamp and signature are fresh."""
    script = Script({"job-1": [pending(), complete()], "job-2": [complete()]})
    async with script.client() as client:
        await client.wait("user-1", "job-1", image_links=True, history=True)
        await client.wait("user-1", "job-2")
    first, second = (poll.body for poll in script.polls["job-1"])
    assert first["image_links"] is second["image_links"] is first["history"] is second["history"] is True
    assert first["signature"] != second["signature"]
    third = script.polls["job-2"][0].body
    assert third["image_links"] is third["history"] is False


@pytest.mark.parametrize(
    ("arguments", "error", "named"),
    [
        ({"user_id": ""}, ValueError, "user_id"),
        ({"user_id": 7}, TypeError, "user_id"),
        ({"job_id": " "}, ValueError, "job_id"),
        ({"job_id": None}, TypeError, "job_id"),
        ({"timeout": 0}, ValueError, "timeout"),
        ({"timeout": float("nan")}, ValueError, "timeout"),
        ({"timeout": float("inf")}, ValueError, "timeout"),
        ({"timeout": timedelta(seconds=-1)}, ValueError, "timeout"),
        ({"timeout": True}, TypeError, "timeout"),
        ({"timeout": "10"}, TypeError, "timeout"),
        ({"until": "done"}, ValueError, "until"),
        ({"pace": 3.0}, TypeError, "pace"),
        ({"first_after": -1}, ValueError, "first_after"),
        ({"first_after": 10, "timeout": 10}, ValueError, "first_after"),
        ({"submitted_at": EPOCH.replace(tzinfo=None)}, ValueError, "submitted_at"),
        ({"submitted_at": "2026-01-01"}, TypeError, "submitted_at"),
    ],
)
async def test_arguments_that_can_never_be_right(
    arguments: dict[str, object], error: type[Exception], named: str
) -> None:
    """They are refused before any request, by wait and by watch alike, and named; none is an error of the tree."""
    given = {"user_id": "user-1", "job_id": "job-1", **arguments}
    async with Script({}).client() as client:
        with pytest.raises(error, match=named):
            await client.wait(**given)  # type: ignore[arg-type]  # what must be refused is of any type
        with pytest.raises(error, match=named):
            client.watch(**given)  # type: ignore[arg-type]  # what must be refused is of any type


async def test_logs_are_quiet_and_name_the_job_by_its_tag(caplog: pytest.LogCaptureFixture) -> None:
    """DEBUG per poll, WARNING per absorbed failure, INFO at the end of a wait; no ids anywhere."""
    script = Script(
        {"job-1": [not_found(), html(), pending(), complete(FullName="Nobody")], "job-2": [refused("2305")]}
    )
    with caplog.at_level(logging.DEBUG, logger="smilejobs"):
        async with script.client() as client:
            await client.wait("user-1", "job-1", history=True, image_links=True)
            with pytest.raises(smilejobs.CredentialsError):
                await client.wait("user-1", "job-2")
    tag = smilejobs.JobRef("user-1", "job-1").tag
    levels = [record.levelname for record in caplog.records if tag in record.getMessage()]
    assert levels == ["DEBUG", "DEBUG", "WARNING", "DEBUG", "DEBUG", "INFO"]
    assert "CredentialsError" in caplog.records[-1].getMessage()
    for secret in ("user-1", "job-1", "sandbox-key", "Nobody"):
        assert secret not in caplog.text


async def test_waits_share_a_client() -> None:
    """A hundred waits at once do not disturb each other."""
    script = Script({f"job-{n}": [*[pending()] * (n % 7), complete()] for n in range(100)})
    results: dict[str, JobStatus] = {}

    async def one(job_id: str) -> None:
        results[job_id] = await client.wait("user-1", job_id)

    async with script.client(rate=None) as client, anyio.create_task_group() as tasks:
        for job_id in script.polls:
            tasks.start_soon(one, job_id)
    assert {job_id: status.job_id for job_id, status in results.items()} == {job_id: job_id for job_id in script.polls}


async def test_no_poll_begins_at_the_deadline() -> None:
    """It could not end before it."""
    script = Script({"job-1": [pending(delay=0.95)]})
    async with script.client() as client:
        with pytest.raises(WaitTimeoutError) as caught:
            await client.wait("user-1", "job-1", timeout=1, pace=lambda age, polls: 0.05 - 5e-7)
    assert caught.value.polls == 1
