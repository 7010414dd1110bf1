"""What is told of one job of a batch: the same in a results file and in a report, and without personal data."""

import enum
from datetime import datetime
from typing import Any

from attrs import Attribute, evolve, field, frozen

from smilejobs import outcomes
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
from smilejobs.outcomes import Outcome, record_values

_NO_LINKS = "links"
"""The API could not make links; where it just has none, `ImageError.reason` is "missing", too, but for good."""
_MAY_PASS = frozenset({_NO_LINKS, "expired", "store", "disk"})
"""Why pictures are missing that may be had later: with other links, from a store that works, on a disk with room."""


class Ending(enum.StrEnum):
    """How a row of a batch has ended."""

    COMPLETE = "complete"
    """The API has reported a final status; the verdict says which."""
    PENDING = "pending"
    """The wait is over, the job is not."""
    REFUSED = "refused"
    """The API said no to this job, for good."""
    FAILED = "failed"
    """There was no answer that can be read and believed; asking again may help."""
    INVALID = "invalid"
    """The row names no job that could be asked for."""


WORDS = (*(verdict.value for verdict in Verdict), *(ending.value for ending in Ending if ending != Ending.COMPLETE))
"""All that `Record.word` may be, best first."""


_ROW = ("index", "line", "user_id", "job_id", "submitted_at", "outcome")


def _put_row_first(_: type, attributes: "list[Attribute[Any]]") -> "list[Attribute[Any]]":
    """Put the attributes that identify the row before those of every record: this is the order of the columns."""
    return sorted(attributes, key=lambda attribute: attribute.name not in _ROW)


@frozen(kw_only=True, field_transformer=_put_row_first)
class Record(outcomes.Record):
    """One row of a batch, and how it has ended: a record with the row's place in the input and its pictures.

    Attributes:
        index: The position of the row in the input, from 0.
        line: The line of the input at which it begins, from 1.
        user_id: The job's ``user_id``.
        job_id: The job's ``job_id``.
        submitted_at: When the job was submitted.
        outcome: How it has ended.
        polls: How many polls it took.
        seconds: From the first poll to the end.
        images: How many of the job's pictures are saved, if they were to be.
        images_error: Why there are not more: the `ImageError.reason`, or "links" if the API could not make any.
        images_error_text: Its text.
    """

    index: int
    line: int | None = None
    user_id: str | None = field(default=None, repr=False)
    job_id: str | None = field(default=None, repr=False)
    submitted_at: datetime | None = None
    outcome: Ending
    polls: int | None = None
    seconds: float | None = None
    images: int | None = None
    images_error: str | None = None
    images_error_text: str | None = None

    @property
    def word(self) -> str:
        """How the row counts: by its verdict if the job is complete, else by its outcome."""
        return self.verdict or Verdict.UNKNOWN.value if self.outcome is Ending.COMPLETE else self.outcome.value

    @property
    def lacks_images(self) -> bool:
        """Whether asking again may bring pictures of a complete job: none were to be saved, or what failed may pass."""
        return self.images is None or self.images_error in _MAY_PASS


def record_of(outcome: Outcome, *, index: int | None = None, line: int | None = None) -> Record:
    """Return what is told of *outcome*.

    A job that is not complete shows the last answer that is known.

    Args:
        outcome: How the wait for it has ended.
        index: The position of the row in the input, if that is not the outcome's.
        line: The line of the input at which the row begins.
    """
    return Record(
        index=outcome.index if index is None else index,
        line=line,
        user_id=outcome.ref.user_id,
        job_id=outcome.ref.job_id,
        submitted_at=outcome.ref.submitted_at,
        outcome=ending_of(outcome.error),
        polls=outcome.polls,
        seconds=round(outcome.elapsed, 3),
        **record_values(outcome),
    )


def with_images(record: Record, saved: SavedImages) -> Record:
    """Return a record that tells of the pictures, too, if the job is complete.

    A file that was there already counts as saved: its name is made for this job and this picture alone, and it got that
    name when it was whole. It is from a run that was stopped before it wrote the row, or from a row with the same job.

    Args:
        record: What is told of the job.
        saved: What has become of its pictures.
    """
    if saved.outcome.status is None:
        return record
    failures = (saved.error, *saved.error.others) if isinstance(saved.error, ImageError) else ()
    missing = [each for each in failures if each.reason != "exists"]
    record = evolve(record, images=len(saved.paths) + len(failures) - len(missing))
    if not missing:
        return record
    # One that may pass comes first: it decides whether the row is asked for again.
    first = next((each for each in missing if _reason(each) in _MAY_PASS), missing[0])
    more = "" if len(missing) == 1 else f" (and {len(missing) - 1} more)"
    return evolve(record, images_error=_reason(first), images_error_text=f"{first}{more}")


def _reason(error: ImageError) -> str:
    return _NO_LINKS if error.reason == "missing" and error.text is not None else error.reason


def ending_of(error: SmileJobsError | None) -> Ending:
    """Return what an error (None for a status) means for the row.

    Only what the API says about the job or its user is for good. A wrong key or clock, a request that the API does not
    accept, an answer that is not the API's or cannot be believed, a server that was not reached: these say nothing
    about the job, and can be mended.
    """
    if error is None:
        return Ending.COMPLETE
    if isinstance(error, WaitTimeoutError):
        return Ending.PENDING
    is_about_the_job = isinstance(error, ApiError) and not isinstance(error, (CredentialsError, BadRequestError))
    return Ending.REFUSED if is_about_the_job and not error.transient else Ending.FAILED
