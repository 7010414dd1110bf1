"""``POST /v1/job_status``: the answer about a job, and the faults that the fault profile adds to it."""

import gzip
import math
import random
from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import anyio
from attrs import field, frozen
from starlette.requests import Request
from starlette.responses import Response

from smilejobs.model.codes import JOB_NOT_FOUND, NO_ZIP, SUCCESS
from smilejobs.sandbox.faults import FAULT_PROFILES, FaultProfile, PollFaults, draw_faults
from smilejobs.sandbox.http.common import STATUS, api_response, encode_json, read_ref, read_signed, refusal, root_of
from smilejobs.sandbox.http.images import Images
from smilejobs.sandbox.jobs import Job, Stage
from smilejobs.sandbox.products import has_succeeded
from smilejobs.sandbox.registry import Registry
from smilejobs.sandbox.variants import Draft
from smilejobs.wire.codec import JSONObject, is_true
from smilejobs.wire.signature import format_timestamp

_NO_ZIP_TEXT = "No zip uploaded yet"
_MAX_REPLAY_AGE_SECONDS = 60.0
_PAGE = "<html>\r\n<head><title>{0}</title></head>\r\n<body>\r\n<center><h1>{0}</h1></center>\r\n</body>\r\n</html>\r\n"
_UNUSED = random.Random()
"""Stands for the random generator of a poll without faults; to make one takes longer than to sign the answer."""
_SYSTEM_ERROR = {"error": "System error", "code": "2301"}
_REPLACEMENTS: Mapping[str, tuple[tuple[int, object], ...]] = {
    "too_many": ((429, {"message": "Too Many Requests"}),),
    "system_errors": (
        (500, _SYSTEM_ERROR),
        (200, _SYSTEM_ERROR),
        (502, {"message": "Internal server error"}),
        (503, {"message": "Service Unavailable"}),
        (504, {"message": "Endpoint request timed out"}),
    ),
    "error_pages": (
        (502, _PAGE.format("502 Bad Gateway")),
        (503, _PAGE.format("503 Service Temporarily Unavailable")),
        (504, _PAGE.format("504 Gateway Time-out")),
    ),
}
"""What takes the place of an answer: errors of the API itself, which have a code, and of the gateway before it."""


@frozen
class Status:
    """Answers polls."""

    registry: Registry
    images: Images
    _buckets: dict[FaultProfile, tuple[float, datetime]] = field(init=False, factory=dict)
    """The tokens of each fault profile, and when they were counted."""

    async def answer(self, request: Request) -> Response:
        """Answer one poll."""
        asked = await read_signed(request, STATUS, self.registry)
        ref = read_ref(asked, STATUS, self.registry)
        number = self.registry.count("poll", ref.user_id, ref.job_id)
        profile = self.registry.faults_of(self.registry.jobs.get(ref))
        faults, rng = PollFaults(), _UNUSED
        if profile != FAULT_PROFILES["none"]:  # spares a fifth of the time of a poll
            rng = self.registry.rng("poll", ref.user_id, ref.job_id, number)
            faults = draw_faults(profile, rng)
        replacement = next((name for name in _REPLACEMENTS if name in faults.names), None)
        if self._is_above_rate(profile):
            replacement = "too_many"
        elif faults.latency:
            await anyio.sleep(faults.latency)
        if replacement is not None:
            return _replace(replacement, profile, rng, self.registry.now())
        job, at = self.registry.jobs.get(ref), self.registry.now()
        if "replays" in faults.names and job is not None and job.ref.submitted_at is not None:
            at = max(job.ref.submitted_at, at - timedelta(seconds=rng.uniform(0.0, _MAX_REPLAY_AGE_SECONDS)))
        root = root_of(request)
        body = refusal(JOB_NOT_FOUND) if job is None else self._make_body(job, asked, at, root)
        draft = Draft(ref=ref, at=at, asked=asked, credentials=self.registry.credentials, rng=rng, body=body)
        draft.finish(faults.names, root)
        return _send(draft, profile, faults.names, request)

    def _make_body(self, job: Job, asked: JSONObject, at: datetime, root: str) -> dict[str, Any]:
        """Return what the API answers about the job at the time *at*, not signed yet."""
        if job.refusal is not None:
            return refusal(job.refusal)
        has_zip = job.stage(at) is not Stage.NO_ZIP
        results = job.results(at)
        body: dict[str, Any] = {
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
            if is_true(asked.get("image_links")):
                body["image_links"] = self.images.links(job, root, at)
        if is_true(asked.get("history")):
            body["history"] = [
                result
                for other in self.registry.jobs.values()
                if other.ref.user_id == job.ref.user_id
                for result in other.results(at)
            ]
        return body

    def _is_above_rate(self, profile: FaultProfile) -> bool:
        """Take a token from the bucket of a profile, which holds those of one second; return whether there was none."""
        if profile.rate is None:
            return False
        now, most = self.registry.now(), max(1.0, profile.rate)
        tokens, since = self._buckets.get(profile, (most, now))
        tokens = min(most, tokens + max(0.0, (now - since).total_seconds()) * profile.rate)
        self._buckets[profile] = (tokens - 1 if tokens >= 1 else tokens, now)
        return tokens < 1


def _replace(name: str, profile: FaultProfile, rng: random.Random, now: datetime) -> Response:
    """Return what takes the place of an answer; a 429 or 503 has a ``Retry-After``, rounded up to whole seconds."""
    http_status, content = rng.choice(_REPLACEMENTS[name])
    headers = {}
    delay = profile.retry_after
    if delay is not None and http_status in (429, 503):
        headers["retry-after"] = str(math.ceil(delay))
        if rng.random() < profile.retry_after_dates:
            at = now + timedelta(seconds=delay, microseconds=999_999)
            headers["retry-after"] = format_datetime(at.astimezone(UTC).replace(microsecond=0), usegmt=True)
    if isinstance(content, str):
        return api_response(content.encode(), http_status, headers, "text/html")
    return api_response(encode_json(content), http_status, headers)


def _send(draft: Draft, profile: FaultProfile, faults: Collection[str], request: Request) -> Response:
    """Return the response to a poll, with the faults of its transport."""
    body, headers = draft.beginning + encode_json(draft.body)[1:], {}
    if "gzip" in faults and "gzip" in request.headers.get("accept-encoding", ""):
        body, headers = gzip.compress(body, mtime=0), {"content-encoding": "gzip"}
    response = api_response(body, draft.refused_with if draft.is_refusal else 200, headers)
    if "slow_bodies" in faults:
        response.slow_for = profile.slow
    if "cuts" in faults:
        response.cut_at = -1 if draft.rng.random() < 0.5 else draft.rng.randrange(len(body))
    return response
