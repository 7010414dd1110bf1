"""The first line of an input: the kind of the file, and the names of its columns."""

import csv
import re
from collections.abc import Sequence

from smilejobs.batch.cells import strip, unguard

REQUIRED = ("user_id", "job_id")
_DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs"}
_EXPECTED = 'expected a CSV header that names user_id and job_id, or JSON Lines: {"user_id": "...", "job_id": "..."}'
_UTF16 = "is in UTF-16; save it as UTF-8 (in Excel: CSV UTF-8)"
_KINDS = (
    (re.compile("\udcff\udcfe|\udcfe\udcff|[^\0]\0|\0[^\0]"), _UTF16),
    (re.compile("PK\x03\x04"), "is an Excel workbook or another zip archive; export it as CSV in UTF-8"),
    (re.compile("\udcd0\udccf\x11\udce0"), "is an Excel workbook; export it as CSV in UTF-8"),
    (re.compile("\x1f\udc8b"), "is compressed; unpack it first, for example with gunzip"),
    (re.compile(r"[^\n]*\0"), f"is not text; {_EXPECTED}"),
    (
        re.compile(r"\[\s*(\{|\]|$)"),
        "begins with '[', a JSON array; write its objects one per line, for example with jq -c '.[]'",
    ),
    (re.compile("<"), f"begins with '<', as HTML and XML do; {_EXPECTED}"),
)
"""By the first characters (bytes that are not UTF-8 are surrogates): the error text for the file."""


def validate_kind(text: str, name: str) -> None:
    """Raise ValueError if the first line of a file shows that the file is neither CSV nor JSON Lines in UTF-8.

    Args:
        text: The first line that is not blank; empty if there is none.
        name: The name of the file, with which the error text begins.
    """
    if not text:
        raise ValueError(f"{name} is empty; {_EXPECTED}")
    for beginning, kind in _KINDS:
        if beginning.match(text):
            raise ValueError(f"{name} {kind}")


def sniff_delimiter(text: str) -> str:
    """Return the delimiter of a CSV header: comma, semicolon or tab."""
    for delimiter in _DELIMITERS:
        found = next(csv.reader([text], delimiter=delimiter), [])
        if set(REQUIRED) <= set(map(read_name, found)):
            return delimiter
    return max(_DELIMITERS, key=text.count)


def read_name(cell: str) -> str:
    """Return the name of a column, without the blanks and guards around it in the header."""
    return unguard(strip(cell))


def validate_names(names: Sequence[str], delimiter: str, name: str) -> None:
    """Raise ValueError unless a header names user_id and job_id, and no column twice.

    The error text begins with the *name* of the file. It repeats only names that resemble user_id or job_id: a file
    without a header begins with a job.
    """
    missing = [each for each in REQUIRED if each not in names]
    if missing:
        similar = {_normalize(each): each for each in reversed(names)}
        hints = [f"; rename {similar[_normalize(each)]!r} to {each}" for each in missing if _normalize(each) in similar]
        columns = "1 column" if len(names) == 1 else f"{len(names)} columns separated by {_DELIMITERS[delimiter]}"
        raise ValueError(
            f"{name}: no column is named {' or '.join(missing)} in its first line ({columns}); "
            f"{_EXPECTED}{''.join(hints)}"
        )
    if len(set(names)) < len(names):
        raise ValueError(f"{name}: the header names a column twice; rename one of them")


def _normalize(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())
