"""The input and the output of a batch: refs, outcomes, their records, and progress."""

from collections.abc import AsyncGenerator, AsyncIterable, Generator, Iterable
from contextlib import aclosing, closing, nullcontext
from typing import Any

from attrs import field, frozen

from smilejobs.errors import SmileJobsError
from smilejobs.model.codes import describe_result, display_number
from smilejobs.model.jobs import JobRef, JobResult, JobStatus
from smilejobs.model.tables import Cell, table

JobRefLike = JobRef | tuple[str, str]
JobRefs = Iterable[JobRefLike] | AsyncIterable[JobRefLike]
"""What collections are made of: refs, or pairs of ``user_id`` and ``job_id``; from an iterable of either kind."""


@frozen(kw_only=True)
class Outcome:
    """How the wait for one job of many has ended: either *status* or *error* is given.

    Attributes:
        index: The position of the job in the input, from 0.
        ref: The job, as the input named it.
        status: The answer that ended the wait.
        error: Why there is none; what `Client.wait` would have raised.
        polls: How many polls it took.
        elapsed: Seconds from the first poll to the end, without those for which polling waited for the consumer.
        pending_age: The age of the job, in seconds, at the last answer that did not end the wait; None if there was
            none. The result came after that age, and at *end_age* at the latest. Ages count from the ref's
            ``submitted_at``, and from the first poll if that is None.
        end_age: The age of the job at the end, likewise; None if it was never polled.
    """

    index: int
    ref: JobRef
    status: JobStatus | None = None
    error: SmileJobsError | None = None
    polls: int
    elapsed: float
    pending_age: float | None = None
    end_age: float | None = None

    def _repr_html_(self) -> str:
        ending: list[tuple[Cell, Cell]] = (
            [("error", type(self.error).__name__), ("text", str(self.error))]
            if self.status is None
            else [
                ("verdict", self.status.verdict),
                ("result code", describe_result((self.status.result or JobResult()).result_code)),
            ]
        )
        return table(
            f"job {self.ref.tag}, number {self.index}",
            [*ending, ("polls", str(self.polls)), ("seconds", f"{self.elapsed:.1f}")],
        )


@frozen(kw_only=True)
class Record:
    """The flat form of an outcome, without ids and personal data: a part of a row of a file, or of a database.

    Attributes:
        is_final: Whether the outcome of a complete job is final; None for other jobs.
        code: The status code of the last answer; None if unknown, as for all that follow.
        verdict: The value of the `Verdict`.
        result_code: ``ResultCode``.
        result_text: ``ResultText``.
        confidence: ``ConfidenceValue``, 0 to 100.
        smile_job_id: ``SmileJobID``.
        error: The name of the class of the error; None for a complete job, as for the next one.
        error_text: The text of the error.
    """

    is_final: bool | None = None
    code: str | None = None
    verdict: str | None = None
    result_code: str | None = field(default=None, repr=display_number)
    result_text: str | None = field(default=None, repr=False)
    confidence: float | None = field(default=None, repr=False)
    smile_job_id: str | None = field(default=None, repr=display_number)
    error: str | None = None
    error_text: str | None = None


def record_values(outcome: Outcome) -> dict[str, Any]:
    """Return the values of the `Record` of an outcome, by their names.

    For a job that is not complete, they are those of the last answer that is known.
    """
    error = outcome.error
    status = outcome.status if error is None else getattr(error, "last", None)
    last = status if isinstance(status, JobStatus) else None
    result = (last and last.result) or JobResult()
    code = None if last is None else last.code
    return {
        "is_final": None if last is None or not last.job_complete else last.is_final,
        "code": code if error is None or error.code is None else error.code,
        "verdict": None if last is None or last.verdict is None else last.verdict.value,
        "result_code": result.result_code,
        "result_text": result.result_text,
        "confidence": result.confidence_value,
        "smile_job_id": result.smile_job_id,
        "error": None if error is None else type(error).__name__,
        "error_text": None if error is None else str(error),
    }


@frozen(kw_only=True, eq=False)
class Progress:
    """How far a batch is.

    Attributes:
        pending: Jobs that were read from the input and have not ended.
        done: Jobs that ended with a status.
        failed: Jobs that ended with an error.
        polls: Polls that were begun.
        throttled: Whether polls are held back because the API cannot keep up.
        polls_per_second: The rate of polls over about the last second.
        eta: Seconds to the end at the present speed; None where the size of the input or the speed is not known.
    """

    pending: int
    done: int
    failed: int
    polls: int
    throttled: bool
    polls_per_second: float
    eta: float | None


def time_left(total: int | None, ended: int, elapsed: float) -> float | None:
    """Return the seconds to the end of *total* jobs, if *ended* took *elapsed* seconds; None if that says nothing."""
    return None if total is None or not ended else (total - ended) / ended * elapsed


async def each(refs: JobRefs) -> AsyncGenerator[JobRefLike, None]:
    """Yield what an iterable of either kind has; a generator is closed with this one."""
    if isinstance(refs, AsyncIterable):
        items = aiter(refs)
        async with aclosing(items) if isinstance(items, AsyncGenerator) else nullcontext():
            async for item in items:
                yield item
    else:
        listed = iter(refs)
        with closing(listed) if isinstance(listed, Generator) else nullcontext():
            for item in listed:
                yield item


def job_ref(item: JobRefLike, index: int) -> JobRef:
    """Return what a caller gave at the position *index* of a collection as a ref.

    Raises:
        TypeError: It is neither a ref nor a pair.
        ValueError: An id is empty.
    """
    if isinstance(item, JobRef):
        return item
    failure: Exception = TypeError(
        f"refs[{index}] must be a JobRef or a pair (user_id, job_id), not {type(item).__name__}"
    )
    try:
        if isinstance(item, (tuple, list)) and len(item) == 2:
            return JobRef(*item)
    except (TypeError, ValueError) as error:
        failure = type(error)(f"refs[{index}]: {error}")
    del item  # it holds ids: crash reporters copy the locals of each frame of a traceback
    raise failure
