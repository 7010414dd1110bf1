"""The clock of a fleet, which can be stopped."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import anyio


class Clock:
    """The event loop's clock, less the time for which this one stood still."""

    def __init__(self) -> None:
        self._stood_still = 0.0
        self._since: float | None = None
        self._cuts: dict[anyio.CancelScope, float] = {}

    @property
    def stands_still(self) -> bool:
        """Whether it has been stopped."""
        return self._since is not None

    def at(self, real_now: float) -> float:
        """Return the instant by this clock; by the event loop's it is *real_now*."""
        return (real_now if self._since is None else self._since) - self._stood_still

    def stop(self) -> None:
        """Stand still, from now on."""
        if self._since is None:
            self._since = anyio.current_time()
            for scope in self._cuts:
                scope.deadline = math.inf

    def go_on(self) -> None:
        """Run again, if it stood still."""
        if self._since is not None:
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
