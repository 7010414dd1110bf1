"""`WatchList.retry` and `WatchList.prune`: many rows at once, beside whoever stores outcomes."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import anyio
import psycopg
import pytest
from attrs import evolve
from sqlalchemy.ext.asyncio import AsyncConnection

from smilejobs import JobRef
from smilejobs.durable import Added, WatchList
from smilejobs.durable.schema import COMPLETE, EXPIRED, FAILED
from smilejobs.durable.tuning import Tuning
from tests.helpers.patience import until
from tests.helpers.watching import PATIENT, START, Clock, ending, execute, jobs, listed, open_list, readable

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def tuning() -> Tuning:
    """Replaced by the parameters of tests."""
    return PATIENT


@pytest.fixture
async def watch(database_url: str, clock: Clock, tuning: Tuning) -> AsyncIterator[WatchList]:
    async with WatchList.open(database_url, now=clock, tuning=tuning) as opened:
        yield opened


async def end(watch: WatchList, *refs: JobRef, state: int = COMPLETE) -> None:
    await watch.store.end([ending(ref, state) for ref in refs], watch.now().timestamp())


async def test_retry_opens_what_failed(watch: WatchList, clock: Clock) -> None:
    """With its whole deadline and its old age; the new outcome comes after all others, the old one is gone."""
    refs = [evolve(ref, submitted_at=START - timedelta(days=1)) for ref in jobs(3)]
    await watch.add(refs, deadline=100)
    await watch.add(jobs(1, "new"), deadline=100)
    await end(watch, refs[0], *jobs(1, "new"), state=FAILED)
    await end(watch, refs[1], state=EXPIRED)
    await end(watch, refs[2])
    *_, last = await listed(watch)
    clock.at += timedelta(days=2)
    assert await watch.retry() == 2
    assert await watch.retry() == 0
    rows = {row.job_id: row for row in readable(await watch.store.pending(range(256)))}
    assert set(rows) == {"job-0", "new-0"}
    assert {row.added_at for row in rows.values()} == {clock.at.timestamp()}
    assert {row.deadline for row in rows.values()} == {100}
    assert rows["job-0"].ref.submitted_at == START - timedelta(days=1)
    assert rows["new-0"].ref.submitted_at == START
    assert [outcome.state for outcome in await listed(watch)] == ["expired", "complete"]
    await end(watch, refs[0])
    assert [outcome.ref for outcome in await listed(watch, after=last.cursor)] == [refs[0]]


@pytest.mark.parametrize("tuning", [Tuning(change_rows=1), Tuning(change_rows=100)])
async def test_prune_deletes_what_ended_long_ago(watch: WatchList, clock: Clock) -> None:
    """Never what is pending; cursors of what was deleted are still good, and its places are not given out again."""
    refs = jobs(4)
    await watch.add(refs)
    await end(watch, refs[0])
    await end(watch, refs[1], state=FAILED)
    first, second = await listed(watch)
    clock.at += timedelta(days=30)
    await end(watch, refs[2])
    assert await watch.prune(older_than=timedelta(days=31)) == 0
    assert await watch.prune(older_than=timedelta(days=30)) == 0
    assert await watch.prune(older_than=timedelta(days=29)) == 2
    (third,) = await listed(watch)
    assert await listed(watch, after=first.cursor) == [third]
    assert await listed(watch, after=second.cursor) == [third]
    clock.at += timedelta(seconds=1)
    assert await watch.prune(older_than=0) == 1
    assert (await watch.counts()).pending == 1
    assert await watch.add(refs[:1]) == Added(new=1, known=0, different=())
    await end(watch, refs[0])
    assert [outcome.ref for outcome in await listed(watch, after=third.cursor)] == [refs[0]]


@pytest.mark.parametrize(("age", "kind"), [(-1, ValueError), (float("nan"), ValueError), ("30d", TypeError)])
async def test_prune_takes_a_duration(watch: WatchList, age: Any, kind: type[Exception]) -> None:
    """Nothing else, and nothing is deleted."""
    await watch.add(jobs(1))
    await end(watch, *jobs(1))
    with pytest.raises(kind, match="older_than"):
        await watch.prune(older_than=age)
    assert (await watch.counts()).complete == 1


@pytest.mark.parametrize("tuning", [Tuning(change_rows=3)])
async def test_retry_goes_on_where_it_was_killed(watch: WatchList, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is done in groups: each is whole or not there, and the next call does the rest."""
    refs = jobs(14)
    await watch.add(refs)
    for ref in refs:
        await end(watch, ref, state=COMPLETE if ref in refs[4:6] else FAILED)
    lock, groups = watch.store._lock, []  # noqa: SLF001  # what every window begins with

    async def killed(connection: AsyncConnection) -> int:
        groups.append(connection)
        if len(groups) == 3:
            raise KeyboardInterrupt
        return await lock(connection)

    with monkeypatch.context() as patched:
        patched.setattr(watch.store, "_lock", killed)
        with pytest.raises(KeyboardInterrupt):
            await watch.retry()
    assert {job.ref async for job in watch.pending()} == {*refs[:4], *refs[6:8]}
    assert [outcome.ref for outcome in await listed(watch)] == [*refs[4:6], *refs[8:]]
    assert await watch.retry() == 6
    assert [outcome.ref for outcome in await listed(watch)] == refs[4:6]
    assert await watch.retry() == 0


@pytest.mark.parametrize("tuning", [Tuning(change_rows=2)])
async def test_retry_ends_although_jobs_fail_again_at_once(watch: WatchList, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker may be quicker than it: what fails meanwhile has had its turn."""
    refs = jobs(6)
    await watch.add(refs)
    await end(watch, *refs, state=FAILED)
    times = itertools.count()
    database = watch.store._database  # noqa: SLF001  # between two groups, anything may happen
    read = database.read

    async def fail_again(statement: Any, *, quick: bool = False) -> Any:
        assert next(times) < 50
        await end(watch, *refs, state=FAILED)
        return await read(statement, quick=quick)

    monkeypatch.setattr(database, "read", fail_again)
    assert await watch.retry() == 6


@pytest.mark.parametrize("tuning", [Tuning(change_rows=5)])
async def test_retry_and_prune_at_once(watch: WatchList, clock: Clock) -> None:
    """Beside one that stores outcomes, on connections of their own: all end, and every job is somewhere once."""
    old, new = jobs(60, "old"), jobs(60, "new")
    await watch.add([*old, *new])
    for ref in old:
        await end(watch, ref, state=FAILED)
    clock.at += timedelta(days=1)

    async def store() -> None:
        for ref in new:
            await end(watch, ref)

    async with open_list(watch.url, now=clock) as one, open_list(watch.url, now=clock) as other:
        with anyio.fail_after(120):
            opened, deleted, _ = await asyncio.gather(one.retry(), other.prune(older_than=60), store())
    counts = await watch.counts()
    assert opened + deleted == 60
    assert (counts.pending, counts.complete, counts.failed, counts.expired) == (opened, 60, 0, 0)


@pytest.mark.parametrize("by", ["retry", "prune"])
async def test_who_changes_what_has_ended_waits_for_his_turn(postgres_url: str, by: str) -> None:
    """Before he touches a row: two that lock rows in orders of their own would wait for each other."""
    async with open_list(postgres_url) as watch:
        await watch.add(jobs(1))
        await end(watch, *jobs(1), state=FAILED)

        async def waits() -> bool:
            return bool(await execute(postgres_url, "SELECT 1 FROM pg_locks WHERE NOT granted"))

        async with await psycopg.AsyncConnection.connect(postgres_url) as storing:
            await storing.execute("UPDATE smilejobs.about SET places = places")
            work = watch.retry() if by == "retry" else watch.store.prune(watch.now().timestamp() + 1)
            task = asyncio.create_task(work)
            await until(waits)
            await storing.execute("SELECT 1 FROM smilejobs.watch FOR UPDATE NOWAIT")
            await storing.commit()
            assert await task == 1
