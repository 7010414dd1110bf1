"""How requests are read, checked and refused."""

import zlib
from contextlib import aclosing
from datetime import timedelta

from attrs import frozen
from starlette.requests import ClientDisconnect, Request

from smilejobs.model.codes import STATUS_CODES
from smilejobs.sandbox.http.answers import RefusedError, json_answer, with_api_headers
from smilejobs.sandbox.registry import Registry
from smilejobs.wire.codec import JSONObject, UnreadableError, decode_object, decode_text, parse_timestamp
from smilejobs.wire.signature import verify

MAX_JSON_BYTES = 1024 * 1024
"""The largest JSON body of a request, compressed or not."""

_GZIP = 16 + zlib.MAX_WBITS
_STALE = "2405"


@frozen
class Codes:
    """The status codes of one route; in every route their last digits have the same meaning."""

    invalid_json: str
    wrong_signature: str
    missing_parameter: str
    system_error: str


class ApiRefusedError(RefusedError):
    """A request to the API is refused with a code of `smilejobs.STATUS_CODES`; *body* is what the vendor writes.

    The HTTP status of all recorded refusals is 400.
    """

    def __init__(self, code: str, text: str | None = None, *, http_status: int = 400) -> None:
        text = STATUS_CODES[code].meaning if text is None else text
        self.body: dict[str, object] = {"error": text, "code": code}
        super().__init__(with_api_headers(json_answer(self.body, http_status)), code)


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
    pieces = []
    size = 0
    try:
        async with aclosing(request.stream()) as stream:
            async for piece in stream:
                size += len(piece)
                if size > max_bytes:
                    raise TooLargeError
                pieces.append(piece)
    except ClientDisconnect:
        raise IncompleteError from None
    return b"".join(pieces)


async def read_object(request: Request, codes: Codes) -> JSONObject:
    """Return the JSON object in the body of *request*.

    Raises:
        ApiRefusedError: There is none, or it is too large.
    """
    try:
        body = await read(request, MAX_JSON_BYTES)
        if request.headers.get("content-encoding", "").strip().lower() == "gzip":
            body = _gunzip(body)
        return decode_object(body)
    except TooLargeError:
        raise ApiRefusedError(codes.invalid_json, http_status=413) from None
    except (IncompleteError, UnreadableError, zlib.error):
        raise ApiRefusedError(codes.invalid_json) from None


def _gunzip(body: bytes) -> bytes:
    """Decompress at most `MAX_JSON_BYTES`. The vendor's Android client compresses its requests."""
    inflater = zlib.decompressobj(_GZIP)
    inflated = inflater.decompress(body, MAX_JSON_BYTES + 1)
    if len(inflated) > MAX_JSON_BYTES:
        raise TooLargeError
    if not inflater.eof:
        raise IncompleteError
    return inflated


def read_parameter(asked: JSONObject, name: str, codes: Codes) -> str:
    """Return a required parameter; some clients of the vendor send ids as numbers.

    Raises:
        ApiRefusedError: It is missing, empty or of another type.
    """
    try:
        value = decode_text(asked, name)
    except UnreadableError:
        value = None
    if not value:
        raise ApiRefusedError(codes.missing_parameter)
    return value


def check_partner(asked: JSONObject, name: str, registry: Registry, max_skew: timedelta | None, codes: Codes) -> None:
    """Check that the partner, whose id is the parameter *name*, has signed the request, at most *max_skew* ago.

    Raises:
        ApiRefusedError: A parameter is missing, the signature is wrong, or the timestamp differs too much.
    """
    partner_id, timestamp, signature = (read_parameter(asked, key, codes) for key in (name, "timestamp", "signature"))
    credentials = registry.credentials
    if partner_id != credentials.partner_id or not verify(credentials, timestamp, signature):
        raise ApiRefusedError(codes.wrong_signature)
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
