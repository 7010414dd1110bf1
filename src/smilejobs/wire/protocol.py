"""One poll as data: what is sent, and what an answer means.

Everything that is known about an answer's meaning comes together here: the code beats the HTTP status; an answer that
says more than "not yet" must verify; and it must speak of the job that was asked for.
"""

import json
from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType

from smilejobs.errors import (
    ApiError,
    BadRequestError,
    BadResponseError,
    CredentialsError,
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
from smilejobs.model.jobs import JobRef, JobStatus
from smilejobs.settings import Credentials
from smilejobs.version import __version__
from smilejobs.wire.codec import JSONObject, UnreadableError, decode_object, decode_status, decode_text
from smilejobs.wire.retry_after import parse_retry_after
from smilejobs.wire.signature import format_timestamp, sign, verify

PATH = "/job_status"
HEADERS: Mapping[str, str] = MappingProxyType(
    {
        "Accept": "application/json",
        "Accept-Encoding": "gzip, deflate",
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

_HINTS: Mapping[type[ApiError], str] = MappingProxyType(
    {
        CredentialsError: (
            "check that the API key is the one of this environment (sandbox and production have different ones), "
            "that this machine's clock is right, and that the partner id is written with its leading zeros"
        ),
        JobNotFoundError: "check both ids, and that the job was submitted to this environment",
    }
)
_WRONG_URL = "there is no Job Status API at this URL: check base_url, which ends in /v1"
_SIGNATURE_REFUSED = "check the timestamp (this machine's clock) and the signature (API key, partner id)"


def encode_request(ref: JobRef, credentials: Credentials, now: datetime, *, image_links: bool, history: bool) -> bytes:
    """Return the body of one poll, signed for the instant *now*.

    Source: the vendor's documentation of the request; its two flags are JSON booleans there, and always present here
    because a client of the vendor's that left them out sent null.
    """
    timestamp = format_timestamp(now)
    return json.dumps(
        {
            "partner_id": credentials.partner_id,
            "timestamp": timestamp,
            "signature": sign(credentials, timestamp),
            "user_id": ref.user_id,
            "job_id": ref.job_id,
            "image_links": image_links,
            "history": history,
            "source_sdk": "smilejobs",
            "source_sdk_version": __version__,
        }
    ).encode()


def read_answer(
    ref: JobRef,
    credentials: Credentials,
    now: datetime,
    *,
    http_status: int,
    headers: Mapping[str, str],
    body: bytes,
    problem: str | None = None,
    broke_off: bool = False,
) -> JobStatus:
    """Return what an answer says about the job *ref*.

    Args:
        ref: The job that was asked about.
        credentials: Whose signature the answer must carry.
        now: The instant of the answer (aware), for a ``Retry-After`` that is a date.
        http_status: The HTTP status.
        headers: The HTTP headers, by name in lower case or in any case if the mapping does not care.
        body: The decompressed body.
        problem: Why there is no body, in words, if there is none.
        broke_off: Whether there is none because the connection failed.

    Raises:
        ApiError: One of its kinds: the API said no. Not for 2314 (no zip yet), which is a pending status.
        BadResponseError: The answer cannot be read.
        SignatureError: The answer says more than "not yet" and does not verify.
        WrongJobError: The answer names another job or user.
    """
    retry_after = parse_retry_after(headers.get("retry-after"), now)
    if problem is not None:
        raise _unreadable(problem, ref, http_status, retry_after, broke_off=broke_off)
    try:
        data = decode_object(body)
        code = decode_text(data, "code") or None
        if not _is_status(data, code, http_status):
            text = data.get("error", data.get("message"))
            raise _api_error(
                code,
                http_status=http_status,
                text=text if isinstance(text, str) else None,
                ref=ref,
                retry_after=retry_after,
            )
        status = decode_status(data, ref, retry_after)
        names = _names(data, status)
    except UnreadableError as error:
        raise _unreadable(str(error), ref, http_status, retry_after) from None
    verified = verify(credentials, data.get("timestamp"), data.get("signature"))
    if not verified and _says_something(status):
        raise SignatureError(
            "the answer's signature does not verify: it was changed on the way, it comes from elsewhere, "
            "or it was signed with another API key",
            ref=ref,
            code=code,
            http_status=http_status,
        )
    if any(name not in (None, asked) for name, asked in names):
        raise WrongJobError(
            "the answer speaks of another job or user than the one that was asked for",
            ref=ref,
            code=code,
            http_status=http_status,
        )
    if verified:
        return status
    return JobStatus(
        user_id=ref.user_id,
        job_id=ref.job_id,
        code=code,
        retry_after=retry_after,
    )


def accepts_credentials(observation: JobStatus | SmileJobsError) -> bool:
    """Whether what a poll brought shows that the API knows who asks: it speaks of the job, or of its user.

    The vendor does not say what is checked first. A code about the request as such (`BadRequestError`), trouble of the
    API's own and an answer of somebody else show nothing.
    """
    if isinstance(observation, (JobStatus, WrongJobError)):
        return True
    row = STATUS_CODES.get(observation.code or "")
    about_the_job = row is not None and row.kind in (CodeClass.PENDING, CodeClass.PERMANENT)
    return about_the_job and not isinstance(observation, BadRequestError)


def _api_error(
    code: str | None, *, http_status: int, text: str | None, ref: JobRef, retry_after: float | None
) -> ApiError:
    """Return the error that a code, or an HTTP status without one, stands for."""
    row = STATUS_CODES.get(code or "")
    kind = _by_http_status(http_status, code) if row is None else _by_code(code or "", row.kind)
    hint = _SIGNATURE_REFUSED if code == "2204" else _HINTS.get(kind, "")
    if code is None and _is_wrong_url(http_status, text):
        hint = _WRONG_URL
    return kind(
        f"the API answered {describe(code)} (HTTP {http_status}){hint and f'; {hint}'}",
        text=text,
        ref=ref,
        code=code,
        http_status=http_status,
        retry_after=retry_after,
        transient=kind.transient or (row is None and http_status == 408),
    )


def _is_status(data: JSONObject, code: str | None, http_status: int) -> bool:
    """Whether the body is an answer about the job, and no refusal."""
    if code is not None:
        return code in (SUCCESS, NO_ZIP)
    if http_status // 100 != 2 or ("error" in data and "job_complete" not in data):
        return False
    if "job_complete" not in data:
        raise UnreadableError("it has neither a job_complete nor a code")
    return True


def _says_something(status: JobStatus) -> bool:
    """Whether an answer says more than "not yet", and so must verify."""
    return bool(
        status.job_complete
        or status.job_success
        or status.result is not None
        or status.history
        or (status.image_links is not None and (status.image_links or status.image_links.error))
    )


def _names(data: JSONObject, status: JobStatus) -> tuple[tuple[str | None, str], ...]:
    """Each place where an answer names its job, with the name that was asked for."""
    params = None if status.result is None else status.result.partner_params
    return (
        (decode_text(data, "user_id"), status.user_id),
        (decode_text(data, "job_id"), status.job_id),
        (None if params is None else params.user_id, status.user_id),
        (None if params is None else params.job_id, status.job_id),
    )


def _unreadable(
    why: str, ref: JobRef, http_status: int, retry_after: float | None, *, broke_off: bool = False
) -> SmileJobsError:
    """The error for a body that says nothing: where the HTTP status alone says enough, that counts.

    What broke off could have held a code, such as "not found yet" under HTTP 400 or 404.
    """
    if http_status == 429 or (not broke_off and (http_status == 401 or _is_wrong_url(http_status, None))):
        return _api_error(None, http_status=http_status, text=None, ref=ref, retry_after=retry_after)
    return BadResponseError(
        f"the answer cannot be read: {why} (HTTP {http_status})",
        ref=ref,
        http_status=http_status,
        retry_after=retry_after,
        transient=broke_off or http_status // 100 != 4 or http_status == 408,
    )


def _by_code(code: str, kind: CodeClass) -> type[ApiError]:
    return _ERROR_TYPES.get(code) or _ERROR_TYPES_BY_CLASS.get(kind, ApiError)


def _by_http_status(http_status: int, code: str | None) -> type[ApiError]:
    if http_status == 401 and code is None:
        return CredentialsError
    if http_status == 429:
        return RateLimitedError
    return ServerError if http_status >= 500 else ApiError


def _is_wrong_url(http_status: int, text: str | None) -> bool:
    if http_status == 403:
        return text == "Missing Authentication Token"
    return http_status in (404, 405) or http_status // 100 == 3
