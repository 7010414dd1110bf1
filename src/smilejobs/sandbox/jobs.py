"""The life of one job: pure, a function of the instant at which somebody looks."""

import enum
from collections.abc import Mapping
from datetime import datetime, timedelta
from types import MappingProxyType

from attrs import field, frozen

from smilejobs.model.codes import Verdict
from smilejobs.model.jobs import JobRef
from smilejobs.sandbox.products import DOCUMENT, PRODUCTS, PROVISIONAL_CODE, RESULTS, Product
from smilejobs.sandbox.weather import Weather

_PICTURES = MappingProxyType({"selfie_image": "SID_Preview_Full.png"})
_DOCUMENT_PICTURES = MappingProxyType(
    {**_PICTURES, "id_card_image": "SID_IDCard.png", "id_card_back": "SID_IDCard_Back.png"}
)


class Stage(enum.Enum):
    """How far a job has come."""

    REFUSED = "refused"
    NO_ZIP = "no zip"
    RUNNING = "running"
    UNDER_REVIEW = "under review"
    FINAL = "final"


@frozen(kw_only=True, repr=False)
class Job:
    """What the sandbox means to do with one job.

    Attributes:
        ref: Its name, and when it was submitted.
        smile_job_id: The number that the sandbox gave it.
        job_type: The product.
        result_code: With which it ends.
        refusal: The status code with which every poll is refused; None if it is answered.
        uploaded_at: When its images are in; None for never, or not yet.
        machine: How long the machine takes after that.
        review: How long a human review takes after that; zero for no review, None for one that a person ends.
        reviewed_at: When a person has ended the review; None if nobody has.
        partner_params: What ``PartnerParams`` hold besides the ids and the job type.
        details: Further keys of the results, in the vendor's spelling; what the job itself says cannot be overruled.
        callback_url: Where the results are sent; None for nowhere.
        root: Where the client that submitted it reaches the sandbox, such as "http://127.0.0.1:8787", for the links in
            callbacks; None if it was not submitted over HTTP.
        weather: What its polls have to live with; None for the weather of the sandbox.
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
    weather: Weather | None = None

    @property
    def complete_at(self) -> datetime | None:
        """When ``job_complete`` turns true; None for never, or not yet known."""
        if self.uploaded_at is None or self.refusal is not None:
            return None
        return self.uploaded_at + self.machine

    @property
    def final_at(self) -> datetime | None:
        """When the outcome is final, later than *complete_at* if there is a review; None for never, or not known."""
        complete_at = self.complete_at
        if complete_at is None or self.reviewed_at is not None:
            return self.reviewed_at
        return None if self.review is None else complete_at + self.review

    @property
    def verdict(self) -> Verdict | None:
        """The verdict with which it ends; None if it never ends, or nobody knows when."""
        return None if self.final_at is None else RESULTS[self.result_code].verdict

    @property
    def product(self) -> Product:
        """What its product answers."""
        return PRODUCTS[self.job_type]

    @property
    def pictures(self) -> Mapping[str, str]:
        """The pictures that it has, as file names, by their name in ``image_links``."""
        return _DOCUMENT_PICTURES if self.product is DOCUMENT else _PICTURES

    def stage(self, at: datetime) -> Stage:
        """Return how far it has come at the instant *at*."""
        if self.refusal is not None:
            return Stage.REFUSED
        if self.uploaded_at is None or at < self.uploaded_at:
            return Stage.NO_ZIP
        reached = len(self.results(at))
        if not reached:
            return Stage.RUNNING
        return Stage.FINAL if self.final_at is not None and self.final_at <= at else Stage.UNDER_REVIEW

    def milestones(self) -> list[tuple[datetime, dict[str, object]]]:
        """Return its timetable: each instant at which it has a new result, and that result, the earliest first.

        A review makes it two: the first one is provisional. The last is missing while a person has yet to end the
        review; all are missing while its images are not in. A result is what an answer holds under ``result``; with
        ``timestamp``, ``signature`` and ``ImageLinks`` it is the body of a callback.
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
        """Return the results that it has had by the instant *at*, the latest last."""
        return [result for since, result in self.milestones() if since <= at]

    def __repr__(self) -> str:
        return f"<Job {self.ref.tag}: smile_job_id={self.smile_job_id!r}, result_code={self.result_code!r}>"

    def _result(self, code: str, *, is_final: bool, is_machine: bool) -> dict[str, object]:
        """Return one ``result``, in the vendor's spelling: booleans and numbers are words."""
        ids = {"user_id": self.ref.user_id, "job_id": self.ref.job_id, "job_type": str(self.job_type)}
        return {
            **self.product.result(code),
            **self.details,
            "ResultCode": code,
            "ResultText": self.product.text(code),
            "SmileJobID": self.smile_job_id,
            "IsFinalResult": str(is_final).lower(),
            "IsMachineResult": str(is_machine).lower(),
            "PartnerParams": {**ids, **{key: value for key, value in self.partner_params.items() if key not in ids}},
        }
