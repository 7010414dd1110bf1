"""Files of a batch that are large, linked to, private, or partly unreadable."""

import csv
import io
import json
import os
import stat
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from smilejobs import JobRef
from smilejobs.batch.journal import Journal, is_settled
from smilejobs.batch.records import Ending, RowRecord
from smilejobs.batch.rows import ENCODING, ERRORS, BadRow, Row, Rows, count_rows

LARGE = "x" * 200_000
"""More characters than the module `csv` reads into a field by default."""
PENDING = RowRecord(index=1, line=3, user_id="u", job_id="2", outcome=Ending.PENDING)


def complete(index: int = 0) -> RowRecord:
    return RowRecord(index=index, line=index + 2, user_id="u", job_id="1", outcome=Ending.COMPLETE, verdict="approved")


def journal(path: Path, *, extra: tuple[str, ...] = (), resume: bool = False) -> Journal:
    keep = partial(is_settled, until="complete", images=False)
    return Journal(path, columns=("note",), extra=extra, resume=resume, keep=keep, on_record=lambda record: None)


def read(text: str | bytes) -> list[Row | BadRow]:
    data = text if isinstance(text, bytes) else text.encode()
    rows = [*Rows(io.TextIOWrapper(io.BytesIO(data), ENCODING, ERRORS, newline=""))]
    assert count_rows(io.TextIOWrapper(io.BytesIO(data), ENCODING, ERRORS, newline="")) == len(rows)
    return rows


@pytest.fixture(autouse=True)
def _default_limit() -> Iterator[None]:
    """It is the process's, so other tests may have lifted it."""
    before = csv.field_size_limit(131_072)
    yield
    csv.field_size_limit(before)


# --- Large cells


def test_a_csv_file_with_a_large_history_is_resumed_and_is_an_input(tmp_path: Path) -> None:
    """What is written can be read."""
    path = tmp_path / "results.csv"
    history = [{"result_text": LARGE, "line": "a\nb"}]
    with journal(path, extra=("history",)) as first:
        first.write(complete(), extra={"history": history}, carried={"note": "two\nlines"})
        first.write(PENDING, carried={"note": LARGE})
    whole = path.read_bytes()
    rows = read(whole)
    assert [type(row) for row in rows] == [Row, Row]
    assert json.loads(str(rows[0].carried["history"])) == history
    assert rows[0].carried["note"] == "two\nlines"
    assert rows[1].carried["note"] == LARGE
    csv.field_size_limit(131_072)
    with journal(path, extra=("history",), resume=True) as second:
        assert second.holds(Row(index=0, line=2, ref=JobRef("u", "1"), carried={}))
    assert path.read_bytes() == b"".join(whole.splitlines(keepends=True)[:3])


@pytest.mark.parametrize(
    "row", [f'u,1,{LARGE},"a\nb"', f'u,1,"a\nb",{LARGE}', f'u,1,"{LARGE}\na\nb",', f'u,1,"a\n\n{LARGE}",c']
)
def test_large_cells_beside_ends_of_lines(row: str) -> None:
    """A large cell is none that was never closed."""
    (found,) = read(f"user_id,job_id,a,b\n{row}\n")
    assert isinstance(found, Row)
    assert LARGE in f"{found.carried['a']}{found.carried['b']}"


def test_a_limit_that_is_higher_stays(tmp_path: Path) -> None:
    """It is the process's, and somebody may need it."""
    csv.field_size_limit(2**31)
    read("user_id,job_id\nu,1\n")
    with journal(tmp_path / "results.csv"):
        assert csv.field_size_limit() == 2**31


# --- Who may read it, and where it is


@pytest.mark.skipif(os.name == "nt", reason="files have no mode there")
@pytest.mark.parametrize("mode", [0o600, 0o640])
def test_to_resume_lets_nobody_else_read_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int) -> None:
    """It may hold personal data, also while it is written anew."""
    path = tmp_path / "results.jsonl"
    with journal(path) as first:
        first.write(complete())
        first.write(PENDING)
    path.chmod(mode)
    modes: set[int] = set()

    def look(record: RowRecord) -> bool:
        modes.update(stat.S_IMODE(each.stat().st_mode) for each in tmp_path.iterdir())
        return record.outcome is Ending.COMPLETE

    def chmod(descriptor: int, mode: int) -> None:
        born.append(stat.S_IMODE(os.fstat(descriptor).st_mode))
        real(descriptor, mode)

    born: list[int] = []
    real = os.fchmod
    monkeypatch.setattr(os, "fchmod", chmod)
    before = os.umask(0o022)
    try:
        with Journal(path, columns=(), extra=(), resume=True, keep=look, on_record=lambda record: None):
            pass
    finally:
        os.umask(before)
    assert born == [0o600]
    assert modes == {mode}
    assert stat.S_IMODE(path.stat().st_mode) == mode
    assert len(path.read_bytes().splitlines()) == 1


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege there")
def test_to_resume_follows_a_link(tmp_path: Path) -> None:
    """The file that it names is written anew, where it is."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    path = tmp_path / "results.csv"
    path.symlink_to(elsewhere / "real.csv")
    with journal(path) as first:
        first.write(complete())
        first.write(PENDING)
    with journal(path, resume=True) as second:
        second.write(PENDING)
    assert path.is_symlink()
    assert [each.name for each in elsewhere.iterdir()] == ["real.csv"]
    assert (elsewhere / "real.csv").read_bytes().count(b"\r\n") == 3


@pytest.mark.parametrize("line", [b"something else\n", b'{"index": 0, "outcome": "complete"}\n'])
def test_a_file_that_is_refused_leaves_nothing_behind(tmp_path: Path, line: bytes) -> None:
    """Nor is it touched."""
    path = tmp_path / "results.jsonl"
    path.write_bytes(line)
    with pytest.raises(ValueError, match="results file"):
        journal(path, resume=True)
    assert [each.name for each in tmp_path.iterdir()] == [path.name]
    assert path.read_bytes() == line


# --- What can be read of a bad row


@pytest.mark.parametrize(
    ("text", "user_id", "job_id", "carried"),
    [
        ("user_id,job_id,submitted_at,note\nu,j,yesterday,n\n", "u", "j", {"note": "n"}),
        ("user_id,job_id,note\n,j,n\n", "", "j", {"note": "n"}),
        (b"user_id,job_id,note,more\nu,j,\xff,m\n", "u", "j", {"more": "m"}),
        (b"user_id,job_id,note\nu,\xff,n\n", "u", None, {"note": "n"}),
        ("user_id,job_id,note\nu,j\n", None, None, {}),
        ('{"user_id": "u", "note": [1]}\n', "u", None, {"note": [1]}),
        ('{"user_id": "u", "job_id": 7.5, "note": null}\n', "u", None, {"note": None}),
        ('{"user_id": "u", "job_id": "j", "\\ud800": 1, "a": "\\ud800", "b": 2}\n', "u", "j", {"b": 2}),
        ("{\n", None, None, {}),
    ],
)
def test_what_can_be_read_of_a_bad_row_is_kept(
    text: str | bytes, user_id: str | None, job_id: str | None, carried: dict[str, Any]
) -> None:
    """Its ids and its other columns; where fields are missing nobody knows which."""
    (row,) = read(text)
    assert isinstance(row, BadRow)
    assert (row.user_id, row.job_id, row.carried) == (user_id, job_id, carried)


def test_rows_show_no_columns_in_their_reprs() -> None:
    """They may be names of people."""
    text = "user_id,job_id,submitted_at,name\nuser-secret,job-secret,,Jane\nuser-secret,job-secret,x,Jane\n"
    good, bad = read(text)
    assert JobRef("user-secret", "job-secret").tag in repr(good)
    for row in (good, bad):
        assert "secret" not in repr(row)
        assert "Jane" not in repr(row)
