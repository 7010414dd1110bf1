"""The columns that a results file has on request: the history, and what the ID authority has about the person."""

from collections.abc import Mapping
from types import MappingProxyType

from smilejobs.model.jobs import JobResult, JobStatus

_PICTURES = ("photo", "document")
"""Faces and papers, of up to a megabyte each. They are no matter for a table, wherever in an answer they are."""


def _told(result: JobResult, *, personal: bool) -> dict[str, object]:
    """Return what a result says, without pictures."""
    return {name: value for name, value in result.as_dict(personal=personal).items() if name not in _PICTURES}


_PERSONAL: Mapping[str, str] = MappingProxyType(
    {
        f"personal_{name}": name
        for name in _told(JobResult(), personal=True)
        if name not in _told(JobResult(), personal=False)
    }
)
"""By the name of the column: the attribute of a `JobResult`."""


def extra_columns(*, history: bool, personal: bool) -> tuple[str, ...]:
    """Return the names of the columns.

    Args:
        history: The history of each user, in one column.
        personal: What the ID authority has about the person, without pictures; each name begins with ``personal_``.
    """
    return (*(("history",) if history else ()), *(_PERSONAL if personal else ()))


def extra_of(status: JobStatus | None, *, history: bool, personal: bool) -> dict[str, object]:
    """Return what there is to write into these columns, by name.

    Args:
        status: The answer; None if there is none.
        history: As for `extra_columns`.
        personal: As for `extra_columns`; without it, the history says nothing about the person either.
    """
    extra: dict[str, object] = {}
    if status is None:
        return extra
    if history:
        extra["history"] = [_told(entry, personal=personal) for entry in status.history]
    if personal and status.result is not None:
        told = _told(status.result, personal=True)
        extra.update((column, told[name]) for column, name in _PERSONAL.items())
    return extra
