"""``smilejobs batch``, against a sandbox behind a real socket."""

import csv
import io
import json
import os
import shlex
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import anyio
import pytest
from rich.console import Console

from smilejobs import JobRef, Progress
from smilejobs.batch.journal import Journal
from smilejobs.batch.records import Ending, RowRecord
from smilejobs.batch.report import Report
from smilejobs.batch.rows import BadRow
from smilejobs.cli import batch as batch_module
from smilejobs.cli.options import parse_duration
from smilejobs.cli.progress import Tally, View
from smilejobs.sandbox import Sandbox
from tests.helpers.commands import ENVIRONMENT, TIMEOUTS, Answer, Command, interrupt_when, wait_until

JOBS = "user_id,job_id,note\nuser-1,approved,a\nuser-1,rejected,b\n"
MIXED = f"{JOBS},x,c\nuser-1,running,d\nuser-1,disabled,e\n"


@pytest.fixture(scope="module")
def sandbox() -> Sandbox:
    sandbox = Sandbox()
    sandbox.submit("user-1", "approved", machine=0)
    sandbox.submit("user-1", "rejected", machine=0, outcome="rejected", job_type=6)
    sandbox.submit("user-1", "review", machine=0, review=3600)
    sandbox.submit("user-1", "running", machine=3600)
    sandbox.submit("user-1", "disabled", refusal="2307")
    return sandbox


def rows(name: str) -> list[Mapping[str, Any]]:
    if name.endswith(".csv"):
        return [*csv.DictReader(io.StringIO(Path(name).read_bytes().decode(), newline=""))]
    return [json.loads(line) for line in Path(name).read_text().splitlines()]


def outcomes(name: str) -> dict[str, str]:
    return {row["note"]: row["verdict"] or row["outcome"] for row in rows(name) if row.get("note")}


def timed_out(batch: Callable[[str], Answer], out: str) -> tuple[Answer, str]:
    """Wait so long that of all rows one alone is pending; return the timeout as well."""
    for timeout in TIMEOUTS:
        answer = batch(timeout)
        if [row["outcome"] for row in rows(out)].count("pending") == 1:
            break
    return answer, timeout


@pytest.mark.parametrize("out", ["out.csv", "out.jsonl"])
def test_all_complete(command: Command, out: str) -> None:
    """One row for each row of the input, a summary, and the exit code 0: a rejection is a result."""
    Path("in.csv").write_text(JOBS)
    answer = command("batch", "in.csv", "--out", out)
    assert (answer.code, answer.out) == (0, f"2 rows in {out}: 1 approved, 1 rejected\n")
    assert outcomes(out) == {"a": "approved", "b": "rejected"}
    assert "to go on" not in answer.err


def test_a_deadline_for_the_whole_batch(command: Command) -> None:
    """Then what is pending is written as pending, the exit code says so, and --resume goes on."""
    Path("in.csv").write_text("user_id,job_id,note\nuser-1,running,a\n" + "user-1,approved,b\n")
    answer = command("batch", "in.csv", "--out", "out.csv", "--deadline", "3s")
    assert answer.code == 3
    assert outcomes("out.csv") == {"a": "pending", "b": "approved"}
    assert "to go on" in answer.err


def test_a_mixed_batch_and_its_resumption(command: Command) -> None:
    """Bad rows are reported with file and line, the exit code tells of errors, and what is final is not asked again."""
    Path("in.csv").write_text(MIXED)

    def begin(timeout: str) -> Answer:
        Path("out.jsonl").unlink(missing_ok=True)
        return command("batch", "in.csv", "--out", "out.jsonl", "--timeout", timeout, "--report", "out.html")

    answer, timeout = timed_out(begin, "out.jsonl")
    summary = "5 rows in out.jsonl: 1 approved, 1 rejected, 1 pending, 1 refused, 1 invalid\nthe report: out.html\n"
    assert (answer.code, answer.out) == (4, summary)
    assert "in.csv:4: user_id must not be empty\n" in answer.err
    go_on = "smilejobs batch in.csv --out out.jsonl --timeout {} --report out.html --resume"
    assert f"to go on: {go_on.format(timeout)}\n" in answer.err
    first = {row["index"]: row for row in rows("out.jsonl")}
    assert [first[index]["line"] for index in range(5)] == [2, 3, 4, 5, 6]
    Path("in.csv").write_text(MIXED.replace(",x,c", "user-1,approved,c"))
    again, _ = timed_out(lambda timeout: command(*shlex.split(go_on.format(timeout))[1:], "--quiet"), "out.jsonl")
    assert (again.code, again.out, again.err) == (4, "", "")
    second = {row["index"]: row for row in rows("out.jsonl")}
    assert len(rows("out.jsonl")) == 5
    assert [first[index] == second[index] for index in (0, 1, 2, 4)] == [True, True, False, True]
    assert second[2]["verdict"] == "approved"
    assert "5 rows, 3 complete." in Path("out.html").read_text()


def test_only_pending(command: Command) -> None:
    """It has an exit code of its own."""
    Path("in.csv").write_text("user_id,job_id\nuser-1,running\nuser-1,approved\n")

    def begin(timeout: str) -> Answer:
        Path("out.csv").unlink(missing_ok=True)
        return command("batch", "in.csv", "--out", "out.csv", "--timeout", timeout, "--until", "complete")

    answer, _ = timed_out(begin, "out.csv")
    assert (answer.code, answer.out) == (3, "2 rows in out.csv: 1 approved, 1 pending\n")


def test_until_final(command: Command) -> None:
    """A provisional result is waited out, and kept where it was not."""
    Path("in.csv").write_text("user_id,job_id,note\nuser-1,review,a\n")
    assert command("batch", "in.csv", "--out", "out.csv").code == 0
    assert outcomes("out.csv") == {"a": "provisional"}
    answer = command("batch", "in.csv", "--out", "out.csv", "--resume", "--until", "final", "--timeout", "0.3s")
    assert answer.code == 3
    assert [row["outcome"] for row in rows("out.csv")] == ["pending"]


def test_from_standard_input_and_as_json(command: Command) -> None:
    """Rows are asked for as they come; the summary can be read by a script."""
    lines = b'{"user_id": "user-1", "job_id": "approved", "note": "a"}\n{"job_id": "x"}\n'
    answer = command("batch", "-", "--out", "out.jsonl", "--json", stdin=lines)
    assert answer.code == 4
    assert json.loads(answer.out) == {
        "rows": 2,
        "outcomes": {"approved": 1, "invalid": 1},
        "results": "out.jsonl",
        "images": None,
        "report": None,
        "resume": "smilejobs batch - --out out.jsonl --json --resume",
    }
    assert "-:2: user_id is missing\n" in answer.err
    assert outcomes("out.jsonl") == {"a": "approved"}


def test_an_empty_input(command: Command) -> None:
    """Nothing to do is done."""
    Path("in.csv").write_text("user_id,job_id\n")
    answer = command("batch", "in.csv", "--out", "out.csv", "--json")
    assert answer.code == 0
    assert json.loads(answer.out)["outcomes"] == {}
    assert command("batch", "in.csv", "--out", "out2.csv").out == "0 rows in out2.csv: nothing\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["in.csv", "--out", "out.xlsx"], "must end in one of .jsonl, .ndjson, .csv: out.xlsx"),
        (["none.csv", "--out", "out.csv"], "No such file or directory: 'none.csv'"),
        (["in.csv", "--out", "nowhere/out.csv"], "--out: there is no folder nowhere, or nothing can be written there"),
        (["in.csv", "--out", "there.csv"], "there.csv exists: resume it with --resume"),
        (["in.csv", "--out", "there.csv", "--resume"], "there.csv is not a results file"),
        (
            ["there.csv", "--out", "out.csv"],
            "there.csv: no column is named user_id or job_id in its first line (1 column)",
        ),
        (["in.csv", "--out", "out.csv", "--timeout", "soon"], "--timeout must be a number and a unit"),
        (["in.csv", "--out", "out.csv", "--timeout", "0"], "--timeout must be more than 0"),
        (["in.csv", "--out", "out.csv", "--rate", "-1"], "rate must be a finite number above 0"),
        (["in.csv", "--out", "out.csv", "--save-images", "nowhere"], "'nowhere' does not exist"),
        (["in.csv", "--out", "out.csv", "--save-images", "in.csv"], "'in.csv' is a file"),
    ],
)
def test_wrong_usage(command: Command, arguments: list[str], words: str) -> None:
    """It is said in one line before anything is asked, and nothing is written."""
    Path("in.csv").write_text(JOBS)
    Path("there.csv").write_text("something else\n")
    answer = command("batch", *arguments)
    assert answer.code == 2
    assert words in answer.err
    assert answer.out == ""
    assert not Path("out.csv").exists()


def test_wrong_credentials(command: Command) -> None:
    """They end the batch; every row is there, and it is said how to go on."""
    Path("in.csv").write_text(JOBS)
    answer = command("batch", "in.csv", "--out", "out.csv", SMILE_API_KEY="wrong")
    assert answer.code == 4
    assert "smilejobs: the API answered 2305: invalid signature" in answer.err
    assert "stopped; to go on: smilejobs batch in.csv --out out.csv --resume\n" in answer.err
    assert {row["outcome"] for row in rows("out.csv")} == {"failed", "pending"}
    assert command("batch", "in.csv", "--out", "out.csv", "--resume").code == 0


def test_another_input(command: Command) -> None:
    """Resuming with rows in another order is refused."""
    Path("in.csv").write_text(JOBS)
    assert command("batch", "in.csv", "--out", "out.csv").code == 0
    Path("in.csv").write_text("user_id,job_id,note\nuser-1,rejected,b\nuser-1,approved,a\n")
    answer = command("batch", "in.csv", "--out", "out.csv", "--resume")
    assert answer.code == 4
    assert "is another job than row 0 of out.csv" in answer.err


def test_a_disk_that_is_full(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """No traceback, and how to go on."""

    def write(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    Path("in.csv").write_text(JOBS)
    monkeypatch.setattr(Journal, "write", write)
    answer = command("batch", "in.csv", "--out", "out.csv")
    assert answer.code == 4
    assert "No space left on device" in answer.err
    assert "stopped; to go on: " in answer.err


def test_a_report_that_cannot_be_written(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """The results are there all the same, and to go on writes it."""

    def write(self: Report, path: Path) -> None:
        raise OSError(28, "No space left on device", str(path))

    Path("in.csv").write_text(JOBS)
    options = ("batch", "in.csv", "--out", "out.csv", "--report", "out.html")
    with monkeypatch.context() as full:
        full.setattr(Report, "write", write)
        answer = command(*options)
    assert (answer.code, answer.out) == (4, "2 rows in out.csv: 1 approved, 1 rejected\n")
    assert "No space left on device: 'out.html'" in answer.err
    assert f"smilejobs batch {shlex.join(options[1:])} --resume\n" in answer.err
    assert "stopped" not in answer.err
    assert len(rows("out.csv")) == 2
    assert command(*options, "--resume").code == 0
    assert "2 rows, 2 complete." in Path("out.html").read_text()


@pytest.mark.parametrize("quiet", [(), ("--quiet",)])
def test_ctrl_c(command: Command, sandbox: Sandbox, quiet: tuple[str, ...]) -> None:
    """What is known is written, what is pending too, and it is said how to go on, however quiet."""
    Path("in.csv").write_text(f"{JOBS}user-1,running,c\n")
    out, running = Path("out.csv").absolute(), JobRef("user-1", "running")
    polls = sandbox.polls(running)

    def all_were_asked_for() -> bool:
        written = out.read_bytes() if out.exists() else b""
        return b"approved" in written and b"rejected" in written and sandbox.polls(running) > polls

    thread = interrupt_when(all_were_asked_for)
    answer = command("batch", "in.csv", "--out", "out.csv", *quiet)
    thread.join()
    assert answer.code == 130
    assert "stopped; to go on: smilejobs batch in.csv --out out.csv" in answer.err
    assert "Traceback" not in answer.err
    assert outcomes("out.csv") == {"a": "approved", "b": "rejected", "c": "pending"}


def test_ctrl_c_before_the_first_poll(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is as quiet as later."""

    def wait_for_a_header(source: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(batch_module, "open_input", wait_for_a_header)
    assert command("batch", "-", "--out", "out.csv") == Answer(130, "", "")


@pytest.mark.slow
def test_as_a_process(base_url: str, tmp_path: Path) -> None:
    """It writes to a pipe as to a file, and ends with its exit code."""
    done = subprocess.run(
        [sys.executable, "-c", "import smilejobs.cli; smilejobs.cli.main()", "batch", "-", "--out", "out.csv"],
        input=JOBS,
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={**os.environ, **ENVIRONMENT, "SMILE_BASE_URL": base_url},
    )
    assert (done.returncode, done.stdout) == (0, "2 rows in out.csv: 1 approved, 1 rejected\n")


# --- Pictures


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("out", ["out.csv", "out.jsonl"])
def test_pictures_are_saved(command: Command, sandbox: Sandbox, pictures: Path, out: str) -> None:
    """Those of complete jobs, with the poll that found the job complete; the row and the summary count them."""
    Path("in.csv").write_text(f"{JOBS}user-1,running,c\n")
    polls = 0
    options = ("--history", "--report", "out.html", "--save-images", "pictures")

    def begin(timeout: str) -> Answer:
        nonlocal polls
        polls = sandbox.polls(JobRef("user-1", "approved"))
        Path(out).unlink(missing_ok=True)
        return command("batch", "in.csv", "--out", out, "--timeout", timeout, *options)

    answer, _ = timed_out(begin, out)
    found = {row["note"]: row for row in rows(out)}
    counts = {note: str(row["images"]) for note, row in found.items()}
    total = int(counts["a"]) + int(counts["b"])
    assert (answer.code, int(counts["a"]) > 0, int(counts["b"]) > 0, counts["c"] in ("", "None")) == (
        3,
        True,
        True,
        True,
    )
    assert sandbox.polls(JobRef("user-1", "approved")) == polls + 1
    assert len(list(pictures.iterdir())) == total
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in pictures.iterdir())
    assert {row["images_error"] or None for row in found.values()} == {None}
    assert all(row["history"] for note, row in found.items() if note != "c")
    assert f"\n{total} pictures in pictures\n" in answer.out
    assert '<th scope="row">save images</th><td>pictures</td>' in Path("out.html").read_text()


def test_the_summary_of_pictures_for_scripts(command: Command, pictures: Path) -> None:
    """It has the folder and the counts; provisional results are waited out as elsewhere."""
    Path("in.csv").write_text(f"{JOBS}user-1,review,c\n")
    options = ("--json", "--until", "final", "--timeout", "0.3s", "--save-images", "pictures")
    answer = command("batch", "in.csv", "--out", "out.csv", *options)
    assert answer.code == 3
    saved = len(list(pictures.iterdir()))
    assert json.loads(answer.out)["images"] == {"folder": "pictures", "saved": saved, "jobs_without_all": 0}
    assert [row["images"] for row in rows("out.csv") if row["note"] == "c"] == [""]


def test_a_disk_without_room_for_pictures(command: Command, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The outcome of the job stays; row, summary and exit code tell, and `--resume` gets the pictures."""

    def sync(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    Path("in.csv").write_text(JOBS)
    with monkeypatch.context() as full:
        full.setattr(os, "fsync", sync)
        answer = command("batch", "in.csv", "--out", "out.jsonl", "--save-images", "pictures")
    assert answer.code == 4
    assert "0 pictures in pictures; pictures of 2 jobs are missing\n" in answer.out
    assert "to go on: smilejobs batch" in answer.err
    assert list(pictures.iterdir()) == []
    assert outcomes("out.jsonl") == {"a": "approved", "b": "rejected"}
    for row in rows("out.jsonl"):
        assert (row["outcome"], row["error"], row["images"], row["images_error"]) == ("complete", None, 0, "disk")
        assert row["images_error_text"].startswith(
            "selfie_image: the file could not be written: No space left on device"
        )
    again = command("batch", "in.csv", "--out", "out.jsonl", "--save-images", "pictures", "--resume")
    assert again.code == 0
    assert "to go on" not in again.err
    assert sum(row["images"] for row in rows("out.jsonl")) == len(list(pictures.iterdir())) > 0


def test_resuming_finds_the_pictures_of_a_row_that_was_not_written(command: Command, pictures: Path) -> None:
    """They are counted, and neither fetched again nor touched; so are those of a job that comes twice."""
    Path("in.csv").write_text(f"{JOBS}user-1,approved,again\n")
    options = ("batch", "in.csv", "--out", "out.jsonl", "--save-images", "pictures")
    assert command(*options).code == 0
    first = {row["note"]: row["images"] for row in rows("out.jsonl")}
    assert first["a"] == first["again"] > 0
    files = {path.name: path.stat() for path in pictures.iterdir()}
    assert len(files) == first["a"] + first["b"]
    Path("out.jsonl").write_bytes(Path("out.jsonl").read_bytes()[:-1])
    answer = command(*options, "--resume")
    assert answer.code == 0
    assert {row["note"]: row["images"] for row in rows("out.jsonl")} == first
    assert {path.name: path.stat().st_mtime_ns for path in pictures.iterdir()} == {
        name: was.st_mtime_ns for name, was in files.items()
    }


def test_pictures_after_a_run_without(command: Command, sandbox: Sandbox, pictures: Path) -> None:
    """Complete rows are asked for again, once; and no more where pictures are not wanted."""
    ref = JobRef("user-1", "approved")
    Path("in.csv").write_text("user_id,job_id,note\nuser-1,approved,a\n")
    options = ("batch", "in.csv", "--out", "out.csv", "--resume")
    counts = [sandbox.polls(ref)]
    for more in ((), ("--save-images", "pictures"), ("--save-images", "pictures"), ()):
        assert command(*options, *more).code == 0
        counts.append(sandbox.polls(ref))
    assert [count - counts[0] for count in counts] == [0, 1, 2, 2, 2]
    assert len(list(pictures.iterdir())) == int(rows("out.csv")[0]["images"]) > 0


def test_a_folder_that_cannot_be_written_to(command: Command, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said before anything is asked."""
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK and real(path, mode))  # root may always
    Path("in.csv").write_text(JOBS)
    answer = command("batch", "in.csv", "--out", "out.csv", "--save-images", "pictures")
    assert (answer.code, answer.out) == (2, "")
    assert "'pictures' is not writable" in answer.err
    assert not Path("out.csv").exists()


@pytest.mark.slow
@pytest.mark.sample
def test_a_second_run_is_refused_and_a_killed_one_is_gone_on_with(
    command: Command, base_url: str, pictures: Path, tmp_path: Path
) -> None:
    """The lock is the process's: no kill leaves it behind. Nothing is half-written, and no picture is lost."""
    Path("in.csv").write_text(f"{JOBS}user-1,running,c\n")
    options = ("batch", "in.csv", "--out", "out.csv", "--save-images", "pictures", "--resume")
    with subprocess.Popen(
        [sys.executable, "-c", "import smilejobs.cli; smilejobs.cli.main()", *options],
        cwd=tmp_path,
        env={**os.environ, **ENVIRONMENT, "SMILE_BASE_URL": base_url},
        stderr=subprocess.DEVNULL,
    ) as first:
        wait_until(lambda: Path("out.csv").exists() and len(rows("out.csv")) == 2)
        second = command(*options)
        before = Path("out.csv").read_bytes()
        first.kill()
    assert (second.code, second.out) == (2, "")
    assert "out.csv is being written by another run" in second.err
    assert before == Path("out.csv").read_bytes()
    third = command(*options, "--timeout", "0.3s")
    assert third.code == 3
    assert outcomes("out.csv") == {"a": "approved", "b": "rejected", "c": "pending"}
    assert sum(int(row["images"] or 0) for row in rows("out.csv")) == len(list(pictures.iterdir())) > 0


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("1.5m", 90), ("10m", 600), (" 2h ", 7200), ("1d", 86_400)]
)
def test_durations(text: str, seconds: float) -> None:
    """A number and a unit."""
    assert parse_duration(text, "--timeout") == seconds


@pytest.mark.parametrize("text", ["", "m", "-1", "1 week", "1e3", "nan", "inf", "10m30s"])
def test_what_is_no_duration(text: str) -> None:
    """It is refused with an example."""
    with pytest.raises(ValueError, match="--timeout must be a number and a unit, for example 90s"):
        parse_duration(text, "--timeout")


# --- Files that are wrong, or go away


def test_results_that_go_away(command: Command, sandbox: Sandbox) -> None:
    """It is said, with exit code 4, and nobody is told of rows that are not there."""
    Path("in.csv").write_text(f"{JOBS}user-1,running,c\n")
    out = Path("out.csv").absolute()

    def remove_when_written() -> None:
        wait_until(lambda: out.exists() and b"rejected" in out.read_bytes())
        out.unlink()

    thread = threading.Thread(target=remove_when_written)
    thread.start()
    answer = command("batch", "in.csv", "--out", "out.csv", "--report", "out.html")
    thread.join()
    assert (answer.code, answer.out) == (4, "")
    assert (
        "smilejobs: the results are lost: out.csv was removed while the batch was running; run it again" in answer.err
    )
    assert "to go on" not in answer.err
    assert "3 rows" in Path("out.html").read_text()
    assert not out.exists()


@pytest.mark.skipif(os.name == "nt", reason="files have no mode there")
def test_nobody_else_may_read_what_is_written(command: Command, pictures: Path) -> None:
    """Results, report and pictures, whatever the umask."""
    Path("in.csv").write_text(JOBS)
    before = os.umask(0)
    try:
        options = ("--history", "--personal", "--report", "out.html", "--save-images", "pictures")
        assert command("batch", "in.csv", "--out", "out.csv", *options).code == 0
    finally:
        os.umask(before)
    written = [Path("out.csv"), Path("out.html"), *pictures.iterdir()]
    assert len(written) > 2
    assert {path.stat().st_mode & 0o777 for path in written} == {0o600}


def test_names_of_files_do_not_steer_the_terminal(command: Command) -> None:
    """Nor do the errors of rows."""
    name = "in\x1b[2J.csv"
    Path(name).write_text("user_id,job_id\n,x\n")
    answer = command("batch", name, "--out", "o\x1b[2Jut.csv")
    assert answer.code == 4
    assert "in?[2J.csv:2: user_id must not be empty\n" in answer.err
    assert answer.out == "1 row in o?[2Jut.csv: 1 invalid\n"
    assert "\x1b" not in answer.err


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("user_id,job_id\n".encode("utf-16"), "in.csv is in UTF-16; save it as UTF-8"),
        (b"", "in.csv is empty"),
        (b"PK\x03\x04", "in.csv is an Excel workbook or another zip archive"),
    ],
)
def test_an_input_of_another_kind(command: Command, data: bytes, words: str) -> None:
    """It is named, with what was seen, from a file and from standard input."""
    Path("in.csv").write_bytes(data)
    for source in ("in.csv", "-"):
        answer = command("batch", source, "--out", "out.csv", stdin=data)
        assert (answer.code, answer.out) == (2, "")
        assert answer.err.startswith(f"smilejobs: {words.replace('in.csv', source)}")
        assert not Path("out.csv").exists()


def test_a_report_of_text_that_is_no_utf8(command: Command) -> None:
    """A name of the input that cannot be encoded is escaped."""
    name = os.fsdecode(b"in\xff.csv")
    Path(name).write_text(JOBS)
    answer = command("batch", name, "--out", "out.csv", "--report", "out.html")
    assert answer.code == 0
    assert "in\\udcff.csv" in Path("out.html").read_text()


# --- The display, under the virtual clock


def progress(**changes: Any) -> Progress:
    values = {
        "pending": 3,
        "done": 0,
        "failed": 0,
        "polls": 0,
        "throttled": False,
        "polls_per_second": 49.7,
        "eta": None,
    }
    return Progress(**{**values, **changes})


def tally(total: int | None, endings: Iterable[Ending], earlier: int = 0) -> Tally:
    made = Tally(name="in.csv", total=total)
    for index, ending in enumerate(endings):
        verdict = "approved" if ending is Ending.COMPLETE else None
        made.add(
            RowRecord(index=index, line=index + 2, outcome=ending, verdict=verdict, error="E", error_text="[red]x")
        )
    made.earlier = earlier
    return made


def console(*, terminal: bool) -> Console:
    kind = "xterm" if terminal else "dumb"
    return Console(
        file=io.StringIO(),
        force_terminal=terminal,
        width=80,
        markup=False,
        soft_wrap=True,
        color_system=None,
        _environ={"TERM": kind},
    )


def printed(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.anyio
async def test_lines_where_there_is_no_terminal() -> None:
    """One every ten seconds, with what is known of the end."""
    out = console(terminal=False)
    made = tally(1000, [Ending.COMPLETE] * 100, earlier=50)
    with View(out, made, quiet=False) as shown:
        for _ in range(25):
            await anyio.sleep(1)
            shown.on_progress(progress(throttled=True))
    assert printed(out).splitlines() == [
        f"100 of 1,000 rows, 50 polls/s, 3 pending, {left} left, throttled: the API cannot keep up, 100 approved"
        for left in ("0:18", "3:18", "6:18")
    ]


@pytest.mark.anyio
async def test_an_input_of_unknown_size_has_no_end() -> None:
    """Nor has one of which nothing is done yet."""
    for made in (tally(None, [Ending.PENDING]), tally(100_000, [])):
        out = console(terminal=False)
        with View(out, made, quiet=False) as shown:
            shown.on_progress(progress())
        assert "left" not in printed(out)


@pytest.mark.anyio
@pytest.mark.parametrize("total", [None, 100_000])
async def test_the_display_in_a_terminal(total: int | None) -> None:
    """A bar, the speed, the counts and the last errors, within 80 columns; nothing is left of it at the end."""
    out = console(terminal=True)
    made = tally(total, [Ending.COMPLETE, *[Ending.FAILED] * 5, Ending.INVALID])
    with View(out, made, quiet=False) as shown:
        await anyio.sleep(10)
        shown.on_progress(progress())
        shown.on_progress(progress(polls_per_second=1.0))
        shown.on_bad_row(BadRow(index=1, line=3, reason="[b]no"))
    text = printed(out)
    assert "7 of 100,000 rows" in text if total else "7 rows" in text
    assert ("39:40:47 left" in text) is bool(total)
    assert "1 approved  5 failed  1 invalid" in text
    assert [f"line {line}: E: [red]x" in text for line in range(3, 8)] == [False, False, True, True, True]
    assert "in.csv:3: [b]no" in text
    assert "1 polls/s" not in text
    assert text.endswith("\x1b[2K") or "\x1b[2K" in text


@pytest.mark.anyio
async def test_pictures_that_are_missing_are_among_the_last_errors() -> None:
    """Though their jobs are complete."""
    out = console(terminal=True)
    made = tally(1, [])
    made.add(
        RowRecord(index=0, line=2, outcome=Ending.COMPLETE, images=1, images_error="store", images_error_text="no")
    )
    with View(out, made, quiet=False) as shown:
        shown.on_progress(progress())
    assert "1 unknown" in printed(out)
    assert "line 2: no" in printed(out)


@pytest.mark.anyio
@pytest.mark.parametrize("quiet", [False, True])
async def test_bad_rows_do_not_flood(quiet: bool) -> None:
    """The first ones are shown, however quiet."""
    out = console(terminal=False)
    with View(out, tally(None, []), quiet=quiet) as shown:
        for index in range(100):
            shown.on_bad_row(BadRow(index=index, line=index + 2, reason="no"))
        shown.on_progress(progress())
    lines = printed(out).splitlines()
    assert lines[:21] == [
        *(f"in.csv:{line}: no" for line in range(2, 22)),
        "further bad rows are only counted; the results file has them all",
    ]
    assert len(lines) == (21 if quiet else 22)
