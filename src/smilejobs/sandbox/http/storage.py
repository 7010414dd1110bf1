"""The part of Amazon S3 that the vendor uses: URLs that expire, and errors in XML.

The query of a URL has the keys of AWS Signature Version 4. Its signature is an HMAC of the sandbox's own: clients do
not check it.
"""

import hmac
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qsl, quote, urlencode

from attrs import frozen
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from smilejobs.sandbox.http.answers import CROSS_ORIGIN, logger
from smilejobs.sandbox.http.requests import host_of
from smilejobs.sandbox.state import StateError

MAX_LIFETIME_SECONDS = 604_800
"""The longest lifetime of a URL in AWS Signature Version 4."""

_DATE = "%Y%m%dT%H%M%SZ"


class StorageError(Exception):
    """A request to the storage is refused.

    Attributes:
        code: The error code of S3.
        http_status: The HTTP status.
    """

    def __init__(self, code: str, message: str, http_status: int) -> None:
        super().__init__(message)
        self.code = code
        self.http_status = http_status

    def response(self) -> Response:
        """Return the error as S3 writes it."""
        error = f"<Error><Code>{self.code}</Code><Message>{self}</Message></Error>"
        xml = f'<?xml version="1.0" encoding="UTF-8"?>\n{error}'
        return Response(xml, status_code=self.http_status, media_type="application/xml", headers=CROSS_ORIGIN)


def sign_url(secret: str, method: str, root: str, path: str, *, at: datetime, lifetime: int) -> str:
    """Return a URL that expires.

    Args:
        secret: The key of the signature.
        method: The HTTP method that the URL is for.
        root: The scheme and host, such as "http://127.0.0.1:8787".
        path: The path.
        at: When the lifetime begins.
        lifetime: Seconds, 1 to `MAX_LIFETIME_SECONDS`.
    """
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
    try:
        query = parse_qsl(request.scope["query_string"].decode("latin-1"), keep_blank_values=True, max_num_fields=20)
    except ValueError:
        query = []
    values = dict(query)
    signed = [(name, value) for name, value in query if name != "X-Amz-Signature"]
    expected = _sign(secret, request.method, host_of(request), request.scope["path"], signed)
    if not hmac.compare_digest(values.get("X-Amz-Signature", "").encode(), expected.encode()):
        message = "The request signature we calculated does not match the signature you provided."
        raise StorageError("SignatureDoesNotMatch", message, 403)
    # A query that verifies was made by `sign_url`, so its date and lifetime are valid.
    since = datetime.strptime(values["X-Amz-Date"], _DATE).replace(tzinfo=UTC)
    if now >= since + timedelta(seconds=int(values["X-Amz-Expires"])):
        raise StorageError("AccessDenied", "Request has expired", 403)


def _sign(secret: str, method: str, host: str, path: str, query: Iterable[tuple[str, str]]) -> str:
    return hmac.digest(secret.encode(), repr((method, host, path, sorted(query))).encode(), "sha256").hex()


@frozen
class StorageRoute:
    """A route of the storage, an ASGI application.

    A refusal is an answer too, and so is a state that cannot be written, which a client may retry.

    Attributes:
        answer: Answers a request, or raises a `StorageError`.
    """

    answer: Callable[[Request], Awaitable[ASGIApp]]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        try:
            answer = await self.answer(Request(scope, receive))
        except StorageError as error:
            answer = error.response()
        except StateError as error:
            logger.error("%s", error)  # the text says which file, and what is wrong with it
            answer = StorageError("ServiceUnavailable", "Service is unable to handle request.", 503).response()
        await answer(scope, receive, send)
