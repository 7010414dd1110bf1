"""How the sandbox answers: with the recorded headers, slowly or not to the end if faults say so, or with a refusal."""

import logging
import uuid
from hashlib import sha256

import anyio
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

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


class FaultyResponse(Response):
    """A response that is sent in small pieces, or not to its end.

    Attributes:
        slow_for: Seconds over which the body is sent in small pieces; 0 sends it at once.
        cut_at: The number of bytes of the body after which the connection is cut; -1 cuts it before the head, None
            never.
    """

    slow_for: float = 0.0
    cut_at: int | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it, or raise ConnectionCutError where the connection is to be cut."""
        if self.cut_at == -1:
            raise ConnectionCutError("the sandbox cut the connection before its answer")
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        body = self.body[: self.cut_at]
        count = _SLOW_PIECES if self.slow_for else 1
        size = max(1, -(-len(body) // count))
        for start in range(0, len(body), size):
            await anyio.sleep(self.slow_for / count)
            await send({"type": "http.response.body", "body": body[start : start + size], "more_body": True})
        if self.cut_at is not None:
            raise ConnectionCutError("the sandbox cut the connection in the middle of its answer")
        await send({"type": "http.response.body", "body": b""})


def with_api_headers(response: Response) -> Response:
    """Return the same response with the recorded headers of the API."""
    request_id = uuid.UUID(bytes=sha256(response.body).digest()[:16], version=4)
    response.headers.update(
        {
            **_API_HEADERS,
            "x-amzn-requestid": str(request_id),
            "x-amzn-trace-id": f"Root=1-{request_id.hex[:8]}-{request_id.hex[8:]}",
        }
    )
    return response


async def preflight(request: Request) -> Response:
    """Tell a browser that a page may submit jobs and poll."""
    return Response(headers={**_API_HEADERS, "access-control-allow-methods": "POST, PUT"})


class RefusedError(Exception):
    """A request is refused with *response*."""

    def __init__(self, response: Response, text: str) -> None:
        super().__init__(text)
        self.response = response


async def refuse(request: Request, error: Exception) -> Response:
    """Return the response of a RefusedError."""
    assert isinstance(error, RefusedError)
    return error.response


async def refuse_for_now(request: Request, error: Exception) -> Response:
    """Answer a request whose effect cannot be written to the state, as a gateway does for a failure that passes."""
    logger.error("%s", error)
    return JSONResponse({"message": "Service Unavailable"}, 503)
