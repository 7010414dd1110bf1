"""Every exception that this library raises on purpose, in one tree.

::

    SmileJobsError
      RequestError            no answer: connect, read, timeout, TLS, proxy
      BadResponseError        an answer that cannot be read: truncated, oversized, wrong shape, or HTML with 2xx or 5xx
      GatewayError            something else answered in the API's place: no code of the API, mostly with 3xx or 4xx
      UntrustedError          an answer that must not be believed; never retried
        SignatureError        does not verify
        WrongJobError         verifies, but speaks of another job or user
      ApiError                the API said no: .code, .http_status, .text
        CredentialsError      2305, 2205, 2405, 2220, and 401 without a code
        JobNotFoundError      2304
        NoZipError            2314, once its grace is over
        UserDisabledError     2307, 2207
        UserNotFoundError     2310, 2210
        BadRequestError       2303, 2313, 2413, 2204, ...
        RateLimitedError      429
        ServerError           2301, 2201, 2401, 5xx
      WaitTimeoutError        also a TimeoutError: the waiter's state, not the job's
      TooManyFailuresError    so many consecutive transient failures; the last one is its __cause__
      NotApprovedError        raised only by JobStatus.raise_for_verdict()
      CallbackError           a callback that must not be believed or cannot be read: .reason says which
      ImageError              a picture that could not be fetched or saved: .reason says why
      WatchListError          the database of a watch list cannot be used

Arguments that can never be right are plain `ValueError` or `TypeError`, raised before any request; a client that is
closed, or used from a second event loop, is a `RuntimeError`.

All of these can be pickled. No text holds an id, a signature, a link or personal data: the job is named by
`JobRef.tag`, and the ref itself is in ``.ref``.
"""

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from pathlib import Path

    from smilejobs.model.jobs import JobRef, JobStatus


class SmileJobsError(Exception):
    """Anything that this library could not do for reasons outside the caller's code.

    Attributes:
        ref: The job that was asked about.
        code: The status code that the API gave, if it gave one.
        http_status: The HTTP status of the answer, if there was one.
        retry_after: Seconds for which the answer asked not to be asked again, if it did.
        transient: Whether the same call may work later.
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
        return _revive, (type(self), self.args), self.__dict__


def _revive(cls: type[SmileJobsError], args: tuple[object, ...]) -> SmileJobsError:
    error = cls.__new__(cls, *args)
    error.args = args
    return error


class RequestError(SmileJobsError):
    """There was no answer. Transient, unless the server's certificate is not trusted, or nothing could be asked."""

    transient = True


class BadResponseError(SmileJobsError):
    """There was an answer that cannot be read."""

    transient = True


class GatewayError(SmileJobsError):
    """The answer has no code that the API is known to have, and is no status: something else answered in its place.

    A gateway, a proxy, a firewall, a login page or a maintenance page answers like that, and so does a server that has
    no Job Status API. Such an answer says nothing about the job. A direct call raises it at once; a wait sits it out
    like a lost connection, unless *wrong_url* is true and no poll of the client has ever been answered by the API.

    Attributes:
        text: What the answer says under ``error`` or ``message``, if it is JSON. It is not part of the error text.
        wrong_url: Whether the HTTP status is that of a wrong ``base_url``: 3xx, 404, 405, or 403 with API Gateway's
            "Missing Authentication Token".
    """

    def __init__(
        self,
        message: str,
        *,
        text: str | None = None,
        wrong_url: bool = False,
        ref: "JobRef | None" = None,
        code: str | None = None,
        http_status: int | None = None,
        retry_after: float | None = None,
        transient: bool | None = None,
    ) -> None:
        super().__init__(
            message, ref=ref, code=code, http_status=http_status, retry_after=retry_after, transient=transient
        )
        self.text = text
        self.wrong_url = wrong_url


class UntrustedError(SmileJobsError):
    """There was an answer that must not be believed. Never retried."""


class SignatureError(UntrustedError):
    """An answer with something to say does not carry a valid signature of this partner."""


class WrongJobError(UntrustedError):
    """An answer speaks of another job or user than the one that was asked for."""


class ApiError(SmileJobsError):
    """The API said no.

    Attributes:
        text: The API's own words. They are not part of the error text: they may quote ids.
    """

    def __init__(
        self,
        message: str,
        *,
        text: str | None = None,
        ref: "JobRef | None" = None,
        code: str | None = None,
        http_status: int | None = None,
        retry_after: float | None = None,
        transient: bool | None = None,
    ) -> None:
        super().__init__(
            message, ref=ref, code=code, http_status=http_status, retry_after=retry_after, transient=transient
        )
        self.text = text


class CredentialsError(ApiError):
    """Partner id, API key, clock and environment do not fit each other."""


class JobNotFoundError(ApiError):
    """The API knows no such job: wrong ids, the other environment, or not submitted yet."""


class NoZipError(ApiError):
    """The job was registered, but its images never arrived."""


class UserDisabledError(ApiError):
    """The enrolled user is disabled."""


class UserNotFoundError(ApiError):
    """There is no such enrolled user."""


class BadRequestError(ApiError):
    """The API did not like the request itself."""


class RateLimitedError(ApiError):
    """Too many requests; see ``retry_after``."""

    transient = True


class ServerError(ApiError):
    """The API has a problem of its own."""

    transient = True


class WaitTimeoutError(SmileJobsError, TimeoutError):
    """The wait is over, the job is not: waiting again goes on where this wait stopped.

    Attributes:
        last: The last good answer, if there was one; a provisional result is found here.
        last_error: The failure of the last poll, if it failed.
        polls: How many polls were begun.
        elapsed: How long this wait took, in seconds.
        age: The age of the job, in seconds; that of the wait where `submitted_at` was not given.
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
    """So many polls in a row failed that going on makes no sense; the last failure is the ``__cause__``.

    Of a batch it has no ``ref``: the polls were about many jobs, and those that are pending have outcomes of their own.

    Attributes:
        last: The last good answer, if there was one.
        last_error: The last failure (a pickled exception loses its ``__cause__``, but keeps this).
        polls: How many polls were begun.
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
        super().__init__(
            message,
            ref=ref,
            code=last_error.code,
            http_status=last_error.http_status,
            retry_after=last_error.retry_after,
        )
        self.last = last
        self.last_error = last_error
        self.polls = polls


class NotApprovedError(SmileJobsError):
    """The verdict is not "approved".

    Attributes:
        status: The answer that says so.
    """

    def __init__(self, status: "JobStatus") -> None:
        verdict = "still pending" if status.verdict is None else f"complete with the verdict {status.verdict.value}"
        super().__init__(f"not approved: the job is {verdict}", ref=status.ref, code=status.code)
        self.status = status


_Reason = Literal["oversized", "malformed", "unsigned", "undated", "stale", "future"]


class CallbackError(SmileJobsError):
    """A callback must not be believed, or cannot be read.

    Attributes:
        reason: Why. "oversized": it has too many bytes (HTTP 413). "malformed": it is not JSON, has the wrong shape or
            names no job (400). And what anybody could have sent (401): "unsigned", its signature is missing or not this
            partner's; "undated", its timestamp names no instant; "stale", it is too old; "future", it is not from the
            past.
    """

    def __init__(
        self,
        message: str,
        *,
        reason: _Reason,
        ref: "JobRef | None" = None,
    ) -> None:
        super().__init__(message, ref=ref)
        self.reason: _Reason = reason


ImageReason = Literal["pending", "missing", "untrusted", "expired", "store", "malformed", "oversized", "exists", "disk"]
"""Why a picture is missing, see `ImageError`."""


class ImageError(SmileJobsError):
    """A picture could not be fetched or saved; the other pictures of its job were, as far as they could be.

    Transient where the store gave no answer, a broken one or a slow one, or has a problem of its own.

    Attributes:
        reason: Why. "pending": the job is not complete, and has no links yet. "missing": the API made no link. And of
            one picture: "untrusted", its link leads where pictures must not come from; "expired", the store refused the
            link (403), and the one that was asked for in its place; "store", the store did not hand it over whole;
            "malformed", what came is no picture; "oversized", it has too many bytes; "exists", there is such a file
            already; "disk", it could not be written.
        name: The vendor's name for the picture, such as "selfie_image"; None if it is not about one picture.
        text: What the API wrote instead of links, in its own words. Not part of the error text: it may quote ids.
        saved: The files of this job that were written all the same.
        others: What went wrong with further pictures of this job.
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
        ref: "JobRef | None" = None,
        http_status: int | None = None,
        transient: bool | None = None,
    ) -> None:
        super().__init__(message, ref=ref, http_status=http_status, transient=transient)
        self.reason: ImageReason = reason
        self.name = name
        self.text = text
        self.saved = saved
        self.others = others


class WatchListError(SmileJobsError):
    """The database of a watch list cannot be used: not reachable, read-only, of a newer version, somebody else's.

    Transient where it was not reachable.
    """
