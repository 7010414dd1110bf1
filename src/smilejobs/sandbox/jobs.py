"""The life of one job: pure, a function of the instant at which somebody looks."""

from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType

from attrs import frozen

from smilejobs.model.codes import RESULT_CODES, Verdict
from smilejobs.model.jobs import JobRef

PROVISIONAL_CODE = "0814"


@frozen
class _Product:
    """What a product answers: its ``ResultType``, and the result code by what the caller of `submit` wants.

    Source: the vendor's page of result codes, as far as it says which product a code belongs to.
    """

    result_type: str
    codes: Mapping[str, str]
    has_confidence: bool = False


def _codes(approved: str, rejected: str, error: str) -> Mapping[str, str]:
    return MappingProxyType({"approved": approved, "rejected": rejected, "error": error})


_DOCUMENT = _Product("Document Verification", _codes("0810", "0811", "0001"))
_ID_NUMBER = _Product("ID Verification", _codes("1012", "1013", "1015"))
_SELFIE = _codes("1210", "0907", "0001")

_PRODUCTS: Mapping[int, _Product] = MappingProxyType(
    {
        1: _Product("SAIA", _codes("1210", "1022", "1015"), has_confidence=True),
        2: _Product("DIVA", _codes("1220", "0907", "0001"), has_confidence=True),
        4: _Product("SAIA", _SELFIE, has_confidence=True),
        5: _ID_NUMBER,
        6: _DOCUMENT,
        7: _Product("Business Verification", _codes("1012", "1013", "1015")),
        8: _Product("SAIA", _SELFIE, has_confidence=True),
        9: _Product("ID Verification", _codes("1020", "1022", "1015")),
        10: _ID_NUMBER,
        11: _DOCUMENT,
        12: _ID_NUMBER,
    }
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


@frozen(kw_only=True, repr=False)
class Job:
    """What the sandbox means to do with one job.

    Attributes:
        ref: Its name, and when it was submitted.
        smile_job_id: The number that the sandbox gave it.
        job_type: The product.
        result_code: With which it ends.
        refusal: The status code with which every poll is refused; None if it is answered.
        uploaded_at: When its images are in; None for never.
        complete_at: When ``job_complete`` turns true; None for never.
        final_at: When the outcome is final; later than *complete_at* if there is a human review. None for never.
    """

    ref: JobRef
    smile_job_id: str
    job_type: int
    result_code: str
    refusal: str | None = None
    uploaded_at: datetime | None = None
    complete_at: datetime | None = None
    final_at: datetime | None = None

    @property
    def verdict(self) -> Verdict | None:
        """The verdict with which it ends; None if it never ends."""
        return None if self.final_at is None else RESULT_CODES[self.result_code].verdict

    def results(self, at: datetime) -> list[dict[str, object]]:
        """Return the results that it has had by the instant *at*, the latest last; a review makes it two in all."""
        reached = []
        if self.complete_at is not None and self.complete_at != self.final_at and self.complete_at <= at:
            reached.append(self._result(PROVISIONAL_CODE, is_final=False, is_machine=True))
        if self.final_at is not None and self.final_at <= at:
            reached.append(self._result(self.result_code, is_final=True, is_machine=self.complete_at == self.final_at))
        return reached

    def __repr__(self) -> str:
        return f"<Job {self.ref.tag}: smile_job_id={self.smile_job_id!r}, result_code={self.result_code!r}>"

    def _result(self, code: str, *, is_final: bool, is_machine: bool) -> dict[str, object]:
        """One ``result``, in the vendor's spelling: booleans and numbers are words."""
        product = _PRODUCTS[self.job_type]
        result: dict[str, object] = {
            "ResultCode": code,
            "ResultText": RESULT_CODES[code].text,
            "ResultType": product.result_type,
            "SmileJobID": self.smile_job_id,
            "JSONVersion": "1.0.0",
            "IsFinalResult": str(is_final).lower(),
            "IsMachineResult": str(is_machine).lower(),
            "PartnerParams": {
                "user_id": self.ref.user_id,
                "job_id": self.ref.job_id,
                "job_type": self.job_type,
            },
        }
        if product.has_confidence:
            result["ConfidenceValue"] = "99.000000" if has_succeeded(code) else "0.000000"
        return result
