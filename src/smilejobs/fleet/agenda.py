"""The jobs that are pending, and which of them is due first."""

from collections.abc import Iterator, Mapping
from heapq import heapify, heappop, heappush
from sys import intern
from types import MappingProxyType

from attrs import define, evolve

from smilejobs.model.jobs import JobRef, JobStatus
from smilejobs.polling.rules import PollState

_NOTHING: Mapping[str, object] = MappingProxyType({})


@define(kw_only=True, eq=False, repr=False)
class Entry(PollState):
    """A pending job.

    Attributes:
        index: Its place in the input.
        is_started: Whether its time runs.
        others: Where else the input named it.
        due: The instant at which it is due, unless it is being polled or has ended.
    """

    index: int
    is_started: bool = False
    others: list[tuple[int, JobRef]] | None = None
    due: float | None = None


class Agenda:
    """Pending jobs: by their refs, and in the order in which they are due.

    A job that is brought forward or removed leaves its old place in the heap; that is passed over when it comes first.
    Such places are dropped once they are the most.

    Args:
        spare: How many such places there may be however few jobs are pending.
    """

    def __init__(self, spare: int) -> None:
        self._spare = spare
        self._entries: dict[JobRef, Entry] = {}
        self._heap: list[tuple[float, int, Entry]] = []

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(tuple(self._entries.values()))

    def get(self, ref: JobRef) -> Entry | None:
        """Return the entry of a job, if it is pending; it may be under way."""
        return self._entries.get(ref)

    def add(self, entry: Entry) -> None:
        """Take in a job, which is not pending yet."""
        self._entries[entry.ref] = entry

    def remove(self, ref: JobRef) -> Entry | None:
        """Forget a job; return its entry, if it was pending."""
        entry = self._entries.pop(ref, None)
        if entry is not None:
            entry.due = entry.last = entry.last_error = None  # its place in the heap may outlive it
        return entry

    def put(self, entry: Entry, due: float) -> bool:
        """Say when a job is due; return whether it is the first of all."""
        entry.due = due
        heappush(self._heap, (due, entry.index, entry))
        return self._heap[0][2] is entry

    def first(self) -> Entry | None:
        """Return the job that is due first."""
        while self._heap and self._heap[0][0] != self._heap[0][2].due:
            heappop(self._heap)
        return self._heap[0][2] if self._heap else None

    def take_first(self) -> tuple[Entry, float]:
        """Take the job that `first` returned out of the order; return it, and when it was due."""
        due, _, entry = heappop(self._heap)
        entry.due = None
        return entry, due

    def tidy(self) -> None:
        """Drop the old places, if they are the most."""
        if len(self._heap) > 2 * len(self._entries) + self._spare:
            self._heap = [place for place in self._heap if place[0] == place[2].due]
            heapify(self._heap)


def kept(status: JobStatus | None) -> JobStatus | None:
    """What is kept of an answer while its job is pending: all but the raw bodies. There are few different codes."""
    if status is None or not status.raw:
        return status
    return evolve(
        status,
        code=None if status.code is None else intern(status.code),
        result=None if status.result is None else evolve(status.result, raw=_NOTHING),
        history=tuple(evolve(entry, raw=_NOTHING) for entry in status.history),
        raw=_NOTHING,
    )
