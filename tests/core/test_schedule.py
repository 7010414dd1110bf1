"""The schedule of polls for a distribution of durations: what it costs, and that no other one costs less."""

import random
from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from smilejobs.polling.hazard import EDGES
from smilejobs.polling.schedule import Shares, best_targets, mean_lateness, shares
from tests.helpers.strategies import unhurried

some_rates = st.lists(st.floats(0, 0.9) | st.just(0.0), min_size=1, max_size=8)
QUIET_BINS = 90
"""After so many bins, bins are longer than a second."""


def costs(known: Shares, targets: Sequence[float], price: float) -> list[float]:
    """Return what follows a poll at each edge: the lateness, and the price of the polls."""
    count = len(known.masses)
    after = [0.0] * count + [known.pending[count] * ((targets[count] - EDGES[count]) / 2 + price)]
    for number in range(count - 1, -1, -1):
        after[number] = cost(known, after, number, targets[number], price)
    return after


def cost(known: Shares, after: Sequence[float], number: int, target: float, price: float) -> float:
    """Return what follows a poll at an edge if the next one is at the age *target*, and *after* follows later edges."""
    count = len(known.masses)
    start, end = EDGES[number], EDGES[number + 1]
    if target < end:  # then all polls in this bin have that distance
        spacing = target - start
        polls = (known.pending[number] + known.pending[number + 1]) / 2 * (end - start) / spacing
        return known.masses[number] * spacing / 2 + price * polls + after[number + 1]
    total = price * known.pending[number]
    place = min(bisect_right(EDGES, target) - 1, count)
    for each in range(number, place):
        if known.masses[each]:
            total += known.masses[each] * (target - (EDGES[each] + EDGES[each + 1]) / 2)
    if place == count:
        return total + after[count]
    share = (target - EDGES[place]) / (EDGES[place + 1] - EDGES[place])
    total += share * known.masses[place] * (target - EDGES[place]) / 2
    return total + (1 - share) * after[place] + share * after[place + 1]


@given(st.lists(st.floats(0, 1), max_size=30))
def test_shares_are_those_of_the_hazard(rates: list[float]) -> None:
    """Of the jobs that are pending at the beginning of a bin, that share becomes complete, at its middle on average."""
    known = shares(rates)
    assert (known.pending[0], known.complete[0], known.moments[0]) == (1.0, 0.0, 0.0)
    assert known.masses == pytest.approx([rate * known.pending[number] for number, rate in enumerate(rates)])
    for number, mass in enumerate(known.masses):
        assert known.pending[number + 1] == pytest.approx(known.pending[number] - mass)
        assert known.complete[number + 1] == pytest.approx(known.complete[number] + mass)
        middle = (EDGES[number] + EDGES[number + 1]) / 2
        assert known.moments[number + 1] == pytest.approx(known.moments[number] + mass * middle)


@unhurried
@given(rates=some_rates, more=st.lists(st.floats(0.01, 20), min_size=9, max_size=9))
def test_the_lateness_of_any_schedule(rates: list[float], more: list[float]) -> None:
    """Each job is seen at the next poll, wherever polls are: in the same bin, a later one, or beyond the last one."""
    rates = [0.0] * QUIET_BINS + rates
    targets = [*EDGES[1 : QUIET_BINS + 1], *map(float.__add__, EDGES[QUIET_BINS : len(rates) + 1], more)]
    known = shares(rates)
    assert mean_lateness(known, targets) == pytest.approx(costs(known, targets, 0.0)[0])


def test_the_lateness_of_a_schedule() -> None:
    """A tenth of the jobs is complete at some time in the first bin, the rest after the second, and polls are there."""
    known = shares([0.1, 0.0])
    middle, *_, end = EDGES[1] / 2, EDGES[1], EDGES[2]
    assert mean_lateness(known, [EDGES[1], end, end + 60.0]) == pytest.approx(0.1 * (EDGES[1] - middle) + 0.9 * 30)
    assert mean_lateness(known, [end, end, end + 60.0]) == pytest.approx(0.1 * (end - middle) + 0.9 * 30)
    assert mean_lateness(known, [5.0, end, end + 60.0]) == pytest.approx(0.1 * (5.0 - middle) + 0.9 * 30)


@settings(unhurried, max_examples=40)
@given(
    rates=some_rates,
    price=st.floats(0.01, 100) | st.floats(0.01, 1),
    shortest=st.floats(0.1, 1.2),
    quiet_bins=st.sampled_from([QUIET_BINS, QUIET_BINS + 50]),
)
def test_no_poll_is_better_at_another_age(rates: list[float], price: float, shortest: float, quiet_bins: int) -> None:
    """Neither at another edge nor elsewhere in its bin, of a second or of ten; and no delay is too short."""
    rates = [0.0] * quiet_bins + rates
    known = shares(rates)
    count = len(rates)
    targets = best_targets(known, price=price, shortest=shortest, delays=[60.0] * count)
    after = costs(known, targets, price)
    assert targets[count] == EDGES[count] + 60.0
    for number, target in enumerate(targets[:count]):
        earliest = EDGES[number] + shortest
        assert target >= earliest - 1e-9
        if number % 10 and number < quiet_bins:
            continue  # much the same as its neighbours
        place = bisect_right(EDGES, target) - 1
        within = [EDGES[place] + tenth / 10 * (EDGES[place + 1] - EDGES[place]) for tenth in range(1, 11)]
        others = [*EDGES[number + 1 : count + 1], *(within if place < count else [])]
        for other in others:
            if other >= earliest:
                assert after[number] <= cost(known, after, number, other, price) + 1e-9


@pytest.mark.parametrize("seed", range(4))
def test_no_other_edge_is_better_where_many_jobs_end_at_any_age(seed: int) -> None:
    """In one bin jobs end and in the next none do: the best edge is often neither the nearest nor the last one."""
    draw = random.Random(seed)
    rates = [0.0] * 30 + [draw.choice([0.0, 0.0, 0.2, 1.0]) * draw.random() for _ in range(40)]
    known = shares(rates)
    price, shortest = draw.choice([0.02, 0.2, 2.0, 10.0]), 0.7
    targets = best_targets(known, price=price, shortest=shortest, delays=[60.0] * 70)
    after = costs(known, targets, price)
    for number in range(70):
        for other in EDGES[number + 1 : 71]:
            if other >= EDGES[number] + shortest:
                assert after[number] <= cost(known, after, number, other, price) + 1e-9


def test_where_jobs_are_many_polls_are_dense() -> None:
    """Inside of a long bin, polls follow at the spacing of Keller, but not below the shortest delay."""
    number = 200  # it is 100 s long
    known = shares([0.0] * number + [0.5])
    for shortest in (1.0, 5.0):
        targets = best_targets(known, price=0.05, shortest=shortest, delays=[60.0] * (number + 1))
        hazard = 0.5 / 0.75 / (EDGES[number + 1] - EDGES[number])
        assert targets[number] - EDGES[number] == pytest.approx(max(shortest, (2 * 0.05 / hazard) ** 0.5))


def test_a_bin_is_passed_over_where_a_poll_soon_after_it_costs_less() -> None:
    """Keller's spacing is nearly as long as the bin, and most jobs end in the next one, which is polled anyway."""
    number = 141  # it is 10 s long
    rates = [0.0] * number + [0.025, 0.999]
    targets = best_targets(shares(rates), price=0.1, shortest=0.1, delays=[60.0] * len(rates))
    assert targets[number] - EDGES[number + 1] == pytest.approx(0.75, abs=0.05)


def test_ages_that_no_job_reaches_are_polled_as_by_the_base() -> None:
    """There is no share of jobs left to compare."""
    delays = [10.0 + number for number in range(60)]
    targets = best_targets(shares([0.0] * 50 + [1.0] + [0.0] * 9), price=1.0, shortest=0.5, delays=delays)
    assert targets[51:60] == [EDGES[number] + delays[number] for number in range(51, 60)]
    assert targets[60] == EDGES[60] + delays[59]


def test_near_the_end_delays_are_those_of_the_base() -> None:
    """Where no edge is far enough for the shortest delay; or it is that delay, if it is longer."""
    delays = [2.0] * 10
    for shortest, delay in ((1.0, 2.0), (3.0, 3.0)):
        targets = best_targets(shares([0.1] * 10), price=1.0, shortest=shortest, delays=delays)
        assert [target - age for age, target in zip(EDGES, targets, strict=False)] == pytest.approx(
            [delay] * 10 + [2.0]
        )


def test_dearer_polls_are_fewer() -> None:
    """The distance between polls grows with the price, and so does the lateness."""
    known = shares([0.05] * 200)
    schedules = [best_targets(known, price=price, shortest=0.1, delays=[60.0] * 200) for price in (0.1, 1.0, 10.0)]
    for less, more in pairwise(schedules):
        assert mean_lateness(known, less) < mean_lateness(known, more)
