"""When a learned pace plans anew, at which price, and what it makes of its plan."""

import json
import math
import random
from bisect import bisect_left
from itertools import pairwise

import pytest

from smilejobs import LearnedPace, Pace
from smilejobs.polling.comparison import poll_ages
from smilejobs.polling.hazard import EDGES, edge_at
from smilejobs.polling.learning import Learner, base_table
from smilejobs.polling.schedule import mean_lateness, shares

BASE = Pace(jitter=0)
MIDDLES = [(start + end) / 2 for start, end in pairwise(EDGES)]


def learner(*durations: float, base: Pace = BASE, lateness: float | None = None) -> Learner:
    """Return a learner that has seen jobs of these durations, to within a second."""
    one = Learner(base=base, lateness=lateness)
    for duration in durations:
        one.observe(duration, duration + 1.0)
    return one


# What the base does


@pytest.mark.parametrize("base", [BASE, Pace(min=0.5, max=20, fraction=0.3, jitter=0)])
def test_what_a_pace_does_is_known_for_each_age(base: Pace) -> None:
    """The delay, the lateness, the polls, and the hazard for which its delays would be the best."""
    table = base_table(base)
    ages = [age for age, _ in zip(poll_ages(base), range(2000), strict=False)]
    for age in (0.3, 0.9, 2.0, 5.0, 20.0, 100.0, 1000.0, 5000.0):
        number = bisect_left(EDGES, age) - 1
        middle, length = MIDDLES[number], EDGES[number + 1] - EDGES[number]
        place = bisect_left(ages, middle)
        assert table.delays[number] == pytest.approx(base(middle, 1))
        if place < 25:
            assert table.lateness[number] == pytest.approx(ages[place] - middle)
        else:
            assert table.lateness[number] == pytest.approx(base(middle, 1) / 2)
        assert table.polls[number] == pytest.approx(place, abs=1.0, rel=0.12)
        assert (2 * length / table.rates[number]) ** 0.5 == pytest.approx(table.delays[number])
    assert len(table.delays) == len(table.lateness) == len(table.polls) == len(table.rates) == len(MIDDLES)


def test_what_a_pace_does_at_first_is_known_with_its_jitter() -> None:
    """Polls that are a second apart at first are spread more and more."""
    table = base_table(Pace(jitter=0.3))
    random.seed(1)
    for age in (0.5, 1.0, 3.0, 6.0):
        number = edge_at(age)
        middle = MIDDLES[number]
        late = [next(at for at in poll_ages(Pace(jitter=0.3)) if at >= middle) - middle for _ in range(4000)]
        assert table.lateness[number] == pytest.approx(math.fsum(late) / len(late), abs=0.12)


# Plans


def test_plans_become_rarer() -> None:
    """The first one after five jobs; then after two fifths more, five at least."""
    one = Learner(base=BASE, lateness=None)
    made = []
    for count in range(1, 120):
        plans = one.plans
        one.observe(10.0 + count % 7, 11.0 + count % 7)
        if one.plans > plans:
            made.append(count)
        assert bool(one.targets) is (count >= 5)
    assert made == [5, 10, 15, 20, 27, 37, 51, 70, 96]


@pytest.mark.parametrize("lateness", [5.0, 60.0])
def test_the_lateness_that_is_wanted_is_planned(lateness: float) -> None:
    """Also one far beyond that of the base, which decides at first: its polls are then as dense at any price."""
    one = learner(*(-1000.0 * math.log(1 - index * 0.618 % 1) for index in range(100)), lateness=lateness)
    bins = list(pairwise(EDGES[: len(one.targets)]))
    known = shares([1 - math.exp(-(end - start) / 1000) for start, end in bins])
    assert mean_lateness(known, one.targets) == pytest.approx(lateness, rel=0.4)


def settled() -> Learner:
    """Return a learner that has seen a thousand durations from 20 to 40 s, and does not plan by itself soon."""
    one = learner(*(20.0 + 20.0 * (index * 0.618 % 1) for index in range(1000)))
    one.plan()
    one.until_plan = 1000
    one.drift = one.drift_of_variance = 0.0
    return one


def test_the_shortest_delay_of_a_plan_is_its_mean_with_jitter() -> None:
    """Jitter makes it longer but never shorter: it is spread from 1 to 1.4 s for half of the polls."""
    one = learner(*(index * 0.618 % 10 for index in range(60)), base=Pace(jitter=0.4), lateness=0.01)
    delays = [target - age for age, target in zip(EDGES, one.targets, strict=False)]
    assert min(delays) == pytest.approx(1.0 + 0.4 / 4)


def test_a_later_plan_is_priced_by_what_the_one_before_does() -> None:
    """A price that is too low is kept while the polls that were planned before are as late as they should be."""
    one = learner(*(20.0 + 20.0 * (index * 0.618 % 1) for index in range(600)), lateness=2.0)
    price = one.price
    one.price = 0.8 * price
    one.plan()
    assert one.price == pytest.approx(0.8 * price, rel=0.1)
    one.plan()
    assert one.price > 0.85 * price


@pytest.mark.parametrize(
    ("durations", "jobs"),
    [((1000.0,), 18), ((1.0,), 18), ((1.0, 1000.0), 18), ((36.0,), 55), ((24.0,), 55), ((30.0,), 46)],
)
def test_a_change_of_durations_is_noticed(durations: tuple[float, ...], jobs: int) -> None:
    """If all jobs take far longer or less long than those before, or one of two such times; then in fewer other cases.

    What was seen before counts less by a factor of eight then.
    """
    one = settled()
    remembered, plans, count = one.counts.jobs(), one.plans, 0
    while one.plans >= plans and count < 100:
        duration = durations[count % len(durations)]
        one.observe(duration, duration + 0.01)
        count += 1
    assert count == pytest.approx(jobs, rel=0.1)
    assert (one.plans, one.drift, one.drift_of_variance) == (1, 0.0, 0.0)
    assert one.counts.jobs() == pytest.approx(remembered / 8, rel=0.05)


def test_the_same_durations_are_no_change() -> None:
    """Nor are waits that ended early: they say nothing about durations."""
    one = settled()
    plans = one.plans
    for index in range(300):
        duration = 20.0 + 20.0 * (index * 0.618 % 1)
        one.observe(duration, duration + 0.01)
        one.observe(1.0, None)
    assert one.plans == plans


def test_a_merged_learner_has_a_plan_if_jobs_are_enough() -> None:
    """More than five of both together; its price begins between those of the two."""
    assert learner(1.0, 2.0).merged(learner(3.0, 4.0)).plans == 0
    assert learner(1.0, 2.0, 3.0).merged(learner(3.0, 4.0, 5.0)).plans == 1
    one, two = learner(*range(1, 31)), learner(*range(1, 11))
    one.price, two.price = 0.2, 0.6
    few = Learner(base=BASE, lateness=None, price=0.6).merged(Learner(base=BASE, lateness=None, price=0.2))
    assert few.price == pytest.approx(0.4)
    assert (few.plans, len(few.targets)) == (0, 0)
    assert one.merged(two).plans == min(one.plans, two.plans) + 1


# Delays


def planned(targets: dict[int, float], *, count: int = 130, base: Pace = BASE) -> LearnedPace:
    """Return a pace that polls ten seconds later, but for these edges."""
    data = json.loads(LearnedPace(base=base).to_json())
    data["complete"]["masses"] = [0.0] * count
    data["complete"]["targets"] = [targets.get(number, EDGES[number] + 10.0) for number in range(count + 1)]
    return LearnedPace.from_json(json.dumps(data))


AT = EDGES[100]
LENGTH = EDGES[101] - EDGES[100]
"""At an age of 50 s, bins are 2 s long, and the base polls after 7.5 s."""


def test_at_an_edge_the_plan_decides() -> None:
    """The delay is that to the age of the next poll."""
    assert planned({100: AT + 9.0})(AT * (1 + 1e-9), 9) == pytest.approx(9.0, rel=1e-4)
    assert planned({100: AT + 12.0})(AT * (1 + 1e-9), 9) == pytest.approx(12.0, rel=1e-4)


@pytest.mark.parametrize("share", [0.1, 0.4, 0.6, 0.8])
def test_between_edges_the_plan_is_that_of_both(share: float) -> None:
    """A share of the way from one to the other, or the nearer one where they are more than three bins apart."""
    age = AT + share * LENGTH
    for apart in (1.0, 2.9):
        pace = planned({100: AT + 9.0, 101: AT + 9.0 + apart * LENGTH})
        assert pace(age, 9) == pytest.approx(9.0 + share * (apart - 1) * LENGTH)
    far = planned({100: AT + 9.0, 101: AT + 9.0 + 3.1 * LENGTH})
    assert far(age, 9) == pytest.approx((9.0 if share < 0.5 else 9.0 + 3.1 * LENGTH) - share * LENGTH)


def test_beyond_the_plan_the_base_decides() -> None:
    """From the last bin but one on, where next to nothing is known."""
    pace = planned({}, count=110)
    assert pace(EDGES[108] * 1.001, 9) == pytest.approx(10.0, rel=0.02)
    for number in (109, 110, 200):
        assert pace(EDGES[number] * 1.001, 9) == BASE(EDGES[number] * 1.001, 9)


def test_a_delay_has_bounds() -> None:
    """It is not shorter than the shortest one of the base, nor longer than ten times its longest one."""
    random.seed(1)
    assert planned({100: AT + 0.2})(AT * (1 + 1e-9), 9) == 1.0
    short = Pace(max=2, jitter=0)
    assert max(planned({100: AT + 1000.0, 101: AT + 1000.0}, base=short)(AT + 0.1, 9) for _ in range(20)) == 20.0


def test_a_tenth_of_the_long_delays_is_cut() -> None:
    """More often by little than by much; none is shorter than that of the base, and shorter delays are not cut."""
    random.seed(2)
    pace = planned({100: AT + 40.0, 101: AT + 40.0})
    delays = [pace(AT * (1 + 1e-9), 9) for _ in range(20_000)]
    usual = BASE(AT, 9)
    cut = [(40.0 - delay) / (40.0 - usual) for delay in delays if delay < 39.99]
    assert len(cut) / len(delays) == pytest.approx(0.1, rel=0.1)
    assert max(cut) <= 1 + 1e-6
    assert max(cut) > 0.98
    assert math.fsum(cut) / len(cut) == pytest.approx(1 / 3, rel=0.05)
    for twice, is_cut in ((1.99, False), (2.01, True)):
        pace = planned({100: AT + twice * usual, 101: AT + twice * usual})
        assert (min(pace(AT * (1 + 1e-9), 9) for _ in range(200)) < 1.9 * usual) is is_cut


@pytest.mark.parametrize(
    ("age", "delay", "width"),
    [(AT, 12.0, 0.15 * (AT + 12.0)), (AT, 3.0, 3.0), (1.0, 1.9, 1.0), (EDGES[149], 70.0, 60.0)],
)
def test_the_jitter_is_that_of_the_base_at_the_next_poll(age: float, delay: float, width: float) -> None:
    """It is a part of the delay that the base has there, and of no more than the delay itself."""
    random.seed(3)
    number = edge_at(age)
    after = {number: EDGES[number] + delay, number + 1: EDGES[number] + delay}
    pace = planned(after, count=160, base=Pace(jitter=0.2))
    delays = [pace(EDGES[number] * (1 + 1e-9), 9) - delay for _ in range(4000)]
    assert min(delays) == pytest.approx(-0.2 * width, rel=0.02)
    assert max(delays) == pytest.approx(0.2 * width, rel=0.02)
