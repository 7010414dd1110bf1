"""What it takes to fetch pictures."""

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
    """What it takes to fetch pictures.

    Attributes:
        ask: Asks about a job, with its links.
        fetcher: Follows links.
        hosts: Where links may lead.
        max_bytes: The most bytes of a picture.
        attempts: How often a picture is fetched, in all, when that fails for a reason that may pass.
        now: The wall clock, aware.
    """

    ask: Callable[[JobRef], Awaitable[JobStatus]]
    fetcher: "Fetcher"
    hosts: Hosts
    max_bytes: int
    attempts: int
    now: Callable[[], datetime]
