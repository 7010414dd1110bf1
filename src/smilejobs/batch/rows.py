"""Read jobs from a file of CSV or JSON Lines, one row at a time."""

import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import NoReturn, TextIO, cast

from attrs import field, frozen

from smilejobs.batch.cells import read_id, read_instant, unguard
from smilejobs.batch.header import read_name, sniff_delimiter, validate_kind, validate_names
from smilejobs.model.jobs import JobRef

ENCODING = "utf-8-sig"
"""The encoding of inputs: UTF-8, with or without a byte order mark."""
ERRORS = "surrogateescape"
"""The error handler of inputs: bytes that are not UTF-8 make their row a bad one, and no other row."""

_REF = ("user_id", "job_id", "submitted_at")
_FIELD_LIMIT_CHARACTERS = 2**31 - 1
"""The largest limit that fits into a C long on every platform."""
_MAX_LINE_CHARACTERS = 2**25
"""The history in a results file may have a few megabytes, and a results file may be an input."""
_MAX_QUOTED_CHARACTERS = 131_072
"""Of a row of several lines, without its first line and its last one: a quote that is never closed would take the rest
of the file. Large cells of results files are JSON, which has no ends of lines."""


@frozen(kw_only=True)
class Row:
    """A row that names a job.

    Attributes:
        index: The position of the row in the input, from 0; bad rows count, blank lines do not.
        line: The line at which the row begins, from 1.
        ref: The job.
        carried: The other columns of the row.
    """

    index: int
    line: int
    ref: JobRef
    carried: Mapping[str, object] = field(repr=False)


@frozen(kw_only=True)
class BadRow:
    """A row that names no valid job.

    The attributes are those of a `Row`, as far as they can be read, with the texts of the ids in place of the job.

    Attributes:
        reason: What is wrong with the row; it repeats nothing of the row.
    """

    index: int
    line: int
    reason: str
    user_id: str | None = field(default=None, repr=False)
    job_id: str | None = field(default=None, repr=False)
    carried: Mapping[str, object] = field(factory=dict[str, object], repr=False)


class Rows:
    """The rows of a file; they are read while they are iterated over, once.

    The first character tells the format: ``{`` begins JSON Lines, any other one the header of a CSV file, whose columns
    are separated by commas, semicolons or tabs. The columns (or keys) ``user_id`` and ``job_id`` name a job, and
    ``submitted_at``, in ISO 8601 with a time zone, says when it was submitted. All other columns are carried along.

    Args:
        stream: The file, opened as text with `ENCODING`, `ERRORS` and ``newline=""``.
        name: The name of the file in error texts.

    Attributes:
        columns: The names of the columns that are carried; None for JSON Lines, where each row has its own.

    Raises:
        ValueError: There is no such header; or, while rows are iterated over, a line is too long.
    """

    def __init__(self, stream: TextIO, name: str = "the input") -> None:
        self._lines, self._first_line, is_json, delimiter = _open_lines(stream, name)
        self._csv = None if is_json else _parse_csv(self._lines, delimiter)
        self.columns: tuple[str, ...] | None = None
        if self._csv is not None:
            self._header = _read_header(self._csv, delimiter, name)
            self.columns = tuple(name for name in self._header if name not in _REF)

    def __iter__(self) -> Iterator[Row | BadRow]:
        found = self._iterate_json() if self._csv is None else self._iterate_csv(self._csv)
        for index, (line, row) in enumerate(found):
            if isinstance(row, ValueError):
                yield BadRow(index=index, line=line, reason=str(row))
                continue
            ids = [row.pop(name, None) for name in _REF]
            try:
                _require_text(ids, row)
                ref = _parse_ref(*ids)
            except (TypeError, ValueError) as error:
                texts = [value if isinstance(value, str) and _is_text(value) else None for value in ids[:2]]
                carried = {name: value for name, value in row.items() if _is_text(name, value)}
                yield BadRow(
                    index=index, line=line, reason=str(error), user_id=texts[0], job_id=texts[1], carried=carried
                )
            else:
                yield Row(index=index, line=line, ref=ref, carried=row)

    def _iterate_json(self) -> Iterator[tuple[int, dict[str, object] | ValueError]]:
        for line, text in enumerate(self._lines, self._first_line):
            if not text.isspace():
                yield line, _parse_json(text)

    def _iterate_csv(
        self, csv_rows: Iterable[tuple[int, list[str] | ValueError]]
    ) -> Iterator[tuple[int, dict[str, object] | ValueError]]:
        for line, cells in csv_rows:
            if isinstance(cells, ValueError):
                row: dict[str, object] | ValueError = cells
            elif len(cells) != len(self._header):
                row = ValueError(f"the row has {len(cells)} fields, the header has {len(self._header)}")
            else:
                row = dict(zip(self._header, map(unguard, cells), strict=True))
            yield self._first_line - 1 + line, row


def lift_field_limit() -> None:
    """Let the module `csv` read fields of any size: the history of a user may have megabytes in one field.

    The limit, 131,072 characters by default, holds for the whole process. So it is lifted when a file is read, not when
    this module is imported, and it is not restored, because another thread may be reading a file.
    """
    csv.field_size_limit(max(csv.field_size_limit(), _FIELD_LIMIT_CHARACTERS))


def count_rows(stream: TextIO, name: str = "the input") -> int:
    """Return the number of rows of a file, including bad ones; the arguments are those of `Rows`.

    Raises:
        ValueError: The file is neither CSV nor JSON Lines, or a line is too long.
    """
    lines, _, is_json, delimiter = _open_lines(stream, name)
    if is_json:
        return sum(not text.isspace() for text in lines)
    return max(sum(1 for _ in _parse_csv(lines, delimiter)) - 1, 0)


def _open_lines(stream: TextIO, name: str) -> tuple[Iterator[str], int, bool, str]:
    """Return the lines from the first one that is not blank, its number, whether it is JSON, and CSV's delimiter."""
    lines = _read_lines(stream, name)
    number, text = next(((number, text) for number, text in enumerate(lines, 1) if not text.isspace()), (1, ""))
    beginning = text.lstrip(" \t\r\n")
    validate_kind(beginning, name)
    is_json = beginning.startswith("{")
    if not is_json:
        lift_field_limit()
    return chain((text,), lines), number, is_json, "" if is_json else sniff_delimiter(text)


def _read_lines(stream: TextIO, name: str) -> Iterator[str]:
    """Yield the lines of a file, and raise ValueError at one that is too long: it would take all memory."""
    number = 0
    while text := stream.readline(_MAX_LINE_CHARACTERS + 1):
        number += 1
        if len(text) > _MAX_LINE_CHARACTERS:
            raise ValueError(
                f"{name}: line {number} is longer than {_MAX_LINE_CHARACTERS:,} characters; write one row per line"
            )
        yield text


def _parse_csv(lines: Iterable[str], delimiter: str) -> Iterator[tuple[int, list[str] | ValueError]]:
    """Yield the cells of each row, and the line at which it begins; blank lines are skipped."""
    pieces = _RowLines(lines)
    reader = csv.reader(pieces, strict=True, delimiter=delimiter)
    while True:
        line = reader.line_num + 1
        pieces.begin_row()
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield line, ValueError(f"the row is not CSV: {error}")
        else:
            if cells:
                yield line, cells


class _RowLines:
    """The lines for a CSV reader; they end a row of several lines, which only quotes make, that is too long."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._lines = iter(lines)
        self.begin_row()

    def begin_row(self) -> None:
        """Begin a row with the next line."""
        self._is_first = True
        self._characters = 0

    def __iter__(self) -> "_RowLines":
        return self

    def __next__(self) -> str:
        if self._characters > _MAX_QUOTED_CHARACTERS:
            raise csv.Error(f"a quote that opens there is not closed within {_MAX_QUOTED_CHARACTERS:,} characters")
        line = next(self._lines)
        if not self._is_first:
            self._characters += len(line)
        self._is_first = False
        return line


def _read_header(csv_rows: Iterator[tuple[int, list[str] | ValueError]], delimiter: str, name: str) -> list[str]:
    _, cells = next(csv_rows)
    if isinstance(cells, ValueError):
        raise ValueError(f"{name}: {cells}")  # noqa: TRY004  # it is about the file
    names = [read_name(cell) for cell in cells]
    validate_names(names, delimiter, name)
    if not _is_text(*names):
        raise ValueError(f"{name}: the header is not UTF-8; save the file as UTF-8")
    return names


def _parse_json(text: str) -> dict[str, object] | ValueError:
    try:
        row = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return ValueError("the row is not JSON")
    if not isinstance(row, dict):
        return ValueError("the row is not a JSON object")
    return cast("dict[str, object]", row)


def _refuse_constant(constant: str) -> NoReturn:
    raise ValueError(constant)


def _require_text(*values: object) -> None:
    if not _is_text(*values):
        raise ValueError("the row is not UTF-8, or holds half a surrogate pair")


def _is_text(*values: object) -> bool:
    """Return whether values of JSON can be written as UTF-8."""
    try:
        json.dumps(values, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _parse_ref(user_id: object, job_id: object, submitted_at: object) -> JobRef:
    return JobRef(read_id(user_id, "user_id"), read_id(job_id, "job_id"), read_instant(submitted_at, "submitted_at"))
