"""The pending jobs of a scheduler: which of them is due first, and what the others leave behind."""

import math

from hypothesis import given, strategies

from smilejobs import JobRef
from smilejobs.polling.rules import Terms
from smilejobs.scheduler.pending import Entry, PendingJobs

TERMS = Terms(timeout=None)


def entry(index: int) -> Entry:
    """Return a job that is not pending yet."""
    return Entry(index=index, ref=JobRef("user-1", f"job-{index}"), terms=TERMS, polls_owed=0)


def taken(jobs: PendingJobs) -> list[tuple[float, int]]:
    """Take all jobs, and return when each was due, and its index."""
    order = []
    while jobs.first_due() < math.inf:
        job, due = jobs.pop_first()
        order.append((due, job.index))
    return order


def places(jobs: PendingJobs) -> int:
    """Return how many places there are, old ones included."""
    return len(jobs._heap) + sum(map(len, jobs._later.values()))  # noqa: SLF001  # what takes the memory


def old_places(jobs: PendingJobs) -> int:
    """Return how many places are old, as it is counted."""
    return jobs._old_places  # noqa: SLF001  # what decides when they are dropped


DUES = strategies.floats(0, 5) | strategies.integers(0, 3).map(float)
STEPS = strategies.lists(
    strategies.tuples(strategies.sampled_from(["put", "remove", "take"]), strategies.integers(0, 5), DUES), max_size=60
)


@given(steps=STEPS)
def test_jobs_come_in_the_order_in_which_they_are_due(steps: list[tuple[str, int, float]]) -> None:
    """Those that are due at the same instant in the order of their addition; in whatever slots of time.

    Old places are counted exactly: too few would pile up, too many would be dropped again and again.
    """
    jobs = PendingJobs(0)
    entries: dict[int, Entry] = {}
    dues: dict[int, float] = {}
    for what, index, due in steps:
        if what == "put":
            if index not in entries:
                entries[index] = entry(index)
                jobs.add(entries[index])
            before = jobs.first_due()
            is_first = jobs.put(entries[index], due)
            dues[index] = due
            assert is_first or min(before, jobs.first_due()) == before
        elif what == "remove":
            assert (jobs.remove(entry(index).ref) is None) == (index not in entries)
            entries.pop(index, None)
            dues.pop(index, None)
        elif dues:
            assert jobs.first_due() == min(dues.values())
            job, was_due = jobs.pop_first()
            assert (was_due, job.index) == min((due, index) for index, due in dues.items())
            assert job.due is None
            del dues[job.index]
        jobs.tidy()
        assert old_places(jobs) == places(jobs) - len(dues) <= len(entries)
    assert taken(jobs) == sorted((due, index) for index, due in dues.items())


def test_a_job_that_has_ended_is_due_no_more() -> None:
    """However it has ended; one that is being polled is not due now."""
    jobs = PendingJobs(0)
    one, two, three = (entry(index) for index in range(3))
    for job in (one, two, three):
        jobs.add(job)
        jobs.put(job, 10.0)
    assert jobs.first_due() == 10.0
    assert jobs.pop_first() == (one, 10.0)
    assert one.due is None
    assert jobs.remove(two.ref) is two
    assert jobs.first_due() == 10.0
    assert jobs.clear() == [one, three]
    assert [job.due for job in (one, two, three)] == [math.inf] * 3
    assert jobs.first_due() == math.inf


def test_old_places_are_dropped_when_they_are_the_majority() -> None:
    """The jobs keep their times; one that is being polled has no place. A few old places are kept in any case."""
    jobs = PendingJobs(1)
    polled, *rest = (entry(index) for index in range(4))
    for job in (polled, *rest):
        jobs.add(job)
        jobs.put(job, float(job.index))
    assert jobs.first_due() == 0.0
    assert jobs.pop_first() == (polled, 0.0)
    for job in (*rest, *rest[:2]):
        jobs.put(job, 30.0 - job.index)
    jobs.tidy()
    assert (places(jobs), old_places(jobs)) == (8, 5)
    jobs.put(rest[0], 20.0)
    jobs.tidy()
    assert (places(jobs), old_places(jobs)) == (3, 0)
    assert taken(jobs) == [(20.0, 1), (27.0, 3), (28.0, 2)]
