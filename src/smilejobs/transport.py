"""Send bytes, get bytes: the only module that knows HTTP libraries.

Their errors become ours here; nothing of theirs passes upwards.
"""

import ssl
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import lru_cache
from typing import Any, Protocol

import anyio
import httpx
from attrs import evolve, frozen

from smilejobs.errors import RequestError

_KEEPALIVE = 75.0
"""Seconds for which an idle connection is kept: longer than the longest delay between two polls."""

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

    Plain http, which is allowed for loopback, never goes through a proxy: that would carry signatures off the machine.

    Args:
        url: Where to.
        headers: The headers of every request.
        http_client: The caller's client; it is used as it is and never closed.
        max_connections: The size of the own pool; its connections are kept alive between polls.
        request_timeout: Seconds for one request, from connecting to the last byte.
        max_response_bytes: The most bytes of a body, after decompression.

    Raises:
        TypeError: *http_client* is not an asynchronous client.
        ValueError: *url* is not a URL.
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
    ) -> None:
        self._request_timeout = request_timeout
        self._max_response_bytes = max_response_bytes
        self._own: _Pool | None = None
        try:
            parsed_url = httpx.URL(url)
        except httpx.InvalidURL:
            raise ValueError("base_url is not a URL") from None
        self._open: Callable[[bytes], AbstractAsyncContextManager[HTTPResponse]]
        if http_client is None:
            limits = httpx.Limits(
                max_connections=max_connections,
                max_keepalive_connections=max_connections,
                keepalive_expiry=_KEEPALIVE,
            )
            self._own = _Pool(
                limits=limits,
                timeout=None,  # the scope in post() is the timeout
                trust_env=parsed_url.scheme == "https",
            )
            self._open = _over_pool(self._own, parsed_url, headers)
        elif not _is_asynchronous(http_client):
            raise TypeError("http_client must be an httpx.AsyncClient or httpx2.AsyncClient, opened by you")
        else:
            self._open = _over_injected(http_client, url, headers)

    async def post(self, body: bytes) -> Answer:
        """Send one request and read the whole answer.

        Raises:
            RequestError: There was no answer.
        """
        answer: Answer | None = None
        pieces: list[bytes] = []
        size = 0
        try:
            with anyio.move_on_after(self._request_timeout) as scope:
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
        except _errors("HTTPStatusError") as error:  # raised by a hook of an injected client
            return Answer(error.response.status_code, error.response.headers, problem="a hook of the client refused it")
        except (OSError, *_errors("RequestError")) as error:
            if answer is not None:
                return evolve(answer, problem=f"it broke off ({type(error).__name__})", broke_off=True)
            failure = _no_answer(error)
        else:
            if answer is None:
                raise RequestError(f"no answer within {self._request_timeout:.10g} s")
            if size <= self._max_response_bytes and not scope.cancelled_caught:
                return Answer(answer.http_status, answer.headers, b"".join(pieces))
            return self._incomplete(answer, size)
        # Not from the error itself: its text may quote the answer, its attributes hold the signed request.
        raise failure

    def _incomplete(self, answer: Answer, size: int) -> Answer:
        if size > self._max_response_bytes:
            return evolve(answer, problem=f"it is larger than {self._max_response_bytes} bytes")
        return evolve(answer, problem=f"it did not end within {self._request_timeout:.10g} s", broke_off=True)

    async def aclose(self) -> None:
        """Close the own pool."""
        if self._own is not None:
            await self._own.aclose()


class _NoCookies(httpx.Cookies):
    """Keeps no cookies. There are none to keep, and looking for them is a tenth of the cost of a request."""

    def extract_cookies(self, response: httpx.Response) -> None:
        pass


class _Pool(httpx.AsyncClient):
    @property  # type: ignore[misc]  # nobody sets it
    def cookies(self) -> httpx.Cookies:  # pyright: ignore[reportIncompatibleMethodOverride]  # ditto
        return _NO_COOKIES


_NO_COOKIES = _NoCookies()


def _over_pool(
    pool: _Pool, url: httpx.URL, headers: Mapping[str, str]
) -> Callable[[bytes], AbstractAsyncContextManager[HTTPResponse]]:
    """What is the same for every request is made once, and nothing is merged: cheaper than ``pool.stream()``."""
    same = {"Host": url.netloc.decode("ascii"), **headers}

    @lru_cache(maxsize=64)
    def headers_of(length: int) -> httpx.Headers:
        return httpx.Headers({**same, "Content-Length": str(length)})

    @asynccontextmanager
    async def send(body: bytes) -> AsyncIterator[HTTPResponse]:
        request = httpx.Request("POST", url, headers=headers_of(len(body)), stream=_Body(body))
        response = await pool.send(request, stream=True, auth=None, follow_redirects=False)
        try:
            yield response
        finally:
            await response.aclose()

    return send


class _Body(httpx.AsyncByteStream):
    """The body of a request. That of httpx is a generator, which a cancelled request abandons half-way."""

    def __init__(self, body: bytes) -> None:
        self._pieces = iter((body,))

    def __aiter__(self) -> "_Body":
        return self

    async def __anext__(self) -> bytes:
        for piece in self._pieces:
            return piece
        raise StopAsyncIteration


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


def _errors(name: str) -> tuple[Any, ...]:
    """Return httpx's errors of that name, and those of httpx2, which whoever injects its client has imported."""
    libraries = (httpx, sys.modules.get("httpx2"))
    return tuple(getattr(library, name) for library in libraries if library is not None)


def _no_answer(error: Exception) -> RequestError:
    untrusted = any(isinstance(cause, ssl.SSLCertVerificationError) for cause in _chain(error))
    why = "the server's certificate is not trusted" if untrusted else type(error).__name__
    return RequestError(f"no answer: {why}", transient=not untrusted)


def _chain(error: BaseException | None) -> list[BaseException]:
    chain: list[BaseException] = []
    while error is not None and error not in chain:
        chain.append(error)
        error = error.__cause__ or error.__context__
    return chain
