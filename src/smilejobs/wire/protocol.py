"""The request of one poll, and the meaning of its answer.

All rules about the meaning of an answer are here. The code decides before the HTTP status. An answer that says more
than "not yet" must verify before any of it is structured. Its ids must be those of the job that was polled.
"""

import json
from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType

from attrs import frozen

from smilejobs.errors import (
    ApiError,
    BadRequestError,
    BadResponseError,
    CredentialsError,
    GatewayError,
    JobNotFoundError,
    RateLimitedError,
    ServerError,
    SignatureError,
    SmileJobsError,
    UserDisabledError,
    UserNotFoundError,
    WrongJobError,
)
from smilejobs.model.codes import JOB_NOT_FOUND, NO_ZIP, STATUS_CODES, SUCCESS, CodeClass, describe
from smilejobs.model.jobs import Include, JobRef, JobStatus
from smilejobs.settings import Credentials
from smilejobs.version import __version__
from smilejobs.wire.codec import JSONObject, UnreadableError, decode_object, decode_text, is_true
from smilejobs.wire.retry_after import parse_retry_after
from smilejobs.wire.signature import format_timestamp, sign, verify
from smilejobs.wire.structure import decode_status

PATH = "/job_status"
HEADERS: Mapping[str, str] = MappingProxyType(
    {
        "Accept": "application/json",
        "Content-Type": "application/json",
        "User-Agent": f"smilejobs/{__version__}",
    }
)

_ERROR_TYPES: Mapping[str, type[ApiError]] = MappingProxyType(
    {
        JOB_NOT_FOUND: JobNotFoundError,
        **dict.fromkeys(("2307", "2207"), UserDisabledError),
        **dict.fromkeys(("2310", "2210"), UserNotFoundError),
        **dict.fromkeys(("2303", "2203", "2204", "2313", "2213", "2413"), BadRequestError),
    }
)
_ERROR_TYPES_BY_CLASS: Mapping[CodeClass, type[ApiError]] = MappingProxyType(
    {CodeClass.CREDENTIALS: CredentialsError, CodeClass.TRANSIENT: ServerError}
)

_HINTS: Mapping[type[SmileJobsError], str] = MappingProxyType(
    {
        CredentialsError: (
            "check that the API key is the one of this environment (sandbox and production have different ones), "
            "that this machine's clock is right, and that the partner id has its leading zeros"
        ),
        JobNotFoundError: "check both ids, and that the job was submitted to this environment",
    }
)
_GATEWAY_HINT = "a gateway, a proxy, a firewall or a maintenance page answered instead of the API: try again later"
_WRONG_URL_HINT = (
    "there is no Job Status API at this URL: check base_url, which must end in /v1; or, if the API has answered there, "
    f"{_GATEWAY_HINT}"
)
_UNKNOWN_PATH_TEXT = "Missing Authentication Token"  # API Gateway's answer for a path that does not exist
_KNOWN_TEXTS = frozenset(
    {
        _UNKNOWN_PATH_TEXT,
        "Endpoint request timed out",
        "Forbidden",
        "Internal Server Error",
        "Internal server error",
        "Limit Exceeded",
        "Not Found",
        "Service Unavailable",
        "Too Many Requests",
        "Unauthorized",
    }
)
"""The ``message`` texts of Amazon API Gateway. Other texts may hold ids and are not repeated in error texts."""

_KNOWN_CONTENT_TYPES = frozenset(
    {
        "application/json",
        "application/octet-stream",
        "application/problem+json",
        "application/xhtml+xml",
        "application/xml",
        "text/html",
        "text/plain",
        "text/xml",
    }
)
"""The content types that error texts name. Others come from outside and may hold any text."""

_SIGNATURE_HINT = "check the timestamp (this machine's clock) and the signature (API key, partner id)"


def encode_request(ref: JobRef, credentials: Credentials, now: datetime, include: Include) -> bytes:
    """Return the body of one poll, signed for the instant *now*.

    Source: the vendor's documentation of the request. Its two flags are JSON booleans and always present here.
    """
    timestamp = format_timestamp(now)
    return json.dumps(
        {
            "partner_id": credentials.partner_id,
            "timestamp": timestamp,
            "signature": sign(credentials, timestamp),
            "user_id": ref.user_id,
            "job_id": ref.job_id,
            "image_links": include.image_links,
            "history": include.history,
            "source_sdk": "smilejobs",
            "source_sdk_version": __version__,
        }
    ).encode()


def read_answer(
    ref: JobRef,
    credentials: Credentials,
    now: datetime,
    *,
    include: Include,
    http_status: int,
    headers: Mapping[str, str],
    body: bytes,
    problem: str | None = None,
    broke_off: bool = False,
) -> JobStatus:
    """Return the status of the job *ref* in an answer.

    Args:
        ref: The job that was polled.
        credentials: The credentials that the answer must be signed with.
        now: The instant of the answer (aware), for a ``Retry-After`` that is a date.
        include: What was requested; links and a history that were not requested are not structured.
        http_status: The HTTP status.
        headers: The HTTP headers; names in lower case, or a mapping that ignores case.
        body: The decompressed body.
        problem: Why the body cannot be used, for the error text; None if it can.
        broke_off: Whether the body is incomplete because the connection failed.

    Raises:
        ApiError: The API refused the poll; a subclass by the code. Not raised for 2314 (no zip yet), which is a pending
            status.
        GatewayError: The answer is no job status and has no known code: something other than the API sent it.
        BadResponseError: The answer cannot be read.
        SignatureError: The answer says more than "not yet" and does not verify.
        WrongJobError: The answer is about another job or user.
    """
    retry_after = parse_retry_after(headers.get("retry-after"), now)
    head = _Head(ref, http_status, headers.get("content-type"), retry_after)
    # Crash reporters copy the local variables of this function from the traceback of an error.
    del headers
    if problem is not None:
        raise _make_unreadable_error(head, problem, broke_off=broke_off)
    answer = _read(head, credentials, body, include)
    del body
    if isinstance(answer, SmileJobsError):
        raise answer
    return answer


def accepts_credentials(observation: JobStatus | SmileJobsError) -> bool:
    """Return whether the result of a poll shows that the API accepts the credentials: it is about the job or its user.

    The vendor does not document in which order the API checks a request. Therefore a refused request
    (`BadRequestError`), an internal error of the API and an answer of something other than the API show nothing.
    """
    if isinstance(observation, (JobStatus, WrongJobError)):
        return True
    row = STATUS_CODES.get(observation.code or "")
    about_the_job = row is not None and row.kind in (CodeClass.PENDING, CodeClass.PERMANENT)
    return about_the_job and not isinstance(observation, BadRequestError)


def comes_from_the_api(error: SmileJobsError) -> bool:
    """Return whether the API itself answered a failed poll: the answer has a known code."""
    return error.code in STATUS_CODES


@frozen
class _Head:
    """The parts of an answer besides its body, and the job that was polled."""

    ref: JobRef
    http_status: int
    content_type: str | None
    retry_after: float | None


def _read(head: _Head, credentials: Credentials, body: bytes, include: Include) -> JobStatus | SmileJobsError:
    """Return the status or the error of an answer: count, decode, verify, structure, compare ids, in this order.

    Errors are returned, so that neither their traceback nor their context holds the body or its decoded values.
    """
    ref = head.ref
    code: str | None = None
    try:
        data = decode_object(body)
        code = decode_text(data, "code") or None
        if not _is_status(data, code, head.http_status):
            text = data.get("error", data.get("message"))
            return _make_refusal(head, code, text if isinstance(text, str) else None)
        verified = verify(credentials, data.get("timestamp"), data.get("signature"))
        if not verified and _has_content(data):
            return SignatureError(
                "the answer's signature does not verify: it was changed in transit, it does not come from Smile ID, "
                "or it was signed with another API key; check the API key and base_url",
                ref=ref,
                code=code,
                http_status=head.http_status,
            )
        if verified:
            status = decode_status(data, ref, head.retry_after, include)
        else:
            status = JobStatus(user_id=ref.user_id, job_id=ref.job_id, code=code, retry_after=head.retry_after)
        is_wrong = _is_about_another_job(data, status)
    except UnreadableError as error:
        return _make_unreadable_error(head, str(error), code=code)
    if is_wrong:
        return WrongJobError(
            "the answer is about another job or user than the one that was polled",
            ref=ref,
            code=code,
            http_status=head.http_status,
        )
    return status


def _make_refusal(head: _Head, code: str | None, text: str | None) -> SmileJobsError:
    """Return the error for a code, or for an HTTP status without a known code."""
    row = STATUS_CODES.get(code or "")
    if code is None or row is None:
        what = f", {text!r}" if text in _KNOWN_TEXTS else ""
        return _make_error_without_code(head, f"{_describe_code(code)}{what}", code=code, text=text)
    kind = _ERROR_TYPES.get(code) or _ERROR_TYPES_BY_CLASS.get(row.kind, ApiError)
    hint = _SIGNATURE_HINT if code == "2204" else _HINTS.get(kind, "")
    return kind(
        f"the API answered {describe(code)} (HTTP {head.http_status}){hint and f'; {hint}'}",
        text=text,
        ref=head.ref,
        code=code,
        http_status=head.http_status,
        retry_after=head.retry_after,
    )


def _make_error_without_code(head: _Head, what: str, *, code: str | None, text: str | None) -> SmileJobsError:
    """Return the error for an answer without a known code; the HTTP status decides its class.

    Args:
        head: The answer.
        what: A description of the body that quotes nothing from outside.
        code: An unknown code; None if there is none.
        text: The text of the answer, if it is JSON.
    """
    kind = _choose_error_type(head.http_status, code)
    wrong_url = kind is GatewayError and code is None and _is_wrong_url(head.http_status, text)
    hint = _WRONG_URL_HINT if wrong_url else _HINTS.get(kind, _GATEWAY_HINT)
    error = kind(
        f"HTTP {head.http_status}, {_describe_content_type(head)}, {what}; {hint}",
        text=text,
        ref=head.ref,
        code=code,
        http_status=head.http_status,
        retry_after=head.retry_after,
        transient=kind.transient or head.http_status == 408,
    )
    if isinstance(error, GatewayError):
        error.wrong_url = wrong_url
    return error


def _is_status(data: JSONObject, code: str | None, http_status: int) -> bool:
    """Return whether the body is a job status rather than a refusal."""
    if code is not None:
        return code in (SUCCESS, NO_ZIP)
    if http_status // 100 != 2 or ("error" in data and "job_complete" not in data):
        return False
    if "job_complete" not in data:
        raise UnreadableError("it has neither a job_complete nor a code")
    return True


def _has_content(data: JSONObject) -> bool:
    """Return whether an answer says more than "not yet", and so must verify."""
    result, links = data.get("result"), data.get("image_links")
    return bool(
        is_true(data.get("job_complete"))
        or is_true(data.get("job_success"))
        or (result and not isinstance(result, str))
        or data.get("history")
        or (any(links.values()) if isinstance(links, dict) else links)
    )


def _is_about_another_job(data: JSONObject, status: JobStatus) -> bool:
    """Return whether an answer holds an id that is not the one that was sent."""
    user_ids = {decode_text(data, "user_id")}
    job_ids = {decode_text(data, "job_id")}
    if status.result is not None and status.result.partner_params is not None:
        user_ids.add(status.result.partner_params.user_id)
        job_ids.add(status.result.partner_params.job_id)
    return not (user_ids <= {None, status.user_id} and job_ids <= {None, status.job_id})


def _make_unreadable_error(
    head: _Head, why: str, *, code: str | None = None, broke_off: bool = False
) -> SmileJobsError:
    """Return the error for a body that cannot be read.

    With 3xx and 4xx something other than the API answered, unless the body has a known code. A body that broke off may
    have had one, for example "job not found" with HTTP 400 or 404.
    """
    could_be_the_apis = broke_off or code in STATUS_CODES
    if head.http_status == 429 or (head.http_status // 100 in (3, 4) and not could_be_the_apis):
        return _make_error_without_code(head, f"{_describe_code(code)}: {why}", code=code, text=None)
    return BadResponseError(
        f"the answer cannot be read: {why} (HTTP {head.http_status})",
        ref=head.ref,
        http_status=head.http_status,
        retry_after=head.retry_after,
    )


def _describe_code(code: str | None) -> str:
    return "no code of the API" if code is None else describe(code)


def _describe_content_type(head: _Head) -> str:
    if head.content_type is None:
        return "no content type"
    name = head.content_type.partition(";")[0].strip().lower()
    return name if name in _KNOWN_CONTENT_TYPES else "an unusual content type"


def _choose_error_type(http_status: int, code: str | None) -> type[ApiError | GatewayError]:
    if http_status == 401 and code is None:
        return CredentialsError
    if http_status == 429:
        return RateLimitedError
    return ServerError if http_status >= 500 else GatewayError


def _is_wrong_url(http_status: int, text: str | None) -> bool:
    if http_status == 403:
        return text == _UNKNOWN_PATH_TEXT
    return http_status in (404, 405) or http_status // 100 == 3
