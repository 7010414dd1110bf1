"""When the API cannot keep up: all polls of a fleet slow down together, and speed up again with care.

The curve is that of CUBIC, the congestion control of TCP (RFC 9438), for polls per second in the place of bytes in
flight: back to the speed at which it was throttled quickly, slowly about there, and quickly beyond if nothing fails.
After the speed had to be halved, because trouble came too soon or because nothing works any more, no one knows what
the API can do: then a poll a second asks whether it is well, and once it is the speed doubles every second.
It is the speed that is halved, and with it the number of polls in flight; where an answer takes a few milliseconds, a
single connection can ask more often than an API allows, and fewer connections would be no throttle.
"""

import math

from attrs import define, field

from smilejobs.errors import BadResponseError, RateLimitedError, RequestError, ServerError, SmileJobsError
from smilejobs.model.jobs import JobStatus

_HARDEST = 0.5
_SOFTEST = 0.9
_SLOWEST = 1.0
"""Polls per second: slower than this no throttle makes a fleet, or it would never learn that the API is well again."""

_STRETCH = 10.0
"""Seconds, the scale of the curve: so long after it came back to the speed of the last throttle, a fleet is twice as
fast."""

_LATE = 0.01
"""Seconds by which timers are late now and then; so much is caught up."""

_PAUSE = 0.25
_LONGEST_PAUSE = 30.0
_MANY = 0.2
"""The share of failures that is no accident any more."""

_MEMORY = 20
"""About so many polls the share of failures is taken of."""

_TROUBLE = (RequestError, BadResponseError, RateLimitedError, ServerError)


@define(eq=False, repr=False)
class _Speed:
    """Events per second, of about the last second."""

    _count: float = 0.0
    _at: float = 0.0
    _since: float | None = None

    def add(self, now: float) -> None:
        if self._since is None:
            self._since = self._at = now
        self._count = self._count * math.exp(self._at - now) + 1
        self._at = now

    def at(self, now: float) -> float:
        if self._since is None or now <= self._since:
            return self._count
        return self._count * math.exp(self._at - now) / -math.expm1(self._since - now)


@define(eq=False, repr=False)
class Throttle:
    """Says when a fleet may begin its next poll. All instants are of one monotonic clock, in seconds.

    HTTP 429 and 503 throttle at once, and a ``Retry-After`` stops everybody until it has passed. Other 5xx and broken
    connections throttle if they are many: one in five of the last twenty or so.

    Args:
        max_hint: A ``Retry-After`` of more seconds is taken for this many.
    """

    max_hint: float = 300.0
    _ceiling: float = math.inf
    _remaining: float = 1.0
    _well_since: float | None = None
    _throttled_at: float = -math.inf
    _resumes_at: float = -math.inf
    _next: float = -math.inf
    _pauses: int = 0
    _share: float = 0.0
    _begun: _Speed = field(factory=_Speed)
    _good: _Speed = field(factory=_Speed)

    def ready_at(self) -> float:
        """The earliest instant at which the next poll may begin."""
        return max(self._resumes_at, self._next)

    def is_on(self, now: float) -> bool:
        """Whether polls are held back at the instant *now*."""
        return now < self._resumes_at or self.limit(now) < 2 * self._ceiling

    def speed(self, now: float) -> float:
        """Polls that were begun, per second of about the last one before the instant *now*."""
        return self._begun.at(now)

    def begin(self, now: float) -> None:
        """Take note that a poll begins at the instant *now*."""
        self._begun.add(now)
        if self._ceiling < math.inf:
            planned = self._next if now - self._next < _LATE else now
            self._next = planned + 1 / self.limit(now)

    def end(self, observation: JobStatus | SmileJobsError, *, began: float, now: float) -> bool:
        """Take in what the poll that began at the instant *began* brought at *now*; say whether that throttles."""
        if not (isinstance(observation, _TROUBLE) and observation.transient):
            self._share -= self._share / _MEMORY
            self._good.add(now)
            self._pauses = 0
            if self._well_since is None and began >= self._resumes_at:
                self._well_since = now
            return False
        self._share += (1 - self._share) / _MEMORY
        throttles = began >= self._throttled_at and (observation.http_status in (429, 503) or self._share > _MANY)
        if throttles:
            self._throttle(now)
        if observation.retry_after is not None:
            self._resumes_at = max(self._resumes_at, now + min(observation.retry_after, self.max_hint))
        return throttles

    def _throttle(self, now: float) -> None:
        worked = self._good.at(now)
        is_probing = self._ceiling < math.inf and self._remaining == _HARDEST and self._well_since is None
        tried = self._ceiling * _HARDEST if is_probing else min(self.limit(now), self._begun.at(now))
        self._ceiling = max(_SLOWEST, tried)
        self._remaining = min(max(_HARDEST, _SOFTEST * worked / self._ceiling), _SOFTEST)
        self._well_since = None
        self._throttled_at = now
        self._resumes_at = max(self._resumes_at, now + min(_PAUSE * 2**self._pauses, _LONGEST_PAUSE))
        self._pauses = min(self._pauses + 1, 10)

    def limit(self, now: float) -> float:
        """Polls per second that may begin at the instant *now*."""
        if self._ceiling == math.inf:
            return math.inf
        if self._remaining > _HARDEST:
            since = max(0.0, now - self._resumes_at)
            share = 1 + ((since - _STRETCH * math.cbrt(1 - self._remaining)) / _STRETCH) ** 3
        elif self._well_since is None:
            return _SLOWEST
        else:
            share = _HARDEST * 2 ** min(now - self._well_since, 30)
        return max(_SLOWEST, self._ceiling * share)
