"""A connection that can fall silent without being cut, as behind a firewall that has forgotten it."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from math import inf
from urllib.parse import urlsplit

import anyio
from anyio.abc import SocketStream
from attrs import define, field


@define
class Wire:
    """Between a worker and its database; it can be silent without being cut."""

    port: int
    speaks: asyncio.Event = field(factory=asyncio.Event)
    most: float = inf
    """Connections that come after so many are silent from the start."""
    count: int = 0
    """Connections so far."""

    def forget(self) -> None:
        """Fall silent on all connections that there are; those that come later are as good as ever."""
        self.speaks.clear()
        self.speaks = asyncio.Event()
        self.speaks.set()


@asynccontextmanager
async def wire(url: str) -> AsyncGenerator[Wire, None]:
    target = urlsplit(url)
    assert target.hostname is not None
    assert target.port is not None
    host, port = target.hostname, target.port
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=0)
    between = Wire(listener.extra(anyio.abc.SocketAttribute.local_port))
    between.speaks.set()

    async def pump(source: SocketStream, sink: SocketStream, speaks: asyncio.Event) -> None:
        try:
            async for data in source:
                await speaks.wait()
                await sink.send(data)
            await sink.send_eof()
        except (anyio.BrokenResourceError, anyio.ClosedResourceError, OSError):
            pass

    async def connection(near: SocketStream) -> None:
        between.count += 1
        speaks = between.speaks if between.count <= between.most else asyncio.Event()
        async with near, await anyio.connect_tcp(host, port) as far, anyio.create_task_group() as tasks:
            tasks.start_soon(pump, near, far, speaks)
            tasks.start_soon(pump, far, near, speaks)

    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, connection)
        yield between
        tasks.cancel_scope.cancel()
