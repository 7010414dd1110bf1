"""Rows of an input: CSV and JSON Lines, good and bad."""

import csv
import io
import json
from collections.abc import Iterator
from datetime import UTC, datetime

import hypothesis.strategies as st
import pytest
from hypothesis import given

from smilejobs import JobRef
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
        ('{"user_id": "u", "job_id": 7}', "job_id must be a string, not int"),
        ('{"user_id": "u", "job_id": "j", "submitted_at": 7}', "submitted_at must be an instant"),
        ('{"user_id": "u", "job_id": "j", "note": "\\ud800"}', "it is not UTF-8, or holds half a surrogate pair"),
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
        (2, "it is not UTF-8, or holds half a surrogate pair")
    ]
    with pytest.raises(ValueError, match="not UTF-8"):
        Rows(stream(b"user_id,job_id,\xff\n"))


def test_a_quote_that_is_never_closed() -> None:
    """It costs a bounded piece of the file, not the memory of the machine."""
    rows = read("user_id,job_id\n" + '"u,j\n' + "u,j\n" * 100_000)
    assert isinstance(rows[0], BadRow)
    assert "not closed within 131,072 characters" in rows[0].reason
    assert len(rows) > 50_000


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "must begin with a CSV header that names user_id and job_id"),
        ("\n \n", "must begin with a CSV header"),
        ("user_id;job_id\n", "separated by commas"),
        ('[{"user_id": "u"}]', "or be JSON Lines"),
        ("user_id,job_id,a,a\n", "names a column twice"),
        ('user_id,"job_id"x\n', "the row is not CSV"),
    ],
)
def test_a_header_that_will_not_do(text: str, words: str) -> None:
    """It is refused at once, and the text says what is wanted."""
    with pytest.raises(ValueError, match=words):
        Rows(stream(text))


def test_an_empty_file_has_no_rows() -> None:
    """Nothing to count is no error of the count."""
    assert count_rows(stream("")) == 0


texts = st.text(st.characters(exclude_categories=["Cs"]))
ids = texts.filter(lambda text: text and not text.isspace())


@given(rows=st.lists(st.tuples(ids, ids, texts)))
def test_what_a_csv_library_writes_is_read(rows: list[tuple[str, str, str]]) -> None:
    """All text comes back as it was, however it is quoted."""
    out = io.StringIO(newline="")
    csv.writer(out, quoting=csv.QUOTE_ALL).writerows([("user_id", "job_id", "note"), *rows])
    assert [(row.ref.user_id, row.ref.job_id, row.carried["note"]) for row in good(out.getvalue())] == rows


@given(rows=st.lists(st.tuples(ids, ids, st.recursive(texts | st.integers() | st.none(), st.lists))))
def test_what_a_json_library_writes_is_read(rows: list[tuple[str, str, object]]) -> None:
    """All values come back as they were, escaped or not."""
    lines = [json.dumps(dict(zip(("user_id", "job_id", "note"), row, strict=True))) for row in rows]
    if lines:
        assert [(row.ref.user_id, row.ref.job_id, row.carried["note"]) for row in good("\n".join(lines))] == rows


def good(text: str) -> Iterator[Row]:
    for row in Rows(stream(text)):
        assert isinstance(row, Row)
        yield row
