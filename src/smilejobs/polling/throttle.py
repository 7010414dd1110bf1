"""When to begin the next poll of a batch: all polls slow down together when the API cannot keep up.

Two questions are answered here. Is there an overload? And how fast may polls begin after one?

**Loss is not overload.** A failed poll alone says nothing about the speed: a Wi-Fi link loses one poll in ten at any
speed. Congestion control that takes each loss for a sign of overload ties the speed to the share of losses: RFC 9438
(CUBIC), section 5, gives a window proportional to 1/p^0.75. Controls that came later look for a signal that changes
*with* the speed:

- TCP Westwood (Mascolo et al., MobiCom 2001) falls back, after a loss, to the rate at which data arrived. Here: a
  throttled batch goes on at nine tenths of the polls per second that were answered well; that is at least half and at
  most nine tenths of its speed.
- BBR (draft-ietf-ccwg-bbr) models the path by its delivery rate, and takes losses for overload only above a share of
  2 % in one round trip. Here: losses must be many, three of ten among the last twenty polls.
- Netflix's Gradient2 limit and Envoy's adaptive concurrency compare answer times with those of an idle server. Here
  the number of polls under way is bounded already: where answers take longer, polls begin more rarely by themselves.
- Finagle's failure accrual marks a host dead by its success rate, then tries it again after growing pauses. So does a
  batch for which nothing works.

**The experiment.** A lower speed shows whether the speed causes the trouble. It is tried separately for two kinds of
trouble: losses (broken connections, 5xx, unreadable answers, answers of a gateway) and refusals (429, 503).

1. The first throttling notes the speed at which polls were answered well.
2. The polls that begin below 80 % of that speed are counted, and those among them that meet the trouble.
3. If at least half as large a share of them meets it as before, the speed is not its cause. The throttle then sets no
   limit, and that share becomes the *usual share* of this kind of trouble: from then on only a clearly larger share
   throttles. Otherwise throttling goes on.
4. If this judgement was wrong, the share exceeds the usual one within some polls. The batch is throttled again, and the
   next judgement takes twice the evidence.

Unlike a loss, a single refusal says that the speed is too high: one throttles, as long as refusals have no usual share.
A ``Retry-After`` stops the whole batch as long as its kind of trouble has no usual share, and only the job that was
polled afterwards.

A share of more than six in ten is never usual: the batch then stays throttled, whether the speed is the cause or not.

**The curve** is CUBIC's, for polls per second in the place of bytes in flight: back to the speed at which it was
throttled quickly, slowly about there, and quickly beyond if nothing fails. If next to nothing was answered well, or
nothing since it was throttled before, at most one poll per second tries the API, after pauses that grow (*probing*);
once such a poll is answered well, the speed doubles every second. It is the speed that is lowered, and with it the
number of polls under way: where an answer takes a few milliseconds, a single connection can poll more often than an API
allows, and fewer connections would slow nothing down.
"""

import math

from attrs import define, field

from smilejobs.errors import SmileJobsError
from smilejobs.model.jobs import JobStatus
from smilejobs.polling.rules import CLOCK_TOLERANCE_SECONDS, is_outage

_LOWEST_SHARE = 0.5
_HIGHEST_SHARE = 0.9
"""A throttled batch goes on at this share of the speed that worked, and at a share of its speed between the two."""

_NOTHING_WORKS = 0.1
"""If a smaller share of the speed than this was answered well, single polls try the API."""

_BURST = 2.0
"""A throttled batch goes on at so many times the polls per second since it was throttled before, at most. Stops count:
where an API lets polls through in bursts, the speed within a burst means little."""

_SLOWEST = 1.0
"""Polls per second: no batch is made slower than this, or it would not notice that the API answers well again."""

_CURVE_SECONDS = 10.0
"""The scale of the curve: so long after it is back at the speed at which it was throttled, a batch is twice as fast."""

_TIMER_LATENESS_SECONDS = 0.01
"""A timer may be this late; the next poll then begins earlier."""

_PAUSE_SECONDS = 0.25
_LONGEST_PAUSE_SECONDS = 30.0

_SHARE_POLLS = 20
"""The share of trouble is an average over about so many polls."""

_MARGIN = 0.3
"""A share of trouble that exceeds the usual one by more is no accident: that is four standard deviations of an average
over twenty polls where a tenth fails, and three where half do."""

_USUAL_POLLS = 200
"""The usual share of trouble is taken of about the last so many polls."""

_CLEARLY_SLOWER = 0.8
"""Below this share of the polls per second that were answered well before, an API is not overloaded."""

_EVIDENCE = 3
"""So many polls must meet trouble at that lower speed before the speed is known not to be its cause."""

_AS_MUCH = 0.5
"""Trouble has become less if its share is below this part of what it was."""

_LEAST_SHARE = 0.05
_LARGEST_SHARE = 0.6
"""Shares of trouble that can be usual. Rarer trouble costs too little speed to ignore it; where it is more frequent,
the batch stays throttled, whether the speed is the cause or not."""

_CALM_POLLS = 100
"""If so many polls meet no trouble, throttling has helped."""

_FORGET = 10.0
"""A usual share is forgotten once there was no trouble in the polls that should have met it so many times."""

_LONG_CALM_POLLS = 1000
"""After so many polls without trouble, nothing is left of what was met before; further ones need not be counted."""


@define(eq=False, repr=False)
class _Speed:
    """Events per second, of about the last second."""

    _count: float = 0.0
    _since: float | None = None
    at: float = 0.0

    def add(self, now: float) -> None:
        if self._since is None:
            self._since = self.at = now
        self._count = self._count * math.exp(self.at - now) + 1
        self.at = now

    def per_second(self, now: float) -> float:
        if self._since is None or now <= self._since:
            return self._count
        return self._count * math.exp(self.at - now) / -math.expm1(self._since - now)


@define(eq=False, repr=False)
class _Trouble:
    """One kind of trouble: how much of it there is, and how much of that has nothing to do with the speed.

    Attributes:
        margin: A share above it is trouble with a cause, while no usual share is known.
        share: The share of this trouble among the last polls.
        usual: The share that did not become less at a lower speed; 0 where none is known.
        worked: The polls per second that were answered well when this trouble throttled; the polls below that speed
            are counted as evidence. 0 where no experiment is under way: the speed of a poll does not matter then.
        _calm: How many polls in a row have not met it.
        _needed: How many slower polls must meet it before its cause is judged.
        _polls: The polls while no experiment was under way; halved now and then, so that older ones weigh less.
        _met: Those of *_polls* that met it.
        _slow_polls: The polls below the speed of the experiment.
        _slow_met: Those of *_slow_polls* that met it.
    """

    margin: float
    share: float = 0.0
    usual: float = 0.0
    worked: float = 0.0
    _calm: int = 0
    _needed: int = _EVIDENCE
    _polls: float = 0.0
    _met: float = 0.0
    _slow_polls: int = 0
    _slow_met: int = 0

    def count(self, speed: float, *, met: bool) -> None:
        """Take note of a poll that began at that speed (polls per second), and whether it met this trouble."""
        self.share += (met - self.share) / _SHARE_POLLS
        self._calm = 0 if met else self._calm + 1
        if self._calm >= _CALM_POLLS:
            self.worked = 0.0
        if self._calm * self.usual > _FORGET:
            self.usual = 0.0
        if not self.worked:
            self._polls += 1
            self._met += met
            if self._polls > _USUAL_POLLS:
                self._polls /= 2
                self._met /= 2
        elif speed <= _CLEARLY_SLOWER * self.worked:
            self._slow_polls += 1
            self._slow_met += met

    def count_calm(self, polls: int) -> None:
        """Take note of so many polls that met no trouble, while no experiment is under way."""
        for _ in range(min(polls, _LONG_CALM_POLLS)):
            self.count(math.inf, met=False)

    @property
    def is_unusual(self) -> bool:
        """Whether there is so much of it that something must be its cause."""
        return self.share > (self.usual + _MARGIN if self.usual else self.margin)

    def depends_on(self, speed: float) -> bool:
        """Say whether less *speed* (polls per second) would lower the share of trouble, as far as is known."""
        self.share = 0.0  # what was met at this speed says nothing about the next one
        if self.usual:
            self.usual = 0.0
            self._needed *= 2
        if not self.worked:
            # Of few polls, the share that was answered well is rather too low than too high.
            self.worked = speed * (self._polls - self._met) / (self._polls + _EVIDENCE)
            self._slow_polls = self._slow_met = 0
            return True
        if self._slow_met < self._needed:
            return True
        share = self._slow_met / self._slow_polls
        if not max(_LEAST_SHARE, _AS_MUCH * self._met / self._polls) <= share <= _LARGEST_SHARE:
            return True
        self.share = self.usual = (self._met + self._slow_met) / (self._polls + self._slow_polls)
        self.worked = self._polls = self._met = 0.0
        return False


def _losses() -> _Trouble:
    return _Trouble(margin=_MARGIN)


def _refusals() -> _Trouble:
    return _Trouble(margin=0.0)


@define(eq=False, repr=False)
class Throttle:
    """Says when a batch may begin its next poll. All instants are of one monotonic clock, in seconds.

    HTTP 429 and 503 throttle at once, and a ``Retry-After`` stops everything until it has passed. Other 5xx and broken
    connections throttle if they are many. None of them does where a lower speed has not lowered their share.

    Args:
        max_hint: A ``Retry-After`` of more seconds is taken for this many.

    Attributes:
        _ceiling: The polls per second at which it throttled last; infinite while it sets no limit.
        _remaining: The share of the ceiling at which polls go on.
        _is_doubling: Whether the limit doubles every second, instead of following the curve.
        _well_since: When the first poll was answered well that began after the pause of the last throttling; None if
            none was.
        _throttled_at: When it throttled last.
        _resumes_at: No poll begins before.
        _next: When the next poll may begin by the limit.
        _stopped: For how long no poll could begin, in all.
        _pauses: Throttlings since a poll was answered well; each doubles the pause.
        _is_dark: Whether no poll that began after the last throttling was answered well.
        _polls: The polls that have begun since the last throttling.
        _uncounted: Polls without trouble that the shares of trouble do not include yet.
        _last: When the last poll began.
        _begun: The polls per second that began.
        _good: The polls per second that were answered well.
    """

    max_hint: float = 300.0
    _ceiling: float = math.inf
    _remaining: float = 1.0
    _is_doubling: bool = False
    _well_since: float | None = None
    _throttled_at: float = -math.inf
    _resumes_at: float = -math.inf
    _next: float = -math.inf
    _stopped: float = 0.0
    _pauses: int = 0
    _is_dark: bool = False
    _polls: int = 0
    _uncounted: int = 0
    _last: float = 0.0
    _begun: _Speed = field(factory=_Speed)
    _good: _Speed = field(factory=_Speed)
    _losses: _Trouble = field(factory=_losses)
    _refusals: _Trouble = field(factory=_refusals)

    def ready_at(self) -> float:
        """Return the earliest instant at which the next poll may begin."""
        return max(self._resumes_at, self._next)

    def stopped_for(self, now: float) -> float:
        """Return the seconds after the instant *now* for which no poll at all may begin."""
        return max(0.0, self._resumes_at - now)

    def is_on(self, now: float) -> bool:
        """Return whether polls are held back at the instant *now*."""
        return now < self._resumes_at or self.limit(now) < 2 * self._ceiling

    def speed(self, now: float) -> float:
        """Return the polls that were begun, per second of about the last one before the instant *now*."""
        running = self._running(now)
        stopped = (now - self._last) - (running - self._begun.at)
        return self._begun.per_second(running) * math.exp(-stopped)

    def begin(self, now: float) -> None:
        """Take note that a poll begins at the instant *now*."""
        self._last = now
        self._polls += 1
        self._begun.add(self._running(now))
        if self._ceiling < math.inf:
            planned = self._next if now - self._next < _TIMER_LATENESS_SECONDS else now
            self._next = planned + 1 / self.limit(now)

    def end(self, observation: JobStatus | SmileJobsError, *, began: float, now: float) -> bool:
        """Take in what the poll that began at the instant *began* brought at *now*; say whether that throttles."""
        is_new = began >= self._throttled_at  # what began before met the same overload
        if not (isinstance(observation, SmileJobsError) and is_outage(observation)):
            if is_new:
                self._count_calm(began)
            self._good.add(self._running(now))
            self._pauses = 0
            if self._well_since is None and began >= self._resumes_at - CLOCK_TOLERANCE_SECONDS:
                self._well_since = now
            return False
        trouble = self._refusals if observation.http_status in (429, 503) else self._losses
        self._losses.count_calm(self._uncounted)
        self._refusals.count_calm(self._uncounted)
        self._uncounted = 0
        if is_new and not self._is_probing:
            self._count(trouble, began)
        throttles = is_new and (self._is_probing or (trouble.is_unusual and self._is_overload(trouble, now)))
        if throttles:
            self._throttle(now, nothing_works=trouble is self._losses and self._is_dark)
        if observation.retry_after is not None and not trouble.usual:
            self._stop(now, now + min(observation.retry_after, self.max_hint))
        return throttles

    def _count_calm(self, began: float) -> None:
        """Take note of a poll that met no trouble. Most polls do not, so they are counted only when it matters."""
        self._is_dark = False
        if not self._is_probing:
            if self._losses.worked or self._refusals.worked:
                self._count(None, began)
            else:
                self._uncounted += 1

    def _count(self, trouble: _Trouble | None, began: float) -> None:
        speed = self.limit(began)
        self._losses.count(speed, met=trouble is self._losses)
        self._refusals.count(speed, met=trouble is self._refusals)

    def limit(self, now: float) -> float:
        """Return the polls per second that may begin at the instant *now*."""
        if self._ceiling == math.inf:
            return math.inf
        if not self._is_doubling:
            since = max(0.0, now - self._resumes_at)
            share = 1 + ((since - _CURVE_SECONDS * math.cbrt(1 - self._remaining)) / _CURVE_SECONDS) ** 3
        elif self._well_since is None:
            return _SLOWEST
        else:
            share = _LOWEST_SHARE * 2 ** min(now - self._well_since, 30)
        return max(_SLOWEST, self._ceiling * share)

    @property
    def _is_probing(self) -> bool:
        """Whether single polls try the API, and none of them was answered well yet."""
        return self._is_doubling and self._well_since is None

    def _is_overload(self, trouble: _Trouble, now: float) -> bool:
        if trouble.depends_on(min(self.limit(now), self._begun.per_second(self._running(now)))):
            return True
        self._ceiling = math.inf
        self._next = -math.inf
        return False

    def _throttle(self, now: float, *, nothing_works: bool) -> None:
        running = self._running(now)
        worked = self._good.per_second(running)
        if self._is_probing:
            tried = self._ceiling * _LOWEST_SHARE
        else:
            tried = min(self.limit(now), self._begun.per_second(running))
            if self._polls >= _SHARE_POLLS and self._throttled_at > -math.inf:
                tried = min(tried, _BURST * self._polls / (now - self._throttled_at))
        self._ceiling = max(_SLOWEST, tried)
        self._remaining = min(max(_LOWEST_SHARE, _HIGHEST_SHARE * worked / self._ceiling), _HIGHEST_SHARE)
        self._is_doubling = nothing_works or worked < _NOTHING_WORKS * self._ceiling
        self._well_since = None
        self._throttled_at = now
        self._polls = 0
        self._is_dark = True
        self._stop(now, now + min(_PAUSE_SECONDS * 2**self._pauses, _LONGEST_PAUSE_SECONDS))
        self._pauses = min(self._pauses + 1, 10)

    def _stop(self, now: float, until: float) -> None:
        """Let no poll begin before the instant *until*."""
        if until > self._resumes_at:
            self._stopped += until - max(now, self._resumes_at)
            self._resumes_at = until

    def _running(self, now: float) -> float:
        """Return the instant *now* by a clock that stands still while everything is stopped: speeds are taken by it."""
        return max(now, self._resumes_at) - self._stopped
