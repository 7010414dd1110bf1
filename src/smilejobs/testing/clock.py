"""A clock that jumps: whenever every task sleeps, time moves on to the first that wakes.

Only for tests without real sockets or threads: a clock that jumps does not wait for them.
"""

import asyncio
import selectors
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import anyio

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
"""The instant at which every virtual clock begins."""


class _Selector(selectors.DefaultSelector):
    def __init__(self, jump: Callable[[float], None]) -> None:
        super().__init__()
        self._jump = jump

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None or timeout <= 0:
            return super().select(timeout)
        events = super().select(0)
        if not events:
            self._jump(timeout)
        return events


class VirtualClockEventLoop(asyncio.SelectorEventLoop):
    """An asyncio event loop whose time begins at 0 and jumps; a ``loop_factory`` for `asyncio.Runner` and others."""

    def __init__(self) -> None:
        self._time = 0.0
        super().__init__(_Selector(self._jump))

    def time(self) -> float:
        """Return the virtual time in seconds."""
        return self._time

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """Wait for the threads of the executor as long as they take: a timeout would jump."""
        await super().shutdown_default_executor()

    def _jump(self, seconds: float) -> None:
        self._time += seconds


def virtual_clock(backend: str) -> tuple[str, dict[str, object]]:
    """Return the backend's name and options for a run under a virtual clock.

    It is what anyio's pytest plugin takes as the value of its fixture ``anyio_backend``; `anyio.run` takes the two as
    ``backend`` and ``backend_options``.

    Args:
        backend: "asyncio" or "trio".

    Raises:
        ValueError: It is neither.
    """
    if backend == "asyncio":
        return "asyncio", {"loop_factory": VirtualClockEventLoop}
    if backend == "trio":
        from trio.testing import MockClock

        return "trio", {"clock": MockClock(autojump_threshold=0)}
    raise ValueError("backend must be 'asyncio' or 'trio'")


def virtual_now() -> datetime:
    """Return the wall clock that belongs to the virtual one: `EPOCH` plus the virtual time. For ``Client(now=...)``."""
    return EPOCH + timedelta(seconds=anyio.current_time())
