"""A pace that learns how long jobs take."""

import json
import math
import random
import re
from collections.abc import Callable, Sequence
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from smilejobs import LearnedPace, Pace
from smilejobs.polling.hazard import BINS, EDGES
from smilejobs.polling.schedule import best_targets, mean_lateness, shares
from tests.helpers.strategies import unhurried

ages = st.floats(0, 1e7) | st.sampled_from([0.0, 1e-9, 4.0, 1200.0, 1e12, 1e300])
observations = st.lists(
    st.tuples(ages, ages | st.none(), st.booleans()).map(
        lambda each: (each[0], None if each[1] is None else max(each[0], each[1]), each[2])
    ),
    max_size=25,
)
few = settings(unhurried, max_examples=25)
"""An example takes some milliseconds."""


def taught(waits: Sequence[tuple[float, float | None, bool]], pace: LearnedPace | None = None) -> LearnedPace:
    """A pace that has seen these waits."""
    pace = pace or LearnedPace()
    for pending_at, complete_at, provisional in waits:
        pace.observe(pending_at=pending_at, complete_at=complete_at, provisional=provisional)
    return pace


def wait(pace: Callable[[float, int], float], duration: float) -> tuple[float, float, int]:
    """Wait for one job: its ages at the last pending poll and at the end, and how many polls there were."""
    age, pending_at, polls = 0.0, 0.0, 1
    while age < duration:
        pending_at = age
        age += pace(age, polls)
        polls += 1
    return pending_at, age, polls


def learn(pace: LearnedPace, durations: list[float]) -> LearnedPace:
    """Let a pace wait for jobs, and learn from them."""
    for duration in durations:
        pending_at, complete_at, _ = wait(pace, duration)
        pace.observe(pending_at=pending_at, complete_at=complete_at)
    return pace


def ratios(pace: LearnedPace, durations: list[float]) -> tuple[float, float]:
    """Polls and mean lateness, over those of the base."""
    polls = lateness = polls_of_base = lateness_of_base = 0.0
    for duration in durations:
        _, complete_at, count = wait(pace, duration)
        polls += count
        lateness += complete_at - duration
        _, complete_at, count = wait(pace.base, duration)
        polls_of_base += count
        lateness_of_base += complete_at - duration
    return polls / polls_of_base, lateness / lateness_of_base


def drawn(seed: int, count: int, draw: Callable[[random.Random], float]) -> list[float]:
    """Durations; the jitter of paces is seeded as well."""
    random.seed(seed)
    chance = random.Random(seed)
    return [draw(chance) for _ in range(count)]


def machine(chance: random.Random) -> float:
    return chance.lognormvariate(math.log(5), 0.8)


def two_peaks(chance: random.Random) -> float:
    return max(0.1, chance.gauss(3, 0.3) if chance.random() < 0.5 else chance.gauss(40, 4))


@pytest.mark.parametrize("age", [0.0, 10.0, 1e4, 1e9])
def test_it_begins_as_its_base(age: float) -> None:
    """Before it has seen five jobs, delays are those of the base, in either phase."""
    base = Pace(min=2, max=30, fraction=0.2, jitter=0)
    pace = taught([(1, 2, False)] * 4, LearnedPace(base=base))
    assert pace(age, 1) == pace.after_provisional(age, 1) == base(age, 1)
    assert LearnedPace().base == Pace()


@few
@given(waits=observations, age=st.floats(0, 1e9), lateness=st.none() | st.floats(0.001, 1e6))
def test_delays_are_finite_and_keep_their_bounds(
    waits: list[tuple[float, float | None, bool]], age: float, lateness: float | None
) -> None:
    """After any sequence of observations, a delay is between base.min and the limit, in both phases."""
    pace = taught(waits, LearnedPace(lateness=lateness))
    for delay in (pace(age, 3), pace.after_provisional(age, 3)):
        assert pace.base.min * (1 - pace.base.jitter) <= delay <= pace.limit


@few
@given(one=observations, two=observations)
def test_merging_is_commutative(
    one: list[tuple[float, float | None, bool]], two: list[tuple[float, float | None, bool]]
) -> None:
    """The order does not matter, and what is merged stays as it is."""
    first, second = taught(one), taught(two)
    texts = first.to_json(), second.to_json()
    merged = first.merge(second)
    assert merged == second.merge(first)
    assert merged.to_json() == second.merge(first).to_json()
    assert (first.to_json(), second.to_json()) == texts


@few
@given(waits=observations, more=observations)
def test_saving_and_loading_are_exact(
    waits: list[tuple[float, float | None, bool]], more: list[tuple[float, float | None, bool]]
) -> None:
    """A pace that was loaded is equal, and learns on as the one that was saved."""
    pace = taught(waits, LearnedPace(base=Pace(min=0.3, jitter=0.2), lateness=0.7))
    loaded = LearnedPace.from_json(pace.to_json())
    assert loaded == pace
    assert (loaded.base, loaded.lateness) == (pace.base, pace.lateness)
    assert taught(more, loaded) == taught(more, pace)


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    """Saving leaves no other file, and what is loaded equals what was saved."""
    path = tmp_path / "pace.json"
    path.write_text("old")
    pace = learn(LearnedPace(), drawn(1, 50, machine))
    pace.save(path)
    assert LearnedPace.load(str(path)) == pace
    assert [each.name for each in tmp_path.iterdir()] == ["pace.json"]
    assert path.stat().st_size < 40_000


def test_a_file_that_cannot_be_replaced_leaves_nothing_behind(tmp_path: Path) -> None:
    """The error of the system is raised, and no part is left."""
    (tmp_path / "pace.json").mkdir()
    with pytest.raises(OSError, match=r"pace\.json"):
        LearnedPace().save(tmp_path / "pace.json")
    assert [each.name for each in tmp_path.iterdir()] == ["pace.json"]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"kind": "other"}, "not a learned pace: expected an object with kind 'smilejobs learned pace'"),
        ({"version": 2}, "a learned pace in format 2; this version of smilejobs reads format 1"),
        ({"version": None}, "a learned pace in format None; this version of smilejobs reads format 1"),
        ({"base": {"min": 1}}, "not a whole learned pace: KeyError: 'max'"),
        (
            {"base": {"min": True, "max": 60, "fraction": 0.15, "jitter": 0.1}},
            "not a whole learned pace: TypeError: expected a number, not bool",
        ),
        (
            {"base": {"min": 2, "max": 1, "fraction": 0.15, "jitter": 0.1}},
            "not a whole learned pace: ValueError: max must not be less than min",
        ),
        ({"lateness": -1}, "not a whole learned pace: ValueError: the number -1 is out of range"),
        ({"lateness": 0}, "not a whole learned pace: ValueError: the number 0 is out of range"),
        ({"lateness": "1"}, "not a whole learned pace: TypeError: expected a number, not str"),
        ({"complete": None}, "not a whole learned pace: TypeError: "),
        ({"final": {}}, "not a whole learned pace: KeyError: 'weight'"),
    ],
)
def test_a_file_of_another_kind_is_refused(change: dict[str, Any], text: str) -> None:
    """The text says what is wrong."""
    data = json.loads(LearnedPace().to_json())
    with pytest.raises(ValueError, match=f"^{re.escape(text)}"):
        LearnedPace.from_json(json.dumps(data | change))


NO_FIT = "ValueError: masses and targets do not fit each other"


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"weight": 0.5}, "ValueError: the number 0.5 is out of range"),
        ({"weight": 1e300}, "ValueError: the number 1e+300 is out of range"),
        ({"weight": None}, "TypeError: expected a number, not NoneType"),
        ({"intervals": [[3, 3, 1.0]]}, "ValueError: no interval from 3 to 3"),
        ({"intervals": [[-1, 3, 1.0]]}, "TypeError: expected a whole number, not -1"),
        ({"intervals": [[1, BINS + 1, 1.0]]}, f"ValueError: no interval from 1 to {BINS + 1}"),
        ({"intervals": [[1.5, 2, 1.0]]}, "TypeError: expected a whole number, not 1.5"),
        ({"intervals": [[1, 2, -1.0]]}, "ValueError: the number -1.0 is out of range"),
        ({"intervals": [[1, 2, 0.0]]}, "ValueError: the number 0.0 is out of range"),
        ({"intervals": [[1, 2]]}, "ValueError: "),
        ({"intervals": 5}, "TypeError: "),
        ({"censored": [[BINS + 1, 1.0]]}, f"ValueError: no edge {BINS + 1}"),
        ({"censored": [[True, 1.0]]}, "TypeError: expected a whole number, not True"),
        ({"censored": [[1, 0.0]]}, "ValueError: the number 0.0 is out of range"),
        ({"masses": [2.0], "targets": [1.0, 2.0]}, NO_FIT),
        ({"masses": [0.5, 0.501], "targets": [1.0, 2.0, 3.0]}, NO_FIT),
        ({"masses": [0.0] * (BINS + 1), "targets": [1.0] * (BINS + 2)}, NO_FIT),
        ({"masses": [-0.1]}, "ValueError: the number -0.1 is out of range"),
        ({"masses": [0.1], "targets": [1.0]}, NO_FIT),
        ({"masses": [0.1], "targets": [1.0, 2.0, 3.0]}, NO_FIT),
        ({"masses": [0.1], "targets": [1.0, -2.0]}, "ValueError: the number -2.0 is out of range"),
        ({"targets": [1.0]}, NO_FIT),
        ({"price": 0}, "ValueError: the number 0 is out of range"),
        ({"until_plan": -1}, "TypeError: expected a whole number, not -1"),
        ({"until_plan": 1.0}, "TypeError: expected a whole number, not 1.0"),
        ({"plans": 10**400}, "TypeError: expected a whole number, not 1"),
        ({"drift": -2}, "ValueError: the number -2 is out of range"),
        ({"drift_of_variance": -2}, "ValueError: the number -2 is out of range"),
        ({"drift_of_variance": 10**400}, "OverflowError: "),
    ],
)
@pytest.mark.parametrize("phase", ["complete", "final"])
def test_a_file_with_junk_is_refused(phase: str, change: dict[str, Any], text: str) -> None:
    """Counts, weights and ages that cannot be are never taken in; the text says what is wrong."""
    data = json.loads(LearnedPace().to_json())
    data[phase] |= change
    with pytest.raises(ValueError, match=f"^{re.escape(f'not a whole learned pace: {text}')}"):
        LearnedPace.from_json(json.dumps(data))


@pytest.mark.parametrize(
    "change",
    [
        {"weight": 1.0, "until_plan": 0, "plans": 0, "price": 1e-12, "drift": -1.0, "drift_of_variance": -1.0},
        {"weight": 1e9, "until_plan": 10**9, "plans": 10**9, "price": 1e9, "drift": 1.0, "drift_of_variance": 1.0},
        {"intervals": [[0, 1, 1e-9], [BINS - 1, BINS, 1e9]], "censored": [[0, 1e-9], [BINS, 1e9]]},
        {"masses": [0.0, 1.0], "targets": []},
        {"masses": [1 / BINS] * BINS, "targets": [0.0] * BINS + [1e9]},
    ],
)
def test_all_that_may_be_in_a_file_is_taken_in(change: dict[str, Any]) -> None:
    """Up to the least and the largest values; it is written again as it was read."""
    data = json.loads(LearnedPace(lateness=1e-9).to_json())
    data["complete"] |= change
    assert json.loads(LearnedPace.from_json(json.dumps(data)).to_json()) == data


@pytest.mark.parametrize("text", ["", "[]", "5", "null", '{"kind": NaN}', "[" * 100_000, '{"kind": 1'])
def test_what_is_no_pace_is_refused(text: str) -> None:
    """Any other text is a ValueError."""
    with pytest.raises(ValueError, match="^not a learned pace: "):
        LearnedPace.from_json(text)


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    """As any other text that is no JSON; a number that JSON does not know is named."""
    path = tmp_path / "pace.json"
    path.write_bytes(b"\xff")
    with pytest.raises(ValueError, match="^not a learned pace: the JSON cannot be read"):
        LearnedPace.load(path)
    path.write_bytes(b'{"kind": -Infinity}')
    with pytest.raises(ValueError, match=r"^not a learned pace: the JSON cannot be read \(-Infinity is not JSON\)$"):
        LearnedPace.load(path)


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    """Wherever it was cut."""
    text = learn(LearnedPace(), drawn(1, 30, machine)).to_json()
    path = tmp_path / "pace.json"
    for length in range(0, len(text), 97):
        path.write_text(text[:length])
        with pytest.raises(ValueError, match="^not a learned pace"):
            LearnedPace.load(path)


@pytest.mark.parametrize(
    ("pending_at", "complete_at", "error", "text"),
    [
        (-1, 2, ValueError, "^pending_at must not be negative"),
        (math.nan, 2, ValueError, "^pending_at must be a finite"),
        (math.inf, None, ValueError, "^pending_at must be a finite"),
        (1, math.nan, ValueError, "^complete_at must be a finite"),
        (1, -2, ValueError, "^complete_at must not be negative"),
        (3, 2, ValueError, "^complete_at must not be less than pending_at, got 2 and 3 s"),
        ("1", 2, TypeError, "^pending_at must be seconds"),
        (1, True, TypeError, "^complete_at must be seconds"),
        (None, 2, TypeError, "^pending_at must be seconds"),
    ],
)
def test_observations_that_cannot_be_are_refused(
    pending_at: Any, complete_at: Any, error: type[Exception], text: str
) -> None:
    """The text names the argument, and nothing is learned."""
    pace = LearnedPace()
    with pytest.raises(error, match=text):
        pace.observe(pending_at=pending_at, complete_at=complete_at)
    assert pace == LearnedPace()


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"base": lambda age, polls: 1.0}, TypeError, "^base must be a Pace, not function"),
        ({"lateness": 0}, ValueError, "^lateness must be more than 0"),
        ({"lateness": "1"}, TypeError, "^lateness must be seconds"),
    ],
)
def test_arguments_that_can_never_be_right_are_refused(
    arguments: dict[str, Any], error: type[Exception], text: str
) -> None:
    """The text names the argument."""
    with pytest.raises(error, match=text):
        LearnedPace(**arguments)


def test_what_cannot_be_merged_is_refused() -> None:
    """Only learned paces with the same base and lateness can be merged."""
    with pytest.raises(TypeError, match="^other must be a LearnedPace, not Pace"):
        LearnedPace().merge(Pace())  # type: ignore[arg-type]  # that is what is tested
    with pytest.raises(ValueError, match="^paces with different bases or lateness cannot be merged$"):
        LearnedPace().merge(LearnedPace(lateness=1))
    with pytest.raises(ValueError, match="^paces with different bases or lateness cannot be merged$"):
        LearnedPace().merge(LearnedPace(base=Pace(min=2)))


def test_what_is_merged_keeps_its_base_and_its_lateness() -> None:
    """Both are those of the two that were merged, and so is the longest delay."""
    one, two = (LearnedPace(base=Pace(min=2, max=7, jitter=0), lateness=3) for _ in range(2))
    merged = one.merge(two)
    assert (merged.base, merged.lateness, merged.limit) == (one.base, one.lateness, 70.0)


def test_its_repr_shows_the_base_and_the_jobs() -> None:
    """It is equal to nothing but its like, cannot be a key, and shows no more than numbers."""
    pace = taught([(1, 2, False), (2, None, False), (3, 4, True)], LearnedPace(lateness=timedelta(seconds=2)))
    assert repr(pace) == f"<LearnedPace base={Pace()!r} lateness=2.0 jobs=2>"
    assert pace != Pace()
    assert pace != LearnedPace()
    with pytest.raises(TypeError, match="unhashable"):
        hash(pace)


@pytest.mark.parametrize(
    ("draw", "polls", "lateness"),
    [
        (machine, 0.87, 1.1),
        (lambda chance: chance.expovariate(1 / 600), 0.43, 1.12),
        (two_peaks, 0.40, 0.75),
        (lambda chance: chance.uniform(3.9, 4.1), 0.42, 0.5),
        (lambda chance: chance.gauss(1200, 60), 0.25, 0.5),
    ],
)
def test_polls_become_fewer_at_the_same_lateness(
    draw: Callable[[random.Random], float], polls: float, lateness: float
) -> None:
    """After 1,500 jobs that it has waited for itself; benchmarks/pace.py measures more."""
    pace = learn(LearnedPace(), drawn(3, 1500, draw))
    seen = ratios(pace, drawn(4, 1500, draw))
    assert seen[0] <= polls
    assert seen[1] <= lateness


@pytest.mark.parametrize("draw", [machine, two_peaks, lambda chance: chance.uniform(3.9, 4.1)])
def test_few_jobs_do_no_harm(draw: Callable[[random.Random], float]) -> None:
    """After 20 jobs there are no more polls than before, and lateness is at most a quarter longer."""
    pace = learn(LearnedPace(), drawn(5, 20, draw))
    polls, lateness = ratios(pace, drawn(6, 1500, draw))
    assert polls <= 1.0
    assert lateness <= 1.25


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (machine, lambda chance: 3 * machine(chance)),
        (two_peaks, machine),
        (lambda chance: chance.gauss(1200, 60), machine),
    ],
)
def test_it_follows_a_change(before: Callable[[random.Random], float], after: Callable[[random.Random], float]) -> None:
    """A thousand jobs after durations have changed, it is nearly as good as if they had always been so."""
    pace = learn(learn(LearnedPace(), drawn(7, 800, before)), drawn(8, 1000, after))
    always = learn(LearnedPace(), drawn(8, 1000, after))
    durations = drawn(9, 1500, after)
    polls, lateness = ratios(pace, durations)
    polls_of_always, lateness_of_always = ratios(always, durations)
    assert polls * lateness <= 1.15 * polls_of_always * lateness_of_always
    assert polls <= 1.2 * polls_of_always


def test_the_lateness_that_is_wanted_is_met() -> None:
    """With ``lateness``, the mean lateness is that many seconds, more polls or fewer."""
    durations = drawn(10, 2000, lambda chance: chance.expovariate(1 / 100))
    means: list[float] = []
    for wanted in (2.0, 10.0):
        pace = learn(LearnedPace(lateness=wanted), durations)
        means.append(math.fsum(wait(pace, duration)[1] - duration for duration in durations) / len(durations))
    assert means == pytest.approx([2.0, 10.0], rel=0.15)


def test_jobs_that_are_not_seen_complete_count_as_pending() -> None:
    """Waits that time out make a pace poll less before that age, and not more."""
    pace = taught([(100.0, None, False)] * 200, LearnedPace(base=Pace(jitter=0)))
    delays = [pace(10.0, 1) for _ in range(50)]
    assert sum(delays) / 50 > 1.5 * Pace(jitter=0)(10.0, 1)


def test_a_provisional_answer_begins_another_distribution() -> None:
    """The two phases learn apart, and merge and are saved as two."""
    random.seed(11)
    pace = taught([*[(0.0, 3.0, False)] * 50, *[(590.0, 600.0, True)] * 300])
    assert pace(0.0, 1) < 5
    assert pace.after_provisional(60.0, 1) > 40
    assert LearnedPace.from_json(pace.to_json()) == pace
    assert pace.merge(LearnedPace()).after_provisional(60.0, 1) > 40


def test_merging_adds_what_both_know() -> None:
    """Two halves together are about as good as the whole, and are remembered up to the same number of jobs."""
    halves = [learn(LearnedPace(), drawn(seed, 600, two_peaks)) for seed in (12, 13)]
    merged = halves[0].merge(halves[1])
    assert max(half.jobs for half in halves) <= merged.jobs <= 800 * 1.001
    polls, lateness = ratios(merged, drawn(14, 1500, two_peaks))
    assert polls < 0.55
    assert lateness < 1.0


def test_the_jitter_of_a_learned_delay_is_that_of_its_base() -> None:
    """It is a part of the delay that the base has at the age of the next poll."""
    random.seed(16)
    exact, spread = (
        taught([(99.0, 100.0, False)] * 50, LearnedPace(base=Pace(min=1, max=300, fraction=0.2, jitter=jitter)))
        for jitter in (0.0, 0.5)
    )
    delay = max(exact(50.0, 9) for _ in range(50))  # one of ten is shorter, to explore
    longest = max(spread(50.0, 9) for _ in range(300))
    assert longest == pytest.approx(delay + 0.5 * 0.2 * (50.0 + delay), rel=0.02)


def test_memory_is_bounded() -> None:
    """However many jobs it has seen, it remembers some hundred, in a bounded number of intervals."""
    pace = learn(LearnedPace(), drawn(15, 5000, machine))
    assert 700 < pace.jobs <= 900
    assert len(pace.to_json()) < 40_000


def test_a_job_beyond_the_last_bin_is_counted_in_it() -> None:
    """A wait of years, after many of seconds, ends at the longest delay and harms no plan."""
    pace = learn(LearnedPace(), drawn(16, 200, machine))
    for _ in range(200):
        pace.observe(pending_at=1e8, complete_at=1.1e8)
    assert pace.base.min <= pace(1e7, 100) <= pace.limit
    assert LearnedPace.from_json(pace.to_json()) == pace


def test_a_poll_falls_between_edges_where_that_is_best() -> None:
    """A schedule for jobs that become complete within one bin of half a minute is not bound to its edges."""
    number = 170
    start, end = EDGES[number], EDGES[number + 1]
    rates = [0.0] * number + [1 - 1e-12, *[0.0] * 5]
    targets = best_targets(shares(rates), price=(end - start) / 10, shortest=1.0, delays=[60.0] * len(rates))
    assert start < targets[0] < end


def test_the_schedule_is_that_of_keller_where_polls_are_dense() -> None:
    """For a constant hazard, polls are evenly spaced by the square root of twice the price over the hazard."""
    hazard, price = 1 / 600, 3.0
    count = 160
    rates = [1 - math.exp(-hazard * (end - start)) for start, end in pairwise(EDGES[: count + 1])]
    known = shares(rates)
    targets = best_targets(known, price=price, shortest=1.0, delays=[60.0] * count)
    best = math.sqrt(2 * price / hazard)
    spacings = [target - age for target, age in zip(targets, EDGES, strict=False) if 100 < age < 400]
    assert sum(spacings) / len(spacings) == pytest.approx(best, rel=0.1)
    assert mean_lateness(known, targets) == pytest.approx(best / 2, rel=0.1)


def test_a_bin_without_events_is_passed_over() -> None:
    """Where no job becomes complete, there is no poll."""
    count = 60
    rates = [0.0] * 50 + [0.5] * 10
    targets = best_targets(shares(rates), price=0.5, shortest=1.0, delays=[1.0] * count)
    assert targets[0] > EDGES[50]
