"""Waiting in tests of real servers and databases, and a clock that can be put forward.

A machine may be slow, or stop for a while. So nobody sleeps until something has surely happened: `until` waits for it,
and what takes minutes takes them on a clock that is put forward (`let_pass`).
"""

import asyncio
import secrets
import socket
from collections.abc import Callable
from contextlib import suppress
from inspect import isawaitable

import anyio
import anyio.lowlevel
import trio
import trio.testing

PORTS = range(10_000, 32_000)
"""Below those that systems give to clients, of whom there are many in a test run."""


async def until(condition: Callable[[], object], within: float = 240.0) -> None:
    """Return as soon as a condition holds, which may have to be awaited. There is much time, for a machine is slow."""
    with anyio.fail_after(within):
        while True:
            holds = condition()
            if await holds if isawaitable(holds) else holds:
                return
            await anyio.sleep(0.005)


async def settled() -> None:
    """Let all tasks do what they can do now: on loopback, what one has sent is there for the other."""
    for _ in range(100):
        await anyio.lowlevel.checkpoint()


class SteppedEventLoop(asyncio.SelectorEventLoop):
    """An asyncio event loop whose clock goes as usual, and can be put forward."""

    def __init__(self) -> None:
        self.ahead = 0.0
        super().__init__()

    def time(self) -> float:
        return super().time() + self.ahead


def stepped_clock(backend: str) -> tuple[str, dict[str, object]]:
    """The value of ``anyio_backend`` for `let_pass`; it waits for sockets and threads, as a virtual clock does not."""
    if backend == "asyncio":
        return "asyncio", {"loop_factory": SteppedEventLoop}
    return "trio", {"clock": trio.testing.MockClock(rate=1)}


async def let_pass(seconds: float) -> None:
    """Put the clock forward, once all tasks have done what they can do; then let them do what is due."""
    await settled()
    if trio.lowlevel.in_trio_run():
        clock = trio.lowlevel.current_clock()
        assert isinstance(clock, trio.testing.MockClock)
        clock.jump(seconds)
    else:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SteppedEventLoop)
        loop.ahead += seconds
    await settled()


def free_port() -> int:
    """Return a port of loopback that nobody has at this moment, and hardly anybody will have at the next."""
    while True:
        port = secrets.choice(PORTS)  # not by `random`, which may be seeded: others look for one at the same time
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
