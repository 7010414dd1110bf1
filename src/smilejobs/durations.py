"""Convert durations of callers into seconds.

Every public parameter that is a duration takes ``float | timedelta``; a float is a number of **seconds**.
"""

import math
from datetime import timedelta

Duration = float | timedelta


def seconds(value: Duration, name: str, *, zero: bool = True) -> float:
    """Return a duration in seconds.

    Args:
        value: Seconds, or a timedelta.
        name: The name of the argument, with which the error text begins.
        zero: Whether zero is allowed.

    Raises:
        TypeError: *value* is not a number or a timedelta (a bool is neither).
        ValueError: *value* is negative, infinite or NaN, or is 0 and *zero* is false.
    """
    if isinstance(value, float):
        number = float(value)
    elif isinstance(value, timedelta):
        number = value.total_seconds()
    elif isinstance(value, int) and not isinstance(value, bool):
        number = _float(value)
    else:
        raise TypeError(f"{name} must be seconds (a number) or a timedelta, not {type(value).__name__}")
    if not math.isfinite(number):
        raise ValueError(f"{name} must be a finite number of seconds")
    if number < 0 or (number == 0 and not zero):
        raise ValueError(f"{name} must {'not be negative' if zero else 'be more than 0'}, got {number:g} s")
    return number


def positive(value: float, name: str) -> float:
    """Return a number, such as a rate, that must be finite and greater than 0.

    Raises:
        TypeError: *value* is not a number.
        ValueError: *value* is not finite, or not greater than 0.
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
