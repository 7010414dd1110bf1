"""Cells of tables: what spreadsheets and exports add to them, and a guard against what spreadsheets would run."""

import re
from datetime import datetime
from typing import cast
from unicodedata import category

_FORMULA = re.compile("'*[=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
"""The beginning of a cell that a spreadsheet may take for a formula, guarded or not. Source: OWASP, CSV injection."""
_QUOTED = re.compile(r'="(.*)"', re.DOTALL)
"""How a spreadsheet is told to leave digits as they are: ="00123"."""
_UNKNOWN = ("", "null", "none", "nan", "nat", "\\n")
"""What exports of databases and data frames write where there is no value, in small letters."""


def guard(text: str) -> str:
    """Return a text with an apostrophe before it if a spreadsheet could take it for a formula."""
    return f"'{text}" if _FORMULA.match(text) else text


def unguard(text: str) -> str:
    """Return a text without the apostrophe that `guard` has put before it."""
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text


def strip(text: str) -> str:
    """Return a text without white space and invisible characters at its ends, and without ``="..."`` around it."""
    text = _strip(text)
    quoted = _QUOTED.fullmatch(text)
    return text if quoted is None else _strip(quoted[1].replace('""', '"'))


def read_id(value: object, name: str) -> str:
    """Return an id as the API knows it; a whole number is read as its digits.

    Args:
        value: The cell, or the value of JSON.
        name: What the column is called; it opens the error text.

    Raises:
        ValueError: It is missing, or has white space or invisible characters in its middle, as no id has.
    """
    if value is None:
        raise ValueError(f"{name} is missing")
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        return cast("str", value)  # JobRef says what is wrong with it
    text = strip(value)
    for letter in text:
        if _is_blank(letter) or category(letter) == "Cc":
            raise ValueError(f"{name} has a blank or an invisible character (U+{ord(letter):04X}) in its middle")
    return text


def read_instant(value: object, name: str) -> datetime | None:
    """Return an instant; None if it is not known, as in an empty cell, or one of ``NULL`` or ``NaT``.

    Args:
        value: The cell, or the value of JSON: ISO 8601 with a time zone.
        name: What the column is called; it opens the error text.

    Raises:
        ValueError: It names no instant.
    """
    if value is None:
        return None
    text = strip(value) if isinstance(value, str) else "?"
    if text.lower() in _UNKNOWN:
        return None
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        instant = None
    if instant is None or instant.utcoffset() is None:
        raise ValueError(f"{name} must be an instant with its time zone, for example 2026-03-02T10:20:30Z")
    return instant


def _strip(text: str) -> str:
    first, end = 0, len(text)
    while first < end and _is_blank(text[first]):
        first += 1
    while first < end and _is_blank(text[end - 1]):
        end -= 1
    return text[first:end]


def _is_blank(letter: str) -> bool:
    """Say whether a character is white space, or shows nothing, as the zero-width ones and the byte order mark do."""
    return letter.isspace() or category(letter) == "Cf"
