"""Bytes to a JSON object, and the vendor's spellings of texts, booleans and instants.

The work that a body costs is bounded before it is done: its JSON values are counted before they are decoded.

Error texts never hold values: they are personal data. No error keeps the body reachable either: each is raised outside
the ``except`` block, so that it has no ``__context__``.
"""

import math
from datetime import UTC, datetime, timedelta
from json import JSONDecoder

JSONObject = dict[str, object]

MOST_VALUES = 25_000
"""The most JSON values of a body, each of its commas and opening brackets counted as one, those within texts included.

A result has some 50 values (30 fields, 12 actions, the PartnerParams), so this is a history of 500 results with every
field, whose texts hold no commas, or of more with fewer fields. A JSON value takes up to 230 bytes of memory, so this
many take 6 MB at most.
"""
MOST_DEPTH = 200
"""The deepest nesting of objects and lists. The vendor's samples have six levels; Python's stack ends near 1,000."""
MOST_DIGITS = 100
"""The most characters of a number. The longest that are known are epoch milliseconds, of 13 digits."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_SECONDS_DIGITS = 10
_DATE_CHARACTERS = 10
_TOO_DEEP = f"it is nested more than {MOST_DEPTH} levels deep"


class UnreadableError(Exception):
    """A body that cannot be read; the text says why, without values."""


def decode_object(body: bytes) -> JSONObject:
    """Return the JSON object that *body* holds; its values are counted before it is decoded.

    Raises:
        UnreadableError: It holds none, more than `MOST_VALUES` values, numbers of more than `MOST_DIGITS` characters,
            numbers that JSON does not have (``NaN``, ``Infinity``) or that are infinite in Python (``1e999``), or more
            than `MOST_DEPTH` levels.
    """
    openings = body.count(b"[") + body.count(b"{")
    if openings + body.count(b",") > MOST_VALUES:
        raise UnreadableError(f"it holds more than {MOST_VALUES:,} JSON values")
    value: object = None
    why = ""
    try:
        value = _decoder.decode(body.decode("utf-8-sig"))
    except UnreadableError as error:
        why = str(error)
    except UnicodeDecodeError:
        why = "it is not UTF-8"
    except ValueError:
        why = f"it is {'HTML' if body[:512].lstrip().startswith(b'<') else 'not JSON' if body.strip() else 'empty'}"
    except RecursionError:
        why = _TOO_DEEP
    if why:
        raise UnreadableError(why)
    if not isinstance(value, dict):
        raise UnreadableError("it is JSON, but no object")
    if openings > MOST_DEPTH and _is_too_deep(value):
        raise UnreadableError(_TOO_DEEP)
    return value


def decode_text(body: JSONObject, key: str) -> str | None:
    """Return the text (or number, as its digits) under *key*; None if there is none.

    Raises:
        UnreadableError: There is something else.
    """
    value = body.get(key)
    text = read_text(value)
    if text is None and value is not None:
        raise UnreadableError(f"wrong shape at {key}")
    return text


def read_text(value: object) -> str | None:
    """Return a text as it is, and a number as its digits; None for anything else."""
    if isinstance(value, str):
        return value
    return str(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def is_true(value: object) -> bool:
    """Read a boolean the vendor's way: true is JSON ``true`` or the word "true", and nothing else is."""
    return value is True or (isinstance(value, str) and len(value) == len("true") and value.lower() == "true")


def parse_timestamp(value: object) -> datetime | None:
    """Return the instant that a timestamp names, in UTC; None if it names none.

    Read are ISO 8601, also with a space before the offset, and without an offset, which is UTC (two of the vendor's own
    samples of callbacks have such timestamps); and the time since the epoch, a number or its digits: seconds up to ten
    digits, milliseconds beyond. A date without a time names no instant.
    """
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(text, str) or len(text) > MOST_DIGITS:
        return None
    try:
        if text.isascii() and text.isdigit():
            unit = 1 if len(text) <= _EPOCH_SECONDS_DIGITS else 1000
            return _EPOCH + timedelta(seconds=int(text)) / unit
        at = datetime.fromisoformat(text.replace(" +", "+").replace(" -", "-"))
        if at.utcoffset() is None:
            return at.replace(tzinfo=UTC) if len(text) > _DATE_CHARACTERS else None
        return at.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _refuse_constant(_: str) -> None:
    raise UnreadableError("it holds NaN or Infinity, which are not JSON")


def _whole_number(digits: str) -> int:
    _check_length(digits)
    return int(digits)


def _fraction(digits: str) -> float:
    _check_length(digits)
    number = float(digits)
    if math.isinf(number):
        raise UnreadableError("it holds a number that is too large")
    return number


def _check_length(digits: str) -> None:
    if len(digits) > MOST_DIGITS:
        raise UnreadableError(f"it holds a number of more than {MOST_DIGITS} characters")


_decoder = JSONDecoder(parse_constant=_refuse_constant, parse_int=_whole_number, parse_float=_fraction)


def _is_too_deep(value: JSONObject) -> bool:
    """Whether objects and lists are nested more than `MOST_DEPTH` levels deep; *value* is the first level."""
    level: list[object] = [value]
    for _ in range(MOST_DEPTH):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer if isinstance(outer, list) else ())
            if isinstance(inner, (dict, list))
        ]
    return bool(level)
