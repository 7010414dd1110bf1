"""The exceptions of this library, in one tree.

::

    SmileJobsError
      RequestError            no answer: connect, read, timeout, TLS, proxy
      BadResponseError        an answer that cannot be read: truncated, oversized, wrong shape, or HTML with 2xx or 5xx
      GatewayError            something other than the API answered: no code of the API, mostly with 3xx or 4xx
      UntrustedError          an answer that must not be trusted; never retried
        SignatureError        its signature does not verify
        WrongJobError         its signature verifies, but it is about another job or user
      ApiError                the API refused the poll: .code, .http_status, .text
        CredentialsError      2305, 2205, 2405, 2220, and 401 without a code
        JobNotFoundError      2304
        NoZipError            2314 after the grace period
        UserDisabledError     2307, 2207
        UserNotFoundError     2310, 2210
        BadRequestError       2303, 2313, 2413, 2204, ...
        RateLimitedError      429
        ServerError           2301, 2201, 2401, 5xx
      WaitTimeoutError        the time limit of a wait is over, the job may still be pending; also a TimeoutError
      TooManyFailuresError    too many consecutive polls failed; the last failure is its __cause__
      NotApprovedError        raised only by JobStatus.raise_for_verdict()
      CallbackError           a callback that must not be trusted or cannot be read: .reason says which
      ImageError              a picture that could not be fetched or saved: .reason says why
      WatchListError          the database of a watch list cannot be used

Invalid arguments raise a plain `ValueError` or `TypeError` before any request. Using a client that is closed, or from a
second event loop, raises `RuntimeError`.

All of these can be pickled. No text holds an id, a signature, a link or personal data: `JobRef.tag` stands for the job,
and the ref itself is in ``.ref``.
"""

from typing import TYPE_CHECKING, Literal, TypedDict, Unpack

if TYPE_CHECKING:
    from pathlib import Path

    from smilejobs.model.jobs import JobRef, JobStatus


class _Facts(TypedDict, total=False):
    """The keyword arguments of `SmileJobsError`, for errors that have further ones."""

    ref: "JobRef | None"
    code: str | None
    http_status: int | None
    retry_after: float | None
    transient: bool | None


class SmileJobsError(Exception):
    """The base class of the exceptions of this library; the reason lies outside the caller's code.

    Attributes:
        ref: The job; None if the error is not about one job.
        code: The status code of the API; None if the answer has none.
        http_status: The HTTP status of the answer; None if there was no answer.
        retry_after: The seconds of the ``Retry-After`` header of the answer; None if it has none.
        transient: Whether the same call may succeed later.
    """

    transient: bool = False

    def __init__(
        self,
        message: str,
        *,
        ref: "JobRef | None" = None,
        code: str | None = None,
        http_status: int | None = None,
        retry_after: float | None = None,
        transient: bool | None = None,
    ) -> None:
        super().__init__(message)
        self.ref = ref
        self.code = code
        self.http_status = http_status
        self.retry_after = retry_after
        if transient is not None:
            self.transient = transient

    def __str__(self) -> str:
        message = super().__str__()
        return message if self.ref is None else f"{message} [job {self.ref.tag}]"

    def __reduce__(self) -> tuple[object, ...]:
        return _recreate, (type(self), self.args), self.__dict__


def _recreate(cls: type[SmileJobsError], args: tuple[object, ...]) -> SmileJobsError:
    error = cls.__new__(cls, *args)
    error.args = args
    return error


class RequestError(SmileJobsError):
    """There was no answer. Transient, unless the server's certificate is not trusted or the request was not sent."""

    transient = True


class BadResponseError(SmileJobsError):
    """There was an answer that cannot be read."""

    transient = True


class GatewayError(SmileJobsError):
    """The answer is no job status and has no known code of the API: something other than the API sent it.

    A gateway, a proxy, a firewall, a login page or a maintenance page answers like that, and so does a server that has
    no Job Status API. Such an answer says nothing about the job. `Client.job_status` raises this error at once. A wait
    treats it like a lost connection and polls again, unless *wrong_url* is true and the API has never answered a poll
    of the client.

    Attributes:
        text: The ``error`` or ``message`` of the answer, if it is JSON. It is not part of the error text.
        wrong_url: Whether the HTTP status points to a wrong ``base_url``: 3xx, 404, 405, or 403 with API Gateway's
            "Missing Authentication Token".
    """

    def __init__(
        self, message: str, *, text: str | None = None, wrong_url: bool = False, **facts: Unpack[_Facts]
    ) -> None:
        super().__init__(message, **facts)
        self.text = text
        self.wrong_url = wrong_url


class UntrustedError(SmileJobsError):
    """There was an answer that must not be trusted. Never retried."""


class SignatureError(UntrustedError):
    """An answer that says more than "not yet" has no valid signature for this partner."""


class WrongJobError(UntrustedError):
    """An answer is about another job or user than the one that was polled."""


class ApiError(SmileJobsError):
    """The API refused the poll.

    Attributes:
        text: The text that the API sent. It is not part of the error text, because it may quote ids.
    """

    def __init__(self, message: str, *, text: str | None = None, **facts: Unpack[_Facts]) -> None:
        super().__init__(message, **facts)
        self.text = text


class CredentialsError(ApiError):
    """The API refused the credentials: partner id, API key, environment or this machine's clock is wrong."""


class JobNotFoundError(ApiError):
    """The API does not know the job: an id is wrong, it is in the other environment, or it is not submitted yet."""


class NoZipError(ApiError):
    """The job was registered, but its images never arrived."""


class UserDisabledError(ApiError):
    """The enrolled user is disabled."""


class UserNotFoundError(ApiError):
    """There is no such enrolled user."""


class BadRequestError(ApiError):
    """The API refused the request itself: invalid JSON, a missing parameter, or a value of the wrong type."""


class RateLimitedError(ApiError):
    """The API answered 429, too many requests; see ``retry_after``."""

    transient = True


class ServerError(ApiError):
    """The API reported an internal error."""

    transient = True


class WaitTimeoutError(SmileJobsError, TimeoutError):
    """The time limit of a wait is over. The job may still be pending: wait again to continue.

    Attributes:
        last: The last good answer, for example a provisional result; None if there was none.
        last_error: The error of the last poll; None if the last poll did not fail.
        polls: The number of polls that were started.
        elapsed: The duration of this wait, in seconds.
        age: The age of the job, in seconds; the age of the wait if `submitted_at` was not given.
        timeout: The timeout of the wait, in seconds.
    """

    def __init__(
        self,
        message: str,
        *,
        ref: "JobRef",
        last: "JobStatus | None",
        last_error: SmileJobsError | None,
        polls: int,
        elapsed: float,
        age: float,
        timeout: float,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, ref=ref, retry_after=retry_after)
        self.last = last
        self.last_error = last_error
        self.polls = polls
        self.elapsed = elapsed
        self.age = age
        self.timeout = timeout


class TooManyFailuresError(SmileJobsError):
    """Too many consecutive polls failed; the last failure is the ``__cause__``.

    When a batch raises it, it has no ``ref``: its polls were about many jobs. Each pending job of the batch has an
    outcome of its own.

    Attributes:
        last: The last good answer; None if there was none.
        last_error: The last failure. It survives pickling, which drops the ``__cause__``.
        polls: The number of polls that were started.
    """

    def __init__(
        self,
        message: str,
        *,
        ref: "JobRef | None" = None,
        last: "JobStatus | None" = None,
        last_error: SmileJobsError,
        polls: int,
    ) -> None:
        code, http_status, retry_after = last_error.code, last_error.http_status, last_error.retry_after
        super().__init__(message, ref=ref, code=code, http_status=http_status, retry_after=retry_after)
        self.last = last
        self.last_error = last_error
        self.polls = polls


class NotApprovedError(SmileJobsError):
    """The verdict is not "approved".

    Attributes:
        status: The answer with that verdict.
    """

    def __init__(self, status: "JobStatus") -> None:
        verdict = "still pending" if status.verdict is None else f"complete with the verdict {status.verdict.value}"
        super().__init__(f"not approved: the job is {verdict}", ref=status.ref, code=status.code)
        self.status = status


_Reason = Literal["oversized", "malformed", "unsigned", "undated", "stale", "future"]


class CallbackError(SmileJobsError):
    """A callback must not be trusted, or cannot be read.

    Attributes:
        reason: Why, with the HTTP status to answer. "oversized" (413): it has too many bytes. "malformed" (400): it is
            not JSON, has the wrong shape or names no job. "unsigned" (401): its signature is missing or is not this
            partner's. "undated" (401): its timestamp cannot be read. "stale" (401): it is too old. "future" (401): its
            timestamp is more than a minute in the future.
    """

    def __init__(self, message: str, *, reason: _Reason, ref: "JobRef | None" = None) -> None:
        super().__init__(message, ref=ref)
        self.reason: _Reason = reason


ImageReason = Literal["pending", "missing", "untrusted", "expired", "store", "malformed", "oversized", "exists", "disk"]
"""The reason of an `ImageError`; described there."""


class ImageError(SmileJobsError):
    """A picture could not be fetched or saved. The other pictures of its job are fetched and saved all the same.

    Transient if the image store did not answer, broke off, was too slow or reported an internal error.

    Attributes:
        reason: Why. About the job: "pending", it is not complete and has no links yet; "missing", the API sent no link.
            About one picture: "untrusted", its link must not be followed; "expired", the store refused the link (403)
            and then a fresh one; "store", the store did not send the whole picture; "malformed", the data are no
            picture; "oversized", it has too many bytes; "exists", the file exists already; "disk", the file could not
            be written.
        name: The vendor's name for the picture, such as "selfie_image"; None if the error is not about one picture.
        text: The text that the API sent instead of links. Not part of the error text, because it may quote ids.
        saved: The files of this job that were written.
        others: The errors of further pictures of this job.
    """

    def __init__(
        self,
        message: str,
        *,
        reason: ImageReason,
        name: str | None = None,
        text: str | None = None,
        saved: "tuple[Path, ...]" = (),
        others: "tuple[ImageError, ...]" = (),
        **facts: Unpack[_Facts],
    ) -> None:
        super().__init__(message, **facts)
        self.reason: ImageReason = reason
        self.name = name
        self.text = text
        self.saved = saved
        self.others = others


class WatchListError(SmileJobsError):
    """The database of a watch list cannot be used: not reachable, read-only, of a newer version, or of another program.

    Transient if it was not reachable.
    """
