"""What the values of a batch refuse, and what they show."""

import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from smilejobs import JobRef
from smilejobs.batch import Batch, check
from smilejobs.batch.journal import Journal, is_settled
from smilejobs.batch.records import WORDS, Ending, RowRecord
from smilejobs.batch.rows import Row
from smilejobs.batch.run import Run
from smilejobs.model.codes import Verdict
from smilejobs.testing import Script, complete, pending


@pytest.mark.anyio
@pytest.mark.parametrize("progress", [True, False, None])
async def test_what_is_told_of_progress_must_be_a_function(progress: bool | None) -> None:
    """It is said at once, whether there is a bar or not; nothing is asked."""
    script = Script({})
    async with script.client() as client:
        with pytest.raises(TypeError, match="on_progress must be a function"):
            await check(client, [("u", "j")], progress=progress, on_progress=3)  # type: ignore[arg-type]  # what mypy refuses, users without it pass
    assert script.polls == {}


@pytest.mark.parametrize(
    ("outcomes", "words"),
    [
        ([1], "a Batch is made of Outcomes, not of int"),
        ("ab", "not of str"),
        ([JobRef("u", "j")], "JobRef"),
        (1, "int"),
    ],
)
def test_a_batch_is_made_of_outcomes(outcomes: Any, words: str) -> None:
    """What is none would fail much later, in a frame or a report."""
    with pytest.raises(TypeError, match=words):
        Batch(outcomes)


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_a_library_that_is_asked_for_and_missing(library: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says what to install; the other one is no help."""
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ImportError, match=f": pip install {library}$"):
        Batch([]).frame(library)


@pytest.mark.anyio
async def test_a_run_shows_no_rows(tmp_path: Path) -> None:
    """What it waits for names people."""
    journal = Journal(
        tmp_path / "out.jsonl",
        columns=None,
        extra=(),
        resume=False,
        keep=partial(is_settled, until="complete", images=False),
        on_record=lambda record: None,
    )
    seen: list[str] = []
    async with Script({"job-1": [pending(), complete()]}).client() as client:
        run = Run(
            client=client,
            journal=journal,
            timeout=60,
            until="complete",
            history=False,
            personal=False,
            save_images=None,
            on_record=lambda record: None,
            on_bad_row=lambda row: None,
            on_progress=lambda progress: seen.append(repr(run)),
        )
        with journal:
            await run.wait([Row(index=0, line=2, ref=JobRef("u", "job-1"), carried={"name": "Jane"})], blocking=False)
    assert seen
    assert "Jane" not in "".join(seen)
    assert "Row(" not in "".join(seen)


@pytest.mark.parametrize(
    ("ending", "verdict", "word"),
    [
        (Ending.COMPLETE, "rejected", "rejected"),
        (Ending.COMPLETE, None, "unknown"),
        (Ending.PENDING, "provisional", "pending"),
        (Ending.INVALID, None, "invalid"),
    ],
)
def test_the_word_of_a_record(ending: Ending, verdict: str | None, word: str) -> None:
    """A verdict counts only where the job is complete."""
    assert RowRecord(index=0, outcome=ending, verdict=verdict).word == word


def test_the_words_are_all_verdicts_and_all_other_endings() -> None:
    """Each one once."""
    assert set(WORDS) == {each.value for each in (*Verdict, *Ending)} - {"complete"}
    assert len(set(WORDS)) == len(WORDS)


def test_csv_is_left_alone_by_an_import() -> None:
    """The limit of its fields is the process's: it is lifted by who reads."""
    code = "import csv, smilejobs.batch, smilejobs.batch.journal; print(csv.field_size_limit())"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "131072"
