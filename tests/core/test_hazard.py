"""How long jobs take, estimated from the intervals in which they became complete."""

import math
from collections.abc import Sequence

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from smilejobs.polling.hazard import BINS, EDGES, LOG_RATIO, MEMORY_JOBS, Counts, Hazard, edge_at
from tests.helpers.strategies import unhurried

Interval = tuple[int, int]
"""Edges: the one at which a job was pending, and the one at which it was complete; 0 for one that was not seen so."""

intervals_seen = st.lists(
    st.tuples(st.integers(0, 30), st.integers(0, 12)).map(lambda each: (each[0], each[1] and sum(each))), max_size=20
)


def counted(intervals: Sequence[Interval]) -> Counts:
    """Return the counts of waits whose polls were at edges; old and new ones count alike."""
    counts = Counts()
    for first, last in intervals:
        counts.add(EDGES[first], EDGES[last] if last else None)
        counts.weight = 1.0
    return counts


@given(st.floats(0, 6e6))
def test_an_age_has_a_nearest_edge(age: float) -> None:
    """Edges are evenly spaced by the logarithm of the age, but for one second."""
    distance = abs(math.log1p(EDGES[edge_at(age)]) - math.log1p(age))
    assert distance <= LOG_RATIO / 2 * (1 + 1e-9)


def test_the_last_edge_is_that_of_all_older_ages() -> None:
    """An age of 75 days and any longer one."""
    assert EDGES[BINS] == pytest.approx(75 * 86_400, rel=0.01)
    assert [edge_at(age) for age in (0.0, EDGES[BINS], 1e300)] == [0, BINS, BINS]


def test_jobs_at_risk_are_those_that_are_still_pending() -> None:
    """What became complete in an earlier bin is not, nor what was seen pending for the last time before."""
    hazard = Hazard.of([1.0, 0.0, 4.0], [8.0, 16.0, 32.0, 64.0])
    assert hazard.at_risk == [1 + 4 + 16 + 32 + 64, 4 + 32 + 64, 4 + 64]
    assert hazard.events == [1.0, 0.0, 4.0]


def test_without_jobs_durations_have_no_scale() -> None:
    """In each bin, which is longer by a factor, the same share of the jobs becomes complete; few jobs weigh more."""
    assert Hazard.of([0.0] * 3, [0.0] * 4).rates() == pytest.approx([LOG_RATIO] * 3)
    assert Hazard.of([6.0, 4.0], [0.0] * 3).rates() == pytest.approx(
        [(6 + LOG_RATIO / 2) / 10.5, (4 + LOG_RATIO / 2) / 4.5]
    )


def test_a_job_is_counted_between_the_edges_where_it_was_seen() -> None:
    """At least one bin long; one that was not seen complete counts at the edge where it was pending."""
    counts = Counts()
    assert counts.add(EDGES[3], EDGES[9]) == (3, 9)
    assert counts.end == 9
    assert counts.weight == pytest.approx(math.exp(1 / MEMORY_JOBS))
    assert counts.add(EDGES[5], EDGES[5]) == (5, 6)
    assert counts.add(EDGES[20], None) == (20, BINS)
    assert counts.add(EDGES[2], None) == (2, BINS)
    assert counts.end == 20
    assert counts.add(1e300, 1e301) == (BINS - 1, BINS)
    assert counts.end == BINS
    assert [divmod(key, BINS + 1) for key in counts.intervals] == [(3, 9), (5, 6), (BINS - 1, BINS)]
    assert list(counts.censored) == [20, 2]


def test_old_jobs_count_less() -> None:
    """A job counts 1/e once 800 newer ones have been seen, and nothing in the end; all count at most as 800."""
    counts = Counts()
    for first, last in [(1, 2), (1, 0), *[(3, 4)] * 800]:
        counts.add(EDGES[first], EDGES[last] if last else None)
    for old in (counts.intervals[1 * (BINS + 1) + 2], counts.censored[1]):
        assert old / counts.weight == pytest.approx(1 / math.e, rel=0.01)
    jobs = counts.jobs()
    assert jobs == pytest.approx(MEMORY_JOBS * (1 - 1 / math.e), rel=0.01)
    counts.rescale()
    assert counts.weight == 1.0
    assert counts.jobs() == pytest.approx(jobs)
    assert counts.censored[1] == pytest.approx(1 / math.e, rel=0.01)
    for _ in range(5000):
        counts.add(EDGES[3], EDGES[4])
    counts.rescale()
    assert (list(counts.intervals), list(counts.censored)) == ([3 * (BINS + 1) + 4], [])
    assert counts.jobs() == pytest.approx(MEMORY_JOBS, rel=0.01)


def test_what_is_forgotten_counts_less_than_what_comes() -> None:
    """By the factor."""
    counts = counted([(1, 2)] * 8)
    counts.forget(4.0)
    assert counts.jobs() == 8 / 4
    counts.add(EDGES[1], None)
    assert counts.jobs() == pytest.approx(8 / 4 + 1, rel=0.01)


def test_merged_counts_are_the_sum() -> None:
    """Each side by its own weights, and the estimate by the number of jobs."""
    one, two = counted([(1, 2)] * 30 + [(4, 0)] * 10), counted([(1, 2)] * 20 + [(4, 7)] * 100)
    one.forget(2.0)
    two.forget(5.0)
    one.estimate(20)
    two.estimate(20)
    for merged in (one.merged(two), two.merged(one)):
        assert {divmod(key, BINS + 1): weight for key, weight in merged.intervals.items()} == pytest.approx(
            {(1, 2): 30 / 2 + 20 / 5, (4, 7): 100 / 5}
        )
        assert merged.censored == pytest.approx({4: 10 / 2})
        assert (merged.end, merged.weight, len(merged.masses)) == (7, 1.0, len(two.masses))
        longer = one.masses + [0.0] * (len(two.masses) - len(one.masses))
        assert merged.masses == pytest.approx(
            [(20 * mine + 24 * theirs) / 44 for mine, theirs in zip(longer, two.masses, strict=True)]
        )
    assert Counts().merged(Counts()) == Counts()


def test_merged_counts_are_bounded() -> None:
    """As those of one pace are; what counts less than a few hundredths of a job then is dropped."""
    merged = counted([(1, 2)] * 600).merged(counted([(4, 5)] * 1000))
    assert merged.jobs() == pytest.approx(MEMORY_JOBS)
    assert list(merged.intervals.values()) == pytest.approx([300, 500])
    rare = counted([(1, 2)])
    rare.forget(20.0)
    assert len(rare.merged(counted([(4, 5)] * 800)).intervals) == 2
    assert len(rare.merged(counted([(4, 5)] * 1600)).intervals) == 1


def test_exact_durations_are_counted_in_their_bins() -> None:
    """Where each interval is one bin, the hazard is that of Kaplan and Meier, but for the half job of no scale."""
    counts = counted([(5, 6)] * 60 + [(7, 0)] * 20 + [(9, 10)] * 20)
    hazard = counts.estimate(3)
    unknown = LOG_RATIO / 2
    assert hazard.seen[5] == pytest.approx((60 + unknown) / 100.5, rel=1e-3)
    assert hazard.seen[9] == pytest.approx((20 + unknown) / 20.5, rel=1e-3)
    assert hazard.seen[6:8] == pytest.approx([unknown / 40.5, unknown / 20.5], rel=1e-3)
    assert counts.ranks()[6] == pytest.approx(0.6, rel=0.1)
    assert Counts().ranks() == []


def test_jobs_in_an_interval_are_where_others_are_known_to_be() -> None:
    """An interval that holds the bin of a hundred exact ones is nearly all in that bin."""
    hazard = counted([(10, 11)] * 100 + [(5, 30)] * 100).estimate(50)
    assert hazard.seen[10] > 0.95


@pytest.mark.parametrize(("rounds", "share"), [(1, 0.752), (2, 0.876), (3, 0.938)])
def test_each_round_goes_on_from_the_one_before(rounds: int, share: float) -> None:
    """A hundred jobs are in one of two bins, and as many in the first: the second holds half as many in each round."""
    counts = counted([(10, 11), (10, 12)] * 100)
    assert counts.estimate(rounds).seen[10] == pytest.approx(share, abs=0.003)


def test_new_bins_begin_with_the_jobs_that_are_left() -> None:
    """Nearly all jobs ended in one bin, so one that ended there or in a later one counts as one that ended there."""
    counts = counted([(10, 11)] * 100)
    counts.estimate(3)
    counts.add(EDGES[10], EDGES[60])
    assert sum(counts.estimate(1).events[26:]) < 0.1  # farther than events are smoothed


@settings(unhurried, max_examples=50)
@given(intervals_seen)
def test_an_estimate_agrees_with_what_was_seen(intervals: list[Interval]) -> None:
    """The masses are shares; after many rounds, a further one changes nothing; all jobs that were counted are in it."""
    counts = counted(intervals)
    hazard = counts.estimate(300)
    ranks = counts.ranks()
    assert ranks[0] == 0.0
    assert all(mass >= 0 for mass in counts.masses)
    assert ranks[-1] <= 1 + 1e-9
    complete = math.fsum(counts.intervals.values()) / counts.weight
    assert math.fsum(hazard.events) == pytest.approx(complete)
    assert hazard.at_risk[0] == pytest.approx(counts.jobs() - counts.censored.get(0, 0.0) / counts.weight)
    assert len(hazard.events) == len(hazard.at_risk) == len(hazard.seen) == len(counts.masses)


def test_an_estimate_counts_old_jobs_less() -> None:
    """Those that were seen complete and those that were not, alike."""
    counts = counted([(10, 11)] * 8 + [(10, 0)] * 4)
    counts.forget(4.0)
    hazard = counts.estimate(1)
    assert sum(hazard.events) == pytest.approx(8 / 4)
    assert hazard.at_risk[0] == pytest.approx(12 / 4)


def test_chance_is_evened_out_and_edges_stay() -> None:
    """Small differences between neighbours are due to chance, that of a hundred jobs to none is not."""
    uneven = [(number, number + 1) for number in range(20, 60) for _ in range(2 + 4 * (number % 2))]
    noisy = counted(uneven).estimate(1).events[30:50]
    assert max(noisy) - min(noisy) < 4 / 2
    steep = counted([(number, number + 1) for number in range(20, 30) for _ in range(40)]).estimate(1)
    assert steep.events[29] > 30
    assert steep.events[30] < 5
