"""Random durations, and random generators that do not depend on the order of requests."""

import math
import random
from datetime import timedelta

from attrs import field, frozen

from smilejobs.durations import Duration, positive, seconds

_TEN_YEARS = 10 * 365 * 86_400.0
_MAX_EXPONENT = 100.0


def make_rng(seed: int, *purpose: object) -> random.Random:
    """Return a random generator of its own for one purpose, for example the third poll of a certain job."""
    return random.Random(repr((seed, *purpose)))


def to_seconds(value: Duration, name: str) -> float:
    """Return a duration in seconds; raise as `seconds` does, and ValueError beyond ten years, for dates have an end."""
    number = seconds(value, name)
    if number > _TEN_YEARS:
        raise ValueError(f"{name} must be at most ten years")
    return number


def _to_median(value: Duration) -> float:
    return to_seconds(value, "median")


def _to_spread(value: float) -> float:
    if isinstance(value, timedelta):
        raise TypeError("spread must be a number, not a timedelta")
    return seconds(value, "spread")


@frozen
class Lognormal:
    """A random duration with a log-normal distribution: never negative, half below the median, with a long tail.

    Args:
        median: Seconds (or a timedelta).
        spread: The standard deviation of the logarithm: 0 always draws the median; with 0.7, two of three durations
            lie between half and twice the median.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument is negative or not finite, or the median is longer than ten years.
    """

    median: float = field(converter=_to_median)
    spread: float = field(default=0.0, converter=_to_spread)

    def draw(self, rng: random.Random) -> float:
        """Return one duration in seconds."""
        if not self.median or not self.spread:
            return self.median
        return min(self.median * math.exp(min(rng.gauss(0.0, self.spread), _MAX_EXPONENT)), _TEN_YEARS)


class Mixture:
    """A random duration from one of several distributions.

    ``Mixture((9, Lognormal(5, 0.8)), (1, Lognormal(1200, 1.0)))`` draws nine machine results to one human review.

    Args:
        parts: Pairs of a weight and a duration: seconds, a timedelta, a `Lognormal`, another `Mixture`. A part is drawn
            with the probability of its weight among all weights.

    Raises:
        TypeError: A weight is not a number, or a duration has the wrong type.
        ValueError: There are no parts, a weight is not positive and finite, or a duration is negative, not finite or
            longer than ten years.
    """

    def __init__(self, *parts: "tuple[float, Duration | Distribution]") -> None:
        if not parts:
            raise ValueError("a Mixture needs at least one pair of a weight and a duration")
        self._weights = [positive(weight, "weight") for weight, _ in parts]
        self._durations = [as_distribution(duration, "duration") for _, duration in parts]

    def draw(self, rng: random.Random) -> float:
        """Return one duration in seconds."""
        (duration,) = rng.choices(self._durations, self._weights)
        return duration.draw(rng)

    def __repr__(self) -> str:
        parts = zip(self._weights, self._durations, strict=True)
        return f"Mixture({', '.join(map(repr, parts))})"


Distribution = Lognormal | Mixture
"""What a random duration is drawn from."""


def as_distribution(value: Duration | Distribution, name: str) -> Distribution:
    """Return *value* as a distribution; a duration always draws itself, and raises as in `to_seconds`."""
    return value if isinstance(value, Distribution) else Lognormal(to_seconds(value, name))
