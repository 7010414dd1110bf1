"""What the workers of a watch list learn together about how long its jobs take, by a row in memory."""

import json
import logging
import random
from collections.abc import Callable
from typing import Any

import anyio
import anyio.lowlevel
import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from smilejobs import LearnedPace, Pace
from smilejobs.durable.learning import MAX_LESSONS, Change, LearnedRow
from smilejobs.errors import WatchListError
from tests.helpers.learning import Wait, drawn, learning, teach
from tests.helpers.strategies import unhurried

pytestmark = pytest.mark.anyio

AWAY = WatchListError("the database is away", transient=True)


class Row(LearnedRow):
    """The row of a list, in memory.

    Attributes:
        stored: The pace that is stored.
        failures: What the next attempts fail with.
        jobs: How many jobs it has learned from.
        reviews: How many reviews.
        writes: How often it was written.
    """

    def __init__(self, stored: object = None) -> None:
        self.stored = stored
        self.failures: list[WatchListError] = []
        self.jobs = self.reviews = self.writes = 0

    async def change(self, decide: Callable[[object], Change | None]) -> None:
        await anyio.lowlevel.checkpoint()
        if self.failures:
            raise self.failures.pop(0)
        change = decide(self.stored)
        if change is not None:
            self.stored = change.pace
            self.jobs += change.jobs
            self.reviews += change.reviews
            self.writes += 1


ages = st.floats(0, 1e6)
waits = st.lists(
    st.tuples(ages, ages | st.none(), st.booleans()).map(
        lambda each: (each[0], None if each[1] is None else max(each[0], each[1]), each[2])
    ),
    max_size=12,
)


# One row, many workers


@given(turns=st.lists(st.tuples(st.integers(0, 2), waits), max_size=8))
@settings(unhurried, max_examples=25)
def test_workers_learn_what_one_would_have_that_saw_all(turns: list[tuple[int, list[Wait]]]) -> None:
    """In whatever order they write: the row and all workers are exactly one pace that saw the jobs in that order."""
    row = Row()
    workers = [learning(row) for _ in range(3)]
    seen: list[Wait] = []
    everyone = [0, 1, 2]

    async def run() -> None:
        for index, some in [*turns, *((index, []) for index in everyone), *((index, []) for index in everyone)]:
            teach(workers[index].pace, *some)
            seen.extend(some)
            await workers[index].sync()

    anyio.run(run)
    one = teach(LearnedPace(), *seen)
    for worker in workers:
        assert worker.pace == one
        assert not worker.pace.lessons
    if seen:
        assert row.stored == one.to_json()
    assert (row.jobs, row.reviews) == (sum(not wait[2] for wait in seen), sum(wait[2] for wait in seen))
    assert row.writes == sum(bool(some) for _, some in turns)


async def test_workers_that_write_late_lose_nothing() -> None:
    """Each keeps its lessons until its own turn; then they come after those that were written before."""
    row = Row()
    first, second = learning(row), learning(row)
    teach(first.pace, *drawn(1, 30))
    teach(second.pace, *drawn(2, 30))
    await second.sync()
    await first.sync()
    assert row.stored == teach(LearnedPace(), *drawn(2, 30), *drawn(1, 30)).to_json()
    assert first.pace.jobs == pytest.approx(60, rel=0.1)
    assert second.pace.jobs == pytest.approx(30, rel=0.1)
    await second.sync()
    assert second.pace == first.pace


async def test_what_is_learned_while_it_writes_is_kept() -> None:
    """It counts for the worker at once, and in the row with the next write."""

    class Busy(Row):
        async def change(self, decide: Callable[[object], Change | None]) -> None:
            await super().change(decide)
            if self.writes == 1:
                teach(worker.pace, *drawn(2, 10))

    row = Busy()
    worker = learning(row)
    teach(worker.pace, *drawn(1, 10))
    await worker.sync()
    assert row.stored == teach(LearnedPace(), *drawn(1, 10)).to_json()
    assert worker.pace == teach(LearnedPace(), *drawn(1, 10), *drawn(2, 10))
    assert len(worker.pace.lessons) == 10
    await worker.sync()
    assert row.jobs == 20
    assert row.stored == worker.pace.to_json()


async def test_a_list_begins_with_the_pace_of_its_first_worker() -> None:
    """That pace stays as it is; a worker that comes later takes over what the list knows."""
    given_pace, row = teach(LearnedPace(), *drawn(1, 50)), Row()
    before = given_pace.to_json()
    worker = learning(row, given_pace)
    await worker.sync()
    assert row.stored is None
    teach(worker.pace, *drawn(2, 3))
    await worker.sync()
    assert row.stored == teach(LearnedPace.from_json(before), *drawn(2, 3)).to_json()
    assert given_pace.to_json() == before
    later = learning(row, teach(LearnedPace(), *drawn(3, 70)))
    await later.sync()
    assert later.pace == worker.pace


async def test_a_row_that_is_deleted_is_forgotten() -> None:
    """The workers begin anew, with what they have seen since the last write."""
    row = Row()
    worker = learning(row)
    teach(worker.pace, *drawn(1, 50))
    await worker.sync()
    row.stored = None
    teach(worker.pace, *drawn(2, 3))
    await worker.sync()
    assert row.stored == worker.pace.to_json() == teach(LearnedPace(), *drawn(2, 3)).to_json()


# When it is written


async def test_it_is_written_once_a_minute_at_most() -> None:
    """However much there is to learn, and not at all if there is nothing."""
    row = Row()
    worker = learning(row)
    with anyio.move_on_after(600):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(worker.run)
            for wait in drawn(1, 300):
                teach(worker.pace, wait)
                await anyio.sleep(1)
            written = row.writes
            await anyio.sleep(200)
    assert written in {4, 5}
    assert row.writes == written + 1
    assert row.jobs == 300


async def test_an_outage_of_the_database_loses_nothing() -> None:
    """The lessons wait, those that come meanwhile as well, and the worker polls by what it learns itself."""
    row = Row()
    row.failures = [AWAY] * 5
    worker = learning(row)
    teach(worker.pace, *drawn(1, 10))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(worker.sync)
        await anyio.lowlevel.checkpoint()
        teach(worker.pace, *drawn(2, 10))
    assert row.stored == worker.pace.to_json() == teach(LearnedPace(), *drawn(1, 10), *drawn(2, 10)).to_json()
    assert row.jobs == 20


async def test_a_commit_that_was_not_confirmed_counts_once() -> None:
    """The lessons that it has stored are not written again; those that came since are."""

    class Unconfirmed(Row):
        async def change(self, decide: Callable[[object], Change | None]) -> None:
            await super().change(decide)
            if self.writes == 1:
                self.writes += 1
                teach(worker.pace, *drawn(2, 5))
                raise AWAY

    row = Unconfirmed()
    worker = learning(row)
    teach(worker.pace, *drawn(1, 10))
    await worker.sync()
    assert row.jobs == 15
    assert row.stored == worker.pace.to_json() == teach(LearnedPace(), *drawn(1, 10), *drawn(2, 5)).to_json()


async def test_a_commit_that_has_failed_is_done_again() -> None:
    """What the last attempt has not stored is written by the next one."""

    class Failing(Row):
        async def change(self, decide: Callable[[object], Change | None]) -> None:
            await super().change(decide)
            if self.writes == 1:
                self.stored, self.jobs = None, 0
                raise AWAY

    row = Failing()
    worker = learning(row)
    teach(worker.pace, *drawn(1, 10))
    await worker.sync()
    assert (row.jobs, row.writes) == (10, 2)
    assert row.stored == teach(LearnedPace(), *drawn(1, 10)).to_json()


async def test_few_lessons_are_kept() -> None:
    """The newest ones; the worker itself has learned from all."""
    row = Row()
    worker = learning(row)
    some = drawn(1, MAX_LESSONS + 50)
    teach(worker.pace, *some)
    assert worker.pace == teach(LearnedPace(), *some)
    await worker.sync()
    assert row.jobs == MAX_LESSONS
    assert row.stored == teach(LearnedPace(), *some[50:]).to_json()


# Rows that cannot be used


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


async def test_a_row_of_another_version_stays_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    """One warning says what to do; the worker learns on its own, and its lessons wait for a row that it can read."""
    newer = json.dumps({**json.loads(teach(LearnedPace(), *drawn(1, 9)).to_json()), "version": 2})
    row = Row(newer)
    worker = learning(row)
    for _ in range(3):
        await worker.sync()
        teach(worker.pace, *drawn(2, 7))
    assert row.stored == newer
    assert len(told(caplog)) == 1
    assert (
        "in format 2; this version of smilejobs reads format 1; run the same version of smilejobs in all workers"
        in caplog.text
    )
    assert worker.pace == teach(LearnedPace(), *drawn(2, 7), *drawn(2, 7), *drawn(2, 7))
    row.stored = None
    await worker.sync()
    assert row.jobs == 21


@pytest.mark.parametrize("junk", ["{", "[]", '{"kind": "another"}', 5, b"\xff", "1e999"])
async def test_a_damaged_row_is_replaced(junk: object, caplog: pytest.LogCaptureFixture) -> None:
    """By what a worker knows, which is nearly all that the row knew; one warning says so."""
    row = Row()
    worker = learning(row)
    teach(worker.pace, *drawn(1, 20))
    await worker.sync()
    row.stored = junk
    await worker.sync()
    assert row.stored == junk
    teach(worker.pace, *drawn(2, 20))
    await worker.sync()
    assert row.stored == worker.pace.to_json() == teach(LearnedPace(), *drawn(1, 20), *drawn(2, 20)).to_json()
    assert len(told(caplog)) == 1
    assert "the learned pace of the watch list is damaged" in caplog.text


async def test_a_row_with_another_base_keeps_what_is_known(caplog: pytest.LogCaptureFixture) -> None:
    """How long jobs take is the same; it is planned for the base of this worker, and one warning says so."""
    row = Row(teach(LearnedPace(base=Pace(max=600), lateness=3), *drawn(1, 200)).to_json())
    worker = learning(row, LearnedPace(base=Pace(min=2)))
    for seed in (2, 3):
        teach(worker.pace, *drawn(seed, 10))
        await worker.sync()
    assert isinstance(row.stored, str)
    stored = LearnedPace.from_json(row.stored)
    assert (stored.base, stored.lateness) == (Pace(min=2), None)
    assert stored.jobs == pytest.approx(220, rel=0.2)
    assert stored(0.0, 1) >= 2 * 0.9
    assert len(told(caplog)) == 1
    assert "give all workers the same" in caplog.text


async def test_a_database_that_refuses_the_row_does_not_end_the_worker(caplog: pytest.LogCaptureFixture) -> None:
    """It says so once, and goes on learning on its own."""
    row = Row()
    row.failures = [WatchListError("permission denied"), WatchListError("permission denied")]
    worker = learning(row)
    for _ in range(3):
        teach(worker.pace, *drawn(1, 5))
        await worker.sync()
    assert told(caplog) == ["the learned pace cannot be stored, so this worker learns on its own: permission denied"]
    assert row.jobs == 15


def corrupted(value: Any, chance: random.Random, share: float) -> Any:
    """A value with some numbers in it replaced by others."""
    if isinstance(value, dict):
        return {name: corrupted(each, chance, share) for name, each in value.items()}
    if isinstance(value, list):
        return [corrupted(each, chance, share) for each in value]
    if isinstance(value, (int, float)) and chance.random() < share:
        return chance.choice([0, 1, -1, 1e-9, 1e9, 1e308, 400, 3.7, None, value * 2, value / 3])
    return value


@given(seed=st.integers(0, 10**6), share=st.sampled_from([0.001, 0.01, 0.1]))
@settings(unhurried, max_examples=40)
def test_no_row_ends_the_polling(seed: int, share: float) -> None:
    """Whatever numbers another program has written: the row is used or replaced, and delays keep their bounds."""
    known = teach(LearnedPace(), *drawn(seed, 60), *((5.0, 50.0 + i, True) for i in range(9)))
    row = Row(json.dumps(corrupted(json.loads(known.to_json()), random.Random(seed), share)))
    worker = learning(row)

    async def run() -> None:
        await worker.sync()
        teach(worker.pace, *drawn(seed + 1, 20), (1.0, 2.0, True))
        await worker.sync()

    anyio.run(run)
    for age in (0.0, 3.0, 1e4):
        for delay in (worker.pace(age, 1), worker.pace.after_provisional(age, 1)):
            assert 0.9 <= delay <= worker.pace.limit
