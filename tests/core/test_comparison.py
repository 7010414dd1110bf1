"""What paces cost on jobs that were waited for before."""

import math
import random
from bisect import bisect_left
from collections.abc import Callable
from itertools import islice, pairwise

import hypothesis.strategies as st
import pytest
from attrs import evolve
from hypothesis import example, given, settings

from smilejobs import LearnedPace, Pace
from smilejobs.polling.comparison import MIN_COMPLETE_JOBS, Cost, Durations, Setting, Step, Waits, choose, poll_ages
from smilejobs.polling.hazard import MEMORY_JOBS
from tests.helpers.strategies import unhurried


def waited(durations: list[float], *, timeout: float = math.inf) -> Waits:
    """Wait for jobs of these durations, by ``Pace()``."""
    waits = Waits()
    for duration in durations:
        pending_at: float | None = None
        age = 0.0
        for age in poll_ages(Pace()):
            if age >= duration:
                break
            pending_at = age
            if age >= timeout:
                break
        waits.add(pending_at, age if age >= duration else None)
    return waits


def drawn(count: int, draw: Callable[[random.Random], float]) -> list[float]:
    random.seed(1)
    chance = random.Random(1)
    return [draw(chance) for _ in range(count)]


def machine(chance: random.Random) -> float:
    return chance.lognormvariate(math.log(5), 0.8)


def two_peaks(chance: random.Random) -> float:
    return chance.gauss(3, 0.3) if chance.random() < 0.5 else chance.gauss(40, 4)


@pytest.mark.parametrize("draw", [machine, two_peaks, lambda chance: chance.expovariate(1 / 600)])
def test_durations_are_estimated_from_intervals(draw: Callable[[random.Random], float]) -> None:
    """Far more exactly than the intervals are: by their quantiles, and by the mean."""
    durations = drawn(1500, draw)
    found = waited(durations).compare().durations
    for share in (0.25, 0.75, 0.9):
        exact = sorted(durations)[int(share * len(durations))]
        assert found.quantile(share) == pytest.approx(exact, rel=0.07)
    sample = found.sample(1000)
    assert sample == sorted(sample)
    assert sum(sample) / 1000 == pytest.approx(sum(durations) / len(durations), rel=0.05)


def test_the_costs_are_those_of_the_real_durations() -> None:
    """Of ``Pace()``, which knows nothing, and those that were learned and chosen are better."""
    durations = drawn(1500, two_peaks)
    compared = waited(durations).compare()
    random.seed(2)
    polls, late = 0, list[float]()
    for duration in durations:
        ages = [*islice(poll_ages(Pace()), 40)]
        seen = bisect_left(ages, duration)
        polls += seen + 1
        late.append(ages[seen] - duration)
    assert compared.default.polls == pytest.approx(polls / len(durations), rel=0.03)
    assert compared.default.mean_lateness == pytest.approx(sum(late) / len(late), rel=0.05)
    assert compared.default.lateness_of(0.99) == pytest.approx(sorted(late)[int(0.99 * len(late))], rel=0.1)
    for better in (compared.learned, compared.by_hand):
        assert better.polls < 0.6 * compared.default.polls
        assert better.mean_lateness < 1.05 * compared.default.mean_lateness


def test_the_figures_are_the_same_each_time() -> None:
    """And other random numbers of the process are not touched."""
    waits = waited(drawn(200, machine))
    random.seed(5)
    first = waits.compare()
    following = random.random()
    second = waits.compare()
    assert (first.default, first.learned, first.by_hand) == (second.default, second.learned, second.by_hand)
    assert (first.first_after, first.pace) == (second.first_after, second.pace)
    random.seed(5)
    assert random.random() == following


def test_paces_are_made_from_all_jobs() -> None:
    """A learned pace from the newest ones, which are all that it remembers; the setting by hand from every one."""
    durations = drawn(7400, machine)
    learned = waited(durations).compare().learned_pace
    assert isinstance(learned, LearnedPace)
    assert learned.jobs == pytest.approx(MEMORY_JOBS, rel=0.01)
    few = waited(durations[:20]).compare()
    assert few.learned_pace.jobs == pytest.approx(20, rel=0.05)
    assert (few.first_after, few.pace) == choose(few.durations.sample(400))


def test_jobs_that_are_pending_at_the_end_are_censored() -> None:
    """They took longer than they were waited for: without them, durations would seem shorter than they are."""
    durations = drawn(1000, lambda chance: chance.expovariate(1 / 60))
    waits = waited(durations, timeout=90)
    compared = waits.compare()
    assert (waits.complete + waits.pending, waits.at_once) == (1000, 0)
    assert waits.pending == pytest.approx(220, abs=40)
    assert compared.durations.quantile(0.5) == pytest.approx(60 * math.log(2), rel=0.07)
    assert compared.durations.quantile(0.95) is None
    assert max(compared.durations.sample(100)) < 110


def test_a_timeout_before_the_end_of_all_jobs_leaves_no_one_unknown() -> None:
    """If another job was seen complete later than all those that were pending, the distribution ends there."""
    waits = waited([5.0] * 20 + [100.0])
    waits.add(6.0, None)
    assert waits.compare().durations.complete[-1] == pytest.approx(1)


@pytest.mark.parametrize(
    ("left_early", "left", "is_known"),
    [
        (8, 4, False),  # fewer than five, and fewer than half of the twelve that should be pending
        (5, 7, True),
        (2, 4, True),  # fewer than five, but most of the six that should be pending
    ],
)
def test_what_few_jobs_took_is_unknown_where_most_waits_had_ended(
    *, left_early: int, left: int, is_known: bool
) -> None:
    """Twelve jobs are complete after 5 s; of those that are not, some waits end soon and some see the end."""
    waits = waited([5.0] * 12)
    for _ in range(left_early):
        waits.add(6.0, None)
    for _ in range(left):
        waits.add(99.0, 100.0)
    durations = waits.compare().durations
    assert (durations.quantile(1.0) is not None) is is_known
    assert durations.quantile(0.3) == pytest.approx(5, abs=0.5)


def test_waits_are_counted() -> None:
    """Complete ones, those among them that had no pending answer before, and those that ended without an outcome."""
    waits = Waits()
    for pending_at, complete_at in ((None, 3.0), (None, 4.0), (0.0, 5.0), (2.0, None), (None, None)):
        waits.add(pending_at, complete_at)
    assert (waits.complete, waits.at_once, waits.pending) == (3, 2, 2)


def test_how_exact_durations_are() -> None:
    """The width of the interval that is not exceeded by a share of the jobs, to within 4 %."""
    waits = Waits()
    for width in (1, 2, 3, 4, 5, 6, 7, 8, 9, 10):
        waits.add(100, 100 + width)
    assert waits.exactness(0.5) == pytest.approx(5, rel=0.04)
    assert waits.exactness(1) == pytest.approx(10, rel=0.04)


def test_too_few_jobs() -> None:
    """Nothing can be said, although pending jobs are many."""
    waits = waited([5.0] * (MIN_COMPLETE_JOBS - 1) + [500.0] * 50, timeout=100)
    with pytest.raises(ValueError, match="at least 10 jobs must be complete, got 9"):
        waits.compare()


def test_the_steps_of_the_hazard_lead_to_the_distribution() -> None:
    """What is left after all of them is the share of the jobs that are not known to be complete."""
    durations = waited(drawn(60, two_peaks), timeout=40.0).compare().durations
    left = math.prod(1 - step.rate * (step.end - step.start) for step in durations.steps())
    assert left == pytest.approx(1 - durations.complete[-1])


def test_the_quantiles_of_a_distribution() -> None:
    """Linear within a bin; more than the share of the jobs that is known to be complete is unknown."""
    durations = Durations(ages=[0, 1, 3], complete=[0, 0.5, 0.75])
    shares = (0, 0.25, 0.5, 0.625, 0.75)
    assert [durations.quantile(share) for share in shares] == pytest.approx([0, 0.5, 1, 2, 3])
    assert durations.quantile(0.76) is None
    assert durations.sample(3) == pytest.approx([0.25, 0.75, 2])


def test_the_hazard_is_a_share_of_the_jobs_that_are_pending() -> None:
    """Per second, for four bins and for what is left of them; none where no job is pending."""
    durations = Durations(ages=[0, 1, 2, 3, 4, 6], complete=[0, 0.1, 0.2, 0.3, 0.5, 0.75])
    first, rest = durations.steps()
    assert first == pytest.approx(Step(0, 4, 0.125))
    assert rest == pytest.approx(Step(4, 6, 0.25))
    *_, after_all = Durations(ages=durations.ages, complete=[0, 0.1, 0.2, 0.3, 1, 1]).steps()
    assert after_all == Step(4, 6, 0)


def test_how_late_a_share_of_the_results_is() -> None:
    """At most; of all of them, as late as the last one."""
    cost = Cost(polls=2.0, lateness=[1.0, 2.0, 3.0, 6.0])
    assert [cost.lateness_of(share) for share in (0, 0.5, 0.99, 1)] == [1, 3, 6, 6]
    assert cost.mean_lateness == 3


def test_the_schedule_of_a_setting_is_the_shortest_one() -> None:
    """Of some that differ at random; it ends with the poll that sees the job complete, also at that very instant."""
    begun = 0

    def pace(age: float, polls: int) -> float:
        nonlocal begun
        begun += polls == 1
        return 10.0 if begun == 3 else 3.0

    assert Setting(pace, 5.0).schedule(14.0) == [5, 15]
    assert begun > 3
    assert Setting(lambda age, polls: 2.0).schedule(4.0) == [0, 2, 4]


def test_long_schedules_are_few() -> None:
    """Two of 30,000 polls are enough."""
    begun = 0

    def pace(age: float, polls: int) -> float:
        nonlocal begun
        begun += polls == 1
        return 1.0

    assert len(Setting(pace).schedule(29_999.0)) == 30_000
    assert begun == 2


def test_a_setting_by_hand() -> None:
    """Where all jobs take the same time, there is no poll long before, and the last one comes just after."""
    first_after, pace = choose([39.0 + place / 100 for place in range(100)])
    schedule = Setting(evolve(pace, jitter=0), first_after).schedule(39.99)
    assert schedule[0] >= 20
    assert schedule[-1] == pytest.approx(40, abs=1)
    assert len(schedule) <= 3


def test_very_long_jobs_take_little_time_to_compare() -> None:
    """Jobs of forty days are polled tens of thousands of times; few schedules are enough then."""
    waits = Waits()
    for day in range(20):
        waits.add(86_400.0 * (20 + day), 86_400.0 * (21 + day))
    compared = waits.compare()
    assert compared.default.polls > 20_000
    assert compared.by_hand.polls < compared.default.polls


def test_the_default_is_chosen_where_nothing_is_better() -> None:
    """Jobs that are complete at once cost one poll in any case."""
    assert choose([0.0] * 100) == (0, Pace())


def cost_of(first_after: float, pace: Pace, durations: list[float]) -> tuple[int, float]:
    """Return the polls and the lateness of all jobs together, without jitter, by waiting for each of them."""
    polls, late = 0, 0.0
    for duration in durations:
        for age in poll_ages(evolve(pace, jitter=0), first_after):
            polls += 1
            if age >= duration:
                late += age - duration
                break
    return polls, late


some_durations = st.lists(st.floats(0, 10) | st.floats(0, 3000), min_size=1, max_size=12).map(sorted)


@settings(unhurried, max_examples=20)
@given(
    durations=some_durations,
    first_after=st.sampled_from([0, 1, 3, 7, 20, 60, 120, 600]),
    fraction=st.sampled_from([0.05, 0.1, 0.2, 0.3, 0.5, 1.0]),
    longest=st.sampled_from([60, 5, 20, 45, 120, 300, 900, 3600]),
)
@example([0.0] * 99 + [5000.0], 0, 1.0, 450)
def test_no_other_setting_has_fewer_polls_and_is_as_early(
    durations: list[float], first_after: float, fraction: float, longest: float
) -> None:
    """The setting by hand is at most as late as ``Pace()``, with the fewest polls of all those of the grid."""
    chosen_polls, chosen_late = cost_of(*choose(durations), durations)
    default_polls, default_late = cost_of(0.0, Pace(), durations)
    assert chosen_polls <= default_polls
    assert chosen_late <= default_late + 1e-6
    polls, late = cost_of(first_after, Pace(fraction=fraction, max=longest), durations)
    assert polls >= chosen_polls or late > default_late - 1e-6


def test_the_ages_of_polls() -> None:
    """The pace is asked with the age and the number of polls so far."""
    asked: list[tuple[float, int]] = []

    def pace(age: float, polls: int) -> float:
        asked.append((age, polls))
        return 2.0

    assert [*islice(poll_ages(pace, 5.0), 3)] == [5.0, 7.0, 9.0]
    assert asked == [(5.0, 1), (7.0, 2)]


ages = st.floats(0, 1e4) | st.sampled_from([0.0, 1e-9, 4.0])
waits_of_any_kind = st.lists(st.tuples(st.none() | ages, ages, st.booleans()), min_size=10, max_size=40)


@given(waits_of_any_kind)
@settings(unhurried, max_examples=10)
def test_any_waits_give_finite_figures(waits: list[tuple[float | None, float, bool]]) -> None:
    """Costs are at least one poll and not negative; the hazard and the distribution are in order."""
    counted = Waits()
    for pending_at, more, is_complete in [*waits, *[(1.0, 1.0, True)] * 10]:
        counted.add(pending_at, (pending_at or 0.0) + more if is_complete else None)
    compared = counted.compare()
    for cost in (compared.default, compared.learned, compared.by_hand):
        assert 1 <= cost.polls < math.inf
        assert 0 <= cost.mean_lateness <= cost.lateness_of(1.0) < math.inf
    assert all(before <= after for before, after in pairwise(compared.durations.complete))
    assert all(0 <= step.rate < math.inf for step in compared.durations.steps())
