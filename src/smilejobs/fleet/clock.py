"""The clock of a fleet, which can be stopped: by a consumer that is slow, and by the throttle."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import anyio

Stop = Literal["consumer", "throttle"]
"""Why a clock stands still: there are more outcomes than the caller takes; jobs are due, and may not be polled."""


class Clock:
    """The event loop's clock, less the time for which this one stood still."""

    def __init__(self) -> None:
        self._stops: set[Stop] = set()
        self._stood_still = 0.0
        self._since: float | None = None
        self._cuts: dict[anyio.CancelScope, float] = {}

    def is_stopped(self, stop: Stop) -> bool:
        """Whether it has been stopped for that reason."""
        return stop in self._stops

    def at(self, real_now: float) -> float:
        """Return the instant by this clock; by the event loop's it is *real_now*."""
        return (real_now if self._since is None else self._since) - self._stood_still

    def stop(self, stop: Stop) -> None:
        """Stand still from now on, until `go_on` is called with every reason for which it was stopped."""
        self._stops.add(stop)
        if self._since is None:
            self._since = anyio.current_time()
            for scope in self._cuts:
                scope.deadline = math.inf

    def go_on(self, stop: Stop) -> None:
        """Run again, if it stood still for this reason alone."""
        if self._since is None:
            return
        self._stops.discard(stop)
        if not self._stops:
            self._stood_still += anyio.current_time() - self._since
            self._since = None
            for scope, deadline in self._cuts.items():
                scope.deadline = deadline + self._stood_still

    @contextmanager
    def cutting(self, scope: anyio.CancelScope, real_deadline: float) -> Iterator[None]:
        """Give a scope a deadline, which is put off while this clock stands still."""
        self._cuts[scope] = real_deadline - self._stood_still
        scope.deadline = real_deadline if self._since is None else math.inf
        try:
            yield
        finally:
            del self._cuts[scope]
