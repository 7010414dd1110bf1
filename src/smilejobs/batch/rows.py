"""Jobs from a file: CSV or JSON Lines, one row at a time."""

import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from itertools import chain
from typing import NoReturn, TextIO, cast

from attrs import frozen

from smilejobs.model.jobs import JobRef

ENCODING = "utf-8-sig"
"""Of the input: UTF-8, with or without the mark that spreadsheets put in front."""
ERRORS = "surrogateescape"
"""What is not UTF-8 makes its row a bad one, and leaves the others alone."""

_REF = ("user_id", "job_id", "submitted_at")


@frozen(kw_only=True)
class Row:
    """A row that names a job.

    Attributes:
        index: Its position in the input, from 0; bad rows count, blank lines do not.
        line: The line at which it begins, from 1.
        ref: The job.
        carried: Its other columns.
    """

    index: int
    line: int
    ref: JobRef
    carried: Mapping[str, object]


@frozen(kw_only=True)
class BadRow:
    """A row that names no job that could be asked for.

    Attributes:
        index: Its position in the input, from 0.
        line: The line at which it begins, from 1.
        reason: What is wrong with it; nothing of the row is repeated.
    """

    index: int
    line: int
    reason: str


class Rows:
    """The rows of a file, read as they are iterated over, once.

    The first character tells the format: ``{`` begins JSON Lines, anything else the header of a CSV file. A job is
    named by the columns (or keys) ``user_id`` and ``job_id``, and may have ``submitted_at``, in ISO 8601 with its time
    zone. All others are carried along.

    Args:
        stream: Opened as text, with `ENCODING`, `ERRORS` and ``newline=""``.

    Attributes:
        columns: The names of the columns that are carried; None for JSON Lines, where every row may have others.

    Raises:
        ValueError: There is no such header.
    """

    def __init__(self, stream: TextIO) -> None:
        self._lines, self._line, is_json = _begin(stream)
        self._records = None if is_json else _records(self._lines)
        self.columns: tuple[str, ...] | None = None
        if self._records is not None:
            self._header = _header(self._records)
            self.columns = tuple(name for name in self._header if name not in _REF)

    def __iter__(self) -> Iterator[Row | BadRow]:
        found = self._json_rows() if self._records is None else self._csv_rows(self._records)
        for index, (line, row) in enumerate(found):
            try:
                if isinstance(row, ValueError):
                    raise row
                _check_text(row)
                yield Row(index=index, line=line, ref=_ref(row), carried=row)
            except (TypeError, ValueError) as error:
                yield BadRow(index=index, line=line, reason=str(error))

    def _json_rows(self) -> Iterator[tuple[int, dict[str, object] | ValueError]]:
        for line, text in enumerate(self._lines, self._line):
            if not text.isspace():
                yield line, _object(text)

    def _csv_rows(
        self, records: Iterable[tuple[int, list[str] | ValueError]]
    ) -> Iterator[tuple[int, dict[str, object] | ValueError]]:
        for line, record in records:
            if isinstance(record, ValueError):
                row: dict[str, object] | ValueError = record
            elif len(record) != len(self._header):
                row = ValueError(f"the row has {len(record)} fields, the header has {len(self._header)}")
            else:
                row = dict(zip(self._header, record, strict=True))
            yield self._line - 1 + line, row


def count_rows(stream: TextIO) -> int:
    """Return how many rows a file has, bad ones included.

    Args:
        stream: As for `Rows`.
    """
    lines, _, is_json = _begin(stream)
    if is_json:
        return sum(not text.isspace() for text in lines)
    return max(sum(1 for _ in _records(lines)) - 1, 0)


def _begin(stream: TextIO) -> tuple[Iterator[str], int, bool]:
    """Return the lines from the first that is not blank, its number, and whether it is JSON."""
    for number, text in enumerate(stream, 1):
        if not text.isspace():
            return chain((text,), stream), number, text.lstrip().startswith("{")
    return iter(()), 1, False


def _records(lines: Iterable[str]) -> Iterator[tuple[int, list[str] | ValueError]]:
    """Return what CSV calls records, with the line at which each begins; those without a field are left out."""
    reader = csv.reader(lines, strict=True)
    while True:
        line = reader.line_num + 1
        try:
            record = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield line, ValueError(f"the row is not CSV: {error}")
        else:
            if record:
                yield line, record


def _header(records: Iterator[tuple[int, list[str] | ValueError]]) -> list[str]:
    _, record = next(records, (0, []))
    if isinstance(record, ValueError):
        raise record
    names = [name.strip() for name in record]
    if not {"user_id", "job_id"} <= set(names):
        raise ValueError(
            "the input must begin with a CSV header that names user_id and job_id, separated by commas, "
            'or be JSON Lines: {"user_id": "...", "job_id": "..."}'
        )
    _check_text(dict.fromkeys(names))
    if len(set(names)) < len(names):
        raise ValueError("the header of the input names a column twice")
    return names


def _object(text: str) -> dict[str, object] | ValueError:
    try:
        row = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return ValueError("the row is not JSON")
    if not isinstance(row, dict):
        return ValueError("the row is not a JSON object")
    return cast("dict[str, object]", row)


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)


def _check_text(row: Mapping[str, object]) -> None:
    try:
        json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ValueError("it is not UTF-8, or holds half a surrogate pair") from None


def _ref(row: dict[str, object]) -> JobRef:
    """Take the ref out of a row, which keeps what is carried."""
    user_id, job_id, submitted_at = (row.pop(name, None) for name in _REF)
    for name, value in (("user_id", user_id), ("job_id", job_id)):
        if value is None:
            raise ValueError(f"{name} is missing")
    return JobRef(cast("str", user_id), cast("str", job_id), _instant(submitted_at))  # JobRef checks them


def _instant(text: object) -> datetime | None:
    if text is None or text == "":
        return None
    try:
        instant = datetime.fromisoformat(cast("str", text).strip())
    except (AttributeError, ValueError):
        instant = None
    if instant is None or instant.utcoffset() is None:
        raise ValueError("submitted_at must be an instant with its time zone, for example 2026-03-02T10:20:30Z")
    return instant
