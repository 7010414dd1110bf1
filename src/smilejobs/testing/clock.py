"""A virtual clock: when every task sleeps, the time jumps to the next timer.

It is only for tests without real sockets or threads, because it does not wait for them.
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
    """An asyncio event loop with a virtual clock that begins at 0; usable as a ``loop_factory`` of `asyncio.Runner`."""

    def __init__(self) -> None:
        self._time = 0.0
        super().__init__(_Selector(self._jump))

    def time(self) -> float:
        """Return the virtual time in seconds."""
        return self._time

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """Wait for the threads of the executor without a timeout, because a virtual timeout would end at once."""
        await super().shutdown_default_executor()

    def _jump(self, seconds: float) -> None:
        self._time += seconds


def virtual_clock(backend: str) -> tuple[str, dict[str, object]]:
    """Return the name and the options of a backend with a virtual clock.

    Return the pair from the fixture ``anyio_backend`` of anyio's pytest plugin, or pass it to `anyio.run` as
    ``backend`` and ``backend_options``.

    Args:
        backend: "asyncio" or "trio".

    Raises:
        ValueError: *backend* is neither.
    """
    if backend == "asyncio":
        return "asyncio", {"loop_factory": VirtualClockEventLoop}
    if backend == "trio":
        from trio.testing import MockClock

        return "trio", {"clock": MockClock(autojump_threshold=0)}
    raise ValueError("backend must be 'asyncio' or 'trio'")


def virtual_now() -> datetime:
    """Return the time of a virtual wall clock, for ``Client(now=...)``: `EPOCH` plus the time of the event loop."""
    return EPOCH + timedelta(seconds=anyio.current_time())
