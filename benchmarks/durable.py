"""What a watch list costs, how fast it is, and how soon it goes on when something dies.

::

    python benchmarks/durable.py                  # everything
    python benchmarks/durable.py rows takeover    # some of it

Workers are processes of their own, and so is the server; PostgreSQL is a real one, with fsync on. They all share the
cores of this machine, so its PostgreSQL takes time from the workers that it would not take from another host.

- **throughput**: jobs that are complete at their first poll, and jobs that take four, as jobs of a few seconds do; two
  workers on PostgreSQL against `wait_many` in two processes, and one on SQLite against one process. Alternating rounds;
  everybody has been warmed up; the ratio counts.
- **rows**: a million jobs (``--refs``) are added; the rows and indexes beside the ids; then the CPU time of PostgreSQL
  while a worker holds all of them, with one poll per second, and that of the worker.
- **rate**: three workers whose clients have the same rate; the instants at which the server is asked.
- **restart**: PostgreSQL is stopped and started under load; the longest time for which a job was not polled.
- **takeover**: the worker with the most jobs is killed; until the last of its jobs is polled by another.
- **late**: a job is added while workers are at work; until its first poll.

The exit code is 1 if a bar is missed.
"""

import argparse
import asyncio
import multiprocessing
import os
import random
import subprocess
import sys
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Generator, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from statistics import median, quantiles
from tempfile import TemporaryDirectory
from typing import TextIO

import psutil
import psycopg
from attrs import define, field, frozen

sys.path.append(str(Path(__file__).parents[1]))  # for tests.helpers

import smilejobs
from server import API_KEY, PARTNER_ID, server
from smilejobs.durable import WatchList
from tests.helpers.postgres import Postgres, empty_database
from tests.helpers.workers import Workers

PRODUCTION = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on"}
FOREVER = (1e6, 1e6)
"""Jobs that last longer than any measurement."""

Job = tuple[str, str]


def main() -> int:
    """Measure, print, and say by the exit code whether the bars hold."""
    parser = argparse.ArgumentParser(description="What a watch list costs.")
    parser.add_argument("which", nargs="*", choices=[*MEASURES, []], help="all by default")
    parser.add_argument("--refs", type=int, default=1_000_000, help='jobs for "rows" (default: 1,000,000)')
    parser.add_argument("--rounds", type=int, default=5, help='of "throughput" and "takeover" (default: 5)')
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        return 0 if asyncio.run(MEASURES[options.which[0]](options)) else 1
    command = [sys.executable, __file__, "--here", f"--refs={options.refs}", f"--rounds={options.rounds}"]
    return max(subprocess.call([*command, name]) for name in options.which or MEASURES)


def line(name: str, value: str, bar: str, *, met: bool) -> bool:
    """Print one line of the table."""
    print(f"{name:<72}{value:>24}   {bar} {'met' if met else 'MISSED'}", flush=True)
    return met


def note(name: str, value: str) -> None:
    """Print one line that has no bar."""
    print(f"{name:<72}{value:>24}   -", flush=True)


# --- What everybody needs


@frozen
class Poll:
    """One poll, as the server saw it."""

    at: float
    worker: int
    job_id: str


@define
class Api:
    """The server, and what it was asked."""

    base_url: str
    _log: TextIO
    _polls: list[Poll] = field(factory=list)
    _rest: str = ""

    def polls(self) -> list[Poll]:
        """All so far, in order."""
        *whole, self._rest = (self._rest + self._log.read()).split("\n")
        for line in whole:
            at, path, job_id = line.split(" ")
            self._polls.append(Poll(float(at), int(path.split("/")[1]), job_id))
        return self._polls


@contextmanager
def api(*, polls: int = 1, lasts: tuple[float, float] | None = None) -> Iterator[Api]:
    """Run the server on a core of its own; all else may use every core, the server's too."""
    cores = os.sched_getaffinity(0)
    with TemporaryDirectory() as folder:
        log = Path(folder, "polls")
        with server(polls=polls, lasts=lasts, log=log) as base_url:
            os.sched_setaffinity(0, cores)
            with log.open() as lines:
                yield Api(base_url, lines)


@contextmanager
def list_on_postgres() -> Generator[tuple[Postgres, str], None, None]:
    """An empty database of a PostgreSQL with the settings of production."""
    with Postgres(settings=PRODUCTION) as postgres, empty_database(postgres.url("postgres")) as url:
        yield postgres, url


@contextmanager
def list_on_sqlite() -> Iterator[str]:
    """A file that is not there yet."""
    with TemporaryDirectory() as folder:
        yield f"sqlite:///{folder}/jobs.db"


def workers(
    url: str,
    base_url: str,
    *,
    rate: float | None = None,
    pace: float | None = None,
    lease_duration: float = 60.0,
) -> Workers:
    """Workers with the credentials of the server."""
    return Workers(
        url, base_url, partner_id=PARTNER_ID, api_key=API_KEY, rate=rate, pace=pace, lease_duration=lease_duration
    )


def jobs(name: str, count: int) -> list[Job]:
    """The ids of so many jobs."""
    return [(f"user-{name}-{index}", f"job-{name}-{index}") for index in range(count)]


async def all_ended(watch: WatchList) -> None:
    """Return when nothing is pending; fail if that takes two minutes."""
    async with asyncio.timeout(120):
        while (await watch.counts()).pending:  # noqa: ASYNC110  # the database has no event for it
            await asyncio.sleep(0.25)  # counting takes time from the workers


async def until(condition: Callable[[], bool]) -> None:
    """Return when something is so; fail if it is not for a minute."""
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110  # the other side is another process
            await asyncio.sleep(0.05)


# --- Throughput

PACE = 0.1
"""Between the polls of a job, in seconds, so that nobody waits for jobs."""


async def throughput(options: argparse.Namespace) -> bool:
    """Polls per second, against `wait_many`."""
    met = True
    for polls, count in ((1, 6000), (4, 2500)):
        with api(polls=polls) as served:
            for name, processes in (("SQLite, 1 worker", 1), ("PostgreSQL, 2 workers", 2)):
                pairs = [
                    (
                        await by_workers(served, f"{polls}-{processes}-{turn}", count * processes, processes),
                        by_wait_many(served, f"{polls}-{processes}-{turn}", count, processes),
                    )
                    for turn in range(max(options.rounds, 5))
                ]
                ours, theirs = (median(side) * polls for side in zip(*pairs, strict=True))
                low, ratio, high = quantiles([mine / other for mine, other in pairs], n=4)
                what = f"{name}, jobs of {polls}: {ours:,.0f} polls/s against {theirs:,.0f}"
                met = line(what, f"{ratio:.2f} ({low:.2f} to {high:.2f})", ">= 0.80", met=ratio >= 0.8) and met
    return met


async def by_workers(served: Api, name: str, count: int, processes: int) -> float:
    """Jobs per second of workers that have begun."""
    if processes == 1:
        with list_on_sqlite() as url:
            return await timed(url, served, name, count, processes)
    with list_on_postgres() as (_, url):
        return await timed(url, served, name, count, processes)


async def timed(url: str, served: Api, name: str, count: int, processes: int) -> float:
    """Add jobs, and see how long it takes until all have ended."""
    async with WatchList.open(url) as watch:
        with workers(url, served.base_url, pace=PACE) as them:
            them.start(processes)
            await asyncio.sleep(2)
            for part in range(3):
                await watch.add(jobs(f"warm-{part}-{name}", 500))
                await all_ended(watch)
            start = datetime.now(UTC)
            await watch.add(jobs(f"workers-{name}", count))
            await all_ended(watch)
            outcomes = [outcome async for outcome in watch.outcomes()]
    assert [outcome.state for outcome in outcomes] == ["complete"] * (count + 1500)
    return count / (outcomes[-1].ended_at - start).total_seconds()


def by_wait_many(served: Api, name: str, count: int, processes: int) -> float:
    """Jobs per second of processes that wait for *count* jobs each."""
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:

        def run(kind: str, each: int) -> float:
            parts = [pool.submit(waiting, served.base_url, f"{kind}-{name}-{part}", each) for part in range(processes)]
            spans = [part.result() for part in parts]
            return max(end for _, end in spans) - min(start for start, _ in spans)

        run("warm", 500)
        return processes * count / run("waits", count)


def waiting(base_url: str, name: str, count: int) -> tuple[float, float]:
    """Wait for jobs, in a process of its own; return the instants of the beginning and the end."""

    async def wait() -> tuple[float, float]:
        start = time.monotonic()
        async with smilejobs.Client(partner_id=PARTNER_ID, api_key=API_KEY, base_url=base_url, rate=None) as client:
            pace: smilejobs.PaceFunction = lambda age, polls: PACE  # noqa: E731  # a worker's is written like this
            async with client.wait_many(jobs(name, count), timeout=None, pace=pace) as outcomes:
                done = [outcome.status is not None async for outcome in outcomes]
        assert done == [True] * count
        return start, time.monotonic()

    return asyncio.run(wait())


# --- A million rows

STATEMENT = """
SELECT pg_total_relation_size('smilejobs.watch'), sum(octet_length(user_id) + octet_length(job_id))::bigint
FROM smilejobs.watch
"""


async def rows(options: argparse.Namespace) -> bool:
    """How fast jobs are added, what they take, and what it costs to have them."""
    count = options.refs
    draw = random.Random(0)
    ids = (str(uuid.UUID(int=draw.getrandbits(128), version=4)) for _ in range(2 * count))
    refs = [smilejobs.JobRef(user_id, job_id) for user_id, job_id in zip(ids, ids, strict=True)]
    with list_on_postgres() as (postgres, url), api(lasts=FOREVER) as served:
        async with WatchList.open(url) as watch:
            start = time.perf_counter()
            await watch.add(refs, deadline=None)
            speed = count / (time.perf_counter() - start)
        met = line(f"{count:,} jobs are added", f"{speed:,.0f}/s", ">= 20,000", met=speed >= 20_000)
        with psycopg.connect(url, autocommit=True) as connection:
            row = connection.execute(STATEMENT).fetchone()
            assert row is not None
            each = (row[0] - row[1]) / count
            met = line("a pending job, beside its ids", f"{each:.0f} bytes", "<= 300", met=each <= 300) and met
            connection.execute("VACUUM (ANALYZE) smilejobs.watch")  # autovacuum would, once, while we measure
            connection.execute("CHECKPOINT")
        with workers(url, served.base_url, rate=1.0, pace=1e7) as them:
            them.start()
            worker = psutil.Process(them.processes[0].pid)
            start = time.perf_counter()
            await settled(worker)
            note("until one worker holds them all", f"{time.perf_counter() - start - 10:.0f} s")
            polls, database, own = len(served.polls()), postgres.cpu_seconds(), cpu(worker)
            start = time.perf_counter()
            await asyncio.sleep(150)  # two leases, and some time
            taken = time.perf_counter() - start
            share = (postgres.cpu_seconds() - database) / taken
            busy = (cpu(worker) - own) / taken
            speed = (len(served.polls()) - polls) / taken
            memory = worker.memory_info().rss / 2**20
    name = f"{count:,} jobs with one worker, {speed:.1f} polls/s"
    met = line(f"{name}: CPU of PostgreSQL", f"{share:.2%} of a core", "<= 2 %", met=share <= 0.02) and met
    note(f"{name}: CPU of the worker", f"{busy:.2%} of a core")
    note(f"{name}: memory of the worker", f"{memory:,.0f} MiB")
    return met


def cpu(process: psutil.Process) -> float:
    """Seconds of CPU time."""
    times = process.cpu_times()
    return times.user + times.system


async def settled(process: psutil.Process) -> None:
    """Return when a process has hardly done anything for 10 s."""
    seen = deque([cpu(process)], maxlen=11)
    while len(seen) < 11 or seen[-1] - seen[0] > 1:
        await asyncio.sleep(1)
        seen.append(cpu(process))


# --- One rate


async def rate(options: argparse.Namespace) -> bool:
    """The polls per second of three workers with one rate."""
    with list_on_postgres() as (_, url), api(lasts=FOREVER) as served:
        async with WatchList.open(url) as watch:
            await watch.add(jobs("rate", 3000))
        with workers(url, served.base_url, rate=200.0, pace=1.0) as them:
            them.start(3)
            await until(lambda: len(served.polls()) > 400)
            await asyncio.sleep(21)
            polls = served.polls()
    instants = [poll.at for poll in polls]
    most = most_in_a_second(instants)
    steady = [at for at in instants if instants[400] <= at < instants[400] + 20]
    average = len(steady) / 20
    parts = Counter(poll.worker for poll in polls)
    assert len(parts) == 3
    met = line("200 polls/s over 3 workers: most in any second", f"{most}", "<= 220", met=most <= 220)
    return line("the same: average of 20 s", f"{average:.1f}/s", ">= 190", met=average >= 190) and met


def most_in_a_second(instants: list[float]) -> int:
    """Return the most of the instants, which are in order, that lie within one second."""
    window: deque[float] = deque()
    most = 0
    for at in instants:
        window.append(at)
        while at - window[0] >= 1:
            window.popleft()
        most = max(most, len(window))
    return most


# --- What dies


async def restart(options: argparse.Namespace) -> bool:
    """PostgreSQL is restarted under load."""
    count, pace = 400, 2.0
    with list_on_postgres() as (postgres, url), api(lasts=(20, 40)) as served:
        async with WatchList.open(url) as watch:
            await watch.add(jobs("restart", count))
        with workers(url, served.base_url, rate=300.0, pace=pace) as them:
            them.start(3)
            await until(lambda: len(served.polls()) > count)
            await asyncio.sleep(8)
            start = time.perf_counter()
            await asyncio.to_thread(postgres.restart)
            down = time.perf_counter() - start
            async with WatchList.open(url) as watch:
                await all_ended(watch)
                places = [outcome.cursor async for outcome in watch.outcomes()]
            left = len(them.running())
        by_job: dict[str, list[float]] = {}
        for poll in served.polls():
            by_job.setdefault(poll.job_id, []).append(poll.at)
    longest = max(after - before for instants in by_job.values() for before, after in pairwise(instants)) - pace
    all_there = len(places) == len(set(places)) == count
    met = line("PostgreSQL restarts: outcomes", f"{len(places)} of {count}", "all", met=all_there)
    met = line("the same: workers that still run", f"{left} of 3", "all", met=left == 3) and met
    return (
        line(
            f"the same, away for {down:.1f} s: a job is not polled when due",
            f"{longest:.1f} s",
            "<= 15",
            met=longest <= 15,
        )
        and met
    )


async def takeover(options: argparse.Namespace) -> bool:
    """The worker with the most jobs is killed, again and again."""
    pace, count = 2.0, 900
    times: list[float] = []
    parts: list[int] = []
    with list_on_postgres() as (_, url), api(lasts=FOREVER) as served:
        async with WatchList.open(url) as watch:
            await watch.add(jobs("takeover", count))
        with workers(url, served.base_url, pace=pace) as them:
            them.start(3)
            await until(lambda: len({poll.job_id for poll in served.polls()}) == count)
            for _ in range(max(options.rounds, 3)):
                await asyncio.sleep(random.uniform(3 * pace, 5 * pace))
                last = {poll.job_id: poll.worker for poll in served.polls()}
                dead, held = Counter(last.values()).most_common(1)[0]
                them.kill(dead)
                killed = time.monotonic()
                before = len(served.polls())
                orphans = {job_id for job_id, worker in last.items() if worker == dead}
                them.start()
                firsts: dict[str, float] = {}
                async with asyncio.timeout(60):
                    while firsts.keys() != orphans:
                        await asyncio.sleep(0.2)
                        polls = served.polls()
                        for poll in polls[before:]:
                            if poll.job_id in orphans and poll.worker != dead:
                                firsts.setdefault(poll.job_id, poll.at)
                        before = len(polls)
                times.append(max(firsts.values()) - killed)
                parts.append(held)
    shown = f"{median(times):.1f} s, at most {max(times):.1f}"
    name = f"kill -9 of 1 of 3 workers, heartbeat 5 s, {min(parts)} to {max(parts)} jobs: all polled again"
    return line(name, shown, "<= 10", met=max(times) <= 10)


# --- What is added


async def late(options: argparse.Namespace) -> bool:
    """Jobs that are added while workers are at work."""
    met = True
    with api(lasts=FOREVER) as served:
        with list_on_sqlite() as url:
            met = await added_late(url, served, "SQLite, 1 worker", 1)
        with list_on_postgres() as (_, url):
            met = await added_late(url, served, "PostgreSQL, 2 workers", 2) and met
    return met


async def added_late(url: str, served: Api, name: str, processes: int) -> bool:
    """Seconds to the first poll."""
    added: dict[str, float] = {}
    async with WatchList.open(url) as watch:
        with workers(url, served.base_url, pace=2.0) as them:
            await watch.add(jobs(f"before-{processes}", 500))
            them.start(processes)
            await asyncio.sleep(8)
            for index in range(40):
                await asyncio.sleep(random.uniform(0.1, 0.6))
                job = (f"user-{index}", f"late-{processes}-{index}")
                added[job[1]] = time.monotonic()
                await watch.add([job])
            await asyncio.sleep(5)
    seconds = {poll.job_id: poll.at - added[poll.job_id] for poll in reversed(served.polls()) if poll.job_id in added}
    assert len(seconds) == len(added)
    middle = median(seconds.values())
    shown = f"{middle:.3f} s, at most {max(seconds.values()):.2f}"
    return line(f"{name}: a job is added, to its first poll", shown, "<= 1", met=middle <= 1)


MEASURES: dict[str, Callable[[argparse.Namespace], Coroutine[None, None, bool]]] = {
    "throughput": throughput,
    "rows": rows,
    "rate": rate,
    "restart": restart,
    "takeover": takeover,
    "late": late,
}

if __name__ == "__main__":
    sys.exit(main())
