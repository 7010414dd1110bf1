"""What others store is fetched, with nothing of ours in the request."""

import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from functools import cached_property, lru_cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

import anyio
import httpx

from smilejobs.errors import RequestError
from smilejobs.transport.carriers import (
    TransportName,
    aiohttp_session,
    for_aiohttp,
    is_asyncio,
    is_socks,
    proxy_for,
)
from smilejobs.transport.connections import Connections, over_httpcore
from smilejobs.transport.failures import broke_off, errors, no_answer
from smilejobs.transport.trust import load_trust

if TYPE_CHECKING:
    import aiohttp


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
            RequestError: There was no answer, or no way to ask: the proxy of the environment cannot be used.
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
        except (OSError, httpx.InvalidURL, *errors("RequestError"), *errors("ClientError")) as error:
            failure = no_answer(error)
        raise failure  # not from the error itself, which knows the URL

    async def _over_aiohttp(self, url: str, proxy: httpx.Proxy | None) -> "_OverAiohttp":
        import aiohttp
        from yarl import URL

        if self._session is None:
            self._session = aiohttp_session(self._max_connections, self._trust)
        through = None if proxy is None else for_aiohttp(proxy)
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
            try:
                connections = over_httpcore(self._max_connections, self._trust, proxy)
            except ImportError as error:
                raise _no_way(error) from None
            self._connections[proxy is None] = connections
        # Not by a client of httpx, which would log the URL.
        return _OverHttpx(await connections.handle_async_request(httpx.Request("GET", url, headers=_BARE)))

    def _can_aiohttp(self, proxy: httpx.Proxy | None) -> bool:
        return self._name != "httpx" and not is_socks(proxy) and self._aiohttp_is_there and is_asyncio()

    def _find_proxy(self, scheme: str, netloc: str) -> httpx.Proxy | None:
        if scheme != "https":
            return None
        try:
            return proxy_for(httpx.URL(f"{scheme}://{netloc}"), self._trust)
        except ValueError as error:
            raise _no_way(error) from None

    @cached_property
    def _aiohttp_is_there(self) -> bool:
        return find_spec("aiohttp") is not None

    @cached_property
    def _trust(self) -> ssl.SSLContext:
        try:
            return load_trust()
        except ValueError as error:
            raise _no_way(error) from None


def _no_way(error: Exception) -> RequestError:
    return RequestError(f"nothing was asked: {error}", transient=False)


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
        except (OSError, *errors("ClientError")) as error:
            failure = broke_off(error)
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
        except (OSError, *errors("RequestError")) as error:
            failure = broke_off(error)
        raise failure

    async def aclose(self) -> None:
        # Under the pieces lie generators of httpcore's. Only an exception from below ends all of them.
        with anyio.CancelScope(shield=True) as scope:
            scope.cancel()
            with suppress(RequestError):
                while await self.read():
                    pass
        await self._stream.aclose()
