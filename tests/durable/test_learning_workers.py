"""What the workers of a watch list learn together, in a database: SQLite and PostgreSQL, in real time."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from itertools import chain, repeat

import anyio
import pytest

from smilejobs import JobRef, LearnedPace, Pace
from smilejobs.clock import utcnow
from smilejobs.durable import Learned, WatchList
from smilejobs.durable.learning import Learning
from smilejobs.durable.tuning import Tuning
from smilejobs.polling.rules import Until
from smilejobs.testing import Script, complete, pending, provisional
from smilejobs.testing.script import Step
from tests.helpers.learning import Wait, drawn, learning, teach
from tests.helpers.patience import until
from tests.helpers.watching import PATIENT, open_list, until_ended, working

pytestmark = pytest.mark.anyio

BASE = Pace(min=0.05, max=0.05, jitter=0)
"""The workers poll often."""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def summary(url: str) -> Learned | None:
    async with WatchList.open(url, tuning=PATIENT) as watch:
        return (await watch.counts()).learned


async def test_workers_write_at_the_same_time(database_url: str) -> None:
    """Each waits for the others, also for the first row: no lesson is lost, and none counts twice."""
    async with (
        WatchList.open(database_url, tuning=PATIENT) as one,
        WatchList.open(database_url, tuning=PATIENT) as two,
        WatchList.open(database_url, tuning=PATIENT) as three,
    ):
        workers = [learning(watch.store.learned) for watch in (one, two, three)]

        async def work(worker: Learning, seed: int) -> None:
            for number in range(5):
                teach(worker.pace, *drawn(seed + number, 4), (1.0, 2.0, True))
                await worker.sync()

        async with anyio.create_task_group() as tasks:
            for seed, worker in enumerate(workers):
                tasks.start_soon(work, worker, 10 * seed)
        for worker in workers:
            await worker.sync()
        learned = await one.store.learned.summary()
        assert workers[0].pace == workers[1].pace == workers[2].pace
    assert learned is not None
    assert (learned.jobs, learned.reviews) == (60, 15)
    assert learned.remembered == round(workers[0].pace.jobs) in range(50, 61)
    assert learned.since is not None
    assert learned.updated_at is not None
    assert timedelta(0) <= learned.updated_at - learned.since < timedelta(minutes=5)


async def test_nothing_is_told_where_nothing_was_learned(database_url: str) -> None:
    """A worker that has seen no job makes a row without a pace."""
    assert await summary(database_url) is None
    async with WatchList.open(database_url, tuning=PATIENT) as watch:
        await learning(watch.store.learned).sync()
    assert await summary(database_url) is None


async def test_figures_that_cannot_be_read(sqlite_url: str) -> None:
    """Whoever asks for the state of the list gets what can be read."""
    async with WatchList.open(sqlite_url) as watch:
        worker = learning(watch.store.learned)
        teach(worker.pace, *drawn(1, 3))
        await worker.sync()
    with closing(sqlite3.connect(sqlite_url.removeprefix("sqlite:///"))) as connection, connection:
        connection.execute("UPDATE learned_pace SET pace = x'ff', jobs = 'a', reviews = 'b', since = 'c'")
        connection.execute("UPDATE learned_pace SET updated_at = ''")
    assert await summary(sqlite_url) == Learned(remembered=None, jobs=0, reviews=0, since=None, updated_at=None)


def ages_ago(seconds: float) -> datetime:
    return datetime.now(UTC) - timedelta(seconds=seconds)


async def test_a_worker_learns_and_the_next_one_knows(database_url: str) -> None:
    """Its last lessons are written when it stops; a restart keeps them, and the row of the jobs says nothing more."""
    refs = [JobRef("user-1", f"job-{number}", ages_ago(30)) for number in range(20)]
    script = Script({ref.job_id: [pending(), complete()] for ref in refs}, now=utcnow)
    first = LearnedPace(base=BASE)
    async with WatchList.open(database_url, tuning=PATIENT) as watch:
        await watch.add(refs)
        async with working(script, database_url, pace=first):
            await until_ended(watch)
            assert (await watch.counts()).learned is None
        learned = (await watch.counts()).learned
        assert learned is not None
        assert (learned.jobs, learned.reviews) == (20, 0)
        assert first.jobs == 0
        later = learning(watch.store.learned, LearnedPace(base=BASE))
        await later.sync()
        assert later.pace.jobs == pytest.approx(20, rel=0.1)
        again = [JobRef("user-1", f"again-{number}", ages_ago(30)) for number in range(3)]
        script = Script({ref.job_id: [complete()] for ref in again}, now=utcnow)
        await watch.add(again)
        async with working(script, database_url, pace=first):
            await until_ended(watch)
        found = (await watch.counts()).learned
        assert found is not None
        assert found.jobs == 23


async def test_a_worker_shares_while_it_runs(sqlite_url: str) -> None:
    """The row is written at intervals, not only at the end."""
    script = Script({"job-1": [pending(), complete()]}, now=utcnow)
    tuning = Tuning(sync_pace_seconds=0.05)
    async with WatchList.open(sqlite_url) as watch:
        await watch.add([("user-1", "job-1")])
        async with working(script, sqlite_url, tuning=tuning, pace=LearnedPace(base=BASE)):

            async def is_told() -> bool:
                return (await watch.counts()).learned is not None

            await until(is_told)


async def test_a_worker_that_is_told_to_leaves_the_list_alone(sqlite_url: str) -> None:
    """Its pace learns in this process only, as that of a client does."""
    pace = LearnedPace(base=BASE)
    script = Script({"job-1": [pending(), complete()]}, now=utcnow)
    async with WatchList.open(sqlite_url) as watch:
        await watch.add([("user-1", "job-1")])
        async with working(script, sqlite_url, pace=pace, learn=False):
            await until_ended(watch)
        assert (await watch.counts()).learned is None
    assert pace.jobs == pytest.approx(1, rel=0.01)


class Recorder(LearnedPace):
    """A pace that remembers what it was taught."""

    def __init__(self) -> None:
        super().__init__(base=BASE)
        self.lessons: list[Wait] = []

    def observe(self, *, pending_at: float, complete_at: float | None, provisional: bool = False) -> None:
        super().observe(pending_at=pending_at, complete_at=complete_at, provisional=provisional)
        self.lessons.append((pending_at, complete_at, provisional))


def reviewed() -> Iterator[Step]:
    """Answers about a job in review. Its row may be read while its outcome is stored: then it is polled once more."""
    return chain([provisional(), provisional()], repeat(complete()))


async def lessons(url: str, script: Script, *refs: JobRef, is_new: bool, end: Until = "complete") -> list[Wait]:
    """What a worker is taught by jobs that were in the list before it came, or are added while it works."""
    pace = Recorder()
    async with open_list(url) as watch:
        if not is_new:
            await watch.add(refs, until=end)
        async with working(script, url, pace=pace, learn=False, lease_duration=600.0, heartbeat=100.0):
            if is_new:
                await watch.add([JobRef("user-1", "other")])
                await until_ended(watch)
                pace.lessons.clear()
                await watch.add(refs, until=end)
            await until_ended(watch)
    return pace.lessons


@pytest.mark.parametrize("is_new", [True, False])
async def test_a_job_of_unknown_age_that_is_complete_at_once_teaches_nothing(sqlite_url: str, *, is_new: bool) -> None:
    """The instant at which it was added is not that of its submission; one that was submitted then has an age."""
    unknown, known = JobRef("user-1", "unknown"), JobRef("user-1", "known", ages_ago(30))
    script = Script({name: repeat(complete()) for name in ("other", "unknown", "known")}, now=utcnow)
    taught = await lessons(sqlite_url, script, unknown, known, is_new=is_new)
    assert taught
    assert all(
        pending_at == 0 and complete_at is not None and complete_at > 30 for pending_at, complete_at, _ in taught
    )


async def test_a_review_that_may_have_begun_before_teaches_its_longest_duration(sqlite_url: str) -> None:
    """A new worker sees a provisional answer first, and cannot know since when; of an unknown age it says nothing."""
    refs = JobRef("user-1", "unknown"), JobRef("user-1", "known", ages_ago(30))
    script = Script({ref.job_id: reviewed() for ref in refs}, now=utcnow)
    taught = (await lessons(sqlite_url, script, *refs, is_new=False, end="final"))[:2]
    assert [(pending_at, is_review) for pending_at, _, is_review in taught] == [(0, False), (0, True)]
    assert all(complete_at is not None and complete_at > 30 for _, complete_at, _ in taught)


async def test_a_review_of_a_new_job_is_learned_from_its_beginning(sqlite_url: str) -> None:
    """It was seen to begin: the ages count from its first provisional answer."""
    ref = JobRef("user-1", "job-1", ages_ago(30))
    script = Script({"other": repeat(complete()), "job-1": reviewed()}, now=utcnow)
    first, second, *_ = await lessons(sqlite_url, script, ref, is_new=True, end="final")
    assert first[2] is False
    assert second[2] is True
    assert second[1] is not None
    assert 0 < second[0] <= second[1] < 30
