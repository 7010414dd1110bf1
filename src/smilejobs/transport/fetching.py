"""Downloads pictures from stores. A request has no header but Host and Accept-Encoding."""

import ssl
from collections.abc import Coroutine, Mapping
from contextlib import AbstractAsyncContextManager, suppress
from functools import cached_property, lru_cache
from typing import Any, Self
from urllib.parse import urlsplit

import httpx

from smilejobs.errors import RequestError
from smilejobs.transport.body import Body, UnreadableBodyError
from smilejobs.transport.carrier import Carrier, Request, Response, send_bounded
from smilejobs.transport.choosing import TransportName, open_own
from smilejobs.transport.environment import proxy_for
from smilejobs.transport.failures import BROKE_OFF, no_answer
from smilejobs.transport.trust import load_trust

_BARE = {"Accept-Encoding": "identity"}
"""The only header that is sent beside the host."""


class Download:
    """One request, and the body of its answer; at the end of the block what has not been read is dropped.

    Args:
        sending: Sends the request.
        max_bytes: The most bytes.

    Attributes:
        status: The HTTP status, within the block.
        headers: The headers, looked up in lower case, within the block.
    """

    def __init__(self, sending: Coroutine[Any, Any, Response], max_bytes: int) -> None:
        self._sending = sending
        self._max_bytes = max_bytes

    async def __aenter__(self) -> Self:
        """Send the request.

        Raises:
            RequestError: There was no answer, or the request could not be sent: the proxy of the environment cannot be
                used.
        """
        self._response = await self._sending
        self.status = self._response.status
        self.headers: Mapping[str, str] = self._response.headers
        self._body = Body(self._response, self._max_bytes, None)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Give the connection back; it is kept if the body has been read to its end and the block raised nothing."""
        with suppress(Exception):
            await self._response.aclose(keep=kind is None and self._body.is_whole)

    async def read(self) -> bytes:
        """Return the next piece; nothing at the end.

        Raises:
            RequestError: It broke off.
            UnreadableBodyError: It is too large.
        """
        try:
            return await self._body.read()
        except UnreadableBodyError:
            raise
        except Exception:  # noqa: BLE001  # any error of a carrier ends this picture alone
            failure = RequestError(f"the picture cannot be read: {BROKE_OFF}")
        raise failure  # not from the error itself, which knows the URL


class Fetcher:
    """Downloads pictures from stores; sends no header but Host and Accept-Encoding.

    No cookie and no credentials are sent; no redirect is followed, nothing is decompressed, no URL is logged. An
    injected client is not used, because it could do all of these. Certificates and proxies are those of
    `Transport`.

    Args:
        max_connections: How many fetches may be under way at once.
        timeout: Seconds for one fetch; the caller keeps it, because the caller reads.
        transport: As for `Transport`; None is aiohttp, on asyncio, if that is installed.
    """

    def __init__(self, *, max_connections: int, timeout: float, transport: TransportName | None = None) -> None:
        self.timeout = timeout
        self._max_connections = max_connections
        self._transport: TransportName | None = transport
        self._proxy_of = lru_cache(maxsize=64)(self._find_proxy)
        self._carriers: dict[bool, Carrier] = {}

    def get(self, url: str, max_bytes: int) -> AbstractAsyncContextManager[Download]:
        """Return a request for a picture, which is sent when the block begins."""
        return Download(self._send(Request("GET", url, _BARE)), max_bytes)

    async def aclose(self) -> None:
        """Close the connections."""
        for carrier in self._carriers.values():
            await carrier.aclose()

    async def _send(self, request: Request) -> Response:
        try:
            proxy = self._proxy_of(*urlsplit(request.url)[:2])
            carrier = self._carriers.get(proxy is None)
            if carrier is None:
                carrier = self._carriers[proxy is None] = self._open(proxy)
            return await send_bounded(carrier, request)
        except RequestError:
            raise
        except Exception as error:  # noqa: BLE001  # any error of a carrier ends this picture alone
            failure = no_answer(error)
        raise failure  # not from the error itself, which knows the URL

    def _open(self, proxy: httpx.Proxy | None) -> Carrier:
        # Unlike polls, pictures need not come over what was asked for: a proxy may speak SOCKS, which aiohttp cannot.
        transport: TransportName | None = None if self._transport == "aiohttp" else self._transport
        try:
            return open_own(self._trust, proxy, self._max_connections, transport)()
        except ImportError as error:
            failure = _not_sent(error)
        raise failure

    def _find_proxy(self, scheme: str, netloc: str) -> httpx.Proxy | None:
        if scheme != "https":
            return None
        try:
            return proxy_for(httpx.URL(f"{scheme}://{netloc}"), self._trust)
        except ValueError as error:
            failure = _not_sent(error)
        raise failure

    @cached_property
    def _trust(self) -> ssl.SSLContext:
        try:
            return load_trust()
        except ValueError as error:
            failure = _not_sent(error)
        raise failure


def _not_sent(error: Exception) -> RequestError:
    return RequestError(f"request not sent: {error}", transient=False)
