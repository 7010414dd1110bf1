"""How long jobs take, estimated from waits: the hazard per age, from counts of intervals.

A poll that finds a job complete does not tell when it became complete, but that it did between two polls. Such counts
are interval-censored; a wait that ended early is right-censored. The estimate is that of Turnbull (1976) by
expectation and maximisation, an interval being spread over its bins in proportion to the estimate so far, and smoothed
(Silverman, Jones, Wilson and Nychka 1990), but not across differences that are too large for chance, as in the
diffusion of Perona and Malik (1990): wide distributions become smooth, narrow ones stay narrow. Old jobs count less
and less.
"""

from collections.abc import Sequence
from itertools import accumulate, zip_longest
from math import exp, log, log1p
from operator import add, mul
from typing import Self

from attrs import define, field

RATIO = 1.04
"""Each bin of age is longer than the one before by this factor; the first one is 0.04 s long."""

BINS = 400
"""Bins up to an age of 75 days; what is older counts in the last one."""

EDGES: Sequence[float] = tuple(RATIO**number - 1.0 for number in range(BINS + 1))
"""Seconds: where bins begin and end."""

LOG_RATIO = log(RATIO)

MEMORY_JOBS = 800.0
"""A job counts ``1 / e`` once so many newer ones have been seen; the counts add up to this many jobs at most."""

_GROWTH = exp(1.0 / MEMORY_JOBS)
_FORGOTTEN = 0.03
"""Jobs: an interval that counts less is dropped."""

_SHARE_UNKNOWN = 0.5
"""Jobs that are taken to have been at risk in every bin, with the hazard of a distribution that has no scale."""

_SMOOTHING = 0.25
"""The share of the difference between two bins that is moved from one to the other, if it may be chance."""

_STEPS = (1, 2, 4, 8)
"""How far apart these two are, in bins, one pass after the other."""

_CHANCE = 4.0
"""The square of a difference, over its variance by chance, from which on less than half of that is moved."""


def edge_at(age: float) -> int:
    """Return the number of the edge that is nearest to an age in seconds."""
    return min(int(log1p(age) / LOG_RATIO + 0.5), BINS)


@define(kw_only=True)
class Hazard:
    """How many events (jobs that became complete) there were per bin, among how many jobs at risk (pending).

    Attributes:
        events: Per bin.
        at_risk: Per bin, at its beginning.
        seen: What `rates` was before the events were smoothed.
    """

    events: list[float]
    at_risk: list[float]
    seen: list[float] = field(factory=list)

    @classmethod
    def of(cls, events: list[float], censored: list[float]) -> Self:
        """Return the hazard of events per bin, and of jobs that were pending at an edge when their wait ended."""
        at_risk = list(accumulate(map(add, reversed(events), reversed(censored[1:]))))
        return cls(events=events, at_risk=at_risk[::-1])

    def rates(self) -> list[float]:
        """Return the share of the jobs at risk that become complete within each bin."""
        unknown = _SHARE_UNKNOWN * LOG_RATIO
        return [
            (events + unknown) / (at_risk + _SHARE_UNKNOWN)
            for events, at_risk in zip(self.events, self.at_risk, strict=True)
        ]


@define(kw_only=True)
class Counts:
    """Waits, counted by the bins in which they saw a job pending and complete.

    Attributes:
        intervals: For ``first * (BINS + 1) + last``, two edges: the weight of the jobs that became complete in between.
        censored: For an edge: the weight of the jobs that were pending there when their wait ended.
        weight: That of the next job; it grows, which makes the older ones lighter.
        end: The last edge at which a job was seen complete, or pending when its wait ended.
        masses: The estimate: the share of all jobs that become complete within each bin.
    """

    intervals: dict[int, float] = field(factory=dict)
    censored: dict[int, float] = field(factory=dict)
    weight: float = 1.0
    end: int = 0
    masses: list[float] = field(factory=list)

    def add(self, pending_at: float, complete_at: float | None) -> tuple[int, int]:
        """Count a job that was pending at one age and complete at another, in seconds; None if it was not seen.

        Returns:
            The edges between which it became complete.
        """
        first = edge_at(pending_at)
        if complete_at is None:
            last = BINS
            self.end = max(self.end, first)
            self.censored[first] = self.censored.get(first, 0.0) + self.weight
        else:
            first = min(first, BINS - 1)
            last = max(first + 1, edge_at(complete_at))
            self.end = max(self.end, last)
            key = first * (BINS + 1) + last
            self.intervals[key] = self.intervals.get(key, 0.0) + self.weight
        self.weight *= _GROWTH
        return first, last

    def forget(self, factor: float) -> None:
        """Let all that has been counted count less by a factor."""
        self.weight *= factor

    def ranks(self) -> list[float]:
        """Return the share of all jobs that is estimated to be complete at each edge; nothing without an estimate."""
        return [0.0, *accumulate(self.masses)] if self.masses else []

    def jobs(self) -> float:
        """Return how many jobs count, the newest one as 1."""
        return (sum(self.intervals.values()) + sum(self.censored.values())) / self.weight

    def rescale(self) -> None:
        """Make the weight of the next job 1 and of all at most `MEMORY_JOBS`, and drop what is forgotten."""
        self._scale(min(1.0, MEMORY_JOBS / max(self.jobs(), 1.0)) / self.weight)
        self.weight = 1.0

    def merged(self, other: "Counts") -> "Counts":
        """Return what both have counted."""
        one, two = self.jobs(), other.jobs()
        both = (one + two) or 1.0
        masses = [
            (one * mine + two * theirs) / both for mine, theirs in zip_longest(self.masses, other.masses, fillvalue=0.0)
        ]
        counts = Counts(
            intervals=_sum(self.intervals, self.weight, other.intervals, other.weight),
            censored=_sum(self.censored, self.weight, other.censored, other.weight),
            end=max(self.end, other.end),
            masses=masses,
        )
        counts.rescale()
        return counts

    def estimate(self, rounds: int) -> Hazard:
        """Improve `masses` by so many rounds, and return the hazard, smoothed.

        `masses` are half smoothed: of the smoothed hazard alone, they would become smoother with each estimate.
        """
        length = max(self.end + 3, len(self.masses))
        length = min(length, BINS)
        masses = self._extended(length)
        intervals = [(*divmod(key, BINS + 1), weight / self.weight) for key, weight in self.intervals.items()]
        censored = [0.0] * (length + 1)
        for edge, weight in self.censored.items():
            censored[min(edge, length)] += weight / self.weight
        for _ in range(rounds - 1):
            masses = _masses(Hazard.of(_spread(masses, intervals), censored))
        seen = Hazard.of(_spread(masses, intervals), censored)
        hazard = Hazard.of(_smoothed(seen.events), censored)
        hazard.seen = seen.rates()
        self.masses = [(one + two) / 2 for one, two in zip(_masses(seen), _masses(hazard), strict=True)]
        return hazard

    def _extended(self, length: int) -> list[float]:
        """Return the masses for so many bins; those that are new get those of a distribution that has no scale."""
        masses = list(self.masses)
        surviving = max(0.0, 1.0 - sum(masses))
        while len(masses) < length:
            masses.append(surviving * LOG_RATIO)
            surviving -= masses[-1]
        return masses

    def _scale(self, factor: float) -> None:
        for counted in (self.intervals, self.censored):
            scaled = {key: weight * factor for key, weight in counted.items() if weight * factor > _FORGOTTEN}
            counted.clear()
            counted.update(scaled)


def _masses(hazard: Hazard) -> list[float]:
    """Return the share of all jobs that becomes complete within each bin."""
    rates = hazard.rates()
    pending = accumulate([1.0 - rate for rate in rates], mul, initial=1.0)
    return list(map(mul, pending, rates))


def _spread(masses: list[float], intervals: list[tuple[int, int, float]]) -> list[float]:
    """Return how many jobs became complete in each bin, if those of an interval are spread by the masses in it."""
    below = [0.0, *accumulate(masses)]
    changes = [0.0] * (len(masses) + 1)
    for first, last, weight in intervals:
        share = weight / max(below[last] - below[first], 1e-12)
        changes[first] += share
        changes[last] -= share
    return [max(0.0, events) for events in map(mul, masses, accumulate(changes))]


def _smoothed(events: list[float]) -> list[float]:
    """Return the events, smoothed: differences that may be chance are evened out, those of peaks and edges stay."""
    for step in _STEPS:
        flows = [
            _SMOOTHING * (one - two) / (1.0 + (one - two) ** 2 / (_CHANCE * (one + two) + 1e-9))
            for one, two in zip(events, events[step:], strict=False)
        ]
        none = [0.0] * step
        events = [count - out + into for count, out, into in zip(events, flows + none, none + flows, strict=False)]
    return events


def _sum(one: dict[int, float], weight_of_one: float, two: dict[int, float], weight_of_two: float) -> dict[int, float]:
    return {
        key: one.get(key, 0.0) / weight_of_one + two.get(key, 0.0) / weight_of_two
        for key in sorted(one.keys() | two.keys())
    }
