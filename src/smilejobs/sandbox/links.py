"""Links that expire, signed as Amazon S3 signs them.

Source: AWS Signature Version 4, "Authenticating requests: using query parameters".
"""

import hmac
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from urllib.parse import parse_qsl, quote, urlencode

LONGEST = 604_800
"""Seconds; the scheme allows no longer life."""

_ALGORITHM = "AWS4-HMAC-SHA256"
_CREDENTIAL = "smilejobs-sandbox"
_SCOPE = "us-west-2/s3/aws4_request"
_DATE = "%Y%m%dT%H%M%SZ"


class LinkRefusedError(Exception):
    """A link is not served.

    Attributes:
        code: Why, in S3's word.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def presign(secret: str, host: str, path: str, *, at: datetime, lifetime: int, method: str = "GET") -> str:
    """Return the query that opens *path*.

    Args:
        secret: What it is signed with.
        host: The value of the ``Host`` header, which is signed too.
        path: The path.
        at: The instant from which it is valid.
        lifetime: Seconds, 1 to `LONGEST`.
        method: For which HTTP method.
    """
    date = at.astimezone(UTC).strftime(_DATE)
    query = [
        ("X-Amz-Algorithm", _ALGORITHM),
        ("X-Amz-Credential", f"{_CREDENTIAL}/{date[:8]}/{_SCOPE}"),
        ("X-Amz-Date", date),
        ("X-Amz-Expires", str(lifetime)),
        ("X-Amz-SignedHeaders", "host"),
    ]
    return _canonical([*query, ("X-Amz-Signature", signature(secret, host, path, query, method))])


def check(secret: str, host: str, path: str, query: str, now: datetime, *, method: str = "GET") -> None:
    """Do nothing if *query* opens *path* for that HTTP method at the instant *now*.

    Raises:
        LinkRefusedError: The query is not one of `presign`, or its time is over.
    """
    try:
        pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=20)
    except ValueError:
        pairs = []
    signed = [(name, value) for name, value in pairs if name != "X-Amz-Signature"]
    given = dict(pairs).get("X-Amz-Signature", "")
    if not hmac.compare_digest(given.encode(), signature(secret, host, path, signed, method).encode()):
        raise LinkRefusedError(
            "SignatureDoesNotMatch",
            "The request signature we calculated does not match the signature you provided.",
        )
    # Whatever has been signed here has a date and a lifetime that can be read.
    values = dict(signed)
    since = datetime.strptime(values["X-Amz-Date"], _DATE).replace(tzinfo=UTC)
    if now >= since + timedelta(seconds=int(values["X-Amz-Expires"])):
        raise LinkRefusedError("AccessDenied", "Request has expired")


def signature(secret: str, host: str, path: str, query: Iterable[tuple[str, str]], method: str = "GET") -> str:
    """Return the ``X-Amz-Signature`` of a request whose query is *query*, apart from the signature itself."""
    pairs = list(query)
    values = dict(pairs)
    scope = values.get("X-Amz-Credential", "").partition("/")[2]
    request = [method, quote(path), _canonical(sorted(pairs)), f"host:{host}", "", "host", "UNSIGNED-PAYLOAD"]
    hashed = sha256("\n".join(request).encode()).hexdigest()
    key = f"AWS4{secret}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    signed = "\n".join([_ALGORITHM, values.get("X-Amz-Date", ""), scope, hashed])
    return hmac.digest(key, signed.encode(), "sha256").hex()


def _canonical(query: Iterable[tuple[str, str]]) -> str:
    return urlencode(list(query), quote_via=quote, safe="-_.~")
