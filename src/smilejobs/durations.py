"""Durations as callers write them, turned into seconds.

Every public parameter that is a duration takes ``float | timedelta``; a float is a number of **seconds**.
"""

import math
from datetime import timedelta

Duration = float | timedelta


def seconds(value: Duration, name: str, *, zero: bool = True) -> float:
    """Return *value* in seconds.

    Args:
        value: Seconds, or a timedelta.
        name: What the caller calls the argument; it opens the error text.
        zero: Whether zero is allowed.

    Raises:
        TypeError: *value* is not a number or a timedelta (a bool is neither).
        ValueError: *value* is negative, infinite or not a number, or zero where that makes no sense.
    """
    if isinstance(value, timedelta):
        number = value.total_seconds()
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        number = _float(value)
    else:
        raise TypeError(f"{name} must be seconds (a number) or a timedelta, not {type(value).__name__}")
    if not math.isfinite(number):
        raise ValueError(f"{name} must be a finite number of seconds")
    if number < 0 or (number == 0 and not zero):
        raise ValueError(f"{name} must {'not be negative' if zero else 'be more than 0'}, got {number:g} s")
    return number


def positive(value: float, name: str) -> float:
    """Return a number that is no duration but must be finite and more than 0 all the same.

    Raises:
        TypeError: *value* is not a number.
        ValueError: *value* is not finite, or not more than 0.
    """
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise TypeError(f"{name} must be a number, not {type(value).__name__}")
    number = _float(value)
    if not math.isfinite(number) or number <= 0:
        raise ValueError(f"{name} must be a finite number above 0")
    return number


def _float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf
