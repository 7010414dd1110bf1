"""What goes back to the client, and the ways in which it may arrive: late, in drips, compressed, or not at all."""

import gzip
import json
import uuid
from collections.abc import Awaitable, Callable, Mapping
from hashlib import sha256

import anyio
from attrs import evolve, field, frozen
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from smilejobs.sandbox.requests import CROSS_ORIGIN

_DRIPS = 8
_API_HEADERS = {**CROSS_ORIGIN, "access-control-allow-headers": "Content-type", "allow": "POST"}
"""What every answer of the API says, as recorded."""


class ConnectionCutError(ConnectionResetError):
    """The sandbox has broken the connection, as the weather wants it.

    A server closes the connection; a client in the same process gets the error itself.
    """


@frozen(kw_only=True)
class Answer:
    """One answer, an ASGI application.

    Attributes:
        http_status: The HTTP status.
        body: The body.
        media_type: Its ``Content-Type``.
        headers: Further headers.
        drips_for: Seconds that the body takes; 0 sends it at once.
        cut_at: After how many bytes of the body the connection breaks; -1 breaks it before the head, None never.
    """

    http_status: int = 200
    body: bytes = field(default=b"", repr=False)
    media_type: str = "application/json"
    headers: Mapping[str, str] = field(factory=dict[str, str])
    drips_for: float = 0.0
    cut_at: int | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it.

        Raises:
            ConnectionCutError: The connection is to be closed now.
        """
        if self.cut_at == -1:
            raise ConnectionCutError("the sandbox cut the connection before its answer")
        headers = {"content-type": self.media_type, "content-length": str(len(self.body)), **self.headers}
        encoded = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": self.http_status, "headers": encoded})
        body = self.body if self.cut_at is None else self.body[: self.cut_at]
        if self.drips_for:
            size = max(1, -(-len(body) // _DRIPS))
            for start in range(0, len(body), size):
                await anyio.sleep(self.drips_for / _DRIPS)
                await send({"type": "http.response.body", "body": body[start : start + size], "more_body": True})
            body = b""
        await send({"type": "http.response.body", "body": body, "more_body": self.cut_at is not None})
        if self.cut_at is not None:
            raise ConnectionCutError("the sandbox cut the connection in the middle of its answer")


def json_answer(value: object, http_status: int = 200, headers: Mapping[str, str] | None = None) -> Answer:
    """Return *value* as JSON."""
    body = json.dumps(value, separators=(",", ":")).encode()
    return Answer(http_status=http_status, body=body, headers=headers or {})


def gzipped(answer: Answer) -> Answer:
    """Return the same answer, compressed."""
    headers = {**answer.headers, "content-encoding": "gzip"}
    return evolve(answer, body=gzip.compress(answer.body, mtime=0), headers=headers)


def of_the_api(answer: Answer) -> Answer:
    """Return the same answer with the headers of the API and of the gateway before it; its ids come of the body."""
    number = uuid.UUID(bytes=sha256(answer.body).digest()[:16], version=4)
    ids = {
        "x-amzn-requestid": str(number),
        "x-amzn-trace-id": f"Root=1-{number.hex[:8]}-{number.hex[8:]}",
    }
    return evolve(answer, headers={**_API_HEADERS, **ids, **answer.headers})


def preflight(method: str) -> ASGIApp:
    """Return what answers a browser that asks whether a page may send *method*."""
    return Response(headers={**_API_HEADERS, "access-control-allow-methods": method, "allow": method})


@frozen
class Endpoint:
    """Lets a method that makes answers be a route of Starlette's, which would else ask it for a `Response`."""

    answer: Callable[[Request], Awaitable[ASGIApp]]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        await (await self.answer(Request(scope, receive)))(scope, receive, send)
