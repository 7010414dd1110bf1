"""Sign a request, verify an answer.

The signature is ``base64(HMAC-SHA256(api_key, timestamp + partner_id + "sid_request"))``. The key is used as its UTF-8
bytes, and the three parts have no separator. An answer is signed by the same formula over its own timestamp. Source:
the vendor's client libraries, which all agree; the test vectors were computed with one of them.

A valid signature proves only that the sender knows one valid pair of timestamp and signature of this partner. It covers
neither the body, nor the job, nor the direction.
"""

import hmac
from base64 import b64encode
from datetime import UTC, datetime

from smilejobs.settings import Credentials

_PURPOSE = "sid_request"
_MAX_TIMESTAMP_CHARACTERS = 100
"""The maximum length of a timestamp that is hashed; the longest known format has 32 characters."""


def format_timestamp(at: datetime) -> str:
    """Return an instant in the format of the API: UTC, exactly three fraction digits, ``Z``.

    The vendor documents ``yyyy-MM-dd'T'HH:mm:ss.fffZ``; users report that other formats are refused.
    """
    return at.astimezone(UTC).isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


def sign(credentials: Credentials, timestamp: str) -> str:
    """Return the signature of *timestamp*; the request must hold exactly the same timestamp."""
    message = f"{timestamp}{credentials.partner_id}{_PURPOSE}".encode()
    return b64encode(hmac.digest(credentials.api_key.encode(), message, "sha256")).decode("ascii")


def verify(credentials: Credentials, timestamp: object, signature: object) -> bool:
    """Return whether *signature* is this partner's signature of *timestamp*; compare in constant time.

    Never raise: values that are missing, of another type, too long or not ASCII do not verify, nor do signatures of the
    vendor's old scheme (a hash that needs no key). A timestamp may also be a whole number (epoch milliseconds).
    """
    if isinstance(timestamp, int) and not isinstance(timestamp, bool):
        timestamp = str(timestamp)
    if not isinstance(timestamp, str) or not isinstance(signature, str) or not signature.isascii():
        return False
    if len(timestamp) > _MAX_TIMESTAMP_CHARACTERS:
        return False
    try:
        expected = sign(credentials, timestamp)
    except UnicodeEncodeError:
        return False
    return hmac.compare_digest(expected, signature)
