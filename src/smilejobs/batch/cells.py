"""Cells of tables: strip what spreadsheets and exports add to them, and guard spreadsheets against formulas."""

import re
from datetime import datetime
from typing import cast
from unicodedata import category

_FORMULA = re.compile("'*[=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
"""The beginning of a cell that a spreadsheet may read as a formula, guarded or not. Source: OWASP, CSV injection."""
_QUOTED = re.compile(r'="(.*)"', re.DOTALL)
"""The guard that keeps a spreadsheet from changing digits: ="00123"."""
_NULLS = ("", "null", "none", "nan", "nat", "\\n")
"""The null values of exports of databases and data frames, in lower case."""


def guard(text: str) -> str:
    """Return a text with an apostrophe before it if a spreadsheet could read it as a formula."""
    return f"'{text}" if _FORMULA.match(text) else text


def unguard(text: str) -> str:
    """Return a text without the apostrophe that `guard` added."""
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text


def strip(text: str) -> str:
    """Return a text without white space and invisible characters at its ends, and without ``="..."`` around it."""
    text = _strip_blanks(text)
    quoted = _QUOTED.fullmatch(text)
    return text if quoted is None else _strip_blanks(quoted[1].replace('""', '"'))


def read_id(value: object, name: str) -> str:
    """Return the id in a cell of CSV or a value of JSON, as the API knows it; a whole number is read as its digits.

    Raises:
        ValueError: The id is missing, or has white space or an invisible character in its middle; the text begins with
            the *name* of the column.
    """
    if value is None:
        raise ValueError(f"{name} is missing")
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        return cast("str", value)  # JobRef refuses it with a text of its own
    text = strip(value)
    for letter in text:
        if _is_blank(letter) or category(letter) == "Cc":
            raise ValueError(f"{name} has a blank or an invisible character (U+{ord(letter):04X}) in its middle")
    return text


def read_instant(value: object, name: str) -> datetime | None:
    """Return the instant in a cell of CSV or a value of JSON; None if it is empty or a null value such as ``NaT``.

    Raises:
        ValueError: The value is not ISO 8601 with a time zone; the text begins with the *name* of the column.
    """
    if value is None:
        return None
    text = strip(value) if isinstance(value, str) else "?"
    if text.lower() in _NULLS:
        return None
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        instant = None
    if instant is None or instant.utcoffset() is None:
        raise ValueError(f"{name} must be an instant with its time zone, for example 2026-03-02T10:20:30Z")
    return instant


def _strip_blanks(text: str) -> str:
    first, end = 0, len(text)
    while first < end and _is_blank(text[first]):
        first += 1
    while first < end and _is_blank(text[end - 1]):
        end -= 1
    return text[first:end]


def _is_blank(letter: str) -> bool:
    """Return whether a character is white space or invisible, such as a zero-width space or the byte order mark."""
    return letter.isspace() or category(letter) == "Cf"
