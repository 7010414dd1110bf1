"""The rows of results files and reports: one per row of the input, without personal data."""

import enum
from datetime import datetime
from typing import Any

from attrs import Attribute, evolve, field, frozen

from smilejobs.errors import (
    ApiError,
    BadRequestError,
    CredentialsError,
    ImageError,
    SmileJobsError,
    WaitTimeoutError,
)
from smilejobs.images import SavedImages
from smilejobs.model.codes import Verdict
from smilejobs.outcomes import Outcome, Record, record_values

_NO_LINKS = "links"
"""The API failed to create links. If it has no links, `ImageError.reason` is "missing" as well, but that is final."""
_TEMPORARY_REASONS = frozenset({_NO_LINKS, "expired", "store", "disk"})
"""Reasons for missing pictures that may be saved later."""


class Ending(enum.StrEnum):
    """The outcome of a row of a batch."""

    COMPLETE = "complete"
    """The API reports a final status; the verdict says which."""
    PENDING = "pending"
    """The wait ended before the job was complete."""
    REFUSED = "refused"
    """The API refuses this job for good."""
    FAILED = "failed"
    """There was no answer that can be read and trusted; another poll may help."""
    INVALID = "invalid"
    """The row names no valid job."""


WORDS = (*(verdict.value for verdict in Verdict), *(ending.value for ending in Ending if ending != Ending.COMPLETE))
"""All values of `RowRecord.word`, best first."""

AGES = ("pending_age", "end_age")
"""The columns that say how long a job took; results of development versions lack them."""

_ROW = ("index", "line", "user_id", "job_id", "submitted_at", "outcome")


def _put_row_first(_: type, attributes: "list[Attribute[Any]]") -> "list[Attribute[Any]]":
    """Put the attributes that identify the row before those of every record: this is the order of the columns."""
    return sorted(attributes, key=lambda attribute: attribute.name not in _ROW)


@frozen(kw_only=True, field_transformer=_put_row_first)
class RowRecord(Record):
    """A row of a results file: the record of an outcome, with the position of the row in the input and its pictures.

    Attributes:
        index: The position of the row in the input, from 0.
        line: The line of the input at which the row begins, from 1.
        user_id: The ``user_id`` of the job.
        job_id: The ``job_id`` of the job.
        submitted_at: When the job was submitted.
        outcome: The outcome.
        polls: The number of polls.
        seconds: Seconds from the first poll to the end.
        pending_age: The age of the job at the last answer that did not end the wait, as `Outcome.pending_age`.
        end_age: Its age at the end, as `Outcome.end_age`.
        images: The number of saved pictures of a complete job, if pictures are to be saved.
        images_error: Why pictures are missing: the `ImageError.reason`, or "links" if the API failed to create links.
        images_error_text: The text of that error.
    """

    index: int
    line: int | None = None
    user_id: str | None = field(default=None, repr=False)
    job_id: str | None = field(default=None, repr=False)
    submitted_at: datetime | None = None
    outcome: Ending
    polls: int | None = None
    seconds: float | None = None
    pending_age: float | None = None
    end_age: float | None = None
    images: int | None = None
    images_error: str | None = None
    images_error_text: str | None = None

    @property
    def word(self) -> str:
        """The verdict if the job is complete, else the outcome."""
        return self.verdict or Verdict.UNKNOWN.value if self.outcome is Ending.COMPLETE else self.outcome.value

    @property
    def lacks_images(self) -> bool:
        """Whether another poll may bring pictures: none were to be saved, or the error is temporary."""
        return self.images is None or self.images_error in _TEMPORARY_REASONS


def make_record(outcome: Outcome, *, index: int | None = None, line: int | None = None) -> RowRecord:
    """Return the record of an outcome; for a job that is not complete, it has the last answer.

    The row is at *line* of the input, and its position is *index*, if that is not `Outcome.index`.
    """
    return RowRecord(
        index=outcome.index if index is None else index,
        line=line,
        user_id=outcome.ref.user_id,
        job_id=outcome.ref.job_id,
        submitted_at=outcome.ref.submitted_at,
        outcome=classify_error(outcome.error),
        polls=outcome.polls,
        seconds=round(outcome.elapsed, 3),
        pending_age=_round(outcome.pending_age),
        end_age=_round(outcome.end_age),
        **record_values(outcome),
    )


def add_images(record: RowRecord, saved: SavedImages) -> RowRecord:
    """Return a record with the number of saved pictures and their error, if the job is complete.

    A file that existed before counts as saved: its name belongs to this job and this picture alone, and a file gets its
    name when it is whole. It is from a run that was stopped before it wrote the row, or from a row with the same job.
    """
    if saved.outcome.status is None:
        return record
    failures = (saved.error, *saved.error.others) if isinstance(saved.error, ImageError) else ()
    missing = [each for each in failures if each.reason != "exists"]
    record = evolve(record, images=len(saved.paths) + len(failures) - len(missing))
    if not missing:
        return record
    # A temporary error comes first: it decides whether the row is polled again.
    first = next((each for each in missing if _get_reason(each) in _TEMPORARY_REASONS), missing[0])
    more = "" if len(missing) == 1 else f" (and {len(missing) - 1} more)"
    return evolve(record, images_error=_get_reason(first), images_error_text=f"{first}{more}")


def _get_reason(error: ImageError) -> str:
    return _NO_LINKS if error.reason == "missing" and error.text is not None else error.reason


def _round(age: float | None) -> float | None:
    return None if age is None else round(age, 3)


def classify_error(error: SmileJobsError | None) -> Ending:
    """Return the outcome of a row by its error; None stands for a status.

    Only an answer of the API about the job or its user is final. A wrong key or clock, a request that the API does not
    accept, an answer that is not from the API or cannot be trusted, and a server that cannot be reached say nothing
    about the job, and can be corrected.
    """
    if error is None:
        return Ending.COMPLETE
    if isinstance(error, WaitTimeoutError):
        return Ending.PENDING
    is_about_job = isinstance(error, ApiError) and not isinstance(error, (CredentialsError, BadRequestError))
    return Ending.REFUSED if is_about_job and not error.transient else Ending.FAILED
