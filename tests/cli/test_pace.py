"""``smilejobs pace``: from results of a batch to a pace."""

import json
from pathlib import Path

import pytest

from smilejobs import LearnedPace
from tests.batch.test_findings import as_csv, as_json, row, rows
from tests.helpers.commands import Command


def test_it_prints_tables_and_sentences(command: Command) -> None:
    """They fit a terminal of 80 columns, and nothing is written."""
    Path("results.csv").write_text(as_csv(rows()))
    answer = command("pace", "results.csv")
    assert (answer.code, answer.err) == (0, "")
    assert max(map(len, answer.out.splitlines())) <= 80
    for words in ("60 rows: 60 complete", "took at most", "late: 99 %", "Pace()  ", "learned  ", "- By hand, Pace("):
        assert words in answer.out
    assert "?" not in answer.out
    assert [path.name for path in Path().iterdir()] == ["results.csv"]


def test_it_saves_the_pace_and_the_report(command: Command) -> None:
    """From several files; the saved pace is one for ``--pace``, and it may be replaced by a later one."""
    Path("one.csv").write_text(as_csv(rows()))
    Path("two.jsonl").write_text(as_json(rows(40)))
    arguments = ("pace", "one.csv", "two.jsonl", "--save", "pace.json", "--report", "pace.html")
    answer = command(*arguments)
    assert (answer.code, answer.err) == (0, "the learned pace: pace.json\nthe report: pace.html\n")
    assert LearnedPace.load("pace.json").jobs == pytest.approx(100, rel=0.1)
    assert "<svg" in Path("pace.html").read_text()
    assert command(*arguments).code == 0
    for name in ("pace.json", "pace.html"):
        assert "secret" not in Path(name).read_text()


def test_it_prints_json(command: Command) -> None:
    """And nothing else; from standard input too."""
    answer = command("pace", "-", "--json", stdin=as_csv(rows()).encode())
    assert answer.code == 0
    assert json.loads(answer.out)["complete"] == 60


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["none.csv"], "No such file or directory: 'none.csv'"),
        (["old.csv"], "old.csv has no column pending_age and no column end_age"),
        (["results.csv", "bad.csv"], "bad.csv, line 2: end_age is less than pending_age"),
        (["few.csv"], "too few complete jobs of known duration: 1 job of 1 row; at least 10 are needed"),
        (["-"], "standard input is empty"),
        (["results.csv", "./results.csv"], "the results, --save and --report must be different files"),
        (["results.csv", "--report", "results.csv"], "the results, --save and --report must be different files"),
        (["results.csv", "--save", "nowhere/pace.json"], "--save: there is no folder nowhere, or nothing can be"),
        (["results.csv", "--report", "nowhere/pace.html"], "--report: there is no folder nowhere, or nothing can be"),
        (["results.csv", "--save", "old.csv"], "--save would replace another file: old.csv: not a learned pace"),
    ],
)
def test_wrong_files(command: Command, arguments: list[str], words: str) -> None:
    """One line that names the file, exit code 2, and nothing is written."""
    Path("results.csv").write_text(as_csv(rows()))
    Path("old.csv").write_text("user_id,job_id,outcome\nuser-secret,j,complete\n")
    Path("bad.csv").write_text(as_csv([row(end_age=1.0)]))
    Path("few.csv").write_text(as_csv([row()]))
    answer = command("pace", *arguments)
    assert (answer.code, answer.out) == (2, "")
    assert words in answer.err
    assert answer.err.count("\n") == 1
    assert "secret" not in answer.err
    assert len([*Path().iterdir()]) == 4


def test_a_file_that_cannot_be_written(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """The figures are printed, and the exit code is that of an error."""

    def save(self: LearnedPace, path: Path) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(LearnedPace, "save", save)
    Path("results.csv").write_text(as_csv(rows()))
    answer = command("pace", "results.csv", "--save", "pace.json")
    assert answer.code == 4
    assert "60 complete" in answer.out
    assert "No space left on device" in answer.err
