"""Several workers of one watch list, one after the other or at once, and a database that goes away under them."""

import asyncio
import itertools
import logging
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import anyio
import psycopg
import pytest

from postgres import Postgres, empty_database
from smilejobs import JobRef
from smilejobs.clock import utcnow
from smilejobs.durable import WatchList, Worker
from smilejobs.durable.calls import ADDED, calls
from smilejobs.errors import WatchListError
from smilejobs.testing import (
    Script,
    cut,
    html,
    pending,
    rate_limited,
)
from smilejobs.testing.script import Step
from watching import HEARTBEAT, Gate, jobs, listed, polls, scripted, until, until_ended, working

pytestmark = pytest.mark.anyio

ID = "ada-lovelace-1815"
"""An id that is looked for where none may be."""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'jobs.db'}"


@pytest.fixture(scope="module")
def own_server() -> Generator[Postgres, None, None]:
    """A server that a test may stop."""
    with Postgres() as server:
        yield server


@pytest.fixture
def own_url(own_server: Postgres) -> Generator[str, None, None]:
    with empty_database(own_server.url("postgres")) as url:
        yield url


async def polled(script: Script, ref: JobRef, times: int = 1) -> None:
    """Wait until a job has been asked about."""

    async def enough() -> bool:
        return len(script.polls[ref.job_id]) >= times

    await until(enough)


# More than one


async def test_two_workers_share_the_jobs(postgres_url: str) -> None:
    """Each job is mostly asked about by one of them, and has one outcome."""
    refs = jobs(150)
    gate = Gate(open=False)
    scripts = [scripted(refs, gate) for _ in range(2)]
    async with WatchList.open(postgres_url) as watch:
        async with working(scripts[0], postgres_url), working(scripts[1], postgres_url):
            await anyio.sleep(0.5)
            await watch.add(refs)
            await anyio.sleep(1.5)
            gate.open = True
            await until_ended(watch)
        outcomes = await listed(watch)
    assert Counter(outcome.ref for outcome in outcomes) == Counter(refs)
    asked = [
        {job_id for job_id, each in script.polls.items() if each and job_id != "credentials"} for script in scripts
    ]
    assert asked[0] | asked[1] == {ref.job_id for ref in refs}
    assert min(map(len, asked)) >= 15
    assert len(asked[0] & asked[1]) <= 60


async def test_a_new_worker_gets_its_share(postgres_url: str) -> None:
    """Within two slices."""
    refs = jobs(150)
    gate = Gate(open=False)
    scripts = [scripted(refs, gate) for _ in range(2)]
    async with WatchList.open(postgres_url) as watch:
        await watch.add(refs)
        async with working(scripts[0], postgres_url, slice=1.0):
            await polled(scripts[0], refs[0])
            async with working(scripts[1], postgres_url, slice=1.0):
                await anyio.sleep(2.5)
                began = anyio.current_time()
                await anyio.sleep(0.5)
                shares = [sum(poll.at > began for poll in polls(script)) for script in scripts]
                gate.open = True
                await until_ended(watch)
        assert len({outcome.ref for outcome in await listed(watch)}) == 150
    assert min(shares) > 0.15 * sum(shares)


OTHER_PROCESS = """
import asyncio, sys, smilejobs
from smilejobs.durable import WatchList, Worker
async def main():
    async with smilejobs.Client(partner_id="085", api_key="key", environment="sandbox") as client:
        async with WatchList.open(sys.argv[1]) as watch:
            await Worker(client, watch).run()
asyncio.run(main())
"""


async def test_a_second_worker_on_a_file_is_refused(sqlite_url: str, tmp_path: Path) -> None:
    """In this process or another, by whatever name of the file; the first goes on; after it there may be another."""
    script = scripted(jobs(1))
    (tmp_path / "link.db").symlink_to(tmp_path / "jobs.db")
    async with WatchList.open(sqlite_url) as watch:
        async with working(script, sqlite_url):
            await anyio.sleep(0.05)
            for url in (
                sqlite_url,
                f"sqlite:///{tmp_path / 'link.db'}",
                f"sqlite:///{tmp_path}/../{tmp_path.name}/jobs.db",
            ):
                async with script.client() as client, WatchList.open(url) as other:
                    with pytest.raises(WatchListError, match="another worker polls this watch list.*PostgreSQL"):
                        await Worker(client, other).run()
            command = [sys.executable, "-c", OTHER_PROCESS, sqlite_url]
            ended = await anyio.run_process(command, check=False, stderr=subprocess.PIPE)
            assert ended.returncode == 1
            assert b"WatchListError: another worker polls this watch list" in ended.stderr
            await watch.add(jobs(1))
            await until_ended(watch)
        async with working(script, sqlite_url):
            await watch.add(jobs(1))


async def test_another_worker_goes_on(database_url: str) -> None:
    """What one that was stopped half-way knew is stored; the next does the rest; no outcome is lost or doubled."""
    refs = jobs(60)
    gates = {ref: Gate(open=index < 30) for index, ref in enumerate(refs)}
    script = Script({ref.job_id: gates[ref].steps() for ref in refs}, now=utcnow)
    async with WatchList.open(database_url) as watch:
        await watch.add(refs)
        async with working(script, database_url):

            async def some() -> bool:
                return bool((await watch.counts()).complete)

            await until(some)
        counts = await watch.counts()
        assert 0 < counts.complete <= 30
        assert counts.pending + counts.complete == 60
        for gate in gates.values():
            gate.open = True
        async with working(script, database_url):
            await until_ended(watch)
        assert Counter(outcome.ref for outcome in await listed(watch)) == Counter(refs)


async def test_a_worker_that_is_stopped_stores_what_it_knows(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Answers that have come are not asked for again; and it is quick."""
    refs = jobs(20)
    script = scripted(refs)
    async with WatchList.open(database_url) as watch:
        await watch.add(refs)
        async with working(script, database_url) as work:

            async def keeps_nothing(*_: object) -> None:
                await anyio.sleep_forever()

            monkeypatch.setattr(work.watch.store, "end", keeps_nothing)
            for ref in refs:
                await polled(script, ref)
            await anyio.sleep(0.1)
            assert (await watch.counts()).pending == 20
            monkeypatch.undo()
            stopped = time.monotonic()
        assert time.monotonic() - stopped < 5
        assert (await watch.counts()).complete == 20


async def test_a_worker_that_is_stopped_leaves_nothing_behind(database_url: str) -> None:
    """Whenever that is: a task of the database's driver that was left would keep the process from ending."""
    refs = jobs(30)
    before = asyncio.all_tasks()
    for moment in (0.0, 0.02, 0.05, 0.1):
        async with WatchList.open(database_url) as watch:
            await watch.add(refs)
            async with working(scripted(refs, Gate(open=False)), database_url):
                await anyio.sleep(moment)
        assert asyncio.all_tasks() == before


class Trouble:
    """An API that refuses everybody for a while."""

    def __init__(self) -> None:
        self.is_on = False
        self.began = 0.0

    def steps(self) -> Iterator[Step]:
        while True:
            if self.is_on:
                self.began = self.began or anyio.current_time()
                yield rate_limited(2)
            else:
                yield pending()


async def test_one_429_brakes_all_workers(postgres_url: str) -> None:
    """The other one stops within a second, for as long as the API asks."""
    refs = jobs(100)
    trouble = Trouble()
    troubled = Script({ref.job_id: trouble.steps() for ref in refs}, now=utcnow)
    fine = scripted(refs, Gate(open=False))
    async with WatchList.open(postgres_url) as watch, working(troubled, postgres_url), working(fine, postgres_url):
        await anyio.sleep(0.5)
        await watch.add(refs)
        await anyio.sleep(1.0)
        trouble.is_on = True
        await anyio.sleep(2.5)
    began = trouble.began
    assert began
    at = [poll.at for poll in polls(fine)]
    assert sum(began - 0.5 < each < began for each in at) > 10
    assert not [each for each in at if began + 1.0 < each < began + 1.9]


@pytest.mark.parametrize("trouble", [cut(), html(502)])
async def test_trouble_of_ones_own_brakes_nobody_else(
    postgres_url: str, trouble: Step, caplog: pytest.LogCaptureFixture
) -> None:
    """It may be this worker's network, or its way there: it slows down, and does not call out to the others."""
    refs = jobs(60)
    troubled = Script({ref.job_id: itertools.repeat(trouble) for ref in refs}, now=utcnow)
    heard: list[str] = []

    async def listen() -> None:
        async with aclosing(calls(watch.store, postgres_url)) as texts:
            async for text in texts:
                heard.append(text)  # noqa: PERF401  # it never ends

    async def listening() -> bool:
        return bool(heard)

    async def braked() -> bool:
        return "the API cannot keep up" in caplog.text

    async with (
        WatchList.open(postgres_url) as watch,
        working(troubled, postgres_url),
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(listen)
        await until(listening)
        await watch.add(refs)
        await until(braked)
        await anyio.sleep(0.3)
        tasks.cancel_scope.cancel()
    assert "added" in heard
    assert not [text for text in heard if text.startswith("brake")]


async def test_one_rate_for_all_workers(postgres_url: str) -> None:
    """In no second more than a tenth above it. What is wasted, the benchmark measures, on a machine of its own."""
    refs = jobs(200)
    gate = Gate(open=False)
    scripts = [scripted(refs, gate) for _ in range(2)]
    options: dict[str, Any] = {"rate": 50.0, "slice": 1.0}
    async with WatchList.open(postgres_url) as watch:
        await watch.add(refs)
        async with working(scripts[0], postgres_url, **options), working(scripts[1], postgres_url, **options):
            await anyio.sleep(1.0)
            began = anyio.current_time()
            await anyio.sleep(3.0)
            ended = anyio.current_time()
    at = sorted(poll.at for script in scripts for poll in polls(script))
    most = max(sum(first <= each < first + 1 for each in at) for first in at)
    assert most <= 55
    assert 30 <= sum(began <= each < ended for each in at) / (ended - began) <= 52
    assert all(polls(script) for script in scripts)


# The database goes away


async def test_the_database_is_restarted(own_server: Postgres, own_url: str, caplog: pytest.LogCaptureFixture) -> None:
    """In the middle: all goes on by itself, and nothing is lost. The logs tell of it, and tell no secrets."""
    caplog.set_level(logging.INFO)
    refs = [JobRef(f"user-{ID}", ref.job_id) for ref in jobs(40)]
    gate = Gate(open=False)
    script = scripted(refs, gate)
    async with working(script, own_url, rate=500.0) as work:
        await work.watch.add(refs)
        for ref in refs:
            await polled(script, ref)
        await anyio.to_thread.run_sync(own_server.restart)
        gate.open = True
        async with WatchList.open(own_url) as watch:
            await until_ended(watch, within=20)
            assert Counter(outcome.ref for outcome in await listed(watch)) == Counter(refs)
    assert "cannot be reached or used now" in caplog.text
    password = urlsplit(own_url).password
    assert password
    for secret in (password, ID, "sandbox-key", *(ref.job_id for ref in refs)):
        assert secret not in caplog.text


async def test_outcomes_wait_for_the_database(own_server: Postgres, own_url: str) -> None:
    """What was answered while it was away is stored when it is back."""
    refs = jobs(20)
    gate = Gate(open=False)
    script = scripted(refs, gate)
    async with working(script, own_url, heartbeat=10.0) as work:
        await work.watch.add(refs)
        for ref in refs:
            await polled(script, ref)
        await anyio.to_thread.run_sync(own_server.stop)
        gate.open = True
        await anyio.sleep(0.5)
        asked = len(polls(script))
        gate.open = False
        await anyio.to_thread.run_sync(own_server.start)
        await until_ended(work.watch, within=20)
        assert len(await listed(work.watch)) == 20
    assert len(polls(script)) - asked <= 20


async def test_a_worker_waits_for_its_database(own_server: Postgres, own_url: str) -> None:
    """If it is away when the worker begins."""
    script = scripted(jobs(1))
    async with WatchList.open(own_url) as watch:
        await watch.add(jobs(1))
    async with script.client() as client, WatchList.open(own_url) as watch:
        await anyio.to_thread.run_sync(own_server.stop)
        task = asyncio.create_task(Worker(client, watch, heartbeat=HEARTBEAT).run())
        await anyio.sleep(0.3)
        await anyio.to_thread.run_sync(own_server.start)
        await until_ended(watch, within=20)
        task.cancel()
        await asyncio.wait([task])


async def test_connections_that_are_cut(postgres_url: str) -> None:
    """All of them, again and again: what was called out meanwhile is not missed."""
    refs = jobs(30)
    gate = Gate(open=False)
    script = scripted(refs, gate)
    name = urlsplit(postgres_url).path[1:]
    async with working(script, postgres_url) as work:
        for begin in range(0, 30, 10):
            with psycopg.connect(postgres_url) as connection:
                connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s"
                    " AND pid <> pg_backend_pid()", [name])  # fmt: skip
            async with WatchList.open(postgres_url) as watch:
                await watch.add(refs[begin : begin + 10])
            await anyio.sleep(0.2)
        gate.open = True
        await until_ended(work.watch, within=20)


async def test_a_database_that_can_no_longer_be_used(postgres_url: str) -> None:
    """Waiting would not help: the worker ends with the error."""
    script = scripted(jobs(1))
    async with script.client() as client, WatchList.open(postgres_url) as watch:
        task = asyncio.create_task(Worker(client, watch, heartbeat=HEARTBEAT).run())
        await anyio.sleep(0.5)
        with psycopg.connect(postgres_url) as connection:
            connection.execute("DROP TABLE smilejobs.watch")
        await watch.store.ring(ADDED)
        with pytest.raises(WatchListError, match="SQLSTATE 42P01"):
            await asyncio.wait_for(task, 10)
