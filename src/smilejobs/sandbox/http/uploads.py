"""The submission of a job over HTTP, in two steps.

``POST /v1/upload`` registers the job and answers with a URL. A PUT of the zip to that URL starts the job. The storage
that takes the zip does not look into it: what is wrong with it becomes the result of the job. Sources: the vendor's
client libraries, and its pages about test data.
"""

from attrs import evolve, frozen
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from smilejobs.model.codes import JOB_TYPES
from smilejobs.sandbox.http.common import (
    CROSS_ORIGIN,
    UPLOAD,
    ApiRefusedError,
    api_response,
    encode_json,
    preflight,
    read,
    read_ref,
    read_signed,
    root_of,
)
from smilejobs.sandbox.http.images import StorageError, check_url, sign_url
from smilejobs.sandbox.jobs import Job, can_be_sent
from smilejobs.sandbox.products import result_code_for
from smilejobs.sandbox.registry import Registry
from smilejobs.sandbox.zips import examine
from smilejobs.wire.codec import JSONObject, UnreadableError, decode_text, is_true

MAX_ZIP_BYTES = 32 * 1024 * 1024

_ACCEPTED, _WRONG_TYPE, _INVALID_JOB_TYPE, _JOB_EXISTS = "2202", "2204", "2212", "2215"
_IDS = ("user_id", "job_id", "job_type")

_PATH = "/v1/upload"
_ZIP_PATH = "/videos/{partner_id}/{ref_id}/selfie.zip"
_LIFETIME_SECONDS = 900
"""How long the URL takes the zip, as recorded."""


@frozen
class Uploads:
    """Takes jobs and their zips."""

    registry: Registry

    @property
    def routes(self) -> list[Route]:
        """The routes."""
        return [
            Route(_PATH, self._register, methods=["POST"]),
            Route(_PATH, preflight, methods=["OPTIONS"]),
            Route(_ZIP_PATH, self._receive, methods=["PUT"]),
            Route(_ZIP_PATH, preflight, methods=["OPTIONS"]),
        ]

    async def _register(self, request: Request) -> Response:
        asked = await read_signed(request, UPLOAD, self.registry)
        root = root_of(request)
        job = self._read_job(asked, root)
        known = self.registry.jobs.get(job.ref)
        if known is None:
            self.registry.save(job)
        elif is_true(asked.get("retry")):
            job = known
        else:
            raise ApiRefusedError(_JOB_EXISTS, "Job already exists. Did you mean to set the retry flag to true?")
        partner_id, api_key = self.registry.credentials.partner_id, self.registry.credentials.api_key
        ref_id = f"{partner_id}-{job.smile_job_id}-{self.registry.rng('upload', job.smile_job_id).randbytes(15).hex()}"
        path = _ZIP_PATH.format(partner_id=partner_id, ref_id=ref_id)
        url = sign_url(api_key, "PUT", root, path, at=self.registry.now(), lifetime=_LIFETIME_SECONDS)
        body = {
            "upload_url": url,
            "ref_id": ref_id,
            "smile_job_id": job.smile_job_id,
            "camera_config": "null",
            "code": _ACCEPTED,
        }
        return api_response(encode_json(body))

    def _read_job(self, asked: JSONObject, root: str) -> Job:
        """Return the job that the body of a request describes, without its images, or raise ApiRefusedError."""
        params = {} if asked.get("partner_params") is None else asked["partner_params"]
        if not isinstance(params, dict) or not can_be_sent([params, asked.get("callback_url")]):
            raise ApiRefusedError(_WRONG_TYPE)
        job_type = {str(number): number for number in JOB_TYPES}.get(str(params.get("job_type")))
        if job_type is None:
            raise ApiRefusedError(_INVALID_JOB_TYPE, "Invalid job type.")
        ref = read_ref(params, UPLOAD, self.registry)
        if str(params.get("sandbox_result")) not in ("None", "0", "1", "2"):
            raise ApiRefusedError(_WRONG_TYPE, 'partner_params.sandbox_result must be "0", "1" or "2"')
        try:
            callback_url = decode_text(asked, "callback_url")
        except UnreadableError:
            raise ApiRefusedError(_WRONG_TYPE) from None
        return Job(
            ref=ref,
            smile_job_id=self.registry.next_number(),
            job_type=job_type,
            result_code=result_code_for("approved", job_type),
            machine=self.registry.draw_machine(ref),
            partner_params={key: value for key, value in params.items() if key not in _IDS},
            callback_url=callback_url or None,
            root=root,
        )

    async def _receive(self, request: Request) -> Response:
        check_url(self.registry.credentials.api_key, request, self.registry.now())
        body = await read(request, MAX_ZIP_BYTES)
        job = self.registry.numbered.get(request.path_params["ref_id"].split("-")[-2])
        if job is None:  # it was registered before a restart without a state
            raise StorageError("NoSuchKey", "The specified key does not exist.", 404)
        if job.uploaded_at is None:
            finding = examine(job, body)
            self.registry.save(
                evolve(
                    job,
                    uploaded_at=self.registry.now(),
                    result_code=result_code_for(finding.outcome, job.job_type),
                    review=self.registry.draw_review(job.ref, finding.review),
                    details=finding.details,
                )
            )
        return Response(headers=CROSS_ORIGIN)
