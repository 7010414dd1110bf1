"""The results file: one row for each row of the input, appended when its job ends, and kept if the process is killed.

A row is whole once its end of line is written; the next start cuts off an incomplete row. To resume, the file is first
rewritten without the rows that will be polled again, and replaced in one step. So it never holds two rows for one row
of the input.
"""

import csv
import os
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from stat import S_IMODE
from typing import BinaryIO, Self
from zlib import crc32

from attrs import fields
from cattrs import Converter

from smilejobs.batch.formats import CSV, JSONLines
from smilejobs.batch.records import AGES, Ending, RowRecord
from smilejobs.batch.rows import Row
from smilejobs.files import create_private, open_private, temporary_path
from smilejobs.polling.rules import Until

SUFFIXES = (".jsonl", ".ndjson", ".csv")
_OWN = tuple(attribute.name for attribute in fields(RowRecord))
_NAMES = frozenset(_OWN) - frozenset(AGES)
_CARRIED = "carried"
_BLOCK_ROWS = 64
_MAX_ROW_BYTES = 2**27
"""A row holds a history, of a few megabytes, and the carried columns of the input."""


class ResultsLostError(Exception):
    """Another program removed, replaced or changed the results file."""


class Journal:
    """A results file that is open for writing; a context manager.

    The suffix gives the format: ``.csv``, or ``.jsonl`` and ``.ndjson`` for JSON Lines. The columns are those of
    `RowRecord`, then *extra*, then the carried columns of the input. A carried column with the name of an earlier one
    is left out, so that a results file can be an input. In a CSV file made from JSON Lines, whose rows have no common
    columns, the last column, ``carried``, holds the carried columns as JSON.

    Args:
        path: The file.
        columns: The names of the carried columns; None if each row has its own.
        extra: The names of further columns.
        resume: Go on with a file that exists. Its mode and a link to it stay as they are.
        keep: Returns whether a row stays, as by `is_settled`; to resume, all other rows are removed.
        on_record: Called with every row that stays.

    Raises:
        ValueError: The suffix is wrong, the file exists and *resume* is false, or it is not a results file of this
            input.
        OSError: The file cannot be read or written.
    """

    def __init__(
        self,
        path: Path,
        *,
        columns: Sequence[str] | None,
        extra: Sequence[str],
        resume: bool,
        keep: Callable[[RowRecord], bool],
        on_record: Callable[[RowRecord], None],
    ) -> None:
        validate_suffix(path)
        self._path = path
        self._own = (*_OWN, *extra)
        self._nested = columns is None and path.suffix == ".csv"
        carried = [_CARRIED] if columns is None else [name for name in columns if name not in self._own]
        names = (*self._own, *carried)
        self._format: CSV | JSONLines = CSV(names) if path.suffix == ".csv" else JSONLines()
        self._earlier = [CSV([name for name in names if name not in AGES])] if path.suffix == ".csv" else []
        self._jobs: dict[int, array[int]] = {}
        """By index, in blocks of `_BLOCK_ROWS`: a checksum of the ids of the job if its row is settled, else 0.

        A block takes few bytes per row, and a row with a huge index takes one block.
        """
        if path.exists():
            if not resume:
                raise ValueError(f"{path} exists: resume it with --resume, or choose another file")
            self._rewrite(keep, on_record)
        self._file = open(path, "ab", buffering=0, opener=open_private)  # noqa: SIM115  # __exit__ closes it
        self._size = os.fstat(self._file.fileno()).st_size
        self._is_lost = False
        if not self._size:
            self._append(self._format.header)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file, after a last `verify`.

        Raises:
            ResultsLostError: As for `verify`, unless that has raised it already.
        """
        with self._file:
            if not self._is_lost:
                self.verify()

    def verify(self) -> None:
        """Raise `ResultsLostError` unless the path still names the file with the rows that were written.

        After that error, `write` writes nothing.

        Raises:
            ResultsLostError: Another program removed, replaced or changed the file.
            OSError: The state of the file cannot be read.
        """
        ours = os.fstat(self._file.fileno())
        try:
            current = self._path.stat()
        except FileNotFoundError:
            loss = "was removed"
        else:
            if (current.st_dev, current.st_ino) != (ours.st_dev, ours.st_ino):
                loss = "was replaced by another file"
            elif ours.st_size != self._size:
                loss = f"has {ours.st_size:,} bytes in place of the {self._size:,} that were written"
            else:
                return
        self._is_lost = True
        raise ResultsLostError(
            f"the results are lost: {self._path} {loss} while the batch was running; run it again with another --out"
        )

    def holds(self, row: Row) -> bool:
        """Return whether the file holds a settled row for a row of the input.

        Raises:
            ValueError: The settled row is about another job, so the input has changed.
        """
        block, place = divmod(row.index, _BLOCK_ROWS)
        job = self._jobs[block][place] if block in self._jobs else 0
        if job and job != _checksum(row.ref.user_id, row.ref.job_id):
            raise ValueError(
                f"line {row.line} of the input is another job than row {row.index} of {self._path}: resume with the "
                "same input, or choose another file"
            )
        return job != 0

    def write(
        self,
        record: RowRecord,
        *,
        extra: Mapping[str, object] | None = None,
        carried: Mapping[str, object] | None = None,
    ) -> None:
        """Append a row with the values of further columns, and hand it to the operating system.

        Raises:
            OSError: The row cannot be written.
        """
        row: dict[str, object] = {name: getattr(record, name) for name in _OWN}
        row.update(extra or {})
        if self._nested:
            row[_CARRIED] = carried or None
        else:
            row.update((name, value) for name, value in (carried or {}).items() if name not in self._own)
        self._append(self._format.encode(row))

    def _append(self, line: bytes) -> None:
        left = memoryview(b"" if self._is_lost else line)
        while left:
            written = self._file.write(left)
            self._size += written
            left = left[written:]

    def _rewrite(self, keep: Callable[[RowRecord], bool], on_record: Callable[[RowRecord], None]) -> None:
        """Replace the file by one with the settled rows alone."""
        path = self._path.resolve()
        new = temporary_path(path.parent, path.name)
        try:
            with path.open("rb") as old, open(new, "wb", opener=create_private) as rewritten:
                with suppress(AttributeError):  # Windows has no modes
                    os.fchmod(rewritten.fileno(), S_IMODE(os.fstat(old.fileno()).st_mode))
                rewritten.writelines(self._select_settled(old, keep, on_record))
                rewritten.flush()
                os.fsync(rewritten.fileno())
            new.replace(path)
        except FileExistsError:
            raise
        except BaseException:
            new.unlink(missing_ok=True)
            raise

    def _select_settled(
        self, old: BinaryIO, keep: Callable[[RowRecord], bool], on_record: Callable[[RowRecord], None]
    ) -> Iterator[bytes]:
        """Yield the lines of the header and of the settled rows."""
        found = self._recognise(old)
        lines = self._split_lines(old)
        yield self._format.header
        if self._format.header:
            next(lines, None)
        for number, line in enumerate(lines, 1):
            record = _decode(found, line)
            if record is None:
                del line  # crash reporters copy the locals of each frame of a traceback
                raise ValueError(f"row {number} of {self._path} is not that of a results file: choose another file")
            if keep(record) and self._add_settled(record):
                yield line if found is self._format else self._format.encode(found.decode(line))
                on_record(record)

    def _recognise(self, old: BinaryIO) -> CSV | JSONLines:
        """Return the format of a file that exists."""
        for known in (self._format, *self._earlier):
            old.seek(0)
            if known.opening.startswith(old.read(len(known.opening))):
                old.seek(0)
                return known
        raise ValueError(f"{self._path} is not a results file with the columns of this run: choose another file")

    def _split_lines(self, file: BinaryIO) -> Iterator[bytes]:
        pieces: list[bytes] = []
        size = quotes = 0
        while piece := file.readline(_MAX_ROW_BYTES):
            pieces.append(piece)
            size += len(piece)
            quotes += piece.count(b'"')
            if size >= _MAX_ROW_BYTES:
                raise ValueError(f"{self._path} has a row of more than {_MAX_ROW_BYTES:,} bytes: choose another file")
            try:
                whole = self._format.is_whole(piece, quotes)
            except ValueError as error:
                raise ValueError(f"{self._path} cannot be resumed: {error}") from None
            if whole:
                yield b"".join(pieces)
                pieces = []
                size = quotes = 0

    def _add_settled(self, record: RowRecord) -> bool:
        """Remember the job of a settled row; return whether its index is new."""
        block, place = divmod(record.index, _BLOCK_ROWS)
        jobs = self._jobs.setdefault(block, array("I", bytes(array("I").itemsize * _BLOCK_ROWS)))
        if jobs[place]:
            return False
        jobs[place] = _checksum(record.user_id, record.job_id)
        return True


def is_settled(record: RowRecord, *, until: Until, images: bool) -> bool:
    """Return whether ``--resume`` keeps a row, and does not poll its job again.

    It keeps complete jobs (final ones, if *until* is "final") whose pictures are saved or can never be, if *images* are
    wanted; and jobs that the API refuses for good.
    """
    if record.outcome is Ending.COMPLETE:
        return (until == "complete" or record.is_final is True) and not (images and record.lacks_images)
    return record.outcome is Ending.REFUSED


def validate_suffix(path: Path) -> None:
    """Raise ValueError unless the suffix of a results file names its format."""
    if path.suffix not in SUFFIXES:
        raise ValueError(f"the results file must end in one of {', '.join(SUFFIXES)}: {path}")


def _decode(found: CSV | JSONLines, line: bytes) -> RowRecord | None:
    """Return the record of a line; None if the line is not a row of a results file."""
    with suppress(KeyError, TypeError, ValueError, RecursionError, csv.Error):
        return _read_record(found.decode(line))
    return None


def _checksum(user_id: str | None, job_id: str | None) -> int:
    return crc32(f"{user_id}\0{job_id}".encode()) or 1


def _read_text(value: object, _: object = None) -> str:
    if not isinstance(value, (str, int, float)):
        raise TypeError(type(value).__name__)
    return str(value)


_READERS: Mapping[type, Callable[[object, object], object]] = {
    str: _read_text,
    int: lambda value, _: int(_read_text(value)),
    float: lambda value, _: float(_read_text(value)),
    bool: lambda value, _: _read_text(value).lower() == "true",
    datetime: lambda value, _: datetime.fromisoformat(_read_text(value)),
    Ending: lambda value, _: Ending(_read_text(value)),
}
"""By the type of an attribute of `RowRecord`: reads a value of JSON, or a text of CSV."""
_converter = Converter(detailed_validation=False)
for _kind, _reader in _READERS.items():
    _converter.register_structure_hook(_kind, _reader)
    _converter.register_structure_hook(_kind | None, _reader)


def _read_record(row: Mapping[str, object]) -> RowRecord:
    """Return the record of a row.

    Raises:
        KeyError, TypeError, ValueError: It is not a row of a results file.
    """
    if missing := _NAMES - row.keys():
        raise KeyError(*missing)
    record = _converter.structure(
        {name: value for name, value in row.items() if value is not None and value != ""}, RowRecord
    )
    if record.index < 0:
        raise ValueError("index")
    return record
