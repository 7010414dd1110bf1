"""Await the result of a Smile ID job: asynchronous, typed, verified."""

from smilejobs.callbacks import CallbackVerifier
from smilejobs.client import Client, ClientOptions
from smilejobs.durations import Duration
from smilejobs.errors import (
    ApiError,
    BadRequestError,
    BadResponseError,
    CallbackError,
    CredentialsError,
    JobNotFoundError,
    NotApprovedError,
    NoZipError,
    RateLimitedError,
    RequestError,
    ServerError,
    SignatureError,
    SmileJobsError,
    TooManyFailuresError,
    UntrustedError,
    UserDisabledError,
    UserNotFoundError,
    WaitTimeoutError,
    WrongJobError,
)
from smilejobs.events import (
    Event,
    FleetBraked,
    Hook,
    Notified,
    PollFailed,
    PollFinished,
    PollScheduled,
    WaitEnded,
    log_event,
)
from smilejobs.fleet import JobRefLike, JobRefs, Outcome, Progress
from smilejobs.model.callback import Callback
from smilejobs.model.codes import (
    JOB_TYPES,
    RESULT_CODES,
    STATUS_CODES,
    CodeClass,
    ResultCode,
    StatusCode,
    Verdict,
)
from smilejobs.model.jobs import JobRef, JobResult, JobStatus, PartnerParams
from smilejobs.model.links import ImageLink, ImageLinks
from smilejobs.polling.pace import Pace, PaceFunction
from smilejobs.polling.rules import Until
from smilejobs.settings import Credentials, Environment
from smilejobs.transport import HTTPClient, HTTPResponse, TransportName
from smilejobs.version import __version__

__all__ = [
    "JOB_TYPES",
    "RESULT_CODES",
    "STATUS_CODES",
    "ApiError",
    "BadRequestError",
    "BadResponseError",
    "Callback",
    "CallbackError",
    "CallbackVerifier",
    "Client",
    "ClientOptions",
    "CodeClass",
    "Credentials",
    "CredentialsError",
    "Duration",
    "Environment",
    "Event",
    "FleetBraked",
    "HTTPClient",
    "HTTPResponse",
    "Hook",
    "ImageLink",
    "ImageLinks",
    "JobNotFoundError",
    "JobRef",
    "JobRefLike",
    "JobRefs",
    "JobResult",
    "JobStatus",
    "NoZipError",
    "NotApprovedError",
    "Notified",
    "Outcome",
    "Pace",
    "PaceFunction",
    "PartnerParams",
    "PollFailed",
    "PollFinished",
    "PollScheduled",
    "Progress",
    "RateLimitedError",
    "RequestError",
    "ResultCode",
    "ServerError",
    "SignatureError",
    "SmileJobsError",
    "StatusCode",
    "TooManyFailuresError",
    "TransportName",
    "Until",
    "UntrustedError",
    "UserDisabledError",
    "UserNotFoundError",
    "Verdict",
    "WaitEnded",
    "WaitTimeoutError",
    "WrongJobError",
    "__version__",
    "log_event",
]
