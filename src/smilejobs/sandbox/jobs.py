"""The life of one job: pure, a function of the instant at which somebody looks."""

import enum
from collections.abc import Mapping
from datetime import datetime, timedelta
from types import MappingProxyType

from attrs import field, frozen

from smilejobs.model.codes import RESULT_CODES, Verdict
from smilejobs.model.jobs import JobRef
from smilejobs.sandbox.weather import Weather

PROVISIONAL_CODE = "0814"


def _codes(approved: str, rejected: str, error: str) -> Mapping[str, str]:
    return MappingProxyType({"approved": approved, "rejected": rejected, "error": error})


_SELFIE_ACTIONS = MappingProxyType(
    {"Liveness_Check": "Passed", "Register_Selfie": "Approved", "Human_Review_Liveness_Check": "Not Applicable"}
)
_ID_ACTIONS = MappingProxyType({"Verify_ID_Number": "Verified", "Return_Personal_Info": "Returned"})
_PERSON = MappingProxyType(
    {
        "Country": "NG",
        "IDType": "NIN_V2",
        "IDNumber": "00000000000",
        "FullName": "Ada Example",
        "DOB": "1990-12-10",
        "Gender": "F",
        "PhoneNumber": "Not Available",
        "ExpirationDate": "Not Available",
    }
)


@frozen(kw_only=True)
class _Product:
    """What a product answers.

    Attributes:
        result_type: Its ``ResultType``.
        codes: The result code by what the caller of `submit` wants.
        actions: Its ``Actions`` when all went well; the first one decides.
        has_confidence: Whether there is a ``ConfidenceValue``.
        has_person: Whether an approval comes with the data of the person, who does not exist.

    Source: the vendor's page of result codes, as far as it says which product a code belongs to; its samples.
    """

    result_type: str
    codes: Mapping[str, str]
    actions: Mapping[str, str]
    has_confidence: bool = False
    has_person: bool = False


_DOCUMENT = _Product(
    result_type="Document Verification",
    codes=_codes("0810", "0811", "0001"),
    actions={
        "Verify_Document": "Passed",
        "Document_Check": "Passed",
        "Selfie_To_ID_Card_Compare": "Completed",
        "Human_Review_Document_Check": "Not Applicable",
        **_SELFIE_ACTIONS,
    },
    has_person=True,
)
_ID_NUMBER = _Product(
    result_type="ID Verification", codes=_codes("1012", "1013", "1015"), actions=_ID_ACTIONS, has_person=True
)
_SELFIE = _Product(
    result_type="SAIA", codes=_codes("1210", "0907", "0001"), actions=_SELFIE_ACTIONS, has_confidence=True
)

_PRODUCTS: Mapping[int, _Product] = MappingProxyType(
    {
        1: _Product(
            result_type="SAIA",
            codes=_codes("1210", "1022", "1015"),
            actions={"Selfie_To_ID_Authority_Compare": "Completed", **_ID_ACTIONS, **_SELFIE_ACTIONS},
            has_confidence=True,
            has_person=True,
        ),
        2: _Product(
            result_type="DIVA",
            codes=_codes("1220", "0907", "0001"),
            actions={"Selfie_To_Registered_Selfie_Compare": "Completed", "Liveness_Check": "Passed"},
            has_confidence=True,
        ),
        4: _SELFIE,
        5: _ID_NUMBER,
        6: _DOCUMENT,
        7: _Product(
            result_type="Business Verification",
            codes=_codes("1012", "1013", "1015"),
            actions={"Verify_Business": "Verified", "Return_Business_Info": "Returned"},
        ),
        8: _SELFIE,
        9: _Product(
            result_type="ID Verification",
            codes=_codes("1020", "1022", "1015"),
            actions={"Names": "Exact Match", "DOB": "Exact Match", "ID_Verification": "Completed"},
        ),
        10: _ID_NUMBER,
        11: _DOCUMENT,
        12: _ID_NUMBER,
    }
)

_DECISIVE_ACTION: Mapping[Verdict, str] = MappingProxyType(
    {
        Verdict.REJECTED: "Failed",
        Verdict.ERROR: "Unable To Determine",
        Verdict.UNKNOWN: "Unable To Determine",
        Verdict.PROVISIONAL: "Under Review",
    }
)

_PICTURES = MappingProxyType({"selfie_image": "SID_Preview_Full.png"})
_DOCUMENT_PICTURES = MappingProxyType(
    {**_PICTURES, "id_card_image": "SID_IDCard.png", "id_card_back": "SID_IDCard_Back.png"}
)


def result_code_for(outcome: str, job_type: int) -> str:
    """Return the result code with which a job of that type ends.

    Args:
        outcome: "approved", "rejected" or "error"; or a result code, which stands for itself.
        job_type: The product.

    Raises:
        ValueError: There is no such product or outcome.
    """
    product = _PRODUCTS.get(job_type)
    if product is None:
        raise ValueError(f"job_type must be one of {', '.join(map(str, _PRODUCTS))}")
    if outcome == PROVISIONAL_CODE:
        raise ValueError(f"outcome must be final: give review=, and {PROVISIONAL_CODE} comes before it")
    if outcome in RESULT_CODES:
        return outcome
    if outcome not in product.codes:
        raise ValueError("outcome must be 'approved', 'rejected', 'error', or a result code of smilejobs.RESULT_CODES")
    return product.codes[outcome]


def has_succeeded(result_code: str) -> bool:
    """Say whether ``job_success`` is true: there was a match, though a person may have to confirm it."""
    return RESULT_CODES[result_code].verdict in (Verdict.APPROVED, Verdict.PROVISIONAL)


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
        return None if self.final_at is None else RESULT_CODES[self.result_code].verdict

    @property
    def pictures(self) -> Mapping[str, str]:
        """The pictures that it has, as file names, by their name in ``image_links``."""
        return _DOCUMENT_PICTURES if _PRODUCTS[self.job_type] is _DOCUMENT else _PICTURES

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
        """One ``result``, in the vendor's spelling: booleans and numbers are words."""
        product = _PRODUCTS[self.job_type]
        verdict = RESULT_CODES[code].verdict
        actions = dict(product.actions)
        if verdict in _DECISIVE_ACTION:
            actions[next(iter(actions))] = _DECISIVE_ACTION[verdict]
        ids = {"user_id": self.ref.user_id, "job_id": self.ref.job_id, "job_type": self.job_type}
        confidence = {"ConfidenceValue": "99.000000" if has_succeeded(code) else "0.000000"}
        return {
            "ResultType": product.result_type,
            "JSONVersion": "1.0.0",
            "Actions": actions,
            "Source": "WebAPI",
            **(confidence if product.has_confidence else {}),
            **(_PERSON if product.has_person and verdict is Verdict.APPROVED else {}),
            **self.details,
            "ResultCode": code,
            "ResultText": RESULT_CODES[code].text,
            "SmileJobID": self.smile_job_id,
            "IsFinalResult": str(is_final).lower(),
            "IsMachineResult": str(is_machine).lower(),
            "PartnerParams": {**ids, **{key: value for key, value in self.partner_params.items() if key not in ids}},
        }
