"""What is stored of how a job has ended."""

from attrs import fields_dict

from smilejobs.batch.records import Ending as RowEnding
from smilejobs.batch.records import Record, record_of
from smilejobs.durable.rows import Ending
from smilejobs.durable.schema import COMPLETE, EXPIRED, FAILED
from smilejobs.durable.watchlist import WatchOutcome
from smilejobs.outcomes import Outcome

_STORED = fields_dict(WatchOutcome).keys() & fields_dict(Record).keys()

_STATES = {
    RowEnding.COMPLETE: COMPLETE,
    RowEnding.PENDING: EXPIRED,
    RowEnding.REFUSED: FAILED,
    RowEnding.FAILED: FAILED,
}


def ending_of(outcome: Outcome, *, keep_raw: bool) -> Ending:
    """Return what is stored of an outcome; with the answer as it came only if it is asked for."""
    record = record_of(outcome)
    state = _STATES[record.outcome]
    names = _STORED if state != EXPIRED else _STORED - {"error", "error_text"}
    known = {name: value for name in names if (value := getattr(record, name)) is not None}
    raw = outcome.status.raw if outcome.status is not None and keep_raw else None
    return Ending(outcome.ref, state, known, None if raw is None else dict(raw))
