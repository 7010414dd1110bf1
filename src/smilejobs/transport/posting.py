"""Bodies are posted, and answers read, over a pool of our own or a client of the caller's."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Protocol, get_args

import anyio
import httpx
from attrs import evolve, frozen

from smilejobs.errors import RequestError
from smilejobs.transport.carriers import TransportName
from smilejobs.transport.failures import errors, kind, no_answer
from smilejobs.transport.pool import Pool

_ENCODINGS = ("", "identity", "gzip", "deflate")
"""What is unpacked. Layers such as "gzip, gzip" multiply: a kilobyte becomes gigabytes before it can be counted."""


class HTTPResponse(Protocol):
    """What is read of a response."""

    @property
    def status_code(self) -> int:
        """The HTTP status."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers; looked up in lower case."""
        ...

    def aiter_bytes(self) -> AsyncIterator[bytes]:
        """The decompressed body, piece by piece."""
        ...


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


@frozen
class Answer:
    """What came back.

    Attributes:
        http_status: The HTTP status.
        headers: The HTTP headers, looked up in lower case.
        body: The decompressed body.
        problem: Why there is no body, in words, where it broke off, is too large, or the like.
        broke_off: Whether that is the network's fault: another answer may be whole.
    """

    http_status: int
    headers: Mapping[str, str]
    body: bytes = b""
    problem: str | None = None
    broke_off: bool = False


class Transport:
    """POSTs bodies to one URL, over a pool of its own or a client of the caller's.

    The own pool opens with its first request, because only then the event loop is known. It trusts what httpx trusts by
    default, and goes through the proxy that ``HTTPS_PROXY`` or ``ALL_PROXY`` names unless ``NO_PROXY`` says otherwise.
    Plain http, which is allowed for loopback, never goes through a proxy: that would carry signatures off the machine.

    Args:
        url: Where to.
        headers: The headers of every request.
        http_client: The caller's client; it is used as it is and never closed.
        max_connections: The size of the own pool; its connections are kept alive between polls.
        request_timeout: Seconds for one request, from connecting to the last byte.
        max_response_bytes: The most bytes of a body, after decompression.
        transport: What the own pool is made of; None for aiohttp where that is installed and asyncio is running.

    Raises:
        ImportError: The extra that *transport* needs is missing.
        TypeError: *http_client* is not an asynchronous client.
        ValueError: *url* or the proxy of the environment is not a URL, *transport* is unknown, or cannot use that
            proxy, or comes with an *http_client*.
    """

    def __init__(
        self,
        url: str,
        headers: Mapping[str, str],
        *,
        http_client: HTTPClient | None,
        max_connections: int,
        request_timeout: float,
        max_response_bytes: int,
        transport: TransportName | None = None,
    ) -> None:
        if transport not in (None, *get_args(TransportName)):
            raise ValueError(f"transport must be 'httpx', 'aiohttp' or None, not {transport!r}")
        self.request_timeout = request_timeout
        self._max_response_bytes = max_response_bytes
        self._own: Pool | None = None
        try:
            parsed_url = httpx.URL(url)
        except httpx.InvalidURL:
            raise ValueError("base_url is not a URL") from None
        self._open: Callable[[bytes], AbstractAsyncContextManager[HTTPResponse]]
        if http_client is None:
            self._own = Pool(parsed_url, headers, max_connections, transport)
            self._open = self._own.send
        elif transport is not None:
            raise ValueError("http_client has a transport of its own; leave out transport=, or http_client=")
        elif not _is_asynchronous(http_client):
            raise TypeError("http_client must be an httpx.AsyncClient or httpx2.AsyncClient, opened by you")
        else:
            self._open = _over_injected(http_client, url, headers)

    async def post(self, body: bytes) -> Answer:
        """Send one request and read the whole answer.

        Raises:
            RequestError: There was no answer.
            RuntimeError: aiohttp was asked for, and the event loop is not asyncio's.
        """
        answer: Answer | None = None
        pieces: list[bytes] = []
        size = 0
        try:
            with anyio.move_on_after(self.request_timeout) as scope:
                async with self._open(body) as response:
                    answer = Answer(response.status_code, response.headers)
                    if response.headers.get("content-encoding", "").strip().lower() not in _ENCODINGS:
                        return evolve(answer, problem="it is compressed in a way that was not asked for")
                    async for piece in response.aiter_bytes():
                        size += len(piece)
                        if size > self._max_response_bytes:
                            # Leaving the loop would abandon the generators that the HTTP library has stacked up.
                            scope.cancel()
                        else:
                            pieces.append(piece)
        except errors("HTTPStatusError") as error:  # raised by a hook of an injected client
            return Answer(error.response.status_code, error.response.headers, problem="a hook of the client refused it")
        except (OSError, *errors("RequestError"), *errors("ClientError")) as error:
            if answer is not None:
                return evolve(answer, problem=f"it broke off ({kind(error)})", broke_off=True)
            failure = no_answer(error)
        else:
            if answer is None:
                raise RequestError(f"no answer within {self.request_timeout:.10g} s")
            if size <= self._max_response_bytes and not scope.cancelled_caught:
                return Answer(answer.http_status, answer.headers, b"".join(pieces))
            return self._incomplete(answer, size)
        # Not from the error itself: its text may quote the answer, its attributes hold the signed request.
        raise failure

    def _incomplete(self, answer: Answer, size: int) -> Answer:
        if size > self._max_response_bytes:
            return evolve(answer, problem=f"it is larger than {self._max_response_bytes} bytes")
        return evolve(answer, problem=f"it did not end within {self.request_timeout:.10g} s", broke_off=True)

    async def aclose(self) -> None:
        """Close the own pool."""
        if self._own is not None:
            await self._own.aclose()


def _over_injected(
    client: HTTPClient, url: str, headers: Mapping[str, str]
) -> Callable[[bytes], AbstractAsyncContextManager[HTTPResponse]]:
    def send(body: bytes) -> AbstractAsyncContextManager[HTTPResponse]:
        return client.stream(
            "POST", url, content=body, headers=headers, auth=None, follow_redirects=False, timeout=None
        )

    return send


def _is_asynchronous(http_client: object) -> bool:
    if isinstance(http_client, type) or not hasattr(http_client, "stream"):
        return False
    return hasattr(http_client, "aclose") or not hasattr(http_client, "close")
