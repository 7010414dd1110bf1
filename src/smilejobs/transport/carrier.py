"""Carriers of requests: one protocol for all HTTP libraries, and for polls and pictures."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Protocol

from attrs import field, frozen

KEEPALIVE_SECONDS = 75.0
"""How long an idle connection is kept: longer than the longest delay of `Pace()`, 66 s with its jitter."""

MAX_HEAD_BYTES = 65_536
"""The largest line of an answer's head that is read, and the largest head."""


def ignore() -> None:
    """Do nothing, in the place of a function that counts."""


@frozen
class Request:
    """One request; its repr leaves out what a crash reporter must not copy.

    Attributes:
        method: "POST" or "GET".
        url: Where to; it is sent as it is, not quoted anew.
        headers: The headers; nothing is sent beside them but the host and the length of the body.
        body: The body.
        on_resend: Called when the request is sent once more, because a kept connection turned out to be closed.
    """

    method: str
    url: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(default=b"", repr=False)
    on_resend: Callable[[], None] = field(default=ignore, repr=False)


class Response(Protocol):
    """An answer on its way."""

    @property
    def status(self) -> int:
        """The HTTP status."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers, looked up in lower case; what was sent twice is joined by commas."""
        ...

    async def read(self) -> bytes:
        """Return the next piece of the body as it came, not decompressed; nothing at the end.

        Raises:
            Exception: Any error of the library.
        """
        ...

    async def aclose(self, *, keep: bool) -> None:
        """Give the connection back.

        Args:
            keep: Whether it may be used again: all of the body has been read, and the answer is believed.
        """
        ...


class Carrier(Protocol):
    """Sends requests over connections that are kept between them.

    A kept connection that the server has closed costs nothing: if no head of an answer has come, the request is sent
    once more, at once, over a new connection. Redirects are not followed, cookies are neither kept nor sent, and there
    is no authentication.
    """

    @property
    def has_connections(self) -> bool:
        """Whether requests share connections, over which an answer may meet the wrong request."""
        ...

    async def send(self, request: Request, *, fresh: bool = False) -> Response:
        """Send one request and return its answer, which must be closed.

        Args:
            request: What to send.
            fresh: Use a new connection.

        Raises:
            Exception: Any error of the library.
        """
        ...

    async def aclose(self) -> None:
        """Close the connections."""
        ...


class StaleConnectionError(Exception):
    """A kept connection turned out to be useless before an answer came."""


class LargeHeadError(Exception):
    """The head of an answer has more than `MAX_HEAD_BYTES` in all; HTTP libraries limit single lines, or more."""


async def send_bounded(carrier: Carrier, request: Request, *, fresh: bool = False) -> Response:
    """Send one request over a carrier, and bound the head of its answer.

    Args:
        carrier: The carrier.
        request: What to send.
        fresh: Use a new connection.

    Raises:
        LargeHeadError: The head is too large; the connection is closed.
        Exception: Any error of the library.
    """
    response = await carrier.send(request, fresh=fresh)
    headers = response.headers
    if sum(map(len, headers)) + sum(map(len, headers.values())) <= MAX_HEAD_BYTES:
        return response
    with suppress(Exception):
        await response.aclose(keep=False)
    raise LargeHeadError
