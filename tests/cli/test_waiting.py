"""What ``smilejobs wait`` shows while it waits, and what it says at the end; and the tag of a job."""

import io
from datetime import UTC, datetime, timedelta

import pytest
from rich.console import Console
from rich.spinner import Spinner
from typer.main import get_command

from smilejobs import JobNotFoundError, JobRef, JobStatus, RequestError
from smilejobs.cli.app import app
from smilejobs.cli.display import console, printable
from smilejobs.cli.waiting import WaitView
from smilejobs.events import PollFailed, PollFinished, PollScheduled
from smilejobs.sandbox import Sandbox
from tests.helpers.commands import Command, timed_out

REF = JobRef("user-1", "job-1")


@pytest.fixture(scope="module")
def sandbox() -> Sandbox:
    sandbox = Sandbox()
    sandbox.submit("user-1", "running", machine=3600)
    sandbox.submit("user-1", "approved", machine=0)
    return sandbox


def finished(**answer: object) -> PollFinished:
    status = JobStatus(user_id="u", job_id="j", **answer)  # type: ignore[arg-type]  # what each one is, the test says
    return PollFinished(ref=REF, wait=None, status=status, seconds=0.1, late=0.0)


def failed(error: Exception) -> PollFailed:
    assert isinstance(error, (JobNotFoundError, RequestError))
    return PollFailed(ref=REF, wait=None, error=error, seconds=0.1, late=0.0)


def test_the_line_of_a_wait() -> None:
    """The state by the last poll, how many polls there were, and the time."""
    now = 0.0
    view = WaitView(3660.0, lambda: now)
    lines = [str(view.__rich__())]
    for event in (
        failed(JobNotFoundError("no")),
        PollScheduled(ref=REF, wait=None, polls=1, delay=1.0, error=None),
        failed(RequestError("no answer: \x1b[2J")),
        finished(code="2302"),
        finished(),
    ):
        now += 30.0
        view(event)
        lines.append(str(view.__rich__()))
    assert lines == [
        "no answer yet, 0 polls, 0:00 of 1:01:00",
        "the API knows no such job yet, 1 poll, 0:30 of 1:01:00",
        "the API knows no such job yet, 1 poll, 1:00 of 1:01:00",
        "the last poll failed: no answer: ?[2J, 2 polls, 1:30 of 1:01:00",
        "pending (2302), 3 polls, 2:00 of 1:01:00",
        "pending (no code), 4 polls, 2:30 of 1:01:00",
    ]


def test_a_line_that_is_too_long_is_cut() -> None:
    """The picture stays one line high."""
    out = io.StringIO()
    view = WaitView(60.0)
    view(failed(RequestError("a" * 100)))
    Console(file=out, width=40).print(Spinner("line", text=view))
    assert out.getvalue() == f"- the last poll failed: {'a' * 15}\u2026\n"


def test_the_age_of_the_job_gives_the_pace(command: Command, sandbox: Sandbox) -> None:
    """A job of a day is polled once, where a new one is polled often."""
    long_ago = (datetime.now(UTC) - timedelta(days=1)).isoformat()
    before = sandbox.polls(JobRef("user-1", "running"))
    answer = timed_out(
        lambda timeout: command("wait", "user-1", "running", "--timeout", timeout, "--submitted-at", long_ago)
    )
    assert answer.code == 3
    assert sandbox.polls(JobRef("user-1", "running")) - before <= 6
    answer = command("wait", "user-1", "approved", "--submitted-at", "yesterday")
    assert (answer.code, answer.out) == (2, "")
    assert answer.err == (
        "smilejobs: --submitted-at must be an instant with its time zone, for example 2026-03-02T10:20:30Z\n"
    )


@pytest.mark.parametrize("timeout", ["300", "300s", "5m"])
def test_a_number_alone_is_seconds(command: Command, timeout: str) -> None:
    """As the help says."""
    assert command("wait", "user-1", "approved", "--timeout", timeout).code == 0


def test_a_wait_that_times_out_speaks_no_python(command: Command) -> None:
    """It says what to do in words."""
    answer = timed_out(lambda timeout: command("wait", "user-1", "running", "--timeout", timeout))
    assert "wait again to go on, with the time of its submission if you know it" in answer.err
    for word in ("()", "=", ".last"):
        assert word not in answer.err


def test_the_tag_of_a_job(command: Command) -> None:
    """As it is in logs, without asking anything."""
    answer = command("tag", "user-1", "job-1", SMILE_API_KEY="")
    assert (answer.code, answer.out, answer.err) == (0, f"{REF.tag}\n", "")
    answer = command("tag", "user-1", " ")
    assert (answer.code, answer.out, answer.err) == (2, "", "smilejobs: job_id must not be empty\n")


def test_no_paragraph_of_a_help_is_broken_in_its_middle(command: Command) -> None:
    """Lines end where the terminal does, not where the source does."""
    commands = get_command(app).commands  # type: ignore[attr-defined]  # it is a group
    assert "batch" in commands
    text = command("batch", "--help", COLUMNS="80").out
    paragraph = text[text.index("A row is written") : text.index("may still be saved.")].splitlines()
    assert len(paragraph) == 3
    assert all(len(line) > 60 for line in paragraph[:-1])


def test_what_is_printed_does_not_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """Only ends of lines stay, whoever prints; so it is with what turns the direction of writing."""
    assert printable("a\x1b[31m\tb\u202e\x9b\x7f\n") == "a?[31m?b????"
    console().print("one\x1b]0;t\x07\ntwo")
    console().print()
    assert capsys.readouterr().out == "one?]0;t?\ntwo\n\n"
