"""Jobs from a file: CSV or JSON Lines, one row at a time."""

import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import NoReturn, TextIO, cast

from attrs import field, frozen

from smilejobs.batch.cells import read_id, read_instant, unguard
from smilejobs.batch.header import check_kind, check_names, read_name, sniff_delimiter
from smilejobs.model.jobs import JobRef

ENCODING = "utf-8-sig"
"""Of the input: UTF-8, with or without the mark that spreadsheets put in front."""
ERRORS = "surrogateescape"
"""What is not UTF-8 makes its row a bad one, and leaves the others alone."""

_REF = ("user_id", "job_id", "submitted_at")
_LARGEST = 2**31 - 1
"""What a C long holds on Windows, too."""
_LONGEST_LINE = 2**25
"""Characters. What is large in our own files is a history, of a few megabytes."""
_MOST_FURTHER = 131_072
"""Characters of a row beyond its first line, in lines that are not its last: a quote that is never closed would take
the rest of the file. What is large in our own files is JSON, which has no line ends."""


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
    carried: Mapping[str, object] = field(repr=False)


@frozen(kw_only=True)
class BadRow:
    """A row that names no job that could be asked for.

    Attributes:
        index: Its position in the input, from 0.
        line: The line at which it begins, from 1.
        reason: What is wrong with it; nothing of the row is repeated.
        user_id: What is there in its place, if that can be read.
        job_id: What is there in its place, if that can be read.
        carried: Those of its other columns that can be read.
    """

    index: int
    line: int
    reason: str
    user_id: str | None = field(default=None, repr=False)
    job_id: str | None = field(default=None, repr=False)
    carried: Mapping[str, object] = field(factory=dict[str, object], repr=False)


class Rows:
    """The rows of a file, read as they are iterated over, once.

    The first character tells the format: ``{`` begins JSON Lines, anything else the header of a CSV file, whose columns
    are separated by commas, semicolons or tabs. A job is named by the columns (or keys) ``user_id`` and ``job_id``, and
    may have ``submitted_at``, in ISO 8601 with its time zone. All others are carried along.

    Args:
        stream: Opened as text, with `ENCODING`, `ERRORS` and ``newline=""``.
        name: What the file is called in error texts.

    Attributes:
        columns: The names of the columns that are carried; None for JSON Lines, where every row may have others.

    Raises:
        ValueError: There is no such header; or, while the rows are iterated over, a line is longer than a line may be.
    """

    def __init__(self, stream: TextIO, name: str = "the input") -> None:
        self._lines, self._line, is_json, delimiter = _begin(stream, name)
        self._records = None if is_json else _records(self._lines, delimiter)
        self.columns: tuple[str, ...] | None = None
        if self._records is not None:
            self._header = _header(self._records, delimiter, name)
            self.columns = tuple(name for name in self._header if name not in _REF)

    def __iter__(self) -> Iterator[Row | BadRow]:
        found = self._json_rows() if self._records is None else self._csv_rows(self._records)
        for index, (line, row) in enumerate(found):
            if isinstance(row, ValueError):
                yield BadRow(index=index, line=line, reason=str(row))
                continue
            named = [row.pop(name, None) for name in _REF]
            try:
                _check_text(named, row)
                ref = _ref(*named)
            except (TypeError, ValueError) as error:
                ids = [value if isinstance(value, str) and _is_text(value) else None for value in named[:2]]
                carried = {name: value for name, value in row.items() if _is_text(name, value)}
                yield BadRow(index=index, line=line, reason=str(error), user_id=ids[0], job_id=ids[1], carried=carried)
            else:
                yield Row(index=index, line=line, ref=ref, carried=row)

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
                row = dict(zip(self._header, map(unguard, record), strict=True))
            yield self._line - 1 + line, row


def lift_field_limit() -> None:
    """Let the module `csv` read fields of any size: the history of a user is one, and can have megabytes.

    Its limit, of 131,072 characters, is the process's. So it is lifted by who begins to read, not by an import; and not
    put back, for a reader in another thread would then meet it in the middle of its file.
    """
    csv.field_size_limit(max(csv.field_size_limit(), _LARGEST))


def count_rows(stream: TextIO, name: str = "the input") -> int:
    """Return how many rows a file has, bad ones included.

    Args:
        stream: As for `Rows`.
        name: As for `Rows`.

    Raises:
        ValueError: The file has no rows that could be read, or a line is longer than a line may be.
    """
    lines, _, is_json, delimiter = _begin(stream, name)
    if is_json:
        return sum(not text.isspace() for text in lines)
    return max(sum(1 for _ in _records(lines, delimiter)) - 1, 0)


def _begin(stream: TextIO, name: str) -> tuple[Iterator[str], int, bool, str]:
    """Return the lines from the first that is not blank, its number, whether it is JSON, and the delimiter of CSV."""
    lines = _bounded_lines(stream, name)
    number, text = next(((number, text) for number, text in enumerate(lines, 1) if not text.isspace()), (1, ""))
    beginning = text.lstrip(" \t\r\n")
    check_kind(beginning, name)
    is_json = beginning.startswith("{")
    if not is_json:
        lift_field_limit()
    return chain((text,), lines), number, is_json, "" if is_json else sniff_delimiter(text)


def _bounded_lines(stream: TextIO, name: str) -> Iterator[str]:
    """Yield the lines of a file; an endless one would take all memory."""
    number = 0
    while text := stream.readline(_LONGEST_LINE + 1):
        number += 1
        if len(text) > _LONGEST_LINE:
            raise ValueError(
                f"{name}: line {number} is longer than {_LONGEST_LINE:,} characters; write one row per line"
            )
        yield text


def _records(lines: Iterable[str], delimiter: str) -> Iterator[tuple[int, list[str] | ValueError]]:
    """Return what CSV calls records, with the line at which each begins; those without a field are left out."""
    pieces = _Pieces(lines)
    reader = csv.reader(pieces, strict=True, delimiter=delimiter)
    while True:
        line = reader.line_num + 1
        pieces.begin()
        try:
            record = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield line, ValueError(f"the row is not CSV: {error}")
        else:
            if record:
                yield line, record


class _Pieces:
    """Lines for a CSV reader. A row of several lines, which only quotes can make, has no more of them than it may."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._lines = iter(lines)
        self.begin()

    def begin(self) -> None:
        """Say that the next line begins a row."""
        self._is_first = True
        self._further = 0

    def __iter__(self) -> "_Pieces":
        return self

    def __next__(self) -> str:
        if self._further > _MOST_FURTHER:
            raise csv.Error(f"a quote that opens there is not closed within {_MOST_FURTHER:,} characters")
        line = next(self._lines)
        if not self._is_first:
            self._further += len(line)
        self._is_first = False
        return line


def _header(records: Iterator[tuple[int, list[str] | ValueError]], delimiter: str, name: str) -> list[str]:
    _, record = next(records)
    if isinstance(record, ValueError):
        raise ValueError(f"{name}: {record}")  # noqa: TRY004  # it is about the file
    names = [read_name(cell) for cell in record]
    check_names(names, delimiter, name)
    if not _is_text(*names):
        raise ValueError(f"{name}: the header is not UTF-8; save the file as UTF-8")
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


def _check_text(*values: object) -> None:
    if not _is_text(*values):
        raise ValueError("it is not UTF-8, or holds half a surrogate pair")


def _is_text(*values: object) -> bool:
    """Say whether values of JSON can be written as UTF-8."""
    try:
        json.dumps(values, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _ref(user_id: object, job_id: object, submitted_at: object) -> JobRef:
    return JobRef(read_id(user_id, "user_id"), read_id(job_id, "job_id"), read_instant(submitted_at, "submitted_at"))
