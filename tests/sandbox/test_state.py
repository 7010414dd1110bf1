"""The state of a sandbox in a file: a restart goes on, also after a sudden end."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from smilejobs import JobRef, Verdict
from smilejobs.sandbox import FAULT_PROFILES, FaultProfile, Job, Lognormal, Sandbox, Stage
from smilejobs.sandbox.http.common import ConnectionCutError
from smilejobs.sandbox.http.images import sign_url
from smilejobs.sandbox.state import State
from smilejobs.settings import Credentials
from smilejobs.testing import EPOCH, virtual_now
from smilejobs.wire.signature import format_timestamp, sign

pytestmark = pytest.mark.anyio

BASE = "https://localhost/v1"
CREDENTIALS = Credentials("085", "sandbox-key")
PICTURE = "/images/0000000001/SID_Preview_Full.png"
LINK = sign_url("sandbox-key", "GET", "https://localhost", PICTURE, at=EPOCH, lifetime=900)


def block(path: Path) -> None:
    """Make it a place that cannot be written."""
    path.unlink()
    path.mkdir()


def unblock(path: Path) -> None:
    path.rmdir()
    State(path)


def poll(user_id: str, job_id: str) -> bytes:
    timestamp = format_timestamp(EPOCH)
    proof = {"partner_id": "085", "timestamp": timestamp, "signature": sign(CREDENTIALS, timestamp)}
    return json.dumps({**proof, "user_id": user_id, "job_id": job_id, "image_links": True}).encode()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sandbox.state"


def opened(path: Path, **options: Any) -> Sandbox:
    return Sandbox(state=path, now=virtual_now, **options)


async def test_a_restart_goes_on(path: Path) -> None:
    """Every job is as it was, with all that was said about it, and time has passed for it meanwhile."""
    first = opened(path)
    first.submit("user-1", "quick", machine=10, details={"FullName": "Nobody"}, partner_params={"more": [1, None]})
    first.submit("user-1", "review", machine=5, review=60, job_type=6, outcome="rejected")
    first.submit("user-1", "open", machine=5, review="open", faults="storm")
    first.submit("user-1", "no-zip", upload=None, callback_url="http://localhost/x", faults=FaultProfile(rate=3))
    first.submit("user-1", "disabled", refusal="2307")
    jobs = list(first.jobs.values())
    await anyio.sleep(20)
    second = opened(path)
    assert list(second.jobs.values()) == jobs
    assert [job.ref.submitted_at for job in second.jobs.values()] == [EPOCH] * 5
    async with second.client() as client:
        quick = await client.job_status("user-1", "quick")
        assert (await client.job_status("user-1", "review")).verdict is Verdict.PROVISIONAL
    assert quick.verdict is Verdict.APPROVED
    assert quick.result is not None
    assert quick.result.full_name == "Nobody"


async def test_changes_are_kept(path: Path) -> None:
    """Images that came, a review that ended; new jobs go on with the numbers."""
    first = opened(path)
    late = first.submit("user-1", "late", upload=None, machine=5)
    review = first.submit("user-1", "review", machine=0, review="open")
    first.receive(late)
    first.review(review, "rejected")
    second = opened(path)
    assert second.jobs[late].uploaded_at == EPOCH
    assert second.jobs[review].stage(EPOCH) is Stage.FINAL
    assert second.jobs[review].verdict is Verdict.REJECTED
    third = second.submit("user-1", "third")
    assert second.jobs[third].smile_job_id == "0000000003"
    with pytest.raises(ValueError, match="already"):
        second.submit("user-1", "late")


async def test_the_random_draws_go_on_after_a_restart(path: Path) -> None:
    """What happens to the fourth poll of a job, or fetch of a picture, does not depend on a restart before it."""
    faults = FaultProfile(variants=0.5, system_errors=0.3, too_many=0.3, cut_pictures=0.5)

    async def asked(sandbox: Sandbox) -> list[object]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=sandbox.app)) as browser:
            answers: list[object] = []
            for user_id, name in (("user-1", "job-1"), ("nobody", "\0")) * 4:
                answer = await browser.post(f"{BASE}/job_status", content=poll(user_id, name))
                answers.append((answer.status_code, answer.content))
            for _ in range(4):
                try:
                    answers.append((await browser.get(LINK)).content)
                except ConnectionCutError:
                    answers.append(None)
            return answers

    def opened_in(faults: FaultProfile, where: Path | None) -> Sandbox:
        return Sandbox(state=where, faults=faults, now=virtual_now, link_lifetime=900)

    once = opened_in(faults, None)
    once.submit("user-1", "job-1", machine=0)
    expected = [await asked(once), await asked(once)]
    assert expected[0] != expected[1]
    first = opened_in(faults, path)
    first.submit("user-1", "job-1", machine=0)
    found = [await asked(first)]
    second = opened_in(faults, path)
    assert second.polls(JobRef("user-1", "job-1")) == second.polls(JobRef("nobody", "\0")) == 4
    found.append(await asked(second))
    assert found == expected


async def test_polls_and_pictures_that_cannot_be_counted(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """They are refused as a fault that passes; nothing is counted, and the log says why."""
    sandbox = opened(path)
    ref = sandbox.submit("user-1", "job-1", machine=0)
    block(path)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=sandbox.app)) as browser:
        answer = await browser.post(f"{BASE}/job_status", content=poll("user-1", "job-1"))
        assert (answer.status_code, answer.json()) == (503, {"message": "Service Unavailable"})
        assert (await browser.get(LINK)).status_code == 503
        unblock(path)
        assert (await browser.get(LINK)).status_code == 200
    assert sandbox.polls(ref) == 0
    assert "sandbox.state cannot be used" in caplog.text


def test_two_sandboxes_do_not_overwrite_each_other(path: Path) -> None:
    """The second one to give a number to a job is told; what the first one has kept stays."""
    first, second = Sandbox(state=path), Sandbox(state=path)
    first.submit("user-1", "job-1")
    for ids in (("user-1", "job-2"), ("user-2", "job-1")):
        with pytest.raises(OSError, match="is used by another sandbox too"):
            second.submit(*ids)
    assert not second.jobs
    assert list(Sandbox(state=path).jobs) == [JobRef("user-1", "job-1")]


def test_a_database_of_something_else_is_left_alone(path: Path) -> None:
    """Not a byte of it is changed."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE other (key TEXT)")
    before = path.read_bytes()
    with pytest.raises(OSError, match="or of something else"):
        Sandbox(state=path)
    assert path.read_bytes() == before


def test_a_name_that_means_something_to_sqlite_is_a_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no state in memory, and none that depends on where the process goes."""
    monkeypatch.chdir(path.parent)
    sandbox = Sandbox(state=":memory:")
    monkeypatch.chdir("/")
    sandbox.submit("user-1", "job-1")
    assert Sandbox(state=path.parent / ":memory:").jobs


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE entry SET value = json_set(value, '$.job_type', 3)",
        "UPDATE entry SET value = json_set(value, '$.root', 'javascript:alert(1)')",
        "UPDATE entry SET value = json_set(value, '$.machine', 1e300)",
        "UPDATE entry SET value = '{}'",
        "UPDATE entry SET value = '{\"a\":' || replace(hex(zeroblob(50000)), '0', '[')",
        "UPDATE entry SET value = x'ff'",
        'UPDATE entry SET key = \'["job", "<script>"]\'',
        "UPDATE entry SET checksum = ''",
        "INSERT INTO entry VALUES ('', 1, '')",
        "INSERT INTO entry VALUES ('[\"poll\", \"user-1\", \"job-1\"]', '-1', '')",
        'INSERT INTO entry SELECT \'["job", "0000000002"]\', value, checksum FROM entry',
    ],
)
def test_a_row_that_no_sandbox_has_written_says_so(path: Path, change: str) -> None:
    """At the start, and not at the first poll."""
    Sandbox(state=path).submit("user-1", "job-1")
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(change)
    with pytest.raises(OSError, match=r"sandbox\.state cannot be read: something else has changed it"):
        Sandbox(state=path)


@pytest.mark.parametrize(
    "change",
    [
        "CREATE TRIGGER more AFTER INSERT ON entry BEGIN DELETE FROM entry; END",
        "CREATE VIEW more AS SELECT * FROM entry",
        "ALTER TABLE entry RENAME TO more",
    ],
)
def test_a_state_with_something_else_in_it_is_refused(path: Path, change: str) -> None:
    """A trigger could change what is kept."""
    Sandbox(state=path).submit("user-1", "job-1")
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(change)
    with pytest.raises(OSError, match="or of something else"):
        Sandbox(state=path)


@pytest.mark.skipif(os.name == "nt", reason="files have no such modes there")
def test_only_its_owner_may_read_a_state(path: Path) -> None:
    """From its first byte, with any umask; a file that is there already keeps its mode."""
    umask = os.umask(0)
    try:
        Sandbox(state=path).submit("user-1", "job-1")
    finally:
        os.umask(umask)
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o640)
    Sandbox(state=path)
    assert path.stat().st_mode & 0o777 == 0o640


def test_a_link_that_leads_nowhere_is_not_followed(path: Path) -> None:
    """The file that it names is not created; one that exists is used."""
    target = path.with_name("target")
    path.symlink_to(target)
    with pytest.raises(OSError, match="unable to open"):
        Sandbox(state=path)
    assert not target.exists()
    path.unlink()
    Sandbox(state=target).submit("user-1", "job-1")
    path.symlink_to(target)
    assert len(Sandbox(state=path).jobs) == 1


async def test_what_is_refused_is_not_kept(path: Path) -> None:
    """A job that can never be leaves nothing behind."""
    sandbox = opened(path)
    with pytest.raises(ValueError, match="job_type"):
        sandbox.submit("user-1", "job-1", job_type=3)
    assert not opened(path).jobs


def test_every_field_of_a_job_survives(path: Path) -> None:
    """With values of all kinds."""
    job = Job(
        ref=JobRef("user-1", "job-1", EPOCH),
        smile_job_id="0000000001",
        job_type=6,
        result_code="0811",
        refusal="2307",
        uploaded_at=EPOCH + timedelta(microseconds=1),
        machine=timedelta(seconds=1.5),
        review=None,
        reviewed_at=EPOCH,
        partner_params={"a": {"b": [1.5, None, True, "\u00e9"]}},
        details={"FullName": "\U0001f600"},
        callback_url="http://localhost/callback",
        root="http://localhost:8787",
        faults=FaultProfile(latency=Lognormal(1, 2), rate=3, retry_after=None, variant_names=["history"]),
    )
    state = State(path)
    state.save_job(job, is_new=True)
    state.save_job(job, is_new=False)
    (loaded,), _ = state.load()
    assert loaded == job
    assert loaded.ref.submitted_at == EPOCH
    assert FAULT_PROFILES["storm"] != loaded.faults


def test_a_sudden_end_loses_nothing(path: Path) -> None:
    """Killed between two submits, without a word: every job that was submitted is there."""
    code = """
import sys
from smilejobs.sandbox import Sandbox

sandbox = Sandbox(state=sys.argv[1])
for number in range(1000):
    sandbox.submit("user-1", f"job-{number}")
    print(number, flush=True)
    sys.stdin.read(1)
"""
    with subprocess.Popen(
        [sys.executable, "-c", code, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for _ in range(20):
            process.stdout.readline()
            process.stdin.write("x")
            process.stdin.flush()
        last = int(process.stdout.readline())
        process.kill()
        assert process.wait() == -signal.SIGKILL
    names = [ref.job_id for ref in Sandbox(state=path).jobs]
    assert names == [f"job-{number}" for number in range(last + 1)]


def test_a_file_that_is_none_of_ours_says_so(path: Path) -> None:
    """Garbage, a directory that is missing: an OSError that names the file."""
    path.write_bytes(b"garbage" * 1000)
    with pytest.raises(OSError, match=r"sandbox\.state cannot be used: file is not a database"):
        Sandbox(state=path)
    with pytest.raises(OSError, match="cannot be used: unable to open"):
        Sandbox(state=path / "missing" / "file")


def test_a_job_of_another_version_says_so(path: Path) -> None:
    """Its row was written by a sandbox, and has another shape."""
    Sandbox(state=path)
    key, value = '["job", "0000000001"]', "{}"
    checksum = sha256(f"{key}\0{value}".encode()).hexdigest()
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("INSERT INTO entry VALUES (?, ?, ?)", (key, value, checksum))
    with pytest.raises(OSError, match=r"sandbox\.state cannot be read: it is of another version of smilejobs"):
        Sandbox(state=path)


def test_a_state_that_cannot_be_written_says_so(path: Path) -> None:
    """And the job is not there, neither now nor later."""
    sandbox = Sandbox(state=path)
    path.unlink()
    path.mkdir()
    with pytest.raises(OSError, match="cannot be used"):
        sandbox.submit("user-1", "job-1")
    assert not sandbox.jobs
