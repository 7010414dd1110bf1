"""What every route does with a request: read it, decode it, refuse it in the vendor's words."""

import json
import zlib
from contextlib import aclosing
from datetime import datetime, timedelta

from attrs import frozen
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from smilejobs.model.codes import STATUS_CODES
from smilejobs.settings import Credentials
from smilejobs.wire.codec import JSONObject, UnreadableError, decode_object, decode_text, parse_timestamp
from smilejobs.wire.signature import verify

MAX_BODY = 1024 * 1024
"""The most bytes of a request's JSON, compressed or not."""
_GZIP = 16 + zlib.MAX_WBITS

CROSS_ORIGIN = {"access-control-allow-origin": "*"}
"""Lets pages in a browser read an answer."""

_STALE = "2405"


@frozen
class Family:
    """The status codes with which one route refuses; the same last digits mean the same in each family."""

    invalid_json: str
    wrong_signature: str
    missing_parameter: str
    system_error: str


class RefusalError(Exception):
    """A request is refused.

    Attributes:
        code: One of `smilejobs.STATUS_CODES`.
        http_status: The HTTP status; that of all refusals seen is 400.
        text: For people; by default what the code means.
    """

    def __init__(self, code: str, text: str | None = None, *, http_status: int = 400) -> None:
        super().__init__(code)
        self.code = code
        self.http_status = http_status
        self.text = STATUS_CODES[code].meaning if text is None else text

    @property
    def body(self) -> dict[str, object]:
        """The refusal as the vendor writes it."""
        return {"error": self.text, "code": self.code}


class TooLargeError(Exception):
    """A body has more bytes than its route takes."""


class CutOffError(Exception):
    """The client has left before the end of its body."""


async def read(request: Request, most: int) -> bytes:
    """Return the body of *request*.

    Raises:
        CutOffError: The client has left before its end.
        TooLargeError: It has more bytes than *most*; the rest has not been read.
    """
    pieces = []
    size = 0
    try:
        async with aclosing(request.stream()) as stream:
            async for piece in stream:
                size += len(piece)
                if size > most:
                    raise TooLargeError
                pieces.append(piece)
    except ClientDisconnect:
        raise CutOffError from None
    return b"".join(pieces)


async def read_object(request: Request, family: Family) -> JSONObject:
    """Return the JSON object that *request* brings.

    Raises:
        RefusalError: It brings none, or too large a one.
    """
    try:
        body = await read(request, MAX_BODY)
        if request.headers.get("content-encoding", "").strip().lower() == "gzip":
            body = _gunzip(body)
        return decode_object(body)
    except TooLargeError:
        raise RefusalError(family.invalid_json, http_status=413) from None
    except (CutOffError, UnreadableError, zlib.error):
        raise RefusalError(family.invalid_json) from None


def _gunzip(body: bytes) -> bytes:
    """Return *body* decompressed, with memory for `MAX_BODY` at most. The vendor's Android client compresses it.

    Raises:
        CutOffError: It ends too early.
        TooLargeError: It has more bytes than `MAX_BODY`.
        zlib.error: It is not compressed so.
    """
    inflater = zlib.decompressobj(_GZIP)
    inflated = inflater.decompress(body, MAX_BODY + 1)
    if len(inflated) > MAX_BODY:
        raise TooLargeError
    if not inflater.eof:
        raise CutOffError
    return inflated


def parameter(asked: JSONObject, name: str, family: Family) -> str:
    """Return a required parameter; clients of the vendor's send ids as numbers too.

    Raises:
        RefusalError: There is none.
    """
    try:
        value = decode_text(asked, name)
    except UnreadableError:
        value = None
    if not value:
        raise RefusalError(family.missing_parameter)
    return value


def check_partner(asked: JSONObject, name: str, credentials: Credentials, family: Family) -> None:
    """Do nothing if the partner asks: the parameter *name* is its id, and the signature is its own.

    Raises:
        RefusalError: Somebody else asks, or does not say who.
    """
    partner_id, timestamp, signature = (parameter(asked, key, family) for key in (name, "timestamp", "signature"))
    if partner_id != credentials.partner_id or not verify(credentials, timestamp, signature):
        raise RefusalError(family.wrong_signature)


def check_fresh(asked: JSONObject, max_skew: timedelta | None, now: datetime) -> None:
    """Do nothing if the timestamp of a request is not too far from *now*; with None it may be any.

    Raises:
        RefusalError: It is, or names no instant.
    """
    if max_skew is None:
        return
    signed_at = parse_timestamp(asked["timestamp"])
    if signed_at is None or abs(signed_at - now) > max_skew:
        raise RefusalError(_STALE)


def can_be_sent(value: object) -> bool:
    """Say whether it can be given back as JSON: no half surrogate pairs, no numbers beyond all bounds."""
    try:
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError):
        return False
    return True


def host_of(request: Request) -> str:
    """Return the host, with its port, that the client has asked: the links that it gets name it too."""
    return request.headers.get("host", "localhost")


def root_of(request: Request) -> str:
    """Return the scheme and the host at which the client has found the sandbox."""
    return f"{request.scope['scheme']}://{host_of(request)}"


def storage_error(code: str, message: str, *, http_status: int) -> Response:
    """Return an error as S3, where the vendor keeps zips and pictures, writes it."""
    xml = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>{message}</Message></Error>'
    return Response(xml, status_code=http_status, media_type="application/xml", headers=CROSS_ORIGIN)


def storage_unavailable() -> Response:
    """Return what S3 says when the fault is its own, and the client may try again."""
    return storage_error("ServiceUnavailable", "Service is unable to handle request.", http_status=503)
