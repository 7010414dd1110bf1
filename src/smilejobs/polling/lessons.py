"""What a wait teaches its learned pace: when its job was last seen pending, and when it was seen complete.

A notification says that something has happened by then, so it bounds the age at which a job became complete better than
the poll that follows it. A wait of unknown age whose first answer is complete teaches nothing. If a job may have been
polled before by another process, and its first answer here is provisional, its review may have begun at any age up to
now: it is polled as if it had begun with the job, and teaches only how long it lasted at most, if the age of the job is
known.
"""

from typing import TYPE_CHECKING

from smilejobs.errors import WaitTimeoutError
from smilejobs.polling.learned_pace import LearnedPace
from smilejobs.polling.pace import PaceFunction

if TYPE_CHECKING:
    from smilejobs.model.jobs import JobStatus
    from smilejobs.polling.rules import Decision, PollState


def record_answer(state: "PollState", status: "JobStatus", now: float) -> None:
    """Teach the pace, if a phase of the job has ended by a good answer at the instant *now*."""
    pace = state.terms.pace
    notified_at, state.notified_at = state.notified_at, None
    if not isinstance(pace, LearnedPace) or not status.job_complete:
        return
    age = state.age(now)
    is_age_known = state.ref.submitted_at is not None and state.terms.is_age_known
    seen_at = age if notified_at is None else min(age, notified_at)
    pending_at = 0.0 if state.pending_at is None else state.pending_at
    begin = state.complete_at
    if begin is None:
        seen_at = max(seen_at, pending_at)
        if state.pending_at is not None or is_age_known:
            pace.observe(pending_at=pending_at, complete_at=seen_at)
        state.complete_at = 0.0 if state.pending_at is None and state.terms.is_resumed else seen_at
        if not state.woken:
            state.woken_at = None
    elif status.is_final and (is_age_known or _knows_begin(state)):
        pending_at = pending_at - begin if _knows_begin(state) else 0.0
        pace.observe(pending_at=pending_at, complete_at=max(seen_at - begin, pending_at), provisional=True)


def record_notification(state: "PollState", now: float) -> None:
    """Record a notification at the instant *now*."""
    if state.notified_at is None and isinstance(state.terms.pace, LearnedPace):
        state.notified_at = state.age(now)


def record_end(state: "PollState", decision: "Decision") -> None:
    """Record the end of a wait: a timeout teaches how long the job was pending at least."""
    pace = state.terms.pace
    error = getattr(decision, "error", None)
    if not isinstance(pace, LearnedPace) or not isinstance(error, WaitTimeoutError) or state.pending_at is None:
        return
    begin = state.complete_at
    if begin is None:
        pace.observe(pending_at=state.pending_at, complete_at=None)
    elif _knows_begin(state):
        pace.observe(pending_at=state.pending_at - begin, complete_at=None, provisional=True)


def _knows_begin(state: "PollState") -> bool:
    """Return whether it is known at which age the answer became provisional."""
    return not (state.terms.is_resumed and state.complete_at == 0.0)


def delay_of_pace(state: "PollState", now: float) -> float:
    """Return what the pace says at the instant *now*: by the age of the job, of its review, or of the last news."""
    pace = state.terms.pace
    if state.woken_at is not None:
        return pace_after_news(pace)(max(0.0, now - state.woken_at), state.polls)
    if state.complete_at is not None and isinstance(pace, LearnedPace):
        return pace.after_provisional(state.age(now) - state.complete_at, state.polls)
    return pace(state.age(now), state.polls)


def pace_after_news(pace: PaceFunction) -> PaceFunction:
    """Return the pace for ages that count from a notification: what was learned about the ages of jobs is no use."""
    return pace.base if isinstance(pace, LearnedPace) else pace
