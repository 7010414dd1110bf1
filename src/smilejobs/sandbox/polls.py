"""``POST /v1/job_status``: what is true of the job, and what the weather makes of it."""

import math
import random
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import anyio
from attrs import define, evolve, frozen
from starlette.requests import Request

from smilejobs.model.codes import JOB_NOT_FOUND, NO_ZIP, SUCCESS
from smilejobs.model.jobs import JobRef
from smilejobs.sandbox.answers import Answer, gzipped, json_answer, of_the_api
from smilejobs.sandbox.dice import dice
from smilejobs.sandbox.images import Images
from smilejobs.sandbox.jobs import Job, Stage
from smilejobs.sandbox.products import has_succeeded
from smilejobs.sandbox.requests import (
    Family,
    RefusalError,
    check_fresh,
    check_partner,
    parameter,
    read_object,
    root_of,
)
from smilejobs.sandbox.spelling import (
    Body,
    encode,
    fail_links,
    forge,
    make_bare,
    make_huge,
    name_another_job,
    refusal_status,
    respell,
    sign_body,
)
from smilejobs.sandbox.state import NotKeptError, keeping
from smilejobs.sandbox.weather import CALM, Plan, Weather, plan
from smilejobs.settings import Credentials
from smilejobs.wire.codec import JSONObject, is_true
from smilejobs.wire.signature import format_timestamp

_FAMILY = Family(invalid_json="2303", wrong_signature="2305", missing_parameter="2313", system_error="2301")
_NO_ZIP_TEXT = "No zip uploaded yet"
_OLDEST_REPLAY = 60.0

_PAGE = "<html>\r\n<head><title>{0}</title></head>\r\n<body>\r\n<center><h1>{0}</h1></center>\r\n</body>\r\n</html>\r\n"
_REASONS = {502: "502 Bad Gateway", 503: "503 Service Temporarily Unavailable", 504: "504 Gateway Time-out"}

_GOES_WELL = Plan()
_NO_DICE = random.Random(0)
"""Stands where dice are wanted but, in calm weather, never thrown."""


@define
class _Bucket:
    """Tokens for the polls of one weather: it holds those of one second, and at least one."""

    tokens: float
    filled_at: datetime

    def take(self, rate: float, now: datetime) -> bool:
        """Take a token, if there is one."""
        earned = max(0.0, (now - self.filled_at).total_seconds()) * rate
        self.tokens = min(self.tokens + earned, max(1.0, rate))
        self.filled_at = now
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True


@frozen(kw_only=True)
class _Poll:
    """What is asked, and what is to become of the answer.

    Attributes:
        ref: The job.
        asked: The body of the request.
        root: Where the client has found the sandbox.
        accepts_gzip: Whether the client takes a compressed answer.
        weather: What the poll has to live with.
        plan: What has been drawn for it.
        chance: The dice for all that is still to be drawn.
    """

    ref: JobRef
    asked: JSONObject
    root: str
    accepts_gzip: bool
    weather: Weather
    plan: Plan
    chance: random.Random


class Polls:
    """Answers polls.

    Args:
        jobs: The jobs, by name.
        credentials: Whose requests are answered, and who signs.
        seed: Draws what goes wrong.
        weather: What polls have to live with, but for the jobs that have a weather of their own.
        max_skew: How far the timestamp of a request may be from the clock; None for any distance.
        images: Makes the links.
        now: The wall clock.
        keep: Keeps how many polls about a job there were; an OSError says that it cannot.

    Attributes:
        counts: How many polls there were, by job, whether it is known or not.
    """

    def __init__(
        self,
        jobs: Mapping[JobRef, Job],
        credentials: Credentials,
        *,
        seed: int,
        weather: Weather,
        max_skew: timedelta | None,
        images: Images,
        now: Callable[[], datetime],
        keep: Callable[[JobRef, int], None],
    ) -> None:
        self._jobs = jobs
        self._credentials = credentials
        self._seed = seed
        self._weather = weather
        self._max_skew = max_skew
        self._images = images
        self._now = now
        self._keep = keep
        self._buckets: dict[Weather, _Bucket] = {}
        self.counts: Counter[JobRef] = Counter()

    async def answer(self, request: Request) -> Answer:
        """Answer one poll; sleep first, if the weather is like that."""
        return of_the_api(await self._answer(request))

    async def _answer(self, request: Request) -> Answer:
        try:
            poll = await self._read(request)
        except RefusalError as refusal:
            return json_answer(refusal.body, refusal.http_status)
        if self._is_too_fast(poll.weather):
            return _too_many(poll, self._now())
        if poll.plan.latency:
            await anyio.sleep(poll.plan.latency)
        if poll.plan.instead in _INSTEAD:
            return _INSTEAD[poll.plan.instead](poll, self._now())
        return self._written(poll)

    async def _read(self, request: Request) -> _Poll:
        """Return the poll that *request* is, and throw the dice for it.

        Raises:
            RefusalError: It is none, or not one of the partner.
        """
        asked = await read_object(request, _FAMILY)
        ref = self._asked_for(asked)
        count = self.counts[ref] + 1
        try:
            with keeping():
                self._keep(ref, count)
        except NotKeptError:
            raise RefusalError(_FAMILY.system_error) from None
        self.counts[ref] = count
        job = self._jobs.get(ref)
        weather = self._weather if job is None or job.weather is None else job.weather
        drawn, chance = _GOES_WELL, _NO_DICE
        if weather is not CALM:
            chance = dice(self._seed, "poll", ref.user_id, ref.job_id, count)
            drawn = plan(weather, chance)
        return _Poll(
            ref=ref,
            asked=asked,
            root=root_of(request),
            accepts_gzip="gzip" in request.headers.get("accept-encoding", ""),
            weather=weather,
            plan=drawn,
            chance=chance,
        )

    def _asked_for(self, asked: JSONObject) -> JobRef:
        """Return the job that the request asks for, if the partner asks."""
        user_id, job_id = (parameter(asked, name, _FAMILY) for name in ("user_id", "job_id"))
        check_partner(asked, "partner_id", self._credentials, _FAMILY)
        check_fresh(asked, self._max_skew, self._now())
        try:
            return JobRef(user_id, job_id)
        except ValueError:
            raise RefusalError(_FAMILY.missing_parameter) from None

    # --- The truth

    def _truth(self, job: Job | None, poll: _Poll, at: datetime) -> Body:
        """Return what the API says about the job at the instant *at*, not signed yet.

        Raises:
            RefusalError: It says no.
        """
        if job is None:
            raise RefusalError(JOB_NOT_FOUND)
        if job.refusal is not None:
            raise RefusalError(job.refusal)
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
                for other in self._jobs.values()
                if other.ref.user_id == job.ref.user_id
                for result in other.results(at)
            ]
        return body

    # --- The weather

    def _is_too_fast(self, weather: Weather) -> bool:
        if weather.rate is None:
            return False
        now = self._now()
        bucket = self._buckets.get(weather)
        if bucket is None:
            bucket = self._buckets[weather] = _Bucket(max(1.0, weather.rate), now)
        return not bucket.take(weather.rate, now)

    def _written(self, poll: _Poll) -> Answer:
        """Return the truth, as it is written in this weather."""
        job, at, drawn, chance = self._jobs.get(poll.ref), self._now(), poll.plan, poll.chance
        if drawn.untrue == "replays" and job is not None and job.ref.submitted_at is not None:
            at = max(job.ref.submitted_at, at - timedelta(seconds=chance.uniform(0.0, _OLDEST_REPLAY)))
        http_status = 200
        body: Body
        try:
            body = self._truth(job, poll, at)
        except RefusalError as refusal:
            body = refusal.body
        self._change(body, poll, at)
        if "job_complete" not in body:
            http_status = refusal_status(drawn.respellings, chance)
        answer = Answer(http_status=http_status, body=encode(body, drawn.respellings))
        if drawn.is_gzipped and poll.accepts_gzip:
            answer = gzipped(answer)
        if drawn.is_slow:
            answer = evolve(answer, drips_for=poll.weather.slow)
        if drawn.instead == "cuts":
            before = chance.random() < 0.5
            answer = evolve(answer, cut_at=-1 if before else chance.randrange(len(answer.body)))
        return answer

    def _change(self, body: Body, poll: _Poll, at: datetime) -> None:
        """Change *body* as was drawn, and sign it."""
        drawn, chance = poll.plan, poll.chance
        links = body.get("image_links")
        if drawn.has_link_error and isinstance(links, dict):
            body["image_links"] = fail_links(links, chance)
        is_complete = bool(body.get("job_complete"))
        if drawn.is_huge and is_complete:
            make_huge(body)
        respell(body, drawn.respellings, at, chance)
        if drawn.is_bare and is_complete:
            make_bare(body, chance)
        if "job_complete" not in body:
            return
        if drawn.untrue == "wrong_jobs":
            name_another_job(body, poll.ref, chance)
        sign_body(body, self._credentials, poll.root)
        if drawn.untrue == "reflections":
            body |= {"timestamp": poll.asked["timestamp"], "signature": poll.asked["signature"]}
        if drawn.untrue == "forgeries":
            forge(body, self._credentials, chance)


def _too_many(poll: _Poll, now: datetime) -> Answer:
    return json_answer({"message": "Too Many Requests"}, 429, _rest(poll, 429, now))


def _system_error(poll: _Poll, now: datetime) -> Answer:
    """The API's own, which has a code, or one of the gateway before it."""
    http_status, body = poll.chance.choice(
        (
            (500, {"error": "System error", "code": _FAMILY.system_error}),
            (200, {"error": "System error", "code": _FAMILY.system_error}),
            (502, {"message": "Internal server error"}),
            (503, {"message": "Service Unavailable"}),
            (504, {"message": "Endpoint request timed out"}),
        )
    )
    return json_answer(body, http_status, _rest(poll, http_status, now))


def _error_page(poll: _Poll, now: datetime) -> Answer:
    http_status = poll.chance.choice(tuple(_REASONS))
    page = _PAGE.format(_REASONS[http_status]).encode()
    return Answer(http_status=http_status, body=page, media_type="text/html", headers=_rest(poll, http_status, now))


def _rest(poll: _Poll, http_status: int, now: datetime) -> dict[str, str]:
    """Return the ``Retry-After`` of a 429 or 503: seconds, or a date, both in whole seconds."""
    rest = poll.weather.retry_after
    if rest is None or http_status not in (429, 503):
        return {}
    if poll.chance.random() >= poll.weather.retry_after_dates:
        return {"retry-after": str(math.ceil(rest))}
    at = now + timedelta(seconds=rest, microseconds=999_999)
    return {"retry-after": format_datetime(at.astimezone(UTC).replace(microsecond=0), usegmt=True)}


_INSTEAD = {"too_many": _too_many, "system_errors": _system_error, "error_pages": _error_page}
"""What comes in the place of an answer, by its knob. A cut needs an answer that it can cut."""
