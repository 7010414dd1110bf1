"""Our signatures and the vendor's own: the same for any input. Run by ``nox -s peers``."""

import base64
import hashlib
import hmac

from hypothesis import given, settings
from hypothesis import strategies as st
from smile_id_core import Signature

from smilejobs import Credentials
from smilejobs.wire.signature import sign, verify


def is_accepted(word: str) -> bool:
    """Say whether it can be a partner id or a key: a quotation mark at its ends, for example, is a mistake."""
    try:
        Credentials(word, word)
    except ValueError:
        return False
    return True


words = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1).filter(is_accepted)


@settings(max_examples=5000, deadline=None)
@given(partner_id=words, api_key=words, timestamp=words)
def test_signatures_are_the_vendors(partner_id: str, api_key: str, timestamp: str) -> None:
    """What we sign, their class signs alike, and each verifies what the other has signed."""
    credentials = Credentials(partner_id, api_key)
    theirs = Signature(partner_id, api_key)
    signature = theirs.generate_signature(timestamp)["signature"]
    assert sign(credentials, timestamp) == signature
    assert verify(credentials, timestamp, signature)
    assert theirs.confirm_signature(timestamp, sign(credentials, timestamp))


@settings(max_examples=2000, deadline=None)
@given(partner_id=words, api_key=words, timestamp=words, other=words)
def test_wrong_signatures_are_refused_by_both(partner_id: str, api_key: str, timestamp: str, other: str) -> None:
    """Another key, another timestamp, an unkeyed hash: not verified here, nor there."""
    credentials = Credentials(partner_id, api_key)
    theirs = Signature(partner_id, api_key)
    unkeyed = base64.b64encode(hashlib.sha256(f"{timestamp}{partner_id}sid_request".encode()).digest()).decode()
    other_key = base64.b64encode(hmac.digest(f"{api_key}+{other}".encode(), b"", "sha256")).decode()
    for forged in (unkeyed, other_key):
        assert not verify(credentials, timestamp, forged)
        assert not theirs.confirm_signature(timestamp, forged)
