"""One poll as data: what is sent, and what an answer means.

Everything that is known about an answer's meaning comes together here: the code beats the HTTP status; an answer that
says more than "not yet" must verify, before anything of it is structured; and it must be about the job that was asked
for.
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
            "that this machine's clock is right, and that the partner id is written with its leading zeros"
        ),
        JobNotFoundError: "check both ids, and that the job was submitted to this environment",
    }
)
_IN_ITS_PLACE = "a gateway, a proxy, a firewall or a maintenance page answered in the API's place: try again later"
_WRONG_URL = (
    "there is no Job Status API at this URL: check base_url, which ends in /v1; or, if the API has answered there, "
    f"{_IN_ITS_PLACE}"
)
_NO_TOKEN = "Missing Authentication Token"  # noqa: S105  # it is API Gateway's text for a path that it does not have
_KNOWN_TEXTS = frozenset(
    {
        _NO_TOKEN,
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
"""What Amazon API Gateway writes under ``message``; all other text may quote ids, and is not repeated."""

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
"""What is repeated of a ``Content-Type``, which comes from outside and could hold anything."""

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
    include: Include,
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
        include: What was asked for; links and a history that were not asked for are not structured.
        http_status: The HTTP status.
        headers: The HTTP headers, by name in lower case or in any case if the mapping does not care.
        body: The decompressed body.
        problem: Why there is no body, in words, if there is none.
        broke_off: Whether there is none because the connection failed.

    Raises:
        ApiError: One of its kinds: the API said no. Not for 2314 (no zip yet), which is a pending status.
        GatewayError: The answer has no code of the table and is no status: something else answered in the API's place.
        BadResponseError: The answer cannot be read.
        SignatureError: The answer says more than "not yet" and does not verify.
        WrongJobError: The answer names another job or user.
    """
    retry_after = parse_retry_after(headers.get("retry-after"), now)
    head = _Head(ref, http_status, headers.get("content-type"), retry_after)
    # The traceback of an error holds the locals of this function, and crash reporters copy them.
    del headers
    if problem is not None:
        raise _unreadable(head, problem, broke_off=broke_off)
    answer = _read(head, credentials, body, include)
    del body
    if isinstance(answer, SmileJobsError):
        raise answer
    return answer


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


def comes_from_the_api(error: SmileJobsError) -> bool:
    """Return whether a failed poll was answered by the API: with a code that it is known to have."""
    return error.code in STATUS_CODES


@frozen
class _Head:
    """What is known of an answer beside its body."""

    ref: JobRef
    http_status: int
    content_type: str | None
    retry_after: float | None


def _read(head: _Head, credentials: Credentials, body: bytes, include: Include) -> JobStatus | SmileJobsError:
    """Return the answer, or the error that it means, in this order: count, decode, verify, structure, compare ids.

    Errors are returned, so that neither a traceback nor a context of theirs holds the body or what it was decoded to.
    """
    ref = head.ref
    code: str | None = None
    try:
        data = decode_object(body)
        code = decode_text(data, "code") or None
        if not _is_status(data, code, head.http_status):
            text = data.get("error", data.get("message"))
            return _refusal(head, code, text if isinstance(text, str) else None)
        verified = verify(credentials, data.get("timestamp"), data.get("signature"))
        if not verified and _says_something(data):
            return SignatureError(
                "the answer's signature does not verify: it was changed on the way, it comes from elsewhere, "
                "or it was signed with another API key",
                ref=ref,
                code=code,
                http_status=head.http_status,
            )
        if verified:
            status = decode_status(data, ref, head.retry_after, include)
        else:
            status = JobStatus(user_id=ref.user_id, job_id=ref.job_id, code=code, retry_after=head.retry_after)
        names = _names(data, status)
    except UnreadableError as error:
        return _unreadable(head, str(error), code=code)
    if any(name not in (None, asked) for name, asked in names):
        return WrongJobError(
            "the answer is about another job or user than the one that was asked for",
            ref=ref,
            code=code,
            http_status=head.http_status,
        )
    return status


def _refusal(head: _Head, code: str | None, text: str | None) -> SmileJobsError:
    """Return the error that a code stands for, or an HTTP status without a code of the table."""
    row = STATUS_CODES.get(code or "")
    if code is None or row is None:
        what = f", {text!r}" if text in _KNOWN_TEXTS else ""
        return _without_a_code(head, f"{_code_in_words(code)}{what}", code=code, text=text)
    kind = _ERROR_TYPES.get(code) or _ERROR_TYPES_BY_CLASS.get(row.kind, ApiError)
    hint = _SIGNATURE_REFUSED if code == "2204" else _HINTS.get(kind, "")
    return kind(
        f"the API answered {describe(code)} (HTTP {head.http_status}){hint and f'; {hint}'}",
        text=text,
        ref=head.ref,
        code=code,
        http_status=head.http_status,
        retry_after=head.retry_after,
    )


def _without_a_code(head: _Head, what: str, *, code: str | None, text: str | None) -> SmileJobsError:
    """Return the error for an answer without a code of the table; its class follows from the HTTP status.

    Args:
        head: The answer.
        what: What its body looks like, in words that quote nothing.
        code: A code that is in no table.
        text: What it says, if it is JSON.
    """
    kind = _by_http_status(head.http_status, code)
    wrong_url = kind is GatewayError and code is None and _is_wrong_url(head.http_status, text)
    hint = _WRONG_URL if wrong_url else _HINTS.get(kind, _IN_ITS_PLACE)
    error = kind(
        f"HTTP {head.http_status}, {_content_type(head)}, {what}; {hint}",
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
    """Whether the body is an answer about the job, and no refusal."""
    if code is not None:
        return code in (SUCCESS, NO_ZIP)
    if http_status // 100 != 2 or ("error" in data and "job_complete" not in data):
        return False
    if "job_complete" not in data:
        raise UnreadableError("it has neither a job_complete nor a code")
    return True


def _says_something(data: JSONObject) -> bool:
    """Whether an answer says more than "not yet", and so must verify."""
    result, links = data.get("result"), data.get("image_links")
    return bool(
        is_true(data.get("job_complete"))
        or is_true(data.get("job_success"))
        or (result and not isinstance(result, str))
        or data.get("history")
        or (any(links.values()) if isinstance(links, dict) else links)
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


def _unreadable(head: _Head, why: str, *, code: str | None = None, broke_off: bool = False) -> SmileJobsError:
    """Return the error for a body that says nothing.

    With 3xx and 4xx something else answered in the API's place, unless the body holds a code of the table. A body that
    broke off could have held one, such as "not found yet" under HTTP 400 or 404.
    """
    could_be_the_apis = broke_off or code in STATUS_CODES
    if head.http_status == 429 or (head.http_status // 100 in (3, 4) and not could_be_the_apis):
        return _without_a_code(head, f"{_code_in_words(code)}: {why}", code=code, text=None)
    return BadResponseError(
        f"the answer cannot be read: {why} (HTTP {head.http_status})",
        ref=head.ref,
        http_status=head.http_status,
        retry_after=head.retry_after,
    )


def _code_in_words(code: str | None) -> str:
    return "no code of the API" if code is None else describe(code)


def _content_type(head: _Head) -> str:
    if head.content_type is None:
        return "no content type"
    name = head.content_type.partition(";")[0].strip().lower()
    return name if name in _KNOWN_CONTENT_TYPES else "an unusual content type"


def _by_http_status(http_status: int, code: str | None) -> type[ApiError | GatewayError]:
    if http_status == 401 and code is None:
        return CredentialsError
    if http_status == 429:
        return RateLimitedError
    return ServerError if http_status >= 500 else GatewayError


def _is_wrong_url(http_status: int, text: str | None) -> bool:
    if http_status == 403:
        return text == _NO_TOKEN
    return http_status in (404, 405) or http_status // 100 == 3
