"""Requests carried by aiohttp, with nothing in between: over a pool of our own, or that of the caller's session."""

import asyncio
import socket
import ssl
from collections.abc import Callable, Mapping
from contextlib import suppress
from contextvars import ContextVar
from threading import Thread
from weakref import WeakSet

import aiohttp
import aiohttp.abc
import httpx
from aiohttp.connector import Connection
from attrs import define
from multidict import CIMultiDict
from yarl import URL

from smilejobs.transport.carrier import KEEPALIVE_SECONDS, MAX_HEAD_BYTES, Request, Response
from smilejobs.transport.environment import proxy_headers
from smilejobs.transport.failures import is_closed_without_answer

MAX_HEADERS = 512
"""The most headers of an answer."""

READ_BUFFER_BYTES = {"POST": 4_096, "GET": 65_536}
"""aiohttp reads twice as many bytes ahead, or a sixteenth as many chunks, before other tasks get their turn.

With its default, 256 KiB, fifty answers in chunks of one byte block the event loop for 0.8 s. A picture has more bytes
than an answer of the API: each pause of its reading takes two calls of the system.
"""


class OverAiohttp:
    """One session of aiohttp.

    Args:
        session: The session; it is closed with the carrier, and its connector with it if that is the session's own.
        proxy: The proxy to go through.
    """

    def __init__(self, session: aiohttp.ClientSession, proxy: httpx.Proxy | None = None) -> None:
        self.has_connections = True
        self._session = session
        self._proxy = None if proxy is None else URL(str(proxy.url))
        self._proxy_headers = None if proxy is None else proxy_headers(proxy)
        self._url: tuple[str, URL] = ("", URL())
        self._headers: tuple[Mapping[str, str], CIMultiDict[str], list[str] | None] = ({}, CIMultiDict(), None)
        self._used: WeakSet[object] = WeakSet()

    async def send(self, request: Request, *, fresh: bool = False) -> Response:
        """Send a request."""
        if request.method == "GET":
            url = URL(request.url, encoded=True)
        else:
            if self._url[0] != request.url:
                self._url = (request.url, URL(request.url, encoded=True))
            url = self._url[1]
        if self._headers[0] is not request.headers:
            unwanted = [name for name in _ADDED_BY_AIOHTTP if name not in request.headers]
            self._headers = (request.headers, CIMultiDict(request.headers), unwanted or None)
        _, headers, skip_auto_headers = self._headers
        while True:
            sending = _Sending(is_fresh=fresh, used=self._used)
            token = _SENDING.set(sending)
            try:
                response = await self._session.request(
                    request.method,
                    url,
                    data=request.body or None,
                    headers=headers,
                    skip_auto_headers=skip_auto_headers,
                    allow_redirects=False,
                    read_bufsize=READ_BUFFER_BYTES[request.method],
                    proxy=self._proxy,
                    proxy_headers=self._proxy_headers,
                )
            except Exception as error:
                if not sending.is_used or not is_closed_without_answer(error):
                    raise
                fresh = True
                request.on_resend()
            else:
                return _Response(response, sending)
            finally:
                _SENDING.reset(token)

    async def aclose(self) -> None:
        """Close the session."""
        await self._session.close()


def open_session(max_connections: int, trust: ssl.SSLContext) -> aiohttp.ClientSession:
    """Open a session with a pool of our own."""
    connector = aiohttp.TCPConnector(
        limit=max_connections, keepalive_timeout=KEEPALIVE_SECONDS, ssl=trust, resolver=_Resolver()
    )
    return _session_over(connector, is_owner=True)


def share_connector(session: aiohttp.ClientSession) -> aiohttp.ClientSession:
    """Open a session over the connector of the caller's: its headers, cookies and credentials stay where they are.

    Raises:
        RuntimeError: The session is closed, or belongs to another event loop.
    """
    if session.connector is None or session.closed:
        raise RuntimeError("the aiohttp.ClientSession that was given as http_client is closed")
    running = asyncio.get_running_loop()
    if getattr(session, "_loop", running) is not running:
        raise RuntimeError(
            "the aiohttp.ClientSession that was given as http_client belongs to another event loop; open it in this one"
        )
    return _session_over(session.connector, is_owner=False)


def _session_over(connector: aiohttp.BaseConnector, *, is_owner: bool) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=connector,
        connector_owner=is_owner,
        cookie_jar=aiohttp.DummyCookieJar(),
        request_class=_Request,
        auto_decompress=False,
        timeout=aiohttp.ClientTimeout(),
        max_line_size=MAX_HEAD_BYTES,
        max_field_size=MAX_HEAD_BYTES,
        max_headers=MAX_HEADERS,
    )


@define(eq=False)
class _Sending:
    """State of one request and of the connection that it is sent over.

    Attributes:
        is_fresh: Whether it must be a new one.
        used: The connections over which requests have been sent.
        is_used: Whether it is one of those.
        transport: The connection, below aiohttp.
        closed: Done when the connection is closed.
    """

    is_fresh: bool
    used: WeakSet[object]
    is_used: bool = False
    transport: asyncio.Transport | None = None
    closed: "asyncio.Future[None] | None" = None


_SENDING: ContextVar[_Sending] = ContextVar("_SENDING")
_ADDED_BY_AIOHTTP = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")


class _Request(aiohttp.ClientRequest):
    """Checks the connection before the request is sent over it."""

    async def send(self, conn: Connection) -> aiohttp.ClientResponse:
        sending = _SENDING.get()
        protocol = conn.protocol
        sending.transport = conn.transport
        sending.is_used = protocol in sending.used
        # aiohttp gives out a kept connection over which an unsolicited answer was received.
        if protocol is None or protocol.should_close or (sending.is_fresh and sending.is_used):
            sending.is_used = True
            conn.close()
            raise aiohttp.ServerDisconnectedError
        sending.closed = protocol.closed
        assert sending.closed is not None, "it is open"
        if not sending.is_used:
            sending.used.add(protocol)
            sending.closed.add_done_callback(_look_at)
        return await super().send(conn)


class _Response:
    """An answer over a session."""

    def __init__(self, response: aiohttp.ClientResponse, sending: _Sending) -> None:
        self._response = response
        assert sending.transport is not None, "the request was sent"
        assert sending.closed is not None, "the request was sent"
        self._transport = sending.transport
        self._closed = sending.closed
        self.status = response.status
        self.headers: Mapping[str, str] = _joined(response)
        if not response.content.is_eof():
            self._closed.add_done_callback(self._end)

    async def read(self) -> bytes:
        return await self._response.content.readany()

    async def aclose(self, *, keep: bool) -> None:
        self._closed.remove_done_callback(self._end)
        if keep:
            self._response.release()
            return
        self._response.close()
        self._transport.abort()  # aiohttp may keep the connection for the next request

    def _end(self, _: object = None) -> None:
        """End a body whose connection is closed: aiohttp waits on after a chunk that it cannot read."""
        body = self._response.content
        if not body.is_eof() and body.exception() is None:
            body.set_exception(aiohttp.ClientPayloadError())


def _look_at(closed: "asyncio.Future[None]") -> None:
    """Retrieve the exception of a connection, which asyncio would log otherwise; a cancelled one has none."""
    if not closed.cancelled():
        closed.exception()


def _joined(response: aiohttp.ClientResponse) -> dict[str, str]:
    joined: dict[str, str] = {}
    for written, value in response.headers.items():
        name = written.lower()
        joined[name] = f"{joined[name]}, {value}" if name in joined else value
    return joined


class _Resolver(aiohttp.abc.AbstractResolver):
    """Resolves names in daemon threads: a lookup that hangs delays neither a cancellation nor the exit.

    The resolver of aiohttp uses the executor of the event loop, which is joined when the loop ends.
    """

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[aiohttp.abc.ResolveResult]:
        """Return the addresses of a host."""
        loop = asyncio.get_running_loop()
        found: asyncio.Future[list[aiohttp.abc.ResolveResult]] = loop.create_future()

        def tell(done: Callable[[], None]) -> None:
            with suppress(RuntimeError):  # the event loop is closed
                loop.call_soon_threadsafe(lambda: None if found.done() else done())

        def look_up() -> None:
            try:
                infos = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
                results = [
                    aiohttp.abc.ResolveResult(
                        hostname=host,
                        host=str(address[0]),
                        port=int(address[1]),
                        family=its_family,
                        proto=proto,
                        flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
                    )
                    for its_family, _, proto, _, address in infos
                ]
            except Exception as error:  # noqa: BLE001  # raised where it is awaited
                failure = error
                tell(lambda: found.set_exception(failure))
            else:
                tell(lambda: found.set_result(results))

        Thread(target=look_up, name="smilejobs-resolver", daemon=True).start()
        return await found

    async def close(self) -> None:
        """Leave the threads to their end."""
