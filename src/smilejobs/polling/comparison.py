"""What paces cost on jobs that were waited for before: the polls per job, and how late results are seen.

No wait shows when its job became complete, but between which two polls. Durations are therefore estimated from such
intervals, by the same estimate that `LearnedPace` uses, and each pace then waits for jobs of these durations in a
simulation: no poll fails or takes time, and each job is waited for from its submission.
"""

import random
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate, pairwise, takewhile
from math import ceil, inf
from statistics import fmean
from typing import NamedTuple

from attrs import define, field, frozen

from smilejobs.polling.hazard import EDGES, MEMORY_JOBS, Counts, edge_at
from smilejobs.polling.learned_pace import LearnedPace
from smilejobs.polling.pace import Pace, PaceFunction

MIN_COMPLETE_JOBS = 10
"""Fewer complete jobs say nothing about paces."""

_ROUNDS = 30
"""Of the estimate. It begins without any knowledge."""

_TAUGHT_JOBS = int(12 * MEMORY_JOBS)
"""How many of the last jobs a pace is taught; those before would weigh less than 0.001 %."""

_SAMPLES = 400
_SCHEDULES = 20
_MOST_POLLS = 50_000
"""A pace waits for this many jobs, by each of so many schedules that differ at random; by fewer if these have so many
polls in all."""

_FEW_JOBS = 5
"""Where fewer are left, and most of those that should be pending were not waited for any more, nothing is known."""

_BINS_PER_STEP = 4
_NO_JOBS = 1e-12
"""A share of pending jobs that is too small to divide by."""

_SEED = 1

_EDGES = len(EDGES)

_FIRST_AFTER_SECONDS = (0, 1, 2, 3, 4, 5, 7, 10, 15, 20, 30, 45, 60, 90, 120, 180, 300, 450, 600, 900, 1800, 3600, 7200)
_FRACTIONS = (0.05, 0.07, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.7, 1.0)
_MAX_SECONDS = (60, 5, 10, 15, 20, 30, 45, 90, 120, 180, 300, 450, 600, 900, 1800, 3600)
"""What a setting is chosen from: numbers that people write; of equal settings, the first one."""


class Step(NamedTuple):
    """The share of the jobs that becomes complete between two ages.

    Attributes:
        start: Seconds.
        end: Seconds.
        rate: The hazard: the share of the jobs pending at *start* that becomes complete per second.
    """

    start: float
    end: float
    rate: float


@frozen(kw_only=True)
class Durations:
    """How long jobs took, as far as that is known.

    Attributes:
        ages: Seconds: the edges of the bins.
        complete: The share of all jobs that is complete at each edge; more than the last one is not known.
    """

    ages: Sequence[float]
    complete: Sequence[float]

    @classmethod
    def of(cls, counts: Counts) -> "Durations":
        """Estimate durations; *counts* has at least one complete job."""
        counts.masses = []
        at_risk = counts.estimate(_ROUNDS).at_risk
        complete = counts.ranks()
        jobs = counts.jobs()
        last = max(key % _EDGES for key in counts.intervals)
        is_whole = all(edge < last for edge in counts.censored)  # no job is known to have taken longer
        for edge, (share, known) in enumerate(zip(complete[:last], at_risk, strict=False)):
            if edge and known < min(_FEW_JOBS, jobs * (1 - share) / 2):
                last, is_whole = edge, False
                break
        scale = complete[last] if is_whole else 1.0
        return cls(ages=EDGES[: last + 1], complete=[share / scale for share in complete[: last + 1]])

    def quantile(self, share: float) -> float | None:
        """Return the seconds that this share of the jobs took at most; None if too few were seen complete."""
        if share > self.complete[-1]:
            return None
        place = max(bisect_left(self.complete, share), 1)
        low, high = self.complete[place - 1 : place + 1]
        start, end = self.ages[place - 1 : place + 1]
        return start + (end - start) * (share - low) / (high - low)

    def sample(self, count: int) -> list[float]:
        """Return so many durations of jobs that were seen complete, evenly spread by rank, in ascending order."""
        shares = ((place + 0.5) / count * self.complete[-1] for place in range(count))
        return [duration for share in shares if (duration := self.quantile(share)) is not None]

    def steps(self) -> Iterator[Step]:
        """Yield the hazard, for steps of several bins."""
        edges = list(zip(self.ages, self.complete, strict=True))
        for (start, before), (end, after) in pairwise([*edges[:-1:_BINS_PER_STEP], edges[-1]]):
            yield Step(start, end, (after - before) / max(1 - before, _NO_JOBS) / (end - start))


@frozen
class Setting:
    """A pace with the delay before its first poll: what a call of `Client.wait` is given.

    Attributes:
        pace: The pace.
        first_after: Seconds.
    """

    pace: PaceFunction
    first_after: float = 0.0

    def schedule(self, until: float) -> list[float]:
        """Return the ages at which a job of the duration *until* is polled; of some schedules, the shortest one.

        Delays are cut at random now and then; the shortest schedule has few such cuts.
        """
        with _seeded():
            return min(_schedules(self, until), key=len)


@frozen
class Cost:
    """What a pace costs.

    Attributes:
        polls: Per job, mean.
        lateness: In seconds: how long after its job became complete each result was seen, in ascending order.
    """

    polls: float
    lateness: Sequence[float] = field(repr=False)

    @property
    def mean_lateness(self) -> float:
        """The mean of the lateness, in seconds."""
        return fmean(self.lateness)

    def lateness_of(self, share: float) -> float:
        """Return the seconds by which this share of the results is late at most."""
        return self.lateness[min(int(share * len(self.lateness)), len(self.lateness) - 1)]


@frozen(kw_only=True)
class Comparison:
    """Paces on the same jobs.

    The costs of *learned* and *by_hand* are those on jobs that the pace was not made for: the pace of each half of the
    jobs waits for the other half. The paces themselves are made from all jobs.

    Attributes:
        durations: How long the jobs took.
        default: The cost of ``Pace()``.
        learned_pace: What a `LearnedPace` has learned.
        learned: Its cost.
        first_after: The setting by hand: the seconds before the first poll.
        pace: The setting by hand: the pace. Of a grid, both are those with the fewest polls whose mean lateness is at
            most that of ``Pace()``.
        by_hand: The cost of this setting.
    """

    durations: Durations
    default: Cost
    learned_pace: LearnedPace
    learned: Cost
    first_after: float
    pace: Pace
    by_hand: Cost


@define
class Waits:
    """Waits for jobs, counted one by one; the memory that they take does not grow with their number.

    Attributes:
        complete: How many jobs were seen complete.
        pending: How many were pending at the end of their wait.
        at_once: How many of the complete ones had no pending answer before.
    """

    complete: int = field(init=False, default=0)
    pending: int = field(init=False, default=0)
    at_once: int = field(init=False, default=0)
    _all: Counts = field(init=False, factory=Counts)
    _halves: tuple[Counts, Counts] = field(init=False, factory=lambda: (Counts(), Counts()))
    _last: deque[tuple[int, float, float | None]] = field(init=False, factory=lambda: deque(maxlen=_TAUGHT_JOBS))
    _widths: list[int] = field(init=False, factory=lambda: [0] * _EDGES)

    def add(self, pending_at: float | None, complete_at: float | None) -> None:
        """Count a wait.

        Args:
            pending_at: The age of the job at the last pending answer, in seconds; None if there was none.
            complete_at: The age at the complete one; None if the job was pending at the end of the wait.
        """
        begin = pending_at or 0.0
        if complete_at is None:
            half = self.pending % 2
            self.pending += 1
        else:
            half = self.complete % 2
            self.complete += 1
            self.at_once += pending_at is None
            self._widths[edge_at(complete_at - begin)] += 1
        for counts in (self._all, self._halves[half]):
            counts.add(begin, complete_at)
            counts.weight = 1.0  # old and new jobs count alike
        self._last.append((half, begin, complete_at))

    def exactness(self, share: float) -> float:
        """Return the seconds to within which the durations of this share of the complete jobs are known."""
        wanted = share * self.complete
        return EDGES[sum(1 for _ in takewhile(lambda so_far: so_far < wanted, accumulate(self._widths)))]

    def pace(self, half: int | None = None) -> LearnedPace:
        """Return a pace that has learned from the waits: from all of them, or from one half, 0 or 1."""
        pace = LearnedPace()
        for each, pending_at, complete_at in self._last:
            if half is None or each == half:
                pace.observe(pending_at=pending_at, complete_at=complete_at)
        return pace

    def compare(self) -> Comparison:
        """Compare paces on the jobs; the figures are the same each time.

        Raises:
            ValueError: Fewer than `MIN_COMPLETE_JOBS` were seen complete.
        """
        if self.complete < MIN_COMPLETE_JOBS:
            raise ValueError(f"at least {MIN_COMPLETE_JOBS} jobs must be complete, got {self.complete}")
        durations = Durations.of(self._all)
        known = [Durations.of(half).sample(_SAMPLES) for half in self._halves]

        def set_by_hand(half: int) -> Setting:
            first_after, pace = choose(known[half])
            return Setting(pace, first_after)

        def measure(make: Callable[[int], Setting]) -> Cost:
            """Wait for each half of the jobs, by the setting for the other half."""
            with _seeded():
                return _cost([(make(1 - half), known[half]) for half in (0, 1)])

        first_after, pace = choose(durations.sample(_SAMPLES))
        return Comparison(
            durations=durations,
            default=measure(lambda _: Setting(Pace())),
            learned_pace=self.pace(),
            learned=measure(lambda half: Setting(self.pace(half))),
            first_after=first_after,
            pace=pace,
            by_hand=measure(set_by_hand),
        )


def poll_ages(pace: PaceFunction, first_after: float = 0.0) -> Iterator[float]:
    """Yield the ages at which a job is polled that stays pending, without end.

    Args:
        pace: The pace.
        first_after: The age at the first poll, in seconds.
    """
    age, polls = first_after, 1
    while True:
        yield age
        age += pace(age, polls)
        polls += 1


def choose(durations: Sequence[float]) -> tuple[float, Pace]:
    """Return *first_after* and the `Pace` with the fewest polls that is at most as late as ``Pace()`` on average.

    They are chosen from a grid, without jitter; if no other setting is better, they are 0 and ``Pace()``.

    Args:
        durations: Of the jobs, in seconds, in ascending order.
    """
    sums = [0.0, *accumulate(durations)]
    best = (0.0, Pace())
    fewest, latest = _exact_cost(*best, durations, sums, (inf, inf))
    for first_after in map(float, _FIRST_AFTER_SECONDS):
        for fraction in _FRACTIONS:
            for longest in _MAX_SECONDS:
                if min(longest, _MAX_SECONDS[0]) > fraction * durations[-1] and longest != _MAX_SECONDS[0]:
                    continue  # no delay is so long
                pace = Pace(fraction=fraction, max=longest)
                polls, _ = _exact_cost(first_after, pace, durations, sums, (fewest, latest))
                if polls < fewest:
                    best, fewest = (first_after, pace), polls
    return best


def _exact_cost(
    first_after: float, pace: Pace, durations: Sequence[float], sums: Sequence[float], most: tuple[float, float]
) -> tuple[float, float]:
    """Return the polls and the lateness of all jobs without jitter; both are infinite if one is more than *most*."""
    count = len(durations)
    polls, lateness, age, seen = 0, 0.0, first_after, 0
    while seen < count:
        polls += count - seen
        complete = bisect_right(durations, age, seen)
        lateness += age * (complete - seen) - (sums[complete] - sums[seen])
        if polls > most[0] or lateness > most[1]:
            return inf, inf
        seen = complete
        if pace.fraction * age >= pace.max:  # from here on, all delays are the same
            more = [ceil((duration - age) / pace.max) for duration in durations[seen:]]
            polls += sum(more)
            lateness += age * (count - seen) + pace.max * sum(more) - (sums[count] - sums[seen])
            break
        age += min(max(pace.fraction * age, pace.min), pace.max)
    return (inf, inf) if polls > most[0] or lateness > most[1] else (polls, lateness)


def _schedules(setting: Setting, duration: float) -> Iterator[list[float]]:
    """Yield schedules of a setting for a job of that duration: `_SCHEDULES`, or fewer if they have many polls."""
    polls = 0
    for _ in range(_SCHEDULES):
        schedule = _polls_of(setting, duration)
        yield schedule
        polls += len(schedule)
        if polls > _MOST_POLLS:
            break


def _polls_of(setting: Setting, duration: float) -> list[float]:
    """Return the ages at which a job of that duration is polled."""
    following = poll_ages(setting.pace, setting.first_after)
    ages = [next(following)]
    while ages[-1] < duration:
        ages.append(next(following))
    return ages


def _cost(parts: Sequence[tuple[Setting, Sequence[float]]]) -> Cost:
    """Return the cost of settings, each on its own jobs."""
    polls = 0
    lateness: list[float] = []
    for setting, durations in parts:
        for schedule in _schedules(setting, durations[-1]):
            seen = 0
            for duration in durations:
                seen = bisect_left(schedule, duration, seen)
                polls += seen + 1
                lateness.append(schedule[seen] - duration)
    return Cost(polls / len(lateness), sorted(lateness))


@contextmanager
def _seeded() -> Generator[None, None, None]:
    """Make the random parts of paces the same each time; all others go on as before."""
    state = random.getstate()
    random.seed(_SEED)
    try:
        yield
    finally:
        random.setstate(state)
