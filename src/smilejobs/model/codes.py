"""The tables of the API's codes and their meanings.

An answer has two kinds of code. The *status code* (``code``) is about the call; the *result code*
(``result.ResultCode``) is about the job. Both lists are open: a code that is in no table here is kept as it is, and
never counts as success.

Sources: the vendor's "Job status" page lists the nine status codes of this call (2301 to 2314). Its page of error
codes lists the related codes of other calls (22xx, 24xx; the same last two digits have the same meaning). Its page of
result codes lists the result codes.
"""

import enum
import re
from collections.abc import Mapping
from types import MappingProxyType

from attrs import frozen

SUCCESS = "2302"
JOB_NOT_FOUND = "2304"
NO_ZIP = "2314"


class CodeClass(enum.Enum):
    """The kinds of status code: what the caller can do about an answer."""

    SUCCESS = "success"
    """The call worked; ``job_complete`` says whether there is a result."""
    PENDING = "pending"
    """The job or its images are not there yet; a later call may succeed."""
    TRANSIENT = "transient"
    """The API reported an internal error; the same call may succeed later."""
    PERMANENT = "permanent"
    """The same call can never succeed."""
    CREDENTIALS = "credentials"
    """The partner id, API key, signature or environment is wrong."""


@frozen
class StatusCode:
    """One row of the table of status codes."""

    meaning: str
    kind: CodeClass


def _rows(kind: CodeClass, meanings: Mapping[str, str]) -> dict[str, StatusCode]:
    return {code: StatusCode(meaning, kind) for code, meaning in meanings.items()}


STATUS_CODES: Mapping[str, StatusCode] = MappingProxyType(
    {
        SUCCESS: StatusCode("success", CodeClass.SUCCESS),
        **_rows(CodeClass.PENDING, {JOB_NOT_FOUND: "job not found", NO_ZIP: "no zip file received"}),
        **_rows(CodeClass.TRANSIENT, dict.fromkeys(("2301", "2201", "2401"), "system error")),
        **_rows(
            CodeClass.CREDENTIALS,
            {
                "2305": "invalid signature",
                "2205": "not authorized",
                "2405": "not authorized",
                "2220": "production is not enabled for this partner",
            },
        ),
        **_rows(
            CodeClass.PERMANENT,
            {
                "2303": "invalid JSON",
                "2203": "invalid JSON",
                "2204": "wrong data type, or a timestamp or signature that was refused",
                "2307": "the enrolled user is disabled",
                "2207": "the enrolled user is disabled",
                "2310": "no enrolled user found",
                "2210": "no enrolled user found",
                "2313": "a required parameter is missing",
                "2213": "a required parameter is missing",
                "2413": "a required parameter is missing",
                "2208": "the user was deleted",
                "2209": "wrong user id",
                "2211": "the user must enrol again",
                "2212": "invalid job type",
                "2215": "the job already exists",
                "2216": "no photo",
                "2217": "invalid product",
                "2222": "this ID number is blocked for days",
                "2415": "duplicate",
            },
        ),
    }
)


class Verdict(enum.StrEnum):
    """The meaning of a result code for the person who was checked.

    Each verdict is a string: ``str(Verdict.APPROVED)`` is "approved", and `json.dumps` writes that. The set of verdicts
    is defined by this library and closed; a result code that is in no table is `UNKNOWN`, never approved.
    """

    APPROVED = "approved"
    PROVISIONAL = "provisional"
    """Approved for now; a human review is going on and may change it."""
    REJECTED = "rejected"
    ERROR = "error"
    """The job could not be carried out; submit a new one."""
    UNKNOWN = "unknown"
    """Complete, but the answer supports no other verdict; look at its result."""


@frozen
class ResultCode:
    """One row of the table of result codes."""

    text: str
    verdict: Verdict


RESULT_CODES: Mapping[str, ResultCode] = MappingProxyType(
    {
        "0810": ResultCode("Document Verified", Verdict.APPROVED),
        "1012": ResultCode("ID Number Validated", Verdict.APPROVED),
        "1020": ResultCode("Exact Match", Verdict.APPROVED),
        "1021": ResultCode("Partial Match", Verdict.APPROVED),
        "1210": ResultCode("Enroll User", Verdict.APPROVED),
        "1220": ResultCode("Authenticated", Verdict.APPROVED),
        "0814": ResultCode("Provisional Enroll - Under Review", Verdict.PROVISIONAL),
        "0811": ResultCode("Unable to Verify Document", Verdict.REJECTED),
        "0812": ResultCode("Unable to Verify Document - Failed Security Features Check", Verdict.REJECTED),
        "0816": ResultCode("Unsupported Document", Verdict.REJECTED),
        "0903": ResultCode("Zip Corrupt", Verdict.REJECTED),
        "0907": ResultCode("Possible Spoof", Verdict.REJECTED),
        "1013": ResultCode("Unable to Validate ID", Verdict.REJECTED),
        "1022": ResultCode("No Match", Verdict.REJECTED),
        "1023": ResultCode("Not Found", Verdict.REJECTED),
        "0001": ResultCode("Data Invalid", Verdict.ERROR),
        "1015": ResultCode("ID Database Unavailable", Verdict.ERROR),
        "1016": ResultCode("Product Must Be Activated", Verdict.ERROR),
        # The vendor's table gives it no category.
        "1014": ResultCode("Unsupported ID Type", Verdict.UNKNOWN),
    }
)


def verdict_by_code(code: str | None) -> Verdict:
    """Return the verdict of a result code by the table; `Verdict.UNKNOWN` for None or a code that is not in it.

    This is the verdict of the code alone; `JobStatus.verdict` also considers the rest of the answer.
    """
    row = RESULT_CODES.get(code or "")
    return Verdict.UNKNOWN if row is None else row.verdict


JOB_TYPES: Mapping[int, str] = MappingProxyType(
    {
        1: "Biometric KYC",
        2: "SmartSelfie authentication",
        4: "SmartSelfie registration",
        5: "Basic or Enhanced KYC",
        6: "Document Verification",
        7: "Business Verification",
        8: "Update photo",
        9: "Compare user info",
        10: "AML check",
        11: "Enhanced Document Verification",
        12: "Address verification",
    }
)
"""Products by job type; there is no job type 3. Source: the vendor's client libraries."""

_NUMBER = re.compile(r"[0-9]{1,10}", re.ASCII)


def display_number(number: str | None) -> str:
    """Return a code or a SmileJobID for a repr or an error text: a number of up to ten digits as it is, None as "None".

    For any other text return "?": it comes from outside and may hold personal data.
    """
    if number is None:
        return "None"
    return number if _NUMBER.fullmatch(number) else "?"


def code_label(code: str | None) -> str | None:
    """Return a status code or a result code as a label for telemetry, from a bounded set of labels.

    A code comes from outside and can be any text; without a bound, each text would create a time series.

    Args:
        code: The code, as the API sent it; None if there is none.

    Returns:
        The code itself if it is in `STATUS_CODES` or `RESULT_CODES`, "other" for any other text, None for None.
    """
    return code if code is None or code in STATUS_CODES or code in RESULT_CODES else "other"


def describe(code: str | None) -> str:
    """Return a status code and its meaning for an error text or a log line."""
    row = STATUS_CODES.get(code or "")
    return _join(code, None if row is None else row.meaning)


def describe_result(code: str | None) -> str:
    """Return a result code and its text from the table; the text that the API sends differs by product."""
    row = RESULT_CODES.get(code or "")
    return _join(code, None if row is None else row.text)


def _join(code: str | None, meaning: str | None) -> str:
    if code is None:
        return "no code"
    if meaning is not None:
        return f"{code}: {meaning}"
    return f"{code}: unknown code" if _NUMBER.fullmatch(code) else "unknown code"
