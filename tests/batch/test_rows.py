"""Rows of an input: CSV and JSON Lines, good and bad."""

import csv
import io
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial

import hypothesis.strategies as st
import pytest
from hypothesis import given

from smilejobs import JobRef
from smilejobs.batch.cells import guard, unguard
from smilejobs.batch.rows import ENCODING, ERRORS, BadRow, Row, Rows, count_rows


def stream(text: str | bytes) -> io.TextIOWrapper:
    data = text if isinstance(text, bytes) else text.encode()
    return io.TextIOWrapper(io.BytesIO(data), ENCODING, ERRORS, newline="")


def read(text: str | bytes) -> list[Row | BadRow]:
    rows = [*Rows(stream(text))]
    assert count_rows(stream(text)) == len(rows)
    assert [row.index for row in rows] == [*range(len(rows))]
    return rows


def reasons(text: str | bytes) -> list[tuple[int, str]]:
    return [(row.line, row.reason) for row in read(text) if isinstance(row, BadRow)]


@pytest.mark.parametrize(
    "text",
    [
        "user_id,job_id,submitted_at,note\nu,j,2026-03-02T10:20:30Z,hello\n",
        "\ufeffuser_id, job_id ,submitted_at,note\r\nu,j, 2026-03-02T11:20:30+01:00 ,hello",
        '{"user_id": "u", "job_id": "j", "submitted_at": "2026-03-02T10:20:30Z", "note": "hello"}\n',
    ],
)
def test_a_row_names_a_job_and_carries_the_rest(text: str) -> None:
    """In either format, which the first character tells."""
    (row,) = read(text)
    assert isinstance(row, Row)
    assert row.ref == JobRef("u", "j")
    assert row.ref.submitted_at == datetime(2026, 3, 2, 10, 20, 30, tzinfo=UTC)
    assert row.carried == {"note": "hello"}


def test_the_columns_that_are_carried() -> None:
    """A CSV file has them in its header; JSON Lines have none in common."""
    assert Rows(stream("note,job_id,user_id,b\n")).columns == ("note", "b")
    assert Rows(stream('{"user_id": "u", "job_id": "j", "note": 1}')).columns is None


def test_rows_are_read_as_they_are_asked_for() -> None:
    """The file is never loaded whole."""

    class Endless(io.RawIOBase):
        def readable(self) -> bool:
            return True

        def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # no other buffer comes
            line = b"user_id,job_id\n"
            buffer[: len(line)] = line
            return len(line)

    rows = iter(Rows(io.TextIOWrapper(io.BufferedReader(Endless()), "utf-8", newline="")))
    assert [next(rows).line for _ in range(3)] == [2, 3, 4]


def test_lines_are_those_of_the_file() -> None:
    """Blank lines count as lines, not as rows; a quoted row may take several."""
    text = '\n\nuser_id,job_id,note\nu,1,"a\nb"\n\nu,2,\n'
    assert [(row.index, row.line) for row in read(text)] == [(0, 4), (1, 7)]
    text = '\n{"user_id": "u", "job_id": "1"}\n\n{"user_id": "u", "job_id": "2"}\n'
    assert [(row.index, row.line) for row in read(text)] == [(0, 2), (1, 4)]


def test_submitted_at_may_be_absent_or_empty() -> None:
    """Then the job has no known age."""
    rows = [*read("user_id,job_id,submitted_at\nu,1,\n"), *read('{"user_id": "u", "job_id": "1"}')]
    assert [row.ref.submitted_at for row in rows if isinstance(row, Row)] == [None, None]


BAD_CSV = """user_id,job_id,submitted_at
u,1,
u,2
,3,
u, ,
u,5,yesterday
u,6,2026-03-02T10:20:30
u,"7"x,
u,8,
"""


def test_bad_rows_of_a_csv_file() -> None:
    """Each is reported with its line and what is wrong, and the rest is read."""
    submitted_at = "submitted_at must be an instant with its time zone, for example 2026-03-02T10:20:30Z"
    assert reasons(BAD_CSV) == [
        (3, "the row has 2 fields, the header has 3"),
        (4, "user_id must not be empty"),
        (5, "job_id must not be empty"),
        (6, submitted_at),
        (7, submitted_at),
        (8, "the row is not CSV: ',' expected after '\"'"),
    ]
    assert [row.ref.job_id for row in read(BAD_CSV) if isinstance(row, Row)] == ["1", "8"]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "the row is not JSON"),
        ('{"user_id": "u", "job_id": "j", "x": NaN}', "the row is not JSON"),
        ('{"user_id": "u", "job_id": "j", "x": ' + "[" * 100_000, "the row is not JSON"),
        ("[]", "the row is not a JSON object"),
        ('{"job_id": "j"}', "user_id is missing"),
        ('{"user_id": "u"}', "job_id is missing"),
        ('{"user_id": "u", "job_id": 7.0}', "job_id must be a string, not float"),
        ('{"user_id": true, "job_id": "j"}', "user_id must be a string, not bool"),
        ('{"user_id": "u", "job_id": "j", "submitted_at": 7}', "submitted_at must be an instant"),
        ('{"user_id": "u", "job_id": "j", "note": "\\ud800"}', "the row is not UTF-8, or holds half a surrogate pair"),
    ],
)
def test_bad_rows_of_json_lines(line: str, reason: str) -> None:
    """Each is reported with its line and what is wrong, and the rest is read."""
    good = '{"user_id": "u", "job_id": "j"}'
    ((number, found),) = reasons(f"{good}\n{line}\n{good}\n")
    assert number == 2
    assert found.startswith(reason)


def test_what_is_not_utf8() -> None:
    """It makes its row a bad one, or the header."""
    assert reasons(b"user_id,job_id,n\nu,j,\xff\nu,j,\xc3\xa9\n") == [
        (2, "the row is not UTF-8, or holds half a surrogate pair")
    ]
    with pytest.raises(ValueError, match="not UTF-8"):
        Rows(stream(b"user_id,job_id,\xff\n"))


def test_a_quote_that_is_never_closed() -> None:
    """It costs a bounded piece of the file, not the memory of the machine."""
    rows = read("user_id,job_id\n" + '"u,j\n' + "u,j\n" * 40_000)
    assert isinstance(rows[0], BadRow)
    assert "not closed within 131,072 characters" in rows[0].reason
    assert len(rows) == 1 + 40_000 - (131_072 // len("u,j\n") + 1)


EXPECTED = 'expected a CSV header that names user_id and job_id, or JSON Lines: {"user_id": "...", "job_id": "..."}'
FIRST = "no column is named {} in its first line ({}); expected a CSV header"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("", f" is empty; {EXPECTED}"),
        ("\n \n", f" is empty; {EXPECTED}"),
        ("u,j\n", f": {FIRST.format('user_id or job_id', '2 columns separated by commas')}"),
        ("user_id|job_id\n", f": {FIRST.format('user_id or job_id', '1 column')}"),
        (
            "UserID;job_id\n",
            f": {FIRST.format('user_id', '2 columns separated by semicolons')}; rename 'UserID' to user_id",
        ),
        ("user_id\tJob Id\n", f": {FIRST.format('job_id', '2 columns separated by tabs')}; rename 'Job Id' to job_id"),
        ('[{"user_id": "u"}]', " begins with '[', a JSON array; write its objects one per line"),
        ("[\n", " begins with '[', a JSON array"),
        ("<!doctype html>\n", f" begins with '<', as HTML and XML do; {EXPECTED}"),
        ("user_id,job_id,a,a\n", ": the header names a column twice; rename one of them"),
        ('user_id,"job_id"x\n', ": the row is not CSV"),
        ("user_id,job_id\n".encode("utf-16"), " is in UTF-16; save it as UTF-8 (in Excel: CSV UTF-8)"),
        ("user_id,job_id\n".encode("utf-16-le"), " is in UTF-16; "),
        (b"\xfe\xff" + "user_id,job_id\n".encode("utf-16-be"), " is in UTF-16; "),
        (b"PK\x03\x04\x14\0", " is an Excel workbook or another zip archive; export it as CSV in UTF-8"),
        (b"\xd0\xcf\x11\xe0\xa1", " is an Excel workbook; export it"),
        (b"\x1f\x8b\x08\0", " is compressed; unpack it first"),
        (b"SQLite format 3\0", f" is not text; {EXPECTED}"),
    ],
)
def test_a_file_that_will_not_do(data: str | bytes, words: str) -> None:
    """It is refused at once: the text names the file, what was seen, and what to do."""
    with pytest.raises(ValueError) as raised:
        Rows(stream(data), "in.csv")
    said, _, hint = f"in.csv{words}".partition("; rename '")
    assert str(raised.value).startswith(said)
    assert str(raised.value).endswith(hint)


def test_the_first_line_of_a_file_without_a_header_is_not_repeated() -> None:
    """It is a job."""
    with pytest.raises(ValueError, match="2 columns") as raised:
        Rows(stream("user-secret,job-secret\n"))
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_columns_may_be_separated_in_three_ways(delimiter: str) -> None:
    """Whichever names the ids tells, whatever else the header holds."""
    rows = ["job_id", '"a;b,c\td"', "user_id"], ["j", '"x;y,z\tw"', "u"]
    (row,) = read("\n".join(delimiter.join(cells) for cells in rows))
    assert isinstance(row, Row)
    assert (row.ref, row.carried) == (JobRef("u", "j"), {"a;b,c\td": "x;y,z\tw"})


def test_a_header_in_brackets_is_no_json() -> None:
    """As long as the ids have their names."""
    assert Rows(stream("[note],user_id,job_id\n")).columns == ("[note]",)


# --- Ids as exports write them


@pytest.mark.parametrize(
    "cell",
    ["x", " x", "x\t", "\u00a0x\u00a0", "\u200bx", "\ufeffx\u2060", "\u3000 x", '="x"', ' =" x "', "\u202ax\u202c"],
)
def test_what_no_id_has_is_stripped(cell: str) -> None:
    """White space and what shows nothing at the ends, and the guard of spreadsheets; in JSON Lines as well."""
    out = io.StringIO(newline="")
    csv.writer(out).writerows([("user_id", " job_id", "submitted_at"), (cell, cell, "")])
    for text in (out.getvalue(), json.dumps({"user_id": cell, "job_id": cell})):
        (row,) = read(text)
        assert isinstance(row, Row)
        assert row.ref == JobRef("x", "x")


@pytest.mark.parametrize(
    ("cell", "letter"), [("x y", "U+0020"), ("x\u00a0y", "U+00A0"), ("x\u200dy", "U+200D"), ("x\x07", "U+0007")]
)
def test_an_id_with_a_blank_in_its_middle_is_a_bad_row(cell: str, letter: str) -> None:
    """It is not polled, and reported with its line."""
    text = f"job_id has a blank or an invisible character ({letter}) in its middle"
    assert reasons(json.dumps({"user_id": "u", "job_id": cell})) == [(1, text)]
    assert reasons(f"user_id,job_id\nu,{cell}\n") == [(2, text)]


def test_quotes_within_the_guard_of_a_spreadsheet() -> None:
    """They are doubled there, and again by CSV."""
    (row,) = read('user_id,job_id\nu,"=""a""""b"""\n')
    assert isinstance(row, Row)
    assert row.ref.job_id == 'a"b'


def test_numbers_are_read_as_their_digits() -> None:
    """In JSON Lines as in CSV; text keeps its zeros."""
    rows = read('{"user_id": 123, "job_id": 456}\n{"user_id": "007", "job_id": 12345678901234567890}\n')
    assert [(row.ref.user_id, row.ref.job_id) for row in rows if isinstance(row, Row)] == [
        ("123", "456"),
        ("007", "12345678901234567890"),
    ]


@pytest.mark.parametrize("text", ["NULL", "\\N", "nan", "NaT", "None", " null ", "\u00a0"])
def test_a_submission_that_is_not_known(text: str) -> None:
    """As exports of databases and data frames say it."""
    for data in (
        f"user_id,job_id,submitted_at\nu,j,{text}\n",
        json.dumps(dict(zip(REF, ("u", "j", text), strict=True))),
    ):
        (row,) = read(data)
        assert isinstance(row, Row)
        assert row.ref.submitted_at is None


REF = ("user_id", "job_id", "submitted_at")


def test_the_guard_of_a_results_file_is_taken_off() -> None:
    """Of ids, of other columns and of their names."""
    (row,) = read("user_id,job_id,'=note\n'+254,''-j,'@home\n")
    assert isinstance(row, Row)
    assert (row.ref, row.carried) == (JobRef("+254", "'-j"), {"=note": "@home"})


@given(text=st.text())
def test_a_guarded_cell_is_no_formula_and_comes_back(text: str) -> None:
    """All text, guarded before or not."""
    guarded = guard(text)
    assert unguard(guarded) == text
    assert not guarded.startswith(("=", "+", "-", "@", "\t", "\r", "\n"))


def test_only_formulas_are_guarded() -> None:
    """An apostrophe before anything else stays as it is."""
    assert [guard(text) for text in ("", "a=1", "'a", "1", "'=1", "=1")] == ["", "a=1", "'a", "1", "''=1", "'=1"]
    assert [unguard(text) for text in ("'a", "''", "a")] == ["'a", "''", "a"]


# --- Lines without an end


def test_an_endless_line_is_refused_with_its_number() -> None:
    """It would take all memory; so it is when rows are counted, and of both formats."""

    class Endless(io.RawIOBase):
        """Some lines, then a line that does not end."""

        def __init__(self, beginning: bytes) -> None:
            self.beginning = beginning

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # no other buffer comes
            piece = self.beginning[: len(buffer)] or b"x" * len(buffer)
            self.beginning = self.beginning[len(buffer) :]
            buffer[: len(piece)] = piece
            return len(piece)

    for beginning in (b'user_id,job_id\n\nu,j\nu,"', b'{}\n\n{}\n{"'):
        for work in (lambda text: [*Rows(text, "in.csv")], lambda text: count_rows(text, "in.csv")):
            raw = io.BufferedReader(Endless(beginning), 2**20)
            with pytest.raises(
                ValueError, match=r"^in\.csv: line 4 is longer than 33,554,432 characters; write one row"
            ):
                work(io.TextIOWrapper(raw, ENCODING, ERRORS, newline=""))


def test_an_empty_file_has_no_rows() -> None:
    """A header alone is one."""
    assert count_rows(stream("user_id,job_id\n")) == 0


texts = st.text(st.characters(exclude_categories=["Cs"]))
ids = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=20).filter(
    lambda text: text[0] not in "='"
)
"""What is left of an id as it is: no blank, nothing invisible, no guard of a spreadsheet."""


@given(rows=st.lists(st.tuples(ids, ids, texts), max_size=5))
def test_what_a_csv_library_writes_is_read(rows: list[tuple[str, str, str]]) -> None:
    """All text comes back as it was, however it is quoted."""
    out = io.StringIO(newline="")
    csv.writer(out, quoting=csv.QUOTE_ALL).writerows([("user_id", "job_id", "note"), *rows])
    assert [(row.ref.user_id, row.ref.job_id, row.carried["note"]) for row in good(out.getvalue())] == [
        (user_id, job_id, unguard(note)) for user_id, job_id, note in rows
    ]


values = st.recursive(texts | st.integers() | st.none(), partial(st.lists, max_size=3), max_leaves=5)


@given(rows=st.lists(st.tuples(ids, ids, values), max_size=5))
def test_what_a_json_library_writes_is_read(rows: list[tuple[str, str, object]]) -> None:
    """All values come back as they were, escaped or not."""
    lines = [json.dumps(dict(zip(("user_id", "job_id", "note"), row, strict=True))) for row in rows]
    if lines:
        assert [(row.ref.user_id, row.ref.job_id, row.carried["note"]) for row in good("\n".join(lines))] == rows


def good(text: str) -> Iterator[Row]:
    for row in Rows(stream(text)):
        assert isinstance(row, Row)
        yield row
