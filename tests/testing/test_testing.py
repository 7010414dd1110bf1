"""The package `smilejobs.testing`."""

import asyncio
import contextlib
import itertools
import socket
import time
from datetime import timedelta

import anyio
import pytest

import smilejobs
from smilejobs import Client
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
    virtual_clock,
    virtual_now,
)


@pytest.mark.anyio
async def test_an_hour_passes_in_no_time() -> None:
    """Under the virtual clock a sleep of an hour ends at once, an hour later by both clocks."""
    real = time.monotonic()
    before = anyio.current_time()
    await anyio.sleep(3600)
    assert anyio.current_time() - before == pytest.approx(3600)
    assert virtual_now() - EPOCH == timedelta(seconds=anyio.current_time())
    assert time.monotonic() - real < 60


@pytest.mark.anyio
async def test_tasks_wake_in_the_order_of_their_times() -> None:
    """The clock never jumps past a timer that is due earlier."""
    woken: list[float] = []

    async def sleeper(seconds: float) -> None:
        await anyio.sleep(seconds)
        woken.append(seconds)

    async with anyio.create_task_group() as tasks:
        for seconds in (30.0, 0.001, 7.0, 3600.0, 7.5):
            tasks.start_soon(sleeper, seconds)
    assert woken == sorted(woken)


def test_threads_can_still_wake_a_loop_that_waits_for_nothing_else() -> None:
    """Without a timer to jump to, the loop blocks until a thread calls it."""

    async def main() -> int:
        return await asyncio.get_running_loop().run_in_executor(None, lambda: 42)

    with asyncio.Runner(loop_factory=VirtualClockEventLoop) as runner:
        assert runner.run(main()) == 42


def test_what_is_ready_comes_before_the_clock_jumps() -> None:
    """A readable socket is read before the clock jumps to a timer."""

    async def main() -> float:
        loop = asyncio.get_running_loop()
        here, there = socket.socketpair()
        with here, there:
            readable = asyncio.Event()
            loop.add_reader(here, readable.set)
            in_an_hour = loop.call_later(3600, lambda: None)
            there.send(b"x")
            await readable.wait()
            in_an_hour.cancel()
            loop.remove_reader(here)
        return loop.time()

    with asyncio.Runner(loop_factory=VirtualClockEventLoop) as runner:
        assert runner.run(main()) == 0


def test_the_virtual_clock_knows_two_backends() -> None:
    """Another backend is a ValueError that names the two."""
    with pytest.raises(ValueError, match="'asyncio' or 'trio'"):
        virtual_clock("curio")


@pytest.mark.anyio
async def test_a_script_answers_each_job_in_turn_and_remembers_what_was_asked() -> None:
    """Each job has its own steps; the polls are recorded with their instants and bodies."""
    script = Script({"job-1": [not_found(), no_zip(), pending(), complete(FullName="A")], "job-2": [complete("0811")]})
    async with script.client() as client:
        first = await client.wait("user-1", "job-1", pace=smilejobs.Pace(jitter=0))
        second = await client.wait("user-2", "job-2")
    assert first.verdict is smilejobs.Verdict.APPROVED
    assert first.result is not None
    assert first.result.full_name == "A"
    assert second.verdict is smilejobs.Verdict.REJECTED
    assert [poll.at for poll in script.polls["job-1"]] == pytest.approx([0.0, 1.0, 2.0, 3.0])
    assert script.polls["job-2"][0].body["user_id"] == "user-2"
    assert "user-2" not in repr(script.polls["job-2"])


@pytest.mark.anyio
async def test_a_script_that_is_exceeded_fails_the_test() -> None:
    """A poll after the last step is an AssertionError that names it, and no error of the tree."""
    script = Script({"job-1": [pending()]})
    with pytest.raises(AssertionError, match="poll 2 of the job_id 'job-1'"):
        async with script.client() as client:
            await client.wait("user-1", "job-1")


@pytest.mark.anyio
async def test_a_script_that_is_not_used_up_fails_the_test() -> None:
    """Steps that are left are an AssertionError at the end of the block."""
    script = Script({"job-1": [complete(), complete()], "job-2": []})
    with pytest.raises(AssertionError, match=r"\{'job-1': 1\}"):
        async with script.client() as client:
            await client.wait("user-1", "job-1")


@pytest.mark.anyio
async def test_an_error_of_the_block_is_not_hidden_by_steps_that_are_left() -> None:
    """The error of the block is raised."""
    script = Script({"job-1": [complete()]})
    with pytest.raises(ZeroDivisionError):
        async with script.client():
            raise ZeroDivisionError


@pytest.mark.anyio
async def test_a_job_without_a_script_fails_the_test() -> None:
    """An unknown job_id is an AssertionError that names it."""
    client = Client(partner_id="085", api_key="sandbox-key", environment="sandbox", http_client=Script({}))
    with pytest.raises(AssertionError, match="no script for the job_id 'job-9'"):
        await client.job_status("user-1", "job-9")


@pytest.mark.anyio
async def test_a_failure_that_the_code_under_test_swallows_fails_the_test_all_the_same() -> None:
    """A poll that is not in the script is also reported at the end."""

    async def carefree() -> None:
        async with Script({"job-1": []}).client() as client:
            with contextlib.suppress(AssertionError):
                await client.job_status("user-1", "job-1")

    with pytest.raises(AssertionError, match="poll 1 of the job_id 'job-1'"):
        await carefree()


@pytest.mark.anyio
async def test_a_script_may_go_on_for_ever() -> None:
    """An iterable that is not a sequence need not be used up."""
    script = Script({"job-1": itertools.repeat(pending())})
    async with script.client() as client:
        with pytest.raises(smilejobs.WaitTimeoutError) as caught:
            await client.wait("user-1", "job-1", timeout=3600)
    assert caught.value.polls == len(script.polls["job-1"])


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("step", "error"),
    [
        (cut(), smilejobs.RequestError),
        (html(), smilejobs.BadResponseError),
        (rate_limited(), smilejobs.RateLimitedError),
        (rate_limited(60), smilejobs.RateLimitedError),
        (refused("2305"), smilejobs.CredentialsError),
        (refused("9999"), smilejobs.GatewayError),
        (Reply(body={"job_complete": True, "signature": "", "timestamp": ""}), smilejobs.SignatureError),
        (complete(PartnerParams={"job_id": "another"}), smilejobs.WrongJobError),
    ],
)
async def test_a_script_can_be_hostile(step: Reply | Exception, error: type[smilejobs.SmileJobsError]) -> None:
    """Every kind of failure can be scripted and raises the library's error for it."""
    async with Script({"job-1": [step]}).client(attempts=1) as client:
        with pytest.raises(error):
            await client.job_status("user-1", "job-1")


@pytest.mark.anyio
async def test_a_result_code_that_is_in_no_table_can_be_scripted() -> None:
    """The text is then empty, and the verdict unknown."""
    async with Script({"job-1": [complete("0840")], "job-2": [provisional()]}).client() as client:
        assert (await client.job_status("user-1", "job-1")).verdict is smilejobs.Verdict.UNKNOWN
        assert (await client.job_status("user-1", "job-2")).verdict is smilejobs.Verdict.PROVISIONAL


@pytest.mark.anyio
async def test_answers_can_take_their_time() -> None:
    """A delay is virtual time that the answer takes."""
    async with Script({"job-1": [complete(delay=20)]}).client() as client:
        await client.job_status("user-1", "job-1")
    assert anyio.current_time() == pytest.approx(20)
