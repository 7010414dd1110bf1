"""Sign a request, verify an answer.

The signature is ``base64(HMAC-SHA256(api_key, timestamp + partner_id + "sid_request"))``, the key as its UTF-8 bytes
and the three parts without a separator; an answer carries the same formula over its own timestamp. Source: the
vendor's client libraries, which all agree; the tests hold vectors that were computed with one of them.

What a valid signature proves is little: that somebody has seen one valid pair of timestamp and signature of this
partner. It binds neither the body, nor the job, nor the direction.
"""

import hmac
from base64 import b64encode
from datetime import UTC, datetime

from smilejobs.settings import Credentials

_PURPOSE = "sid_request"
_MOST_TIMESTAMP_CHARACTERS = 100
"""The longest spellings that are known have 32; a longer text is no timestamp, and is not hashed."""


def format_timestamp(at: datetime) -> str:
    """Write an instant as the API wants it: UTC, exactly three digits of fraction, ``Z``.

    The vendor documents ``yyyy-MM-dd'T'HH:mm:ss.fffZ``; users report that other spellings are refused.
    """
    return at.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"


def sign(credentials: Credentials, timestamp: str) -> str:
    """Return the signature of *timestamp*, which must be sent byte for byte as it was signed."""
    message = f"{timestamp}{credentials.partner_id}{_PURPOSE}".encode()
    return b64encode(hmac.digest(credentials.api_key.encode(), message, "sha256")).decode("ascii")


def verify(credentials: Credentials, timestamp: object, signature: object) -> bool:
    """Say whether *signature* is this partner's signature of *timestamp*, in constant time.

    What is missing, of another type, too long, not ASCII, or signed in the old way (a hash that needs no key) is not
    verified; nothing raises. A timestamp may also be a whole number (epoch milliseconds).
    """
    if isinstance(timestamp, int) and not isinstance(timestamp, bool):
        timestamp = str(timestamp)
    if not isinstance(timestamp, str) or not isinstance(signature, str) or not signature.isascii():
        return False
    if len(timestamp) > _MOST_TIMESTAMP_CHARACTERS:
        return False
    try:
        expected = sign(credentials, timestamp)
    except UnicodeEncodeError:
        return False
    return hmac.compare_digest(expected, signature)
