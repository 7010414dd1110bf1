"""What is stored of how a job has ended."""

from smilejobs.durable.rows import Ending
from smilejobs.durable.schema import COMPLETE, EXPIRED, FAILED
from smilejobs.errors import WaitTimeoutError
from smilejobs.outcomes import Outcome, record_values


def ending_of(outcome: Outcome, *, keep_raw: bool) -> Ending:
    """Return what is stored of an outcome; with the answer as it came only if it is asked for."""
    known = {name: value for name, value in record_values(outcome).items() if value is not None}
    if outcome.status is not None:
        raw = dict(outcome.status.raw) if keep_raw else None
        return Ending(outcome.ref, COMPLETE, known, raw)
    if isinstance(outcome.error, WaitTimeoutError):
        del known["error"], known["error_text"]
        return Ending(outcome.ref, EXPIRED, known, None)
    return Ending(outcome.ref, FAILED, known, None)
