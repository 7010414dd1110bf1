"""What is cancelled while the database hangs: it ends all the same, and soon; what can still be done is done."""

import asyncio
import gc
import time
from collections.abc import Generator
from contextlib import suppress

import anyio
import psycopg
import pytest

from smilejobs.durable import WatchList
from smilejobs.durable.tuning import Tuning
from smilejobs.errors import WatchListError
from tests.helpers.patience import until
from tests.helpers.postgres import Postgres, empty_database
from tests.helpers.watching import (
    Gate,
    ending,
    execute,
    jobs,
    listed,
    open_list,
    polled,
    scripted,
    until_ended,
    worker,
    working,
)

pytestmark = pytest.mark.anyio

SOON = 30.0
"""Seconds, on a machine that is slow; a transaction may last 60 if nobody hurries it."""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def own_server() -> Generator[Postgres, None, None]:
    """A server that a test may let hang."""
    with Postgres() as server:
        yield server


@pytest.fixture
def own_url(own_server: Postgres) -> Generator[str, None, None]:
    with empty_database(own_server.url("postgres")) as url:
        yield url
    gc.collect()  # a connection that was left open is reported here


SHORT = Tuning(cancelled_transaction_seconds=0.2, stop_seconds=1.0, close_seconds=0.2)
"""Less time for a database that hangs than in production."""


@pytest.mark.parametrize("by", ["its task", "a scope"])
@pytest.mark.sample
async def test_a_worker_ends_although_its_database_hangs(own_server: Postgres, own_url: str, by: str) -> None:
    """Whoever stops it; what it could not store is polled again by the next."""
    refs, gate = jobs(20), Gate(open=False)
    script = scripted(refs, gate)
    scope = anyio.CancelScope()
    async with script.client(rate=None) as client, WatchList.open(own_url, tuning=SHORT) as watch:

        async def run() -> None:
            with scope:
                await worker(client, watch, heartbeat=120.0, lease_duration=600.0).run()

        await watch.add(refs)
        task = asyncio.create_task(run())
        for ref in refs:
            await polled(script, ref)
        with own_server.asleep():
            opened = anyio.current_time()
            gate.open = True
            await until(lambda: all(script.polls[ref.job_id][-1].at >= opened for ref in refs))
            await anyio.sleep(0.2)
            began = time.monotonic()
            if by == "a scope":
                scope.cancel()
            else:
                task.cancel()
            await asyncio.wait([task])
            assert time.monotonic() - began < SOON
        counts = await watch.counts()
        assert counts.pending + counts.complete == 20
    # It was stopped before it could give its buckets back: nobody waits for its heartbeat.
    await execute(own_url, "UPDATE procrastinate_workers SET last_heartbeat = 'epoch'")
    await execute(own_url, "DELETE FROM smilejobs.leases")
    async with working(scripted(refs), own_url) as work:
        await until_ended(work.watch)
        assert {outcome.ref for outcome in await listed(work.watch)} == set(refs)


async def test_who_is_cancelled_does_not_wait_for_a_database_that_hangs(own_server: Postgres, own_url: str) -> None:
    """Not for long, whatever he asks for; when it goes on, so does he."""
    async with WatchList.open(own_url, tuning=SHORT) as watch:
        await watch.add(jobs(1))
        with own_server.asleep():
            began = time.monotonic()
            with anyio.move_on_after(0.1), suppress(WatchListError):
                await watch.add(jobs(2))
            assert time.monotonic() - began < SOON
        assert (await watch.add(jobs(2))).known >= 1


async def test_a_database_that_hangs_is_given_up(own_server: Postgres, own_url: str) -> None:
    """Also by those whom nobody cancels; that may pass."""
    async with WatchList.open(own_url, tuning=Tuning(quick_transaction_seconds=1.0)) as watch:
        with own_server.asleep(), pytest.raises(WatchListError, match="cannot be reached or used now") as caught:
            await watch.store.paused()
        assert caught.value.transient
        assert [job async for job in watch.pending()] == []


async def test_what_has_begun_is_done(postgres_url: str) -> None:
    """If the database answers in time: a cancellation does not cut it off."""

    async def waits() -> bool:
        return bool(await execute(postgres_url, "SELECT 1 FROM pg_locks WHERE NOT granted"))

    async with (
        WatchList.open(postgres_url, tuning=Tuning(cancelled_transaction_seconds=SOON)) as watch,
        await psycopg.AsyncConnection.connect(postgres_url) as storing,
        anyio.create_task_group() as tasks,
    ):
        await watch.add(jobs(1))
        await storing.execute("UPDATE smilejobs.about SET places = places")
        tasks.start_soon(watch.store.end, [ending(jobs(1)[0])], 1.0)
        await until(waits)
        tasks.cancel_scope.cancel()
        with anyio.CancelScope(shield=True):
            await anyio.sleep(0.1)
            await storing.commit()
    async with open_list(postgres_url) as watch:
        assert (await watch.counts()).complete == 1


async def test_who_is_cancelled_begins_nothing(database_url: str) -> None:
    """A loop of transactions can be cancelled between two of them."""
    async with open_list(database_url) as watch:
        with anyio.CancelScope() as scope:
            scope.cancel()
            await watch.add(jobs(1))
        assert scope.cancelled_caught
        assert (await watch.counts()).pending == 0
