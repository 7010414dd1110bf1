"""``POST /v1/job_status``: the answer about a job, and the faults that the fault profile adds to it."""

import math
import random
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import anyio
from attrs import define, evolve, frozen
from starlette.requests import Request

from smilejobs.model.codes import JOB_NOT_FOUND, NO_ZIP, SUCCESS
from smilejobs.model.jobs import JobRef
from smilejobs.sandbox.faults import NO_FAULTS, FaultProfile, PollFaults, draw_faults
from smilejobs.sandbox.http.answers import Answer, compress, json_answer, with_api_headers
from smilejobs.sandbox.http.images import Images
from smilejobs.sandbox.http.requests import ApiRefusedError, Codes, check_partner, read_object, read_parameter, root_of
from smilejobs.sandbox.jobs import Stage
from smilejobs.sandbox.products import has_succeeded
from smilejobs.sandbox.registry import Registry
from smilejobs.sandbox.variants import (
    Body,
    apply_variants,
    break_links,
    draw_refusal_status,
    encode,
    forge,
    make_bare,
    make_huge,
    name_another_job,
    sign_body,
)
from smilejobs.wire.codec import JSONObject, is_true
from smilejobs.wire.signature import format_timestamp

CODES = Codes(invalid_json="2303", wrong_signature="2305", missing_parameter="2313", system_error="2301")

_NO_ZIP_TEXT = "No zip uploaded yet"
_MAX_REPLAY_AGE_SECONDS = 60.0
_PAGE = "<html>\r\n<head><title>{0}</title></head>\r\n<body>\r\n<center><h1>{0}</h1></center>\r\n</body>\r\n</html>\r\n"
_REASONS = {502: "502 Bad Gateway", 503: "503 Service Temporarily Unavailable", 504: "504 Gateway Time-out"}
_SYSTEM_ERRORS: tuple[tuple[int, dict[str, str]], ...] = (
    (500, {"error": "System error", "code": CODES.system_error}),
    (200, {"error": "System error", "code": CODES.system_error}),
    (502, {"message": "Internal server error"}),
    (503, {"message": "Service Unavailable"}),
    (504, {"message": "Endpoint request timed out"}),
)
"""Errors of the API itself, which have a code, and of the gateway before it."""


@define
class _TokenBucket:
    """The token bucket of one fault profile; it holds the tokens of one second, and at least one."""

    tokens: float
    filled_at: datetime

    def take(self, rate: float, now: datetime) -> bool:
        """Take a token; return whether there was one."""
        earned = max(0.0, (now - self.filled_at).total_seconds()) * rate
        self.tokens = min(self.tokens + earned, max(1.0, rate))
        self.filled_at = now
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True


@frozen(kw_only=True, repr=False)  # the body is signed
class _Poll:
    """One poll: the job, the body of the request, and the URL at which the client reached the sandbox."""

    ref: JobRef
    asked: JSONObject
    root: str


class Status:
    """Answers polls. *max_skew* is that of `Sandbox`."""

    def __init__(self, registry: Registry, images: Images, *, max_skew: timedelta | None) -> None:
        self._registry = registry
        self._images = images
        self._max_skew = max_skew
        self._buckets: dict[FaultProfile, _TokenBucket] = {}

    async def answer(self, request: Request) -> Answer:
        """Answer one poll."""
        asked = await read_object(request, CODES)
        user_id, job_id = (read_parameter(asked, name, CODES) for name in ("user_id", "job_id"))
        check_partner(asked, "partner_id", self._registry, self._max_skew, CODES)
        try:
            ref = JobRef(user_id, job_id)
        except ValueError:
            raise ApiRefusedError(CODES.missing_parameter) from None
        poll = _Poll(ref=ref, asked=asked, root=root_of(request))
        count = self._registry.count("poll", ref.user_id, ref.job_id)
        profile = self._registry.faults_of(self._registry.jobs.get(ref))
        if profile is NO_FAULTS:
            body = self._make_body(poll, self._registry.now())
            sign_body(body, self._registry.credentials, poll.root)
            return with_api_headers(Answer(body=encode(body)))
        rng = self._registry.rng("poll", ref.user_id, ref.job_id, count)
        accepts_gzip = "gzip" in request.headers.get("accept-encoding", "")
        return with_api_headers(await self._answer_with_faults(poll, profile, rng, accepts_gzip=accepts_gzip))

    def _make_body(self, poll: _Poll, at: datetime) -> Body:
        """Return what the API answers about the job at the time *at*, not signed yet.

        Raises:
            ApiRefusedError: The API refuses.
        """
        job = self._registry.jobs.get(poll.ref)
        if job is None:
            raise ApiRefusedError(JOB_NOT_FOUND)
        if job.refusal is not None:
            raise ApiRefusedError(job.refusal)
        has_zip = job.stage(at) is not Stage.NO_ZIP
        results = job.results(at)
        body: Body = {
            "timestamp": format_timestamp(at),
            "signature": None,
            "user_id": job.ref.user_id,
            "job_id": job.ref.job_id,
            "job_complete": bool(results),
            "job_success": bool(results) and has_succeeded(str(results[-1]["ResultCode"])),
            "code": SUCCESS if has_zip else NO_ZIP,
        }
        if not has_zip:
            body["result"] = _NO_ZIP_TEXT
        if results:
            body["result"] = results[-1]
            body[job.product.receipt] = job.smile_job_id
            if is_true(poll.asked.get("image_links")):
                body["image_links"] = self._images.links(job, poll.root, at)
        if is_true(poll.asked.get("history")):
            body["history"] = [
                result
                for other in self._registry.jobs.values()
                if other.ref.user_id == job.ref.user_id
                for result in other.results(at)
            ]
        return body

    # --- Faults

    async def _answer_with_faults(
        self, poll: _Poll, profile: FaultProfile, rng: random.Random, *, accepts_gzip: bool
    ) -> Answer:
        faults = draw_faults(profile, rng)
        if self._is_above_rate(profile):
            return _refuse_too_many(profile, rng, self._registry.now())
        await anyio.sleep(faults.latency)
        now = self._registry.now()
        if "too_many" in faults.names:
            return _refuse_too_many(profile, rng, now)
        if "system_errors" in faults.names:
            http_status, error = rng.choice(_SYSTEM_ERRORS)
            return json_answer(error, http_status, _retry_after(profile, rng, http_status, now))
        if "error_pages" in faults.names:
            http_status = rng.choice(tuple(_REASONS))
            page = _PAGE.format(_REASONS[http_status]).encode()
            headers = _retry_after(profile, rng, http_status, now)
            return Answer(http_status=http_status, body=page, media_type="text/html", headers=headers)
        answer = self._change_answer(poll, faults, rng, now)
        if "gzip" in faults.names and accepts_gzip:
            answer = compress(answer)
        if "slow_bodies" in faults.names:
            answer = evolve(answer, slow_for=profile.slow)
        if "cuts" in faults.names:
            is_before_head = rng.random() < 0.5
            answer = evolve(answer, cut_at=-1 if is_before_head else rng.randrange(len(answer.body)))
        return answer

    def _is_above_rate(self, profile: FaultProfile) -> bool:
        if profile.rate is None:
            return False
        now = self._registry.now()
        bucket = self._buckets.setdefault(profile, _TokenBucket(max(1.0, profile.rate), now))
        return not bucket.take(profile.rate, now)

    def _change_answer(self, poll: _Poll, faults: PollFaults, rng: random.Random, now: datetime) -> Answer:
        """Return the answer with its faults and variants."""
        job, at = self._registry.jobs.get(poll.ref), now
        if "replays" in faults.names and job is not None and job.ref.submitted_at is not None:
            age = timedelta(seconds=rng.uniform(0.0, _MAX_REPLAY_AGE_SECONDS))
            at = max(job.ref.submitted_at, now - age)
        try:
            body = self._make_body(poll, at)
        except ApiRefusedError as refusal:
            body = dict(refusal.body)
        self._change_body(body, poll, faults, rng, at)
        http_status = 200 if "job_complete" in body else draw_refusal_status(faults.variants, rng)
        return Answer(http_status=http_status, body=encode(body, faults.variants))

    def _change_body(self, body: Body, poll: _Poll, faults: PollFaults, rng: random.Random, at: datetime) -> None:
        """Apply the faults and variants to *body*, and sign it."""
        links = body.get("image_links")
        if "link_errors" in faults.names and isinstance(links, dict):
            body["image_links"] = break_links(links, rng)
        is_complete = bool(body.get("job_complete"))
        if "huge_bodies" in faults.names and is_complete:
            make_huge(body)
        apply_variants(body, faults.variants, at, rng)
        if "bare_results" in faults.names and is_complete:
            make_bare(body, rng)
        if "job_complete" not in body:
            return
        if "wrong_jobs" in faults.names:
            name_another_job(body, poll.ref, rng)
        sign_body(body, self._registry.credentials, poll.root)
        if "reflections" in faults.names:
            body |= {"timestamp": poll.asked["timestamp"], "signature": poll.asked["signature"]}
        if "forgeries" in faults.names:
            forge(body, self._registry.credentials, rng)


def _refuse_too_many(profile: FaultProfile, rng: random.Random, now: datetime) -> Answer:
    return json_answer({"message": "Too Many Requests"}, 429, _retry_after(profile, rng, 429, now))


def _retry_after(profile: FaultProfile, rng: random.Random, http_status: int, now: datetime) -> dict[str, str]:
    """Return the ``Retry-After`` header of a 429 or 503: seconds or a date, rounded up to whole seconds."""
    delay = profile.retry_after
    if delay is None or http_status not in (429, 503):
        return {}
    if rng.random() >= profile.retry_after_dates:
        return {"retry-after": str(math.ceil(delay))}
    at = now + timedelta(seconds=delay, microseconds=999_999)
    return {"retry-after": format_datetime(at.astimezone(UTC).replace(microsecond=0), usegmt=True)}
