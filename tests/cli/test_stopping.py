"""How ``smilejobs batch`` and ``watch add`` are stopped, and what the former refuses before it asks."""

import os
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from smilejobs import JobRef
from smilejobs.batch.report import Report
from smilejobs.cli.options import open_input
from smilejobs.sandbox import Sandbox
from tests.helpers.commands import ENVIRONMENT, Answer, Command, interrupt_when, wait_until

SHELL = [sys.executable, "-c", "from smilejobs.cli import main; main()"]
LONG = 120
"""Seconds, on a slow machine too."""

unix = pytest.mark.skipif(os.name == "nt", reason="a pipe cannot be selected there")


@pytest.fixture(scope="module")
def sandbox() -> Sandbox:
    sandbox = Sandbox()
    sandbox.submit("user-1", "approved", machine=0)
    sandbox.submit("user-1", "running", machine=3600)
    return sandbox


# --- A pipe that stays open


@contextmanager
def started(base_url: str, folder: Path, *arguments: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """A command as a process, whose standard input is a pipe that nobody closes; no test may leave it behind."""
    with subprocess.Popen(
        [*SHELL, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        env={**os.environ, **ENVIRONMENT, "SMILE_BASE_URL": base_url, **environment},
    ) as process:
        assert process.stdin is not None
        process.stdin.write("user_id,job_id\nuser-1,approved\nuser-1,running\n")
        process.stdin.flush()
        try:
            yield process
        finally:
            process.kill()


def has_asked(out: Path) -> bool:
    return out.exists() and b"approved" in out.read_bytes()


@unix
@pytest.mark.parametrize("source", ["-", "/dev/stdin"])
@pytest.mark.slow
@pytest.mark.sample
def test_ctrl_c_with_a_pipe_that_stays_open(sandbox: Sandbox, base_url: str, tmp_path: Path, source: str) -> None:
    """The command ends although nothing ever comes, with all rows written, and says how to go on."""
    out = tmp_path / "out.csv"
    running = JobRef("user-1", "running")
    polls = sandbox.polls(running)
    with started(base_url, tmp_path, "batch", source, "--out", "out.csv") as process:
        wait_until(lambda: has_asked(out) and sandbox.polls(running) > polls)
        process.send_signal(signal.SIGINT)
        assert process.wait(LONG) == 130
        assert process.stderr is not None
        said = process.stderr.read()
    assert f"stopped; to go on: smilejobs batch {source} --out out.csv --resume\n" in said
    assert "Traceback" not in said
    assert "Exception" not in said
    assert sorted(line.split(b",")[5] for line in out.read_bytes().splitlines()[1:]) == [b"complete", b"pending"]


@unix
@pytest.mark.slow
def test_what_ends_the_batch_ends_the_command(base_url: str, tmp_path: Path) -> None:
    """Though more could come: wrong credentials, for one."""
    with started(base_url, tmp_path, "batch", "-", "--out", "out.csv", SMILE_API_KEY="wrong") as process:
        assert process.wait(LONG) == 4
        assert process.stderr is not None
        assert "the API answered 2305" in process.stderr.read()


@unix
@pytest.mark.slow
def test_ctrl_c_while_jobs_are_added(base_url: str, tmp_path: Path) -> None:
    """The first one ends the command, although nothing ever comes; a bad row shows that it has begun to read."""
    with started(base_url, tmp_path, "watch", "add", "sqlite:///jobs.db", "-") as process:
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdin.write("user-1,\n")
        process.stdin.flush()
        assert process.stderr.readline().startswith("-:4: ")
        process.send_signal(signal.SIGINT)
        assert process.wait(LONG) == 130
        said = process.stderr.read()
    assert "Traceback" not in said
    assert "Exception" not in said


@unix
@pytest.mark.slow
@pytest.mark.sample
def test_ctrl_c_in_this_process(command: Command, tmp_path: Path) -> None:
    """The thread that was reading has left, too."""
    reading, writing = os.pipe()
    out = tmp_path / "out.csv"
    with os.fdopen(reading, encoding="utf-8") as stdin, os.fdopen(writing, "w", encoding="utf-8") as producer:
        producer.write("user_id,job_id\nuser-1,approved\n")
        producer.flush()
        before = threading.active_count()
        thread = interrupt_when(lambda: has_asked(out))
        answer = command("batch", "-", "--out", "out.csv", stdin=stdin)
        thread.join()
        wait_until(lambda: threading.active_count() <= before)
        assert threading.active_count() <= before
    assert answer.code == 130
    assert "stopped; to go on: smilejobs batch - --out out.csv --resume\n" in answer.err


@unix
def test_a_pipe_is_read_to_its_end(command: Command) -> None:
    """All of it, and its end is the end."""
    reading, writing = os.pipe()
    lines = "user_id,job_id\n" + "user-1,approved\n" * 2000
    with os.fdopen(reading, encoding="utf-8") as stdin:

        def produce() -> None:
            with os.fdopen(writing, "w", encoding="utf-8") as producer:
                producer.write(lines)

        thread = threading.Thread(target=produce)
        thread.start()
        answer = command("batch", "-", "--out", "out.csv", "--quiet", stdin=stdin)
        thread.join()
        assert os.fstat(reading)
    assert answer == Answer(0, "", "")
    assert len(Path("out.csv").read_bytes().splitlines()) == 2001


@unix
def test_an_input_can_be_closed_twice() -> None:
    """As any file."""
    reading, writing = os.pipe()
    with os.fdopen(writing, "wb"):
        stream = open_input(f"/dev/fd/{reading}")
        stream.close()
        stream.close()
    os.close(reading)
    assert stream.closed


def test_a_file_with_the_name_of_standard_input(command: Command) -> None:
    """A dash is standard input, whatever is in the folder."""
    Path("-").write_text("user_id,job_id\n" + "user-1,approved\n" * 5)
    Path("in.csv").write_text("user_id,job_id\nuser-1,approved\n")
    with Path("in.csv").open(encoding="utf-8") as stdin:
        answer = command("batch", "-", "--out", "out.csv", stdin=stdin)
    assert (answer.code, answer.out) == (0, "1 row in out.csv: 1 approved\n")


# --- The report, and other files


JOBS = "user_id,job_id\nuser-1,approved\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--out", "out.csv", "--report", "out.csv"), "the input, --out, --report and --learn must be different files"),
        (
            ("--out", "out.csv", "--report", "./in.csv"),
            "the input, --out, --report and --learn must be different files",
        ),
        (("--out", "in.csv", "--resume"), "the input, --out, --report and --learn must be different files"),
        (("--out", "out.csv", "--report", "nowhere/out.html"), "there is no folder nowhere"),
        (("--out", "out.csv", "--report", "in.csv/out.html"), "there is no folder in.csv"),
        (("--out", "out.csv", "--report", "."), "'.' is a directory"),
    ],
)
def test_a_report_that_could_never_be_written(command: Command, arguments: tuple[str, ...], words: str) -> None:
    """It is said before anything is asked or written."""
    Path("in.csv").write_text(JOBS)
    answer = command("batch", "in.csv", *arguments)
    assert (answer.code, answer.out) == (2, "")
    assert words in answer.err
    assert [path.name for path in Path().iterdir()] == ["in.csv"]
    assert Path("in.csv").read_text() == JOBS


def test_a_folder_where_no_report_can_be_written(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one that is not there; a file that is there already can be written all the same."""
    real = os.access
    folder = Path("reports").absolute()
    monkeypatch.setattr(os, "access", lambda path, mode: path != folder and real(path, mode))  # root may always
    Path("in.csv").write_text(JOBS)
    folder.mkdir()
    options = ("batch", "in.csv", "--out", "out.csv", "--report", "reports/out.html")
    answer = command(*options)
    assert (answer.code, answer.out) == (2, "")
    assert "nothing can be written there" in answer.err
    Path("reports/out.html").touch()
    assert command(*options).code == 0
    assert "1 row, 1 complete." in Path("reports/out.html").read_text()


def test_ctrl_c_and_a_report_that_cannot_be_written(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both are told, and the exit code is that of Ctrl-C."""

    def write(self: Report, path: Path) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(Report, "write", write)
    Path("in.csv").write_text(f"{JOBS}user-1,running\n")
    out = Path("out.csv").absolute()
    thread = interrupt_when(lambda: has_asked(out))
    options = ("batch", "in.csv", "--out", "out.csv", "--report", "out.html")
    answer = command(*options)
    thread.join()
    assert answer.code == 130
    assert "No space left on device: 'out.html'" in answer.err
    assert f"stopped; to go on: smilejobs {shlex.join(options)} --resume\n" in answer.err
    assert "the report: " not in answer.out


@unix
def test_runs_over_a_link_and_over_its_file_keep_out_of_each_others_way(command: Command) -> None:
    """The lock lies beside the file itself."""
    Path("in.csv").write_text(JOBS)
    Path("elsewhere").mkdir()
    Path("out.csv").symlink_to("elsewhere/real.csv")
    assert command("batch", "in.csv", "--out", "out.csv").code == 0
    assert sorted(path.name for path in Path("elsewhere").iterdir()) == [".real.csv.lock", "real.csv"]
