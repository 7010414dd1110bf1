"""How requests are read, checked and refused."""

import zlib
from contextlib import aclosing
from datetime import timedelta

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse

from smilejobs.model.codes import STATUS_CODES
from smilejobs.sandbox.http.answers import RefusedError, with_api_headers
from smilejobs.sandbox.registry import Registry
from smilejobs.wire.codec import JSONObject, UnreadableError, decode_object, decode_text, parse_timestamp
from smilejobs.wire.signature import verify

MAX_JSON_BYTES = 1024 * 1024
"""The largest JSON body of a request, compressed or not."""

UPLOAD, STATUS = "22", "23"
"""The routes: their status codes begin with these digits, and the last two digits mean the same in both."""
_INVALID_JSON, _WRONG_SIGNATURE, _MISSING_PARAMETER = "03", "05", "13"
_STALE = "2405"
_GZIP = 16 + zlib.MAX_WBITS


class ApiRefusedError(RefusedError):
    """A request to the API is refused with a code of `smilejobs.STATUS_CODES`.

    The HTTP status of all recorded refusals is 400.
    """

    def __init__(self, code: str, text: str | None = None, *, http_status: int = 400) -> None:
        super().__init__(with_api_headers(JSONResponse(refusal(code, text), http_status)), code)


def refusal(code: str, text: str | None = None) -> dict[str, object]:
    """Return what the API writes if it refuses a request."""
    return {"error": STATUS_CODES[code].meaning if text is None else text, "code": code}


def refuse_parameter(route: str) -> ApiRefusedError:
    """Return the refusal of a parameter that is missing, or no text, or cannot be an id."""
    return ApiRefusedError(route + _MISSING_PARAMETER)


class TooLargeError(Exception):
    """A body is larger than its route accepts."""


class IncompleteError(Exception):
    """The client has disconnected, or the compressed data has ended, before the end of the body."""


async def read(request: Request, max_bytes: int) -> bytes:
    """Return the body of *request*.

    Raises:
        IncompleteError: The client has disconnected.
        TooLargeError: The body is larger than *max_bytes*; the rest has not been read.
    """
    body = bytearray()
    try:
        async with aclosing(request.stream()) as stream:
            async for piece in stream:
                body += piece
                if len(body) > max_bytes:
                    raise TooLargeError
    except ClientDisconnect:
        raise IncompleteError from None
    return bytes(body)


async def read_object(request: Request, route: str) -> JSONObject:
    """Return the JSON object in the body of *request*, or raise ApiRefusedError."""
    try:
        body = await read(request, MAX_JSON_BYTES)
        if request.headers.get("content-encoding", "").strip().lower() == "gzip":
            body = _gunzip(body)
        return decode_object(body)
    except TooLargeError:
        raise ApiRefusedError(route + _INVALID_JSON, http_status=413) from None
    except (IncompleteError, UnreadableError, zlib.error):
        raise ApiRefusedError(route + _INVALID_JSON) from None


def _gunzip(body: bytes) -> bytes:
    """Decompress at most `MAX_JSON_BYTES`. The vendor's Android client compresses its requests."""
    inflater = zlib.decompressobj(_GZIP)
    inflated = inflater.decompress(body, MAX_JSON_BYTES + 1)
    if len(inflated) > MAX_JSON_BYTES:
        raise TooLargeError
    if not inflater.eof:
        raise IncompleteError
    return inflated


def read_parameter(asked: JSONObject, name: str, route: str) -> str:
    """Return a required parameter, or raise ApiRefusedError; some clients of the vendor send ids as numbers."""
    try:
        value = decode_text(asked, name)
    except UnreadableError:
        value = None
    if not value:
        raise refuse_parameter(route)
    return value


def check_partner(asked: JSONObject, name: str, route: str, registry: Registry, max_skew: timedelta | None) -> None:
    """Check that the partner, whose id is the parameter *name*, has signed the request, at most *max_skew* ago.

    Raises:
        ApiRefusedError: A parameter is missing, the signature is wrong, or the timestamp differs too much.
    """
    partner_id, timestamp, signature = (read_parameter(asked, key, route) for key in (name, "timestamp", "signature"))
    credentials = registry.credentials
    if partner_id != credentials.partner_id or not verify(credentials, timestamp, signature):
        raise ApiRefusedError(route + _WRONG_SIGNATURE)
    if max_skew is not None:
        signed_at = parse_timestamp(asked["timestamp"])
        if signed_at is None or abs(signed_at - registry.now()) > max_skew:
            raise ApiRefusedError(_STALE)


def host_of(request: Request) -> str:
    """Return the host and port in the URL of *request*."""
    return request.headers.get("host", "localhost")


def root_of(request: Request) -> str:
    """Return the scheme, host and port in the URL of *request*, such as "http://127.0.0.1:8787"."""
    return f"{request.scope['scheme']}://{host_of(request)}"
