"""Read from results files how long jobs were waited for."""

from collections.abc import Container, Mapping
from math import isfinite
from typing import TextIO

from attrs import define, field

from smilejobs.batch.records import AGES, Ending
from smilejobs.batch.rows import BadRow, Row, Rows
from smilejobs.polling.comparison import Waits


@define
class Results:
    """What the rows of results files say about durations; rows are counted, and not kept.

    Attributes:
        waits: The waits for the jobs of the rows that say something.
        rows: How many rows there are.
        of_unknown_age: The rows that say something, and have no ``submitted_at``: their ages count from the first poll.
        complete_at_once: Rows that say nothing: the first answer was complete, and there is no ``submitted_at``.
        without_answer: Rows that say nothing: the job was pending at the end, and no answer had come.
        ended_otherwise: Rows that say nothing: refused, failed or invalid.
        without_ages: Rows that say nothing: they are of an earlier release.
    """

    waits: Waits = field(init=False, factory=Waits)
    rows: int = field(init=False, default=0)
    of_unknown_age: int = field(init=False, default=0)
    complete_at_once: int = field(init=False, default=0)
    without_answer: int = field(init=False, default=0)
    ended_otherwise: int = field(init=False, default=0)
    without_ages: int = field(init=False, default=0)

    def read(self, stream: TextIO, name: str) -> None:
        """Read a file; the arguments are those of `Rows`.

        Raises:
            ValueError: The file is not a results file, has no columns of ages, or a row cannot be read.
        """
        rows = Rows(stream, name)
        if rows.columns is not None:
            if "outcome" not in rows.columns:
                raise ValueError(f"{name} is not a results file of smilejobs batch: it has no column outcome")
            _require_ages(rows.columns, name)
        keys = set[str]()
        for row in rows:
            try:
                self._add(row)
            except ValueError as error:
                raise ValueError(f"{name}, line {row.line}: {error}") from None
            keys.update(column for column in AGES if column in row.carried)
        if rows.columns is None:
            _require_ages(keys, name)

    def _add(self, row: Row | BadRow) -> None:
        ending = _read_ending(row)
        self.rows += 1
        if isinstance(row, BadRow) or ending in (Ending.REFUSED, Ending.FAILED, Ending.INVALID):
            self.ended_otherwise += 1
            return
        pending_age, end_age = (_read_age(row.carried, column) for column in AGES)
        if pending_age is not None and end_age is not None and end_age < pending_age:
            raise ValueError("end_age is less than pending_age")
        is_complete = ending is Ending.COMPLETE
        if is_complete and end_age is None:
            self.without_ages += 1
        elif pending_age is not None:
            self.waits.add(pending_age, end_age if is_complete else None)
            self.of_unknown_age += row.ref.submitted_at is None
        elif not is_complete:
            self.without_answer += 1
        elif row.ref.submitted_at is None:
            self.complete_at_once += 1
        else:
            self.waits.add(None, end_age)


def _require_ages(columns: Container[str], name: str) -> None:
    missing = [column for column in AGES if column not in columns]
    if missing:
        raise ValueError(
            f"{name} has no column {' and no column '.join(missing)}; results of earlier versions do not say how long "
            "jobs took: use those of a batch of this version"
        )


def _read_ending(row: Row | BadRow) -> Ending:
    """Return the outcome of a row.

    Raises:
        ValueError: It has none, or it names no job although it is not invalid.
    """
    value = row.carried.get("outcome")
    if isinstance(row, BadRow) and value != Ending.INVALID:
        raise ValueError(row.reason)
    for ending in Ending:
        if ending == value:
            return ending
    raise ValueError(f"outcome must be one of {', '.join(Ending)}, as in results of smilejobs batch")


def _read_age(row: Mapping[str, object], column: str) -> float | None:
    """Return an age in seconds; None if there is none."""
    value = row.get(column)
    if value is None or value == "":
        return None
    try:
        age = float(value) if isinstance(value, (str, float, int)) and not isinstance(value, bool) else -1.0
    except (ValueError, OverflowError):
        age = -1.0
    if not isfinite(age) or age < 0:
        raise ValueError(f"{column} must be a number of seconds, at least 0")
    return age
