"""The examples run, each in a process of its own."""

import os
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest
from anyio.abc import Process
from anyio.streams.buffered import BufferedByteReceiveStream

import smilejobs
from smilejobs.sandbox import Sandbox
from tests.helpers.patience import until

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def command(example: str, *arguments: str) -> list[str]:
    return [sys.executable, "-W", "error", str(ROOT / "examples" / example), *arguments]


def environment(base_url: str) -> dict[str, str]:
    others = {name: value for name, value in os.environ.items() if not name.startswith("SMILE_")}
    return others | {"SMILE_PARTNER_ID": "085", "SMILE_API_KEY": "sandbox-key", "SMILE_BASE_URL": base_url}


async def run(example: str, base_url: str, *arguments: str) -> str:
    """Run an example in a process of its own and return what it prints."""
    done = await anyio.run_process(
        command(example, *arguments), env=environment(base_url), check=False, stderr=subprocess.STDOUT
    )
    printed = done.stdout.decode()
    assert done.returncode == 0, printed
    return printed


@asynccontextmanager
async def started(example: str, base_url: str, *arguments: str) -> AsyncGenerator[Process, None]:
    """Run an example in a process of its own while the block runs, then kill it."""
    async with await anyio.open_process(
        command(example, *arguments), env=environment(base_url), stderr=None
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.anyio
@pytest.mark.sample
async def test_the_quickstart_waits_for_a_verdict() -> None:
    """The ten lines of the README work as they are."""
    sandbox = Sandbox()
    sandbox.submit("user-1", "job-1", machine=0.5)
    sandbox.submit("user-2", "job-2", machine=0.0, outcome="rejected")
    async with sandbox.serve() as base_url:
        assert await run("quickstart.py", base_url, "user-1", "job-1") == "approved: Enroll User\n"
        assert "rejected" in await run("quickstart.py", base_url, "user-2", "job-2")


@pytest.mark.anyio
async def test_progress_shows_the_review() -> None:
    """First the provisional answer, then the final one."""
    sandbox = Sandbox()
    ref = sandbox.submit("user-1", "job-1", upload=None, machine=0.0, review="open")

    async def go_on() -> None:
        await until(lambda: sandbox.polls(ref) > 0)
        sandbox.receive(ref)
        polls = sandbox.polls(ref)
        await until(lambda: sandbox.polls(ref) > polls)
        sandbox.review(ref, "approved")

    async with sandbox.serve() as base_url, anyio.create_task_group() as tasks:
        tasks.start_soon(go_on)
        lines = (await run("progress.py", base_url, "user-1", "job-1")).splitlines()
    assert lines == [
        "2314 None to be continued",
        "2302 provisional to be continued",
        "2302 approved final",
    ]


@pytest.mark.anyio
async def test_a_pace_learns_from_one_run_to_the_next(tmp_path: Path) -> None:
    """The second run goes on from what the first one has saved."""
    sandbox = Sandbox()
    for job in range(4):
        sandbox.submit("user-1", f"job-{job}", machine=0.5)
    source, learned = tmp_path / "jobs.txt", tmp_path / "pace.json"
    async with sandbox.serve() as base_url:
        for jobs in ((0, 1), (2, 3)):
            source.write_text("".join(f"user-1 job-{job}\n" for job in jobs))
            printed = await run("learned_pace.py", base_url, str(source), str(learned))
            assert "job-" + str(jobs[0]) + " complete" in printed
    assert smilejobs.LearnedPace.load(learned).base == smilejobs.Pace()


@pytest.mark.anyio
async def test_a_batch_is_checked(tmp_path: Path) -> None:
    """From one file to another, whatever becomes of a job."""
    sandbox = Sandbox()
    refs = [
        sandbox.submit("user-1", "job-1", machine=0.5),
        sandbox.submit("user-2", "job-2", machine=0.0, outcome="rejected"),
        sandbox.submit("user-3", "job-3", refusal="2307"),
    ]
    source, target = tmp_path / "pending.csv", tmp_path / "results.csv"
    lines = [f"{ref.user_id},{ref.job_id},{ref.submitted_at}" for ref in refs]
    source.write_text("\n".join(["user_id,job_id,submitted_at", *lines]))
    async with sandbox.serve() as base_url:
        printed = await run("batch_check.py", base_url, str(source), str(target))
    assert "2 done, 1 failed, 0 pending" in printed
    assert sorted(target.read_text().splitlines()) == [
        "user-1,job-1,approved",
        "user-2,job-2,rejected",
        "user-3,job-3,UserDisabledError",
    ]


@pytest.mark.anyio
async def test_pictures_are_saved(tmp_path: Path) -> None:
    """One is shown, and those of two jobs become files."""
    sandbox = Sandbox()
    for job_id in ("job-1", "job-2"):
        sandbox.submit("user-1", job_id, machine=0.0)
    folder = tmp_path / "pictures"
    async with sandbox.serve() as base_url:
        printed = await run("images.py", base_url, str(folder), "user-1", "job-1", "job-2")
    shown, first, other = printed.splitlines()
    assert shown == "selfie_image image/png True"
    assert first.startswith("approved ")
    assert other.endswith(" all saved")
    assert sum(int(line.split()[1]) for line in (first, other)) == len(list(folder.iterdir()))


@pytest.mark.anyio
async def test_telemetry_goes_to_the_console() -> None:
    """The log, a hook of one's own, the spans of a wait below that of the caller, and metrics; no ids."""
    sandbox = Sandbox()
    ref = sandbox.submit("user-amber", "job-basalt", upload=None, machine=0.0)

    async def receive() -> None:
        await until(lambda: bool(sandbox.polls(ref)))
        sandbox.receive(ref)

    async with sandbox.serve() as base_url, anyio.create_task_group() as tasks:
        tasks.start_soon(receive)
        printed = await run("telemetry.py", base_url, "user-amber", "job-basalt")
    polls = sandbox.polls(ref)
    assert polls > 1
    assert f"INFO smilejobs: job {ref.tag}: wait ended after {polls} polls" in printed
    assert f"{ref.tag}: pending, next poll in " in printed
    assert f"{ref.tag}: {polls} polls in " in printed
    for name, count in (("smilejobs.poll", polls), ("smilejobs.wait", 1), ("verify", 1), ("smilejobs.polls", 1)):
        assert printed.count(f'"name": "{name}"') == count
    assert "user-amber" not in printed
    assert "job-basalt" not in printed


@pytest.mark.anyio
async def test_a_watch_list_outlives_its_processes(tmp_path: Path) -> None:
    """One process adds a job, another polls it, a third hears how it ended, and goes on from there the next time."""
    sandbox = Sandbox()
    first = sandbox.submit("user-1", "job-1", machine=0.0)
    second = sandbox.submit("user-1", "job-2", upload=None, machine=0.0)
    url = f"sqlite:///{tmp_path / 'jobs.db'}"
    notes = tmp_path / "cursor.txt"

    async with sandbox.serve() as base_url:

        async def until_printed(text: str) -> None:
            before = notes.read_text() if notes.exists() else ""
            async with started("watch_list.py", base_url, url, "follow", str(notes)) as follower:
                assert follower.stdout is not None
                printed = BufferedByteReceiveStream(follower.stdout)
                assert (await printed.receive_until(b"\n", 100)).decode() == text
                await until(lambda: notes.exists() and notes.read_text() not in ("", before))

        assert "pending=1" in await run("watch_list.py", base_url, url, "add", first.user_id, first.job_id)
        async with started("watch_list.py", base_url, url, "work"):
            await until_printed("job-1 complete approved")
            assert "pending=1" in await run("watch_list.py", base_url, url, "add", second.user_id, second.job_id)
            sandbox.receive(second)
            await until_printed("job-2 complete approved")
