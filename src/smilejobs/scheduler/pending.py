"""The pending jobs of a scheduler, and which of them is due first."""

import math
from collections.abc import Iterable, Mapping
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

_SLOT_SECONDS = 1.0
"""The duration of a slot of time."""

_NOTHING: Mapping[str, object] = MappingProxyType({})


@define(kw_only=True, eq=False, repr=False)
class Entry(PollState):
    """A pending job.

    Attributes:
        index: How many jobs were added before it.
        polls_owed: How many polls are left of `POLLS_OWED`; those that the API refuses do not count. 0 for a job whose
            time runs from its addition.
        due: When it is due; None while it is being polled, and infinite after it has ended.
    """

    index: int
    polls_owed: int
    due: float | None = None

    @property
    def is_owed_a_poll(self) -> bool:
        """Whether the job has been polled and must be polled once more: its time cannot be over."""
        return self.polls_owed > 0 and self.polls > 0

    def outcomes(self, end: WaitEnded, others: Iterable[tuple[int, JobRef]]) -> list[Outcome]:
        """Return an outcome for each time that the job was added.

        Args:
            end: How the wait has ended.
            others: The index and the ref of each later addition.
        """
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
            for index, ref in ((self.index, self.ref), *others)
        ]


class PendingJobs:
    """The pending jobs, by their refs and ordered by the instant at which they are due.

    Only the jobs of one slot of time are in a heap. Those of later slots are in a list for each slot, which takes less
    memory and is put into the heap when the slot comes.

    A job that is brought forward or removed leaves its old place behind. Such places are skipped when they come first,
    and dropped once they are the majority.

    Args:
        spare: How many old places are kept in any case.
    """

    def __init__(self, spare: int) -> None:
        self._spare = spare
        self._entries: dict[JobRef, Entry] = {}
        self._heap: list[tuple[float, int, Entry]] = []
        self._slot = -math.inf
        """The latest slot whose jobs are in the heap."""
        self._later: dict[float, list[Entry]] = {}
        self._later_slots: list[float] = []
        """A heap of the keys of *_later*."""
        self._old_places = 0

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
            self._old_places += entry.due is not None
            entry.due = math.inf
            entry.last = entry.last_error = None  # its place may outlive it
        return entry

    def clear(self) -> list[Entry]:
        """Remove all jobs; return their entries."""
        entries = list(self._entries.values())
        for entry in entries:
            entry.due = math.inf
        self._entries.clear()
        self._drop_places()
        return entries

    def put(self, entry: Entry, due: float) -> bool:
        """Set when a job is due; return whether it may be the first of all."""
        self._old_places += entry.due is not None
        entry.due = due
        slot = due // _SLOT_SECONDS
        if slot <= self._slot:
            heappush(self._heap, (due, entry.index, entry))
            return self._heap[0][2] is entry
        entries = self._later.get(slot)
        if entries is None:
            self._later[slot] = [entry]
            heappush(self._later_slots, slot)
        else:
            entries.append(entry)
        return not self._heap and self._later_slots[0] == slot

    def first_due(self) -> float:
        """Return when the first job is due; infinite if there is none."""
        heap = self._heap
        while True:
            while heap and heap[0][0] != heap[0][2].due:
                heappop(heap)
                self._old_places -= 1
            if heap:
                return heap[0][0]
            if not self._later_slots:
                return math.inf
            self._begin_slot()

    def _begin_slot(self) -> None:
        """Put the jobs of the next slot into the heap, which is empty."""
        self._slot = slot = heappop(self._later_slots)
        for entry in self._later.pop(slot):
            if entry.due is not None and entry.due // _SLOT_SECONDS == slot:
                self._heap.append((entry.due, entry.index, entry))
            else:
                self._old_places -= 1
        heapify(self._heap)

    def pop_first(self) -> tuple[Entry, float]:
        """Take the job to which `first_due` applies out of the heap; return it, and when it was due."""
        due, _, entry = heappop(self._heap)
        entry.due = None
        return entry, due

    def tidy(self) -> None:
        """Drop the old places, if they are the majority."""
        if self._old_places > len(self._entries) + self._spare:
            entries = [(entry, entry.due) for entry in self._entries.values() if entry.due is not None]
            self._drop_places()
            for entry, due in entries:
                entry.due = None
                self.put(entry, due)

    def _drop_places(self) -> None:
        for places in (self._heap, self._later, self._later_slots):
            places.clear()
        self._old_places = 0


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
