"""The arguments of a client and of its methods, and checks of them."""

from collections.abc import AsyncIterable, Callable, Collection, Iterable
from datetime import datetime
from typing import TypedDict

from smilejobs.durations import Duration
from smilejobs.events import Hook
from smilejobs.model.jobs import Include, JobRef, JobStatus
from smilejobs.outcomes import Progress
from smilejobs.polling.pace import PaceFunction
from smilejobs.polling.rules import Until
from smilejobs.transport import HTTPClient, HTTPSession, TransportName


class ClientOptions(TypedDict, total=False):
    """The arguments of `Client` that `Client.from_env` takes: all that do not come from the environment."""

    http_client: HTTPClient | HTTPSession | None
    transport: TransportName | None
    max_connections: int
    rate: float | None
    request_timeout: Duration
    attempts: int
    max_response_bytes: int
    insecure_http: bool
    pace: PaceFunction | None
    now: Callable[[], datetime]
    hooks: Iterable[Hook]
    image_hosts: Iterable[str]


class TermsOptions(TypedDict, total=False):
    """The options of a wait that `Terms` holds."""

    timeout: Duration | None
    until: Until
    pace: PaceFunction | None
    first_after: Duration


class WaitOptions(TermsOptions, total=False):
    """The options of `Client.wait` and `Client.watch`; they are described at `Client.wait`."""

    submitted_at: datetime | None
    image_links: bool
    history: bool


class SaveManyOptions(TypedDict, total=False):
    """The options of `Client.save_images_many`; they are described at `Client.wait_many`."""

    timeout: Duration | None
    deadline: Duration | None
    until: Until
    pace: PaceFunction | None
    concurrency: int | None
    max_pending: int
    on_progress: Callable[[Progress], None] | None
    history: bool


class WaitManyOptions(SaveManyOptions, total=False):
    """The options of `Client.wait_many`."""

    image_links: bool


def include(*, image_links: bool, history: bool) -> Include:
    """Return what polls ask for besides the state of a job.

    Raises:
        TypeError: A value is not a bool. The string "false" would be true.
    """
    for name, value in (("image_links", image_links), ("history", history)):
        if not isinstance(value, bool):
            raise TypeError(f"{name} must be True or False, not {type(value).__name__}")
    return Include(image_links=image_links, history=history)


def job_of(first: object, job_id: object = None) -> JobRef | JobStatus:
    """Return the job that a method was called with: a ref, an answer that has links, or the two ids.

    Raises:
        TypeError: It is none of these.
        ValueError: An id is empty, or the answer has no links although the job is complete.
    """
    if isinstance(first, (JobRef, JobStatus)) == (job_id is not None):
        raise TypeError("a job is named by user_id and job_id, by a JobRef, or by a JobStatus")
    if not isinstance(first, (JobRef, JobStatus)):
        return JobRef(first, job_id)  # type: ignore[arg-type]  # JobRef checks the types
    if isinstance(first, JobStatus) and first.job_complete and first.image_links is None:
        raise ValueError("the JobStatus has no links to pictures; ask for it with image_links=True")
    return first


def check_names(names: object) -> None:
    """Raise TypeError unless *names* is None or a collection of strings; a single string is not."""
    if names is None:
        return
    if not isinstance(names, Collection) or isinstance(names, str) or not all(isinstance(name, str) for name in names):
        raise TypeError('names must be names of pictures, in a list or the like, such as ["selfie_image"]')


def check_progress(on_progress: object) -> None:
    """Raise TypeError unless *on_progress* is None or can be called."""
    if on_progress is not None and not callable(on_progress):
        raise TypeError("on_progress must be a function that takes a Progress")


def check_refs(refs: object) -> None:
    """Raise TypeError unless *refs* can be iterated over and is not a string."""
    if not isinstance(refs, (Iterable, AsyncIterable)) or isinstance(refs, (str, bytes)):
        raise TypeError(f"refs must be an iterable of JobRefs or pairs, not {type(refs).__name__}")
