"""Decode bytes to a JSON object, and read the variants of texts, booleans and instants that the vendor sends.

The work for a body is bounded: its JSON values are counted before they are decoded.

Error texts hold no values of the body, because values may be personal data. Errors are raised outside the ``except``
block, so that they have no ``__context__`` that keeps the body reachable.
"""

import math
from codecs import BOM_UTF8
from datetime import UTC, datetime, timedelta
from json import JSONDecoder

JSONObject = dict[str, object]

MAX_VALUES = 25_000
"""The maximum number of JSON values in a body. Each comma and each opening bracket counts as one, also within texts.

A result has about 50 values (30 fields, 12 actions, the PartnerParams), so this is enough for a history of 500 results
with every field and without commas in their texts. A JSON value takes up to 230 bytes of memory, so that many values
take at most 6 MB.
"""
MAX_DEPTH = 200
"""The maximum nesting of objects and lists. The vendor's samples have six levels; Python's recursion limit is 1,000."""
MAX_NUMBER_CHARACTERS = 100
"""The maximum length of a number. The longest known numbers are epoch milliseconds, with 13 digits."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_SECONDS_DIGITS = 10
_DATE_CHARACTERS = 10
_TOO_DEEP = f"it is nested more than {MAX_DEPTH} levels deep"


class UnreadableError(Exception):
    """A body cannot be read; the text says why, without values of the body."""


def decode_object(body: bytes) -> JSONObject:
    """Return the JSON object in *body*; count its values before decoding it.

    Raises:
        UnreadableError: *body* is no JSON object, or has more than `MAX_VALUES` values, numbers of more than
            `MAX_NUMBER_CHARACTERS` characters, numbers that JSON does not have (``NaN``, ``Infinity``) or that are
            infinite in Python (``1e999``), or more than `MAX_DEPTH` levels.
    """
    openings = body.count(b"[") + body.count(b"{")
    if openings + body.count(b",") > MAX_VALUES:
        raise UnreadableError(f"it holds more than {MAX_VALUES:,} JSON values")
    value: object = None
    why = ""
    try:
        value = _decoder.decode(body.removeprefix(BOM_UTF8).decode())
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
        raise UnreadableError("it is JSON, but not an object")
    if openings > MAX_DEPTH and _is_too_deep(value):
        raise UnreadableError(_TOO_DEEP)
    return value


def decode_text(body: JSONObject, key: str) -> str | None:
    """Return the text under *key*, or a number as its digits; None if there is no value.

    Raises:
        UnreadableError: The value is neither a text nor a number.
    """
    value = body.get(key)
    if value is None or isinstance(value, str):
        return value
    text = read_text(value)
    if text is None:
        raise UnreadableError(f"wrong shape at {key}")
    return text


def read_text(value: object) -> str | None:
    """Return a text unchanged and a number as its digits; None for any other value."""
    if isinstance(value, str):
        return value
    return str(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def is_true(value: object) -> bool:
    """Return whether a value is JSON ``true`` or the word "true" in any case."""
    return value is True or (isinstance(value, str) and len(value) == len("true") and value.lower() == "true")


def parse_timestamp(value: object) -> datetime | None:
    """Return the instant of a timestamp, in UTC; None if it cannot be read.

    Two formats are read. ISO 8601, also with a space before the offset; without an offset it is UTC (two of the
    vendor's sample callbacks have such timestamps), and a date without a time is not an instant. And the time since the
    epoch, as a number or its digits: seconds if it has up to ten digits, else milliseconds.
    """
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(text, str) or len(text) > MAX_NUMBER_CHARACTERS:
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


def _parse_int(digits: str) -> int:
    _check_length(digits)
    return int(digits)


def _parse_float(digits: str) -> float:
    _check_length(digits)
    number = float(digits)
    if math.isinf(number):
        raise UnreadableError("it holds a number that is too large")
    return number


def _check_length(digits: str) -> None:
    if len(digits) > MAX_NUMBER_CHARACTERS:
        raise UnreadableError(f"it holds a number of more than {MAX_NUMBER_CHARACTERS} characters")


_decoder = JSONDecoder(parse_constant=_refuse_constant, parse_int=_parse_int, parse_float=_parse_float)


def _is_too_deep(value: JSONObject) -> bool:
    """Return whether objects and lists are nested more than `MAX_DEPTH` levels deep; *value* is the first level."""
    level: list[object] = [value]
    for _ in range(MAX_DEPTH):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer if isinstance(outer, list) else ())
            if isinstance(inner, (dict, list))
        ]
    return bool(level)
