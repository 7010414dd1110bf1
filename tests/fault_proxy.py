"""A TCP proxy on loopback that harms connections on purpose, at random but by a seed.

Each direction of each connection may have one fault: it is drawn when the connection opens, from the seed and from the
number of the connection, and happens after some bytes of that direction.
"""

import asyncio
import random
import socket
import struct
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Literal

from attrs import define, field, frozen

Fault = Literal["cut", "delay", "reset", "freeze"]

_PIECE = 16 * 1024
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
    """

    cut: float = 0.0
    delay: float = 0.0
    reset: float = 0.0
    freeze: float = 0.0
    delay_seconds: float = 0.05
    freeze_seconds: float = 1.0
    after_bytes: int = 10_000

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


Writers = tuple[asyncio.StreamWriter, asyncio.StreamWriter]


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
    port: int = 0
    connections: int = 0
    happened: Counter[Fault] = field(factory=Counter["Fault"])
    _tasks: set["asyncio.Task[None]"] = field(factory=set["asyncio.Task[None]"])

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Forward one connection until it ends."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        chance = random.Random(f"{self.seed} {self.connections}")
        try:
            await self._connect(chance, reader, writer)
        except (OSError, asyncio.CancelledError):
            pass  # the server of asyncio complains of tasks that are cancelled
        finally:
            await _close(writer)
            self._tasks.discard(task)

    async def stop(self) -> None:
        """End all connections."""
        for task in tuple(self._tasks):
            task.cancel()
        while self._tasks:  # noqa: ASYNC110  # they have been told to end
            await asyncio.sleep(0.01)

    async def _connect(self, chance: random.Random, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", self.target)
        writers = (inner_writer, writer)
        forwarding = [
            asyncio.ensure_future(self._forward(random.Random(chance.random()), source, index, writers))
            for index, source in enumerate((reader, inner_reader))
        ]
        try:
            await asyncio.wait(forwarding, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in forwarding:
                one.cancel()
            await asyncio.gather(*forwarding, return_exceptions=True)
            await _close(inner_writer)

    async def _forward(self, chance: random.Random, source: asyncio.StreamReader, index: int, writers: Writers) -> None:
        """Forward one direction until it ends, or its fault ends it."""
        sink = writers[index]
        fault = self.faults.draw(chance)
        left = chance.randrange(self.faults.after_bytes)
        while piece := await source.read(_PIECE):
            if fault is None or left >= len(piece):
                left -= len(piece)
                sink.write(piece)
                await sink.drain()
                continue
            self.happened[fault] += 1
            if fault == "delay":
                await asyncio.sleep(chance.uniform(0.0, self.faults.delay_seconds))
                sink.write(piece)
                await sink.drain()
                continue
            sink.write(piece[:left])
            await sink.drain()
            if fault == "freeze":
                await asyncio.sleep(self.faults.freeze_seconds)
                sink.write(piece[left:])
                fault = None  # once is enough
                continue
            if fault == "reset":
                for each in writers:
                    each.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            return


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()


@asynccontextmanager
async def fault_proxy(target: int, faults: Faults, seed: int = 0) -> AsyncGenerator[FaultProxy, None]:
    """Forward connections to a port of this machine while the block runs.

    Args:
        target: The port.
        faults: What happens to them.
        seed: Draws what happens.
    """
    proxy = FaultProxy(target, faults, seed)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        await proxy.stop()
        await server.wait_closed()
