"""A TCP proxy on loopback that harms connections on purpose, at random but by a seed.

Each direction of each connection may have one fault: it is drawn when the connection opens, from the seed and from the
number of the connection, and happens after some bytes of that direction, or after some time.
"""

import random
import socket
import struct
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Literal

import anyio
from anyio.abc import SocketAttribute, SocketStream
from attrs import define, field, frozen

Fault = Literal["cut", "delay", "reset", "freeze"]

_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER with no time: closing sends RST."""


@frozen(kw_only=True)
class Faults:
    """How often each fault happens to a direction of a connection, as a probability; at most one of them does.

    Attributes:
        cut: The connection is closed in the middle of the bytes.
        delay: Every piece comes late.
        reset: The connection is closed with RST.
        freeze: Nothing is forwarded for a while, and then everything.
        delay_seconds: How late a piece comes at most.
        freeze_seconds: For how long nothing is forwarded.
        after_bytes: After how many bytes of a direction a fault happens at most.
        after_seconds: For connections that stay open and carry little: the age of a connection, at most, from which the
            next bytes meet the fault, in place of *after_bytes*.
    """

    cut: float = 0.0
    delay: float = 0.0
    reset: float = 0.0
    freeze: float = 0.0
    delay_seconds: float = 0.05
    freeze_seconds: float = 1.0
    after_bytes: int = 10_000
    after_seconds: float | None = None

    def draw(self, chance: random.Random) -> Fault | None:
        """Return the fault of one direction; None for most of them."""
        drawn = chance.random()
        shares: tuple[tuple[Fault, float], ...] = (
            ("cut", self.cut),
            ("delay", self.delay),
            ("reset", self.reset),
            ("freeze", self.freeze),
        )
        for fault, share in shares:
            drawn -= share
            if drawn < 0:
                return fault
        return None


@define
class FaultProxy:
    """A proxy, and what it has done.

    Attributes:
        target: The port to which it forwards.
        faults: What happens to connections.
        seed: Draws what happens.
        port: Where it listens, on 127.0.0.1.
        connections: How many it has had.
        happened: How often each fault has happened.
    """

    target: int
    faults: Faults
    seed: int
    port: int
    connections: int = 0
    happened: Counter[Fault] = field(factory=Counter["Fault"])

    async def serve(self, outer: SocketStream) -> None:
        """Forward one connection until one of its directions ends."""
        self.connections += 1
        chance = random.Random(f"{self.seed} {self.connections}")
        with suppress(OSError):
            async with (
                outer,
                await anyio.connect_tcp("127.0.0.1", self.target) as inner,
                anyio.create_task_group() as tasks,
            ):
                for source, sink in ((outer, inner), (inner, outer)):
                    one = random.Random(chance.random())
                    tasks.start_soon(self._forward, one, source, sink, tasks.cancel_scope)

    async def _forward(
        self, chance: random.Random, source: SocketStream, sink: SocketStream, ending: anyio.CancelScope
    ) -> None:
        fault = self.faults.draw(chance)
        left = chance.randrange(self.faults.after_bytes)
        by_age = self.faults.after_seconds
        due = None if by_age is None else anyio.current_time() + chance.uniform(0.0, by_age)
        try:
            async for piece in source:
                if due is not None:
                    left = len(piece) if anyio.current_time() < due else chance.randrange(len(piece))
                if fault is None or left >= len(piece):
                    left -= len(piece)
                    await sink.send(piece)
                    continue
                self.happened[fault] += 1
                if fault == "delay":
                    await anyio.sleep(chance.uniform(0.0, self.faults.delay_seconds))
                    await sink.send(piece)
                    continue
                await sink.send(piece[:left])
                if fault == "freeze":
                    await anyio.sleep(self.faults.freeze_seconds)
                    await sink.send(piece[left:])
                    fault = None  # once is enough
                    continue
                if fault == "reset":
                    for stream in (source, sink):
                        raw = stream.extra(SocketAttribute.raw_socket)
                        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                break
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            pass
        ending.cancel()


@asynccontextmanager
async def fault_proxy(target: int, faults: Faults, seed: int = 0) -> AsyncGenerator[FaultProxy, None]:
    """Forward connections to a port of this machine while the block runs.

    Args:
        target: The port.
        faults: What happens to them.
        seed: Draws what happens.
    """
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=0)
    proxy = FaultProxy(target, faults, seed, listener.extra(SocketAttribute.local_port))
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, proxy.serve)
        yield proxy
        tasks.cancel_scope.cancel()
