"""The results file: a row for each row of the input, written as it ends, that survives whatever ends the process.

A row is complete once its end of line is written; what a kill has left behind it is cut off by the next start. To
resume, the file is first written anew without the rows that are to be asked again, and put in place of the old one in
one step: so at no moment does it hold two rows for one row of the input.
"""

import csv
import os
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from stat import S_IMODE
from types import TracebackType
from typing import BinaryIO, Self
from zlib import crc32

from attrs import fields
from cattrs import Converter

from smilejobs.batch.formats import CSV, Format, JSONLines
from smilejobs.batch.records import Ending, Record
from smilejobs.batch.rows import Row
from smilejobs.files import create_private, open_private, temporary_path
from smilejobs.polling.rules import Until

SUFFIXES = (".jsonl", ".ndjson", ".csv")
_OWN = tuple(attribute.name for attribute in fields(Record))
_NAMES = frozenset(_OWN)
_CARRIED = "carried"
_BLOCK = 64
_LONGEST_ROW = 2**27
"""Bytes. A row of ours has those of a history, of a few megabytes, and of what the input has brought along."""


class ResultsLostError(Exception):
    """The results file is no longer the one that was written."""


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
        self._format: Format = CSV((*self._own, *carried)) if path.suffix == ".csv" else JSONLines()
        self._jobs: dict[int, array[int]] = {}
        """By index, in blocks of `_BLOCK`: a check sum of the ids of the job whose outcome is final; 0 for all others.

        Blocks cost few bytes per row, and a row with an index out of all proportion no more than one of them.
        """
        if path.exists():
            if not resume:
                raise ValueError(f"{path} exists: go on with it by --resume, or choose another file")
            self._keep(is_settled, on_record)
        self._file = open(path, "ab", buffering=0, opener=open_private)  # noqa: SIM115  # it is closed at the exit
        self._size = os.fstat(self._file.fileno()).st_size
        self._is_lost = False
        if not self._size:
            self._append(self._format.header)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the file, after a last `check`.

        Raises:
            ResultsLostError: As for `check`, unless that has been raised already.
        """
        with self._file:
            if not self._is_lost:
                self.check()

    def check(self) -> None:
        """Raise `ResultsLostError` unless the rows that were written are in the file that has the name.

        Nothing is written after that.

        Raises:
            ResultsLostError: The file was removed, replaced, or changed by another program.
            OSError: That cannot be seen.
        """
        ours = os.fstat(self._file.fileno())
        try:
            named = self._path.stat()
        except FileNotFoundError:
            what = "was removed"
        else:
            if (named.st_dev, named.st_ino) != (ours.st_dev, ours.st_ino):
                what = "was replaced by another file"
            elif ours.st_size != self._size:
                what = f"has {ours.st_size:,} bytes in place of the {self._size:,} that were written"
            else:
                return
        self._is_lost = True
        raise ResultsLostError(
            f"the results are lost: {self._path} {what} while the batch was running; run it again with another --out"
        )

    def holds(self, row: Row) -> bool:
        """Say whether the file holds the final outcome of a row of the input.

        Args:
            row: The row.

        Raises:
            ValueError: It holds that of another job: the input has changed.
        """
        block, place = divmod(row.index, _BLOCK)
        job = self._jobs[block][place] if block in self._jobs else 0
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
        left = memoryview(b"" if self._is_lost else line)
        while left:
            written = self._file.write(left)
            self._size += written
            left = left[written:]

    def _keep(self, is_settled: Callable[[Record], bool], on_record: Callable[[Record], None]) -> None:
        """Write the file anew, with nothing but what is final."""
        path = self._path.resolve()
        new = temporary_path(path.parent, path.name)
        try:
            with path.open("rb") as old, open(new, "wb", opener=create_private) as kept:
                with suppress(AttributeError):  # Windows has no such modes
                    os.fchmod(kept.fileno(), S_IMODE(os.fstat(old.fileno()).st_mode))
                kept.writelines(self._settled(old, is_settled, on_record))
                kept.flush()
                os.fsync(kept.fileno())
            new.replace(path)
        except FileExistsError:
            raise
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
            record = self._record(line)
            if record is None:
                del line  # crash reporters copy the locals of each frame of a traceback
                raise ValueError(f"row {number} of {self._path} is not that of a results file: choose another")
            if is_settled(record) and self._settle(record):
                yield line
                on_record(record)

    def _whole_lines(self, file: BinaryIO) -> Iterator[bytes]:
        pieces: list[bytes] = []
        size = quotes = 0
        while piece := file.readline(_LONGEST_ROW):
            pieces.append(piece)
            size += len(piece)
            quotes += piece.count(b'"')
            if size >= _LONGEST_ROW:
                raise ValueError(f"{self._path} has a row of more than {_LONGEST_ROW:,} bytes: choose another file")
            try:
                whole = self._format.is_whole(piece, quotes)
            except ValueError as error:
                raise ValueError(f"{self._path} cannot be gone on with: {error}") from None
            if whole:
                yield b"".join(pieces)
                pieces = []
                size = quotes = 0

    def _record(self, line: bytes) -> Record | None:
        """Return what a row tells; None if it is not that of a results file."""
        with suppress(KeyError, TypeError, ValueError, RecursionError, csv.Error):
            return _read_record(self._format.decode(line))
        return None

    def _settle(self, record: Record) -> bool:
        """Note that the outcome of a row is known; say whether that is news."""
        block, place = divmod(record.index, _BLOCK)
        jobs = self._jobs.setdefault(block, array("I", bytes(array("I").itemsize * _BLOCK)))
        if jobs[place]:
            return False
        jobs[place] = _checksum(record.user_id, record.job_id)
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
"""By the type of an attribute of `Record`: reads a value of JSON, or a text of CSV."""
_converter = Converter(detailed_validation=False)
for _kind, _reader in _READERS.items():
    _converter.register_structure_hook(_kind, _reader)
    _converter.register_structure_hook(_kind | None, _reader)


def _read_record(row: Mapping[str, object]) -> Record:
    """Return the record of a row.

    Raises:
        KeyError, TypeError, ValueError: It is not a row of a results file.
    """
    if missing := _NAMES - row.keys():
        raise KeyError(*missing)
    record = _converter.structure(
        {name: value for name, value in row.items() if value is not None and value != ""}, Record
    )
    if record.index < 0:
        raise ValueError("index")
    return record
