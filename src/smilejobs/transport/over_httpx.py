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
"""The most pieces of an abandoned body that are read in order to close its generators: 50 ms of work."""


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
    """Connections of httpcore, each in a pool of its own.

    For each request a pool of httpcore scans all its connections, and scans them again for each that is idle: with a
    hundred connections this takes 20 ms. A pool also loses connections for good when a request is cancelled; here the
    pool of such a connection is closed. The client of httpx is not used, because it logs each request.

    Args:
        connect: Makes a pool of one connection.
        max_connections: The largest number of connections; further requests wait.
        library: httpx or httpx2, whichever *connect* uses.
    """

    def __init__(
        self, connect: Callable[[], httpx.AsyncBaseTransport], max_connections: int, library: ModuleType = httpx
    ) -> None:
        connect()  # raises now, and not with the first request
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
        """Keep a connection for the next request, or close it; close connections that were idle for too long."""
        assert self._free is not None, "acquired by send"
        self._free.release()
        if not keep:
            await self._close(connection)
            return
        now = anyio.current_time()
        self._idle.append((now, connection))
        while self._idle and self._idle[0][0] < now - KEEPALIVE_SECONDS:  # the deque may change while one is closed
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
            StaleConnectionError: The answer was received before the request was sent, behind another answer.
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
        """Store the stream of the socket."""
        stream = info.get("return_value")
        if event.endswith(".connect_tcp.complete") and isinstance(stream, _Closable):
            self._raw = stream

    def _watch(self, stream: object) -> None:
        """Count the reads from a connection: httpcore does not tell what its buffer still holds."""
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
        self.headers: Mapping[str, str] = dict(response.headers.items())  # httpx looks at all of them for each look-up

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
    """The body of a request, as an iterator: httpx has a generator, which a cancelled request does not close."""

    def __init__(self, body: bytes) -> None:
        self._pieces = iter((body,))

    def __aiter__(self) -> "_RequestBody":
        return self

    async def __anext__(self) -> bytes:
        for piece in self._pieces:
            return piece
        raise StopAsyncIteration


async def end_body(pieces: AsyncIterator[bytes]) -> None:
    """Close the stacked generators of the libraries over a body that is abandoned.

    Only an exception from the innermost one ends all of them: a cancellation, which is delivered when the buffers have
    been read. Where the buffers hold very much, as with chunks of one byte, the generators are left to the garbage
    collector.
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
