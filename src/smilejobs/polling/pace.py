"""The delays between the polls of a pending job, and after failures."""

import random
from collections.abc import Callable
from typing import Self

from attrs import field, frozen

from smilejobs.durations import Duration, positive, seconds

PaceFunction = Callable[[float, int], float]
"""``(age, polls) -> delay``: the age of the job in seconds, the number of polls so far, the next delay in seconds."""


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
    """A pace that polls often while a job is young and rarely when it is old.

    The delay before the next poll is ``fraction * age``, at least *min* and at most *max*, times a random factor
    between ``1 - jitter`` and ``1 + jitter``. Because the delay is a fraction of the age, a result is seen late by
    about that fraction of the duration of the job. One formula serves machine results, which take seconds, and human
    reviews, which take hours.

    Args:
        min: The shortest delay, in seconds or as a timedelta, before jitter.
        max: The longest delay, likewise.
        fraction: The fraction of the job's age, more than 0.
        jitter: The fraction by which delays vary at random, at least 0 and less than 1, so that many waits do not poll
            at the same time.

    Raises:
        TypeError: An argument is not a number.
        ValueError: A duration is not finite and positive, *max* is less than *min*, or a fraction is out of range.
    """

    min: float = field(default=1.0, converter=_min)
    max: float = field(default=60.0, converter=_max)
    fraction: float = field(default=0.15, converter=_fraction)
    jitter: float = field(default=0.1, converter=_jitter)

    def __attrs_post_init__(self) -> None:
        _check_order(self)

    @classmethod
    def relaxed(cls) -> Self:
        """Return a pace for jobs with an expected callback, see `Client.notify`: polls only cover lost callbacks.

        It is ``Pace(min=5, max=300, fraction=0.5)``.
        """
        return cls(min=5.0, max=300.0, fraction=0.5)

    def __call__(self, age: float, polls: int) -> float:
        """Return the delay in seconds before the next poll of a job of that age in seconds."""
        delay = min(max(self.fraction * age, self.min), self.max)
        return delay * random.uniform(1 - self.jitter, 1 + self.jitter)


@frozen(kw_only=True)
class Backoff:
    """The delays after consecutive failures: exponential backoff with full jitter.

    The delay is a uniform random number between *min* and the smaller of ``min * 2 ** failures`` and *max*.

    Args:
        min: The shortest delay, in seconds or as a timedelta.
        max: The longest delay, likewise.

    Raises:
        TypeError: A duration is not a number or a timedelta.
        ValueError: A duration is not finite and positive, or *max* is less than *min*.
    """

    min: float = field(default=0.5, converter=_min)
    max: float = field(default=30.0, converter=_max)

    def __attrs_post_init__(self) -> None:
        _check_order(self)

    def __call__(self, failures: int) -> float:
        """Return the delay in seconds after this number of consecutive failures, 1 or more."""
        return random.uniform(self.min, min(self.max, self.min * 2.0 ** min(failures, 60)))


def _check_order(bounds: Pace | Backoff) -> None:
    if bounds.max < bounds.min:
        raise ValueError("max must not be less than min")
