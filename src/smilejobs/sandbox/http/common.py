"""What the routes share: how requests are read, checked and refused, and how faults change what is sent."""

import gzip
import json
import logging
import zlib
from collections.abc import Mapping
from contextlib import aclosing
from hashlib import sha256
from io import BytesIO

import anyio
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from smilejobs.model.codes import STATUS_CODES
from smilejobs.model.jobs import JobRef
from smilejobs.sandbox.registry import Registry
from smilejobs.sandbox.state import StateError
from smilejobs.wire.codec import JSONObject, UnreadableError, decode_object, decode_text, parse_timestamp
from smilejobs.wire.signature import verify

CROSS_ORIGIN = {"access-control-allow-origin": "*"}
"""Lets web pages read an answer."""

_SLOW_PIECES = 8
_API_HEADERS = {**CROSS_ORIGIN, "access-control-allow-headers": "Content-type", "allow": "POST"}
"""Sent with every answer of the API, as recorded."""

_MAX_JSON_BYTES = 1024 * 1024
"""The largest JSON body of a request, compressed or not."""

UPLOAD, STATUS = "22", "23"
"""The routes: their status codes begin with these digits, and the last two digits mean the same in both."""
_PARTNER_IDS = {UPLOAD: "smile_client_id", STATUS: "partner_id"}
_INVALID_JSON, _WRONG_SIGNATURE, _MISSING_PARAMETER = "03", "05", "13"
_STALE = "2405"

logger = logging.getLogger("smilejobs.sandbox")


# --- Answers


class ConnectionCutError(ConnectionResetError):
    """The sandbox cuts the connection on purpose. A client in the same process gets the error itself."""


class FaultyResponse(Response):
    """A response that may be sent in small pieces, or not to its end.

    Attributes:
        slow_for: Seconds over which the body is sent in small pieces; 0 sends it at once.
        cut_at: The number of bytes of the body after which the connection is cut; -1 cuts it before the head, None
            never.
    """

    slow_for: float = 0.0
    cut_at: int | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it, or raise ConnectionCutError where the connection is to be cut."""
        if not self.slow_for and self.cut_at is None:
            await super().__call__(scope, receive, send)
            return
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


def encode_json(value: object) -> bytes:
    """Return *value* as JSON."""
    return json.dumps(value, separators=(",", ":")).encode()


def api_response(
    body: bytes, http_status: int = 200, headers: Mapping[str, str] | None = None, media_type: str = "application/json"
) -> FaultyResponse:
    """Return an answer of the API, with the recorded headers; its ids are made from its body."""
    digest = sha256(body).hexdigest()
    ids = {
        "x-amzn-requestid": f"{digest[:8]}-{digest[8:12]}-{digest[12:16]}-{digest[16:20]}-{digest[20:32]}",
        "x-amzn-trace-id": f"Root=1-{digest[:8]}-{digest[8:32]}",
    }
    return FaultyResponse(body, http_status, {**_API_HEADERS, **ids, **(headers or {})}, media_type)


async def preflight(request: Request) -> Response:
    """Tell a browser that a page may submit jobs and poll."""
    return Response(headers={**_API_HEADERS, "access-control-allow-methods": "POST, PUT"})


# --- Refusals


class RefusedError(Exception):
    """A request is refused with *response*."""

    def __init__(self, response: Response, text: str) -> None:
        super().__init__(text)
        self.response = response


async def refuse(request: Request, error: Exception) -> Response:
    """Answer a request that is refused, whose effect cannot be written to the state, or whose client has left."""
    if isinstance(error, RefusedError):
        return error.response
    if isinstance(error, StateError):
        logger.error("%s", error)
    return JSONResponse({"message": "Service Unavailable"}, 503)


class ApiRefusedError(RefusedError):
    """A request to the API is refused with a code of `smilejobs.STATUS_CODES`; those recorded had HTTP status 400."""

    def __init__(self, code: str, text: str | None = None) -> None:
        super().__init__(api_response(encode_json(refusal(code, text)), 400), code)


def refusal(code: str, text: str | None = None) -> dict[str, object]:
    """Return what the API writes if it refuses a request."""
    return {"error": STATUS_CODES[code].meaning if text is None else text, "code": code}


# --- Requests


class TooLargeError(RefusedError):
    """A body is larger than its route accepts; it is refused as by the gateway before the real API."""

    def __init__(self) -> None:
        super().__init__(JSONResponse({"message": "Request Too Long"}, 413), "the body is too large")


async def read(request: Request, max_bytes: int) -> bytes:
    """Return the body of *request*; raise TooLargeError if it is larger, ClientDisconnect if it is not whole."""
    body = bytearray()
    async with aclosing(request.stream()) as stream:
        async for piece in stream:
            body += piece
            if len(body) > max_bytes:
                raise TooLargeError
    return bytes(body)


async def read_signed(request: Request, route: str, registry: Registry) -> JSONObject:
    """Return the JSON object that the partner has sent, and signed lately enough, or raise ApiRefusedError.

    The vendor's Android client compresses its requests.
    """
    try:
        body = await read(request, _MAX_JSON_BYTES)
        if request.headers.get("content-encoding", "").strip().lower() == "gzip":
            with gzip.GzipFile(fileobj=BytesIO(body)) as compressed:
                body = compressed.read(_MAX_JSON_BYTES + 1)
        if len(body) > _MAX_JSON_BYTES:
            raise TooLargeError
        asked = decode_object(body)
    except (UnreadableError, OSError, EOFError, zlib.error):
        raise ApiRefusedError(route + _INVALID_JSON) from None
    names = (_PARTNER_IDS[route], "timestamp", "signature")
    partner_id, timestamp, signature = (_read_parameter(asked, name, route) for name in names)
    if partner_id != registry.credentials.partner_id or not verify(registry.credentials, timestamp, signature):
        raise ApiRefusedError(route + _WRONG_SIGNATURE)
    if registry.max_skew is not None:
        signed_at = parse_timestamp(asked["timestamp"])
        if signed_at is None or abs(signed_at - registry.now()) > registry.max_skew:
            raise ApiRefusedError(_STALE)
    return asked


def read_ref(params: JSONObject, route: str, registry: Registry) -> JobRef:
    """Return the job that the parameters name, submitted now, or raise ApiRefusedError."""
    user_id, job_id = (_read_parameter(params, name, route) for name in ("user_id", "job_id"))
    try:
        return JobRef(user_id, job_id, registry.now())
    except ValueError:
        raise ApiRefusedError(route + _MISSING_PARAMETER) from None


def _read_parameter(asked: JSONObject, name: str, route: str) -> str:
    """Return a required parameter; some clients of the vendor send ids as numbers."""
    try:
        value = decode_text(asked, name)
    except UnreadableError:
        value = None
    if not value:
        raise ApiRefusedError(route + _MISSING_PARAMETER)
    return value


def host_of(request: Request) -> str:
    """Return the host and port in the URL of *request*."""
    return request.headers.get("host", "localhost")


def root_of(request: Request) -> str:
    """Return the scheme, host and port in the URL of *request*, such as "http://127.0.0.1:8787"."""
    return f"{request.scope['scheme']}://{host_of(request)}"
