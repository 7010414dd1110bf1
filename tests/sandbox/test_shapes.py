"""Every shape in which the API is known to answer comes out of a storm, and is read as what it is.

The shapes are written down here from what is known of the API and its clients, not taken from the sandbox.
"""

import asyncio
import json
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import cached_property
from typing import Any

import anyio
import pytest
from attrs import field, frozen
from hypothesis import given
from hypothesis import strategies as st

from smilejobs import (
    ApiError,
    BadResponseError,
    Credentials,
    JobNotFoundError,
    JobRef,
    JobStatus,
    RateLimitedError,
    ServerError,
    SignatureError,
    SmileJobsError,
    Verdict,
    WrongJobError,
)
from smilejobs.model.jobs import Include
from smilejobs.sandbox import FAULT_PROFILES, FaultProfile, Sandbox
from smilejobs.sandbox.asgi import InProcess
from smilejobs.sandbox.distributions import make_rng
from smilejobs.sandbox.faults import PollFaults, draw_faults
from smilejobs.sandbox.http.common import ConnectionCutError
from smilejobs.sandbox.variants import VARIANTS
from smilejobs.testing import EPOCH, VirtualClockEventLoop, virtual_now
from smilejobs.wire.protocol import encode_request, read_answer
from smilejobs.wire.signature import verify

pytestmark = pytest.mark.slow

CREDENTIALS = Credentials("085", "sandbox-key")
SEED = 5
POLLS = 80
OUTCOMES = {"approved": Verdict.APPROVED, "rejected": Verdict.REJECTED, "error": Verdict.ERROR}


@frozen(kw_only=True)
class Seen:
    """One answer of the sandbox, and what was meant by it.

    Attributes:
        ref: The job.
        at: The instant of the answer.
        faults: The faults that were drawn for it.
        http_status: The HTTP status; 0 if there was no answer.
        headers: The headers.
        raw: The body, unpacked.
        broke_off: Whether the connection broke in the middle of it.
        request: What was asked.
    """

    ref: JobRef
    at: datetime
    faults: PollFaults
    http_status: int = 0
    headers: Mapping[str, str] = field(factory=dict[str, str])
    raw: bytes = b""
    broke_off: bool = False
    request: Mapping[str, Any] = field(factory=dict[str, Any])

    @cached_property
    def json(self) -> Any:
        try:
            return json.loads(self.raw)
        except ValueError:
            return None

    @cached_property
    def body(self) -> dict[str, Any]:
        return self.json if isinstance(self.json, dict) else {}

    @cached_property
    def result(self) -> dict[str, Any]:
        result = self.body.get("result")
        return result if isinstance(result, dict) else {}

    @property
    def is_answer(self) -> bool:
        return "job_complete" in self.body

    def read(self) -> JobStatus | SmileJobsError:
        """What our client makes of it."""
        try:
            return read_answer(
                self.ref,
                CREDENTIALS,
                self.at,
                include=Include(image_links=True, history=True),
                http_status=self.http_status,
                headers=self.headers,
                body=b"" if self.broke_off else self.raw,
                problem="it broke off" if self.broke_off else None,
                broke_off=self.broke_off,
            )
        except SmileJobsError as error:
            return error


def submit_all(sandbox: Sandbox) -> list[JobRef]:
    """Jobs of every product, in every outcome and state, and one that was not submitted."""
    refs = [
        sandbox.submit(f"user-{outcome}", f"job-{job_type}", outcome=outcome, job_type=job_type, machine=1)
        for job_type in (1, 2, 4, 5, 6, 7, 8, 9, 10, 11, 12)
        for outcome in OUTCOMES
    ]
    refs += [
        sandbox.submit("user-1", "review", machine=1, review="open"),
        sandbox.submit("user-1", "running", machine=3600 * 24 * 365),
        sandbox.submit("user-1", "no-zip", upload=None),
        sandbox.submit("user-1", "disabled", refusal="2307"),
        JobRef("user-1", "unknown"),
    ]
    return refs


def unpacked(body: bytes, headers: Mapping[str, str]) -> bytes:
    """The body of an answer, as far as it came."""
    return zlib.decompressobj(31).decompress(body) if headers.get("content-encoding") == "gzip" else body


async def poll(sandbox: Sandbox, profile: FaultProfile, ref: JobRef, number: int) -> Seen:
    """Ask once, as the number-th poll of that job."""
    drawn = draw_faults(profile, make_rng(SEED, "poll", ref.user_id, ref.job_id, number))
    request = encode_request(
        ref, CREDENTIALS, virtual_now(), Include(image_links=number % 2 > 0, history=number % 3 > 0)
    )
    headers = {"Accept-Encoding": "gzip"}
    seen = Seen(ref=ref, at=virtual_now(), faults=drawn, request=json.loads(request))
    raw = b""
    try:
        async with InProcess(sandbox.app).stream(
            "POST",
            "https://localhost/v1/job_status",
            content=request,
            headers=headers,
            auth=None,
            follow_redirects=False,
            timeout=None,
        ) as response:
            common = {"ref": ref, "faults": drawn, "request": json.loads(request), "headers": response.headers}
            try:
                async for piece in response.aiter_raw():
                    raw += unpacked(piece, response.headers)
            except ConnectionCutError:
                return Seen(at=virtual_now(), http_status=response.status_code, raw=raw, broke_off=True, **common)
            return Seen(at=virtual_now(), http_status=response.status_code, raw=raw, **common)
    except ConnectionCutError:
        return seen


@pytest.fixture(scope="module")
def sightings() -> list[Seen]:
    """Thousands of answers in a storm, over some hours of virtual time."""

    async def ask() -> list[Seen]:
        profile = FAULT_PROFILES["storm"]
        sandbox = Sandbox(faults=profile, seed=SEED, now=virtual_now)
        refs = submit_all(sandbox)
        return [await poll(sandbox, profile, ref, number) for number in range(1, POLLS + 1) for ref in refs]

    with asyncio.Runner(loop_factory=VirtualClockEventLoop) as runner:
        return runner.run(ask())


def timestamps(pattern: str) -> Callable[[Seen], bool]:
    def fits(seen: Seen) -> bool:
        return seen.is_answer and re.fullmatch(pattern, str(seen.body.get("timestamp"))) is not None

    return fits


def not_found(http_status: int) -> Callable[[Seen], bool]:
    return lambda seen: seen.http_status == http_status and str(seen.body.get("code")) == "2304"


def signature(fits: Callable[[Any], bool]) -> Callable[[Seen], bool]:
    return lambda seen: seen.is_answer and fits(seen.body.get("signature"))


SECONDS = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d"

SHAPES: Mapping[str, Callable[[Seen], bool]] = {
    # Booleans, codes, timestamps
    "booleans": lambda seen: seen.body.get("job_complete") is True and seen.body.get("job_success") is True,
    "booleans as words": lambda seen: seen.body.get("job_complete") == "true",
    "booleans as words, capital": lambda seen: seen.body.get("job_complete") == "True",
    "false as a word": lambda seen: seen.body.get("job_complete") == "false",
    "code as a text": lambda seen: seen.body.get("code") == "2302",
    "code as a number": lambda seen: seen.body.get("code") == 2302,
    "no code": lambda seen: seen.is_answer and "code" not in seen.body,
    "no job_success": lambda seen: seen.is_answer and "job_success" not in seen.body,
    "no ids": lambda seen: seen.is_answer and not {"user_id", "job_id"} & seen.body.keys(),
    "three keys": lambda seen: seen.body.keys() == {"timestamp", "signature", "job_complete"},
    "milliseconds and Z": timestamps(SECONDS + r"\.\d{3}Z"),
    "no fraction and Z": timestamps(SECONDS + "Z"),
    "microseconds and Z": timestamps(SECONDS + r"\.\d{6}Z"),
    "nanoseconds and Z": timestamps(SECONDS + r"\.\d{9}Z"),
    "microseconds and +00:00": timestamps(SECONDS + r"\.\d{6}\+00:00"),
    "no fraction and +00:00": timestamps(SECONDS + r"\+00:00"),
    "milliseconds and an offset": timestamps(SECONDS + r"\.\d{3}\+\d\d:00"),
    "a space and an offset": timestamps(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \+\d{4}"),
    "epoch milliseconds as a text": lambda seen: re.fullmatch(r"\d{13}", _text(seen.body.get("timestamp"))) is not None,
    "epoch milliseconds as a number": lambda seen: isinstance(seen.body.get("timestamp"), int),
    # The result
    "pending without result": lambda seen: _is_false(seen) and "result" not in seen.body,
    "pending, result null": lambda seen: _is_false(seen) and seen.body.get("result", 0) is None,
    "pending, result {}": lambda seen: _is_false(seen) and seen.body.get("result") == {},
    "No zip uploaded yet": lambda seen: seen.body.get("result") == "No zip uploaded yet",
    "No zip uploaded": lambda seen: seen.body.get("result") == "No zip uploaded",
    "No zip file received": lambda seen: seen.body.get("result") == "No zip file received",
    "2314 with HTTP 200": lambda seen: seen.http_status == 200 and seen.is_answer and seen.body.get("code") == "2314",
    "2314 as an error": lambda seen: not seen.is_answer and str(seen.body.get("code")) == "2314",
    "complete without result": lambda seen: _is_true(seen) and "result" not in seen.body,
    "complete, result null": lambda seen: _is_true(seen) and seen.body.get("result", 0) is None,
    "complete, result {}": lambda seen: _is_true(seen) and seen.body.get("result") == {},
    "complete, result a text": lambda seen: _is_true(seen) and isinstance(seen.body.get("result"), str),
    "no ResultCode": lambda seen: bool(seen.result) and "ResultCode" not in seen.result,
    "no PartnerParams": lambda seen: bool(seen.result) and "PartnerParams" not in seen.result,
    "provisional": lambda seen: seen.result.get("ResultCode") == "0814" and seen.result.get("IsFinalResult") == "false",
    "no IsFinalResult": lambda seen: "ResultCode" in seen.result and "IsFinalResult" not in seen.result,
    "no IsMachineResult": lambda seen: "ResultCode" in seen.result and "IsMachineResult" not in seen.result,
    "no ResultText": lambda seen: "ResultCode" in seen.result and "ResultText" not in seen.result,
    "job_type as a number": lambda seen: isinstance(_params(seen).get("job_type"), int),
    "job_type as a text": lambda seen: isinstance(_params(seen).get("job_type"), str),
    "confidence, six digits": lambda seen: seen.result.get("ConfidenceValue") == "99.000000",
    "confidence, two digits": lambda seen: seen.result.get("ConfidenceValue") == "99.00",
    "confidence, no digits": lambda seen: seen.result.get("ConfidenceValue") == "99",
    "confidence as a number": lambda seen: seen.result.get("ConfidenceValue") == 99,
    "confidence as a fraction": lambda seen: b'"ConfidenceValue":99.0' in seen.raw,
    "no confidence": lambda seen: seen.result.get("ResultType") == "SAIA" and "ConfidenceValue" not in seen.result,
    "actions": lambda seen: bool(seen.result.get("Actions")),
    "no actions": lambda seen: "ResultCode" in seen.result and "Actions" not in seen.result,
    "actions {}": lambda seen: seen.result.get("Actions") == {},
    "a person": lambda seen: "FullName" in seen.result and seen.result.get("ExpirationDate") == "Not Available",
    "nested data": lambda seen: isinstance(seen.result.get("FullData"), dict),
    "fraud in the result": lambda seen: "Antifraud" in seen.result,
    "fraud beside it": lambda seen: {"Antifraud", "kyc_receipt"} <= seen.body.keys(),
    "a receipt with the answer's own proof": lambda seen: (
        f"?signature={seen.body.get('signature')}&timestamp={seen.body.get('timestamp')}&environment=test"
        in _text(seen.body.get("kyc_receipt"))
    ),
    "a receipt of a business": lambda seen: "kyb_receipt" in seen.body and "kyc_receipt" not in seen.body,
    "the recorded shape": lambda seen: (
        seen.body.keys() == {"timestamp", "signature", "job_complete", "job_success", "code", "result", "kyc_receipt"}
        and len(seen.result.get("Actions") or ()) == 12
    ),
    "a naive timestamp inside": lambda seen: (
        re.fullmatch(SECONDS + r"\.\d{6}", _text(seen.result.get("timestamp"))) is not None
    ),
    "1.5 MB": lambda seen: len(seen.raw) > 1_500_000 and seen.is_answer,
    "keys twice": lambda seen: seen.raw.count(b'"job_complete":') == 2,
    # History and links
    "history of the user": lambda seen: len(seen.body.get("history") or ()) > 1,
    "history []": lambda seen: seen.body.get("history") == [],
    "history null": lambda seen: seen.body.get("history", 0) is None,
    "no history": lambda seen: seen.is_answer and "history" not in seen.body,
    "history, job types as texts": lambda seen: any(
        isinstance(entry["PartnerParams"]["job_type"], str) for entry in seen.body.get("history") or ()
    ),
    "links that expire": lambda seen: "X-Amz-Expires=900" in str(seen.body.get("image_links")),
    "links of a document": lambda seen: "id_card_back" in (seen.body.get("image_links") or {}),
    "links in the result": lambda seen: "ImageLinks" in seen.result,
    "links null": lambda seen: seen.body.get("image_links", 0) is None,
    "no links": lambda seen: seen.is_answer and "image_links" not in seen.body,
    "an error for links": lambda seen: "error" in _links(seen),
    "a placeholder for links": lambda seen: _links(seen).get("selfie_image") == "image_link",
    "links without a signature": lambda seen: _links(seen).get("selfie_image", "").endswith(".png"),
    # Refusals
    **{f"2304 with HTTP {status}": not_found(status) for status in (200, 400, 401, 403, 404)},
    "a refusal, code a number": lambda seen: seen.body.get("code") == 2304,
    "a refusal, error": lambda seen: seen.body.keys() == {"error", "code"},
    "a refusal, message": lambda seen: seen.body.keys() == {"message", "code"},
    "a refusal, code alone": lambda seen: seen.body.keys() == {"code"},
    # Signatures
    "signed": signature(lambda text: isinstance(text, str) and re.fullmatch(r"[\w+/]{43}=", text) is not None),
    "no signature": lambda seen: seen.is_answer and "signature" not in seen.body,
    "signature null": lambda seen: seen.is_answer and seen.body.get("signature", 0) is None,
    "signature a number": signature(lambda text: isinstance(text, int)),
    "signature empty": signature(lambda text: text == ""),
    "signature not ASCII": signature(lambda text: isinstance(text, str) and not text.isascii()),
    "signature unkeyed": signature(
        lambda text: isinstance(text, str) and re.fullmatch("[0-9a-f]{64}", text) is not None
    ),
    "signature of old": signature(
        lambda text: isinstance(text, str) and re.fullmatch(r"\S+\|[0-9a-f]{64}", text) is not None
    ),
    "signature of another": lambda seen: (
        "forgeries" in seen.faults.names and re.fullmatch(r"[\w+/]{43}=", str(seen.body.get("signature"))) is not None
    ),
    "signature reflected": lambda seen: seen.is_answer and seen.body.get("signature") == seen.request["signature"],
    "an old answer": lambda seen: "replays" in seen.faults.names and seen.is_answer,
    "another job": lambda seen: seen.is_answer and seen.body.get("job_id", seen.ref.job_id) != seen.ref.job_id,
    "another user": lambda seen: seen.is_answer and seen.body.get("user_id", seen.ref.user_id) != seen.ref.user_id,
    "another job's result": lambda seen: _params(seen).get("job_id", seen.ref.job_id) != seen.ref.job_id,
    "another user's result": lambda seen: _params(seen).get("user_id", seen.ref.user_id) != seen.ref.user_id,
    # Transport
    "429, seconds": lambda seen: seen.http_status == 429 and seen.headers["retry-after"] == "2",
    "429, a date": lambda seen: seen.http_status == 429 and seen.headers["retry-after"].endswith("GMT"),
    "500 with a code": lambda seen: (seen.http_status, seen.body.get("code")) == (500, "2301"),
    "2301 with HTTP 200": lambda seen: (seen.http_status, seen.body.get("code")) == (200, "2301"),
    "502 of a gateway": lambda seen: seen.http_status == 502 and "message" in seen.body,
    "504 of a gateway": lambda seen: seen.http_status == 504 and "message" in seen.body,
    "503 with Retry-After": lambda seen: seen.http_status == 503 and "retry-after" in seen.headers,
    "502 HTML": lambda seen: seen.http_status == 502 and seen.raw.startswith(b"<html>"),
    "503 HTML": lambda seen: seen.http_status == 503 and seen.raw.startswith(b"<html>"),
    "504 HTML": lambda seen: seen.http_status == 504 and seen.raw.startswith(b"<html>"),
    "gzip": lambda seen: seen.headers.get("content-encoding") == "gzip",
    "cut before the head": lambda seen: seen.http_status == 0,
    "cut in the body": lambda seen: seen.broke_off,
}
"""By a name for each, how to recognise a shape."""


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _is_true(seen: Seen) -> bool:
    return str(seen.body.get("job_complete")).lower() == "true"


def _is_false(seen: Seen) -> bool:
    return str(seen.body.get("job_complete")).lower() == "false"


def _params(seen: Seen) -> dict[str, Any]:
    return seen.result.get("PartnerParams") or {}


def _links(seen: Seen) -> dict[str, Any]:
    return seen.body.get("image_links") or {}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_storm_produces_every_shape(sightings: list[Seen], shape: str) -> None:
    """Each known shape occurs, so that clients are tested against it."""
    assert any(SHAPES[shape](seen) for seen in sightings)


def kinds_of(seen: Seen) -> Iterator[type | None]:
    """What the answer may be read as, by what was meant: a kind of error, or None for a status."""
    if "too_many" in seen.faults.names:
        yield RateLimitedError
    elif "system_errors" in seen.faults.names:
        yield ServerError
    elif "error_pages" in seen.faults.names or seen.broke_off:
        yield BadResponseError
    elif seen.ref.job_id == "unknown":
        yield JobNotFoundError
    elif seen.ref.job_id == "disabled":
        yield ApiError
    elif "wrong_jobs" in seen.faults.names and seen.is_answer:
        yield WrongJobError
    elif "forgeries" in seen.faults.names and _says_something(seen):
        yield SignatureError
    else:
        yield None


def _says_something(seen: Seen) -> bool:
    return seen.is_answer and (_is_true(seen) or bool(seen.body.get("history")) or bool(seen.body.get("image_links")))


def test_every_answer_is_read_as_what_was_meant(sightings: list[Seen]) -> None:
    """A status, or the kind of error that fits; never another exception. What never came cannot be read."""
    for seen in sightings:
        if not seen.http_status:
            continue
        answer = seen.read()
        (kind,) = kinds_of(seen)
        assert isinstance(answer, kind or JobStatus), (seen.faults, seen.http_status, seen.raw[:2000])
        if not isinstance(answer, JobStatus) or "replays" in seen.faults.names:
            continue
        check_status(answer, seen)


def check_status(status: JobStatus, seen: Seen) -> None:
    """Each variant has the same meaning."""
    job_id = seen.ref.job_id
    is_complete = job_id not in ("running", "no-zip")
    if seen.at - EPOCH > timedelta(seconds=1.0):
        assert status.job_complete is is_complete
    if not status.job_complete:
        assert (status.verdict, status.is_final, status.result) == (None, False, None)
        return
    if "bare_results" in seen.faults.names:
        assert status.verdict in (Verdict.UNKNOWN, *OUTCOMES.values(), Verdict.PROVISIONAL)
        assert "PartnerParams" not in seen.result or "ResultCode" not in seen.result
        return
    meant = Verdict.PROVISIONAL if job_id == "review" else OUTCOMES[seen.ref.user_id.removeprefix("user-")]
    assert (status.verdict, status.is_final) == (meant, job_id != "review")
    assert status.job_success in (None, meant in (Verdict.APPROVED, Verdict.PROVISIONAL))
    assert status.timestamp is not None
    # A slow body takes 10 s; some timestamps have whole seconds, and the clock ticks on.
    assert abs(status.timestamp - seen.at) < timedelta(seconds=12)
    assert status.result is not None
    assert len(status.result.smile_job_id or "") == 10


def test_most_answers_verify(sightings: list[Seen]) -> None:
    """With each format of the timestamp; only forgeries do not, and refusals, which have no signature."""
    for seen in sightings:
        verified = verify(CREDENTIALS, seen.body.get("timestamp"), seen.body.get("signature"))
        assert verified is (seen.is_answer and "forgeries" not in seen.faults.names)


def test_dates_and_seconds_ask_for_the_same_rest(sightings: list[Seen]) -> None:
    """Two seconds, rounded up where a date needs whole ones."""
    rests = [seen for seen in sightings if "retry-after" in seen.headers]
    for seen in rests:
        text = seen.headers["retry-after"]
        if text.isdigit():
            assert text == "2"
        else:
            rest = parsedate_to_datetime(text).astimezone(UTC) - seen.at
            assert timedelta(seconds=2) <= rest < timedelta(seconds=3)
    assert rests


MEANINGS = {
    "approved": ("approved", Verdict.APPROVED, True),
    "rejected": ("rejected", Verdict.REJECTED, True),
    "review": ("approved", Verdict.PROVISIONAL, False),
}


@given(
    names=st.sets(st.sampled_from(sorted(VARIANTS))),
    job_type=st.sampled_from([1, 2, 5, 6]),
    meaning=st.sampled_from(sorted(MEANINGS)),
    seed=st.integers(0, 10**6),
    flags=st.booleans(),
)
def test_no_variant_changes_the_meaning(
    names: set[str], job_type: int, meaning: str, seed: int, *, flags: bool
) -> None:
    """Any of them, together or alone: the same verdict, finality and result code."""
    outcome, verdict, is_final = MEANINGS[meaning]
    profile = FaultProfile(variants=1.0, variant_names=tuple(sorted(names)))
    sandbox = Sandbox(faults=profile, seed=seed, now=virtual_now)

    async def ask() -> JobStatus:
        sandbox.submit(
            "user-1",
            "job-1",
            outcome=outcome,
            job_type=job_type,
            machine=0,
            review="open" if meaning == "review" else None,
        )
        async with sandbox.client(attempts=1) as client:
            return await client.job_status("user-1", "job-1", image_links=flags, history=flags)

    status = anyio.run(ask)
    assert (status.verdict, status.is_final) == (verdict, is_final)
    assert status.code in ("2302", None)
    assert status.result is not None
    assert status.result.result_code == ("0814" if meaning == "review" else sandbox.jobs[status.ref].result_code)
    assert len(status.history) == flags
    assert bool(status.image_links) is flags
