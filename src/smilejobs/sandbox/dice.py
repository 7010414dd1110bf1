"""Chance that repeats itself: every draw depends on the seed and on what it is for, never on what was drawn before."""

import math
import random
from datetime import timedelta

from attrs import field, frozen

from smilejobs.durations import Duration, seconds

_LONGEST = 10 * 365 * 86_400.0
_MOST = 100.0


def dice(seed: int, *purpose: object) -> random.Random:
    """Return the dice for one purpose, for example the third poll of a certain job.

    Two requests that come in another order draw the same all the same: nobody shares dice with anybody.
    """
    return random.Random(repr((seed, *purpose)))


def within_reason(value: Duration, name: str) -> float:
    """Return *value* in seconds.

    Raises:
        TypeError: It is no duration.
        ValueError: It can never be right, or is longer than ten years: dates do not reach for ever.
    """
    number = seconds(value, name)
    if number > _LONGEST:
        raise ValueError(f"{name} must be at most ten years")
    return number


def _median(value: Duration) -> float:
    return within_reason(value, "median")


def _spread(value: float) -> float:
    if isinstance(value, timedelta):
        raise TypeError("spread must be a number, not a timedelta")
    return seconds(value, "spread")


@frozen
class Lognormal:
    """A duration by chance: half of all are shorter than the median, none is negative, some take long.

    Args:
        median: Seconds (or a timedelta).
        spread: The standard deviation of the logarithm: at 0 all take the median, at 0.7 two of three lie between half
            of it and twice of it.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument is negative or not finite, or the median longer than ten years.
    """

    median: float = field(converter=_median)
    spread: float = field(default=0.0, converter=_spread)

    def draw(self, chance: random.Random) -> float:
        """Return one duration in seconds."""
        if not self.median or not self.spread:
            return self.median
        return min(self.median * math.exp(min(chance.gauss(0.0, self.spread), _MOST)), _LONGEST)


def lasting(value: Duration | Lognormal, name: str) -> Lognormal:
    """Return *value*, a duration or a distribution of durations, as a distribution.

    Raises:
        TypeError: It is neither.
        ValueError: It can never be right; the text begins with *name*.
    """
    return value if isinstance(value, Lognormal) else Lognormal(within_reason(value, name))
