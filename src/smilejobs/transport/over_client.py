"""Requests carried by an HTTP client of the caller's, of httpx or httpx2."""

import socket
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, suppress
from typing import Protocol, cast

import anyio.lowlevel
from attrs import field, frozen

from smilejobs.transport.carrier import Request, Response
from smilejobs.transport.failures import errors, is_closed_without_answer
from smilejobs.transport.over_httpx import end_body


class HTTPResponse(Protocol):
    """What is read of a response of an HTTP client."""

    @property
    def status_code(self) -> int:
        """The HTTP status."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers; looked up in lower case."""
        ...

    def aiter_raw(self) -> AsyncIterator[bytes]:
        """Yield the body as it came, not decompressed, piece by piece."""
        ...


@frozen
class LocalResponse:
    """A response of an HTTP client that needs no network: it is complete, or ends with *failure* after its body."""

    status_code: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)
    failure: Exception | None = None

    async def aiter_raw(self) -> AsyncIterator[bytes]:
        """Yield the body."""
        await anyio.lowlevel.checkpoint()
        yield self.body
        if self.failure is not None:
            raise self.failure


class HTTPClient(Protocol):
    """What is used of an HTTP client: `httpx.AsyncClient` and `httpx2.AsyncClient` both fit."""

    def stream(
        self,
        method: str,
        url: str,
        *,
        content: bytes,
        headers: Mapping[str, str],
        auth: None,
        follow_redirects: bool,
        timeout: None,
    ) -> AbstractAsyncContextManager[HTTPResponse]:
        """Send one request; the response is closed on leaving the context."""
        ...


class OverClient:
    """A client of the caller's.

    The client manages its connections. After an answer that must not be believed, the socket is shut down below the
    client, and the next request asks for a connection that is closed afterwards. A carrier cannot choose the connection
    that a client uses.

    Args:
        client: The client; it is never closed.
    """

    def __init__(self, client: HTTPClient) -> None:
        self._client = client
        self._make_url = _url_type(client)
        self._url = ("", "")
        self._is_used = False
        self.has_connections = False

    async def send(self, request: Request, *, fresh: bool = False) -> Response:
        """Send a request."""
        try:
            return await self._send(request, fresh=fresh)
        except (*errors("RemoteProtocolError"), *errors("ReadError"), *errors("WriteError")) as error:
            if not (self._is_used and is_closed_without_answer(error)):
                raise
        request.on_resend()
        return await self._send(request, fresh=True)

    async def aclose(self) -> None:
        """Leave the client as it is."""

    async def _send(self, request: Request, *, fresh: bool) -> Response:
        headers = {**request.headers, "Connection": "close"} if fresh else request.headers
        if self._url[0] != request.url:
            self._url = (request.url, self._make_url(request.url))
        context = self._client.stream(
            request.method,
            self._url[1],
            content=request.body,
            headers=headers,
            auth=None,
            follow_redirects=False,
            timeout=None,
        )
        try:
            response = await context.__aenter__()
        except errors("HTTPStatusError") as error:  # raised by a hook of the client
            return _Refused(error.response)
        connection = _connection_of(response)
        self._is_used = True
        self.has_connections = connection is not None
        return _ClientResponse(response, context, connection)


class _ClientResponse:
    """An answer over a client of the caller's."""

    def __init__(
        self,
        response: HTTPResponse,
        context: AbstractAsyncContextManager[HTTPResponse],
        connection: "_NetworkStream | None",
    ) -> None:
        self._response = response
        self._context = context
        self._connection = connection
        self._pieces: AsyncIterator[bytes] | None = None
        self.status = response.status_code
        # httpx looks at all of them for each look-up.
        self.headers = {name.lower(): value for name, value in response.headers.items()}
        # A hook, or a transport that is no network, may have read and decompressed the body already.
        self._content: bytes | None = None
        if getattr(response, "is_stream_consumed", False):
            self._content = getattr(response, "content", b"")
            self.headers.pop("content-encoding", None)

    async def read(self) -> bytes:
        if self._content is not None:
            content, self._content = self._content, b""
            return content
        if self._pieces is None:
            self._pieces = aiter(self._response.aiter_raw())
        async for piece in self._pieces:
            if piece:
                return piece
        return b""

    async def aclose(self, *, keep: bool) -> None:
        try:
            if not keep and self._pieces is not None:
                await end_body(self._pieces)
            if not keep and self._connection is not None:
                _shut_down(self._connection)
        finally:
            await self._context.__aexit__(None, None, None)


def _url_type(client: HTTPClient) -> Callable[[str], str]:
    """Return what makes a URL for a client; httpx and httpx2, which parse a text for each request, take their own."""
    for library in (sys.modules.get("httpx"), sys.modules.get("httpx2")):
        if library is not None and isinstance(client, library.AsyncClient):
            url_type: Callable[[str], str] = library.URL
            return url_type
    return str


class RefusedByHookError(Exception):
    """A hook of the caller's client raised for the status of an answer."""


class _Refused:
    """An answer that a hook of the caller's client refused."""

    def __init__(self, response: HTTPResponse) -> None:
        self.status = response.status_code
        self.headers = response.headers

    async def read(self) -> bytes:
        raise RefusedByHookError

    async def aclose(self, *, keep: bool) -> None:
        pass


class _Socket(Protocol):
    def shutdown(self, how: int) -> None: ...


class _NetworkStream(Protocol):
    def get_extra_info(self, info: str) -> _Socket | None: ...


def _connection_of(response: object) -> _NetworkStream | None:
    """Return the connection that an answer came over, if httpx or httpx2 tells it; one of HTTP/2 is shared by many."""
    extensions: Mapping[str, object] = getattr(response, "extensions", {})
    connection = extensions.get("network_stream")
    is_alone = extensions.get("http_version") in (b"HTTP/1.0", b"HTTP/1.1")
    return cast("_NetworkStream", connection) if is_alone and hasattr(connection, "get_extra_info") else None


def _shut_down(connection: _NetworkStream) -> None:
    """End a connection below the pool that has it, which finds it ended and does not use it again."""
    connected = connection.get_extra_info("socket")
    if connected is not None:
        with suppress(OSError):
            connected.shutdown(socket.SHUT_RDWR)
