"""The beginning of an input: what kind of file it is, and what its columns are called."""

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
"""By the first characters, bytes that are not UTF-8 read as surrogates: what is wrong with the file."""


def check_kind(text: str, name: str) -> None:
    """Raise ValueError if the first line of a file shows that the file holds no rows that could be read.

    Args:
        text: The first line that is not blank; empty if there is none.
        name: What the file is called; it opens the error text.
    """
    if not text:
        raise ValueError(f"{name} is empty; {_EXPECTED}")
    for beginning, kind in _KINDS:
        if beginning.match(text):
            raise ValueError(f"{name} {kind}")


def sniff_delimiter(text: str) -> str:
    """Return what separates the columns of a CSV file: the comma, the semicolon or the tab.

    Args:
        text: The line of the header.
    """
    for delimiter in _DELIMITERS:
        found = next(csv.reader([text], delimiter=delimiter), [])
        if set(REQUIRED) <= set(map(read_name, found)):
            return delimiter
    return max(_DELIMITERS, key=text.count)


def read_name(cell: str) -> str:
    """Return the name of a column as it is in the header, without what surrounds it."""
    return unguard(strip(cell))


def check_names(names: Sequence[str], delimiter: str, name: str) -> None:
    """Raise ValueError unless a header names user_id and job_id, and no column twice.

    The text repeats no name that is not a spelling of these: the first line may hold a job, not names.

    Args:
        names: Those of the columns.
        delimiter: What separates them.
        name: What the file is called; it opens the error text.
    """
    missing = [each for each in REQUIRED if each not in names]
    if missing:
        spellings = {_plain(each): each for each in reversed(names)}
        hints = [f"; rename {spellings[_plain(each)]!r} to {each}" for each in missing if _plain(each) in spellings]
        columns = "1 column" if len(names) == 1 else f"{len(names)} columns separated by {_DELIMITERS[delimiter]}"
        raise ValueError(
            f"{name}: no column is named {' or '.join(missing)} in its first line ({columns}); "
            f"{_EXPECTED}{''.join(hints)}"
        )
    if len(set(names)) < len(names):
        raise ValueError(f"{name}: the header names a column twice; rename one of them")


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())
