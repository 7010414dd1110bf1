"""Submitting a job over HTTP: the registration, the upload of its zip, and what the zip makes of the job.

It is done in two steps. ``POST /v1/upload`` registers the job and answers with a URL; a PUT of the zip to that URL
starts it. The store that takes the zip does not look into it: whatever is wrong with it becomes the job's result.
Sources: the vendor's client libraries, and its pages about test data.
"""

import json
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from hashlib import sha256
from io import BytesIO
from pathlib import PurePosixPath

from attrs import field, frozen
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from smilejobs.model.codes import JOB_TYPES
from smilejobs.model.jobs import JobRef
from smilejobs.sandbox.jobs import Job
from smilejobs.sandbox.links import LinkRefusedError, check, presign
from smilejobs.sandbox.requests import (
    CutOffError,
    Family,
    NotKeptError,
    RefusalError,
    TooLargeError,
    check_fresh,
    check_partner,
    host_of,
    keeping,
    parameter,
    read,
    read_object,
    root_of,
    storage_error,
    storage_unavailable,
)
from smilejobs.settings import Credentials
from smilejobs.wire.codec import JSONObject, UnreadableError, decode_object, decode_text, is_true

MAX_ZIP = 32 * 1024 * 1024
"""The most bytes of a zip."""
MAX_UNPACKED = 64 * 1024 * 1024
"""The most bytes of all that is in it."""

_FAMILY = Family(invalid_json="2203", wrong_signature="2205", missing_parameter="2213", system_error="2201")
_WRONG_TYPE = "2204"
_INVALID_JOB_TYPE = "2212"
_JOB_EXISTS = "2215"
_ACCEPTED = "2202"

_ZIP_CORRUPT = "0903"
_DATA_INVALID = "0001"

_PATH = "/videos/{ref_id}/{file_name}"
_NEW, _ENROLLED = "selfie.zip", "enrolled.zip"
"""The name says whether the selfie on file is used. It is signed with the URL, so that nobody need remember it."""
_LIFETIME = 3600
"""Seconds for which the URL takes the zip; the vendor's own figure is not known."""

_INFO = "info.json"
_ENTRY = b"PK\x01\x02"
"""With this begins each entry of the directory of a zip."""
_MOST_ENTRIES = 1000
_MOST_VALUES = 100_000
"""In ``info.json``, whose clients write some dozens."""
_PIECE = 64 * 1024
_ENCRYPTED = 0x1

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
class Registration:
    """What ``POST /v1/upload`` says about a job.

    Attributes:
        ref: Its name.
        job_type: The product.
        partner_params: All other parameters of the partner, as they came.
        callback_url: Where its callbacks go; None for nowhere.
        use_enrolled_image: Whether the selfie on file is to be used.
        retry: Whether a job that was registered before, but has no zip yet, is meant.
    """

    ref: JobRef
    job_type: int
    partner_params: Mapping[str, object] = field(factory=dict[str, object], repr=False)
    callback_url: str | None = field(default=None, repr=False)
    use_enrolled_image: bool = False
    retry: bool = False


@frozen(kw_only=True)
class Finding:
    """What a job will come to.

    Attributes:
        outcome: As that of `smilejobs.sandbox.Sandbox.submit`.
        review: Whether a person has a look, so that a provisional result comes first.
        details: What the ID authority was asked for and has said, as the keys of a result.
    """

    outcome: str
    review: bool = False
    details: Mapping[str, str] = field(factory=dict[str, str], repr=False)


class UnusableZipError(Exception):
    """A zip that cannot be used.

    Attributes:
        result_code: With which the job ends.
    """

    def __init__(self, result_code: str, why: str) -> None:
        super().__init__(why)
        self.result_code = result_code


def read_registration(asked: JSONObject) -> Registration:
    """Return the job that the body of ``POST /v1/upload`` registers.

    Raises:
        RefusalError: It says too little, or something that can never be right.
    """
    params = asked.get("partner_params")
    if params is None:
        raise RefusalError(_FAMILY.missing_parameter)
    if not isinstance(params, dict) or not _can_be_sent(params):
        raise RefusalError(_WRONG_TYPE)
    user_id, job_id, job_type = (parameter(params, name, _FAMILY) for name in ("user_id", "job_id", "job_type"))
    product = {str(number): number for number in JOB_TYPES}.get(job_type)
    if product is None:
        raise RefusalError(_INVALID_JOB_TYPE)
    if str(params.get("sandbox_result")) not in ("None", "0", "1", "2"):
        raise RefusalError(_WRONG_TYPE, 'partner_params.sandbox_result must be "0", "1" or "2"')
    try:
        ref = JobRef(user_id, job_id)
        callback_url = decode_text(asked, "callback_url")
    except ValueError:
        raise RefusalError(_FAMILY.missing_parameter) from None
    except UnreadableError:
        raise RefusalError(_WRONG_TYPE) from None
    return Registration(
        ref=ref,
        job_type=product,
        partner_params={key: value for key, value in params.items() if key not in ("user_id", "job_id", "job_type")},
        callback_url=callback_url or None,
        use_enrolled_image=is_true(asked.get("use_enrolled_image")),
        retry=is_true(asked.get("retry")),
    )


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


def examine(job: Job, body: bytes, *, use_enrolled_image: bool = False, most: int = MAX_UNPACKED) -> Finding:
    """Return what a zip makes of the job that it belongs to.

    The partner's ``sandbox_result`` decides, a word or a number: 0 approved, 1 rejected, 2 provisional, and approved
    after human review. Without it, where the ID authority is asked, the last digit of the test ID number decides: 1,
    2 and 3 are refused with 1013, 1014 and 1015; with 4 the person's data are those among the partner's parameters.

    Args:
        job: The job.
        body: The zip.
        use_enrolled_image: Whether the selfie on file is used, so that none need be in the zip.
        most: How many bytes may be in it, once it is unpacked.
    """
    try:
        info, names = unpack(body, most)
        _check_info(job, info, names, use_enrolled_image=use_enrolled_image)
    except UnusableZipError as error:
        return Finding(outcome=error.result_code)
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
    if is_looked_up:
        details = {theirs: given[ours] for ours, theirs in _ID_KEYS.items() if ours in given}
        if outcome == "approved":
            details |= _person(given, job.partner_params if digit == _OWN_DATA else {})
    return Finding(outcome=outcome, review=str(chosen) == "2", details=details)


class Uploads:
    """The routes by which jobs come in.

    Args:
        jobs: The jobs, by name.
        numbered: The jobs, by the number that the sandbox gave them.
        credentials: Whose requests are answered.
        seed: For the part of the URL that cannot be guessed.
        max_skew: How far the timestamp of a request may be from the clock; None for any distance.
        now: The wall clock.
        register: Makes a job whose zip is to come; a ValueError says that its callbacks may not be sent there. It is
            told the scheme and the host, too, at which the client has found the sandbox.
        receive: Starts a job, whose zip is there now.

    Attributes:
        routes: To be served.
    """

    def __init__(
        self,
        jobs: Mapping[JobRef, Job],
        numbered: Mapping[str, Job],
        credentials: Credentials,
        *,
        seed: int,
        max_skew: timedelta | None,
        now: Callable[[], datetime],
        register: Callable[[Registration, str], Job],
        receive: Callable[[Job, Finding], None],
    ) -> None:
        self._jobs = jobs
        self._numbered = numbered
        self._credentials = credentials
        self._seed = seed
        self._max_skew = max_skew
        self._now = now
        self._register = register
        self._receive = receive
        self.routes = [
            Route("/v1/upload", self._prepare, methods=["POST"]),
            Route(_PATH, self._take, methods=["PUT"]),
        ]

    async def _prepare(self, request: Request) -> Response:
        try:
            asked = await read_object(request, _FAMILY)
            check_partner(asked, "smile_client_id", self._credentials, _FAMILY)
            check_fresh(asked, self._max_skew, self._now())
            registration = read_registration(asked)
            job = self._registered(registration, root_of(request))
        except RefusalError as refusal:
            return refusal.response()
        ref_id = self._ref_id(job.smile_job_id)
        path = _PATH.format(ref_id=ref_id, file_name=_ENROLLED if registration.use_enrolled_image else _NEW)
        query = presign(
            self._credentials.api_key, host_of(request), path, at=self._now(), lifetime=_LIFETIME, method="PUT"
        )
        body = {
            "upload_url": f"{root_of(request)}{path}?{query}",
            "ref_id": ref_id,
            "smile_job_id": job.smile_job_id,
            "camera_config": None,
            "code": _ACCEPTED,
        }
        return JSONResponse(body)

    def _registered(self, registration: Registration, root: str) -> Job:
        """Return the job: a new one, or one that waits for its zip and is sent again."""
        job = self._jobs.get(registration.ref)
        if job is None:
            try:
                with keeping():
                    return self._register(registration, root)
            except ValueError as error:
                raise RefusalError(_WRONG_TYPE, str(error)) from None
            except NotKeptError:
                raise RefusalError(_FAMILY.system_error) from None
        if job.uploaded_at is not None or not registration.retry:
            raise RefusalError(_JOB_EXISTS, "Job already exists. Did you mean to set the retry flag to true?")
        return job

    def _ref_id(self, smile_job_id: str) -> str:
        secret = sha256(f"{self._seed}\0{smile_job_id}".encode()).hexdigest()
        partner_id = re.sub("[^0-9A-Za-z]", "_", self._credentials.partner_id)
        return f"{partner_id}-{smile_job_id}-{secret[:30]}"

    async def _take(self, request: Request) -> Response:
        path, query = request.scope["path"], request.scope["query_string"].decode("latin-1")
        try:
            check(self._credentials.api_key, host_of(request), path, query, self._now(), method="PUT")
            body = await read(request, MAX_ZIP)
        except LinkRefusedError as error:
            return storage_error(error.code, str(error), http_status=403)
        except TooLargeError:
            message = "Your proposed upload exceeds the maximum allowed size"
            return storage_error("EntityTooLarge", message, http_status=400)
        except CutOffError:
            message = "You did not provide the number of bytes specified by the Content-Length HTTP header"
            return storage_error("IncompleteBody", message, http_status=400)
        _, _, number = request.path_params["ref_id"].rpartition("-")[0].rpartition("-")
        job = self._numbered.get(number)
        if job is None:  # it was registered before a restart that has forgotten it
            return storage_error("NoSuchKey", "The specified key does not exist.", http_status=404)
        if job.uploaded_at is None:
            use_enrolled_image = request.path_params["file_name"] == _ENROLLED
            try:
                with keeping():
                    self._receive(job, examine(job, body, use_enrolled_image=use_enrolled_image))
            except NotKeptError:
                return storage_unavailable()
        return Response()


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
    """Check that the zip is that of the job, and that the images are there that it needs."""
    misc = info.get("misc_information")
    params = misc.get("partner_params") if isinstance(misc, dict) else None
    if not isinstance(params, dict):
        raise UnusableZipError(_DATA_INVALID, "it does not say which job it belongs to")
    ref = job.ref
    try:
        names_job = (decode_text(params, "user_id"), decode_text(params, "job_id")) == (ref.user_id, ref.job_id)
    except UnreadableError:
        names_job = False
    if not names_job:
        raise UnusableZipError(_DATA_INVALID, "it belongs to another job")
    there = frozenset(_image_types(info.get("images"), names))
    needed = _NEEDED.get(job.job_type, ())
    if use_enrolled_image:
        needed = tuple(kinds for kinds in needed if kinds is not _SELFIES)
    if not all(kinds & there for kinds in needed):
        raise UnusableZipError(_DATA_INVALID, "an image is missing")


def _image_types(images: object, names: frozenset[str]) -> Iterator[int]:
    """The kinds of the images that are there: within ``info.json``, or as a file that it names.

    The vendor's JavaScript client puts the path of some files in the place of the image; that counts as one.
    """
    for image in images if isinstance(images, list) else ():
        if not isinstance(image, dict):
            continue
        kind, file_name = image.get("image_type_id"), image.get("file_name")
        is_file = isinstance(file_name, str) and PurePosixPath(file_name).name in names
        if isinstance(kind, int) and (is_file or (isinstance(image.get("image"), str) and image["image"])):
            yield kind


def _texts(id_info: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    for key, value in id_info.items():
        if isinstance(value, bool):
            yield key, str(value).lower()
        elif isinstance(value, (str, int, float)) and str(value) and _can_be_sent(value):
            yield key, str(value)


def _person(given: Mapping[str, str], own: Mapping[str, object]) -> dict[str, str]:
    """What is known of the person: what was asked, and what the partner wants to be answered."""
    person = {theirs: given[ours] for ours, theirs in _PERSON_KEYS.items() if ours in given}
    names = [person[key] for key in ("FirstName", "OtherName", "LastName") if key in person]
    full_name = {"FullName": " ".join(names)} if names else {}
    return {**full_name, **person, **{key: text for key, text in _texts(own) if key in _PERSONAL}}


def _can_be_sent(value: object) -> bool:
    """Say whether it can be given back as JSON: no half surrogate pairs, no numbers beyond all bounds."""
    try:
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError):
        return False
    return True
