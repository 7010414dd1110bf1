"""The results file: what survives, what is written anew, and what is refused."""

import csv
import io
import json
import os
import tracemalloc
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from attrs import evolve
from hypothesis import given

from smilejobs import JobRef
from smilejobs.batch.cells import guard, unguard
from smilejobs.batch.journal import Journal, ResultsLostError, is_settled
from smilejobs.batch.records import Ending, RowRecord
from smilejobs.batch.rows import Row
from smilejobs.polling.rules import Until
from tests.helpers.leaks import assert_keeps_secrets

unix = pytest.mark.skipif(os.name == "nt", reason="an open file can be neither removed nor replaced there")

NOTES = ('plain, "quoted"\r\n', "two\nlines", "", "\r", '"', "é\u2028", 'a"\r\n"b')
COMPLETE = RowRecord(
    index=0,
    line=2,
    user_id="user-1",
    job_id="job-0",
    submitted_at=datetime(2026, 3, 2, 10, 20, 30, tzinfo=UTC),
    outcome=Ending.COMPLETE,
    is_final=True,
    code="2302",
    verdict="approved",
    result_code="0810",
    result_text='Document "Verified"',
    confidence=99.5,
    smile_job_id="0000000001",
    polls=3,
    seconds=12.345,
)


def record(index: int, **changes: Any) -> RowRecord:
    return evolve(COMPLETE, index=index, line=index + 2, job_id=f"job-{index}", **changes)


def row(index: int, job_id: str | None = None) -> Row:
    return Row(index=index, line=index + 2, ref=JobRef("user-1", job_id or f"job-{index}"), carried={})


def opened(path: Path, *, until: Until = "complete", images: bool = False, **options: Any) -> Journal:
    """A journal of which only what matters is said."""
    keep = partial(is_settled, until=until, images=images)
    others = {"columns": ("note",), "extra": (), "resume": False, "on_record": lambda record: None}
    return Journal(path, keep=keep, **{**others, **options})


def write(path: Path, *records: RowRecord, note: object = "a note", **options: Any) -> list[RowRecord]:
    """Write rows; return those that had been there."""
    kept: list[RowRecord] = []
    with opened(path, on_record=kept.append, **options) as journal:
        for each in records:
            journal.write(each, carried={"note": note})
    return kept


def rows(path: Path) -> list[Mapping[str, Any]]:
    if path.suffix == ".csv":
        found = csv.DictReader(io.StringIO(path.read_bytes().decode(), newline=""))
        return [{unguard(name): unguard(value) for name, value in row.items()} for row in found]
    return [json.loads(line) for line in path.read_bytes().decode().split("\n")[:-1]]


@pytest.fixture(params=[".jsonl", ".ndjson", ".csv"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return tmp_path / f"results{request.param}"


def test_a_row_is_in_the_file_when_write_returns(path: Path) -> None:
    """Nothing waits in a buffer for the end of the process."""
    with opened(path, columns=()) as journal:
        journal.write(record(0))
        assert len(rows(path)) == 1
        journal.write(record(1))
        assert len(rows(path)) == 2


def test_the_columns(path: Path) -> None:
    """Those of the record, then further ones, then those of the input; one of ours replaces one of the input's."""
    carried = {"note": "a", "verdict": "b", "history": "c"}
    with opened(path, columns=tuple(carried), extra=("history", "personal_dob")) as journal:
        journal.write(record(0), extra={"history": [{"x": 1}]}, carried=carried)
    (found,) = rows(path)
    history = found["history"] if isinstance(found["history"], list) else json.loads(found["history"])
    assert history == [{"x": 1}]
    assert (found["note"], found["verdict"], found["job_id"]) == ("a", "approved", "job-0")
    assert list(found)[-2:] == ["personal_dob", "note"] if path.suffix == ".csv" else ["history", "note"]


def test_json_lines_in_and_csv_out(tmp_path: Path) -> None:
    """Rows without common columns are carried in one, as JSON."""
    path = tmp_path / "results.csv"
    with opened(path, columns=None) as journal:
        journal.write(record(0), carried={"note": [1, "é"], "verdict": "b"})
        journal.write(record(1))
    first, second = rows(path)
    assert json.loads(first["carried"]) == {"note": [1, "é"], "verdict": "b"}
    assert second["carried"] == ""
    with opened(tmp_path / "results.jsonl", columns=None) as journal:
        journal.write(record(0), carried={"note": [1, "é"], "verdict": "b"})
    (only,) = rows(tmp_path / "results.jsonl")
    assert (only["note"], only["verdict"]) == ([1, "é"], "approved")


def test_values_in_csv(tmp_path: Path) -> None:
    """As in JSON, but text without quotes, and nothing for null."""
    write(tmp_path / "results.csv", COMPLETE)
    ((found),) = rows(tmp_path / "results.csv")
    assert found["is_final"] == "true"
    assert found["confidence"] == "99.5"
    assert found["submitted_at"] == "2026-03-02T10:20:30+00:00"
    assert found["error"] == ""


PENDING = record(1, outcome=Ending.PENDING, is_final=None, verdict=None, error="WaitTimeoutError", error_text="x")
FAILED = record(2, outcome=Ending.FAILED, is_final=None, verdict=None, error="RequestError")
REFUSED = record(3, outcome=Ending.REFUSED, is_final=None, verdict=None, error="ApiError")
INVALID = RowRecord(index=4, line=6, outcome=Ending.INVALID, error="ValueError")
PROVISIONAL = record(5, is_final=False, verdict="provisional")
UNSURE = record(6, is_final=None)
ALL = (COMPLETE, PENDING, FAILED, REFUSED, INVALID, PROVISIONAL, UNSURE)


@pytest.mark.parametrize(("until", "final"), [("complete", {0, 3, 5, 6}), ("final", {0, 3})])
def test_what_is_final(path: Path, until: Until, final: set[int]) -> None:
    """Complete jobs (final ones, if those are waited for) and refused ones stay, all others are taken out."""
    assert {each.index for each in ALL if is_settled(each, until=until, images=False)} == final
    write(path, *ALL)
    kept = write(path, resume=True, until=until)
    assert kept == [each for each in ALL if each.index in final]
    assert [int(each["index"]) for each in rows(path)] == sorted(final)
    with opened(path, resume=True, until=until) as journal:
        assert {index for index in range(10) if journal.holds(row(index))} == final


SAVED = record(0, images=2)
LACKING = record(1, images=1, images_error="links", images_error_text="x")
WITHOUT = record(2, images=0, images_error="missing", images_error_text="x")
UNSAVED = record(3)


@pytest.mark.parametrize(("images", "final"), [(False, {0, 1, 2, 3}), (True, {0, 2})])
def test_what_is_final_where_pictures_are_wanted(path: Path, images: bool, final: set[int]) -> None:
    """A row whose pictures were not fetched, or may come yet, is asked for again; one that can have no others stays."""
    write(path, SAVED, LACKING, WITHOUT, UNSAVED)
    kept = write(path, resume=True, images=images)
    assert kept == [each for each in (SAVED, LACKING, WITHOUT, UNSAVED) if each.index in final]


def test_what_stays_is_not_touched(path: Path) -> None:
    """Not a byte of it, whatever is carried."""
    for index, note in enumerate(NOTES):
        write(path, record(index), note=note, resume=True)
    before = path.read_bytes()
    write(path, resume=True)
    assert path.read_bytes() == before
    assert [each["note"] for each in rows(path)] == [*NOTES]
    assert {each.name for each in path.parent.iterdir()} == {path.name}


def test_a_kill_at_any_byte(path: Path) -> None:
    """What was whole is kept, what was not is cut off, and going on gives every row once."""
    ends = []
    for index, note in enumerate(NOTES):
        write(path, record(index), note=note, resume=True)
        ends.append(path.stat().st_size)
    whole = path.read_bytes()
    breaks = [at for at, byte in enumerate(whole) if byte in b"\r\n"]
    for length in sorted({0, 1, *ends, *(end - 1 for end in ends), *breaks, *range(0, len(whole), 29)}):
        path.write_bytes(whole[:length])
        kept = write(path, resume=True)
        assert kept == [record(index) for index in range(sum(end <= length for end in ends))]
        write(path, *map(record, range(len(kept), len(NOTES))), resume=True)
        assert [int(each["index"]) for each in rows(path)] == [*range(len(NOTES))]


def test_a_kill_while_it_is_written_anew(path: Path) -> None:
    """The old file is in place until the new one is whole; what a kill has left is in nobody's way."""
    write(path, COMPLETE, PENDING)
    left = path.with_name(f".{path.name}-0123456789abcdef.part")
    left.write_bytes(b"half of")
    assert write(path, PENDING, resume=True) == [COMPLETE]
    assert len(rows(path)) == 2
    assert left.read_bytes() == b"half of"


def test_files_and_links_beside_the_results_stay(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No name that another could choose is written to; one that is guessed is neither followed nor replaced."""
    write(path, COMPLETE, PENDING)
    mine = path.with_name(f"{path.name}.new")
    mine.write_bytes(b"mine")
    target = tmp_path / "target"
    target.write_bytes(b"secret")
    target.chmod(0o600)
    path.with_name(f".{path.name}-00.part").symlink_to(target)
    assert write(path, resume=True) == [COMPLETE]
    assert mine.read_bytes() == b"mine"
    monkeypatch.setattr("smilejobs.files.token_hex", lambda size: "00")
    with pytest.raises(FileExistsError):
        write(path, resume=True)
    assert path.with_name(f".{path.name}-00.part").is_symlink()
    assert (target.read_bytes(), target.stat().st_mode & 0o777) == (b"secret", 0o600)


@unix
def test_only_its_owner_may_read_the_file_from_its_first_byte(path: Path) -> None:
    """It may hold personal data."""
    before = os.umask(0)
    try:
        with opened(path):
            assert path.stat().st_mode & 0o777 == 0o600
    finally:
        os.umask(before)


# --- Results that are gone


def remove(path: Path) -> None:
    path.unlink()


def truncate(path: Path) -> None:
    os.truncate(path, 0)


def replace(path: Path) -> None:
    copy = path.with_name("copy")
    copy.write_bytes(path.read_bytes())
    copy.replace(path)


def append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


@unix
@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (remove, "was removed while the batch was running; run it again with another --out"),
        (truncate, "has 0 bytes in place of the"),
        (replace, "was replaced by another file"),
        (append, "that were written"),
    ],
)
def test_results_that_are_lost(path: Path, harm: Callable[[Path], None], words: str) -> None:
    """It is seen when it is looked for, and at the end at the latest; nothing is written any more."""
    journal = opened(path)
    journal.write(COMPLETE)
    journal.verify()
    harm(path)
    with pytest.raises(ResultsLostError, match=words):
        journal.__exit__(None, None, None)
    path.unlink(missing_ok=True)
    with opened(path) as journal:
        journal.write(COMPLETE)
        harm(path)
        size = path.stat().st_size if path.exists() else None
        with pytest.raises(ResultsLostError, match=words):
            journal.verify()
        journal.write(COMPLETE)
    assert (path.stat().st_size if path.exists() else None) == size


def test_a_link_to_the_results_is_followed(tmp_path: Path) -> None:
    """The file is what counts."""
    link = tmp_path / "results.csv"
    link.symlink_to(tmp_path / "real.csv")
    with opened(link) as journal:
        journal.write(COMPLETE)
        journal.verify()
    assert len(rows(tmp_path / "real.csv")) == 1


# --- Formulas


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@x", "\tx", "\rx", "\nx", "'=x", '=HYPERLINK("http://x","y")'])
def test_no_cell_is_a_formula(tmp_path: Path, text: str) -> None:
    """Whichever column it is in, its name too; it comes back as it was where the batch is resumed, or is an input."""
    path = tmp_path / "results.csv"
    unsafe = evolve(COMPLETE, user_id=text, job_id=text, result_text=text, error_text=text)
    kept: list[RowRecord] = []
    for _ in range(2):
        with opened(path, columns=(text,), resume=True, on_record=kept.append) as journal:
            if not kept:
                journal.write(unsafe, carried={text: text})
    assert kept == [unsafe]
    cells = [cell for row in csv.reader(io.StringIO(path.read_bytes().decode(), newline="")) for cell in row]
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n"))]
    assert cells.count(f"'{text}") == 6
    write(tmp_path / "results.jsonl", unsafe, note=text)
    (found,) = rows(tmp_path / "results.jsonl")
    assert (found["user_id"], found["note"]) == (text, text)


def test_text_that_is_no_utf8(path: Path) -> None:
    """Half a surrogate pair in an answer ends no batch."""
    write(path, record(0, result_text="\ud800"))
    assert rows(path)[0]["result_text"] in ("\ud800", "\\ud800")


# --- Rows that would take all memory


def test_an_index_out_of_all_proportion(path: Path) -> None:
    """It costs no more memory than others."""
    huge = record(10**15)
    tracemalloc.start()
    try:
        write(path, COMPLETE, huge)
        assert write(path, resume=True) == [COMPLETE, huge]
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()
    with opened(path, resume=True) as journal:
        assert [journal.holds(row(index)) for index in (0, 1, 63, 64, 10**9)] == [True, *[False] * 4]
        assert journal.holds(Row(index=10**15, line=2, ref=JobRef("user-1", f"job-{10**15}"), carried={}))


def test_a_row_without_an_end(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is refused: it is none of ours."""
    monkeypatch.setattr("smilejobs.batch.journal._MAX_ROW_BYTES", 10_000)
    write(path, COMPLETE)
    with path.open("ab") as file:
        file.write(b'"' + b"x" * 10_000)
    with pytest.raises(ValueError, match="has a row of more than 10,000 bytes: choose another file"):
        write(path, resume=True)


def test_a_quote_that_is_never_closed_takes_no_time(tmp_path: Path) -> None:
    """Each piece of a row is looked at once."""
    path = tmp_path / "results.csv"
    write(path, COMPLETE)
    with path.open("ab") as file:
        file.write(b'"' + b"x\n" * 1_000_000)
    assert write(path, resume=True) == [COMPLETE]
    assert len(rows(path)) == 1


def test_a_row_that_is_there_twice(path: Path) -> None:
    """The first one stays, however it came to that."""
    write(path, COMPLETE, evolve(COMPLETE, polls=99), record(7))
    assert write(path, resume=True) == [COMPLETE, record(7)]
    assert len(rows(path)) == 2


def without_ages(path: Path) -> None:
    """Make a results file one of an earlier release."""
    ages = {"pending_age", "end_age"}
    old = [{name: value for name, value in row.items() if name not in ages} for row in rows(path)]
    if path.suffix != ".csv":
        path.write_text("".join(f"{json.dumps(row)}\n" for row in old))
        return
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, [*old[0]])
    writer.writeheader()
    writer.writerows({name: guard(value) for name, value in row.items()} for row in old)
    path.write_bytes(text.getvalue().encode())


def test_a_file_of_an_earlier_release_is_resumed(path: Path) -> None:
    """Its rows stay, without the ages that they lack; new ones have them."""
    write(path, COMPLETE, record(1, confidence=-1.5), record(2, outcome=Ending.PENDING), note="=note")
    without_ages(path)
    assert write(path, record(2, pending_age=4.5, end_age=6.25), resume=True) == [COMPLETE, record(1, confidence=-1.5)]
    found = rows(path)
    assert [row["note"] for row in found] == ["=note", "=note", "a note"]
    assert [float(row["end_age"]) if row.get("end_age") else None for row in found] == [None, None, 6.25]
    assert write(path, resume=True)[2] == record(2, pending_age=4.5, end_age=6.25)


def test_the_input_has_changed(path: Path) -> None:
    """A row that is now another job is not taken for one that has been asked for."""
    write(path, record(2))
    with opened(path, resume=True) as journal:
        assert journal.holds(row(2))
        assert not journal.holds(row(1, "another"))
        with pytest.raises(ValueError, match="line 4 of the input is another job than row 2") as raised:
            journal.holds(row(2, "another"))
    assert "another job" in str(raised.value)
    assert "user-1" not in str(raised.value)


def test_files_that_are_not_ours(tmp_path: Path) -> None:
    """They are refused and left alone."""
    with pytest.raises(ValueError, match=r"must end in one of \.jsonl, \.ndjson, \.csv"):
        opened(tmp_path / "results.xlsx", columns=())
    path = tmp_path / "results.csv"
    path.write_text("user_id,job_id\r\nu,j\r\n")
    with pytest.raises(ValueError, match="exists: resume it with --resume"):
        opened(path, columns=())
    with pytest.raises(ValueError, match="is not a results file with the columns of this run"):
        opened(path, columns=(), resume=True)
    assert path.read_bytes() == b"user_id,job_id\r\nu,j\r\n"
    path = tmp_path / "results.jsonl"
    path.write_text('[{"index": 0')
    with pytest.raises(ValueError, match="is not a results file"):
        opened(path, columns=(), resume=True)
    assert path.read_text() == '[{"index": 0'


def test_a_csv_file_that_an_editor_has_changed(tmp_path: Path) -> None:
    """Other ends of lines are no half row, to be cut off."""
    path = tmp_path / "results.csv"
    write(path, COMPLETE, record(1))
    first, second, third, _ = path.read_bytes().split(b"\r\n")
    for data in (b"\n".join((first, second, third, b"")), first + b"\r\n" + second + b"\n" + third):
        path.write_bytes(data)
        with pytest.raises(ValueError, match=r"is not a results file|has changed its ends of lines"):
            write(path, resume=True)
        assert path.read_bytes() == data


BROKEN = ("{", "[]", "{}", "[" * 100_000, "\xff")
WRONG: tuple[dict[str, object], ...] = (
    {"index": -1},
    {"index": None},
    {"index": []},
    {"index": "x"},
    {"outcome": "x"},
    {"submitted_at": "x"},
    {"seconds": {}},
)


@pytest.mark.parametrize("bad", [*BROKEN, *WRONG], ids=lambda bad: str(bad)[:20])
def test_rows_that_are_not_ours(tmp_path: Path, bad: str | dict[str, object]) -> None:
    """A file of other things is no results file."""
    path = tmp_path / "results.jsonl"
    good = dict.fromkeys(rows_of_a_record(path)) | {"index": 0, "outcome": "complete"}
    good["user_id"] = "user-quartz"
    line = bad.encode("latin-1") if isinstance(bad, str) else json.dumps({**good, **bad}).encode()
    path.write_bytes(json.dumps(good).encode() + b"\n" + line + b"\n")
    with pytest.raises(ValueError, match="row 2 of .* is not that of a results file") as caught:
        opened(path, columns=None, resume=True)
    assert_keeps_secrets(caught.value, "user-quartz")
    assert path.read_bytes().endswith(line + b"\n")


def rows_of_a_record(path: Path) -> list[str]:
    with opened(path, columns=None) as journal:
        journal.write(COMPLETE)
    (found,) = rows(path)
    return [*found]


def test_a_csv_row_that_is_not_ours(tmp_path: Path) -> None:
    """Too few fields, or quotes that do not fit."""
    path = tmp_path / "results.csv"
    for line in ("1,2", '"a"b"'):
        path.unlink(missing_ok=True)
        write(path, COMPLETE)
        with path.open("ab") as file:
            file.write(f"{line}\r\n".encode() + b'"\r\n' * (line.count('"') % 2))
        with pytest.raises(ValueError, match="row 2 of .* is not that of a results file"):
            write(path, resume=True)


text = st.text(st.characters(exclude_categories=["Cs"]))


@given(
    notes=st.lists(text, min_size=1, max_size=5), cut=st.integers(0, 10_000), kind=st.sampled_from([".csv", ".jsonl"])
)
def test_any_text_and_any_cut(tmp_path_factory: pytest.TempPathFactory, notes: list[str], cut: int, kind: str) -> None:
    """Rows are carried as they are, and cut where they are not whole."""
    path = tmp_path_factory.mktemp("cut") / f"results{kind}"
    for index, note in enumerate(notes):
        write(path, record(index), note=note, resume=True)
    assert [each["note"] for each in rows(path)] == notes
    path.write_bytes(path.read_bytes()[:cut])
    kept = write(path, resume=True)
    write(path, *(record(index) for index in range(len(kept), len(notes))), resume=True)
    assert [int(each["index"]) for each in rows(path)] == [*range(len(notes))]
