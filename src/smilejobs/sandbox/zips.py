"""The zip of a job: what its ``info.json`` makes of the job. Its images are not looked at.

Sources: the vendor's client libraries, and its pages about test data.
"""

import zipfile
from collections.abc import Mapping
from io import BytesIO

from attrs import field, frozen

from smilejobs.sandbox.jobs import Job, can_be_sent
from smilejobs.wire.codec import JSONObject, decode_object, is_true, read_text

_MAX_INFO_BYTES = 64 * 1024 * 1024
_INFO = "info.json"
_ZIP_CORRUPT = "0903"
_SOURCE = "WebAPI"

_LOOKUPS = frozenset({1, 5, 7, 9, 10, 11, 12})
"""The job types with a lookup at the ID authority."""
_NOT_FOUND_BY_DIGIT = {"1": "1013", "2": "1014", "3": "1015"}
"""The result codes of test ID numbers, by their last digit; for other digits the lookup succeeds."""
_OWN_DATA_DIGIT = "4"
"""With this last digit the data of the ID authority are taken from the partner's parameters."""

_ID_KEYS = {"country": "Country", "id_type": "IDType", "id_number": "IDNumber"}
_PERSON_KEYS = {
    "first_name": "FirstName",
    "middle_name": "OtherName",
    "last_name": "LastName",
    "dob": "DOB",
    "gender": "Gender",
    "phone_number": "PhoneNumber",
    "address": "Address",
}
_PERSONAL = frozenset({"FullName", "ExpirationDate", "IssuanceDate", "SecondaryIDNumber", *_PERSON_KEYS.values()})


@frozen(kw_only=True)
class Finding:
    """What a zip makes of its job: the outcome and details as in `Sandbox.submit`, and whether there is a review."""

    outcome: str
    review: bool = False
    details: Mapping[str, str] = field(repr=False)


def examine(job: Job, body: bytes) -> Finding:
    """Return what a zip makes of its job.

    The partner's ``sandbox_result`` decides, text or a number: 0 approved, 1 rejected, 2 provisional and approved after
    the review. Without it, if the ID authority is asked, the last digit of the test ID number decides: 1, 2 and 3 end
    with 1013, 1014 and 1015; with 4 the person's data are taken from the partner's parameters. A zip without a readable
    ``info.json`` is corrupt.
    """
    info = _read_info(body)
    if info is None:
        return Finding(outcome=_ZIP_CORRUPT, details={"Source": _SOURCE})
    given = _texts(info.get("id_info"))
    is_looked_up = job.job_type in _LOOKUPS and is_true(given.get("entered"))
    digit = given.get("id_number", "")[-1:] if is_looked_up else ""
    chosen = job.partner_params.get("sandbox_result")
    if chosen is None:
        outcome = _NOT_FOUND_BY_DIGIT.get(digit, "approved")
    else:
        outcome = "rejected" if str(chosen) == "1" else "approved"
    language = _texts(info.get("package_information")).get("language")
    source = f"{_SOURCE} - {language}" if language else _SOURCE
    details = {"Source": source, **{theirs: given[ours] for ours, theirs in _ID_KEYS.items() if ours in given}}
    if is_looked_up and outcome == "approved":
        details |= _person(given, _texts(job.partner_params) if digit == _OWN_DATA_DIGIT else {})
    return Finding(outcome=outcome, review=str(chosen) == "2", details=details)


def _read_info(body: bytes) -> JSONObject | None:
    """Return the ``info.json`` of a zip; None if it cannot be read or is too large."""
    try:
        with zipfile.ZipFile(BytesIO(body)) as archive:
            # `zipfile` does not unpack more than the directory says.
            is_small = archive.getinfo(_INFO).file_size <= _MAX_INFO_BYTES
            return decode_object(archive.read(_INFO)) if is_small else None
    except Exception:  # noqa: BLE001  # zipfile does not document what it raises for a broken zip
        return None


def _texts(value: object) -> dict[str, str]:
    """Return the texts, numbers and booleans of a JSON object as texts, without those that are empty."""
    pairs = value.items() if isinstance(value, dict) else ()
    texts = {key: str(each).lower() if isinstance(each, bool) else read_text(each) for key, each in pairs}
    return {key: text for key, text in texts.items() if text and can_be_sent(text)}


def _person(given: Mapping[str, str], own: Mapping[str, str]) -> dict[str, str]:
    """Return the person's data: those of the request, replaced by those of the partner's parameters."""
    person = {theirs: given[ours] for ours, theirs in _PERSON_KEYS.items() if ours in given}
    names = [person[key] for key in ("FirstName", "OtherName", "LastName") if key in person]
    full_name = {"FullName": " ".join(names)} if names else {}
    return {**full_name, **person, **{key: text for key, text in own.items() if key in _PERSONAL}}
