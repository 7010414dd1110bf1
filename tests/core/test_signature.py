"""Sign requests, verify answers."""

import re
import time
from base64 import b64decode, b64encode
from datetime import UTC, datetime, timedelta, timezone
from hashlib import sha256
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from smilejobs import Credentials
from smilejobs.wire.signature import format_timestamp, sign, verify
from tests.helpers.bodies import CREDENTIALS, TIMESTAMP
from tests.helpers.strategies import json_values, texts, unhurried

# Computed with the vendor's own Python client; the last two are also in the tests of its Java client.
VECTORS = [
    ("001", "test-api-key-0001", "2025-01-02T03:04:05.678Z", "XSGb8QZ1yu3ah2GQL7fztiUUsESLOBrzeXAC41tnddQ="),
    ("085", "kB7-Öß/secret+key==", "2026-08-22T09:19:40.001Z", "v2N+J3JTl1BwsVtnyCyEE683FyDbzVsN9HKW5CUwm3s="),
    ("212", "test-api-key-0001", "2025-01-02T03:04:05.678901+00:00", "bNAdRmpYgr57/exc3aRRGwTiMG/5L77Rpy5+41ZVPVA="),
    ("002", "test-api-key-0001", "1678216434434", "qHtV8NNbnLXMEK1ONTJLTlyz2wBYig5QqWZnraUZvao="),
    ("2", "test-api-key-0001", "1678216434434", "FX2UDcHKHqsWgIDtB/DiC7xOjmCOsBlooBtb1feH67M="),
    ("partner", "apikey", "2023-03-09T21:35:00.279Z", "+S/hVtmFwynoroXQQbjOQ3/l+a5zshNldrQh/iBdxRQ="),
    ("partner", "apiKey", "2023-02-13T15:07:42.214Z", "XxThLHZy2ij1WINkqNEPgzVs9RvUDHWlebDYzprqS74="),
]


@pytest.mark.parametrize(("partner_id", "api_key", "timestamp", "signature"), VECTORS)
def test_the_vendors_vectors_are_met(partner_id: str, api_key: str, timestamp: str, signature: str) -> None:
    """Signatures equal those of the vendor's clients, and verify."""
    credentials = Credentials(partner_id, api_key)
    assert sign(credentials, timestamp) == signature
    assert verify(credentials, timestamp, signature)


@pytest.mark.parametrize(("partner_id", "api_key", "timestamp", "signature"), VECTORS)
def test_every_part_counts(partner_id: str, api_key: str, timestamp: str, signature: str) -> None:
    """Another partner, key, timestamp or signature does not verify."""
    assert not verify(Credentials(partner_id + "0", api_key), timestamp, signature)
    assert not verify(Credentials(partner_id, api_key + "x"), timestamp, signature)
    assert not verify(Credentials(partner_id, api_key), timestamp + "0", signature)
    assert not verify(
        Credentials(partner_id, api_key), timestamp, ("A" if signature[0] != "A" else "B") + signature[1:]
    )
    assert not verify(Credentials(partner_id, api_key), timestamp, signature[:-1])
    assert not verify(Credentials(partner_id, api_key), timestamp, signature + "\n")
    assert not verify(Credentials(partner_id, api_key), timestamp, signature.swapcase())


def test_leading_zeros_of_the_partner_id_count() -> None:
    """Partner "2" and partner "002" make different signatures."""
    assert sign(Credentials("2", "k"), TIMESTAMP) != sign(Credentials("002", "k"), TIMESTAMP)


def test_the_key_is_used_as_it_is_displayed() -> None:
    """A key that looks like base64 is not decoded."""
    key = b64encode(b"0123456789abcdef").decode()
    assert sign(Credentials("1", key), "t") != sign(Credentials("1", b64decode(key).decode()), "t")


def test_epoch_milliseconds_may_be_a_number() -> None:
    """A timestamp that is a whole number is verified by its digits."""
    credentials = Credentials("002", "test-api-key-0001")
    assert verify(credentials, 1678216434434, "qHtV8NNbnLXMEK1ONTJLTlyz2wBYig5QqWZnraUZvao=")
    assert not verify(credentials, 1678216434434.0, sign(credentials, "1678216434434.0"))
    assert not verify(credentials, True, sign(credentials, "True"))


@pytest.mark.parametrize(
    "signature", [None, "", 5, True, [], {}, b"bytes", "é", "ä" * 44, "\ud800", "<your signature>"]
)
def test_what_is_no_signature_is_not_verified(signature: Any) -> None:
    """A signature that is missing, of another type or not ASCII does not verify, and nothing raises."""
    assert verify(CREDENTIALS, TIMESTAMP, signature) is False


@pytest.mark.parametrize("timestamp", [None, True, 1.5, [], {}, "\ud800"])
def test_what_is_no_timestamp_is_not_verified(timestamp: Any) -> None:
    """A timestamp that is missing, of another type or cannot be encoded does not verify, and nothing raises."""
    assert verify(CREDENTIALS, timestamp, sign(CREDENTIALS, str(timestamp).encode(errors="replace").decode())) is False


def test_a_long_text_is_no_timestamp() -> None:
    """A text of more than 100 characters is not hashed, and does not verify."""
    for length, verified in ((100, True), (101, False), (10_000, False)):
        assert verify(CREDENTIALS, "1" * length, sign(CREDENTIALS, "1" * length)) is verified


@pytest.mark.parametrize("partner_id", ["2", "002"])
def test_the_old_unkeyed_hash_never_verifies(partner_id: str) -> None:
    """The hash of partner and timestamp needs no key, so it is no signature, with or without a part before it."""
    timestamp = "1678216434434"
    unkeyed = sha256(f"{int(partner_id)}:{timestamp}".encode()).hexdigest()
    assert unkeyed == "65e9fd86c873af913ba0180ffbc76ddca885b110fcdd5061513424bc0fe932bd"
    for spelling in (unkeyed, unkeyed.upper(), f"c29tZXRoaW5n|{unkeyed}", b64encode(bytes.fromhex(unkeyed)).decode()):
        assert not verify(Credentials(partner_id, "test-api-key-0001"), timestamp, spelling)


@unhurried
@given(json_values, json_values)
def test_no_json_makes_verification_raise(timestamp: Any, signature: Any) -> None:
    """Any values in place of timestamp and signature just do not verify."""
    assert verify(CREDENTIALS, timestamp, signature) is False


_parts = texts.filter(lambda text: text.isprintable() and " " not in text).filter(bool)


@unhurried
@given(_parts, _parts, _parts)
def test_what_was_signed_verifies(partner_id: str, api_key: str, timestamp: str) -> None:
    """Every signature of the library verifies, and has 44 characters of base64."""
    credentials = Credentials(f"0{partner_id}0", f"0{api_key}0")
    signature = sign(credentials, timestamp)
    assert len(b64decode(signature, validate=True)) == 32
    assert verify(credentials, timestamp, signature)


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        (datetime(2026, 8, 22, 9, 19, 40, 1_999, UTC), "2026-08-22T09:19:40.001Z"),
        (datetime(2026, 8, 22, 9, 19, 40, 0, UTC), "2026-08-22T09:19:40.000Z"),
        (datetime(2026, 8, 22, 1, 19, 40, 999_999, timezone(timedelta(hours=2))), "2026-08-21T23:19:40.999Z"),
    ],
)
def test_timestamps_are_utc_with_three_digits_and_z(at: datetime, expected: str) -> None:
    """The instant is written in UTC with exactly three fraction digits and a Z."""
    assert format_timestamp(at) == expected


def test_the_time_zone_of_this_machine_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """A timestamp is in UTC where local time is not."""
    with monkeypatch.context() as local:
        local.setenv("TZ", "Asia/Kathmandu")
        time.tzset()
        written = format_timestamp(datetime(2026, 8, 22, 9, 19, 40, 1000, tzinfo=UTC))
    time.tzset()
    assert written == "2026-08-22T09:19:40.001Z"


@unhurried
@given(st.datetimes(timezones=st.sampled_from([UTC, timezone(timedelta(hours=-11)), timezone(timedelta(hours=14))])))
def test_timestamps_have_one_spelling(at: datetime) -> None:
    """Every instant, in any zone, has the same format."""
    try:
        utc = at.astimezone(UTC)
    except OverflowError:  # at the ends of the calendar there is no such instant in UTC
        return
    written = format_timestamp(at)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", written)
    assert timedelta(0) <= utc - datetime.fromisoformat(written) < timedelta(milliseconds=1)
