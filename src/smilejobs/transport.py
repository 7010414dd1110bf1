"""Send bytes, get bytes: the only module that knows HTTP libraries.

Their errors become ours here; nothing of theirs passes upwards.
"""

import asyncio
import logging
import ssl
import sys
from base64 import b64encode
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from functools import cached_property, lru_cache, partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import anyio
import httpx
from attrs import evolve, frozen

from smilejobs.errors import RequestError

if TYPE_CHECKING:
    import aiohttp

TransportName = Literal["httpx", "aiohttp"]
"""What carries the requests of the own pool: "httpx" on asyncio and trio, "aiohttp" (extra ``fast``) on asyncio."""

logger = logging.getLogger("smilejobs")

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
        self._own: _Pool | None = None
        try:
            parsed_url = httpx.URL(url)
        except httpx.InvalidURL:
            raise ValueError("base_url is not a URL") from None
        self._open: Callable[[bytes], AbstractAsyncContextManager[HTTPResponse]]
        if http_client is None:
            self._own = _Pool(parsed_url, headers, max_connections, transport)
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
        except _errors("HTTPStatusError") as error:  # raised by a hook of an injected client
            return Answer(error.response.status_code, error.response.headers, problem="a hook of the client refused it")
        except (OSError, *_errors("RequestError"), *_errors("ClientError")) as error:
            if answer is not None:
                return evolve(answer, problem=f"it broke off ({_kind(error)})", broke_off=True)
            failure = _no_answer(error)
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


class Download(Protocol):
    """A body on its way, and what was said about it."""

    @property
    def status(self) -> int:
        """The HTTP status."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers; looked up in lower case."""
        ...

    async def read(self) -> bytes:
        """Return the next piece as it came, not decompressed; nothing at the end.

        Raises:
            RequestError: It broke off.
        """
        ...


class Fetcher:
    """GETs what others store, bare.

    No header of ours goes there, no cookie, no credentials; no redirect is followed, nothing is decompressed, no URL is
    logged. An injected client is not used, which would do all of these. The proxies are those of `Transport`.

    Args:
        max_connections: How many fetches may be under way at once.
        timeout: Seconds for one fetch; it is the caller who keeps it, for reading is up to the caller.
        transport: As for `Transport`; None is aiohttp, on asyncio, if that is installed.
    """

    def __init__(self, *, max_connections: int, timeout: float, transport: TransportName | None = None) -> None:
        self.timeout = timeout
        self._max_connections = max_connections
        self._name = transport
        self._proxy_of = lru_cache(maxsize=64)(self._find_proxy)
        self._session: aiohttp.ClientSession | None = None
        self._connections: dict[bool, Connections] = {}

    @asynccontextmanager
    async def get(self, url: str) -> AsyncIterator[Download]:
        """Send one request; what has not been read at the end of the block is dropped, with its connection.

        Raises:
            RequestError: There was no answer.
            ValueError: The proxy of the environment is not a URL.
        """
        download = await self._open(url)
        try:
            yield download
        finally:
            await download.aclose()

    async def aclose(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
        for connections in self._connections.values():
            await connections.aclose()

    async def _open(self, url: str) -> "_OverAiohttp | _OverHttpx":
        try:
            scheme, netloc, *_ = urlsplit(url)
            proxy = self._proxy_of(scheme, netloc)
            if self._can_aiohttp(proxy):
                return await self._over_aiohttp(url, proxy)
            return await self._over_httpx(httpx.URL(url), proxy)
        except (OSError, httpx.InvalidURL, *_errors("RequestError"), *_errors("ClientError")) as error:
            failure = _no_answer(error)
        raise failure  # not from the error itself, which knows the URL

    async def _over_aiohttp(self, url: str, proxy: httpx.Proxy | None) -> "_OverAiohttp":
        import aiohttp
        from yarl import URL

        if self._session is None:
            self._session = _aiohttp_session(self._max_connections, self._trust)
        through = None if proxy is None else _for_aiohttp(proxy)
        response = await self._session.get(
            URL(url, encoded=True),  # what is signed must not be quoted anew
            headers=_BARE,
            skip_auto_headers=("Accept", "User-Agent"),
            allow_redirects=False,
            auto_decompress=False,
            timeout=aiohttp.ClientTimeout(),
            proxy=None if through is None else str(through.url),
            proxy_headers=None if through is None else dict(through.headers),
        )
        return _OverAiohttp(response)

    async def _over_httpx(self, url: httpx.URL, proxy: httpx.Proxy | None) -> "_OverHttpx":
        connections = self._connections.get(proxy is None)
        if connections is None:
            limits = httpx.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=_KEEPALIVE)
            connections = self._connections[proxy is None] = Connections(
                lambda: httpx.AsyncHTTPTransport(verify=self._trust, limits=limits, proxy=proxy), self._max_connections
            )
        # Not by a client of httpx, which would log the URL.
        return _OverHttpx(await connections.handle_async_request(httpx.Request("GET", url, headers=_BARE)))

    def _can_aiohttp(self, proxy: httpx.Proxy | None) -> bool:
        socks = proxy is not None and proxy.url.scheme.startswith("socks")
        return self._name != "httpx" and not socks and find_spec("aiohttp") is not None and _is_asyncio()

    def _find_proxy(self, scheme: str, netloc: str) -> httpx.Proxy | None:
        return _proxy_for(httpx.URL(f"{scheme}://{netloc}"), self._trust) if scheme == "https" else None

    @cached_property
    def _trust(self) -> ssl.SSLContext:
        return httpx.create_ssl_context()


_BARE = {"Accept-Encoding": "identity"}
"""All that is said besides the host."""


class _OverAiohttp:
    def __init__(self, response: "aiohttp.ClientResponse") -> None:
        self._response = response
        self.status = response.status
        self.headers: Mapping[str, str] = response.headers

    async def read(self) -> bytes:
        try:
            return await self._response.content.readany()
        except (OSError, *_errors("ClientError")) as error:
            failure = _broke_off(error)
        raise failure

    async def aclose(self) -> None:
        self._response.close()


class _OverHttpx:
    def __init__(self, response: httpx.Response) -> None:
        assert isinstance(response.stream, httpx.AsyncByteStream), "httpcore is asynchronous"
        self._stream = response.stream
        self._pieces = aiter(response.stream)
        self.status = response.status_code
        self.headers: Mapping[str, str] = response.headers

    async def read(self) -> bytes:
        try:
            return await anext(self._pieces, b"")
        except (OSError, *_errors("RequestError")) as error:
            failure = _broke_off(error)
        raise failure

    async def aclose(self) -> None:
        # Under the pieces lie generators of httpcore's. Only an exception from below ends all of them.
        with anyio.CancelScope(shield=True) as scope:
            scope.cancel()
            with suppress(RequestError):
                while await self.read():
                    pass
        await self._stream.aclose()


class _Pool:
    """Connections of our own, opened with the first request. What is the same for every request is made once."""

    def __init__(
        self, url: httpx.URL, headers: Mapping[str, str], max_connections: int, name: TransportName | None
    ) -> None:
        self._url = url
        self._headers = {"Host": url.netloc.decode("ascii"), **headers}
        self._headers_of = lru_cache(maxsize=64)(self._with_length)
        self._max_connections = max_connections
        self._name = name
        # Reading the certificates takes 30 ms; over plain http nothing is trusted, for nothing has to be.
        is_secure = url.scheme == "https"
        self._trust = httpx.create_ssl_context() if is_secure else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._proxy = _proxy_for(url, self._trust) if is_secure else None
        self._client: _Client | None = None
        socks = self._proxy is not None and self._proxy.url.scheme.startswith("socks")
        if name == "aiohttp":
            if socks:
                raise ValueError("aiohttp cannot use the SOCKS proxy of the environment; transport='httpx' can")
            try:
                import httpx_aiohttp  # noqa: F401  only to see whether it is there
            except ModuleNotFoundError as error:
                raise ImportError("transport='aiohttp' needs httpx-aiohttp: pip install 'smilejobs[fast]'") from error
        elif name == "httpx" or socks or find_spec("httpx_aiohttp") is None:
            self._client = _Client(transport=self._over_httpcore())

    @asynccontextmanager
    async def send(self, body: bytes) -> AsyncIterator[HTTPResponse]:
        if self._client is None:
            self._client = _Client(transport=self._for_this_event_loop())
        request = httpx.Request("POST", self._url, headers=self._headers_of(len(body)), stream=_Body(body))
        response = await self._client.send(request, stream=True, auth=None, follow_redirects=False)
        try:
            yield response
        finally:
            await response.aclose()

    async def aclose(self) -> None:
        if self._client is not None:
            await self._client.aclose()

    def _with_length(self, length: int) -> httpx.Headers:
        return httpx.Headers({**self._headers, "Content-Length": str(length)})

    def _for_this_event_loop(self) -> httpx.AsyncBaseTransport:
        if _is_asyncio():
            try:
                return self._over_aiohttp()
            except ImportError as error:
                logger.warning("the extra 'fast' is broken, so requests are slower than they could be: %s", error)
        elif self._name == "aiohttp":
            raise RuntimeError("transport='aiohttp' needs asyncio; transport='httpx' works on trio as well")
        return self._over_httpcore()

    def _over_httpcore(self) -> httpx.AsyncBaseTransport:
        limits = httpx.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=_KEEPALIVE)

        def connect() -> httpx.AsyncBaseTransport:
            return httpx.AsyncHTTPTransport(verify=self._trust, limits=limits, proxy=self._proxy)

        return Connections(connect, self._max_connections)

    def _over_aiohttp(self) -> httpx.AsyncBaseTransport:
        from httpx_aiohttp import AiohttpTransport

        proxy = None if self._proxy is None else _for_aiohttp(self._proxy)
        return AiohttpTransport(
            verify=self._trust, proxy=proxy, client=partial(_aiohttp_session, self._max_connections, self._trust)
        )


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
        while self._idle and self._idle[0][0] < now - _KEEPALIVE:  # others may take them meanwhile
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


class _NoCookies(httpx.Cookies):
    """Keeps no cookies. There are none to keep, and looking for them is a tenth of the cost of a request."""

    def extract_cookies(self, response: httpx.Response) -> None:
        pass


class _Client(httpx.AsyncClient):
    @property  # type: ignore[misc]  # nobody sets it
    def cookies(self) -> httpx.Cookies:  # pyright: ignore[reportIncompatibleMethodOverride]  # ditto
        return _NO_COOKIES


_NO_COOKIES = _NoCookies()


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


def _proxy_for(url: httpx.URL, trust: ssl.SSLContext) -> httpx.Proxy | None:
    """Return the proxy that the environment names for an https URL."""
    proxies = getproxies()
    address = proxies.get("https") or proxies.get("all")
    if not address or proxy_bypass(url.raw_host.decode("ascii")) or proxy_bypass(url.netloc.decode("ascii")):
        return None
    try:
        proxy = httpx.Proxy(address if "://" in address else f"http://{address}")
    except (httpx.InvalidURL, ValueError):
        raise ValueError("the proxy of the environment is not a URL of a proxy; see HTTPS_PROXY, ALL_PROXY") from None
    if proxy.url.scheme == "https":
        proxy.ssl_context = trust
    return proxy


def _for_aiohttp(proxy: httpx.Proxy) -> httpx.Proxy:
    """Credentials as a header: the way in which httpx-aiohttp hands them over is deprecated by aiohttp."""
    if proxy.raw_auth is None:
        return proxy
    credentials = b64encode(b":".join(proxy.raw_auth)).decode("ascii")
    return httpx.Proxy(proxy.url, headers={"Proxy-Authorization": f"Basic {credentials}"})


def _aiohttp_session(max_connections: int, trust: ssl.SSLContext) -> "aiohttp.ClientSession":
    import aiohttp

    connector = aiohttp.TCPConnector(limit=max_connections, keepalive_timeout=_KEEPALIVE, ssl=trust)
    return aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())


def _is_asyncio() -> bool:
    """Whether a task of asyncio is running; trio may run inside of an event loop of asyncio, but not in its tasks."""
    try:
        return asyncio.current_task() is not None
    except RuntimeError:
        return False


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
    """Return the errors of that name of httpx, and of those libraries beside it that somebody has imported."""
    libraries = (httpx, sys.modules.get("httpx2"), sys.modules.get("aiohttp"))
    return tuple(getattr(library, name) for library in libraries if hasattr(library, name))


_KINDS = {
    "ClientHttpProxyError": "ProxyError",
    "ClientConnectorError": "ConnectError",
    "ServerDisconnectedError": "RemoteProtocolError",
    "ClientResponseError": "RemoteProtocolError",
    "ClientPayloadError": "RemoteProtocolError",
    "ClientError": "ReadError",
}
"""The errors of aiohttp, the special before the general, and what httpx calls the same."""


def _kind(error: Exception) -> str:
    """Return httpx's name for what went wrong.

    httpx-aiohttp calls nearly everything ConnectTimeout, or passes it on as it is: the cause says what it was.
    """
    for cause in _chain(error):
        for name, kind in _KINDS.items():
            if isinstance(cause, _errors(name)):
                return kind
    return type(error).__name__


def _no_answer(error: Exception) -> RequestError:
    untrusted = any(isinstance(cause, ssl.SSLCertVerificationError) for cause in _chain(error))
    why = "the server's certificate is not trusted" if untrusted else _kind(error)
    return RequestError(f"no answer: {why}", transient=not untrusted)


def _broke_off(error: Exception) -> RequestError:
    return RequestError(f"the answer broke off: {_kind(error)}")


def _chain(error: BaseException | None) -> list[BaseException]:
    chain: list[BaseException] = []
    while error is not None and error not in chain:
        chain.append(error)
        error = error.__cause__ or error.__context__
    return chain
