"""Several workers of one watch list, one after the other or at once, and a database that goes away under them."""

import asyncio
import itertools
import logging
import subprocess
import sys
from collections import Counter
from collections.abc import Generator
from contextlib import aclosing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import anyio
import pytest

from smilejobs import Event, JobRef, Pace, Throttled
from smilejobs.clock import utcnow
from smilejobs.durable import WatchList, Worker
from smilejobs.durable.notifications import Notification, ThrottleRequest, listen
from smilejobs.durable.rows import key_of
from smilejobs.durable.store import ADDED
from smilejobs.durable.tuning import Tuning
from smilejobs.errors import WatchListError
from smilejobs.testing import Script, cut, html, rate_limited
from smilejobs.testing.script import Step
from tests.helpers.patience import until
from tests.helpers.postgres import Postgres, empty_database
from tests.helpers.watching import (
    HEARTBEAT,
    Gate,
    execute,
    jobs,
    listed,
    open_list,
    polls,
    scripted,
    until_ended,
    working,
)

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

ID = "ada-lovelace-1815"
"""An id that is looked for where none may be."""

CALM = Pace(min=0.25, max=0.25, jitter=0)
"""Leaves a busy machine time for more than polls."""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def own_server() -> Generator[Postgres, None, None]:
    """A server that a test may stop."""
    with Postgres() as server:
        yield server


@pytest.fixture
def own_url(own_server: Postgres) -> Generator[str, None, None]:
    with empty_database(own_server.url("postgres")) as url:
        yield url


async def polled(script: Script, *refs: JobRef) -> None:
    """Wait until jobs have been asked about."""
    await until(lambda: all(script.polls[ref.job_id] for ref in refs))


def asked(script: Script) -> set[str]:
    """Which jobs have been asked about."""
    return {job_id for job_id, each in script.polls.items() if each and job_id != "credentials"}


# More than one


async def shared_out(watch: WatchList, refs: list[JobRef], scripts: list[Script]) -> list[JobRef]:
    """Add jobs to the list of two workers, few at a time, until each asks about some; return those that were added.

    Who is first has them: one of the workers may have been late once, but not each time.
    """
    for begin in range(0, len(refs), 15):
        group = refs[begin : begin + 15]
        await watch.add(group)
        await until(lambda: {ref.job_id for ref in group} <= asked(scripts[0]) | asked(scripts[1]))
        if min(len(asked(script)) for script in scripts) >= 15:
            return refs[: begin + 15]
    pytest.fail("one of the workers does all the work")


async def test_two_workers_share_the_jobs(postgres_url: str) -> None:
    """Each job is mostly asked about by one of them, and has one outcome."""
    gate = Gate(open=False)
    known = jobs(300)
    scripts = [scripted(known, gate) for _ in range(2)]
    options: dict[str, Any] = {"lease_duration": 60.0, "pace": CALM}
    async with open_list(postgres_url) as watch:
        async with working(scripts[0], postgres_url, **options), working(scripts[1], postgres_url, **options):
            refs = await shared_out(watch, known, scripts)
            gate.open = True
            await until_ended(watch)
        outcomes = await listed(watch)
    assert Counter(outcome.ref for outcome in outcomes) == Counter(refs)
    assert asked(scripts[0]) | asked(scripts[1]) == {ref.job_id for ref in refs}
    assert len(asked(scripts[0]) & asked(scripts[1])) <= 0.4 * len(refs)


async def test_a_new_worker_gets_its_share(postgres_url: str) -> None:
    """Within two leases, of which each assigns every bucket once."""
    refs = jobs(60)
    buckets = {key_of(ref)[0] for ref in refs}
    gate = Gate(open=False)
    scripts = [scripted(refs, gate) for _ in range(2)]

    async def handed_out() -> int:
        [(last,)] = await execute(postgres_url, "SELECT last_value FROM procrastinate_jobs_id_seq")
        return int(last)

    async def both_are_there() -> bool:
        return await execute(postgres_url, "SELECT count(*) FROM procrastinate_workers") == [(2,)]

    async with open_list(postgres_url) as watch:
        await watch.add(refs)
        async with working(scripts[0], postgres_url, pace=CALM):
            await polled(scripts[0], *refs)
            async with working(scripts[1], postgres_url, pace=CALM):
                await until(both_are_there)
                began = await handed_out()
                await until(lambda: len(asked(scripts[1])) > 0.15 * len(refs))
                assert await handed_out() - began <= 3 * len(buckets)  # the first of them may have been under way
                gate.open = True
                await until_ended(watch)
        assert len({outcome.ref for outcome in await listed(watch)}) == len(refs)


OTHER_PROCESS = """
import asyncio, sys, smilejobs
from smilejobs.durable import WatchList, Worker
async def main():
    async with smilejobs.Client(partner_id="085", api_key="key", environment="sandbox") as client:
        async with WatchList.open(sys.argv[1]) as watch:
            await Worker(client, watch).run()
asyncio.run(main())
"""


@pytest.mark.sample
async def test_a_second_worker_on_a_file_is_refused(sqlite_url: str, tmp_path: Path) -> None:
    """In this process or another, by whatever name of the file; the first goes on; after it there may be another."""
    (first,), later = jobs(1, "first"), jobs(1)
    script = scripted([first, *later])
    (tmp_path / "link.db").symlink_to(tmp_path / "jobs.db")
    async with open_list(sqlite_url) as watch:
        await watch.add([first])
        async with working(script, sqlite_url):
            await polled(script, first)
            for url in (
                sqlite_url,
                f"sqlite:///{tmp_path / 'link.db'}",
                f"sqlite:///{tmp_path}/../{tmp_path.name}/jobs.db",
            ):
                async with script.client() as client, open_list(url) as other:
                    with pytest.raises(WatchListError, match="another worker polls this watch list.*PostgreSQL"):
                        await Worker(client, other).run()
            command = [sys.executable, "-c", OTHER_PROCESS, sqlite_url]
            ended = await anyio.run_process(command, check=False, stderr=subprocess.PIPE)
            assert ended.returncode == 1
            assert b"WatchListError: another worker polls this watch list" in ended.stderr
            await watch.add(later)
            await until_ended(watch)
        async with working(script, sqlite_url):
            await watch.add(later)


async def test_another_worker_goes_on(database_url: str) -> None:
    """What one that was stopped half-way knew is stored; the next does the rest; no outcome is lost or doubled."""
    refs = jobs(60)
    gates = {ref: Gate(open=index < 30) for index, ref in enumerate(refs)}
    script = Script({ref.job_id: gates[ref].steps() for ref in refs}, now=utcnow)
    async with open_list(database_url) as watch:
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


@pytest.mark.sample
async def test_a_worker_that_is_stopped_stores_what_it_knows(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Answers that have come are not asked for again; and it is quick."""
    refs = jobs(20)
    script = scripted(refs)
    async with open_list(database_url) as watch:
        await watch.add(refs)
        async with working(script, database_url, lease_duration=600.0, heartbeat=100.0) as work:

            async def keeps_nothing(*_: object) -> None:
                await anyio.sleep_forever()

            monkeypatch.setattr(work.watch.store, "end", keeps_nothing)
            await polled(script, *refs)
            await anyio.wait_all_tasks_blocked()  # until the answers are known
            assert (await watch.counts()).pending == 20
            monkeypatch.undo()
            stopped = anyio.current_time()
        assert anyio.current_time() - stopped < 30
        assert (await watch.counts()).complete == 20


@pytest.mark.sample
async def test_a_worker_that_is_stopped_leaves_nothing_behind(database_url: str) -> None:
    """Whenever that is: a task of the database's driver that was left would keep the process from ending."""
    refs = jobs(30)
    before = asyncio.all_tasks()
    for moment in (0.0, 0.02, 0.05, 0.1):
        async with open_list(database_url) as watch:
            await watch.add(refs)
            async with working(scripted(refs, Gate(open=False)), database_url):
                await anyio.sleep(moment)
        await until(lambda: asyncio.all_tasks() == before)


@pytest.mark.sample
async def test_one_429_throttles_all_workers(postgres_url: str) -> None:
    """The other one stops soon, for as long as the API asks."""
    gates = [Gate(open=False) for _ in range(2)]
    known = jobs(300)
    fine, troubled = scripts = [
        Script({ref.job_id: gate.steps(rate_limited(200)) for ref in known}, now=utcnow) for gate in gates
    ]
    told: list[Event] = []
    options: dict[str, Any] = {"lease_duration": 60.0, "pace": CALM}
    async with (
        open_list(postgres_url) as watch,
        working(fine, postgres_url, hooks=[told.append], **options),
        working(troubled, postgres_url, **options),
    ):
        await shared_out(watch, known, scripts)
        before = Counter(poll.body["job_id"] for poll in polls(fine))
        gates[1].open = True
        await until(lambda: [event for event in told if isinstance(event, Throttled)])
        await anyio.wait_all_tasks_blocked()  # until what was under way has its answer
        after = Counter(poll.body["job_id"] for poll in polls(fine))
        await anyio.sleep(0.5)
        assert Counter(poll.body["job_id"] for poll in polls(fine)) == after
    assert max((after - before).values(), default=0) <= 12  # in 3 s, if each was asked about when it was due
    throttled, *_ = [event for event in told if isinstance(event, Throttled)]
    assert throttled.pause == pytest.approx(200)


@pytest.mark.parametrize("trouble", [cut(), html(502)])
async def test_trouble_of_ones_own_throttles_no_other_worker(
    postgres_url: str, trouble: Step, caplog: pytest.LogCaptureFixture
) -> None:
    """It may be this worker's network, or its way there: it slows down, and does not call out to the others."""
    refs = jobs(60)
    troubled = Script({ref.job_id: itertools.repeat(trouble) for ref in refs}, now=utcnow)
    heard: list[Notification] = []

    async def hear() -> None:
        async with aclosing(listen(watch.store)) as notifications:
            async for notification in notifications:
                heard.append(notification)  # noqa: PERF401  # it never ends

    async with (
        open_list(postgres_url) as watch,
        working(troubled, postgres_url),
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(hear)
        await until(lambda: heard)
        await watch.add(refs)
        await until(lambda: "added" in heard and "the API cannot keep up" in caplog.text)
        await anyio.sleep(0.3)
        tasks.cancel_scope.cancel()
    assert not [each for each in heard if isinstance(each, ThrottleRequest)]


async def test_one_rate_for_all_workers(postgres_url: str) -> None:
    """No more than a tenth above it; what is wasted, the benchmark measures, on a machine of its own.

    In a single second of a busy machine it may be more, if turns come late: a chunk of 0.1 s and what is under way, for
    each worker.
    """
    refs = jobs(200)
    gate = Gate(open=False)
    scripts = [scripted(refs, gate) for _ in range(2)]
    options: dict[str, Any] = {"rate": 50.0, "lease_duration": 1.0}

    def instants() -> list[float]:
        return sorted(poll.at for script in scripts for poll in polls(script))

    async with open_list(postgres_url) as watch:
        await watch.add(refs)
        async with working(scripts[0], postgres_url, **options), working(scripts[1], postgres_url, **options):
            await until(lambda: len(instants()) > 200 and all(polls(script) for script in scripts))
    at = instants()
    assert len(at) <= 1.1 * 50 * (at[-1] - at[0]) + 1
    assert max(sum(first <= each < first + 1 for each in at) for first in at) <= 70


# The database goes away


@pytest.mark.sample
async def test_the_database_is_restarted(own_server: Postgres, own_url: str, caplog: pytest.LogCaptureFixture) -> None:
    """In the middle: all goes on by itself, and nothing is lost. The logs tell of it, and tell no secrets."""
    caplog.set_level(logging.INFO)
    refs = [JobRef(f"user-{ID}", ref.job_id) for ref in jobs(40)]
    gate = Gate(open=False)
    script = scripted(refs, gate)
    async with working(script, own_url, rate=500.0) as work:
        await work.watch.add(refs)
        await polled(script, *refs)
        await anyio.to_thread.run_sync(own_server.restart)
        gate.open = True
        async with open_list(own_url) as watch:
            await until_ended(watch)
            assert Counter(outcome.ref for outcome in await listed(watch)) == Counter(refs)
    assert "cannot be reached or used now" in caplog.text
    password = urlsplit(own_url).password
    assert password
    for secret in (password, ID, "sandbox-key", *(ref.job_id for ref in refs)):
        assert secret not in caplog.text


@pytest.mark.sample
async def test_outcomes_wait_for_the_database(own_server: Postgres, own_url: str) -> None:
    """What was answered while it was away is stored when it is back, and not asked for again."""
    refs = jobs(20)
    gate = Gate(open=False)
    script = scripted(refs, gate)
    tuning = Tuning(released_bucket_seconds=600.0)  # its leases end when the database goes away
    async with working(script, own_url, tuning=tuning) as work:
        await work.watch.add(refs)
        await polled(script, *refs)
        await anyio.to_thread.run_sync(own_server.stop)
        before = Counter(poll.body["job_id"] for poll in polls(script))
        gate.open = True
        await until(lambda: all(len(script.polls[ref.job_id]) > before[ref.job_id] for ref in refs))
        known = Counter(poll.body["job_id"] for poll in polls(script))
        gate.open = False
        await anyio.to_thread.run_sync(own_server.start)
        await until_ended(work.watch)
        assert len(await listed(work.watch)) == 20
    again = Counter(poll.body["job_id"] for poll in polls(script)) - known
    assert len(again) < 10  # a bucket may be read while its outcomes are stored


async def test_a_worker_waits_for_its_database(
    own_server: Postgres, own_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """If it is away when the worker begins."""
    script = scripted(jobs(1))
    async with open_list(own_url) as watch:
        await watch.add(jobs(1))
    async with script.client() as client, open_list(own_url) as watch:
        await anyio.to_thread.run_sync(own_server.stop)
        task = asyncio.create_task(Worker(client, watch, heartbeat=HEARTBEAT).run())
        await until(lambda: "cannot be reached" in caplog.text)
        await anyio.to_thread.run_sync(own_server.start)
        await until_ended(watch)
        task.cancel()
        await asyncio.wait([task])


async def test_connections_that_are_cut(postgres_url: str) -> None:
    """All of them, again and again: what was called out meanwhile is not missed."""
    refs = jobs(30)
    gate = Gate(open=False)
    script = scripted(refs, gate)
    async with working(script, postgres_url) as work:
        for begin in range(0, 30, 10):
            await execute(
                postgres_url,
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()",
            )
            async with open_list(postgres_url) as watch:
                await watch.add(refs[begin : begin + 10])
            await anyio.sleep(0.2)
        gate.open = True
        await until_ended(work.watch)


async def test_a_database_that_can_no_longer_be_used(postgres_url: str) -> None:
    """Waiting would not help: the worker ends with the error."""
    script = scripted(jobs(1))
    async with script.client() as client, open_list(postgres_url) as watch:
        await watch.add(jobs(1))
        task = asyncio.create_task(Worker(client, watch, heartbeat=HEARTBEAT).run())
        await until_ended(watch)
        await execute(postgres_url, "DROP TABLE watch")
        await watch.store.notify(ADDED)
        with pytest.raises(WatchListError, match="SQLSTATE 42P01"):
            await asyncio.wait_for(task, 120)
