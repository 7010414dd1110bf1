"""Requests carried by httpx or httpx2, over connections of our own."""

import ssl
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import suppress
from types import ModuleType
from typing import Protocol, runtime_checkable

import anyio
import anyio.lowlevel
import httpx

from smilejobs.transport.body import STEPS_WITHOUT_A_CHECKPOINT
from smilejobs.transport.carrier import KEEPALIVE_SECONDS, Request, Response, StaleConnectionError
from smilejobs.transport.failures import is_closed_without_answer

MOST_BUFFERED_PIECES = 512
"""So many pieces of a body that is not wanted are read to end it well: 50 ms of work at most."""


def over_httpcore(
    max_connections: int, trust: ssl.SSLContext, proxy: httpx.Proxy | None, library: ModuleType = httpx
) -> "OverHttpx":
    """Return a carrier over connections of our own.

    Args:
        max_connections: How many there are at most.
        trust: The certificate authorities.
        proxy: The proxy to go through.
        library: httpx or httpx2.

    Raises:
        ImportError: The proxy speaks SOCKS, and what the library needs for that is not installed.
    """
    limits = library.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=KEEPALIVE_SECONDS)
    its_proxy = None
    if proxy is not None:
        auth = None if proxy.raw_auth is None else tuple(part.decode() for part in proxy.raw_auth)
        its_proxy = library.Proxy(str(proxy.url), auth=auth, ssl_context=proxy.ssl_context)
    return OverHttpx(
        lambda: library.AsyncHTTPTransport(verify=trust, limits=limits, proxy=its_proxy), max_connections, library
    )


class OverHttpx:
    """Connections of httpcore, each in a pool of its own, below the client of httpx, which would log each request.

    For each request a pool of httpcore looks at all its connections, and at all of them again for each that is idle: a
    hundred take it 20 ms. It also loses connections for good when a request is cancelled at an unlucky instant; here
    such a connection is dropped with its pool.

    Args:
        connect: Makes such a pool.
        max_connections: How many there are at most; other requests wait.
        library: httpx or httpx2, whichever *connect* uses.
    """

    def __init__(
        self, connect: Callable[[], httpx.AsyncBaseTransport], max_connections: int, library: ModuleType = httpx
    ) -> None:
        connect()  # what is wrong with it is said now
        self.has_connections = True
        self._connect = connect
        self._max_connections = max_connections
        self._free: anyio.Semaphore | None = None
        self._all: set[_Connection] = set()
        self._idle: deque[tuple[float, _Connection]] = deque()
        self._url: tuple[str, httpx.URL] = ("", library.URL())
        self._library = library
        self._body_type = type("RequestBody", (_RequestBody, library.AsyncByteStream), {})

    async def send(self, request: Request, *, fresh: bool = False) -> Response:
        """Send a request over the connection that was used last, or over a new one."""
        if self._free is None:
            self._free = anyio.Semaphore(self._max_connections, fast_acquire=True)
        await self._free.acquire()
        try:
            if self._idle and not fresh:
                try:
                    return await self._send_over(self._idle.pop()[1], request)
                except StaleConnectionError:
                    request.on_resend()
            if len(self._all) >= self._max_connections:
                await self._close(self._idle.popleft()[1])
            return await self._send_over(_Connection(self._connect()), request)
        except BaseException:
            self._free.release()
            raise

    async def aclose(self) -> None:
        """Close the connections."""
        for connection in tuple(self._all):
            await connection.aclose()

    async def give_back(self, connection: "_Connection", *, keep: bool) -> None:
        """Keep a connection for the next request, or close it; close those that have been idle for long."""
        assert self._free is not None, "it was acquired"
        self._free.release()
        if not keep:
            await self._close(connection)
            return
        now = anyio.current_time()
        self._idle.append((now, connection))
        while self._idle and self._idle[0][0] < now - KEEPALIVE_SECONDS:  # others may take them meanwhile
            await self._close(self._idle.popleft()[1])

    async def _send_over(self, connection: "_Connection", request: Request) -> Response:
        self._all.add(connection)
        try:
            response = await connection.send(self._build(request))
        except Exception as error:
            await self._close(connection)
            if connection.is_used and is_closed_without_answer(error):
                raise StaleConnectionError from error
            raise
        except BaseException:
            await self._close(connection)
            raise
        return _Response(response, connection, self)

    async def _close(self, connection: "_Connection") -> None:
        self._all.discard(connection)
        with anyio.CancelScope(shield=True), suppress(Exception):
            await connection.aclose()

    def _build(self, request: Request) -> httpx.Request:
        new: Callable[..., httpx.Request] = self._library.Request
        if request.method == "GET":
            return new("GET", request.url, headers=request.headers)
        if self._url[0] != request.url:
            self._url = (request.url, self._library.URL(request.url))
        url = self._url[1]
        head = {"Host": url.netloc.decode("ascii"), "Content-Length": str(len(request.body)), **request.headers}
        return new(request.method, url, headers=head, stream=self._body_type(request.body))


class _Connection:
    """A pool of one connection.

    Attributes:
        pool: The pool.
        is_used: Whether an answer has come over it.
    """

    def __init__(self, pool: httpx.AsyncBaseTransport) -> None:
        self.pool = pool
        self.is_used = False
        self._raw: _Closable | None = None
        self._stream: object = None
        self._reads = 0

    async def send(self, request: httpx.Request) -> httpx.Response:
        """Send a request.

        Raises:
            StaleConnectionError: The answer was there before the request: it was sent after the end of another answer.
        """
        reads = self._reads
        if self._raw is None:
            request.extensions["trace"] = self._trace
        response = await self.pool.handle_async_request(request)
        stream = response.extensions.get("network_stream")
        if stream is not None and stream is self._stream and reads == self._reads:
            raise StaleConnectionError
        self._watch(stream)
        self.is_used = True
        return response

    async def aclose(self) -> None:
        """Close the pool, and the socket where the pool does not know it.

        httpcore drops the socket of a TLS handshake that is cancelled, and does not close it.
        """
        try:
            await self.pool.aclose()
        finally:
            if self._raw is not None:
                await self._raw.aclose()

    async def _trace(self, event: str, info: Mapping[str, object]) -> None:
        """Take note of the socket."""
        stream = info.get("return_value")
        if event.endswith(".connect_tcp.complete") and isinstance(stream, _Closable):
            self._raw = stream

    def _watch(self, stream: object) -> None:
        """Count the reads from a connection: httpcore does not say what it has left in its buffer."""
        if stream is self._stream or stream is None:
            return
        self._stream = stream
        read: Callable[..., Awaitable[bytes]] = getattr(stream, "read")  # noqa: B009  # its type is not told

        def counted(*args: object, **more: object) -> Awaitable[bytes]:
            self._reads += 1
            return read(*args, **more)

        setattr(stream, "read", counted)  # noqa: B010  # as above


class _Response:
    """An answer over a connection of our own."""

    def __init__(self, response: httpx.Response, connection: _Connection, owner: OverHttpx) -> None:
        self._stream: httpx.AsyncByteStream = response.stream  # type: ignore[assignment]  # httpcore is asynchronous
        self._pieces: AsyncIterator[bytes] | None = None
        self._connection = connection
        self._owner = owner
        self.status = response.status_code
        self.headers: Mapping[str, str] = response.headers

    async def read(self) -> bytes:
        if self._pieces is None:
            self._pieces = aiter(self._stream)
        return await anext(self._pieces, b"")

    async def aclose(self, *, keep: bool) -> None:
        is_kept = False
        try:
            if not keep and self._pieces is not None:
                await end_body(self._pieces)
            await self._stream.aclose()
            is_kept = keep
        finally:
            await self._owner.give_back(self._connection, keep=is_kept)


class _RequestBody:
    """The body of a request. That of httpx is a generator, which a cancelled request abandons half-way."""

    def __init__(self, body: bytes) -> None:
        self._pieces = iter((body,))

    def __aiter__(self) -> "_RequestBody":
        return self

    async def __anext__(self) -> bytes:
        for piece in self._pieces:
            return piece
        raise StopAsyncIteration


async def end_body(pieces: AsyncIterator[bytes]) -> None:
    """Close the generators that libraries have stacked up over a body that is not wanted any more.

    Only an exception from below ends all of them: a cancellation, which is delivered once what is in buffers is read.
    Where that is very much, as with chunks of one byte, they are left to the garbage collector.
    """
    with anyio.CancelScope(shield=True), suppress(Exception):
        for _ in range(MOST_BUFFERED_PIECES // STEPS_WITHOUT_A_CHECKPOINT):
            with anyio.CancelScope() as scope:
                scope.cancel()
                for _ in range(STEPS_WITHOUT_A_CHECKPOINT):
                    if not await anext(pieces, b""):
                        return
            if scope.cancelled_caught:
                return
            await anyio.lowlevel.checkpoint()
        if isinstance(pieces, AsyncGenerator):
            await pieces.aclose()


@runtime_checkable
class _Closable(Protocol):
    async def aclose(self) -> None: ...
