"""Which callbacks are accepted, what they prove, and why others are refused."""

import copy
import json
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone
from threading import Barrier, BrokenBarrierError
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from smilejobs import Callback, CallbackError, CallbackVerifier, Credentials, ImageLink, JobRef
from smilejobs import callbacks as callbacks_module
from smilejobs.model.jobs import Include
from smilejobs.wire.protocol import encode_request
from smilejobs.wire.signature import format_timestamp, sign
from tests.helpers.bodies import (
    ABSENT,
    CREDENTIALS,
    NOW,
    PERSONAL,
    REF,
    SAMPLES,
    TIMESTAMP,
    JSONObject,
    complete,
    encode,
    other_jobs,
    params,
    result,
    signed,
    sigv4_url,
)
from tests.helpers.leaks import assert_keeps_secrets
from tests.helpers.strategies import answers, json_values, unhurried


def flat(**more: object) -> JSONObject:
    """Return a callback in its real shape, not signed yet."""
    links = {"selfie_image": sigv4_url(), "id_card_back": "x"}
    return result(**{"code": "0812", "timestamp": TIMESTAMP, "ImageLinks": links, **more})


def as_in_2019(**more: object) -> JSONObject:
    """Return a callback in the shape of an answer, as in the vendor's old examples; not signed yet."""
    return complete(**{"history": other_jobs(), "image_links": {"selfie_image": "image_link"}, "success": True, **more})


CALLBACKS: Mapping[str, JSONObject] = {
    "flat": signed(flat()),
    "flat, provisional": signed(flat(code="0814", IsFinalResult="false", ImageLinks=ABSENT)),
    "flat, personal": signed(flat(**{vendor: f"the {ours}" for ours, vendor in PERSONAL.items()})),
    "flat, next to nothing": signed({"timestamp": "1772600767890", "PartnerParams": params(job_type="6")}),
    "as in 2019": signed(as_in_2019()),
}

SECRETS = (REF.user_id, REF.job_id, "the full_name", "bucket.example", "Enroll", CREDENTIALS.api_key, "4711")


class Clock:
    """A wall clock that the test moves."""

    def __init__(self) -> None:
        self.at = NOW

    def __call__(self) -> datetime:
        return self.at


def verifier(now: Callable[[], datetime] = lambda: NOW, **options: Any) -> CallbackVerifier:
    return CallbackVerifier(CREDENTIALS, now=now, **options)


def verify(body: object, **options: Any) -> Callback:
    """Return what a new verifier reads from *body*."""
    return verifier(**options).verify(encode(body))


def refusal(body: object, **options: Any) -> CallbackError:
    """Return the error with which a new verifier refuses *body*."""
    with pytest.raises(CallbackError) as caught:
        verify(body, **options)
    return caught.value


# What is read


@pytest.mark.parametrize("name", CALLBACKS)
def test_a_signed_and_fresh_callback_names_its_job(name: str) -> None:
    """The job comes from PartnerParams, the timestamp from the body, and it is no duplicate."""
    callback = verify(CALLBACKS[name])
    assert (callback.ref, callback.timestamp, callback.duplicate) == (REF, NOW, False)


def test_a_flat_callback_is_a_result() -> None:
    """Code, number, actions and personal fields are read as those of an answer's result; the body is its `raw`."""
    body = CALLBACKS["flat, personal"]
    outcome = verify(body).result
    assert (outcome.result_code, outcome.smile_job_id, outcome.confidence_value) == ("0812", "0000004711", 99.0)
    assert outcome.actions == {"Liveness_Check": "Passed", "Register_Selfie": "Approved"}
    assert {name: getattr(outcome, name) for name in PERSONAL} == {name: f"the {name}" for name in PERSONAL}
    assert outcome.raw == body


def test_a_callback_in_the_shape_of_an_answer_is_read_too() -> None:
    """The result is the inner one, links and timestamp are those at the top level, and the history is ignored."""
    callback = verify(signed(as_in_2019(history=5)))
    assert (callback.ref, callback.timestamp, callback.result.result_code) == (REF, NOW, "0810")
    assert callback.result.raw == as_in_2019()["result"]
    assert dict(callback.image_links or {}) == {"selfie_image": ImageLink(url="image_link")}


def test_partner_params_at_the_top_make_it_flat() -> None:
    """A key "result" in a flat body changes nothing."""
    other = {"PartnerParams": {"user_id": "user-cobalt-3", "job_id": "job-dune-8"}}
    assert verify(signed(flat(result=other))).ref == REF


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({}, {"selfie_image": ImageLink(url=sigv4_url()), "id_card_back": ImageLink(url="x")}),
        ({"image_links": {"selfie_image": "y"}}, {"selfie_image": ImageLink(url="y")}),
        ({"ImageLinks": {}}, {}),
        *(({"ImageLinks": value}, None) for value in (ABSENT, None, "none", [], 5)),
    ],
)
def test_links_are_read_where_they_are(more: JSONObject, expected: object) -> None:
    """`ImageLinks`, or `image_links` as in an answer; another type means no links and no error."""
    links = verify(signed(flat(**more))).image_links
    assert (None if links is None else dict(links)) == expected


def test_links_know_when_they_die() -> None:
    """Links are made with the callback and expire as their query says."""
    links = verify(CALLBACKS["flat"]).image_links
    assert links is not None
    assert links["selfie_image"].expires_at == datetime(2026, 3, 4, 5, 21, 7, tzinfo=UTC)


@pytest.mark.parametrize(
    ("body", "ref"),
    [
        (flat(PartnerParams=ABSENT, partner_params=params()), REF),
        (flat(partner_params=params(job_id="job-dune-8")), REF),
        (flat(PartnerParams=ABSENT, partner_params=params(), result=result()), REF),
        (as_in_2019(result=result(PartnerParams=ABSENT, partner_params=params())), REF),
    ],
)
def test_partner_params_may_be_written_in_small_letters(body: JSONObject, ref: JobRef) -> None:
    """Users report it; the vendor's name has precedence, and `raw` is unchanged."""
    callback = verify(signed(body))
    assert callback.ref == ref
    assert callback.result.raw == (body["result"] if "history" in body else signed(body))


def test_ids_may_be_numbers() -> None:
    """They are read as their digits."""
    assert verify(signed(flat(PartnerParams=params(user_id=12, job_id=34)))).ref == JobRef("12", "34")


def test_a_byte_order_mark_and_white_space_do_not_matter() -> None:
    """They are allowed, as in other JSON."""
    assert verify(b"\xef\xbb\xbf" + encode(CALLBACKS["flat"])).ref == REF
    assert verify(b" \r\n" + encode(CALLBACKS["flat"]) + b"\n").ref == REF


# Malformed, oversized

DEEP = b"[" * 20_000


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "it is empty"),
        (b"\0", "it is not JSON"),
        (b"user_id=1&job_id=2", "it is not JSON"),
        (b"<html></html>", "it is HTML"),
        (encode(CALLBACKS["flat"])[:-1], "it is not JSON"),
        (b"\xff" + encode(CALLBACKS["flat"]), "it is not UTF-8"),
        (b"[]", "it is JSON, but not an object"),
        (b"NaN", "it holds NaN or Infinity, which are not JSON"),
        (DEEP, "it is nested more than 200 levels deep"),
        (b'{"deep": ' + DEEP, "it is nested more than 200 levels deep"),
        (b'{"number": ' + b"9" * 5000 + b"}", "it holds a number of more than 100 characters"),
    ],
    ids=lambda value: value if isinstance(value, str) else repr(value[:20]).replace("\\", "/"),
)
def test_what_is_no_json_object_is_malformed(body: bytes, why: str) -> None:
    """The text says what the body is without quoting it; the signature is not checked."""
    error = refusal(body)
    assert error.reason == "malformed"
    assert str(error) == f"the callback cannot be read: {why}"


@pytest.mark.parametrize(
    ("body", "why"),
    [
        *((flat(PartnerParams=value), "user_id must not be empty") for value in (ABSENT, None, params(user_id=""))),
        (flat(PartnerParams={}), "user_id must not be empty"),
        (flat(PartnerParams=params(user_id=ABSENT)), "user_id must not be empty"),
        (flat(PartnerParams=params(job_id=ABSENT)), "job_id must not be empty"),
        (flat(PartnerParams=params(job_id=" \t")), "job_id must not be empty"),
        (flat(PartnerParams=params(job_id="\ud800")), "job_id holds half a surrogate pair, which UTF-8 cannot encode"),
        (flat(PartnerParams=ABSENT, result="No zip uploaded yet"), "user_id must not be empty"),
        (flat(PartnerParams=ABSENT, user_id=REF.user_id, job_id=REF.job_id), "user_id must not be empty"),
        (as_in_2019(result={}), "user_id must not be empty"),
        (as_in_2019(result=result(PartnerParams=ABSENT)), "user_id must not be empty"),
    ],
)
def test_without_the_ids_of_a_job_it_is_malformed(body: JSONObject, why: str) -> None:
    """No wait could be notified: PartnerParams must hold two valid ids."""
    error = refusal(signed(body))
    assert error.reason == "malformed"
    assert str(error) == f"the callback cannot be read: its PartnerParams name no job: {why}"


@pytest.mark.parametrize(
    ("body", "paths"),
    [
        (flat(PartnerParams=["x"]), "PartnerParams"),
        (flat(PartnerParams=params(user_id=[])), "PartnerParams.user_id"),
        (flat(PartnerParams=params(job_id=True)), "PartnerParams.job_id"),
        (flat(code={}, SmileJobID=[]), "ResultCode, SmileJobID"),
        (as_in_2019(result=result([])), "result.ResultCode"),
        (as_in_2019(result=result(PartnerParams=params(user_id={}))), "result.PartnerParams.user_id"),
    ],
)
def test_a_wrong_shape_is_malformed_and_named_by_its_paths(body: JSONObject, paths: str) -> None:
    """Fields that decide something must have the right type; the paths are those of the body."""
    error = refusal(signed(body))
    assert (error.reason, str(error)) == ("malformed", f"the callback cannot be read: wrong shape at {paths}")


def test_a_body_has_its_most_bytes() -> None:
    """At the limit it is read; one byte more is not even parsed."""
    body = encode(CALLBACKS["flat"])
    assert verify(body, max_bytes=len(body)).ref == REF
    error = refusal(body + b" ", max_bytes=len(body))
    assert (error.reason, str(error)) == ("oversized", f"the callback is larger than {len(body)} bytes")
    assert refusal(b"\0" * 11, max_bytes=10).reason == "oversized"


def test_the_vendors_largest_fits_by_default() -> None:
    """The 1.5 MB of the vendor's FAQ are accepted; a handler can read the limit."""
    assert verify(signed(flat(Photo="A" * 1_500_000))).result.photo == "A" * 1_500_000
    assert verifier().max_bytes == 1_600_000
    assert refusal(b" " * 1_600_001).reason == "oversized"
    assert verifier(max_bytes=10).max_bytes == 10


@pytest.mark.parametrize("body", ["{}", None, {}, bytearray(b"{}"), memoryview(b"{}")])
def test_a_body_is_bytes(body: Any) -> None:
    """A parsed body, or a coroutine that would read it, is a TypeError."""
    kind = type(body).__name__
    with pytest.raises(TypeError, match=f"^body must be the body of the request as bytes, not {kind}$"):
        verifier().verify(body)


# Unsigned

NO_SIGNATURES: list[object] = [None, "", 5, True, [], {}, "é", "\ud800", "5f" * 32]


@pytest.mark.parametrize(
    "body",
    [
        {},
        flat(),
        *({**flat(), "signature": value} for value in NO_SIGNATURES),
        {**signed(flat()), "timestamp": "2026-03-04T05:06:07.891Z"},
        {**signed(flat()), "timestamp": None},
        signed(flat(), Credentials("85", CREDENTIALS.api_key)),
        signed(flat(), Credentials("085", "another-key")),
        flat(timestamp=ABSENT, signature=sign(CREDENTIALS, "")),
        flat(timestamp="\ud800", signature=sign(CREDENTIALS, "")),
        flat(timestamp=[TIMESTAMP], signature=sign(CREDENTIALS, TIMESTAMP)),
        as_in_2019(result=result(signature=sign(CREDENTIALS, TIMESTAMP), timestamp=TIMESTAMP)),
        SAMPLES["no zip"],
    ],
)
def test_without_a_signature_of_this_partner_it_is_unsigned(body: JSONObject) -> None:
    """Missing, of another type, for another partner, key or timestamp, without a key, or in the wrong place."""
    error = refusal(body)
    assert error.reason == "unsigned"
    assert error.ref is None
    assert str(error) == (
        "the callback's signature does not verify: it does not come from Smile ID, or it comes from another "
        "environment than the API key"
    )


def test_the_signature_is_looked_at_before_the_shape() -> None:
    """A sender without a valid signature learns nothing about the shape."""
    assert refusal(flat(PartnerParams=5)).reason == "unsigned"


def test_of_a_key_that_comes_twice_the_last_counts() -> None:
    """The verification and the structuring read the same value, so they cannot see different bodies."""
    stray = b'"timestamp": "2020-01-01T00:00:00.000Z"'
    other = b'"PartnerParams": {"user_id": "a", "job_id": "b"}'
    whole = encode(CALLBACKS["flat"])[1:-1]
    assert verify(b"{%s, %s}" % (stray, whole)).timestamp == NOW
    assert refusal(b"{%s, %s}" % (whole, stray)).reason == "unsigned"
    assert verify(b"{%s, %s}" % (whole, other)).ref == JobRef("a", "b")


def test_numbers_that_are_not_json_are_malformed() -> None:
    """NaN and Infinity, which Python reads, must not count as null."""
    body = encode(CALLBACKS["flat"]).replace(b'"99"', b"NaN")
    assert b"NaN" in body
    assert refusal(body).reason == "malformed"


def test_what_verification_does_not_prove() -> None:
    """A sender that has seen a request or an answer can sign any body with its pair."""
    request = json.loads(encode_request(REF, CREDENTIALS, NOW, Include()))
    forged = flat(timestamp=request["timestamp"], signature=request["signature"], code="0810")
    assert verify(forged).result.result_code == "0810"


# The age


def aged(age: timedelta, **options: Any) -> Callback:
    """Return a callback that is *age* old when it is verified."""
    return verify(signed(flat()), now=lambda: NOW + age, **options)


TICK = timedelta(milliseconds=1)


@pytest.mark.parametrize(
    ("max_age", "limit"),
    [(None, None), (60, 60), (0.5, 0.5), (timedelta(days=30), 30 * 86400), (timedelta.max, None), (1e300, None)],
)
def test_an_old_callback_is_stale(max_age: Any, limit: float | None) -> None:
    """Up to max_age it is accepted, above it is not; with None, or a very long max_age, any age is accepted."""
    if limit is None:
        assert aged(timedelta(days=365 * 2000), max_age=max_age).ref == REF
        return
    edge = timedelta(seconds=limit)
    assert aged(edge - TICK, max_age=max_age).ref == REF
    with pytest.raises(CallbackError) as caught:
        aged(edge + TICK, max_age=max_age)
    assert caught.value.reason == "stale"


def test_a_callback_is_stale_after_three_days() -> None:
    """By default, so that a callback is accepted after an outage of a weekend; the error tells the age."""
    assert aged(timedelta(days=3)).ref == REF
    with pytest.raises(CallbackError) as caught:
        aged(timedelta(days=3, seconds=60))
    assert (caught.value.reason, caught.value.ref) == ("stale", REF)
    assert str(caught.value) == f"the callback is 259260 s old, and max_age is 259200 s [job {REF.tag}]"


def test_the_vendors_clock_may_be_a_minute_ahead() -> None:
    """Up to a minute in the future is accepted, more is not; the error says to check this machine's clock."""
    assert aged(-timedelta(minutes=1)).ref == REF
    assert aged(-timedelta(days=365), max_age=None).ref == REF
    with pytest.raises(CallbackError) as caught:
        aged(-timedelta(hours=1), max_age=timedelta.max)
    assert (caught.value.reason, caught.value.ref) == ("future", REF)
    assert str(caught.value) == (
        f"the callback's timestamp is 3600 s in the future: check this machine's clock [job {REF.tag}]"
    )
    with pytest.raises(CallbackError):
        aged(-timedelta(minutes=1) - TICK)


@pytest.mark.parametrize(
    "timestamp",
    [
        "2026-03-04T05:06:07.890Z",
        "2026-03-04T05:06:07.890123+00:00",
        "2026-03-04T05:06:07+00:00",
        "2026-03-04 07:06:07 +0200",
        "2026-03-04T05:06:07.614879",
        "1772600767890",
        1772600767890,
        "1772600767",
        1772600767,
    ],
)
def test_every_spelling_of_an_instant_has_an_age(timestamp: object) -> None:
    """The signature covers the text of the timestamp, and the age is that of its instant."""
    body = signed(flat(timestamp=timestamp))
    callback = verify(body)
    assert callback.timestamp is not None
    assert abs(callback.timestamp - NOW) < timedelta(seconds=1)
    assert refusal(body, now=lambda: NOW + timedelta(days=4)).reason == "stale"


@pytest.mark.parametrize("timestamp", ["2026-03-04", "yesterday", "", "9" * 40, 10**40])
def test_a_timestamp_that_names_no_instant_has_no_age(timestamp: object) -> None:
    """It is refused although its signature is valid, unless max_age is None."""
    body = signed(flat(timestamp=timestamp))
    error = refusal(body)
    assert (error.reason, error.ref) == ("undated", REF)
    assert str(error) == f"the callback's timestamp cannot be read, so its age is unknown [job {REF.tag}]"
    callback = verify(body, max_age=None)
    assert (callback.ref, callback.timestamp) == (REF, None)


def test_the_zone_of_the_clock_does_not_matter() -> None:
    """An aware clock may have any zone."""
    assert verify(CALLBACKS["flat"], now=lambda: NOW.astimezone(timezone(timedelta(hours=-11)))).ref == REF


def test_without_a_clock_the_systems_clock_counts() -> None:
    """A new callback is accepted, a callback of a year ago is not."""
    now = datetime.now(UTC)
    plain = CallbackVerifier(CREDENTIALS)
    assert plain.verify(encode(signed(flat(timestamp=format_timestamp(now))))).ref == REF
    with pytest.raises(CallbackError) as caught:
        plain.verify(encode(signed(flat(timestamp=format_timestamp(now - timedelta(days=365))))))
    assert caught.value.reason == "stale"


# Duplicates


def test_a_pair_that_comes_again_is_a_duplicate() -> None:
    """It is accepted any number of times; another verifier does not know it."""
    one = verifier()
    body = encode(CALLBACKS["flat"])
    assert [one.verify(body).duplicate for _ in range(3)] == [False, True, True]
    assert verifier().verify(body).duplicate is False


def test_the_pair_counts_and_not_the_body() -> None:
    """The body is not signed: another body with a known pair is a duplicate too, and is read."""
    one = verifier()
    one.verify(encode(signed(flat())))
    other = one.verify(encode(signed(flat(PartnerParams=params(job_id="job-dune-8")))))
    assert (other.ref.job_id, other.duplicate) == ("job-dune-8", True)
    later = one.verify(encode(signed(flat(timestamp="2026-03-04T05:06:07.891Z"))))
    assert later.duplicate is False


def test_what_was_refused_was_not_seen() -> None:
    """Only accepted callbacks are remembered."""
    clock = Clock()
    one = verifier(clock)
    for body in (flat(), signed(flat(PartnerParams={}))):
        with pytest.raises(CallbackError):
            one.verify(encode(body))
    clock.at += timedelta(days=4)
    with pytest.raises(CallbackError):
        one.verify(encode(signed(flat())))
    clock.at = NOW
    assert one.verify(encode(signed(flat()))).duplicate is False


def dated(at: datetime) -> bytes:
    return encode(signed(flat(timestamp=format_timestamp(at))))


def test_pairs_that_are_too_old_are_forgotten() -> None:
    """Memory holds little more than the pairs that are still accepted, in any order of arrival."""
    clock = Clock()
    one = verifier(clock, max_age=60)
    for _ in range(50):
        clock.at += timedelta(seconds=30)
        for age in (0, 59, -59, 31):
            assert one.verify(dated(clock.at - timedelta(seconds=age, milliseconds=age))).duplicate is False
        assert len(one._pairs) <= 4 * 5  # noqa: SLF001  # there is no other way to see memory
    clock.at += timedelta(hours=1)
    one.verify(dated(clock.at))
    assert len(one._pairs) == 1  # noqa: SLF001  # there is no other way to see memory


def test_there_are_so_many_pairs_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pair that was used longest ago is dropped first; a duplicate counts as use."""
    monkeypatch.setattr(callbacks_module, "_MAX_PAIRS", 3)
    one = verifier(max_age=None)
    bodies = [dated(NOW + index * TICK) for index in range(5)]
    assert [one.verify(bodies[index]).duplicate for index in (0, 1, 2, 0, 3, 0, 2, 1)] == [
        *(False, False, False, True),
        *(False, True, True, False),
    ]
    assert len(one._pairs) == 3  # noqa: SLF001  # there is no other way to see memory


class Meeting(OrderedDict[bytes, float]):
    """A mapping that holds up the first thread that looks up a pair until a second one does, if it can."""

    def __init__(self) -> None:
        super().__init__()
        self.barrier = Barrier(2)

    def __contains__(self, key: object) -> bool:
        found = super().__contains__(key)
        with suppress(BrokenBarrierError):
            self.barrier.wait(0.02)
        return found


def test_a_verifier_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes the same options; a missing variable is named."""
    monkeypatch.setenv("SMILE_PARTNER_ID", CREDENTIALS.partner_id)
    monkeypatch.setenv("SMILE_API_KEY", CREDENTIALS.api_key)
    one = CallbackVerifier.from_env(now=lambda: NOW, max_bytes=100_000)
    assert one.verify(encode(CALLBACKS["flat"])).duplicate is False
    assert one.max_bytes == 100_000
    monkeypatch.delenv("SMILE_API_KEY")
    with pytest.raises(ValueError, match="SMILE_API_KEY"):
        CallbackVerifier.from_env()


def test_one_verifier_serves_many_threads() -> None:
    """Of two simultaneous callbacks with the same pair, exactly one is a duplicate."""
    one = verifier()
    one._pairs = Meeting()  # noqa: SLF001  # threads meet inside by chance only
    with ThreadPoolExecutor(2) as threads:
        seen = list(threads.map(one.verify, [encode(CALLBACKS["flat"])] * 2))
    assert sorted(callback.duplicate for callback in seen) == [False, True]


# Arguments


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"max_age": 0}, ValueError, "max_age must be more than 0"),
        ({"max_age": -1}, ValueError, "max_age must be more than 0"),
        ({"max_age": float("nan")}, ValueError, "max_age must be a finite number"),
        ({"max_age": "15"}, TypeError, "max_age must be seconds"),
        ({"max_age": True}, TypeError, "max_age must be seconds"),
        ({"max_bytes": 0}, ValueError, "max_bytes must be a finite number above 0"),
        ({"max_bytes": "5"}, TypeError, "max_bytes must be a number"),
        ({"max_bytes": None}, TypeError, "max_bytes must be a number"),
        ({"now": NOW}, TypeError, "now must be a function"),
    ],
)
def test_arguments_that_can_never_be_right_are_refused_at_once(
    options: dict[str, Any], error: type[Exception], text: str
) -> None:
    """The text names the argument."""
    with pytest.raises(error, match=f"^{text}"):
        CallbackVerifier(CREDENTIALS, **options)


@pytest.mark.parametrize("credentials", [None, "085", ("085", "key-marker")])
def test_credentials_are_credentials(credentials: Any) -> None:
    """Any other type is refused, and its value is not repeated."""
    with pytest.raises(TypeError) as caught:
        CallbackVerifier(credentials)
    kind = type(credentials).__name__
    assert str(caught.value) == f"credentials must be Credentials(partner_id, api_key), not {kind}"


def test_a_naive_clock_is_refused_when_it_is_read() -> None:
    """It raises ValueError, as in the client."""
    with pytest.raises(ValueError, match="^now must return a timezone-aware datetime"):
        verify(CALLBACKS["flat"], now=lambda: NOW.replace(tzinfo=None))


def test_a_verifier_keeps_its_key_to_itself() -> None:
    """Its repr holds neither the key nor the partner id."""
    assert CREDENTIALS.api_key not in repr(verifier())
    assert "partner-085" not in repr(CallbackVerifier(Credentials("partner-085", "k")))


# What a crash reporter can copy

UNREADABLE = encode(CALLBACKS["flat"])[:-1]


@pytest.mark.parametrize(
    ("body", "options"),
    [
        (encode(CALLBACKS["flat"]), {"max_bytes": 10}),
        (UNREADABLE, {}),
        (encode(CALLBACKS["flat"]) + b"\xff", {}),
        (encode(signed(flat(), Credentials("085", "another-key"))), {}),
        (encode(signed(flat(PartnerParams=params(user_id=[REF.user_id])))), {}),
        (encode(signed(flat(PartnerParams={**params(), "user_id": ""}))), {}),
        (encode(signed(flat(timestamp="soon"))), {}),
        (encode(CALLBACKS["flat, personal"]), {"now": lambda: NOW + timedelta(days=4)}),
        (encode(CALLBACKS["flat, personal"]), {"now": lambda: NOW - timedelta(days=4)}),
        (encode(CALLBACKS["flat, personal"]), {"now": lambda: NOW.replace(tzinfo=None)}),
        (json.dumps(CALLBACKS["flat"]), {}),
    ],
)
def test_an_error_keeps_key_signature_and_body_out_of_reach(body: Any, options: Any) -> None:
    """Neither the variables of its frames nor the errors in its chain hold them."""
    one = verifier(**options)
    with pytest.raises((CallbackError, TypeError, ValueError)) as caught:
        one.verify(body)
    assert caught.value.__context__ is None
    shown = "4711"  # the vendor's number of the job is part of a repr
    secrets = {*SECRETS, sign(CREDENTIALS, TIMESTAMP), "selfie_image", "ResultCode"} - {shown}
    assert_keeps_secrets(caught.value, *secrets)


def test_credentials_of_the_wrong_type_are_out_of_reach() -> None:
    """For example a pair of strings."""
    wrong: Any = ("085", "key-marker")
    with pytest.raises(TypeError) as caught:
        CallbackVerifier(wrong)
    assert_keeps_secrets(caught.value, "key-marker")


# Any input


def check(body: bytes, **options: Any) -> None:
    """Check that *body* is read or refused, and that an error shows nothing of it."""
    try:
        callback = verify(body, **options)
    except CallbackError as error:
        shown = f"{error} {error!r} {error.args}"
    else:
        shown = repr(callback).replace(f"smile_job_id={callback.result.smile_job_id}", "")
    for secret in SECRETS:
        assert secret not in shown


@unhurried
@given(st.binary() | st.text().map(str.encode) | json_values.map(encode), st.sampled_from([None, 900]))
def test_any_bytes_are_a_callback_or_refused(body: bytes, max_age: Any) -> None:
    """Arbitrary bytes, arbitrary JSON."""
    check(body, max_age=max_age)


@unhurried
@given(answers(CALLBACKS) | answers(), st.sampled_from([None, 900]))
def test_any_json_anywhere_in_a_signed_callback_is_a_callback_or_refused(body: bytes, max_age: Any) -> None:
    """Valid callbacks and answers in which any value is replaced, signed again or not."""
    check(body, max_age=max_age)


@unhurried
@given(json_values, st.sampled_from(["user_id", "job_id"]))
def test_any_json_in_the_place_of_an_id_is_an_id_or_refused(value: Any, key: str) -> None:
    """Signed and fresh, only the id is unusual."""
    check(encode(signed(flat(PartnerParams=params(**{key: value})))))


@unhurried
@given(json_values)
def test_any_signed_timestamp_is_an_instant_or_refused(value: Any) -> None:
    """Any value, signed as its text."""
    try:
        body = signed(flat(timestamp=value))
    except UnicodeEncodeError:  # a timestamp that cannot be encoded
        return
    check(encode(body))


def places(body: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Return the path of each value in *body*."""
    for key, value in body.items() if isinstance(body, dict) else enumerate(body) if isinstance(body, list) else ():
        yield (*path, key)
        yield from places(value, (*path, key))


@pytest.mark.parametrize("name", CALLBACKS)
@pytest.mark.parametrize("value", ["marker", ["marker"], {"marker": "marker"}], ids=["text", "list", "object"])
def test_no_value_of_the_body_is_in_an_error_or_a_repr(name: str, value: object) -> None:
    """Any value: a text, or a value of the wrong type."""
    refused = 0
    for path in places(CALLBACKS[name]):
        body: Any = copy.deepcopy(CALLBACKS[name])
        place = body
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value
        try:
            shown = repr(verify(body))
        except CallbackError as error:
            shown = f"{error} {error!r} {error.args}"
            refused += 1
        assert "marker" not in shown
    assert refused
