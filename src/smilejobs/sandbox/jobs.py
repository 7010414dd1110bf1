"""One job of the sandbox. Nothing runs for it: its state is a pure function of the time at which it is looked at.

It passes these stages, by the clock alone::

    submitted_at        uploaded_at        complete_at           final_at
         |  NO_ZIP (2314)   |  RUNNING (2302)   |  UNDER_REVIEW (0814)  |  FINAL
                            '----- machine -----'------- review --------'

So a job is complete when the machine is done with its images, and final when the human review after that, if there is
one, has ended. `Sandbox.receive` sets ``uploaded_at``, and `Sandbox.review` sets ``reviewed_at``, where no time was
planned. A job with a refusal stays REFUSED.
"""

import enum
import json
from collections.abc import Mapping
from datetime import datetime, timedelta

from attrs import field, frozen

from smilejobs.model.codes import Verdict, verdict_by_code
from smilejobs.model.jobs import JobRef
from smilejobs.sandbox.faults import FaultProfile
from smilejobs.sandbox.products import PRODUCTS, PROVISIONAL_CODE, Product, text_for


class Stage(enum.Enum):
    """How far a job has come."""

    REFUSED = "refused"
    NO_ZIP = "no zip"
    RUNNING = "running"
    UNDER_REVIEW = "under review"
    FINAL = "final"


def can_be_sent(value: object) -> bool:
    """Return whether *value* can be sent as JSON: it holds no lone surrogates and no infinite numbers."""
    try:
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError):
        return False
    return True


def copy_json(value: Mapping[str, object] | None, name: str) -> dict[str, object]:
    """Return a copy of a mapping that can be sent as JSON, empty for None; raise ValueError for anything else."""
    copy: object = json.loads(json.dumps({} if value is None else value)) if can_be_sent(value) else None
    if not isinstance(copy, dict):
        raise ValueError(f"{name} must be a mapping that can be written as JSON")  # noqa: TRY004  # or its values are wrong
    return copy


@frozen(kw_only=True, repr=False)
class Job:
    """What the sandbox answers about one job.

    Attributes:
        ref: The ids of the job, and when it was submitted.
        smile_job_id: The number that the sandbox gave it.
        job_type: The product, see `smilejobs.JOB_TYPES`.
        result_code: The result code of the final result.
        refusal: The status code with which every poll is refused; None if polls are answered.
        uploaded_at: When its images arrive; None if they have not arrived and no time is planned.
        machine: The time from the arrival of the images to the machine's result.
        review: The time from there to the end of the human review; zero for no review, None until it is ended.
        reviewed_at: When the review was ended by `Sandbox.review` or on the page; None if it was not.
        partner_params: What ``PartnerParams`` hold besides the ids and the job type.
        details: Further keys of the results, in the vendor's spelling. They do not replace what the job itself says.
        callback_url: Where the results are sent; None for nowhere.
        root: Where the job was submitted over HTTP, such as "http://127.0.0.1:8787", for the links in callbacks.
        faults: The fault profile of its polls and images; None for that of the sandbox.
    """

    ref: JobRef
    smile_job_id: str
    job_type: int
    result_code: str
    refusal: str | None = None
    uploaded_at: datetime | None = None
    machine: timedelta = timedelta()
    review: timedelta | None = timedelta()
    reviewed_at: datetime | None = None
    partner_params: Mapping[str, object] = field(factory=dict[str, object])
    details: Mapping[str, object] = field(factory=dict[str, object])
    callback_url: str | None = None
    root: str | None = None
    faults: FaultProfile | None = None

    @property
    def complete_at(self) -> datetime | None:
        """When ``job_complete`` becomes true; None for never, or not known yet."""
        if self.uploaded_at is None or self.refusal is not None:
            return None
        return self.uploaded_at + self.machine

    @property
    def final_at(self) -> datetime | None:
        """When the result is final, later than *complete_at* if there is a review; None for never, or not known yet."""
        complete_at = self.complete_at
        if complete_at is None or self.reviewed_at is not None:
            return self.reviewed_at
        return None if self.review is None else complete_at + self.review

    @property
    def verdict(self) -> Verdict | None:
        """The verdict of the final result; None if there is none, or its time is not known yet."""
        return None if self.final_at is None else verdict_by_code(self.result_code)

    @property
    def product(self) -> Product:
        """What its product answers."""
        return PRODUCTS[self.job_type]

    def stage(self, at: datetime) -> Stage:
        """Return the stage that it has reached at the time *at*."""
        if self.refusal is not None:
            return Stage.REFUSED
        if self.uploaded_at is None or at < self.uploaded_at:
            return Stage.NO_ZIP
        if at < self.uploaded_at + self.machine:
            return Stage.RUNNING
        return Stage.UNDER_REVIEW if self.final_at is None or at < self.final_at else Stage.FINAL

    def milestones(self) -> list[tuple[datetime, dict[str, object]]]:
        """Return each time at which it gets a new result, with that result, the earliest first.

        With a review there are two results, of which the first is provisional. Results whose time is not known yet are
        missing.
        """
        complete_at, final_at = self.complete_at, self.final_at
        reached = []
        if complete_at is not None and complete_at != final_at:
            reached.append((complete_at, self._result(PROVISIONAL_CODE, is_final=False, is_machine=True)))
        if final_at is not None:
            is_machine = complete_at == final_at
            reached.append((final_at, self._result(self.result_code, is_final=True, is_machine=is_machine)))
        return reached

    def results(self, at: datetime) -> list[dict[str, object]]:
        """Return the results that it has at the time *at*, the latest last."""
        return [result for since, result in self.milestones() if since <= at]

    def __repr__(self) -> str:
        return f"<Job {self.ref.tag}: smile_job_id={self.smile_job_id!r}, result_code={self.result_code!r}>"

    def _result(self, code: str, *, is_final: bool, is_machine: bool) -> dict[str, object]:
        """Return one ``result``; booleans and numbers are text, as the vendor writes them."""
        ids = {"user_id": self.ref.user_id, "job_id": self.ref.job_id, "job_type": str(self.job_type)}
        return {
            **self.product.result(code),
            **self.details,
            "ResultCode": code,
            "ResultText": text_for(code),
            "SmileJobID": self.smile_job_id,
            "IsFinalResult": str(is_final).lower(),
            "IsMachineResult": str(is_machine).lower(),
            "PartnerParams": {**self.partner_params, **ids},
        }
