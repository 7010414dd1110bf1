"""How long to wait: between the polls of a job that is pending, and after failures."""

import random
from collections.abc import Callable
from typing import Self

from attrs import field, frozen

from smilejobs.durations import Duration, positive, seconds

PaceFunction = Callable[[float, int], float]
"""``(age, polls) -> seconds``: the age of the job in seconds, the number of polls so far, the delay to the next."""


def _min(value: Duration) -> float:
    return seconds(value, "min", zero=False)


def _max(value: Duration) -> float:
    return seconds(value, "max", zero=False)


def _fraction(value: float) -> float:
    return positive(value, "fraction")


def _jitter(value: float) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise TypeError(f"jitter must be a number, not {type(value).__name__}")
    if not 0 <= value < 1:
        raise ValueError("jitter must be at least 0 and less than 1")
    return value


@frozen(kw_only=True)
class Pace:
    """Ask often while a job is young, and ever more rarely as it grows old.

    The delay before the next poll is ``fraction * age``, within *min* and *max*, times a random factor between
    ``1 - jitter`` and ``1 + jitter``. With a share of the age, a result is never seen later than by that share of the
    time that the job took; machine results take seconds and human reviews hours, and both are met by one formula.

    Args:
        min: The shortest delay, in seconds or as a timedelta, before jitter.
        max: The longest delay, likewise.
        fraction: The share of the job's age, more than 0.
        jitter: The share by which delays vary at random, 0 to below 1, so that waiters do not march in step.

    Raises:
        TypeError: A duration that is no number.
        ValueError: Durations that are not finite and positive, *max* below *min*, or a share out of range.
    """

    min: float = field(default=1.0, converter=_min)
    max: float = field(default=60.0, converter=_max)
    fraction: float = field(default=0.15, converter=_fraction)
    jitter: float = field(default=0.1, converter=_jitter)

    def __attrs_post_init__(self) -> None:
        _check_order(self)

    @classmethod
    def relaxed(cls) -> Self:
        """Return a pace for jobs whose callback is expected, see `Client.notify`: polls are for those that get lost.

        ``Pace(min=5, max=300, fraction=0.5)``.
        """
        return cls(min=5.0, max=300.0, fraction=0.5)

    def __call__(self, age: float, polls: int) -> float:
        """Return the seconds to the next poll of a job of that age (in seconds)."""
        delay = min(max(self.fraction * age, self.min), self.max)
        return delay * random.uniform(1 - self.jitter, 1 + self.jitter)


@frozen(kw_only=True)
class Backoff:
    """Wait after a failure, longer after each: exponential with full jitter.

    The delay is drawn evenly between *min* and ``min * 2 ** failures``, the latter at most *max*.

    Args:
        min: The shortest delay, in seconds or as a timedelta.
        max: The longest delay, likewise.

    Raises:
        TypeError: A duration that is no number.
        ValueError: Durations that are not finite and positive, or *max* below *min*.
    """

    min: float = field(default=0.5, converter=_min)
    max: float = field(default=30.0, converter=_max)

    def __attrs_post_init__(self) -> None:
        _check_order(self)

    def __call__(self, failures: int) -> float:
        """Return the seconds to wait after so many consecutive failures, 1 or more."""
        return random.uniform(self.min, min(self.max, self.min * 2.0 ** min(failures, 60)))


def _check_order(bounds: Pace | Backoff) -> None:
    if bounds.max < bounds.min:
        raise ValueError("max must not be less than min")
