"""The pending jobs of a scheduler, and which of them is due first."""

from collections.abc import Mapping
from heapq import heapify, heappop, heappush
from sys import intern
from types import MappingProxyType

from attrs import define, evolve

from smilejobs.events import WaitEnded
from smilejobs.model.jobs import JobRef, JobStatus
from smilejobs.outcomes import Outcome
from smilejobs.polling.rules import PollState

POLLS_OWED = 2
"""Polls that a job gets even after its timeout, if the timeout runs from its first poll: they are *owed*."""

_NOTHING: Mapping[str, object] = MappingProxyType({})


@define(kw_only=True, eq=False, repr=False)
class Entry(PollState):
    """A pending job.

    Attributes:
        index: How many jobs were added before it.
        polls_owed: How many polls are left of `POLLS_OWED`; those that the API refuses do not count. 0 for a job whose
            time runs from its addition.
        others: The index and the ref of each later addition of the same job.
        due: When it is due; None while it is being polled and after it has ended.
    """

    index: int
    polls_owed: int
    others: list[tuple[int, JobRef]] | None = None
    due: float | None = None

    @property
    def is_owed_a_poll(self) -> bool:
        """Whether the job has been polled and must be polled once more: its time cannot be over."""
        return self.polls_owed > 0 and self.polls > 0

    def outcomes(self, end: WaitEnded) -> list[Outcome]:
        """Return an outcome for each time that the job was added."""
        return [
            Outcome(
                index=index,
                ref=ref,
                status=end.status,
                error=end.error,
                polls=end.polls,
                elapsed=end.elapsed,
                pending_age=self.pending_at,
                end_age=self.age_at_start + end.elapsed if end.polls else None,
            )
            for index, ref in ((self.index, self.ref), *(self.others or ()))
        ]


class PendingJobs:
    """The pending jobs, by their refs and ordered by the instant at which they are due.

    A job that is brought forward or removed leaves its old place in the heap. Such places are skipped when they come
    first, and dropped once they are the majority.

    Args:
        spare: How many old places are kept in any case.
    """

    def __init__(self, spare: int) -> None:
        self._spare = spare
        self._entries: dict[JobRef, Entry] = {}
        self._heap: list[tuple[float, int, Entry]] = []

    def __contains__(self, ref: JobRef) -> bool:
        return ref in self._entries

    def get(self, ref: JobRef) -> Entry | None:
        """Return the entry of a job, if it is pending; it may be being polled."""
        return self._entries.get(ref)

    def add(self, entry: Entry) -> None:
        """Add a job that is not pending yet."""
        self._entries[entry.ref] = entry

    def remove(self, ref: JobRef) -> Entry | None:
        """Remove a job; return its entry, if it was pending."""
        entry = self._entries.pop(ref, None)
        if entry is not None:
            entry.due = entry.last = entry.last_error = None  # its place in the heap may outlive it
        return entry

    def clear(self) -> list[Entry]:
        """Remove all jobs; return their entries."""
        entries = list(self._entries.values())
        self._entries.clear()
        self._heap.clear()
        return entries

    def put(self, entry: Entry, due: float) -> bool:
        """Set when a job is due; return whether it is the first of all."""
        entry.due = due
        heappush(self._heap, (due, entry.index, entry))
        return self._heap[0][2] is entry

    def first(self) -> Entry | None:
        """Return the job that is due first."""
        while self._heap and self._heap[0][0] != self._heap[0][2].due:
            heappop(self._heap)
        return self._heap[0][2] if self._heap else None

    def pop_first(self) -> tuple[Entry, float]:
        """Take the job that `first` returned out of the heap; return it, and when it was due."""
        due, _, entry = heappop(self._heap)
        entry.due = None
        return entry, due

    def tidy(self) -> None:
        """Drop the old places, if they are the majority."""
        if len(self._heap) > 2 * len(self._entries) + self._spare:
            self._heap = [place for place in self._heap if place[0] == place[2].due]
            heapify(self._heap)


def without_raw(status: JobStatus | None) -> JobStatus | None:
    """Return what is kept of an answer while its job is pending: everything but the raw bodies."""
    if status is None or not status.raw:
        return status
    return evolve(
        status,
        code=None if status.code is None else intern(status.code),  # there are few different codes
        result=None if status.result is None else evolve(status.result, raw=_NOTHING),
        history=tuple(evolve(entry, raw=_NOTHING) for entry in status.history),
        raw=_NOTHING,
    )
