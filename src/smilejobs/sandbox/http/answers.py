"""What is sent back: late, in small pieces, compressed or cut off, if a fault profile says so."""

import gzip
import json
import logging
import uuid
from collections.abc import Awaitable, Callable, Mapping
from hashlib import sha256

import anyio
from attrs import evolve, field, frozen
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from smilejobs.sandbox.state import StateError

CROSS_ORIGIN = {"access-control-allow-origin": "*"}
"""Lets web pages read an answer."""

_SLOW_PIECES = 8
_API_HEADERS = {**CROSS_ORIGIN, "access-control-allow-headers": "Content-type", "allow": "POST"}
"""Sent with every answer of the API, as recorded."""

logger = logging.getLogger("smilejobs.sandbox")


class ConnectionCutError(ConnectionResetError):
    """The sandbox cuts the connection on purpose.

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
        slow_for: Seconds over which the body is sent in small pieces; 0 sends it at once.
        cut_at: The number of bytes of the body after which the connection is cut; -1 cuts it before the head, None
            never.
    """

    http_status: int = 200
    body: bytes = field(default=b"", repr=False)
    media_type: str = "application/json"
    headers: Mapping[str, str] = field(factory=dict[str, str])
    slow_for: float = 0.0
    cut_at: int | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it.

        Raises:
            ConnectionCutError: The connection is to be cut now.
        """
        if self.cut_at == -1:
            raise ConnectionCutError("the sandbox cut the connection before its answer")
        headers = {"content-type": self.media_type, "content-length": str(len(self.body)), **self.headers}
        encoded = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": self.http_status, "headers": encoded})
        body = self.body if self.cut_at is None else self.body[: self.cut_at]
        if self.slow_for:
            size = max(1, -(-len(body) // _SLOW_PIECES))
            for start in range(0, len(body), size):
                await anyio.sleep(self.slow_for / _SLOW_PIECES)
                await send({"type": "http.response.body", "body": body[start : start + size], "more_body": True})
            body = b""
        await send({"type": "http.response.body", "body": body, "more_body": self.cut_at is not None})
        if self.cut_at is not None:
            raise ConnectionCutError("the sandbox cut the connection in the middle of its answer")


def json_answer(value: object, http_status: int = 200, headers: Mapping[str, str] | None = None) -> Answer:
    """Return an answer whose body is *value* as JSON."""
    body = json.dumps(value, separators=(",", ":")).encode()
    return Answer(http_status=http_status, body=body, headers=headers or {})


def compress(answer: Answer) -> Answer:
    """Return the same answer, compressed."""
    headers = {**answer.headers, "content-encoding": "gzip"}
    return evolve(answer, body=gzip.compress(answer.body, mtime=0), headers=headers)


def preflight(method: str) -> ASGIApp:
    """Return the answer to a browser that asks whether a page may send *method*."""
    return Response(headers={**_API_HEADERS, "access-control-allow-methods": method, "allow": method})


def with_api_headers(answer: Answer) -> Answer:
    """Return the same answer with the recorded headers of the API."""
    request_id = uuid.UUID(bytes=sha256(answer.body).digest()[:16], version=4)
    ids = {
        "x-amzn-requestid": str(request_id),
        "x-amzn-trace-id": f"Root=1-{request_id.hex[:8]}-{request_id.hex[8:]}",
    }
    return evolve(answer, headers={**_API_HEADERS, **ids, **answer.headers})


class RefusedError(Exception):
    """A request is refused; *answer* is sent."""

    def __init__(self, answer: ASGIApp, text: str) -> None:
        super().__init__(text)
        self.answer = answer


@frozen
class Endpoint:
    """Calls *answer* for each request; sends *unavailable* while the state cannot be written, which may be retried."""

    answer: Callable[[Request], Awaitable[ASGIApp]]
    unavailable: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        try:
            answer = await self.answer(Request(scope, receive))
        except RefusedError as refused:
            answer = refused.answer
        except StateError as error:
            logger.error("%s", error)  # noqa: TRY400  # the text says which file, and what is wrong with it
            answer = self.unavailable
        await answer(scope, receive, send)
