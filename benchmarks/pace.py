"""How late a result is seen, and how many polls that takes: the default pace against the vendor's schedules.

::

    python benchmarks/pace.py

A simulation: no network, no clock, the same random numbers every time. Each job gets a duration; from then on a poll
finds it complete. Every schedule waits for the same jobs, from their submission, until a poll finds the result or the
schedule ends. A poll takes no time and never fails, so that lateness is what the schedule adds and nothing else.

Our side is no model of the rules but the rules themselves (`smilejobs.polling.rules`); the vendor's schedules are
written down from the code of its public clients. The output is Markdown, and docs/pace.md shows it.

::

    python benchmarks/pace.py --learn

A `LearnedPace` waits for jobs and learns from them, then for fresh ones. The table shows its polls and its mean
lateness over those of `Pace`, each the mean over eight seeds, with a bar for each and a line for each one that was
missed; then what it costs. The exit code is 1 if a bar is missed.
"""

import argparse
import random
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, repeat
from math import inf, log
from statistics import fmean, median
from typing import NamedTuple

from smilejobs.model.jobs import JobRef, JobStatus
from smilejobs.polling.comparison import poll_ages
from smilejobs.polling.learned_pace import LearnedPace
from smilejobs.polling.pace import Pace, PaceFunction
from smilejobs.polling.rules import Done, PollState, Sleep, Terms, begin, step

REF = JobRef("user-1", "job-1")
PENDING = JobStatus(user_id=REF.user_id, job_id=REF.job_id, code="2302", job_complete=False)
COMPLETE = JobStatus(user_id=REF.user_id, job_id=REF.job_id, code="2302", job_complete=True)


class Wait(NamedTuple):
    """One simulated wait: when the result was seen (inf for never), in seconds, and after how many polls."""

    seen_at: float
    polls: int


Schedule = Callable[[float], Wait]
"""Waits for one job of that duration."""


def paced(terms: Terms) -> Schedule:
    """Wait by the library's own rules."""

    def wait(duration: float) -> Wait:
        state = PollState(ref=REF, terms=terms)
        now = terms.first_after
        while begin(state, now) is None:
            decision = step(state, COMPLETE if now >= duration else PENDING, now, api_has_answered=True)
            if not isinstance(decision, Sleep):
                return Wait(now if isinstance(decision, Done) else inf, state.polls)
            now += decision.delay
        return Wait(inf, state.polls)

    return wait


def fixed(delays: Callable[[], Iterable[float]]) -> Schedule:
    """Wait by a list of delays: the first one comes before the first poll, and after the last poll it ends."""

    def wait(duration: float) -> Wait:
        now, polls = 0.0, 0
        for delay in delays():
            now += delay
            polls += 1
            if now >= duration:
                return Wait(now, polls)
        return Wait(inf, polls)

    return wait


def delays(first: float, *then: tuple[float, int]) -> Callable[[], Iterator[float]]:
    """Return the delays: *first*, and each of the others so many times."""
    return lambda: chain([first], *(repeat(delay, times) for delay, times in then))


RAISES, RETURNS = "raises", "returns an unfinished answer"

SCHEDULES: Sequence[tuple[str, Schedule, str]] = (
    ("**smilejobs**, `timeout=None`", paced(Terms(timeout=None)), "-"),
    ("**smilejobs**, as it is (300 s)", paced(Terms()), RAISES),
    ("Python client", fixed(delays(2, (2, 2), (4, 17))), RETURNS),
    ("JavaScript client, `WebApi`", fixed(delays(0, (2, 4), (4, 17))), RAISES),
    ("JavaScript client, `IDApi`", fixed(delays(0, (5, 4))), RETURNS),
    ("Ruby client", fixed(delays(2, (2, 3), (6, 16))), RETURNS),
    ("Java client", fixed(delays(0, (2, 1), (4, 1), (8, 1), (16, 1))), RETURNS),
    ("PHP client", fixed(delays(2, (2, 19))), RETURNS),
    ("Android client", fixed(delays(0, (1, 29))), "ends without an error"),
    ("Python client of V3", fixed(delays(0, (2, 30))), RAISES),
    ("every 2 s for ever", fixed(lambda: repeat(2)), "-"),
    ("every 60 s for ever", fixed(lambda: repeat(60)), "-"),
)

CHOICES: Sequence[tuple[str, Schedule]] = (
    ("`Pace()`", paced(Terms(timeout=None))),
    ("`Pace(fraction=0.05)`", paced(Terms(timeout=None, pace=Pace(fraction=0.05)))),
    ("`Pace(fraction=0.3)`", paced(Terms(timeout=None, pace=Pace(fraction=0.3)))),
    ("`Pace(min=0.5)`", paced(Terms(timeout=None, pace=Pace(min=0.5)))),
    ("`Pace(max=300)`", paced(Terms(timeout=None, pace=Pace(max=300)))),
    ("`Pace()`, `first_after=4`", paced(Terms(timeout=None, first_after=4))),
)


def machine_durations(jobs: int, chance: random.Random) -> list[float]:
    """Seconds: log-normal, median 5 s; one in ten takes more than 14 s, one in a hundred more than 32 s."""
    return [chance.lognormvariate(log(5), 0.8) for _ in range(jobs)]


def review_durations(jobs: int, chance: random.Random) -> list[float]:
    """Seconds: log-normal, median 20 minutes, without what falls outside one minute and three hours."""
    drawn = (chance.lognormvariate(log(20 * 60), 1.0) for _ in repeat(None))
    within = (duration for duration in drawn if 60 <= duration <= 3 * 3600)
    return [next(within) for _ in range(jobs)]


class Distribution(NamedTuple):
    """Durations to learn, and the bars after 2,000 jobs: polls and lateness over those of `Pace`."""

    name: str
    draw: Callable[[random.Random], float]
    polls: float | None = None
    lateness: float = 1.05


def machine(chance: random.Random) -> float:
    """Draw the duration of a machine result, in seconds."""
    return chance.lognormvariate(log(5), 0.8)


def review(chance: random.Random) -> float:
    """Draw that of a human review."""
    return review_durations(1, chance)[0]


def mixed(chance: random.Random) -> float:
    """Draw that of a machine result, or of a review for one job in ten."""
    return machine(chance) if chance.random() < 0.9 else review(chance)


def two_peaks(chance: random.Random) -> float:
    """Draw one near 3 s or near 40 s."""
    return max(0.1, chance.gauss(3, 0.3) if chance.random() < 0.5 else chance.gauss(40, 4))


DISTRIBUTIONS: Sequence[Distribution] = (
    Distribution("machine (log-normal 5 s, sigma 0.8)", machine, 0.82),
    Distribution("review (log-normal 20 min, 1 to 180 min)", review, 0.57),
    Distribution("nine machine, one review", mixed, 0.66),
    Distribution("two peaks, 3 s and 40 s", two_peaks, 0.50),
    Distribution("exponential 600 s", lambda chance: chance.expovariate(1 / 600), 0.47),
    Distribution("between 3.9 and 4.1 s", lambda chance: chance.uniform(3.9, 4.1), 0.56, 0.5),
    Distribution("Weibull 30 s, shape 3", lambda chance: chance.weibullvariate(30, 3)),
    Distribution("gamma 20 s, shape 2", lambda chance: chance.gammavariate(2, 10)),
    Distribution("between 5 and 60 s", lambda chance: chance.uniform(5, 60)),
    Distribution("normal 20 min, sigma 1 min", lambda chance: chance.gauss(1200, 60)),
    Distribution("Pareto from 2 s, shape 1.2", lambda chance: 2 * chance.paretovariate(1.2)),
    Distribution("exponential 0.5 s", lambda chance: chance.expovariate(2)),
    Distribution("Weibull 60 s, shape 0.6", lambda chance: chance.weibullvariate(60, 0.6)),
    Distribution("between 10 and 20 s", lambda chance: chance.uniform(10, 20)),
    Distribution("always 8 s", lambda _: 8.0),
    Distribution("2 s, or an hour for one in a hundred", lambda chance: 2.0 if chance.random() < 0.99 else 3600.0),
)


SEEDS = 8
"""Runs with `--learn`, from `--seed` on: one run alone says little, since it depends on the jobs that it saw."""


def simulated(pace: PaceFunction, duration: float) -> tuple[float, Wait]:
    """Wait for one job; return the age at the last pending poll as well."""
    pending_at = age = 0.0
    polls = 0
    for age in poll_ages(pace):
        polls += 1
        if age >= duration:
            break
        pending_at = age
    return pending_at, Wait(age, polls)


def learn(pace: LearnedPace, distribution: Distribution, jobs: int, chance: random.Random) -> None:
    """Let a pace wait for jobs, and learn from them."""
    for _ in range(jobs):
        pending_at, wait = simulated(pace, distribution.draw(chance))
        pace.observe(pending_at=pending_at, complete_at=wait.seen_at)


def means(pace: PaceFunction, durations: Sequence[float]) -> tuple[float, float]:
    """Return the mean number of polls, and the mean lateness in seconds."""
    waits = [simulated(pace, duration)[1] for duration in durations]
    lateness = fmean(wait.seen_at - duration for wait, duration in zip(waits, durations, strict=True))
    return fmean(wait.polls for wait in waits), lateness


def learning(jobs: int, seeds: Sequence[int]) -> bool:
    """Print what a learned pace does after 20 and 2,000 jobs, after a change, and what it costs.

    Returns:
        Whether all bars hold, on the mean over the seeds.
    """
    missed: list[str] = []
    line("durations", "`Pace()`: polls", "late, s", "after 20 jobs: polls", "late", "after 2,000: polls", "late", "bar")
    line("---", *["---:"] * 7)
    for distribution in DISTRIBUTIONS:
        runs = [one_run(distribution, jobs, seed) for seed in seeds]
        polls, lateness, *ratios = (fmean(figures) for figures in zip(*runs, strict=True))
        bar = "-" if distribution.polls is None else f"{distribution.polls:.2f} x {distribution.lateness:.2f}"
        line(distribution.name, f"{polls:.1f}", f"{lateness:.2f}", *(f"{ratio:.2f}" for ratio in ratios), bar)
        bars = (1.0, 1.25, distribution.polls or 1.0, distribution.lateness)
        names = ("polls after 20 jobs", "lateness after 20 jobs", "polls after 2,000 jobs", "lateness after 2,000 jobs")
        missed += [
            f"{distribution.name}: {name} {ratio:.3f}, bar {most:.2f}"
            for name, ratio, most in zip(names, ratios, bars, strict=True)
            if ratio > most
        ]
    changes = [after_a_change(jobs, seed) for seed in seeds]
    polls, lateness = (fmean(figures) for figures in zip(*changes, strict=True))
    print(
        f"\nFrom 5 s to 15 s, 1,500 more jobs: {polls:.2f} of the polls and {lateness:.2f} of the lateness of a pace "
        "that knows 15 s only."
    )
    if max(polls, lateness) > 1.1:
        missed.append("the change from 5 s to 15 s, bar 1.10")
    for text in missed:
        print(f"missed: {text}")
    costs(seeds[0])
    return not missed


def one_run(distribution: Distribution, jobs: int, seed: int) -> list[float]:
    """Return polls and lateness of `Pace`, then those of a learned pace over them, after 20 and after 2,000 jobs."""
    chance = random.Random(seed)
    random.seed(seed)
    durations = [distribution.draw(chance) for _ in range(jobs)]
    base = means(Pace(), durations)
    figures = [*base]
    pace = LearnedPace()
    for more in (20, 1980):
        learn(pace, distribution, more, chance)
        figures += [learned / of_base for learned, of_base in zip(means(pace, durations), base, strict=True)]
    return figures


def after_a_change(jobs: int, seed: int) -> tuple[float, float]:
    """Return polls and lateness of a pace that learned 5 s, then 15 s, over those of one that learned 15 s alone."""
    before = DISTRIBUTIONS[0]
    after = Distribution("log-normal 15 s", lambda chance: 3 * machine(chance))
    chance = random.Random(seed)
    random.seed(seed)
    durations = [after.draw(chance) for _ in range(jobs)]
    always, changed = LearnedPace(), LearnedPace()
    learn(always, after, 3500, chance)
    learn(changed, before, 2000, chance)
    learn(changed, after, 1500, chance)
    polls, lateness = means(always, durations)
    polls_after, lateness_after = means(changed, durations)
    return polls_after / polls, lateness_after / lateness


def costs(seed: int) -> None:
    """Print the time of a delay and of an observation, the mean over 10,000."""
    chance = random.Random(seed)
    pace = LearnedPace()
    seen = [
        (pending_at, wait.seen_at) for pending_at, wait in (simulated(Pace(), mixed(chance)) for _ in range(10_000))
    ]
    begin = time.process_time()
    for pending_at, complete_at in seen:
        pace.observe(pending_at=pending_at, complete_at=complete_at)
    observed = time.process_time()
    for pending_at, _ in seen:
        pace(pending_at, 1)
    end = time.process_time()
    print(f"\nAn observation takes {(observed - begin) * 100:.1f} us, a delay {(end - observed) * 100:.1f} us.")
    print(f"Saved, the pace takes {len(pace.to_json()):,} characters.")


def main() -> int:
    """Simulate, print the tables, and say by the exit code whether the bars hold."""
    parser = argparse.ArgumentParser(description="Lateness and polls per job, simulated.")
    parser.add_argument(
        "--jobs", type=int, default=10_000, help="of each kind, with --learn a quarter (default: 10000)"
    )
    parser.add_argument("--seed", type=int, default=1, help="of all random numbers (default: 1)")
    parser.add_argument("--learn", action="store_true", help="show what a learned pace does, and nothing else")
    options = parser.parse_args()
    if options.learn:
        return 0 if learning(options.jobs // 4, range(options.seed, options.seed + SEEDS)) else 1
    chance = random.Random(options.seed)
    machine = machine_durations(options.jobs, chance)
    review = review_durations(options.jobs, chance)
    random.seed(options.seed)  # the jitter of Pace

    for title, durations in (("Machine results", machine), ("Human review", review)):
        print(f"### {title}\n\n{quantiles_of(durations)}\n")
        line("schedule", "not seen", "then it", "late, s: median", "p90", "p99", "late, share: median", "p99", "polls")
        line("---", *["---:", "---"], *["---:"] * 6)
        for name, schedule, end in SCHEDULES:
            waits = [schedule(duration) for duration in durations]
            late = [wait.seen_at - duration for wait, duration in zip(waits, durations, strict=True)]
            shares = [lateness / duration for lateness, duration in zip(late, durations, strict=True)]
            missed = sum(lateness == inf for lateness in late) / len(late)
            line(
                name,
                percent(missed),
                end,
                *(written(quantile(late, at)) for at in (0.5, 0.9, 0.99)),
                *(percent(quantile(shares, at)) for at in (0.5, 0.99)),
                f"{fmean(wait.polls for wait in waits):.1f}",
            )
        print()

    print("### Choices\n")
    line("pace", "machine: late, s: median", "p99", "polls", "review: late, s: median", "p99", "polls")
    line("---", *["---:"] * 6)
    for name, schedule in CHOICES:
        cells: list[str] = []
        for durations in (machine, review):
            waits = [schedule(duration) for duration in durations]
            late = [wait.seen_at - duration for wait, duration in zip(waits, durations, strict=True)]
            cells += [written(quantile(late, 0.5)), written(quantile(late, 0.99))]
            cells.append(f"{fmean(wait.polls for wait in waits):.1f}")
        line(name, *cells)
    return 0


def quantiles_of(durations: list[float]) -> str:
    """Describe durations in a sentence."""
    unit, divisor = ("min", 60) if median(durations) > 60 else ("s", 1)
    half, most, nearly_all = (f"{quantile(durations, at) / divisor:.1f} {unit}" for at in (0.5, 0.9, 0.99))
    return f"{len(durations):,} jobs; half of them take at most {half}, 90 % {most}, 99 % {nearly_all}."


def quantile(values: list[float], at: float) -> float:
    """Return the value that a share of *at* does not exceed; unlike those of `statistics`, it takes inf."""
    return sorted(values)[min(int(at * len(values)), len(values) - 1)]


def written(value: float) -> str:
    """Write a figure for a table; "never" for a result that was not seen."""
    if value == inf:
        return "never"
    return f"{value:.1f}" if 0 < value < 10 else f"{value:.0f}"


def percent(share: float) -> str:
    """Write a share; a small one does not look like none, nor a large one like all."""
    if 0 < share < 0.001:
        return "under 0.1 %"
    return "never" if share == inf else f"{100 * share:.{1 if 0 < share < 1 else 0}f} %"


def line(*cells: str) -> None:
    """Print one line of a Markdown table."""
    print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    sys.exit(main())
