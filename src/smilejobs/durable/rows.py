"""The rows of a watch list as values, and their counts."""

from datetime import UTC, datetime
from hashlib import sha256

from attrs import field, frozen

from smilejobs.errors import WatchListError
from smilejobs.model.jobs import JobRef


@frozen(kw_only=True)
class Learned:
    """What the workers of a watch list have learned about how long its jobs take; see `LearnedPace`.

    Attributes:
        remembered: How many jobs count; older ones are forgotten. None if this version of smilejobs cannot read
            what is stored.
        jobs: How many jobs it was learned from in all.
        reviews: How many waits from a provisional answer to the final one it was learned from in all.
        since: When that began (aware); None if it is not known.
        updated_at: When a worker last stored what it had learned, likewise.
    """

    remembered: int | None
    jobs: int
    reviews: int
    since: datetime | None
    updated_at: datetime | None


@frozen(kw_only=True)
class Health:
    """Whether a watch list is worked on, see `Counts`; every attribute is None where all is well."""

    paused: str | None = None
    outage: str | None = None
    outage_since: datetime | None = None
    stalled: str | None = None


@frozen(kw_only=True)
class Counts(Health):
    """The state of a watch list.

    Attributes:
        pending: Jobs that are waited for.
        complete: Jobs that have a result.
        failed: Jobs that the API refused, or whose answers could not be trusted.
        expired: Jobs whose deadline came first.
        oldest: When the oldest of the pending jobs was added (aware); None if there is none.
        paused: Why nothing is polled; None while polling goes on.
        outage: What polls fail with, where no good answer of the API comes; None where they come. Polling goes on.
        outage_since: Since when (aware).
        stalled: Why pending jobs are not polled although polling is not paused: no worker is at work, or begins a poll
            although jobs are due, or none assigns the buckets; None where all is well.
        learned: What the workers have learned about how long jobs take; None if none of them has learned anything.
    """

    pending: int
    complete: int
    failed: int
    expired: int
    oldest: datetime | None
    learned: Learned | None = None


@frozen
class Pending:
    """A row of a job that is waited for. Instants are seconds since 1970."""

    seq: int
    bucket: int
    user_id: str = field(repr=False)
    job_id: str = field(repr=False)
    submitted_at: float | None
    added_at: float
    deadline: float | None
    final: bool

    @property
    def ref(self) -> JobRef:
        """The job."""
        return JobRef(self.user_id, self.job_id, instant(self.born_at))

    @property
    def born_at(self) -> float:
        """When its age begins, in seconds since 1970."""
        return self.added_at if self.submitted_at is None else self.submitted_at


@frozen
class Ended:
    """A row of a job that has ended, as stored. Instants are seconds since 1970."""

    seq: int
    place: int
    state: int
    user_id: str = field(repr=False)
    job_id: str = field(repr=False)
    submitted_at: float | None
    added_at: float
    ended_at: float
    outcome: str = field(repr=False)
    raw: str | None = field(repr=False)


@frozen
class Ending:
    """The end of a job, to be stored; the outcome and the raw answer as JSON."""

    ref: JobRef
    state: int
    outcome: str = field(repr=False)
    raw: str | None = field(default=None, repr=False)


def failure(text: str) -> dict[str, object]:
    """Return the outcome of a job that cannot be read or stored."""
    return {"error": WatchListError.__name__, "error_text": text}


def key_of(ref: JobRef) -> bytes:
    """Return a hash of the ids of a job; its first byte is the bucket."""
    return sha256(f"{len(ref.user_id)} {ref.user_id}{ref.job_id}".encode()).digest()[:16]


def epoch(at: datetime | None) -> float | None:
    """Return an instant as seconds since 1970."""
    return None if at is None else at.timestamp()


def instant(at: float) -> datetime:
    """Return seconds since 1970 as an instant, aware."""
    return datetime.fromtimestamp(at, UTC)
