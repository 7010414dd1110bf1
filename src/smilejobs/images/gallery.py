"""What is needed to fetch pictures."""

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import TYPE_CHECKING

from attrs import frozen

from smilejobs.images.hosts import Hosts
from smilejobs.model.jobs import JobRef, JobStatus

if TYPE_CHECKING:
    from smilejobs.transport import Fetcher


@frozen(kw_only=True)
class Gallery:
    """What is needed to fetch pictures.

    Attributes:
        ask: Polls a job, with its links; returns a `JobStatus` as it is.
        fetcher: Follows links.
        hosts: The hosts to which links may lead.
        max_bytes: The maximum size of a picture in bytes.
        attempts: The number of attempts in all to fetch a picture, when failures are transient.
        now: The wall clock; returns an aware datetime.
    """

    ask: Callable[[JobRef | JobStatus], Awaitable[JobStatus]]
    fetcher: "Fetcher"
    hosts: Hosts
    max_bytes: int
    attempts: int
    now: Callable[[], datetime]
