"""When to plan anew, and at which price: from counts of waits to the ages of polls."""

import random
from bisect import bisect_left
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

from attrs import define, field

from smilejobs.polling.hazard import EDGES, Counts, Hazard
from smilejobs.polling.pace import Pace
from smilejobs.polling.schedule import Shares, best_targets, mean_lateness, shares

_FIRST_PLAN_JOBS = 5
_GROWTH = 0.4
"""A new plan is made after so many new jobs, as a share of those that count."""

_FIRST_ROUNDS = 10
_ROUNDS = 6
"""Rounds of the estimate for the first plans and for the later ones, which go on from the estimate before."""

_FIRST_PLANS = 4
_PRICES = 5
"""How many prices are tried for the first plans, and for one that follows a plan whose lateness is off by more than a
factor of two; the others go on from the price before."""

_TOLERANCE = 0.02
_SLACK = 1.025
"""How far the predicted lateness may be from the one wanted, and how much of that of the base is wanted."""

_HIGHEST_PRICE = 2.8
"""In units of the base's lateness per poll: where polls are this cheap already, lateness is saved instead."""

_BASE_JOBS = 0.5
_BASE_JOBS_AT_FIRST = 200.0
"""The base counts as so many jobs at risk, plus so many over the number of jobs that have been seen."""


_DRIFT_JOBS = 50
_DRIFT = 0.2
_DRIFT_OF_VARIANCE = 0.05
"""A change shows in the ranks of the last jobs among all, from 0 to 1. Without one they are evenly spread, and this is
more than 6 standard deviations of their mean and of their variance."""

_FORGET = 8.0
"""After a change, what has been seen before counts less by this factor."""


class BaseTable(NamedTuple):
    """What a pace of fixed parameters does, per bin of the age at which a job becomes complete.

    Attributes:
        delays: Seconds between its polls.
        lateness: Seconds, mean.
        polls: How many, mean, without one at the age of 0.
        rates: The share of the pending jobs that becomes complete in the bin, over the price of a poll, if Keller's
            spacing is that of its polls.
    """

    delays: Sequence[float]
    lateness: Sequence[float]
    polls: Sequence[float]
    rates: Sequence[float]


@lru_cache(maxsize=16)
def base_table(base: Pace) -> BaseTable:
    """Return what *base* does; the first polls are simulated, the later ones fall evenly."""
    middles = [(start + end) / 2 for start, end in pairwise(EDGES)]
    delays = [min(max(base.fraction * middle, base.min), base.max) for middle in middles]
    lateness = [delay / 2 for delay in delays]
    polls: list[float] = []
    before = 0.5
    for number, delay in enumerate(delays):
        during = (EDGES[number + 1] - EDGES[number]) / delay
        polls.append(before + during / 2)
        before += during
    rates = [2 * (EDGES[number + 1] - EDGES[number]) / delay**2 for number, delay in enumerate(delays)]
    chance = random.Random(0)
    walks = [_ages_of_polls(base, chance, 25) for _ in range(40)]
    end = min(walk[-1] for walk in walks)
    for number, middle in enumerate(middles[: bisect_left(middles, end)]):
        lateness[number] = sum(walk[bisect_left(walk, middle)] - middle for walk in walks) / len(walks)
    return BaseTable(tuple(delays), tuple(lateness), tuple(polls), tuple(rates))


@define(kw_only=True)
class Learner:
    """One distribution of durations, and the schedule for it.

    Attributes:
        base: The pace where nothing is known.
        lateness: The mean lateness that is wanted, in seconds; None for that of *base*.
        counts: What has been seen.
        price: The seconds of lateness that a poll may cost, in the plan.
        until_plan: So many more jobs until a new plan is due.
        plans: How many plans there were since durations changed.
        drift: By how much the mean rank of the last jobs, from 0 to 1, is off.
        drift_of_variance: By how much the variance of these ranks is off.
        targets: The plan: the age of the next poll, for a poll at each edge; empty before there is one.
    """

    base: Pace
    lateness: float | None
    counts: Counts = field(factory=Counts)
    price: float = 0.1
    until_plan: int = _FIRST_PLAN_JOBS
    plans: int = 0
    drift: float = 0.0
    drift_of_variance: float = 0.0
    targets: list[float] = field(factory=list)
    _ranks: list[float] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._ranks = self.counts.ranks()

    def observe(self, pending_at: float, complete_at: float | None) -> None:
        """Take in one wait, and plan anew if that is due."""
        first, last = self.counts.add(pending_at, complete_at)
        self.until_plan -= 1
        if self._ranks and self._has_changed(first, last):
            self.drift = self.drift_of_variance = 0.0
            self.counts.forget(_FORGET)
            self.plans = 0
            self.until_plan = 0
        if self.until_plan <= 0:
            self.plan()

    def merged(self, other: "Learner") -> "Learner":
        """Return a learner that has seen what both have."""
        learner = Learner(
            base=self.base,
            lateness=self.lateness,
            counts=self.counts.merged(other.counts),
            price=(self.price + other.price) / 2,
            plans=min(self.plans, other.plans),
        )
        if learner.counts.jobs() >= _FIRST_PLAN_JOBS:
            learner.plan()
        return learner

    def plan(self) -> None:
        """Estimate the hazard, and find the schedule with the lateness that is wanted."""
        settled = self.plans >= _FIRST_PLANS
        self.counts.rescale()
        jobs = self.counts.jobs()
        hazard = self.counts.estimate(_ROUNDS if settled else _FIRST_ROUNDS)
        known = shares(hazard.seen)
        self._ranks = self.counts.ranks()
        table = base_table(self.base)
        lateness_of_base = _mean(known, table.lateness)
        if self.lateness is None:
            wanted = _SLACK * lateness_of_base
            highest = _HIGHEST_PRICE * lateness_of_base / _mean(known, table.polls)
        else:
            wanted = self.lateness
            highest = 100 * wanted
        lowest = min(self.base.min / 1000, highest)
        base_jobs = _BASE_JOBS + _BASE_JOBS_AT_FIRST / jobs
        ratio = 0.0
        if settled:  # by what the last plan does on newer jobs, which it was not made for
            ages = zip(EDGES[len(self.targets) :], (*table.delays, self.base.max)[len(self.targets) :], strict=True)
            targets = self.targets + [age + delay for age, delay in ages]
            ratio = wanted / mean_lateness(known, targets)
        if 0.5 <= ratio <= 2.0:
            self.price = min(max(self.price * ratio, lowest), highest)
            self.targets = self._targets(hazard, table, base_jobs)
        else:
            self._search(wanted, (lowest, highest), known, lambda: self._targets(hazard, table, base_jobs))
        self.plans += 1
        self.until_plan = max(_FIRST_PLAN_JOBS, int(_GROWTH * jobs))

    def _search(
        self, wanted: float, prices: tuple[float, float], known: Shares, targets: Callable[[], list[float]]
    ) -> None:
        """Find the price for the lateness that is wanted."""
        lowest, highest = prices
        price = self.price
        for _ in range(_PRICES):
            self.price = price = min(max(price, lowest), highest)
            self.targets = targets()
            predicted = mean_lateness(known, self.targets)
            if abs(predicted / wanted - 1) < _TOLERANCE or (price == highest and predicted < wanted):
                break
            price *= min(max((wanted / predicted) ** 2, 0.25), 4.0)

    def _has_changed(self, first: int, last: int) -> bool:
        """Take in a job that became complete between two edges; return whether durations are others than before."""
        end = len(self._ranks) - 1
        low, high = self._ranks[min(first, end)], self._ranks[min(last, end)]
        middle = (low + high) / 2 - 0.5
        variance = middle * middle + (high - low) ** 2 / 12 - 1 / 12
        self.drift += (middle - self.drift) / _DRIFT_JOBS
        self.drift_of_variance += (variance - self.drift_of_variance) / _DRIFT_JOBS
        return abs(self.drift) > _DRIFT or abs(self.drift_of_variance) > _DRIFT_OF_VARIANCE

    def _targets(self, hazard: Hazard, table: BaseTable, base_jobs: float) -> list[float]:
        """Return the best schedule for the hazard, blended with the one for which *base* would be the best."""
        price = self.price
        rates = [
            (events + base_jobs * min(rate * price, 0.99)) / (at_risk + base_jobs)
            for events, at_risk, rate in zip(hazard.events, hazard.at_risk, table.rates, strict=False)
        ]
        return best_targets(
            shares(rates),
            price=price,
            shortest=self.base.min
            * (1 + self.base.jitter / 4),  # the mean: jitter never makes a delay shorter than min
            delays=table.delays,
        )


def _mean(known: Shares, values: Sequence[float]) -> float:
    """Return the mean of a value per bin; what is not complete in the end is in the last bin."""
    count = len(known.masses)
    return sum(map(float.__mul__, known.masses, values)) + known.pending[count] * values[count - 1]


def _ages_of_polls(base: Pace, chance: random.Random, count: int) -> list[float]:
    ages: list[float] = []
    age = 0.0
    for _ in range(count):
        delay = min(max(base.fraction * age, base.min), base.max)
        age += delay * chance.uniform(1 - base.jitter, 1 + base.jitter)
        ages.append(age)
    return ages
