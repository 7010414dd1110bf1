"""The part of Amazon S3 that the vendor uses: URLs that expire, and errors in XML.

The query of a URL has the keys of AWS Signature Version 4. Its signature is an HMAC of the sandbox's own: clients do
not check it.
"""

import hmac
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qsl, quote, urlencode

from starlette.requests import Request
from starlette.responses import Response

from smilejobs.sandbox.http.answers import CROSS_ORIGIN, RefusedError
from smilejobs.sandbox.http.requests import host_of

MAX_LIFETIME_SECONDS = 604_800
"""The longest lifetime of a URL in AWS Signature Version 4."""

_DATE = "%Y%m%dT%H%M%SZ"


class StorageError(RefusedError):
    """A request to the storage is refused with an error code of S3."""

    def __init__(self, code: str, message: str, http_status: int) -> None:
        error = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>"
        xml = f'<?xml version="1.0" encoding="UTF-8"?>\n{error}'
        super().__init__(Response(xml, http_status, CROSS_ORIGIN, "application/xml"), message)
        self.code = code


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
    """Check the URL of a request.

    Raises:
        StorageError: The URL was not made by `sign_url` for this method, host and path, or it has expired.
    """
    query = dict(parse_qsl(request.scope["query_string"].decode("latin-1"), keep_blank_values=True))
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
