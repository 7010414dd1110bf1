"""The optional columns of a results file: the history, and the personal data of the ID authority."""

from collections.abc import Mapping
from types import MappingProxyType

from smilejobs.model.jobs import JobResult, JobStatus

_PICTURES = ("photo", "document")
"""Attributes of a `JobResult` that hold pictures of up to a megabyte; no column has them."""


def _without_pictures(result: JobResult, *, personal: bool) -> dict[str, object]:
    return {name: value for name, value in result.as_dict(personal=personal).items() if name not in _PICTURES}


_PERSONAL: Mapping[str, str] = MappingProxyType(
    {
        f"personal_{name}": name
        for name in _without_pictures(JobResult(), personal=True)
        if name not in _without_pictures(JobResult(), personal=False)
    }
)
"""By the name of a column: the attribute of a `JobResult`."""


def extra_columns(*, history: bool, personal: bool) -> tuple[str, ...]:
    """Return the names of the columns: of the history, and of personal data, which begin with ``personal_``."""
    return (*(("history",) if history else ()), *(_PERSONAL if personal else ()))


def extra_of(status: JobStatus | None, *, history: bool, personal: bool) -> dict[str, object]:
    """Return the values of these columns, by name, as far as an answer has them.

    Without *personal*, the history has no personal data either.
    """
    extra: dict[str, object] = {}
    if status is None:
        return extra
    if history:
        extra["history"] = [_without_pictures(entry, personal=personal) for entry in status.history]
    if personal and status.result is not None:
        values = _without_pictures(status.result, personal=True)
        extra.update((column, values[name]) for column, name in _PERSONAL.items())
    return extra
