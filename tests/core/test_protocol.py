"""The request of one poll, and the meaning of its answer."""

import json
import re
import traceback
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from hashlib import sha256
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from smilejobs import (
    STATUS_CODES,
    ApiError,
    BadRequestError,
    BadResponseError,
    CodeClass,
    Credentials,
    CredentialsError,
    GatewayError,
    JobNotFoundError,
    JobRef,
    JobStatus,
    NotApprovedError,
    RateLimitedError,
    ServerError,
    SignatureError,
    SmileJobsError,
    UserDisabledError,
    UserNotFoundError,
    Verdict,
    WrongJobError,
    __version__,
)
from smilejobs.model.jobs import Include
from smilejobs.polling.rules import Done, GiveUp, PollState, Terms, step
from smilejobs.wire.protocol import (
    HEADERS,
    PATH,
    accepts_credentials,
    comes_from_the_api,
    encode_request,
    read_answer,
)
from smilejobs.wire.signature import sign, verify
from tests.helpers.bodies import (
    ABSENT,
    CREDENTIALS,
    EVERYTHING,
    NOW,
    PERSONAL,
    REF,
    SAMPLES,
    TIMESTAMP,
    complete,
    encode,
    other_jobs,
    params,
    pending,
    read,
    refusal,
    result,
    signed,
    sigv4_url,
)
from tests.helpers.strategies import answers, json_values, retry_after_values, unhurried

# What is sent


@pytest.mark.parametrize("history", [True, False])
@pytest.mark.parametrize("image_links", [True, False])
def test_a_request_holds_this_and_nothing_else(image_links: bool, history: bool) -> None:
    """The documented keys, both flags as JSON booleans and always present, and the name of this library."""
    body = json.loads(encode_request(REF, CREDENTIALS, NOW, Include(image_links=image_links, history=history)))
    assert body == {
        "partner_id": "085",
        "timestamp": TIMESTAMP,
        "signature": sign(CREDENTIALS, TIMESTAMP),
        "user_id": REF.user_id,
        "job_id": REF.job_id,
        "image_links": image_links,
        "history": history,
        "source_sdk": "smilejobs",
        "source_sdk_version": __version__,
    }
    assert (type(body["image_links"]), type(body["history"])) == (bool, bool)


def test_a_request_is_signed_for_its_own_instant_in_utc() -> None:
    """Each instant has its own signature, made over exactly the timestamp that is sent."""
    at = datetime(2026, 3, 4, 8, 6, 7, 891_999, timezone(timedelta(hours=3)))
    body = json.loads(encode_request(REF, CREDENTIALS, at, Include()))
    assert body["timestamp"] == "2026-03-04T05:06:07.891Z"
    assert body["signature"] == sign(CREDENTIALS, body["timestamp"]) != sign(CREDENTIALS, TIMESTAMP)


def test_a_request_meets_the_vendors_vector() -> None:
    """The signature equals that of the vendor's client."""
    credentials = Credentials("085", "kB7-Öß/secret+key==")
    at = datetime.fromisoformat("2026-08-22T09:19:40.001Z")
    body = json.loads(encode_request(REF, credentials, at, Include()))
    assert body["signature"] == "v2N+J3JTl1BwsVtnyCyEE683FyDbzVsN9HKW5CUwm3s="


def test_any_id_can_be_sent() -> None:
    """Ids arrive unchanged, whatever characters they hold."""
    ref = JobRef('Zoë "\\\U0001f642', "ÿ\n\0")
    body = json.loads(encode_request(ref, CREDENTIALS, NOW, Include()).decode("ascii"))
    assert (body["user_id"], body["job_id"]) == (ref.user_id, ref.job_id)


def test_where_and_how_it_is_sent() -> None:
    """As JSON, with the fixed headers."""
    assert PATH == "/job_status"
    assert HEADERS["Content-Type"] == HEADERS["Accept"] == "application/json"
    assert HEADERS["User-Agent"] == f"smilejobs/{__version__}"


# Accepted answers


@pytest.mark.parametrize("name", [name for name in SAMPLES if name != "refused"])
def test_every_sample_is_an_answer(name: str) -> None:
    """Each known shape gives a status of the polled job."""
    status = read(SAMPLES[name])
    assert status.ref == REF
    assert status.job_complete is name.startswith(("complete", "provisional"))


def test_a_complete_answer_is_read() -> None:
    """All values are read, and the verdict follows from them."""
    status = read(signed(complete(history=other_jobs(), image_links={"selfie_image": sigv4_url()})))
    assert (status.verdict, status.is_final, status.code, status.timestamp) == (Verdict.APPROVED, True, "2302", NOW)
    assert status.result is not None
    assert status.result.smile_job_id == "0000004711"
    assert len(status.history) == 3
    assert status.image_links is not None
    assert status.image_links.selfie_image is not None
    status.raise_for_verdict()


def test_history_decides_nothing() -> None:
    """An approved entry of the history, even one that names this job, does not approve it."""
    status = read(signed(complete(result=result("0811"), history=[result("0810"), result("1210")])))
    assert status.verdict is Verdict.REJECTED
    assert read(signed(complete(result={}, history=[result("0810")]))).verdict is Verdict.UNKNOWN


@pytest.mark.parametrize(
    "timestamp", ["2026-03-04T05:06:07.890Z", "2026-03-04T05:06:07+00:00", "1772600767890", 1772600767890]
)
def test_any_spelling_of_the_timestamp_is_verified(timestamp: object) -> None:
    """The signature covers the text of the timestamp."""
    assert read(signed(complete(timestamp=timestamp))).verdict is Verdict.APPROVED


@pytest.mark.parametrize("http_status", [200, 201, 400, 404, 500])
def test_a_code_beats_the_http_status(http_status: int) -> None:
    """An answer with the code of success is an answer, whatever the HTTP status says."""
    assert read(signed(complete()), http_status=http_status).verdict is Verdict.APPROVED
    assert read(signed(pending()), http_status=http_status).verdict is None


def test_a_success_without_job_complete_is_pending() -> None:
    """The code of success is about the call, not about the job."""
    assert not read(signed(pending(job_complete=ABSENT))).job_complete


# Verification

SAYS_SOMETHING = {
    "job_complete": pending(job_complete=True),
    "job_complete, a word": pending(job_complete="TRUE"),
    "job_complete, no code": complete(code=ABSENT, result=ABSENT),
    "complete with a text": complete(result="done"),
    "job_success": pending(job_success=True),
    "a result": pending(result={"ResultText": "x"}),
    "a result with nothing known": pending(result={"New": "x"}),
    "a history": pending(history=[{"ResultCode": "0810"}]),
    "a history of nothing": pending(history=[{}]),
    "links": pending(image_links={"selfie_image": "https://evil.example/a.jpg"}),
    "links of another type": pending(image_links=["https://evil.example/a.jpg"]),
    "a history of another type": pending(history={"ResultCode": "0810"}),
    "a result of another type": pending(result=["x"]),
    "an error for links": pending(image_links={"error": "call this number"}),
    "links inside the result": pending(result={"ImageLinks": {"selfie_image": "https://evil.example/a.jpg"}}),
    "a result beside 2314": pending(code="2314", result=result()),
}
BAD_SIGNATURES: dict[str, dict[str, object]] = {
    "none": {},
    "null": {"signature": None},
    "empty": {"signature": ""},
    "a number": {"signature": 5},
    "a list": {"signature": [sign(CREDENTIALS, TIMESTAMP)]},
    "not ASCII": {"signature": "ü" * 44},
    "half a character": {"signature": "\ud800"},
    "another key's": {"signature": sign(Credentials("085", "another-key"), TIMESTAMP)},
    "another partner's": {"signature": sign(Credentials("85", CREDENTIALS.api_key), TIMESTAMP)},
    "another timestamp's": {"signature": sign(CREDENTIALS, "2026-03-04T05:06:07.891Z")},
    "of no timestamp": {"signature": sign(CREDENTIALS, ""), "timestamp": None},
    "the unkeyed hash": {
        "timestamp": "1678216434434",
        "signature": sha256(b"85:1678216434434").hexdigest(),
    },
}


@pytest.mark.parametrize("why", BAD_SIGNATURES)
@pytest.mark.parametrize("what", SAYS_SOMETHING)
def test_what_says_more_than_not_yet_must_verify(what: str, why: str) -> None:
    """Without a valid signature it is a SignatureError, with one it is a status."""
    with pytest.raises(
        SignatureError, match="^the answer.s signature does not verify: .*; check the API key and base_url"
    ) as caught:
        read({**SAYS_SOMETHING[what], **BAD_SIGNATURES[why]})
    assert not caught.value.transient
    assert caught.value.ref == REF
    if what == "a result of another type":
        with pytest.raises(BadResponseError, match="wrong shape at result"):
            read(signed(SAYS_SOMETHING[what]))
    else:
        assert isinstance(read(signed(SAYS_SOMETHING[what])), JobStatus)


@pytest.mark.parametrize("what", ["a history of nothing", "links", "a result"])
def test_what_was_not_asked_for_must_verify_too(what: str) -> None:
    """An answer with links or a history needs a valid signature, even if the poll did not request them."""
    with pytest.raises(SignatureError):
        read(SAYS_SOMETHING[what], include=Include())


UNSTRUCTURED: dict[str, dict[str, object]] = {
    "the history": pending(history=[{"ResultCode": []}]),
    "the links": pending(image_links=dict.fromkeys(map(str, range(101)), "x")),
    "the result": pending(result={"SmileJobID": {}}),
}


@pytest.mark.parametrize("what", UNSTRUCTURED)
def test_nothing_is_structured_before_it_is_verified(what: str) -> None:
    """A wrong shape inside an answer is found only once its signature is verified."""
    with pytest.raises(SignatureError):
        read(UNSTRUCTURED[what])
    with pytest.raises(BadResponseError, match="wrong shape"):
        read(signed(UNSTRUCTURED[what]))


def test_what_was_not_asked_for_is_not_structured() -> None:
    """A history and links that the poll did not request stay in `raw`, even with a wrong shape; the verdict is read."""
    body = signed(complete(history=[0], image_links=dict.fromkeys(map(str, range(101)), "x")))
    status = read(body, include=Include())
    assert (status.verdict, status.history, status.image_links) == (Verdict.APPROVED, (), None)
    assert status.raw == body


@pytest.mark.parametrize("value", ["text", [], ["x"], 5, True, {"a": "b"}])
def test_a_wrong_container_does_not_hide_the_verdict(value: object) -> None:
    """A history or links of another type stay in `raw`; the rest is read."""
    status = read(signed(complete(history=value if isinstance(value, (str, dict)) else 7, image_links=value)))
    assert (status.verdict, status.history) == (Verdict.APPROVED, ())
    assert (status.image_links is None) is not isinstance(value, dict)


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity", "1e999"])
@pytest.mark.parametrize("key", ["job_success", "IsFinalResult", "ConfidenceValue", "Any"])
def test_numbers_that_are_not_json_make_an_answer_unreadable(key: str, word: str) -> None:
    """They must not count as null, in any key, even if the answer is signed and complete."""
    more = {key: "THE NUMBER"}
    body = encode(signed(complete(**more) if key == "job_success" else complete(result=result(**more))))
    with pytest.raises(BadResponseError, match="cannot be read"):
        read(body.replace(b'"THE NUMBER"', word.encode()))


def locals_of(error: BaseException) -> list[object]:
    """Return the values of the local variables of all frames of *error* in code of the library."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return [
        value
        for frame in frames
        if frame.f_globals["__name__"].startswith("smilejobs.")
        for value in frame.f_locals.values()
    ]


KEPT: dict[str, bytes] = {
    "not JSON": b'{"a": "marker"',
    "not UTF-8": b'{"a": "marker \xff"}',
    "wrong shape": encode(signed(complete(result=result(PartnerParams="marker")))),
    "unsigned": encode(complete(result=result(FullName="marker"))),
    "another job": encode(signed(complete(user_id="marker"))),
    "refused": encode({"code": "2304", "other": "marker"}),
}


@pytest.mark.parametrize("why", KEPT)
def test_an_error_does_not_keep_the_answer(why: str) -> None:
    """No cause, no context and no local variable of a frame leads to the body: crash reports show them."""
    with pytest.raises(SmileJobsError) as caught:
        read(KEPT[why])
    assert (caught.value.__cause__, caught.value.__context__) == (None, None)
    assert "marker" not in repr(locals_of(caught.value))


BARE = {
    "three keys": {"timestamp": TIMESTAMP, "job_complete": False},
    "success": pending(),
    "success, a word": pending(job_complete="false", job_success="false"),
    "no zip": pending(code="2314", result="No zip file received"),
    "an empty result": pending(result={}, history=[], image_links={}),
    "nulls": pending(result=None, history=None, image_links=None),
    "no zip, as an error": refusal("2314", "No zip file received"),
}


@pytest.mark.parametrize("why", BAD_SIGNATURES)
@pytest.mark.parametrize("what", BARE)
def test_what_says_not_yet_need_not_verify(what: str, why: str) -> None:
    """A bare pending answer keeps the wait going, and carries no values."""
    status = read({**BARE[what], **BAD_SIGNATURES[why]})
    assert not status.job_complete
    assert not status.job_success
    assert (status.verdict, status.result, status.history, status.image_links) == (None, None, (), None)
    assert (status.timestamp, status.raw) == (None, {})


def test_a_reflected_request_is_not_an_answer() -> None:
    """Its pair of timestamp and signature verifies, but a request says nothing about a job."""
    body = encode_request(REF, CREDENTIALS, NOW, Include())
    with pytest.raises(BadResponseError):
        read(body)


# The right job

ELSEWHERE: dict[str, dict[str, object]] = {
    "user_id": {"user_id": "user-cobalt-3"},
    "job_id": {"job_id": "job-dune-8"},
    "PartnerParams.user_id": {"result": result(PartnerParams=params(user_id="user-cobalt-3"))},
    "PartnerParams.job_id": {"result": result(PartnerParams=params(job_id="job-dune-8"))},
    "exchanged": {"user_id": REF.job_id, "job_id": REF.user_id},
    "another case": {"job_id": REF.job_id.upper()},
    "a number": {"job_id": 42},
    "right at the top, wrong inside": {
        "user_id": REF.user_id,
        "job_id": REF.job_id,
        "result": result(PartnerParams=params(job_id="job-dune-8")),
    },
}


@pytest.mark.parametrize("what", ELSEWHERE)
def test_a_verified_answer_about_another_job_is_refused(what: str) -> None:
    """Ids in an answer must be those of the polled job, complete or pending."""
    for body in (complete(**ELSEWHERE[what]), pending(**ELSEWHERE[what])):
        with pytest.raises(WrongJobError, match="^the answer is about another job or user") as caught:
            read(signed(body))
        assert not caught.value.transient
        assert caught.value.ref == REF


def test_an_unverified_answer_about_another_job_is_a_matter_of_its_signature() -> None:
    """The signature is checked before the ids; a bare answer must still be about this job."""
    with pytest.raises(SignatureError):
        read(complete(job_id="job-dune-8"))
    with pytest.raises(WrongJobError):
        read(pending(job_id="job-dune-8"))


def test_ids_are_compared_as_strings() -> None:
    """A number is its digits."""
    body = signed(complete(user_id=12, job_id="34", result=result(PartnerParams={"user_id": "12", "job_id": 34})))
    assert read(body, ref=JobRef("12", "34")).verdict is Verdict.APPROVED
    with pytest.raises(WrongJobError):
        read(body, ref=JobRef("012", "34"))


def test_ids_that_are_not_given_are_not_compared() -> None:
    """Null and missing ids name no job; then the result neither approves nor rejects."""
    for code in ("0810", "0811", "0814"):
        assert read(signed(complete(result=result(code, PartnerParams=ABSENT)))).verdict is Verdict.UNKNOWN
    for given_ in ({"user_id": None, "job_id": None}, ABSENT, None, {}):
        status = read(signed(complete(user_id=None, result=result(PartnerParams=given_))))
        assert status.verdict is Verdict.UNKNOWN


def test_history_may_name_other_jobs() -> None:
    """It is the history of the user, not of the job."""
    assert read(signed(complete(history=other_jobs()))).verdict is Verdict.APPROVED


# Refusals

KINDS: Mapping[str, type[ApiError]] = {
    "2304": JobNotFoundError,
    **dict.fromkeys(["2305", "2205", "2405", "2220"], CredentialsError),
    **dict.fromkeys(["2301", "2201", "2401"], ServerError),
    **dict.fromkeys(["2307", "2207"], UserDisabledError),
    **dict.fromkeys(["2310", "2210"], UserNotFoundError),
    **dict.fromkeys(["2303", "2203", "2313", "2213", "2413", "2204"], BadRequestError),
    **dict.fromkeys(["2208", "2209", "2211", "2212", "2215", "2216", "2217", "2222", "2415"], ApiError),
}


def refuse(body: object, http_status: int = 400, **headers: str) -> ApiError | GatewayError:
    """Return the error of an answer."""
    with pytest.raises(SmileJobsError) as caught:
        read(body, http_status=http_status, headers={name.replace("_", "-"): value for name, value in headers.items()})
    assert isinstance(caught.value, (ApiError, GatewayError))
    return caught.value


def test_every_code_is_tested() -> None:
    """The cases below have all codes of the table, except the two that give a status."""
    assert set(KINDS) == set(STATUS_CODES) - {"2302", "2314"}


@pytest.mark.parametrize("spelling", [str, int])
@pytest.mark.parametrize("code", KINDS)
def test_both_channels_mean_the_same(code: str, spelling: type[Any]) -> None:
    """A code is the same error inside a signed answer with HTTP 200 and in an error body with any HTTP status."""
    said = spelling(code)
    errors = [
        refuse(signed(pending(code=said)), 200),
        refuse(pending(code=said, signature="5f" * 32), 200),
        refuse(signed(complete(code=said)), 200),
        *(refuse(refusal(said), http_status) for http_status in (200, 400, 401, 403, 404, 405, 429, 500, 503)),
    ]
    for error in errors:
        assert type(error) is KINDS[code]
        assert (error.code, error.ref) == (code, REF)
        assert error.transient is (STATUS_CODES[code].kind is CodeClass.TRANSIENT)
        assert code in str(error)
        assert f"HTTP {error.http_status}" in str(error)
    assert [error.http_status for error in errors] == [200, 200, 200, 200, 400, 401, 403, 404, 405, 429, 500, 503]
    assert {error.text for error in errors[3:]} == {"refused"}


@pytest.mark.parametrize("http_status", [200, 400, 404])
@pytest.mark.parametrize("code", ["2314", 2314])
def test_no_zip_is_pending_on_both_channels(code: object, http_status: int) -> None:
    """No data yet is a pending status, signed or not, as an answer and as an error body."""
    for body in (signed(pending(code=code)), pending(code=code), refusal(code)):
        status = read(body, http_status=http_status, headers={"retry-after": "7"})
        assert (status.job_complete, status.code, status.retry_after, status.verdict) == (False, "2314", 7.0, None)


@pytest.mark.parametrize("code", ["2305", "2205", "2405", "2220"])
def test_wrong_credentials_say_what_to_check(code: str) -> None:
    """The key's environment, the clock, and the partner id's zeros."""
    for hint in ("API key", "environment", "clock", "leading zeros"):
        assert hint in str(refuse(refusal(code)))


def test_2204_hints_at_timestamp_and_signature() -> None:
    """The vendor calls it a wrong data type; in practice it is the signature."""
    error = refuse(refusal("2204", "unauthorized"))
    assert "check the timestamp (this machine's clock) and the signature" in str(error)
    assert error.text == "unauthorized"


def test_a_blocked_id_number_is_no_rate_limit() -> None:
    """2222 comes with HTTP 429 and lasts for days."""
    error = refuse(refusal("2222"), 429, **{"retry-after": "5"})
    assert (type(error), error.transient) == (ApiError, False)


@pytest.mark.parametrize("code", ["2098", 2098, "2202", "2399", "x", "2304 ", 2304.5])
@pytest.mark.parametrize("http_status", [200, 302, 400, 401, 403, 404, 405])
def test_an_unknown_code_is_no_code_of_the_api(code: object, http_status: int) -> None:
    """It is never a success and never a refusal."""
    error = refuse(refusal(code), http_status)
    assert isinstance(error, GatewayError)
    assert (error.code, error.http_status, error.transient) == (str(code), http_status, False)
    assert (error.text, error.wrong_url) == ("refused", False)
    assert "unknown code" in str(error)
    assert "base_url" not in str(error)


@pytest.mark.parametrize("http_status", [408, 429, 500, 502, 503, 504, 599])
def test_an_unknown_code_may_pass_with_an_http_status_that_may_pass(http_status: int) -> None:
    """With these three kinds of HTTP status it is transient."""
    error = refuse(refusal("2098"), http_status, **{"retry-after": "5"})
    assert (error.code, error.transient, error.retry_after) == ("2098", True, 5.0)


def test_an_unknown_code_in_a_complete_answer_is_no_success() -> None:
    """Even if the answer is signed and complete."""
    assert type(refuse(signed(complete(code="9999")), 200)) is GatewayError


NO_CODE: list[tuple[int, type[ApiError | GatewayError], bool, str]] = [
    (401, CredentialsError, False, "API key"),
    *((http_status, GatewayError, False, "base_url") for http_status in (301, 302, 303, 307, 308, 404, 405)),
    (408, GatewayError, True, ""),
    (429, RateLimitedError, True, ""),
    *((http_status, ServerError, True, "") for http_status in (500, 502, 503, 504, 520)),
    *((http_status, GatewayError, False, "") for http_status in (400, 402, 403, 409, 418, 421, 422, 425, 499)),
]


@pytest.mark.parametrize(
    "body",
    [
        {"message": "Nope"},
        {"error": "Nope"},
        {"error": "Nope", "code": None},
        {"error": "Nope", "code": ""},
        {"error": {"a": 1}},
        {},
    ],
    ids=str,
)
@pytest.mark.parametrize(("http_status", "kind", "transient", "hint"), NO_CODE)
def test_without_a_code_the_http_status_counts(
    http_status: int, kind: type[ApiError | GatewayError], transient: bool, hint: str, body: dict[str, object]
) -> None:
    """Each HTTP status has its error, which says what to check if that is known."""
    error = refuse(body, http_status, **{"retry-after": "11"})
    assert (type(error), error.transient, error.code, error.http_status) == (kind, transient, None, http_status)
    assert error.retry_after == 11.0
    assert error.text == ("Nope" if "Nope" in body.values() else None)
    assert (": try again later" in str(error)) is (hint != "API key")
    assert hint in str(error)
    assert ("base_url" in str(error)) is (hint == "base_url") is getattr(error, "wrong_url", False)


def test_a_missing_authentication_token_is_a_wrong_url() -> None:
    """API Gateway says so for an unknown path; a plain 403 says nothing about the URL."""
    error = refuse({"message": "Missing Authentication Token"}, 403)
    assert isinstance(error, GatewayError)
    assert (error.wrong_url, error.transient, "base_url" in str(error)) == (True, False, True)
    error = refuse({"message": "Forbidden"}, 403)
    assert isinstance(error, GatewayError)
    assert (error.wrong_url, error.transient, "base_url" in str(error)) == (False, False, False)


SEEN = [
    (404, "text/plain", b"default backend - 404", "HTTP 404, text/plain, no code of the API: it is not JSON; "),
    (403, "application/json", {"message": "Forbidden"}, "HTTP 403, application/json, no code of the API, 'Forbidden';"),
    (404, "Application/JSON; charset=utf-8", {"message": "Not Found"}, "application/json, no code of the API, 'Not Fo"),
    (403, "application/json", {"message": "Missing Authentication Token"}, "API, 'Missing Authentication Token'; "),
    (403, "application/json", {"message": "user-amber-17"}, "HTTP 403, application/json, no code of the API; "),
    (302, None, b"", "HTTP 302, no content type, no code of the API: it is empty; "),
    (400, "text/html", b"<html>", "HTTP 400, text/html, no code of the API: it is HTML; "),
    (401, "text/html", b"<html>", "HTTP 401, text/html, no code of the API: it is HTML; check that the API key"),
    (429, "text/html", b"<html>", "HTTP 429, text/html, no code of the API: it is HTML; "),
    (503, "application/json", {}, "HTTP 503, application/json, no code of the API; "),
    (400, "application/json", {"code": "2399"}, "HTTP 400, application/json, 2399: unknown code; "),
    (400, "application/json", [], "HTTP 400, application/json, no code of the API: it is JSON, but not an object; "),
    (400, "text/user-amber-17", b"", "HTTP 400, an unusual content type, no code of the API: it is empty; "),
]


@pytest.mark.parametrize(("http_status", "content_type", "body", "text"), SEEN)
def test_an_answer_without_a_code_is_described_and_not_quoted(
    http_status: int, content_type: str | None, body: object, text: str
) -> None:
    """The HTTP status, the content type, and the kind of body; of its texts only the fixed ones of API Gateway."""
    headers = {} if content_type is None else {"content_type": content_type}
    error = refuse(body, http_status, **headers)
    assert text in str(error)
    assert "amber" not in str(error)


@pytest.mark.parametrize("http_status", [302, 400, 401, 404])
def test_a_code_of_the_api_in_an_answer_that_cannot_be_read(http_status: int) -> None:
    """It is an answer of the API with any HTTP status: not of a gateway, and the URL is right."""
    with pytest.raises(BadResponseError, match="result") as caught:
        read(signed(complete(result=[])), http_status=http_status)
    assert caught.value.transient


@pytest.mark.parametrize(
    ("body", "http_status", "is_the_apis"),
    [
        (refusal("2304"), 400, True),
        (refusal("2205"), 401, True),
        (complete(), 200, True),
        (refusal("2399"), 400, False),
        ({"message": "Forbidden"}, 403, False),
        (b"<html>", 401, False),
        (b"<html>", 502, False),
        ({}, 429, False),
    ],
)
def test_which_failures_are_answers_of_the_api(body: object, http_status: int, is_the_apis: bool) -> None:
    """Those with a known code, also if the signature is wrong."""
    with pytest.raises(SmileJobsError) as caught:
        read(body, http_status=http_status)
    assert comes_from_the_api(caught.value) is is_the_apis


@pytest.mark.parametrize("body", [{"error": "no"}, {"error": "no", "code": None}])
def test_an_error_with_http_200_is_an_error(body: dict[str, object]) -> None:
    """It is neither pending nor a success."""
    error = refuse(body, 200)
    assert (type(error), error.transient, error.text) == (GatewayError, False, "no")


@pytest.mark.parametrize("http_status", [400, 401, 403, 404, 500])
def test_a_status_without_a_code_needs_a_good_http_status(http_status: int) -> None:
    """With an HTTP error status and without a code, the body is not a status."""
    refuse(signed(complete(code=ABSENT)), http_status)


# What cannot be read

UNREADABLE: dict[str, bytes] = {
    "empty": b"",
    "HTML": b"<html><body>Bad Gateway</body></html>",
    "truncated": encode(signed(complete()))[:-20],
    "a list": b"[]",
    "nested": b"[" * 100_000,
    "nested inside": b'{"job_complete": true, "result": ' + b'{"a":' * 100_000,
    "a long number": b'{"job_complete": false, "code": ' + b"1" * 5000 + b"}",
    "bytes": bytes(range(256)),
    "no answer": b'{"hello": "world"}',
    "a wrong shape": encode(signed(complete(result=[]))),
}


@pytest.mark.parametrize("what", UNREADABLE)
def test_what_cannot_be_read_is_said_with_its_http_status(what: str) -> None:
    """It is transient, because gateways send such pages now and then."""
    with pytest.raises(BadResponseError, match=r"HTTP 200") as caught:
        read(UNREADABLE[what], headers={"retry-after": "3"})
    error = caught.value
    assert (error.http_status, error.transient, error.ref, error.code, error.retry_after) == (200, True, REF, None, 3.0)


@pytest.mark.parametrize("http_status", [500, 502, 503, 504])
def test_an_error_page_of_a_gateway_is_transient(http_status: int) -> None:
    """HTML with a 5xx: the error names the HTTP status."""
    with pytest.raises(BadResponseError, match=f"HTML.*HTTP {http_status}") as caught:
        read(UNREADABLE["HTML"], http_status=http_status)
    assert caught.value.transient


@pytest.mark.parametrize("body", [UNREADABLE["HTML"], b""])
@pytest.mark.parametrize(
    ("http_status", "kind", "transient", "hint"), [case for case in NO_CODE if case[3] or case[0] == 429]
)
def test_where_the_http_status_says_enough_the_page_does_not_matter(
    http_status: int, kind: type[ApiError | GatewayError], transient: bool, hint: str, body: bytes
) -> None:
    """A redirect, a wrong path, a refusal and a rate limit have the same meaning with any page."""
    error = refuse(body, http_status, **{"retry-after": "11"})
    assert (type(error), error.transient, error.retry_after, error.text) == (kind, transient, 11.0, None)
    assert hint in str(error)


@pytest.mark.parametrize("http_status", [400, 403])
def test_a_page_with_such_a_status_is_a_gateways(http_status: int) -> None:
    """A direct call does not retry; nothing indicates a wrong URL."""
    error = refuse(UNREADABLE["HTML"], http_status)
    assert isinstance(error, GatewayError)
    assert (error.transient, error.wrong_url) == (False, False)


@pytest.mark.parametrize(
    ("body", "path"),
    [
        (complete(result=result(PartnerParams="marker")), "result.PartnerParams"),
        (complete(result=result(PartnerParams=params(job_id=["marker"]))), "result.PartnerParams.job_id"),
        (complete(history=[{}, {"ResultCode": {"marker": "marker"}}]), "history[1].ResultCode"),
        (complete(image_links=dict.fromkeys(map(str, range(101)), "marker")), "image_links (more than 100 links)"),
        (complete(code={"marker": 1}), "code"),
        (complete(user_id=["marker"]), "user_id"),
        (complete(job_id={"marker": 1}), "job_id"),
        ({"code": ["marker"]}, "code"),
    ],
)
def test_wrong_shapes_are_named_by_path_and_not_by_value(body: dict[str, object], path: str) -> None:
    """The text names the path, and no value."""
    with pytest.raises(BadResponseError) as caught:
        read({**body, "signature": sign(CREDENTIALS, TIMESTAMP)})
    assert re.search(rf" {re.escape(path)}[ ,(\[]", str(caught.value))
    assert "marker" not in "".join(traceback.format_exception(caught.value))


# Retry-After


@pytest.mark.parametrize(
    ("value", "expected"),
    [("120", 120.0), (format_datetime(NOW.replace(microsecond=0) + timedelta(seconds=60), usegmt=True), 59.11)],
)
def test_every_kind_of_answer_carries_its_hint(value: str, expected: float) -> None:
    """A status and every error have the seconds of the Retry-After header."""
    hint = pytest.approx(expected)
    headers = {"retry-after": value}
    assert read(signed(pending()), headers=headers).retry_after == hint
    assert read(pending(), headers=headers).retry_after == hint
    for body, http_status in ((refusal("2304"), 400), ({}, 429), ({}, 503), (b"<html>", 502), (b"", 429)):
        with pytest.raises(SmileJobsError) as caught:
            read(body, http_status=http_status, headers=headers)
        assert caught.value.retry_after == hint


def test_without_the_header_there_is_no_hint() -> None:
    """It is None for statuses and errors."""
    assert read(signed(pending())).retry_after is None
    assert read(signed(pending()), headers={"retry-after": "soon"}).retry_after is None
    assert refuse({}, 429).retry_after is None


# Secrets

MARKED = JobRef("marker-user-id", "marker-job-id")
MARKED_CREDENTIALS = Credentials("marker-partner", "marker-key")


def marked(**more: object) -> dict[str, object]:
    """Return a complete answer with a marker in every place for personal data or texts of the vendor."""
    personal = {vendor: f"marker {vendor}" for vendor in PERSONAL.values()}
    mine = {"user_id": MARKED.user_id, "job_id": MARKED.job_id, "job_type": "marker", "note": "marker", "marker": 1}
    links = {"selfie_image": sigv4_url(marker="marker"), "marker": "marker", "error": "marker"}
    receipt = "https://bucket.example/receipt?signature=marker"
    outcome: dict[str, object] = {
        **personal,
        "ResultCode": "0810",
        "ResultText": "marker",
        "ResultType": "marker",
        "SmileJobID": "0000004711",
        "PartnerParams": mine,
        "ConfidenceValue": "marker",
        "Actions": {"marker": "marker"},
        "ImageLinks": links,
        "KYCReceipt": receipt,
        "marker": {"marker": ["marker"]},
    }
    body = {
        "marker": "marker",
        "kyc_receipt": receipt,
        "error": "marker",
        "message": "marker",
        "image_links": links,
        "user_id": MARKED.user_id,
    }
    history = [outcome, {**outcome, "PartnerParams": {"user_id": "marker-other"}}]
    return {**body, **complete(result=outcome, history=history, job_id=MARKED.job_id), **more}


def read_marked(
    body: dict[str, object], http_status: int = 200, *, sign_it: bool = True, ref: JobRef = MARKED
) -> JobStatus:
    if sign_it:
        body = signed(body, MARKED_CREDENTIALS)
    return read(body, http_status=http_status, ref=ref, credentials=MARKED_CREDENTIALS)


def test_no_secret_is_shown_of_an_answer() -> None:
    """No repr and no text holds an id, key, link, text or personal field; the tag and the SmileJobID are shown."""
    status = read_marked(marked())
    assert status.verdict is Verdict.APPROVED
    state = PollState(ref=MARKED, terms=Terms(), last=status, last_error=NotApprovedError(status))
    assert status.result is not None
    assert status.image_links is not None
    assert status.receipt is not None
    values: list[object] = [
        status.receipt,
        *(MARKED, MARKED_CREDENTIALS, status, status.result, status.result.partner_params, status.history, state),
        *(status.image_links, *status.image_links.values(), Done(status), GiveUp(NotApprovedError(status))),
    ]
    for shown in (f"{value} {value!r}" for value in values):
        assert "marker" not in shown
        assert "bucket.example" not in shown
    assert MARKED.tag in str(status)
    assert "0000004711" in str(status)


REFUSED: dict[str, tuple[dict[str, object], int, bool, JobRef]] = {
    "unverified": (marked(signature="marker"), 200, False, MARKED),
    "another job": (marked(), 200, True, JobRef("marker-u", "marker-j")),
    "another job, pending": (
        marked(result=None, history=None, job_complete=False),
        200,
        True,
        JobRef("marker-u", "marker-j"),
    ),
    **{f"code {code}": (marked(code=code), 400, True, MARKED) for code in [*KINDS, "2098", "marker", "marker 2304"]},
    **{f"HTTP {http_status}": (marked(code=None), http_status, True, MARKED) for http_status, *_ in NO_CODE},
    **{
        f"wrong shape {key}": (marked(**{key: value}), 200, True, MARKED)
        for key, value in {
            "code": ["marker"],
            "user_id": {"marker": "marker"},
            "result": ["marker"],
            "history": ["marker"],
            "image_links": dict.fromkeys(map("marker {}".format, range(101)), "marker"),
        }.items()
    },
    "wrong shape PartnerParams": (
        marked(result={"PartnerParams": "marker", "SmileJobID": {"marker": 1}}),
        200,
        True,
        MARKED,
    ),
    "no answer": ({"marker": "marker", "timestamp": TIMESTAMP}, 200, True, MARKED),
}


@pytest.mark.parametrize("what", REFUSED)
def test_no_secret_is_shown_of_an_error(what: str) -> None:
    """No id, key, signature, link, word or personal field is in the text, the repr or the traceback."""
    body, http_status, sign_it, ref = REFUSED[what]
    with pytest.raises(SmileJobsError) as caught:
        read_marked(body, http_status, sign_it=sign_it, ref=ref)
    error = caught.value
    frames = traceback.TracebackException.from_exception(error).format_exception_only()
    chain = [error, error.__cause__, None if error.__suppress_context__ else error.__context__]
    shown = f"{error} {error!r} {''.join(frames)} {chain}"
    assert "marker" not in shown
    assert "bucket.example" not in shown
    assert str(error).endswith(f"[job {ref.tag}]")


def test_no_secret_is_shown_of_the_end_of_a_wait() -> None:
    """The errors of the rules hold the answer, and do not show it."""
    provisional = read_marked(marked(result={**result("0814"), "PartnerParams": None, "ResultText": "marker"}))
    state = PollState(ref=MARKED, terms=Terms(until="final", timeout=10.0))
    step(state, provisional, 1.0, api_has_answered=True)
    error = ServerError("oh", text="marker", ref=MARKED, retry_after=60)
    decision = step(state, error, 2.0, api_has_answered=True)
    assert isinstance(decision, GiveUp)
    assert "marker" not in f"{decision} {decision.error} {decision.error!r} {state}"


# Any answer

statuses = st.integers(100, 599) | st.sampled_from([200, 400, 401, 403, 404, 429, 503])
headers = st.dictionaries(st.just("retry-after"), retry_after_values)


def outcome(body: bytes, http_status: int, given_headers: Mapping[str, str]) -> JobStatus | SmileJobsError:
    try:
        return read_answer(
            REF, CREDENTIALS, NOW, include=EVERYTHING, http_status=http_status, headers=given_headers, body=body
        )
    except SmileJobsError as error:
        return error


def check(body: bytes, http_status: int, given_headers: Mapping[str, str]) -> None:
    """Read any answer and check that the result is a JobStatus or a SmileJobsError, and that content was verified."""
    status = outcome(body, http_status, given_headers)
    if isinstance(status, SmileJobsError):
        assert status.ref == REF
        assert status.http_status == http_status
        assert repr(status)
        assert str(status).endswith(f"[job {REF.tag}]")
        return
    assert isinstance(status, JobStatus)
    assert status.ref == REF
    assert REF.tag in repr(status)
    json.dumps(status.as_dict(personal=True, links=True), allow_nan=False)
    json.dumps(status.raw, allow_nan=False)
    if status.job_complete or status.job_success or status.result or status.history or status.image_links:
        sent = json.loads(body)
        assert verify(CREDENTIALS, sent["timestamp"], sent["signature"])
    if status.verdict in (Verdict.APPROVED, Verdict.PROVISIONAL, Verdict.REJECTED):
        named = json.loads(body)["result"]["PartnerParams"]
        assert (str(named["user_id"]), str(named["job_id"])) == (REF.user_id, REF.job_id)
    if status.verdict is Verdict.APPROVED:
        sent = json.loads(body)
        assert str(sent["result"]["ResultCode"]) in {"0810", "1012", "1020", "1021", "1210", "1220"}
        assert sent["job_complete"] is True or sent["job_complete"].lower() == "true"


@unhurried
@given(answers(), statuses, headers)
def test_any_json_anywhere_in_an_answer_gives_a_status_or_an_error(
    body: bytes, http_status: int, given_headers: dict[str, str]
) -> None:
    """Nothing else is raised, job_complete implies verified, and approved implies this very job."""
    check(body, http_status, given_headers)


@unhurried
@given(st.binary() | json_values.map(encode), statuses, headers)
def test_any_bytes_give_a_status_or_an_error(body: bytes, http_status: int, given_headers: dict[str, str]) -> None:
    """Nothing else is raised, with any HTTP status and any headers."""
    check(body, http_status, given_headers)


# Credentials


@pytest.mark.parametrize(
    ("observation", "accepts"),
    [
        (JobStatus(user_id="user-1", job_id="job-1"), True),
        (WrongJobError("another"), True),
        (JobNotFoundError("none", code="2304"), True),
        (UserDisabledError("disabled", code="2307"), True),
        (UserNotFoundError("none", code="2310"), True),
        (ApiError("blocked", code="2222"), True),
        (CredentialsError("refused", code="2205"), False),
        (CredentialsError("refused"), False),
        (BadRequestError("the timestamp, perhaps", code="2204"), False),
        (BadRequestError("a parameter", code="2313"), False),
        (ServerError("trouble", code="2301"), False),
        (RateLimitedError("too often"), False),
        (GatewayError("unknown", code="9999"), False),
        (GatewayError("wrong URL", http_status=404, wrong_url=True), False),
        (SignatureError("signed by others", code="2302"), False),
        (BadResponseError("HTML"), False),
    ],
)
def test_which_answers_accept_the_credentials(observation: JobStatus | SmileJobsError, accepts: bool) -> None:
    """Those about the job or its user."""
    assert accepts_credentials(observation) is accepts
