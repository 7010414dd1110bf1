"""What each product answers: its result codes, texts and actions. Pure data.

Sources: the vendor's page of result codes, where it says which product a code belongs to; its samples; one recorded
answer of job type 1 with the code 1016.
"""

from collections.abc import Mapping

from attrs import field, frozen

from smilejobs.model.codes import RESULT_CODES, Verdict, verdict_by_code

_OUTCOMES: tuple[str, ...] = ("approved", "rejected", "error")
PROVISIONAL_CODE = "0814"
_NOT_ENABLED_CODE = "1016"

_SELFIE_ACTIONS = {
    "Liveness_Check": "Passed",
    "Register_Selfie": "Approved",
    "Human_Review_Liveness_Check": "Not Applicable",
}
_ID_ACTIONS = {"Verify_ID_Number": "Verified", "Return_Personal_Info": "Returned"}
_BIOMETRIC_KYC_ACTIONS = {
    "Selfie_To_ID_Authority_Compare": "Completed",
    **_ID_ACTIONS,
    **_SELFIE_ACTIONS,
    "Selfie_Provided": "Passed",
    "Human_Review_Compare": "Not Applicable",
    "Human_Review_Update_Selfie": "Not Applicable",
    "Selfie_To_ID_Card_Compare": "Not Applicable",
    "Selfie_To_Registered_Selfie_Compare": "Not Applicable",
    "Update_Registered_Selfie_On_File": "Not Applicable",
}
_NOT_ENABLED_ACTIONS = {
    "Verify_ID_Number": "Not Verified",
    "Return_Personal_Info": "Not Returned",
    "Selfie_To_ID_Authority_Compare": "ID Authority Photo Not Available",
}
_NOT_ENABLED_TEXT = "Unable to validate ID - This feature is not enabled for your Smile ID account."
_DECISIVE_ACTIONS = {
    Verdict.REJECTED: "Failed",
    Verdict.ERROR: "Unable To Determine",
    Verdict.UNKNOWN: "Unable To Determine",
    Verdict.PROVISIONAL: "Under Review",
}

_PERSON = {
    "Country": "NG",
    "IDType": "NIN_V2",
    "IDNumber": "00000000000",
    "FullName": "Ada Example",
    "DOB": "1990-12-10",
    "Gender": "F",
    "PhoneNumber": "Not Available",
    "ExpirationDate": "Not Available",
}
_COMPANY: Mapping[str, object] = {
    "company_information": {"legal_name": "Example Limited", "registration_number": "0000000", "status": "Active"},
    "directors": [],
    "beneficial_owners": [],
    "fiduciaries": [],
    "proprietors": [],
    "documents": {},
}
_SELFIE_FILE = {"selfie_image": "SID_Preview_Full.png"}


@frozen(kw_only=True)
class Product:
    """What a product answers.

    Attributes:
        result_type: Its ``ResultType``.
        codes: Its result codes for the outcomes "approved", "rejected" and "error".
        actions: Its ``Actions`` for an approval. For other results the first one is changed.
        has_confidence: Whether its results have a ``ConfidenceValue``.
        approval: Further keys of an approval: invented data of a person or a company.
        receipt: The key of the answer that holds the link to a receipt.
        pictures: The file names of its images, by their name in ``image_links``.
    """

    result_type: str
    codes: tuple[str, str, str]
    actions: Mapping[str, str]
    has_confidence: bool = False
    approval: Mapping[str, object] = field(factory=dict[str, object])
    receipt: str = "kyc_receipt"
    pictures: Mapping[str, str] = field(default=_SELFIE_FILE)

    def result(self, code: str) -> dict[str, object]:
        """Return the part of a result with this code that does not depend on the job."""
        confidence = {"ConfidenceValue": "99" if has_succeeded(code) else "0"}
        return {
            "ResultType": "SYSTEM" if code == _NOT_ENABLED_CODE else self.result_type,
            "JSONVersion": "1.0.0",
            "Actions": self._actions(code),
            "Source": "WebAPI",
            **(confidence if self.has_confidence else {}),
            **(self.approval if verdict_by_code(code) is Verdict.APPROVED else {}),
        }

    def _actions(self, code: str) -> dict[str, str]:
        verdict = verdict_by_code(code)
        if code == _NOT_ENABLED_CODE:
            return {name: _NOT_ENABLED_ACTIONS.get(name, "Not Applicable") for name in self.actions}
        if verdict is Verdict.APPROVED:
            return dict(self.actions)
        first, *_ = self.actions
        others = {name: "Not Returned" if done == "Returned" else done for name, done in self.actions.items()}
        return {**others, first: _DECISIVE_ACTIONS[verdict]}


_DOCUMENT = Product(
    result_type="Document Verification",
    codes=("0810", "0811", "0001"),
    actions={
        "Verify_Document": "Passed",
        "Document_Check": "Passed",
        "Selfie_To_ID_Card_Compare": "Completed",
        "Human_Review_Document_Check": "Not Applicable",
        **_SELFIE_ACTIONS,
    },
    approval=_PERSON,
    pictures={**_SELFIE_FILE, "id_card_image": "SID_IDCard.png", "id_card_back": "SID_IDCard_Back.png"},
)
_ID_NUMBER = Product(
    result_type="ID Verification", codes=("1012", "1013", "1015"), actions=_ID_ACTIONS, approval=_PERSON
)
_SELFIE = Product(result_type="SAIA", codes=("1210", "0907", "0001"), actions=_SELFIE_ACTIONS, has_confidence=True)

PRODUCTS: Mapping[int, Product] = {
    1: Product(
        result_type="SAIA",
        codes=("1210", "1022", "1015"),
        actions=_BIOMETRIC_KYC_ACTIONS,
        has_confidence=True,
        approval=_PERSON,
    ),
    2: Product(
        result_type="DIVA",
        codes=("1220", "0907", "0001"),
        actions={"Selfie_To_Registered_Selfie_Compare": "Completed", "Liveness_Check": "Passed"},
        has_confidence=True,
    ),
    4: _SELFIE,
    5: _ID_NUMBER,
    6: _DOCUMENT,
    7: Product(
        result_type="Business Verification",
        codes=("1012", "1013", "1015"),
        actions={"Verify_Business": "Verified", "Return_Business_Info": "Returned"},
        approval=_COMPANY,
        receipt="kyb_receipt",
    ),
    8: _SELFIE,
    9: Product(
        result_type="ID Verification",
        codes=("1020", "1022", "1015"),
        actions={"Names": "Exact Match", "DOB": "Exact Match", "ID_Verification": "Completed"},
    ),
    10: Product(result_type="AML", codes=("1012", "1013", "1015"), actions={"Listed": "Not Applicable"}),
    11: _DOCUMENT,
    12: _ID_NUMBER,
}
"""The products, by job type."""


def result_code_for(outcome: str, job_type: int) -> str:
    """Return the result code of an outcome, as in `Sandbox.submit`; raise ValueError for no such product or outcome."""
    product = PRODUCTS.get(job_type)
    if product is None:
        raise ValueError(f"job_type must be one of {', '.join(map(str, PRODUCTS))}")
    if outcome == PROVISIONAL_CODE:
        raise ValueError(f"outcome must be final: give review=, and {PROVISIONAL_CODE} comes before it")
    code = dict(zip(_OUTCOMES, product.codes, strict=True)).get(outcome, outcome)
    if code not in RESULT_CODES:
        raise ValueError("outcome must be 'approved', 'rejected', 'error', or a result code of smilejobs.RESULT_CODES")
    return code


def text_for(result_code: str) -> str:
    """Return the ``ResultText`` of a result code."""
    return _NOT_ENABLED_TEXT if result_code == _NOT_ENABLED_CODE else RESULT_CODES[result_code].text


def has_succeeded(result_code: str) -> bool:
    """Return whether ``job_success`` is true: there was a match, provisional or final."""
    return verdict_by_code(result_code) in (Verdict.APPROVED, Verdict.PROVISIONAL)
