"""One POST to a receiver of callbacks, over a connection of its own; of the answer only the status counts.

Nothing is kept between two callbacks: they may go to any number of URLs. The answer is read up to a limit, and within
the time that the caller gives, whatever the receiver sends and however fast.
"""

import os
import socket
import ssl
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing, suppress
from urllib.parse import urlsplit

import anyio
import h11
from anyio.abc import ByteStream

_MAX_ANSWER = 64 * 1024
"""Bytes, head and body together."""
_REST_SECONDS = 1.0
"""For how long the rest of an answer is taken in: a receiver that still writes need not see a broken connection."""
_PIECE = 16 * 1024
_BROKEN = (OSError, anyio.BrokenResourceError, anyio.EndOfStream)


class NoStatusError(Exception):
    """No status came back; the text says why."""


async def status_of_post(url: str, headers: Mapping[str, str], body: bytes, trust: Callable[[], ssl.SSLContext]) -> int:
    """POST *body* to *url*, and return the HTTP status of the answer.

    Args:
        url: An absolute URL, https or http.
        headers: The headers, apart from those that the body and the connection need.
        body: The body.
        trust: Makes the client's side of TLS; called for https alone.

    Raises:
        NoStatusError: There was no answer, or none that is HTTP.
    """
    try:
        stream = await _connect(url, trust)
        try:
            return await _exchange(stream, _request(url, headers, body), body)
        finally:
            await anyio.aclose_forcefully(stream)
    except ssl.SSLCertVerificationError as error:
        raise NoStatusError(f"the receiver's certificate is not trusted: {error.verify_message}") from None
    except _BROKEN as error:
        raise NoStatusError(f"no answer: {_reason(error)}") from None
    except h11.RemoteProtocolError:
        raise NoStatusError("the answer is not HTTP") from None


async def _connect(url: str, trust: Callable[[], ssl.SSLContext]) -> ByteStream:
    parts = urlsplit(url)
    host = str(parts.hostname)
    if parts.scheme == "http":
        return await anyio.connect_tcp(host, parts.port or 80)
    return await anyio.connect_tcp(host, parts.port or 443, tls_hostname=host, ssl_context=trust())


def _request(url: str, headers: Mapping[str, str], body: bytes) -> h11.Request:
    parts = urlsplit(url)
    target = f"{parts.path or '/'}{parts.query and '?'}{parts.query}"
    given = {"host": parts.netloc, **headers, "content-length": str(len(body)), "connection": "close"}
    return h11.Request(method="POST", target=target, headers=list(given.items()))


async def _exchange(stream: ByteStream, request: h11.Request, body: bytes) -> int:
    """Send a request, and return the status of the answer; take in the rest of it, within limits."""
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MAX_ANSWER)
    events = (request, h11.Data(data=body), h11.EndOfMessage())
    await stream.send(b"".join(connection.send(event) or b"" for event in events))
    answer = _events(connection, stream)
    async with aclosing(answer):
        async for event in answer:
            if isinstance(event, h11.Response):
                with anyio.move_on_after(_REST_SECONDS), suppress(*_BROKEN, h11.RemoteProtocolError):
                    while await anext(answer, None):
                        pass
                return event.status_code
    raise NoStatusError(f"no answer within {_MAX_ANSWER} bytes")


async def _events(connection: h11.Connection, stream: ByteStream) -> AsyncGenerator[object, None]:
    """Yield what the answer consists of, until it ends or is too large."""
    size = 0
    while size <= _MAX_ANSWER:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            received = await stream.receive(_PIECE)
            size += len(received)
            connection.receive_data(received)
        elif event is h11.PAUSED or isinstance(event, h11.EndOfMessage):
            return
        else:
            yield event


def _reason(error: Exception) -> str:
    """Return the cause of a failed connection, as the system says it; anyio wraps one for each address."""
    cause = error.__cause__
    while isinstance(cause, ExceptionGroup):
        cause = cause.exceptions[0]
    cause = cause or error
    if not isinstance(cause, OSError):
        return "the receiver closed the connection"
    if cause.errno is None or isinstance(cause, (ssl.SSLError, socket.gaierror)):
        return cause.strerror or type(cause).__name__
    return os.strerror(cause.errno)
