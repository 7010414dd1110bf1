"""The pool of our own, over which requests are posted."""

import logging
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import lru_cache, partial
from importlib.util import find_spec

import httpx

from smilejobs.transport.carriers import (
    TransportName,
    aiohttp_session,
    for_aiohttp,
    is_asyncio,
    is_socks,
    proxy_for,
)
from smilejobs.transport.connections import over_httpcore
from smilejobs.transport.trust import load_trust

logger = logging.getLogger("smilejobs")


class Pool:
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
        self._trust = load_trust() if is_secure else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._proxy = proxy_for(url, self._trust) if is_secure else None
        self._client: _Client | None = None
        socks = is_socks(self._proxy)
        if name == "aiohttp":
            if socks:
                raise ValueError("aiohttp cannot use the SOCKS proxy of the environment; transport='httpx' can")
            try:
                import httpx_aiohttp  # noqa: F401  # only whether it is there
            except ModuleNotFoundError as error:
                raise ImportError("transport='aiohttp' needs httpx-aiohttp: pip install 'smilejobs[fast]'") from error
        elif name == "httpx" or socks or find_spec("httpx_aiohttp") is None:
            self._client = _Client(self._over_httpcore())

    @asynccontextmanager
    async def send(self, body: bytes) -> AsyncIterator[httpx.Response]:
        """Send one request; its response is closed at the end of the block."""
        if self._client is None:
            self._client = _Client(self._for_this_event_loop())
        request = httpx.Request("POST", self._url, headers=self._headers_of(len(body)), stream=_Body(body))
        response = await self._client.send(request, stream=True, auth=None, follow_redirects=False)
        try:
            yield response
        finally:
            await response.aclose()

    async def aclose(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.aclose()

    def _with_length(self, length: int) -> httpx.Headers:
        return httpx.Headers({**self._headers, "Content-Length": str(length)})

    def _for_this_event_loop(self) -> httpx.AsyncBaseTransport:
        if is_asyncio():
            try:
                return self._over_aiohttp()
            except ImportError as error:
                logger.warning("the extra 'fast' is broken, so requests are slower than they could be: %s", error)
        elif self._name == "aiohttp":
            raise RuntimeError("transport='aiohttp' needs asyncio; transport='httpx' works on trio as well")
        return self._over_httpcore()

    def _over_httpcore(self) -> httpx.AsyncBaseTransport:
        return over_httpcore(self._max_connections, self._trust, self._proxy)

    def _over_aiohttp(self) -> httpx.AsyncBaseTransport:
        from httpx_aiohttp import AiohttpTransport

        proxy = None if self._proxy is None else for_aiohttp(self._proxy)
        return AiohttpTransport(
            verify=self._trust, proxy=proxy, client=partial(aiohttp_session, self._max_connections, self._trust)
        )


class _NoCookies(httpx.Cookies):
    """Keeps no cookies. There are none to keep, and looking for them is a tenth of the cost of a request."""

    def extract_cookies(self, response: httpx.Response) -> None:
        pass


class _Client(httpx.AsyncClient):
    def __init__(self, transport: httpx.AsyncBaseTransport) -> None:
        super().__init__(transport=transport, timeout=None)  # the whole exchange has one; by default each read has 5 s

    @property  # type: ignore[misc]  # nobody sets it
    def cookies(self) -> httpx.Cookies:  # pyright: ignore[reportIncompatibleMethodOverride]  # nobody sets it
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
