"""Connections of httpcore, many of them."""

import ssl
from collections import deque
from collections.abc import AsyncIterator, Callable

import anyio
import httpx

from smilejobs.transport.carriers import KEEPALIVE


def over_httpcore(max_connections: int, trust: ssl.SSLContext, proxy: httpx.Proxy | None) -> "Connections":
    """Return connections of httpcore.

    Raises:
        ImportError: The proxy speaks SOCKS, and what httpx needs for that is not installed.
    """
    limits = httpx.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=KEEPALIVE)
    return Connections(lambda: httpx.AsyncHTTPTransport(verify=trust, limits=limits, proxy=proxy), max_connections)


class Connections(httpx.AsyncBaseTransport):
    """Connections of httpcore, each in a pool of its own.

    For each request a pool of httpcore looks at all its connections, and at all of them again for each that is idle: a
    hundred take it 20 ms. It also loses connections for good when a request is cancelled at an unlucky instant; here
    such a connection is dropped with its pool.

    Args:
        connect: Makes such a pool.
        max_connections: How many there are at most; other requests wait.
    """

    def __init__(self, connect: Callable[[], httpx.AsyncBaseTransport], max_connections: int) -> None:
        connect()  # what is wrong with it is said now
        self._connect = connect
        self._max_connections = max_connections
        self._free: anyio.Semaphore | None = None
        self._all: set[httpx.AsyncBaseTransport] = set()
        self._idle: deque[tuple[float, httpx.AsyncBaseTransport]] = deque()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request over the connection that was used last, or a new one."""
        if self._free is None:
            self._free = anyio.Semaphore(self._max_connections, fast_acquire=True)
        await self._free.acquire()
        connection = self._idle.pop()[1] if self._idle else self._connect()
        self._all.add(connection)
        try:
            response = await connection.handle_async_request(request)
        except BaseException:
            await self.drop(connection)
            raise
        assert isinstance(response.stream, httpx.AsyncByteStream), "httpcore is asynchronous"
        response.stream = _Returning(response.stream, connection, self)
        return response

    async def aclose(self) -> None:
        """Close them all."""
        for connection in tuple(self._all):
            await connection.aclose()

    async def take_back(self, connection: httpx.AsyncBaseTransport) -> None:
        """Keep a connection for the next request; close those that nobody has wanted for long."""
        now = anyio.current_time()
        self._idle.append((now, connection))
        self._release()
        while self._idle and self._idle[0][0] < now - KEEPALIVE:  # others may take them meanwhile
            await self._close(self._idle.popleft()[1])

    async def drop(self, connection: httpx.AsyncBaseTransport) -> None:
        """Close a connection whose request was cut short."""
        self._release()
        await self._close(connection)

    def _release(self) -> None:
        assert self._free is not None, "it was acquired"
        self._free.release()

    async def _close(self, connection: httpx.AsyncBaseTransport) -> None:
        self._all.discard(connection)
        with anyio.CancelScope(shield=True):
            await connection.aclose()


class _Returning(httpx.AsyncByteStream):
    """The body of an answer; once it is closed, its connection can be used again."""

    def __init__(self, stream: httpx.AsyncByteStream, connection: httpx.AsyncBaseTransport, owner: Connections) -> None:
        self._stream = stream
        self._connection = connection
        self._owner = owner

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._stream.__aiter__()

    async def aclose(self) -> None:
        try:
            await self._stream.aclose()
        except BaseException:
            await self._owner.drop(self._connection)
            raise
        await self._owner.take_back(self._connection)
