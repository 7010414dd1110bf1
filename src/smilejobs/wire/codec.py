"""The vendor's JSON to our model, by cattrs.

Two rules. What a decision rests on (codes, ids, the containers) must have the right JSON type, else the answer cannot
be read; what is only described (texts, personal fields, actions) is None where it makes no sense, and stays readable
in ``raw``: an address that one day is an object must not make a verdict unreadable.

Error texts name the paths at fault, in the vendor's spelling, and never the values: they are personal data.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from json import JSONDecoder
from typing import TypeVar

from cattrs import ClassValidationError, Converter, IterableValidationError
from cattrs.gen import make_dict_structure_fn, override

from smilejobs.model.callback import Callback
from smilejobs.model.jobs import JobRef, JobResult, JobStatus, PartnerParams
from smilejobs.model.links import ImageLink, ImageLinks

JSONObject = dict[str, object]
_T = TypeVar("_T")

_decoder = JSONDecoder(parse_constant=lambda _: None)
"""Reads ``NaN`` and ``Infinity``, which are not JSON but which Python reads, as null."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MOST_PATHS = 5


class UnreadableError(Exception):
    """A body that cannot be read; the text says why, without values."""


def decode_object(body: bytes) -> JSONObject:
    """Return the JSON object that *body* holds.

    Raises:
        UnreadableError: It holds none.
    """
    try:
        value: object = _decoder.decode(body.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise UnreadableError("it is not UTF-8") from None
    except ValueError:
        what = "HTML" if body[:512].lstrip().startswith(b"<") else "empty" if not body.strip() else "not JSON"
        raise UnreadableError(f"it is {what}") from None
    except RecursionError:
        raise UnreadableError("it is nested too deeply") from None
    if not isinstance(value, dict):
        raise UnreadableError("it is JSON, but no object")
    return value


def decode_text(body: JSONObject, key: str) -> str | None:
    """Return the text (or number, as its digits) under *key*; None if there is none.

    Raises:
        UnreadableError: There is something else.
    """
    value = body.get(key)
    try:
        return None if value is None else _text(value, str)
    except TypeError:
        raise UnreadableError(f"wrong shape at {key}") from None


def decode_status(body: JSONObject, ref: JobRef, retry_after: float | None) -> JobStatus:
    """Return what *body* says about the job.

    Raises:
        UnreadableError: It has the wrong shape.
    """
    given = {**body, "user_id": ref.user_id, "job_id": ref.job_id, _RETRY_AFTER: retry_after, _SELF: body}
    result = body.get("result")
    if body.get("image_links") is None and isinstance(result, dict) and isinstance(result.get("ImageLinks"), dict):
        given["image_links"] = result["ImageLinks"]
    try:
        return _structure_status(given, JobStatus)
    except (ClassValidationError, IterableValidationError) as error:
        raise _wrong_shape(error, "") from None


def decode_callback(body: JSONObject) -> Callback:
    """Return what the callback *body* says.

    It is a result, or has one under ``result`` in the manner of an answer, as the vendor's examples of 2019 do.

    Raises:
        UnreadableError: It has the wrong shape, or names no job.
    """
    inner = body.get("result")
    given, path = (inner, "result") if isinstance(inner, dict) and "PartnerParams" not in body else (body, "")
    links = [links for links in (body.get("image_links"), given.get("ImageLinks")) if isinstance(links, dict)]
    try:
        result = _entry(given, JobResult)
    except ClassValidationError as error:
        raise _wrong_shape(error, path) from None
    params = result.partner_params or PartnerParams()
    try:
        ref = JobRef(params.user_id or "", params.job_id or "")
    except ValueError as error:
        raise UnreadableError(f"its PartnerParams name no job: {error}") from None
    return Callback(
        ref=ref,
        result=result,
        image_links=_links(links[0], ImageLinks) if links else None,
        timestamp=parse_timestamp(body.get("timestamp")),
    )


def is_true(value: object) -> bool:
    """Read a boolean the vendor's way: true is JSON ``true`` or the word "true", and nothing else is."""
    return value is True or (isinstance(value, str) and value.lower() == "true")


def parse_timestamp(value: object) -> datetime | None:
    """Return the instant that a timestamp names, in UTC; None if it names none (local time does not).

    Read are ISO 8601 with an offset, also with a space before it, and epoch milliseconds, a number or its digits.
    """
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(text, str):
        return None
    try:
        if text.isascii() and text.isdigit():
            return _EPOCH + timedelta(milliseconds=int(text))
        at = datetime.fromisoformat(text.replace(" +", "+").replace(" -", "-"))
        return None if at.utcoffset() is None else at.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


# Keys under which the decoder passes on what is not in the body; JSON from outside may hold them, and is overruled.
_SELF = "(self)"
_RETRY_AFTER = "(retry_after)"
_EXTRA = "(extra)"


def _text(value: object, _: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    raise TypeError


def _described(value: object, _: object) -> str | None:
    try:
        return _text(value, str)
    except TypeError:
        return None


def _flag(value: object, _: object) -> bool | None:
    return None if value is None else is_true(value)


def _complete(value: object, _: object) -> bool:
    return is_true(value)


def _number(value: object, _: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
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
    if not isinstance(value, dict):
        return {}
    return {name: done for name, done in value.items() if isinstance(done, str)}


def _itself(value: object, _: object) -> object:
    return value


def _partner_params(value: object, _: object) -> PartnerParams | None:
    if value is None:
        return None
    given = _object(value)
    extra = {key: value for key, value in given.items() if key not in ("user_id", "job_id", "job_type")}
    return _structure_params({**given, _EXTRA: extra}, PartnerParams)


def _result(value: object, _: object) -> JobResult | None:
    """The object under ``result``; None for a text, ``{}`` or null, all of which the vendor's own samples have."""
    return None if value is None or value == {} or isinstance(value, str) else _entry(value, JobResult)


def _entry(value: object, _: object) -> JobResult:
    given = _object(value)
    if "Secondary_ID_Number" in given:
        given = {"SecondaryIDNumber": given["Secondary_ID_Number"], **given}
    return _structure_result({**given, _SELF: value}, JobResult)


def _message(value: object, _: object) -> str | None:
    return value if isinstance(value, str) else None


def _history(value: object, _: object) -> tuple[JobResult, ...]:
    if value is None:
        return ()
    if not isinstance(value, list):
        raise TypeError
    return tuple(_converter.structure(value, list[JobResult]))


def _links(value: object, _: object) -> ImageLinks | None:
    if value is None:
        return None
    given = _object(value)
    links = {name: ImageLink(url=url) for name, url in given.items() if isinstance(url, str) and name != "error"}
    return ImageLinks(links=links, error=_described(given.get("error"), str))


def _timestamp(value: object, _: object) -> datetime | None:
    return parse_timestamp(value)


def _object(value: object) -> JSONObject:
    if not isinstance(value, dict):
        raise TypeError
    return value


_Hook = Callable[[object, object], object]

_STATUS_KEYS: Mapping[str, tuple[str, _Hook | None]] = {
    "job_complete": ("job_complete", _complete),
    "job_success": ("job_success", _flag),
    "message": ("result", _message),
    "result": ("result", _result),
    "history": ("history", _history),
    "image_links": ("image_links", _links),
    "timestamp": ("timestamp", _timestamp),
    "retry_after": (_RETRY_AFTER, _itself),
    "raw": (_SELF, _itself),
}

_RESULT_KEYS: Mapping[str, tuple[str, _Hook | None]] = {
    "result_code": ("ResultCode", None),
    "result_text": ("ResultText", _described),
    "result_type": ("ResultType", _described),
    "smile_job_id": ("SmileJobID", None),
    "partner_params": ("PartnerParams", _partner_params),
    "confidence_value": ("ConfidenceValue", _number),
    "actions": ("Actions", _actions),
    "is_final_result": ("IsFinalResult", _flag),
    "is_machine_result": ("IsMachineResult", _flag),
    "country": ("Country", _described),
    "id_type": ("IDType", _described),
    "id_number": ("IDNumber", _described),
    "full_name": ("FullName", _described),
    "first_name": ("FirstName", _described),
    "last_name": ("LastName", _described),
    "other_name": ("OtherName", _described),
    "dob": ("DOB", _described),
    "gender": ("Gender", _described),
    "address": ("Address", _described),
    "phone_number": ("PhoneNumber", _described),
    "phone_number2": ("PhoneNumber2", _described),
    "expiration_date": ("ExpirationDate", _described),
    "issuance_date": ("IssuanceDate", _described),
    "secondary_id_number": ("SecondaryIDNumber", _described),
    "id_status": ("IDStatus", _described),
    "photo": ("Photo", _described),
    "document": ("Document", _described),
    "raw": (_SELF, _itself),
}

_PARAMS_KEYS: Mapping[str, tuple[str, _Hook | None]] = {
    "job_type": ("job_type", _job_type),
    "extra": (_EXTRA, _itself),
}

_KEYS: Mapping[type, Mapping[str, tuple[str, _Hook | None]]] = {
    JobStatus: _STATUS_KEYS,
    JobResult: _RESULT_KEYS,
    PartnerParams: _PARAMS_KEYS,
}


def _wrong_shape(error: BaseException, path: str) -> UnreadableError:
    paths = sorted(set(_paths(error, path)))
    more = f" and {len(paths) - _MOST_PATHS} more" if len(paths) > _MOST_PATHS else ""
    return UnreadableError(f"wrong shape at {', '.join(paths[:_MOST_PATHS])}{more}")


def _paths(error: BaseException, path: str) -> Iterator[str]:
    """The places at which *error* found the wrong shape, in the vendor's spelling."""
    if isinstance(error, IterableValidationError):
        for inner, note in error.group_exceptions()[0]:
            yield from _paths(inner, f"{path}[{note.index}]")
    elif isinstance(error, ClassValidationError):
        for inner, attribute in error.group_exceptions()[0]:
            key, _ = _KEYS[error.cl].get(attribute.name, (attribute.name, None))
            yield from _paths(inner, f"{path}.{key}" if path else key)
    else:
        yield path


def _compile(cls: type[_T]) -> Callable[[Mapping[str, object], object], _T]:
    overrides = {name: override(rename=key, struct_hook=hook) for name, (key, hook) in _KEYS[cls].items()}
    return make_dict_structure_fn(cls, _converter, **overrides)  # type: ignore[arg-type]  # mypy takes ** for its flags


_converter = Converter()
_converter.register_structure_hook(str, _text)
_converter.register_structure_hook(JobResult, _entry)
_structure_status = _compile(JobStatus)
_structure_result = _compile(JobResult)
_structure_params = _compile(PartnerParams)
