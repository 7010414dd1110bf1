"""What is told of one job of a batch: the same in a results file and in a report, and without personal data."""

import enum
from datetime import datetime

from attrs import evolve, field, frozen

from smilejobs.errors import (
    ApiError,
    BadRequestError,
    CredentialsError,
    ImageError,
    SmileJobsError,
    WaitTimeoutError,
)
from smilejobs.images import SavedImages
from smilejobs.model.codes import Verdict, display_number
from smilejobs.model.jobs import JobResult, JobStatus
from smilejobs.outcomes import Outcome

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


@frozen(kw_only=True)
class Record:
    """One row of a batch, and how it has ended.

    Every attribute but *index*, *tag* and *outcome* is None where nothing is known.

    Attributes:
        index: The position of the row in the input, from 0.
        line: The line of the input at which it begins, from 1.
        user_id: The job's ``user_id``.
        job_id: The job's ``job_id``.
        submitted_at: When the job was submitted.
        outcome: How it has ended.
        is_final: Whether the outcome of a complete job will not change.
        code: The status code of the last answer.
        verdict: What the result means for the person.
        result_code: ``ResultCode``.
        result_text: ``ResultText``.
        confidence: ``ConfidenceValue``, 0 to 100.
        smile_job_id: ``SmileJobID``.
        polls: How many polls it took.
        seconds: From the first poll to the end.
        error: The class of the error.
        error_text: Its text.
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
    is_final: bool | None = None
    code: str | None = None
    verdict: str | None = None
    result_code: str | None = field(default=None, repr=display_number)
    result_text: str | None = field(default=None, repr=False)
    confidence: float | None = field(default=None, repr=False)
    smile_job_id: str | None = field(default=None, repr=display_number)
    polls: int | None = None
    seconds: float | None = None
    error: str | None = None
    error_text: str | None = None
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
    error = outcome.error
    status = outcome.status if error is None else getattr(error, "last", None)
    last = status if isinstance(status, JobStatus) else None
    result = (last and last.result) or JobResult()
    code = None if last is None else last.code
    return Record(
        index=outcome.index if index is None else index,
        line=line,
        user_id=outcome.ref.user_id,
        job_id=outcome.ref.job_id,
        submitted_at=outcome.ref.submitted_at,
        outcome=ending_of(error),
        is_final=None if last is None or not last.job_complete else last.is_final,
        code=code if error is None or error.code is None else error.code,
        verdict=None if last is None or last.verdict is None else last.verdict.value,
        result_code=result.result_code,
        result_text=result.result_text,
        confidence=result.confidence_value,
        smile_job_id=result.smile_job_id,
        polls=outcome.polls,
        seconds=round(outcome.elapsed, 3),
        error=None if error is None else type(error).__name__,
        error_text=None if error is None else str(error),
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
