"""The options ``--pace`` and ``--learn``."""

from pathlib import Path

import pytest

from smilejobs import LearnedPace
from smilejobs.cli.paces import read_pace
from smilejobs.sandbox import Sandbox
from tests.helpers.commands import Command


@pytest.fixture(scope="module")
def sandbox() -> Sandbox:
    sandbox = Sandbox()
    sandbox.submit("user-1", "job-1", machine=0)
    sandbox.submit("user-1", "job-2", machine=0, outcome="rejected")
    return sandbox


def write_input() -> None:
    Path("in.csv").write_text(
        "user_id,job_id,submitted_at\nuser-1,job-1,2026-01-01T00:00:00Z\nuser-1,job-2,2026-01-01T00:00:00Z\n"
    )


def test_a_batch_learns_from_one_run_to_the_next(command: Command) -> None:
    """The file is made by the first run, and the second one goes on with it."""
    write_input()
    assert command("batch", "in.csv", "--out", "out.csv", "--learn", "pace.json").code == 0
    assert LearnedPace.load("pace.json").jobs == pytest.approx(2, abs=0.1)
    assert command("batch", "in.csv", "--out", "again.csv", "--learn", "pace.json").code == 0
    assert LearnedPace.load("pace.json").jobs == pytest.approx(4, abs=0.1)


def test_a_pace_is_used_and_stays_as_it_is(command: Command) -> None:
    """By a batch and by a wait for one job."""
    write_input()
    LearnedPace().save("pace.json")
    text = Path("pace.json").read_text()
    assert command("batch", "in.csv", "--out", "out.csv", "--pace", "pace.json").code == 0
    assert command("wait", "user-1", "job-1", "--pace", "pace.json").code == 0
    assert Path("pace.json").read_text() == text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--pace", "none.json"], "No such file or directory: 'none.json'"),
        (["--learn", "nowhere/pace.json"], "No such file or directory: "),
        (["--pace", "in.csv"], "--pace: in.csv: not a learned pace: the JSON cannot be read"),
        (["--learn", "junk.json"], "--learn: junk.json: not a learned pace"),
        (["--learn", "out.csv"], "the input, --out, --report and --learn must be different files"),
        (["--pace", "pace.json", "--learn", "other.json"], "--pace and --learn exclude each other"),
    ],
)
def test_wrong_files(command: Command, arguments: list[str], words: str) -> None:
    """They are refused in one line before the first poll."""
    write_input()
    Path("junk.json").write_text("{}")
    answer = command("batch", "in.csv", "--out", "out.csv", *arguments)
    assert answer.code == 2
    assert words in answer.err
    assert not Path("out.csv").exists()


def test_a_wait_without_its_file(command: Command) -> None:
    """It is a wrong usage too."""
    answer = command("wait", "user-1", "job-1", "--pace", "none.json")
    assert answer.code == 2
    assert "No such file or directory: 'none.json'" in answer.err


def test_a_pace_that_cannot_be_saved(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """The results are there, the error is told, and the exit code says that something went wrong."""

    def save(self: LearnedPace, path: Path) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(LearnedPace, "save", save)
    write_input()
    answer = command("batch", "in.csv", "--out", "out.csv", "--learn", "pace.json")
    assert answer.code == 4
    assert "No space left on device" in answer.err
    assert Path("out.csv").exists()


def test_no_option_is_no_pace() -> None:
    """The default applies then."""
    assert read_pace(None) is None
