"""Submitting a job over HTTP: the registration, and the upload of its zip.

It is done in two steps. ``POST /v1/upload`` registers the job and answers with a URL; a PUT of the zip to that URL
starts it. The store that takes the zip does not look into it: whatever is wrong with it becomes the job's result.
Sources: the vendor's client libraries, and its pages about test data.
"""

import re
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from hashlib import sha256

from attrs import field, frozen
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from smilejobs.model.codes import JOB_TYPES
from smilejobs.model.jobs import JobRef
from smilejobs.sandbox.answers import Answer, Endpoint, json_answer, of_the_api, preflight
from smilejobs.sandbox.jobs import Job
from smilejobs.sandbox.links import LinkRefusedError, check, presign
from smilejobs.sandbox.requests import (
    CROSS_ORIGIN,
    CutOffError,
    Family,
    RefusalError,
    TooLargeError,
    can_be_sent,
    check_fresh,
    check_partner,
    host_of,
    parameter,
    read,
    read_object,
    root_of,
    storage_error,
    storage_unavailable,
)
from smilejobs.sandbox.state import NotKeptError, keeping
from smilejobs.sandbox.zips import Finding, examine
from smilejobs.settings import Credentials
from smilejobs.wire.codec import JSONObject, UnreadableError, decode_text, is_true

MAX_ZIP = 32 * 1024 * 1024
"""The most bytes of a zip."""

_FAMILY = Family(invalid_json="2203", wrong_signature="2205", missing_parameter="2213", system_error="2201")
_WRONG_TYPE = "2204"
_INVALID_JOB_TYPE = "2212"
_JOB_EXISTS = "2215"
_ACCEPTED = "2202"

PATH = "/v1/upload"
_ZIP_PATH = "/videos/{partner}/{ref_id}/{file_name}"
_NEW, _ENROLLED = "selfie.zip", "enrolled.zip"
"""The name says whether the selfie on file is used. It is signed with the URL, so that nobody need remember it."""
_LIFETIME = 900
"""Seconds for which the URL takes the zip, as recorded."""


@frozen(kw_only=True)
class Registration:
    """What ``POST /v1/upload`` says about a job.

    Attributes:
        ref: Its name.
        job_type: The product.
        partner_params: All other parameters of the partner, as they came.
        callback_url: Where its callbacks go, as it came, which may be no URL; None for nowhere.
        use_enrolled_image: Whether the selfie on file is to be used.
        retry: Whether a job that was registered before is meant.
    """

    ref: JobRef
    job_type: int
    partner_params: Mapping[str, object] = field(factory=dict[str, object], repr=False)
    callback_url: str | None = field(default=None, repr=False)
    use_enrolled_image: bool = False
    retry: bool = False


def read_registration(asked: JSONObject) -> Registration:
    """Return the job that the body of ``POST /v1/upload`` registers.

    Raises:
        RefusalError: It says too little, or something that can never be right.
    """
    params = {} if asked.get("partner_params") is None else asked["partner_params"]
    if not isinstance(params, dict) or not can_be_sent(params):
        raise RefusalError(_WRONG_TYPE)
    product = {str(number): number for number in JOB_TYPES}.get(str(params.get("job_type")))
    if product is None:
        raise RefusalError(_INVALID_JOB_TYPE, "Invalid job type.")
    user_id, job_id = (parameter(params, name, _FAMILY) for name in ("user_id", "job_id"))
    if str(params.get("sandbox_result")) not in ("None", "0", "1", "2"):
        raise RefusalError(_WRONG_TYPE, 'partner_params.sandbox_result must be "0", "1" or "2"')
    try:
        ref = JobRef(user_id, job_id)
        callback_url = decode_text(asked, "callback_url")
    except ValueError:
        raise RefusalError(_FAMILY.missing_parameter) from None
    except UnreadableError:
        raise RefusalError(_WRONG_TYPE) from None
    return Registration(
        ref=ref,
        job_type=product,
        partner_params={key: value for key, value in params.items() if key not in ("user_id", "job_id", "job_type")},
        callback_url=callback_url or None,
        use_enrolled_image=is_true(asked.get("use_enrolled_image")),
        retry=is_true(asked.get("retry")),
    )


class Uploads:
    """The routes by which jobs come in.

    Args:
        jobs: The jobs, by name.
        numbered: The jobs, by the number that the sandbox gave them.
        credentials: Whose requests are answered.
        seed: For the part of the URL that cannot be guessed.
        max_skew: How far the timestamp of a request may be from the clock; None for any distance.
        now: The wall clock.
        register: Makes a job whose zip is to come. It is told the scheme and the host, too, at which the client has
            found the sandbox.
        receive: Starts a job, whose zip is there now.

    Attributes:
        routes: To be served.
    """

    def __init__(
        self,
        jobs: Mapping[JobRef, Job],
        numbered: Mapping[str, Job],
        credentials: Credentials,
        *,
        seed: int,
        max_skew: timedelta | None,
        now: Callable[[], datetime],
        register: Callable[[Registration, str], Job],
        receive: Callable[[Job, Finding], None],
    ) -> None:
        self._jobs = jobs
        self._numbered = numbered
        self._credentials = credentials
        self._seed = seed
        self._max_skew = max_skew
        self._now = now
        self._register = register
        self._receive = receive
        self.routes = [
            Route(PATH, Endpoint(self._prepare), methods=["POST"]),
            Route(PATH, preflight("POST"), methods=["OPTIONS"]),
            Route(_ZIP_PATH, self._take, methods=["PUT"]),
            Route(_ZIP_PATH, preflight("PUT"), methods=["OPTIONS"]),
        ]

    async def _prepare(self, request: Request) -> Answer:
        return of_the_api(await self._answer(request))

    async def _answer(self, request: Request) -> Answer:
        try:
            asked = await read_object(request, _FAMILY)
            check_partner(asked, "smile_client_id", self._credentials, _FAMILY)
            check_fresh(asked, self._max_skew, self._now())
            registration = read_registration(asked)
            job = self._registered(registration, root_of(request))
        except RefusalError as refusal:
            return json_answer(refusal.body, refusal.http_status)
        ref_id = self._ref_id(job.smile_job_id)
        file_name = _ENROLLED if registration.use_enrolled_image else _NEW
        path = _ZIP_PATH.format(partner=self._folder, ref_id=ref_id, file_name=file_name)
        query = presign(
            self._credentials.api_key, host_of(request), path, at=self._now(), lifetime=_LIFETIME, method="PUT"
        )
        body = {
            "upload_url": f"{root_of(request)}{path}?{query}",
            "ref_id": ref_id,
            "smile_job_id": job.smile_job_id,
            "camera_config": "null",
            "code": _ACCEPTED,
        }
        return json_answer(body)

    def _registered(self, registration: Registration, root: str) -> Job:
        """Return the job: a new one, or one that is sent again."""
        job = self._jobs.get(registration.ref)
        if job is None:
            try:
                with keeping():
                    return self._register(registration, root)
            except NotKeptError:
                raise RefusalError(_FAMILY.system_error) from None
        if not registration.retry:
            raise RefusalError(_JOB_EXISTS, "Job already exists. Did you mean to set the retry flag to true?")
        return job

    def _ref_id(self, smile_job_id: str) -> str:
        secret = sha256(f"{self._seed}\0{smile_job_id}".encode()).hexdigest()
        return f"{self._folder}-{smile_job_id}-{secret[:30]}"

    @property
    def _folder(self) -> str:
        return re.sub("[^0-9A-Za-z]", "_", self._credentials.partner_id)

    async def _take(self, request: Request) -> Response:
        path, query = request.scope["path"], request.scope["query_string"].decode("latin-1")
        try:
            check(self._credentials.api_key, host_of(request), path, query, self._now(), method="PUT")
            body = await read(request, MAX_ZIP)
        except LinkRefusedError as error:
            return storage_error(error.code, str(error), http_status=403)
        except TooLargeError:
            message = "Your proposed upload exceeds the maximum allowed size"
            return storage_error("EntityTooLarge", message, http_status=400)
        except CutOffError:
            message = "You did not provide the number of bytes specified by the Content-Length HTTP header"
            return storage_error("IncompleteBody", message, http_status=400)
        _, _, number = request.path_params["ref_id"].rpartition("-")[0].rpartition("-")
        job = self._numbered.get(number)
        if job is None:  # it was registered before a restart that has forgotten it
            return storage_error("NoSuchKey", "The specified key does not exist.", http_status=404)
        if job.uploaded_at is None:
            use_enrolled_image = request.path_params["file_name"] == _ENROLLED
            try:
                with keeping():
                    self._receive(job, examine(job, body, use_enrolled_image=use_enrolled_image))
            except NotKeptError:
                return storage_unavailable()
        return Response(headers=CROSS_ORIGIN)
