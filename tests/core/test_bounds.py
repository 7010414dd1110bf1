"""The cost of an answer is bounded: values are counted before they are decoded, and containers have a maximum size."""

import inspect
import json
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import given

from smilejobs import BadResponseError, CallbackError, CallbackVerifier, Client, Verdict
from smilejobs.images.hosts import Hosts
from smilejobs.model.links import MAX_LINK_CHARACTERS
from smilejobs.wire.codec import MAX_VALUES, UnreadableError, decode_object
from smilejobs.wire.structure import MAX_HISTORY_ENTRIES, MAX_KEYS, MAX_LINKS, decode_callback, decode_status
from tests.helpers.bodies import CREDENTIALS, EVERYTHING, NOW, REF, complete, encode, pending, read, result, signed
from tests.helpers.strategies import json_values, unhurried

TOO_MANY = "it holds more than 25,000 JSON values"


def with_values(count: int) -> bytes:
    """Return an object with this number of values, itself included."""
    return b'{"x":[' + b",".join([b"0"] * (count - 2)) + b"]}"


def keys(count: int, value: object = "x") -> dict[str, object]:
    """Return an object with this number of keys."""
    return {f"key {index}": value for index in range(count)}


def values_of(value: Any) -> int:
    """Return the number of JSON values in a value, itself included."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + sum(map(values_of, inner))


def test_as_many_values_as_the_limit_are_read() -> None:
    """One more is refused."""
    assert values_of(decode_object(with_values(MAX_VALUES))) == MAX_VALUES
    with pytest.raises(UnreadableError, match=f"^{TOO_MANY}$"):
        decode_object(with_values(MAX_VALUES + 2))


@pytest.mark.parametrize("piece", [b",", b"[", b"{", b"[],", b"{},", b"[{,"])
def test_values_are_counted_before_they_are_decoded(piece: bytes) -> None:
    """A body with too many commas and opening brackets is refused for their number, even if it is not JSON."""
    with pytest.raises(UnreadableError, match=f"^{TOO_MANY}$"):
        decode_object(b"\xff" + piece * (MAX_VALUES + 1))


def test_closing_brackets_and_other_bytes_are_not_counted() -> None:
    """Neither a long text nor much white space counts as many values."""
    assert decode_object(b'{"x": "' + b"]}:" * MAX_VALUES + b'"' + b" \n" * MAX_VALUES + b"}")


@unhurried
@given(json_values)
def test_no_body_has_more_values_than_are_counted(value: Any) -> None:
    """The number of commas and opening brackets is at least the number of values minus one, also with escapes."""
    body = encode({"x": value})
    assert values_of(json.loads(body)) - 1 <= body.count(b",") + body.count(b"[") + body.count(b"{")


def test_an_answer_with_too_many_values_is_unreadable() -> None:
    """The error says so, and is transient like every answer that cannot be read."""
    with pytest.raises(BadResponseError, match=TOO_MANY) as caught:
        read(signed(pending(history=[0] * 50_000)))
    assert caught.value.transient


def test_a_history_has_a_largest_size() -> None:
    """A longer one makes the answer unreadable: an empty history would hide other results of the user."""
    assert len(read(signed(complete(history=[{}] * MAX_HISTORY_ENTRIES))).history) == MAX_HISTORY_ENTRIES
    with pytest.raises(BadResponseError, match=r"wrong shape at history \(more than 1,000 entries\)"):
        read(signed(complete(history=[{}] * (MAX_HISTORY_ENTRIES + 1))))


def test_links_have_a_largest_number() -> None:
    """More links make the answer unreadable, at the top level and inside the result."""
    assert len(read(signed(complete(image_links=keys(MAX_LINKS)))).image_links or ()) == MAX_LINKS
    for body in (complete(image_links=keys(MAX_LINKS + 1)), complete(result=result(ImageLinks=keys(MAX_LINKS + 1)))):
        with pytest.raises(BadResponseError, match=r"wrong shape at image_links \(more than 100 links\)"):
            read(signed(body))


@pytest.mark.parametrize(("more", "expected"), [(0, MAX_KEYS), (1, 0)])
def test_too_many_actions_are_left_in_raw(more: int, expected: int) -> None:
    """Actions are only for display; the verdict is still read."""
    status = read(signed(complete(result=result(Actions=keys(MAX_KEYS + more)))))
    assert status.verdict is Verdict.APPROVED
    assert status.result is not None
    assert len(status.result.actions) == expected
    assert status.result.raw["Actions"] == keys(MAX_KEYS + more)


@pytest.mark.parametrize(("more", "expected"), [(0, MAX_KEYS - 2), (1, 0)])
def test_too_many_parameters_are_left_in_raw(more: int, expected: int) -> None:
    """The ids among them and the verdict are still read."""
    given_ = {"user_id": REF.user_id, "job_id": REF.job_id, **keys(MAX_KEYS - 2 + more)}
    status = read(signed(complete(result=result(PartnerParams=given_))))
    assert status.verdict is Verdict.APPROVED
    assert status.result is not None
    assert status.result.partner_params is not None
    assert len(status.result.partner_params.extra) == expected
    assert status.result.raw["PartnerParams"] == given_


@pytest.mark.parametrize("digits", ["9" * 1_000_000, "9" * 200 + ".5", "nan"])
def test_a_text_that_is_a_long_number_is_no_confidence(digits: str) -> None:
    """It is not converted."""
    status = read(signed(complete(result=result(ConfidenceValue=digits))))
    assert status.result is not None
    assert status.result.confidence_value is None


@unhurried
@given(json_values)
def test_any_container_is_read_or_refused(value: Any) -> None:
    """Any JSON in place of a container leads to a status or to an unreadable answer."""
    body = signed(complete(history=value, image_links=value, result=result(Actions=value)))
    if isinstance(value, list) and not all(isinstance(entry, dict) for entry in value):
        with pytest.raises(UnreadableError, match=r"^wrong shape at history\["):
            decode_status(body, REF, None, EVERYTHING)
        return
    status = decode_status(body, REF, None, EVERYTHING)
    assert (status.image_links is not None) is isinstance(value, dict)
    assert len(status.history) == (len(value) if isinstance(value, list) else 0)


def test_callbacks_have_the_same_bounds() -> None:
    """Too many values, too many links and numbers that JSON does not have make a callback malformed."""
    verifier = CallbackVerifier(CREDENTIALS, now=lambda: NOW)
    flat = {**result(), "timestamp": NOW.isoformat()}
    bodies = [
        encode(signed({**flat, "x": [0] * MAX_VALUES})),
        encode(signed({**flat, "ImageLinks": keys(MAX_LINKS + 1)})),
        encode(signed({**flat, "IsFinalResult": float("nan")})),
        encode(signed({**flat, "PartnerParams": {"user_id": "", "job_id": "x"}})),
    ]
    for body in bodies:
        with pytest.raises(CallbackError) as caught:
            verifier.verify(body)
        assert caught.value.reason == "malformed"
    assert verifier.verify(encode(signed(flat))).ref == REF


@pytest.mark.parametrize("user_id", ["", " ", "\ud800"])
def test_a_callback_that_names_no_job_does_not_keep_its_ids(user_id: str) -> None:
    """The error about an invalid id has neither a cause nor a context."""
    with pytest.raises(UnreadableError, match="its PartnerParams name no job") as caught:
        decode_callback(result(PartnerParams={"user_id": user_id, "job_id": "x"}))
    assert (caught.value.__cause__, caught.value.__context__) == (None, None)


def test_a_long_link_is_refused_before_it_is_read() -> None:
    """It does not stay in the cache of `urlsplit`, which lives as long as the process."""
    cached: Any = urlsplit
    cached.cache_clear()
    problem = Hosts(["pictures.example"], loopback=False).problem("https://" + "x" * MAX_LINK_CHARACTERS)
    assert problem == "the link has more than 8192 characters"
    assert cached.cache_info().currsize == 0


def test_the_size_of_an_answer_is_bounded_by_default() -> None:
    """8 MiB hold a history of several results with their base64 pictures, up to 1.5 MB each."""
    assert inspect.signature(Client).parameters["max_response_bytes"].default == 8 * 1024 * 1024
