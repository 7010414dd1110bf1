"""The clock of a scheduler. It can be stopped: by a slow consumer, and by the throttle."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import anyio

Reason = Literal["consumer", "throttle"]
"""Why a clock is stopped: the consumer does not take the outcomes; jobs are due and may not be polled."""


class Clock:
    """The event loop's clock, less the time for which this one was stopped."""

    def __init__(self) -> None:
        self._reasons: set[Reason] = set()
        self._stopped_for = 0.0
        self._stopped_at: float | None = None
        self._deadlines: dict[anyio.CancelScope, float] = {}

    @property
    def is_running(self) -> bool:
        """Whether it is not stopped for any reason."""
        return self._stopped_at is None

    def is_stopped(self, reason: Reason) -> bool:
        """Return whether it is stopped for that reason."""
        return reason in self._reasons

    def at(self, real_now: float) -> float:
        """Return the instant by this clock that is *real_now* by the event loop's."""
        return (real_now if self._stopped_at is None else self._stopped_at) - self._stopped_for

    def stop(self, reason: Reason) -> None:
        """Stop until `resume` has been called with every reason for which the clock is stopped."""
        self._reasons.add(reason)
        if self._stopped_at is None:
            self._stopped_at = anyio.current_time()
            for scope in self._deadlines:
                scope.deadline = math.inf

    def resume(self, reason: Reason) -> None:
        """Run again, unless the clock is stopped for another reason too."""
        if self._stopped_at is None:
            return
        self._reasons.discard(reason)
        if not self._reasons:
            self._stopped_for += anyio.current_time() - self._stopped_at
            self._stopped_at = None
            for scope, deadline in self._deadlines.items():
                scope.deadline = deadline + self._stopped_for

    @contextmanager
    def limiting(self, scope: anyio.CancelScope, deadline: float) -> Iterator[None]:
        """Give a scope a deadline by this clock while the block runs."""
        self._deadlines[scope] = deadline
        scope.deadline = deadline + self._stopped_for if self._stopped_at is None else math.inf
        try:
            yield
        finally:
            del self._deadlines[scope]
