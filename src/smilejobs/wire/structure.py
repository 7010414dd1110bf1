"""Structure the vendor's JSON as the classes of `smilejobs.model`, with cattrs.

There are two kinds of fields. Fields that decide something (codes, ids, the result) must have the right JSON type, else
the answer cannot be read. Descriptive fields (texts, personal data, actions, links, history) are None or empty if they
have another type, and stay in ``raw``: an address that is an object must not make a verdict unreadable. Each container
has a maximum size.

Error texts name the paths that are wrong, in the vendor's names, and never the values, which may be personal data.
Errors are raised outside the ``except`` block, so that they have no ``__context__`` that keeps the body reachable.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from functools import cache
from typing import Any, TypeVar

from attrs import evolve
from cattrs import ClassValidationError, Converter
from cattrs.gen import make_dict_structure_fn, override

from smilejobs.model.callback import Callback
from smilejobs.model.jobs import Include, JobRef, JobResult, JobStatus, PartnerParams
from smilejobs.model.links import ImageLink, ImageLinks
from smilejobs.wire.codec import MAX_NUMBER_CHARACTERS, JSONObject, UnreadableError, is_true, parse_timestamp, read_text

_T = TypeVar("_T")
_Given = TypeVar("_Given")
_Out = TypeVar("_Out")

MAX_HISTORY_ENTRIES = 1_000
"""The maximum number of entries in a history."""
MAX_LINKS = 100
"""The maximum number of links in an answer; three links are known."""
MAX_KEYS = 500
"""The maximum number of actions in a result, of which 24 are known, and of keys in PartnerParams."""


def decode_status(body: JSONObject, ref: JobRef, retry_after: float | None, include: Include) -> JobStatus:
    """Return the job status in *body*.

    Args:
        body: The decoded body; its signature is verified.
        ref: The job that was polled.
        retry_after: Seconds, from the ``Retry-After`` header of the answer.
        include: What was requested; links and a history that were not requested are left in ``raw``.

    Raises:
        UnreadableError: *body* has the wrong shape, or more than `MAX_LINKS` links or `MAX_HISTORY_ENTRIES` entries.
    """
    result = body.get("result")
    inner = result if isinstance(result, dict) else {}
    given = {
        **body,
        "user_id": ref.user_id,
        "job_id": ref.job_id,
        "image_links": _first(dict, body.get("image_links"), inner.get("ImageLinks")) if include.image_links else None,
        "history": body.get("history") if include.history else None,
        _RECEIPT: (
            body.get("kyc_receipt") or body.get("kyb_receipt") or inner.get("KYCReceipt") or inner.get("kyb_receipt")
        ),
        _RETRY_AFTER: retry_after,
        _SELF: body,
    }
    return _structure(given, JobStatus, _from_keys, "")


def decode_callback(body: JSONObject) -> Callback:
    """Return the callback in *body*.

    The body is a result, or has a result under ``result`` like an answer, as in the vendor's examples of 2019.

    Raises:
        UnreadableError: *body* has the wrong shape, or names no job.
    """
    inner = body.get("result")
    is_flat = "PartnerParams" in body or "partner_params" in body
    given, path = (inner, "result") if isinstance(inner, dict) and not is_flat else (body, "")
    # Users report callbacks with partner_params in lower case.
    with_params = {"PartnerParams": given.get("partner_params"), **given}
    result = evolve(_structure(with_params, JobResult, _entry, path), raw=given)
    links = _first(dict, body.get("image_links"), given.get("ImageLinks"))
    return Callback(
        ref=_read_ref(result.partner_params or PartnerParams()),
        result=result,
        image_links=_structure(links, ImageLinks, _links, "image_links"),
        timestamp=parse_timestamp(body.get("timestamp")),
    )


def _read_ref(params: PartnerParams) -> JobRef:
    """Return the job that PartnerParams name.

    Raises:
        UnreadableError: They do not name a job.
    """
    try:
        return JobRef(params.user_id or "", params.job_id or "")
    except ValueError as error:
        why = str(error)
    raise UnreadableError(f"its PartnerParams name no job: {why}")


def _first(kind: type[_T], *values: object) -> _T | None:
    return next((value for value in values if isinstance(value, kind)), None)


# Keys for values that are not in the body. A body may have the same keys; these values replace them.
_SELF = "(self)"
_RETRY_AFTER = "(retry_after)"
_RECEIPT = "(receipt)"
_EXTRA = "(extra)"

_PARAMS = ("user_id", "job_id", "job_type")


# Hooks of cattrs: each returns the value of an attribute for a JSON value.


def _text(value: object, _: object) -> str:
    text = value if isinstance(value, str) else read_text(value)
    if text is None:
        raise TypeError
    return text


def _optional_text(value: object, _: object) -> str | None:
    return value if value is None or isinstance(value, str) else _text(value, str)


def _descriptive_text(value: object, _: object) -> str | None:
    return value if isinstance(value, str) else read_text(value)


def _optional_flag(value: object, _: object) -> bool | None:
    return None if value is None else is_true(value)


def _is_complete(value: object, _: object) -> bool:
    return is_true(value)


def _number(value: object, _: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    if isinstance(value, str) and len(value) > MAX_NUMBER_CHARACTERS:
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _job_type(value: object, _: object) -> int | None:
    number = _number(value, float)
    return int(number) if number is not None and number.is_integer() else None


def _actions(value: object, _: object) -> dict[str, str]:
    if not isinstance(value, dict) or len(value) > MAX_KEYS:
        return {}
    return {name: done for name, done in value.items() if isinstance(done, str)}


def _itself(value: object, _: object) -> object:
    return value


def _partner_params(value: object, _: object) -> PartnerParams | None:
    if value is None:
        return None
    given = _require_object(value)
    known: JSONObject = {key: given.get(key) for key in _PARAMS}
    known[_EXTRA] = {} if len(given) > MAX_KEYS else {key: given[key] for key in given if key not in _PARAMS}
    return _from_keys(known, PartnerParams)


def _result(value: object, _: object) -> JobResult | None:
    """Return the object under ``result``; None for a text, ``{}`` or null, which all occur in the vendor's samples."""
    return None if value is None or value == {} or isinstance(value, str) else _entry(value, JobResult)


def _entry(value: object, _: object) -> JobResult:
    given = _require_object(value)
    if "Secondary_ID_Number" in given:
        given = {"SecondaryIDNumber": given["Secondary_ID_Number"], **given}
    return _from_keys({**given, _SELF: value}, JobResult)


def _message(value: object, _: object) -> str | None:
    return value if isinstance(value, str) else None


def _history(value: object, _: object) -> tuple[JobResult, ...]:
    """Return the entries, () if *value* is not a list; stop at the first entry that has the wrong shape."""
    if not isinstance(value, list):
        return ()
    if len(value) > MAX_HISTORY_ENTRIES:
        raise _TooManyError(f"more than {MAX_HISTORY_ENTRIES:,} entries")
    entries: list[JobResult] = []
    for index, entry in enumerate(value):
        try:
            entries.append(_entry(entry, JobResult))
        except (ClassValidationError, TypeError) as error:
            raise _WrongEntryError(index, error) from error
    return tuple(entries)


def _links(value: object, _: object) -> ImageLinks | None:
    if not isinstance(value, dict):
        return None
    if len(value) > MAX_LINKS:
        raise _TooManyError(f"more than {MAX_LINKS} links")
    links = {name: ImageLink(url=url) for name, url in value.items() if isinstance(url, str) and name != "error"}
    return ImageLinks(links=links, error=read_text(value.get("error")))


def _receipt(value: object, _: object) -> ImageLink | None:
    return ImageLink(url=value) if isinstance(value, str) and value else None


def _timestamp(value: object, _: object) -> datetime | None:
    return parse_timestamp(value)


def _require_object(value: object) -> JSONObject:
    if not isinstance(value, dict):
        raise TypeError
    return value


_Hook = Callable[[object, object], object]

_STATUS_KEYS: Mapping[str, tuple[str, _Hook]] = {
    "job_complete": ("job_complete", _is_complete),
    "job_success": ("job_success", _optional_flag),
    "code": ("code", _optional_text),
    "message": ("result", _message),
    "result": ("result", _result),
    "history": ("history", _history),
    "image_links": ("image_links", _links),
    "receipt": (_RECEIPT, _receipt),
    "timestamp": ("timestamp", _timestamp),
    "retry_after": (_RETRY_AFTER, _itself),
    "raw": (_SELF, _itself),
}

_RESULT_KEYS: Mapping[str, tuple[str, _Hook]] = {
    "result_code": ("ResultCode", _optional_text),
    "result_text": ("ResultText", _descriptive_text),
    "result_type": ("ResultType", _descriptive_text),
    "smile_job_id": ("SmileJobID", _optional_text),
    "partner_params": ("PartnerParams", _partner_params),
    "confidence_value": ("ConfidenceValue", _number),
    "actions": ("Actions", _actions),
    "is_final_result": ("IsFinalResult", _optional_flag),
    "is_machine_result": ("IsMachineResult", _optional_flag),
    "country": ("Country", _descriptive_text),
    "id_type": ("IDType", _descriptive_text),
    "id_number": ("IDNumber", _descriptive_text),
    "full_name": ("FullName", _descriptive_text),
    "first_name": ("FirstName", _descriptive_text),
    "last_name": ("LastName", _descriptive_text),
    "other_name": ("OtherName", _descriptive_text),
    "dob": ("DOB", _descriptive_text),
    "gender": ("Gender", _descriptive_text),
    "address": ("Address", _descriptive_text),
    "phone_number": ("PhoneNumber", _descriptive_text),
    "phone_number2": ("PhoneNumber2", _descriptive_text),
    "expiration_date": ("ExpirationDate", _descriptive_text),
    "issuance_date": ("IssuanceDate", _descriptive_text),
    "secondary_id_number": ("SecondaryIDNumber", _descriptive_text),
    "id_status": ("IDStatus", _descriptive_text),
    "photo": ("Photo", _descriptive_text),
    "document": ("Document", _descriptive_text),
    "raw": (_SELF, _itself),
}

_PARAMS_KEYS: Mapping[str, tuple[str, _Hook]] = {
    "user_id": ("user_id", _optional_text),
    "job_id": ("job_id", _optional_text),
    "job_type": ("job_type", _job_type),
    "extra": (_EXTRA, _itself),
}

_KEYS: Mapping[type, Mapping[str, tuple[str, _Hook]]] = {
    JobStatus: _STATUS_KEYS,
    JobResult: _RESULT_KEYS,
    PartnerParams: _PARAMS_KEYS,
}


class _TooManyError(Exception):
    """A container has too many entries; the text names the maximum."""


class _WrongEntryError(Exception):
    """An entry of a list has the wrong shape; *index* and *error* say where."""

    def __init__(self, index: int, error: Exception) -> None:
        self.index = index
        self.error = error


def _structure(given: _Given, cls: type[_T], hook: Callable[[_Given, type[_T]], _Out], path: str) -> _Out:
    """Return *given*, the value at *path* of the body, structured by *hook*.

    Raises:
        UnreadableError: *given* has the wrong shape.
    """
    try:
        return hook(given, cls)
    except (ClassValidationError, _TooManyError) as error:
        wrong = UnreadableError(f"wrong shape at {', '.join(sorted(set(_paths(error, path))))}")
    raise wrong


def _paths(error: BaseException, path: str) -> Iterator[str]:
    """Yield the paths at which *error* found the wrong shape, in the vendor's names."""
    if isinstance(error, _WrongEntryError):
        yield from _paths(error.error, f"{path}[{error.index}]")
    elif isinstance(error, ClassValidationError):
        for inner, attribute in error.group_exceptions()[0]:
            key, _ = _KEYS[error.cl][attribute.name]
            yield from _paths(inner, f"{path}.{key}" if path else key)
    elif isinstance(error, _TooManyError):
        yield f"{path} ({error})"
    else:
        yield path


def _from_keys(given: Mapping[str, object], cls: type[_T]) -> _T:
    """Return *given* as the class, by its keys."""
    value: _T = _compile(cls)(given, cls)  # type: ignore[arg-type]  # mypy takes type[_T] for unhashable
    return value


@cache
def _compile(cls: type) -> Callable[[Mapping[str, object], type], Any]:
    """Return what makes values of the class; cattrs generates it when it is first needed, not at import."""
    converter = Converter()
    converter.register_structure_hook(str, _text)
    overrides = {name: override(rename=key, struct_hook=hook) for name, (key, hook) in _KEYS[cls].items()}
    return make_dict_structure_fn(cls, converter, **overrides)  # type: ignore[arg-type]  # mypy also matches ** with the flags of the function
