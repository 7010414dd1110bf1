"""Reads rows, also unreadable ones: other programs can write the tables, and backups can be damaged.

An unreadable row is one failed job, named by its number; it ends neither a worker nor a reader.
"""

import json
import math
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any, Literal

from attrs import fields, frozen

from smilejobs.durable.rows import Ended, Pending, failure, instant, key_of
from smilejobs.durable.schema import COMPLETE, EXPIRED, FAILED
from smilejobs.model.jobs import JobRef

YEARS = (2, 9998)
"""First and last: a day before the ends of the calendar, an instant can still be converted to UTC."""

UNREADABLE_ID = "(unreadable)"
"""In place of an id that is not valid."""

UNREADABLE = JobRef(UNREADABLE_ID, UNREADABLE_ID)

State = Literal["complete", "failed", "expired"]

_STATES: dict[object, State] = {COMPLETE: "complete", FAILED: "failed", EXPIRED: "expired"}

_TEXTS = ("code", "verdict", "result_code", "result_text", "smile_job_id", "error", "error_text")

PENDING_COLUMNS = (*(column.name for column in fields(Pending)), "key")
ENDED_COLUMNS = tuple(column.name for column in fields(Ended))


@frozen
class Unreadable:
    """A row of a pending job that cannot be read; *text* is its number and what is wrong, without its ids."""

    seq: int
    text: str


def read_pending(values: Sequence[Any]) -> Pending | Unreadable:
    """Return a row of a pending job, read as `PENDING_COLUMNS`."""
    *known, key = values
    row = Pending(*known)
    try:
        _instant(row.added_at, "added_at")
        if row.deadline is not None and _number(row.deadline, "deadline") <= 0:
            raise ValueError("deadline must be greater than 0")  # caught below, as the others
        if row.final not in (0, 1):
            raise ValueError("final must be true or false")
        ref = read_ref(row)
        if key != key_of(ref) or row.bucket != key[0]:
            raise ValueError("its key is not the one of its ids")
    except (TypeError, ValueError) as error:
        return Unreadable(row.seq, _describe(row, error))
    return row


def read_ref(row: Pending | Ended) -> JobRef:
    """Return the job of a row.

    Raises:
        TypeError: An id is no text.
        ValueError: An id is not valid, or the instant of the submission.
    """
    at = None if row.submitted_at is None else _instant(row.submitted_at, "submitted_at")
    return JobRef(row.user_id, row.job_id, at)


def read_outcome(row: Ended) -> tuple[JobRef, State, dict[str, Any], dict[str, object] | None]:
    """Return the job of a row that has ended, its state, the fields of its outcome, and the raw answer.

    The outcome of an unreadable row is "failed", with an error; an id that is not valid becomes `UNREADABLE_ID`.
    """
    try:
        ref = read_ref(row)
        if row.state not in _STATES:
            raise ValueError("its state is unknown")
        _instant(row.added_at, "added_at")
        _instant(row.ended_at, "ended_at")
        raw = None if row.raw is None else _json(row.raw, "raw")
        return ref, _STATES[row.state], _known(row.outcome), raw
    except (TypeError, ValueError) as error:
        return _any_ref(row), "failed", failure(_describe(row, error)), None


def _describe(row: Pending | Ended, error: Exception) -> str:
    return f"row {row.seq} of the watch list cannot be read: {error}"


def _known(text: object) -> dict[str, Any]:
    """Return the fields of an outcome, without those that this version does not know."""
    found = _json(text, "outcome")
    known = {name: found[name] for name in (*_TEXTS, "confidence", "is_final") if found.get(name) is not None}
    if not all(isinstance(known.get(name, ""), str) for name in _TEXTS):
        raise ValueError("its outcome holds no text where there must be one")
    _number(known.get("confidence", 0), "confidence")
    if not isinstance(known.get("is_final", False), bool):
        raise ValueError("is_final must be true or false")  # noqa: TRY004  # the type of a stored value is no caller's mistake
    return known


def _json(text: object, name: str) -> dict[str, Any]:
    found = None
    with suppress(ValueError, RecursionError):
        found = json.loads(text) if isinstance(text, str) else None
    if not isinstance(found, dict):  # raised outside the handler: the error of json has the whole text
        raise ValueError(f"its {name} is no JSON object")  # noqa: TRY004  # the row is wrong, no argument
    return found


def _number(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"{name} must be a number")
    return value


def _instant(value: Any, name: str) -> datetime:
    number, at = _number(value, name), None
    with suppress(ValueError, OverflowError, OSError):
        at = instant(number)
    if at is None or not YEARS[0] <= at.year <= YEARS[1]:
        raise ValueError(f"{name} is not within the calendar")
    return at


def instant_of(at: object) -> datetime | None:
    """Return an instant that is only shown; None if it is not valid."""
    try:
        return _instant(at, "")
    except ValueError:
        return None


def _any_ref(row: Ended) -> JobRef:
    """Return a ref with the ids of a row, as far as they are valid."""

    def readable(value: Any) -> str:
        try:
            return JobRef(value, value).user_id
        except (TypeError, ValueError):
            return UNREADABLE_ID

    return JobRef(readable(row.user_id), readable(row.job_id))
