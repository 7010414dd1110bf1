"""The API's side of the conversation."""

import math
import random
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from datetime import datetime, timedelta
from types import MappingProxyType

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from smilejobs.client import utcnow
from smilejobs.durations import Duration, seconds
from smilejobs.model.codes import JOB_NOT_FOUND, NO_ZIP, STATUS_CODES, SUCCESS
from smilejobs.model.jobs import JobRef
from smilejobs.sandbox.jobs import Job, has_succeeded, result_code_for
from smilejobs.sandbox.links import LONGEST, LinkRefusedError, check, presign
from smilejobs.sandbox.picture import picture
from smilejobs.sandbox.server import listening
from smilejobs.settings import Credentials
from smilejobs.wire.codec import JSONObject, UnreadableError, decode_object, decode_text, is_true
from smilejobs.wire.protocol import PATH
from smilejobs.wire.signature import format_timestamp, sign, verify

_BASE = "/v1"
_IMAGE = "/images/{smile_job_id}/SID_Preview_Full.png"
_MAX_BODY = 1024 * 1024

_INVALID_JSON = "2303"
_INVALID_SIGNATURE = "2305"
_MISSING_PARAMETER = "2313"
_NO_ZIP_TEXT = "No zip uploaded yet"


class _RefusalError(Exception):
    def __init__(self, code: str, http_status: int = 400) -> None:
        super().__init__(code)
        self.code = code
        self.http_status = http_status


class Sandbox:
    """Answers ``POST /v1/job_status`` as the vendor does, for jobs that were submitted by a call of `submit`.

    In process, on asyncio and trio::

        sandbox = Sandbox()
        ref = sandbox.submit("user-1", "job-1", machine=5.0)
        http_client = httpx.AsyncClient(transport=httpx.ASGITransport(app=sandbox.app))
        client = smilejobs.Client(
            partner_id="085", api_key="sandbox-key", base_url="https://sandbox.test/v1", http_client=http_client
        )

    or over a socket, see `serve`. Where a job stands depends on nothing but the instant of the question: with the same
    seed and the same calls at the same instants, every answer is the same, byte for byte.

    Args:
        partner_id: Whose jobs these are.
        api_key: The key that verifies requests and signs answers.
        seed: Draws the durations that `submit` leaves open.
        link_lifetime: Seconds (or a timedelta) for which a link to an image works: a whole number, as AWS has it. The
            vendor's links were seen to live 900 s.
        now: The wall clock, as a function that returns an aware datetime.

    Attributes:
        app: The ASGI application.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument can never be right; the text names it.
    """

    def __init__(
        self,
        *,
        partner_id: str = "085",
        api_key: str = "sandbox-key",
        seed: int = 0,
        link_lifetime: Duration = 900.0,
        now: Callable[[], datetime] = utcnow,
    ) -> None:
        lifetime = seconds(link_lifetime, "link_lifetime")
        if not lifetime.is_integer() or not 1 <= lifetime <= LONGEST:
            raise ValueError(f"link_lifetime must be a whole number of seconds from 1 to {LONGEST}")
        self._credentials = Credentials(partner_id, api_key)
        self._random = random.Random(seed)
        self._link_lifetime = int(lifetime)
        self._now = now
        self._jobs: dict[JobRef, Job] = {}
        self._polls: Counter[JobRef] = Counter()
        self.app = Starlette(
            routes=[
                Route(_BASE + PATH, self._job_status, methods=["POST"]),
                Route(_IMAGE, self._image, methods=["GET"]),
            ]
        )

    def submit(
        self,
        user_id: str,
        job_id: str,
        *,
        outcome: str = "approved",
        job_type: int = 1,
        upload: Duration | None = 0.0,
        machine: Duration | None = None,
        review: Duration | None = None,
        refusal: str | None = None,
    ) -> JobRef:
        """Register a job now, and say how it will go. Until then the API knows no such job (2304).

        While its images are not there it is pending with 2314; then the machine works, pending with 2302; then, if
        there is a review, it is complete with 0814, provisionally; then it is complete and final.

        Args:
            user_id: The name of the user.
            job_id: The name of the job.
            outcome: "approved", "rejected" or "error", for the result code that fits the product; or a result code.
            job_type: The product, see `smilejobs.JOB_TYPES`.
            upload: Seconds (or a timedelta) until its images are in; None for never.
            machine: Seconds (or a timedelta) from there to the machine's result. By default they are drawn by the
                seed, with a median of 2 s, as the vendor has published for KYC.
            review: Seconds (or a timedelta) of human review after that; None for no review.
            refusal: A status code of `smilejobs.STATUS_CODES`, such as "2301", "2307" or "2310", with which every poll
                is refused; the job never ends.

        Returns:
            The name of the job, with the instant at which it was submitted.

        Raises:
            TypeError: An argument has the wrong type.
            ValueError: An argument can never be right, or there is such a job already.
        """
        submitted_at = self._now()
        ref = JobRef(user_id, job_id, submitted_at)
        if ref in self._jobs:
            raise ValueError("there is a job with these ids already")
        if refusal is not None and (refusal not in STATUS_CODES or refusal in (SUCCESS, NO_ZIP)):
            raise ValueError(f"refusal must be a status code of smilejobs.STATUS_CODES, and not {SUCCESS} or {NO_ZIP}")
        result_code = result_code_for(outcome, job_type)
        drawn = self._random.lognormvariate(math.log(2.0), 0.6)
        uploaded_at = None if upload is None else submitted_at + _delta(upload, "upload")
        complete_at = final_at = None
        worked = _delta(drawn if machine is None else machine, "machine")
        reviewed = timedelta() if review is None else _delta(review, "review")
        if uploaded_at is not None and refusal is None:
            complete_at = uploaded_at + worked
            final_at = complete_at + reviewed
        self._jobs[ref] = Job(
            ref=ref,
            smile_job_id=f"{len(self._jobs) + 1:010d}",
            job_type=job_type,
            result_code=result_code,
            refusal=refusal,
            uploaded_at=uploaded_at,
            complete_at=complete_at,
            final_at=final_at,
        )
        return ref

    @property
    def jobs(self) -> Mapping[JobRef, Job]:
        """What was submitted, and what is meant to become of it."""
        return MappingProxyType(self._jobs)

    def polls(self, ref: JobRef) -> int:
        """Return how many polls about a job were answered, refusals included; the job need not exist."""
        return self._polls[ref]

    @asynccontextmanager
    async def serve(self, *, host: str = "127.0.0.1", port: int = 0) -> AsyncGenerator[str, None]:
        """Serve over HTTP while the block runs, in the running event loop, which must be asyncio's.

        The block gets the ``base_url`` for a client, for example "http://127.0.0.1:43211/v1".

        Args:
            host: The address to listen at; loopback, unless this is a container.
            port: The port; 0 for any that is free.

        Raises:
            OSError: The address cannot be listened at.
            RuntimeError: The event loop is not asyncio's.
        """
        async with listening(self.app, host, port) as root:
            yield root + _BASE

    async def _job_status(self, request: Request) -> Response:
        try:
            asked = _decoded(await _read(request))
            ref = self._verified(asked)
            self._polls[ref] += 1
            return JSONResponse(self._answer(ref, asked, request))
        except _RefusalError as refusal:
            body = {"error": STATUS_CODES[refusal.code].meaning, "code": refusal.code}
            return JSONResponse(body, status_code=refusal.http_status)

    def _verified(self, asked: JSONObject) -> JobRef:
        """Return the job that the request asks for, if the partner asks."""
        partner_id, timestamp, signature, user_id, job_id = (
            _parameter(asked, name) for name in ("partner_id", "timestamp", "signature", "user_id", "job_id")
        )
        if partner_id != self._credentials.partner_id or not verify(self._credentials, timestamp, signature):
            raise _RefusalError(_INVALID_SIGNATURE)
        try:
            return JobRef(user_id, job_id)
        except ValueError:
            raise _RefusalError(_MISSING_PARAMETER) from None

    def _answer(self, ref: JobRef, asked: JSONObject, request: Request) -> dict[str, object]:
        job = self._jobs.get(ref)
        if job is None:
            raise _RefusalError(JOB_NOT_FOUND)
        if job.refusal is not None:
            raise _RefusalError(job.refusal)
        now = self._now()
        timestamp = format_timestamp(now)
        has_zip = job.uploaded_at is not None and job.uploaded_at <= now
        body: dict[str, object] = {
            "timestamp": timestamp,
            "signature": sign(self._credentials, timestamp),
            "user_id": ref.user_id,
            "job_id": ref.job_id,
            "job_complete": False,
            "job_success": False,
            "code": SUCCESS if has_zip else NO_ZIP,
        }
        if not has_zip:
            body["result"] = _NO_ZIP_TEXT
        results = job.results(now)
        if results:
            body["job_complete"] = True
            body["job_success"] = has_succeeded(str(results[-1]["ResultCode"]))
            body["result"] = results[-1]
            if is_true(asked.get("image_links")):
                body["image_links"] = {"selfie_image": self._link(job, request, now)}
        if is_true(asked.get("history")):
            body["history"] = [
                result
                for other in self._jobs.values()
                if other.ref.user_id == ref.user_id
                for result in other.results(now)
            ]
        return body

    def _link(self, job: Job, request: Request, now: datetime) -> str:
        host, path = _host(request), _IMAGE.format(smile_job_id=job.smile_job_id)
        query = presign(self._credentials.api_key, host, path, at=now, lifetime=self._link_lifetime)
        return f"{request.scope['scheme']}://{host}{path}?{query}"

    async def _image(self, request: Request) -> Response:
        path, query = request.scope["path"], request.scope["query_string"].decode("latin-1")
        try:
            check(self._credentials.api_key, _host(request), path, query, self._now())
        except LinkRefusedError as error:
            xml = (
                '<?xml version="1.0" encoding="UTF-8"?>\n'
                f"<Error><Code>{error.code}</Code><Message>{error}</Message></Error>"
            )
            return Response(xml, status_code=403, media_type="application/xml")
        return Response(picture(request.path_params["smile_job_id"]), media_type="image/png")


def _delta(value: Duration, name: str) -> timedelta:
    return timedelta(seconds=seconds(value, name))


async def _read(request: Request) -> bytes:
    pieces = []
    size = 0
    try:
        async with aclosing(request.stream()) as stream:
            async for piece in stream:
                size += len(piece)
                if size > _MAX_BODY:
                    raise _RefusalError(_INVALID_JSON, http_status=413)
                pieces.append(piece)
    except ClientDisconnect:
        raise _RefusalError(_INVALID_JSON) from None
    return b"".join(pieces)


def _decoded(body: bytes) -> JSONObject:
    try:
        return decode_object(body)
    except UnreadableError:
        raise _RefusalError(_INVALID_JSON) from None


def _parameter(asked: JSONObject, name: str) -> str:
    """Return a required parameter; clients of the vendor's send ids as numbers too."""
    try:
        value = decode_text(asked, name)
    except UnreadableError:
        value = None
    if not value:
        raise _RefusalError(_MISSING_PARAMETER)
    return value


def _host(request: Request) -> str:
    return request.headers.get("host", "localhost")
