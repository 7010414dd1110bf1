"""The images of the jobs, and the part of Amazon S3 that the vendor uses for files: URLs that expire, errors in XML.

The query of a URL has the keys of AWS Signature Version 4. Its signature is an HMAC of the sandbox's own: clients do
not check it.
"""

import hmac
import struct
import zlib
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from hashlib import sha256, shake_256
from urllib.parse import quote, urlencode

from attrs import field, frozen
from starlette.requests import Request
from starlette.responses import Response

from smilejobs.durations import Duration, seconds
from smilejobs.sandbox.http.common import CROSS_ORIGIN, FaultyResponse, RefusedError, host_of
from smilejobs.sandbox.jobs import Job
from smilejobs.sandbox.registry import Registry

IMAGE_PATH = "/images/{smile_job_id}/{file_name}"
MIN_PADDED_BYTES = 128
_MAX_IMAGE_BYTES = 16 * 1024 * 1024
_SIDE_PIXELS = 64
_MAX_LIFETIME_SECONDS = 604_800
"""The longest lifetime of a URL in AWS Signature Version 4."""
_DATE = "%Y%m%dT%H%M%SZ"


def _to_lifetime(value: Duration) -> int:
    lifetime = seconds(value, "link_lifetime")
    if not lifetime.is_integer() or not 1 <= lifetime <= _MAX_LIFETIME_SECONDS:
        raise ValueError(f"link_lifetime must be a whole number of seconds from 1 to {_MAX_LIFETIME_SECONDS}")
    return int(lifetime)


def _check_size(_: object, attribute: object, value: int | None) -> None:
    if value is None:
        return
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"picture_bytes must be a whole number, not {type(value).__name__}")
    if not MIN_PADDED_BYTES <= value <= _MAX_IMAGE_BYTES:
        raise ValueError(f"picture_bytes must be from {MIN_PADDED_BYTES} to {_MAX_IMAGE_BYTES}")


@frozen
class Images:
    """Makes the links, and serves the images; see `Sandbox` for the lifetime and the size."""

    registry: Registry
    lifetime: int = field(converter=_to_lifetime)
    picture_bytes: int | None = field(validator=_check_size)

    def links(self, job: Job, root: str, at: datetime) -> dict[str, str]:
        """Return the links to the images of *job*, by the vendor's names; their lifetime begins at *at*."""
        links = {}
        for name, file_name in job.product.pictures.items():
            path = IMAGE_PATH.format(smile_job_id=job.smile_job_id, file_name=file_name)
            secret = self.registry.credentials.api_key
            links[name] = sign_url(secret, "GET", root, path, at=at, lifetime=self.lifetime)
        return links

    async def answer(self, request: Request) -> Response:
        """Serve an image."""
        check_url(self.registry.credentials.api_key, request, self.registry.now())
        path = request.scope["path"]
        count = self.registry.count("picture", path)
        faults = self.registry.faults_of(self.registry.numbered.get(request.path_params["smile_job_id"]))
        image = make_png(path, self.picture_bytes)
        rng = self.registry.rng("picture", path, count)
        is_slow, is_cut = rng.random() < faults.slow_pictures, rng.random() < faults.cut_pictures
        size = rng.randrange(1, len(image)) if is_cut else len(image)
        # Either the stored file is incomplete, which only the image itself shows, or the connection breaks.
        is_stored_so = rng.random() < 0.5
        response = FaultyResponse(image[:size] if is_stored_so else image, media_type="image/png")
        response.slow_for = faults.slow if is_slow else 0.0
        response.cut_at = size if is_cut and not is_stored_so else None
        return response


def make_png(name: str, size: int | None = None) -> bytes:
    """Return a PNG of one colour, which depends on *name*, so that mix-ups are noticed.

    It is padded to *size* bytes, at least `MIN_PADDED_BYTES`, by random data in a chunk that decoders skip.
    """
    head = b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", struct.pack(">IIBBBBB", _SIDE_PIXELS, _SIDE_PIXELS, 1, 3, 0, 0, 0))
    pixels = zlib.compress(bytes(_SIDE_PIXELS * (1 + _SIDE_PIXELS // 8)))
    rest = _chunk(b"PLTE", sha256(name.encode()).digest()[:3]) + _chunk(b"IDAT", pixels) + _chunk(b"IEND", b"")
    if size is not None:
        padding = size - len(head) - len(rest) - len(_chunk(b"noIs", b""))
        head += _chunk(b"noIs", shake_256(name.encode()).digest(padding))
    return head + rest


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


class StorageError(RefusedError):
    """A request to the storage is refused with an error code of S3."""

    def __init__(self, code: str, message: str, http_status: int) -> None:
        error = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>"
        xml = f'<?xml version="1.0" encoding="UTF-8"?>\n{error}'
        super().__init__(Response(xml, http_status, CROSS_ORIGIN, "application/xml"), message)


def sign_url(secret: str, method: str, root: str, path: str, *, at: datetime, lifetime: int) -> str:
    """Return a URL that opens *path* for an HTTP method, from *at* until *lifetime* seconds later."""
    date = at.astimezone(UTC).strftime(_DATE)
    query = [
        ("X-Amz-Algorithm", "AWS4-HMAC-SHA256"),
        ("X-Amz-Credential", f"smilejobs-sandbox/{date[:8]}/us-west-2/s3/aws4_request"),
        ("X-Amz-Date", date),
        ("X-Amz-Expires", str(lifetime)),
        ("X-Amz-SignedHeaders", "host"),
    ]
    host = root.partition("://")[2]
    signed = urlencode([*query, ("X-Amz-Signature", _sign(secret, method, host, path, query))], quote_via=quote)
    return f"{root}{path}?{signed}"


def check_url(secret: str, request: Request, now: datetime) -> None:
    """Raise StorageError if `sign_url` did not make the URL for this method, host and path, or it has expired."""
    query = dict(request.query_params)
    signature = query.pop("X-Amz-Signature", "")
    expected = _sign(secret, request.method, host_of(request), request.scope["path"], query.items())
    if not hmac.compare_digest(signature.encode(), expected.encode()):
        message = "The request signature we calculated does not match the signature you provided."
        raise StorageError("SignatureDoesNotMatch", message, 403)
    # A query that verifies was made by `sign_url`, so its date and lifetime are valid.
    since = datetime.strptime(query["X-Amz-Date"], _DATE).replace(tzinfo=UTC)
    if now >= since + timedelta(seconds=int(query["X-Amz-Expires"])):
        raise StorageError("AccessDenied", "Request has expired", 403)


def _sign(secret: str, method: str, host: str, path: str, query: Iterable[tuple[str, str]]) -> str:
    return hmac.digest(secret.encode(), repr((method, host, path, sorted(query))).encode(), "sha256").hex()
