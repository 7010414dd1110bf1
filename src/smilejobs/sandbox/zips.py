"""The zip of a job: whether it can be used, and what it makes of the job.

Sources: the vendor's client libraries, and its pages about test data.
"""

import zipfile
from collections.abc import Iterator, Mapping, Sequence
from io import BytesIO
from pathlib import PurePosixPath

from attrs import field, frozen

from smilejobs.sandbox.jobs import Job
from smilejobs.sandbox.products import DOCUMENT
from smilejobs.sandbox.requests import can_be_sent
from smilejobs.wire.codec import JSONObject, UnreadableError, decode_object, decode_text, is_true

MAX_UNPACKED = 64 * 1024 * 1024
"""The most bytes of all that is in a zip."""

_ZIP_CORRUPT = "0903"
_DATA_INVALID = "0001"

_INFO = "info.json"
_ENTRY = b"PK\x01\x02"
"""With this begins each entry of the directory of a zip."""
_MOST_ENTRIES = 1000
_MOST_VALUES = 100_000
"""In ``info.json``, whose clients write some dozens."""
_PIECE = 64 * 1024
_SOURCE = "WebAPI"
_LONGEST_LANGUAGE = 100
_ENCRYPTED = 0x1

_IMAGE_TYPES = {str(kind): kind for kind in range(8)}
"""The kinds of image; the vendor's Android client writes them as texts."""
_SELFIES = frozenset({0, 2})
_ID_CARDS = frozenset({1, 3})
_NEEDED: Mapping[int, tuple[frozenset[int], ...]] = {
    **dict.fromkeys((1, 2, 4, 8), (_SELFIES,)),
    **dict.fromkeys((6, 11), (_SELFIES, _ID_CARDS)),
}
"""By job type, of which kinds of image there must be one each. Source: the checks of the vendor's clients."""

_LOOKUPS = frozenset({1, 5, 7, 9, 10, 11, 12})
"""The job types for which the ID authority is asked."""
_NOT_FOUND_BY_DIGIT = {"1": "1013", "2": "1014", "3": "1015"}
"""The result codes of test ID numbers by their last digit; the others are found."""
_OWN_DATA = "4"
"""With this last digit the authority's data is what the partner has sent along."""

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
    """What a job will come to.

    Attributes:
        outcome: As that of `smilejobs.sandbox.Sandbox.submit`.
        review: Whether a person has a look, so that a provisional result comes first.
        details: What the ID authority was asked for and has said, as the keys of a result.
        source: Who has sent the zip, as the ``Source`` of a result.
    """

    outcome: str
    review: bool = False
    details: Mapping[str, str] = field(factory=dict[str, str], repr=False)
    source: str = _SOURCE


class UnusableZipError(Exception):
    """A zip that cannot be used.

    Attributes:
        result_code: With which the job ends.
    """

    def __init__(self, result_code: str, why: str) -> None:
        super().__init__(why)
        self.result_code = result_code


def unpack(body: bytes, most: int = MAX_UNPACKED) -> tuple[JSONObject, frozenset[str]]:
    """Return the ``info.json`` of a zip, and the names of the other files that are in it and not empty.

    Everything is unpacked once, to see that it can be, but only ``info.json`` is kept.

    Args:
        body: The zip.
        most: How many bytes may be in it. What its directory declares is checked before anything is unpacked.

    Raises:
        UnusableZipError: It is no zip, empty, broken or encrypted; it holds too much; or no ``info.json`` that is JSON.
    """
    if body.count(_ENTRY) > _MOST_ENTRIES:
        raise UnusableZipError(_ZIP_CORRUPT, "it has too many files")
    info, names = b"", set[str]()
    try:
        with zipfile.ZipFile(BytesIO(body)) as archive:
            entries = archive.infolist()
            _check_entries(entries, most)
            for entry in entries:
                with archive.open(entry) as file:
                    pieces = iter(lambda: file.read(_PIECE), b"")
                    if entry.filename == _INFO:
                        info = b"".join(pieces)
                    elif sum(map(len, pieces)):
                        names.add(entry.filename)
    except UnusableZipError:
        raise
    except Exception as error:  # noqa: BLE001  # zipfile does not say what it raises for garbage, and it is a lot
        raise UnusableZipError(_ZIP_CORRUPT, f"it cannot be read ({type(error).__name__})") from None
    # Decoded, a megabyte of these takes up fifty or more; images, in base64, hold none of them.
    if sum(map(info.count, (b"[", b"{", b","))) > _MOST_VALUES:
        raise UnusableZipError(_ZIP_CORRUPT, f"its {_INFO} holds too much")
    try:
        return decode_object(info), frozenset(names)
    except UnreadableError as error:
        raise UnusableZipError(_ZIP_CORRUPT, f"its {_INFO} cannot be read: {error}") from None


def examine(job: Job, body: bytes, *, use_enrolled_image: bool = False) -> Finding:
    """Return what a zip makes of the job that it belongs to.

    The partner's ``sandbox_result`` decides, a word or a number: 0 approved, 1 rejected, 2 provisional, and approved
    after human review. Without it, where the ID authority is asked, the last digit of the test ID number decides: 1,
    2 and 3 are refused with 1013, 1014 and 1015; with 4 the person's data are those among the partner's parameters.

    Args:
        job: The job.
        body: The zip.
        use_enrolled_image: Whether the selfie on file is used, so that none need be in the zip.
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
        details |= _person(given, job.partner_params if digit == _OWN_DATA else {})
    return Finding(outcome=outcome, review=str(chosen) == "2", details=details, source=_source(info))


def _check_entries(entries: Sequence[zipfile.ZipInfo], most: int) -> None:
    """Refuse what should not even be unpacked."""
    if any(entry.flag_bits & _ENCRYPTED for entry in entries):
        raise UnusableZipError(_ZIP_CORRUPT, "it is encrypted")
    # Other ways ask for memory before it can be counted, and no client of the vendor's writes them.
    if any(entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for entry in entries):
        raise UnusableZipError(_ZIP_CORRUPT, "it is compressed in a way that is not known")
    # What is declared cannot be exceeded: zipfile stops there, and finds that the checksum is wrong.
    if sum(entry.file_size for entry in entries) > most:
        raise UnusableZipError(_ZIP_CORRUPT, f"it holds more than {most} bytes")


def _check_info(job: Job, info: JSONObject, names: frozenset[str], *, use_enrolled_image: bool) -> None:
    """Check that the zip names no other job, and that the images are there that its job needs.

    Raises:
        UnusableZipError: It does, or they are not.
    """
    misc = info.get("misc_information")
    params = misc.get("partner_params") if isinstance(misc, dict) else None
    if isinstance(params, dict) and not _names(params, job):
        raise UnusableZipError(_DATA_INVALID, "it belongs to another job")
    there = frozenset(_image_types(info.get("images"), names))
    needed = _NEEDED.get(job.job_type, ())
    if use_enrolled_image:
        needed = tuple(kinds for kinds in needed if kinds is not _SELFIES)
    if not all(kinds & there for kinds in needed):
        raise UnusableZipError(_DATA_INVALID, "an image is missing")


def _names(params: JSONObject, job: Job) -> bool:
    """Say whether a zip names its job. The vendor's mobile and web clients write no names into it."""
    try:
        return (decode_text(params, "user_id"), decode_text(params, "job_id")) == (job.ref.user_id, job.ref.job_id)
    except UnreadableError:
        return False


def _image_types(images: object, names: frozenset[str]) -> Iterator[int]:
    """The kinds of the images that are there: within ``info.json``, or as a file that it names.

    The vendor's JavaScript client puts the path of some files in the place of the image; that counts as one.
    """
    for image in images if isinstance(images, list) else ():
        if not isinstance(image, dict):
            continue
        kind, file_name = _IMAGE_TYPES.get(str(image.get("image_type_id"))), image.get("file_name")
        is_file = isinstance(file_name, str) and PurePosixPath(file_name).name in names
        if kind is not None and (is_file or (isinstance(image.get("image"), str) and image["image"])):
            yield kind


def _source(info: JSONObject) -> str:
    """Return the ``Source`` of a result: the client that has sent the zip, by the language that it names."""
    package = info.get("package_information")
    language = package.get("language") if isinstance(package, dict) else None
    if not isinstance(language, str) or not 0 < len(language) <= _LONGEST_LANGUAGE or not can_be_sent(language):
        return _SOURCE
    return f"{_SOURCE} - {language}"


def _texts(id_info: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    for key, value in id_info.items():
        if isinstance(value, bool):
            yield key, str(value).lower()
        elif isinstance(value, (str, int, float)) and str(value) and can_be_sent(value):
            yield key, str(value)


def _person(given: Mapping[str, str], own: Mapping[str, object]) -> dict[str, str]:
    """What is known of the person: what was asked, and what the partner wants to be answered."""
    person = {theirs: given[ours] for ours, theirs in _PERSON_KEYS.items() if ours in given}
    names = [person[key] for key in ("FirstName", "OtherName", "LastName") if key in person]
    full_name = {"FullName": " ".join(names)} if names else {}
    return {**full_name, **person, **{key: text for key, text in _texts(own) if key in _PERSONAL}}
