"""The zip of a job: whether it can be used, and what it makes of the job.

Sources: the vendor's client libraries, and its pages about test data.
"""

import zipfile
from collections.abc import Iterator, Mapping
from io import BytesIO
from pathlib import PurePosixPath

from attrs import field, frozen

from smilejobs.sandbox.jobs import Job, can_be_sent
from smilejobs.sandbox.products import DOCUMENT
from smilejobs.wire.codec import JSONObject, UnreadableError, decode_object, decode_text, is_true

MAX_UNPACKED_BYTES = 64 * 1024 * 1024

_ZIP_CORRUPT = "0903"
_DATA_INVALID = "0001"

_INFO = "info.json"
_ENTRY_SIGNATURE = b"PK\x01\x02"
_MAX_ENTRIES = 1000
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_SOURCE = "WebAPI"
_MAX_LANGUAGE_LENGTH = 100

_IMAGE_TYPES = {str(kind): kind for kind in range(8)}
"""The kinds of image; the vendor's Android client writes them as text."""
_SELFIES = frozenset({0, 2})
_ID_CARDS = frozenset({1, 3})
_REQUIRED: Mapping[int, tuple[frozenset[int], ...]] = {
    **dict.fromkeys((1, 2, 4, 8), (_SELFIES,)),
    **dict.fromkeys((6, 11), (_SELFIES, _ID_CARDS)),
}
"""The sets of kinds, by job type: one image of each set is required. Source: the checks of the vendor's clients."""

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
    """What a zip makes of its job.

    Attributes:
        outcome: As in `Sandbox.submit`.
        review: Whether there is a human review, so that a provisional result comes first.
        details: The request to the ID authority and its data, as keys of a result.
        source: The client that made the zip, as the ``Source`` of a result.
    """

    outcome: str
    review: bool = False
    details: Mapping[str, str] = field(factory=dict[str, str], repr=False)
    source: str = _SOURCE


class UnusableZipError(Exception):
    """A zip cannot be used.

    Attributes:
        result_code: The result code of the job.
    """

    def __init__(self, result_code: str, reason: str) -> None:
        super().__init__(reason)
        self.result_code = result_code


def unpack(body: bytes, max_bytes: int = MAX_UNPACKED_BYTES) -> tuple[JSONObject, frozenset[str]]:
    """Return the ``info.json`` of a zip, and the names of its other files that are not empty.

    Every file is unpacked once, piece by piece, to check it; only ``info.json`` is kept in memory.
    The sizes in the directory of the zip are checked first, and `zipfile` does not unpack more than they say.

    Raises:
        UnusableZipError: The zip is empty, broken or encrypted, or too large, or its ``info.json`` is not a JSON object
            that can be read.
    """
    try:
        # `zipfile` makes an object for each entry of the directory before the sizes can be checked.
        if body.count(_ENTRY_SIGNATURE) > _MAX_ENTRIES:
            raise UnusableZipError(_ZIP_CORRUPT, f"it has more than {_MAX_ENTRIES} files")
        with zipfile.ZipFile(BytesIO(body)) as archive:
            entries = archive.infolist()
            # The decompressors of other methods take memory that the sizes do not show.
            if any(entry.compress_type not in _METHODS for entry in entries):
                raise UnusableZipError(_ZIP_CORRUPT, "its compression method is not known")
            if sum(entry.file_size for entry in entries) > max_bytes:
                raise UnusableZipError(_ZIP_CORRUPT, f"it holds more than {max_bytes} bytes")
            if archive.testzip() is not None:
                raise UnusableZipError(_ZIP_CORRUPT, "a checksum is wrong")
            info = archive.read(_INFO) if _INFO in archive.namelist() else b""
        names = frozenset(entry.filename for entry in entries if entry.file_size and entry.filename != _INFO)
        return decode_object(info), names
    except UnusableZipError:
        raise
    except UnreadableError as error:
        raise UnusableZipError(_ZIP_CORRUPT, f"its {_INFO} cannot be read: {error}") from None
    except Exception as error:  # noqa: BLE001  # zipfile does not document what it raises for a broken zip
        raise UnusableZipError(_ZIP_CORRUPT, f"it cannot be read: {type(error).__name__}: {error}") from None


def examine(job: Job, body: bytes, *, use_enrolled_image: bool = False) -> Finding:
    """Return what a zip makes of its job.

    The partner's ``sandbox_result`` decides, text or a number: 0 approved, 1 rejected, 2 provisional and approved after
    the review. Without it, if the ID authority is asked, the last digit of the test ID number decides: 1, 2 and 3 end
    with 1013, 1014 and 1015; with 4 the person's data are taken from the partner's parameters. With
    *use_enrolled_image* the selfie on file is used, so the zip need not hold one.
    """
    info: JSONObject = {}
    try:
        info, names = unpack(body)
        _check_info(job, info, names, use_enrolled_image=use_enrolled_image)
    except UnusableZipError as error:
        return Finding(outcome=error.result_code, source=_source(info))
    id_info = info.get("id_info")
    given = dict(_texts(id_info)) if isinstance(id_info, dict) else {}
    is_looked_up = job.job_type in _LOOKUPS and is_true(given.get("entered"))
    digit = given.get("id_number", "")[-1:] if is_looked_up else ""
    chosen = job.partner_params.get("sandbox_result")
    if chosen is None:
        outcome = _NOT_FOUND_BY_DIGIT.get(digit, "approved")
    else:
        outcome = "rejected" if str(chosen) == "1" else "approved"
    details: dict[str, str] = {}
    if is_looked_up or job.product is DOCUMENT:
        details |= {theirs: given[ours] for ours, theirs in _ID_KEYS.items() if ours in given}
    if is_looked_up and outcome == "approved":
        details |= _person(given, job.partner_params if digit == _OWN_DATA_DIGIT else {})
    return Finding(outcome=outcome, review=str(chosen) == "2", details=details, source=_source(info))


def _check_info(job: Job, info: JSONObject, names: frozenset[str], *, use_enrolled_image: bool) -> None:
    """Check that the zip does not name another job, and has the images that the job requires."""
    misc = info.get("misc_information")
    params = misc.get("partner_params") if isinstance(misc, dict) else None
    if isinstance(params, dict) and not _names_job(params, job):
        raise UnusableZipError(_DATA_INVALID, "it belongs to another job")
    found = frozenset(_image_types(info.get("images"), names))
    required = _REQUIRED.get(job.job_type, ())
    if use_enrolled_image:
        required = tuple(kinds for kinds in required if kinds is not _SELFIES)
    if not all(kinds & found for kinds in required):
        raise UnusableZipError(_DATA_INVALID, "an image is missing")


def _names_job(params: JSONObject, job: Job) -> bool:
    try:
        return (decode_text(params, "user_id"), decode_text(params, "job_id")) == (job.ref.user_id, job.ref.job_id)
    except UnreadableError:
        return False


def _image_types(images: object, names: frozenset[str]) -> Iterator[int]:
    """Yield the kinds of the images in ``info.json``, and of the files that it names.

    The vendor's JavaScript client writes the path of some files instead of the image; that counts as an image.
    """
    for image in images if isinstance(images, list) else ():
        if not isinstance(image, dict):
            continue
        kind, file_name = _IMAGE_TYPES.get(str(image.get("image_type_id"))), image.get("file_name")
        is_file = isinstance(file_name, str) and PurePosixPath(file_name).name in names
        if kind is not None and (is_file or (isinstance(image.get("image"), str) and image["image"])):
            yield kind


def _source(info: JSONObject) -> str:
    """Return the ``Source`` of a result, which names the programming language of the client."""
    package = info.get("package_information")
    language = package.get("language") if isinstance(package, dict) else None
    if not isinstance(language, str) or not 0 < len(language) <= _MAX_LANGUAGE_LENGTH or not can_be_sent(language):
        return _SOURCE
    return f"{_SOURCE} - {language}"


def _texts(id_info: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    for key, value in id_info.items():
        if isinstance(value, bool):
            yield key, str(value).lower()
        elif isinstance(value, (str, int, float)) and str(value) and can_be_sent(value):
            yield key, str(value)


def _person(given: Mapping[str, str], own: Mapping[str, object]) -> dict[str, str]:
    """Return the person's data: those of the request, replaced by those of the partner's parameters."""
    person = {theirs: given[ours] for ours, theirs in _PERSON_KEYS.items() if ours in given}
    names = [person[key] for key in ("FirstName", "OtherName", "LastName") if key in person]
    full_name = {"FullName": " ".join(names)} if names else {}
    return {**full_name, **person, **{key: text for key, text in _texts(own) if key in _PERSONAL}}
