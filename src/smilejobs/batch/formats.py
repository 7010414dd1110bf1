"""The formats of results files: JSON Lines, and CSV."""

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import cast

from smilejobs.batch.cells import guard, unguard
from smilejobs.batch.rows import lift_field_limit


class JSONLines:
    """One JSON object per line; *opening* are the first bytes of every file of this format."""

    header = b""
    opening = b'{"index": '

    def encode(self, row: Mapping[str, object]) -> bytes:
        """Return the line of a row."""
        return json.dumps(row, default=_to_text).encode() + b"\n"

    def decode(self, line: bytes) -> Mapping[str, object]:
        """Return the row of a line.

        Raises:
            TypeError, ValueError, RecursionError: The line is not a JSON object.
        """
        row = json.loads(line)
        if not isinstance(row, dict):
            raise TypeError("not a JSON object")
        return cast("dict[str, object]", row)

    def is_whole(self, piece: bytes, quotes: int) -> bool:
        """Return whether a line with so many quotes is whole; *piece* are its last bytes, up to an end of line."""
        return piece.endswith(b"\n")


class CSV:
    """CSV with CRLF as the end of a line, as in RFC 4180; a single CR or LF is always quoted.

    Texts that a spreadsheet could read as formulas are guarded, see `guard`.
    """

    def __init__(self, names: Sequence[str]) -> None:
        lift_field_limit()
        self._names = names
        self._text = io.StringIO(newline="")
        self._writer = csv.writer(self._text)
        self.header = self.opening = self._encode_line(map(guard, names))

    def encode(self, row: Mapping[str, object]) -> bytes:
        """Return the line of a row."""
        return self._encode_line([_format_cell(row.get(name)) for name in self._names])

    def decode(self, line: bytes) -> Mapping[str, object]:
        """Return the row of a line.

        Raises:
            ValueError, csv.Error: The line is not CSV with these columns.
        """
        (record,) = csv.reader([line.decode()], strict=True)
        return dict(zip(self._names, map(unguard, record), strict=True))

    def is_whole(self, piece: bytes, quotes: int) -> bool:
        """Return whether a line is whole, as for `JSONLines`.

        Raises:
            ValueError: Another program has changed the end of the line.
        """
        if not piece.endswith(b"\n") or quotes % 2:
            return False
        if not piece.endswith(b"\r\n"):
            raise ValueError("another program has changed its ends of lines")
        return True

    def _encode_line(self, cells: Iterable[str]) -> bytes:
        self._text.seek(0)
        self._text.truncate()
        self._writer.writerow(cells)
        return self._text.getvalue().encode(errors="backslashreplace")


def _to_text(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def _format_cell(value: object) -> str:
    if value is None or isinstance(value, str):
        return guard(value or "")
    if isinstance(value, datetime):
        return value.isoformat()
    return json.dumps(value)
