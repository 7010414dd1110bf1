"""The results file: a row for each row of the input, written as it ends, that survives whatever ends the process.

A row is complete once its end of line is written; what a kill has left behind it is cut off by the next start. To
resume, the file is first written anew without the rows that are to be asked again, and put in place of the old one in
one step: so at no moment does it hold two rows for one row of the input.
"""

import csv
import io
import json
import os
import shutil
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, Protocol, Self, cast
from zlib import crc32

from attrs import fields

from smilejobs.batch.records import Ending, Record
from smilejobs.batch.rows import Row, lift_field_limit
from smilejobs.polling.rules import Until

SUFFIXES = (".jsonl", ".ndjson", ".csv")
_OWN = tuple(attribute.name for attribute in fields(Record))
_CARRIED = "carried"


class _Format(Protocol):
    """How rows become bytes: each one is a line, which may hold quoted ends of lines."""

    header: bytes
    opening: bytes
    """What every such file begins with."""

    def encode(self, row: Mapping[str, object]) -> bytes: ...

    def decode(self, line: bytes) -> Mapping[str, object]: ...

    def is_whole(self, line: bytes) -> bool: ...


class _JSONLines:
    header = b""
    opening = b'{"index": '

    def encode(self, row: Mapping[str, object]) -> bytes:
        return json.dumps(row, default=_word).encode() + b"\n"

    def decode(self, line: bytes) -> Mapping[str, object]:
        row = json.loads(line)
        if not isinstance(row, dict):
            raise TypeError("not an object")
        return cast("dict[str, object]", row)

    def is_whole(self, line: bytes) -> bool:
        return line.endswith(b"\n")


class _CSV:
    """With ends of lines as in RFC 4180; a bare one of either kind is thus always quoted."""

    def __init__(self, names: Sequence[str]) -> None:
        lift_field_limit()
        self._names = names
        self._text = io.StringIO(newline="")
        self._writer = csv.writer(self._text)
        self.header = self.opening = self._line(names)

    def encode(self, row: Mapping[str, object]) -> bytes:
        return self._line([_cell(row.get(name)) for name in self._names])

    def decode(self, line: bytes) -> Mapping[str, object]:
        (record,) = csv.reader([line.decode()], strict=True)
        return dict(zip(self._names, record, strict=True))

    def is_whole(self, line: bytes) -> bool:
        if not line.endswith(b"\n") or line.count(b'"') % 2:
            return False
        if not line.endswith(b"\r\n"):
            raise ValueError("another program has changed its ends of lines")
        return True

    def _line(self, cells: Iterable[str]) -> bytes:
        self._text.seek(0)
        self._text.truncate()
        self._writer.writerow(cells)
        return self._text.getvalue().encode()


class Journal:
    """A results file that is open for writing; a context manager.

    Its format follows its suffix: ``.csv``, or ``.jsonl`` and ``.ndjson`` for JSON Lines. The columns are those of
    `Record`, then *extra*, then those that the input brought along. One that has the name of an earlier one is left
    out, so that a results file can be an input. In a CSV file made from JSON Lines, which have no fixed columns, the
    last column, ``carried``, holds them as JSON.

    Args:
        path: Where to.
        columns: The names of the input's other columns; None if each row has its own.
        extra: The names of further columns.
        resume: Go on with a file that exists. It stays where it is, behind a link, too, and who may read it stays.
        is_settled: Says whether a row has a final outcome; to resume, all others are taken out. See `settles`.
        on_record: Told of every row that stays.

    Raises:
        ValueError: The file is of no such format, exists and is not to be gone on with, or is no results file of this
            input.
        OSError: It cannot be read or written.
    """

    def __init__(
        self,
        path: Path,
        *,
        columns: Sequence[str] | None,
        extra: Sequence[str],
        resume: bool,
        is_settled: Callable[[Record], bool],
        on_record: Callable[[Record], None],
    ) -> None:
        check_suffix(path)
        self._path = path
        self._own = (*_OWN, *extra)
        self._nested = columns is None and path.suffix == ".csv"
        carried = [_CARRIED] if columns is None else [name for name in columns if name not in self._own]
        self._format: _Format = _CSV((*self._own, *carried)) if path.suffix == ".csv" else _JSONLines()
        self._jobs = array("I")
        """By index: a check sum of the ids of the job whose outcome is final; 0 for all others."""
        if path.exists():
            if not resume:
                raise ValueError(f"{path} exists: go on with it by --resume, or choose another file")
            self._keep(is_settled, on_record)
        self._file = path.open("ab")
        if not self._file.tell():
            self._append(self._format.header)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Close the file."""
        self._file.close()

    def holds(self, row: Row) -> bool:
        """Say whether the file holds the final outcome of a row of the input.

        Args:
            row: The row.

        Raises:
            ValueError: It holds that of another job: the input has changed.
        """
        job = self._jobs[row.index] if row.index < len(self._jobs) else 0
        if job and job != _checksum(row.ref.user_id, row.ref.job_id):
            raise ValueError(
                f"line {row.line} of the input is another job than row {row.index} of {self._path}: resume with the "
                "input as it was, or choose another file"
            )
        return job != 0

    def write(
        self,
        record: Record,
        *,
        extra: Mapping[str, object] | None = None,
        carried: Mapping[str, object] | None = None,
    ) -> None:
        """Append a row; it is the system's when this returns.

        Args:
            record: The row.
            extra: Further columns.
            carried: What the input brought along.

        Raises:
            OSError: It cannot be written.
        """
        row: dict[str, object] = {name: getattr(record, name) for name in _OWN}
        row.update(extra or {})
        if self._nested:
            row[_CARRIED] = carried or None
        else:
            row.update((name, value) for name, value in (carried or {}).items() if name not in self._own)
        self._append(self._format.encode(row))

    def _append(self, line: bytes) -> None:
        self._file.write(line)
        self._file.flush()

    def _keep(self, is_settled: Callable[[Record], bool], on_record: Callable[[Record], None]) -> None:
        """Write the file anew, with nothing but what is final."""
        path = self._path.resolve()
        new = path.with_name(f"{path.name}.new")
        try:
            with path.open("rb") as old, open(new, "wb", opener=_open_privately) as kept:
                shutil.copymode(path, new)
                kept.writelines(self._settled(old, is_settled, on_record))
                kept.flush()
                os.fsync(kept.fileno())
            new.replace(path)
        except BaseException:
            new.unlink(missing_ok=True)
            raise

    def _settled(
        self, old: BinaryIO, is_settled: Callable[[Record], bool], on_record: Callable[[Record], None]
    ) -> Iterator[bytes]:
        """Yield the header, and the rows that stay."""
        opening = old.read(len(self._format.opening))
        if not self._format.opening.startswith(opening):
            raise ValueError(f"{self._path} is no results file with the columns of this run: choose another file")
        old.seek(0)
        lines = self._whole_lines(old)
        yield self._format.header
        if self._format.header:
            next(lines, None)
        for number, line in enumerate(lines, 1):
            record = self._record(line, number)
            if is_settled(record) and self._settle(record):
                yield line
                on_record(record)

    def _whole_lines(self, file: Iterable[bytes]) -> Iterator[bytes]:
        line = b""
        for piece in file:
            line += piece
            try:
                whole = self._format.is_whole(line)
            except ValueError as error:
                raise ValueError(f"{self._path} cannot be gone on with: {error}") from None
            if whole:
                yield line
                line = b""

    def _record(self, line: bytes, number: int) -> Record:
        try:
            return _revived(self._format.decode(line))
        except (KeyError, TypeError, ValueError, RecursionError, csv.Error):
            raise ValueError(f"row {number} of {self._path} is not that of a results file: choose another") from None

    def _settle(self, record: Record) -> bool:
        """Note that the outcome of a row is known; say whether that is news."""
        missing = record.index + 1 - len(self._jobs)
        if missing > 0:
            self._jobs.frombytes(bytes(self._jobs.itemsize * missing))
        if self._jobs[record.index]:
            return False
        self._jobs[record.index] = _checksum(record.user_id, record.job_id)
        return True


def settles(record: Record, *, until: Until, images: bool) -> bool:
    """Say whether a row has a final outcome, which ``--resume`` does not ask for again.

    That is: the job is complete (and final, if that is what is waited for), and its pictures are saved, if they are
    wanted and can be had; or the API has refused it for good.

    Args:
        record: The row.
        until: What the jobs are waited for.
        images: Whether their pictures are wanted.
    """
    if record.outcome is Ending.COMPLETE:
        return (until == "complete" or record.is_final is True) and not (images and record.lacks_images)
    return record.outcome is Ending.REFUSED


def check_suffix(path: Path) -> None:
    """Do nothing if the name of a results file says its format.

    Raises:
        ValueError: It does not.
    """
    if path.suffix not in SUFFIXES:
        raise ValueError(f"the results file must end in one of {', '.join(SUFFIXES)}: {path}")


def _open_privately(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _checksum(user_id: str | None, job_id: str | None) -> int:
    return crc32(f"{user_id}\0{job_id}".encode()) or 1


def _word(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def _cell(value: object) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, datetime):
        return value.isoformat()
    return json.dumps(value)


def _revived(row: Mapping[str, object]) -> Record:
    """Return what a row tells.

    Raises:
        KeyError, TypeError, ValueError: It is no such row.
    """

    def text(name: str) -> str | None:
        value = row[name]
        if value is not None and not isinstance(value, (str, int, float)):
            raise TypeError(name)
        return None if value is None or value == "" else str(value)

    def number(name: str) -> float | None:
        value = text(name)
        return None if value is None else float(value)

    def count(name: str) -> int | None:
        value = text(name)
        return None if value is None else int(value)

    submitted_at, is_final, index = text("submitted_at"), text("is_final"), count("index")
    if index is None or index < 0:
        raise ValueError("index")
    return Record(
        index=index,
        line=count("line"),
        user_id=text("user_id"),
        job_id=text("job_id"),
        submitted_at=None if submitted_at is None else datetime.fromisoformat(submitted_at),
        outcome=Ending(str(row["outcome"])),
        is_final=None if is_final is None else is_final.lower() == "true",
        code=text("code"),
        verdict=text("verdict"),
        result_code=text("result_code"),
        result_text=text("result_text"),
        confidence=number("confidence"),
        smile_job_id=text("smile_job_id"),
        polls=count("polls"),
        seconds=number("seconds"),
        error=text("error"),
        error_text=text("error_text"),
        images=count("images"),
        images_error=text("images_error"),
        images_error_text=text("images_error_text"),
    )
