"""Workers of a watch list that are killed, stopped and sent away: each job has exactly one outcome all the same.

``nox -s crash_durable``; CRASH_JOBS makes it longer or shorter.
"""

import json
import os
import random
import signal
import time
import zlib
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import anyio
import pytest
from attrs import define, field

from smilejobs import Credentials
from smilejobs.durable import WatchList
from smilejobs.wire.signature import format_timestamp, sign
from tests.helpers.servers import Server, Stream, http, serve
from tests.helpers.workers import Workers

JOBS = int(os.environ.get("CRASH_JOBS", "5000"))
GROUPS = 100
"""The jobs are added in groups, while workers die."""

CREDENTIALS = Credentials("085", "sandbox-key")

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@define
class Api:
    """Knows every job, and says that it is complete after a time drawn from its id, counted from its first poll.

    Args:
        least: In seconds.
        most: In seconds.
    """

    least: float = 1.0
    most: float = 5.0
    server: Server = field(init=False)
    ends: dict[str, float] = field(init=False, factory=dict)
    polls: list[tuple[float, int, str]] = field(init=False, factory=list)
    """The instant, the number of the worker, the job."""

    @asynccontextmanager
    async def serving(self) -> AsyncGenerator[str, None]:
        """Serve while the block runs, and give the base URL."""
        async with serve(self) as self.server:
            yield self.server.url()

    async def __call__(self, stream: Stream, body: bytes) -> None:
        worker = int(self.server.heads[-1].split(b"/")[1])
        await stream.send(http(self.answer(worker, json.loads(body))))

    def answer(self, worker: int, asked: dict[str, str]) -> bytes:
        now, job_id = time.monotonic(), asked["job_id"]
        self.polls.append((now, worker, job_id))
        lasts = self.least + zlib.crc32(job_id.encode()) / 2**32 * (self.most - self.least)
        timestamp = format_timestamp(datetime.now(UTC))
        signed = {"timestamp": timestamp, "signature": sign(CREDENTIALS, timestamp), "code": "2302"}
        if now < self.ends.setdefault(job_id, now + lasts):
            return json.dumps({**signed, "job_complete": False}).encode()
        params = {"user_id": asked["user_id"], "job_id": job_id, "job_type": 1}
        result = {"ResultCode": "1210", "SmileJobID": "0000000001", "PartnerParams": params}
        return json.dumps({**signed, "job_complete": True, "job_success": True, "result": result}).encode()

    def pollers(self) -> dict[str, int]:
        """Who polled each pending job last."""
        now = time.monotonic()
        return {job_id: worker for _, worker, job_id in self.polls if now < self.ends[job_id]}

    async def polled_by_others(self, jobs: set[str], than: int) -> float:
        """Return the seconds until the last of some jobs has been polled by others *than* this worker."""
        start, seen = time.monotonic(), len(self.polls)
        missing = set(jobs)
        while missing:
            await anyio.sleep(0.05)
            new, seen = self.polls[seen:], len(self.polls)
            missing.difference_update(job_id for _, worker, job_id in new if worker != than)
        return time.monotonic() - start


def jobs(group: str, count: int) -> list[tuple[str, str]]:
    return [(f"user-{group}-{index}", f"job-{group}-{index}") for index in range(count)]


def workers(url: str, base_url: str, *, heartbeat: float = 5.0, pace: float | None = None) -> Workers:
    partner_id, api_key = CREDENTIALS.partner_id, CREDENTIALS.api_key
    return Workers(url, base_url, partner_id=partner_id, api_key=api_key, heartbeat=heartbeat, pace=pace)


@asynccontextmanager
async def at_work(
    url: str, api: Api, count: int, *, size: int, heartbeat: float
) -> AsyncGenerator[tuple[WatchList, Workers], None]:
    """Run *count* workers that have polled each of *size* jobs at least once."""
    with anyio.fail_after(120):
        async with api.serving() as base_url, WatchList.open(url) as watch:
            with workers(url, base_url, heartbeat=heartbeat, pace=1.0) as them:
                them.start(count)
                await anyio.sleep(2 * count)
                await watch.add(jobs("early", size))
                while len(api.ends) < size:  # noqa: ASYNC110  # the workers are other processes
                    await anyio.sleep(0.1)
                await anyio.sleep(2)
                yield watch, them


async def follow(watch: WatchList, count: int) -> list[str]:
    """Return the cursors of so many outcomes, of as many jobs, as they come."""
    read: Counter[str] = Counter()
    cursors: list[str] = []
    async for outcome in watch.outcomes(follow=True):
        assert outcome.state == "complete"
        assert outcome.result_code == "1210"
        read[outcome.ref.job_id] += 1
        cursors.append(outcome.cursor)
        if len(cursors) == count:
            break
    assert max(read.values()) == 1
    assert len(read) == count
    return cursors


async def check(watch: WatchList, count: int, cursors: list[str]) -> None:
    """Nothing is lost, nothing doubled, and nothing has changed since it was read."""
    await anyio.sleep(3)  # who was late has stored what he knew
    counts = await watch.counts()
    assert (counts.pending, counts.complete, counts.failed, counts.expired) == (0, count, 0, 0)
    assert [outcome.cursor async for outcome in watch.outcomes()] == cursors
    assert len(set(cursors)) == count


def say(text: str) -> None:
    print(f"\n{text}")  # noqa: T201  # the figures of the run, shown by pytest -s


async def test_workers_are_killed(postgres_url: str) -> None:
    """One of three is killed every 3 s, and another started: one outcome for each job, in the order they are read."""
    api, kills = Api(), 0

    async def kill(them: Workers) -> None:
        nonlocal kills
        while True:
            await anyio.sleep(3)
            them.kill(random.choice(them.running()))
            them.start()
            kills += 1

    async def add(watch: WatchList) -> None:
        for group in range(GROUPS):
            await watch.add(jobs(f"{group}", JOBS // GROUPS))
            await anyio.sleep(0.3)

    start = time.monotonic()
    with anyio.fail_after(600 + JOBS / 20):
        async with api.serving() as base_url, WatchList.open(postgres_url) as watch:
            with workers(postgres_url, base_url) as them:
                them.start(3)
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(add, watch)
                    tasks.start_soon(kill, them)
                    cursors = await follow(watch, JOBS)
                    tasks.cancel_scope.cancel()
                taken = time.monotonic() - start
                await check(watch, JOBS, cursors)
    say(f"{JOBS} jobs, {kills} kills, {len(api.polls)} polls, {taken:.0f} s")
    assert kills >= GROUPS * 0.3 // 3 - 1


async def test_a_worker_sleeps_longer_than_its_heartbeat(postgres_url: str) -> None:
    """It is taken for dead, its jobs are polled by others; then it wakes up, and does no harm."""
    api, count, heartbeat = Api(15, 25), 600, 2.0
    async with at_work(postgres_url, api, 3, size=count, heartbeat=heartbeat) as (watch, them):
        pollers = api.pollers()
        sleeper, held = Counter(pollers.values()).most_common(1)[0]
        them.processes[sleeper].send_signal(signal.SIGSTOP)
        taken = await api.polled_by_others({job for job in pollers if pollers[job] == sleeper}, sleeper)
        await anyio.sleep(2)
        them.processes[sleeper].send_signal(signal.SIGCONT)
        woken = time.monotonic()
        cursors = await follow(watch, count)
        await check(watch, count, cursors)
        assert sleeper in them.running()
        # Its buckets are others' now; what is added goes to whoever is there, and it is one of them.
        await watch.add(jobs("later", 100))
        await follow(watch, count + 100)
    polls = Counter(worker for at, worker, _ in api.polls if at > woken)
    say(f"asleep with {held} jobs: polled by others after {taken:.1f} s; polls since it woke: {dict(polls)}")
    assert taken <= heartbeat + 5


async def test_a_worker_is_sent_away(postgres_url: str) -> None:
    """A SIGTERM ends it within 10 s, and its jobs are polled by another at once: nobody waits for a heartbeat."""
    api, count, heartbeat = Api(20, 30), 600, 10.0
    async with at_work(postgres_url, api, 2, size=count, heartbeat=heartbeat) as (watch, them):
        pollers = api.pollers()
        assert len(set(pollers.values())) == 2
        start = time.monotonic()
        them.processes[0].terminate()
        taken = await api.polled_by_others({job for job in pollers if pollers[job] == 0}, 0)
        code = await anyio.to_thread.run_sync(them.processes[0].wait)
        gone = time.monotonic() - start
        cursors = await follow(watch, count)
        await check(watch, count, cursors)
    say(f"sent away: jobs polled by the other after {taken:.1f} s, gone within {gone:.1f} s")
    assert code == 0
    assert gone <= 10
    assert taken < heartbeat - 1


async def test_the_only_worker_is_killed(tmp_path: Path) -> None:
    """On SQLite: killed and started 20 times, and one outcome for each job."""
    url, api, each = f"sqlite:///{tmp_path}/jobs.db", Api(), 100
    with anyio.fail_after(300):
        async with api.serving() as base_url, WatchList.open(url) as watch:
            with workers(url, base_url) as them:
                for turn in range(20):
                    them.start()
                    await watch.add(jobs(f"{turn}", each))
                    await anyio.sleep(random.uniform(1, 3))
                    assert them.running() == [turn]
                    them.kill(turn)
                them.start()
                cursors = await follow(watch, 20 * each)
                await check(watch, 20 * each, cursors)
    polls = Counter(worker for _, worker, _ in api.polls)
    say(f"polls of each worker: {list(polls.values())}")
    assert len(polls) > 10
