"""A pace that learns how long jobs take, and polls when they are likely to be complete."""

import json
import random
from math import log1p
from pathlib import Path
from secrets import token_hex

from smilejobs.durations import Duration, seconds
from smilejobs.polling.hazard import EDGES, LOG_RATIO
from smilejobs.polling.learning import Learner
from smilejobs.polling.pace import Pace
from smilejobs.polling.saved import dump, load

EXPLORED = 0.1
"""The share of the long delays that are cut at random, to see what happens within them."""

LONGEST = 10
"""The longest delay, in units of the longest one of the base."""


class LearnedPace:
    """Begin as *base*, learn from each wait how long jobs take, and poll when they are likely to be complete.

    It goes wherever a `Pace` goes; a wait that uses it teaches it. The delays are those that minimise ::

        mean lateness + price * mean number of polls

    for the hazard rate ``h(t)`` of the jobs seen so far: the share of the jobs pending at the age ``t`` that becomes
    complete per second. Where polls are dense, their spacing is ``sqrt(2 * price / h(t))``; around peaks and over
    stretches where no job becomes complete, a dynamic program does better. The price is the one at which the mean
    lateness is that of *base* on the same jobs; it is at most 2.8 times what a poll is worth to *base*, so that where
    polls can be saved in plenty, lateness is saved as well. Where few jobs were at risk, ``h(t)`` is blended with the
    hazard for which *base* would be best. What was seen 800 jobs ago weighs a third; a change is noticed within some
    dozens of jobs. One in ten long delays is cut at random, to find jobs that are complete earlier than expected.

    The instance is not synchronised: use it from one thread at a time.

    Sources: R. E. Barlow, L. C. Hunter, F. Proschan, Optimum Checking Procedures, J. SIAM 11 (1963) 1078-1095;
    J. B. Keller, Optimum Checking Schedules for Systems Subject to Random Failure, Management Science 21 (1974)
    256-260; B. W. Turnbull, The Empirical Distribution Function with Arbitrarily Grouped, Censored and Truncated Data,
    J. Royal Statistical Society B 38 (1976) 290-295.

    Args:
        base: The pace for what is not known. No delay is shorter than ``base.min`` or longer than ten times
            ``base.max`` (`limit`); delays vary at random by ``base.jitter`` of what the delay of *base* would be.
        lateness: The mean lateness that is wanted, in seconds or as a timedelta; None for that of *base*.

    Raises:
        TypeError: *base* is not a `Pace`, or *lateness* is not a duration.
        ValueError: *lateness* is not finite and positive.
    """

    def __init__(self, *, base: Pace | None = None, lateness: Duration | None = None) -> None:
        if base is None:
            base = Pace()
        if not isinstance(base, Pace):
            raise TypeError(f"base must be a Pace, not {type(base).__name__}")
        wanted = None if lateness is None else seconds(lateness, "lateness", zero=False)
        self._base = base
        self._lateness = wanted
        self._complete = Learner(base=base, lateness=wanted)
        self._final = Learner(base=base, lateness=wanted)

    @property
    def base(self) -> Pace:
        """The pace for what is not known."""
        return self._base

    @property
    def lateness(self) -> float | None:
        """The mean lateness that is wanted, in seconds; None for that of `base`."""
        return self._lateness

    @property
    def limit(self) -> float:
        """The longest delay, in seconds."""
        return LONGEST * self._base.max

    @property
    def jobs(self) -> float:
        """How many jobs the pace remembers; one that was seen longer ago is less than one."""
        return self._complete.counts.jobs()

    def __call__(self, age: float, polls: int) -> float:
        """Return the seconds to the next poll of a pending job of that age (in seconds)."""
        return _delay(self._complete, age, polls, LONGEST * self._base.max)

    def after_provisional(self, age: float, polls: int) -> float:
        """Return the seconds to the next poll of a job whose outcome is provisional.

        Args:
            age: Seconds since the first provisional answer.
            polls: The number of polls so far.
        """
        return _delay(self._final, age, polls, LONGEST * self._base.max)

    def observe(self, *, pending_at: float, complete_at: float | None, provisional: bool = False) -> None:
        """Learn from one job.

        Args:
            pending_at: The age at the last pending answer, in seconds; 0 if there was none.
            complete_at: The age at the first complete one; None if the job was still pending when the wait ended.
            provisional: Whether the ages count from the first provisional answer, and the final one completes the job.

        Raises:
            TypeError: An age is not a number.
            ValueError: An age is negative or not finite, or complete before pending.
        """
        pending = seconds(pending_at, "pending_at")
        complete = None if complete_at is None else seconds(complete_at, "complete_at")
        if complete is not None and complete < pending:
            raise ValueError(f"complete_at must not be less than pending_at, got {complete:g} and {pending:g} s")
        (self._final if provisional else self._complete).observe(pending, complete)

    def merge(self, other: "LearnedPace") -> "LearnedPace":
        """Return a pace that has learned what both have; both stay as they are, and their order does not matter.

        Raises:
            TypeError: *other* is not a `LearnedPace`.
            ValueError: Its base or its lateness is another.
        """
        if not isinstance(other, LearnedPace):
            raise TypeError(f"other must be a LearnedPace, not {type(other).__name__}")
        if (other.base, other.lateness) != (self.base, self.lateness):
            raise ValueError("paces with different bases or lateness cannot be merged")
        merged = LearnedPace(base=self.base, lateness=self.lateness)
        merged._complete = self._complete.merged(other._complete)  # noqa: SLF001  # of its own class
        merged._final = self._final.merged(other._final)  # noqa: SLF001  # of its own class
        return merged

    def to_json(self) -> str:
        """Return all that was learned as a JSON text of some kilobytes, without ids or personal data."""
        return json.dumps(dump(self._base, self._lateness, self._complete, self._final), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> "LearnedPace":
        """Return the pace that `to_json` wrote.

        Raises:
            ValueError: The text is not one of `to_json`, is not whole, or is of another version.
        """
        base, lateness, complete, final = load(text)
        pace = cls(base=base, lateness=lateness)
        pace._complete = complete
        pace._final = final
        return pace

    def save(self, path: str | Path) -> None:
        """Write all that was learned to a file, which is replaced as a whole.

        Raises:
            OSError: The file cannot be written.
        """
        target = Path(path)
        part = target.with_name(f".{target.name[:50]}-{token_hex(8)}.part")
        try:
            part.write_text(self.to_json() + "\n", "utf-8")
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: str | Path) -> "LearnedPace":
        """Return the pace that `save` wrote to a file.

        Raises:
            OSError: The file cannot be read.
            ValueError: The file is not one of `save`, is not whole, or is of another version.
        """
        return cls.from_json(Path(path).read_bytes().decode("utf-8", "replace"))

    def __eq__(self, other: object) -> bool:
        """Return whether both have learned the same."""
        if not isinstance(other, LearnedPace):
            return NotImplemented
        return (self._complete, self._final) == (other._complete, other._final)

    __hash__ = None  # type: ignore[assignment]  # it changes with what it learns

    def __repr__(self) -> str:
        """Show the base, and how many jobs are remembered."""
        return f"<LearnedPace base={self._base!r} lateness={self._lateness!r} jobs={self.jobs:.0f}>"


def _delay(learner: Learner, age: float, polls: int, limit: float) -> float:
    base, targets = learner.base, learner.targets
    number = int(log1p(age) / LOG_RATIO)
    if number >= len(targets) - 2:
        return base(age, polls)
    start = EDGES[number]
    length = EDGES[number + 1] - start
    target, following = targets[number], targets[number + 1]
    share = (age - start) / length
    if following - target <= 3 * length:
        target += share * (following - target)
    elif share >= 0.5:
        target = following
    delay = target - age
    usual = min(max(base.fraction * age, base.min), base.max)
    if delay > 2 * usual and random.random() < EXPLORED:
        delay -= (delay - usual) * random.random() ** 2
    else:
        width = min(max(base.fraction * target, base.min), base.max, delay)
        delay += base.jitter * width * (2 * random.random() - 1)
    return min(max(delay, base.min), limit)
