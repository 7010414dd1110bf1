"""At which ages to poll: the schedule that minimises lateness plus price times polls, for a given hazard.

Barlow, Hunter and Proschan (1963) posed the problem, and Keller (1974) gave its solution for checks that are dense:
their spacing is ``sqrt(2 * price / hazard)``. Where they are not dense, as around a peak, that is far from the best. A
dynamic program is exact: if ``F`` is the share of the jobs that are complete at an age and
``V(s)`` the cost of what follows a poll at the age ``s``, then ::

    V(s) = price * (1 - F(s)) + min over t of (integral of (t - x) dF(x) from s to t, plus V(t))

For each ``t``, what is minimised is a line in ``F(s)`` with the slope ``-t``, so the minimum is read off the lower
envelope of these lines, and all minima over the edges of bins take time in proportion to their number. In the bins on
both sides of the best edge, where ``F`` and ``V`` are taken to be linear, the minimum is that of a parabola. Inside of
bins that are longer than Keller's spacing, polls follow at that spacing.
"""

from bisect import bisect_left
from collections.abc import Sequence
from math import inf, sqrt
from typing import NamedTuple

from smilejobs.polling.hazard import EDGES

_NO_JOBS = 1e-9
"""A share of pending jobs that is too small for differences of shares."""


class Shares(NamedTuple):
    """A distribution of durations, up to the last bin that is known.

    Attributes:
        pending: The share of the jobs that is not complete, at each edge.
        complete: The share that is, likewise.
        moments: The sum of the durations of those that are, over the number of all jobs, likewise.
        masses: The share that becomes complete within each bin.
    """

    pending: list[float]
    complete: list[float]
    moments: list[float]
    masses: list[float]


def shares(rates: Sequence[float]) -> Shares:
    """Return the distribution for which this share of the pending jobs becomes complete within each bin."""
    pending, complete, moments, masses = [1.0], [0.0], [0.0], list[float]()
    surviving, moment = 1.0, 0.0
    for number, rate in enumerate(rates):
        mass = surviving * rate
        surviving -= mass
        moment += mass * (EDGES[number] + EDGES[number + 1]) / 2
        masses.append(mass)
        pending.append(surviving)
        complete.append(1.0 - surviving)
        moments.append(moment)
    return Shares(pending, complete, moments, masses)


class _Envelope:
    """The lower envelope of lines whose slopes fall ever less steeply, for arguments that become ever smaller."""

    def __init__(self) -> None:
        self.ages: list[float] = []  # the slopes, without their sign
        self.constants: list[float] = []
        self._position = 0

    def add(self, age: float, constant: float) -> None:
        """Add the line ``constant - age * share``; *age* is less than before."""
        ages, constants = self.ages, self.constants
        while len(ages) > 1 and (constants[-2] - constants[-1]) * (ages[-1] - age) <= (constants[-1] - constant) * (
            ages[-2] - ages[-1]
        ):
            ages.pop()
            constants.pop()
        ages.append(age)
        constants.append(constant)

    def lowest(self, share: float) -> tuple[float, float]:
        """Return the least value for *share*, and the age of its line."""
        ages, constants = self.ages, self.constants
        last = len(ages) - 1
        position = min(self._position, last)
        least = constants[position] - ages[position] * share
        while position < last and (value := constants[position + 1] - ages[position + 1] * share) <= least:
            least = value
            position += 1
        self._position = position
        return least, ages[position]


def best_targets(known: Shares, *, price: float, shortest: float, delays: Sequence[float]) -> list[float]:
    """Return the age of the next poll for a poll at each edge.

    Args:
        known: How long jobs take.
        price: The seconds of lateness that a poll may cost.
        shortest: The shortest delay, in seconds.
        delays: Per bin, the delay for ages that practically no job reaches.
    """
    pending, complete, moments, masses = known
    count = len(masses)
    end, last_delay = EDGES[count], delays[count - 1]
    targets = [end + last_delay] * (count + 1)
    costs = [pending[count] * (last_delay / 2 + price)] * (count + 1)
    constants = [end * complete[count] - moments[count] + costs[count]] * (count + 1)
    envelope = _Envelope()
    edge = count  # the next one to enter the envelope
    for number in range(count - 1, -1, -1):
        age = EDGES[number]
        so_far = complete[number]
        earliest = age + shortest
        while edge > number and EDGES[edge] >= earliest:
            envelope.add(EDGES[edge], constants[edge])
            edge -= 1
        if envelope.ages:
            least, target = envelope.lowest(so_far)
            best = bisect_left(EDGES, target)
            for within in (best - 1, best):
                if number < within < count:
                    value, at = _within(known, costs, within, so_far, earliest)
                    if value < least:
                        least, target = value, at
        else:
            least, target = constants[count] - end * so_far, max(earliest, age + delays[number])
        cost = price * pending[number] + moments[number] + least
        spacing, value = _dense(known, price, shortest, number)
        if spacing < EDGES[number + 1] - age and value + costs[number + 1] < cost:
            cost, target = value + costs[number + 1], age + spacing
        if pending[number] < _NO_JOBS:
            cost, target = pending[number] * (delays[number] / 2 + price), age + delays[number]
        costs[number] = cost
        targets[number] = target
        constants[number] = age * so_far - moments[number] + cost
    return targets


def _within(known: Shares, costs: list[float], number: int, so_far: float, earliest: float) -> tuple[float, float]:
    """Return the least value for a poll within a bin, not before *earliest*, and the age of that poll."""
    start, end = EDGES[number], EDGES[number + 1]
    mass, complete = known.masses[number], known.complete[number]
    rise = costs[number + 1] - costs[number]
    excess = so_far - complete - rise / (end - start)
    share = max((earliest - start) / (end - start), min(excess / mass, 1.0) if mass else 0.0, 0.0)
    age = start + share * (end - start)
    moment = known.moments[number] + share * mass * (start + age) / 2
    return age * (complete + share * mass - so_far) - moment + costs[number] + share * rise, age


def _dense(known: Shares, price: float, shortest: float, number: int) -> tuple[float, float]:
    """Return Keller's spacing within a bin, and what polls at that spacing cost there."""
    mass = known.masses[number]
    if not mass:
        return inf, inf
    length = EDGES[number + 1] - EDGES[number]
    pending = (known.pending[number] + known.pending[number + 1]) / 2
    spacing = max(shortest, sqrt(2 * price * pending * length / mass))
    return spacing, price * pending * length / spacing + mass * spacing / 2


def mean_lateness(known: Shares, targets: Sequence[float]) -> float:
    """Return the mean lateness of a schedule, in seconds, for jobs whose first poll comes at an age of 0."""
    _, complete, moments, masses = known
    count = len(masses)
    lateness = [0.0] * (count + 1)
    lateness[count] = known.pending[count] * (targets[count] - EDGES[count]) / 2
    edge = count - 1
    for number in range(count - 1, -1, -1):
        target = targets[number]
        if target < EDGES[number + 1]:
            lateness[number] = masses[number] * (target - EDGES[number]) / 2 + lateness[number + 1]
            continue
        if target >= EDGES[count]:
            seen, moment, later = complete[count], moments[count], lateness[count]
        else:
            while EDGES[edge] > target:
                edge -= 1
            while EDGES[edge + 1] <= target:
                edge += 1
            start = EDGES[edge]
            share = (target - start) / (EDGES[edge + 1] - start)
            mass = share * masses[edge]
            seen = complete[edge] + mass
            moment = moments[edge] + mass * (start + target) / 2
            later = lateness[edge] + share * (lateness[edge + 1] - lateness[edge])
        lateness[number] = target * (seen - complete[number]) - (moment - moments[number]) + later
    return lateness[0]
