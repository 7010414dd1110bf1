"""What many pending jobs cost in memory and CPU time, and how a batch behaves when the API limits the rate.

::

    python benchmarks/fleet.py [--quick] [memory|million|scheduler|growth|learning|limit|loss ...]

Every measurement runs in a process of its own.

- **memory**: 200,000 jobs are pending after one poll each, over httpx with a transport that answers from memory. Ids of
  36 characters. Resident memory over that of a client that has done the same for 1,000 jobs, per job.
- **million**: 1,000,000 jobs, submitted at random over the last day, ``Pace(max=3600)``; a stub in the place of the
  exchange, so that only scheduling costs. First all are polled once, then a minute of the steady state is measured.
- **scheduler**: 100,000 jobs with a pace of 1 s over the same stub, which is more than one core can do.
- **growth**: CPU time per poll with 1,000 and with 100,000 jobs pending, in alternating rounds; whole polls, signed and
  verified, with an httpx transport that answers from memory, and in a second line the scheduling alone.
- **learning**: what it costs a worker that its pace learns: the CPU time per poll of 1,000,000 pending jobs with a pace
  that has learned from 2,000 jobs, over that with ``Pace(max=3600)``, in alternating rounds over the same stub; and one
  write of what was learned, with 1,000 new jobs, into SQLite.
- **limit**: 3,000 jobs of two polls each, at ``rate=None``, from a server that refuses with 429 all above 200 polls/s.
- **loss**: 2,000 jobs, 100 polls/s wanted, answers after 20 ms, 8 minutes of virtual time, three seeds: polls
  that are lost at random, an API that allows 40 polls/s, a server that collapses above 60 polls/s, an outage. And the
  time of 200 and 2,000 jobs where one poll in ten is refused with ``Retry-After: 2``.

``--quick`` is for "memory" and "scheduler".

The exit code is 1 if a bar is missed.
"""

import argparse
import asyncio
import copy
import gc
import json
import logging
import math
import random
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from statistics import median

import anyio
import httpx
from attrs import evolve

import smilejobs
from server import API_KEY, PARTNER_ID, TIMESTAMP, pin, resident, server, signature
from smilejobs.engine import Engine
from smilejobs.events import Hooks, log_event
from smilejobs.exchange import Exchange
from smilejobs.model.jobs import Include
from smilejobs.notifications import Notifications
from smilejobs.polling.rules import Terms
from smilejobs.scheduler import ManyJobs
from smilejobs.testing import Script, Step, complete, pending, rate_limited, virtual_clock
from smilejobs.transport import Transport
from smilejobs.wire.protocol import HEADERS

PENDING = smilejobs.JobStatus(user_id="user", job_id="job", code="2302")
LOST = smilejobs.RequestError("lost")


def main() -> int:
    """Measure, print, and say by the exit code whether the bars hold."""
    parser = argparse.ArgumentParser(description="What many pending jobs cost.")
    parser.add_argument("which", nargs="*", choices=[*MEASURES, []], help="all by default")
    parser.add_argument("--quick", action="store_true", help="memory and scheduler alone")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        return 0 if MEASURES[options.which[0]]() else 1
    which = options.which or (["scheduler", "memory"] if options.quick else MEASURES)
    return max(subprocess.call([sys.executable, __file__, "--here", name]) for name in which)


def line(name: str, value: str, bar: str, *, met: bool) -> bool:
    """Print one line of the table."""
    print(f"{name:<58}{value:>18}   {bar} {'met' if met else 'MISSED'}", flush=True)
    return met


# --- Memory


class FromMemory(httpx.AsyncBaseTransport):
    """Says that the job is pending."""

    def __init__(self) -> None:
        self.polls = 0
        signed = {"timestamp": TIMESTAMP, "signature": signature(TIMESTAMP)}
        self.body = json.dumps(signed | {"job_complete": False, "job_success": False, "code": "2302"}).encode()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.polls += 1
        return httpx.Response(200, content=self.body)


def memory(jobs: int = 200_000) -> bool:
    """Resident memory per pending job."""

    async def pending(client: smilejobs.Client, transport: FromMemory, count: int) -> int:
        refs = (smilejobs.JobRef(str(uuid.uuid4()), str(uuid.uuid4())) for _ in range(count))
        polled = transport.polls + count
        pace = smilejobs.Pace(min=3600, max=3600)
        async with client.wait_many(refs, timeout=timedelta(days=1), pace=pace, max_pending=count):
            while transport.polls < polled:  # noqa: ASYNC110  # the other side has no event for it
                await asyncio.sleep(0.5)
            gc.collect()
            return resident()

    async def measure() -> float:
        transport = FromMemory()
        async with (
            httpx.AsyncClient(transport=transport) as http_client,
            smilejobs.Client(
                partner_id=PARTNER_ID, api_key=API_KEY, environment="sandbox", http_client=http_client, rate=None
            ) as client,
        ):
            base = await pending(client, transport, 1000)
            return (await pending(client, transport, jobs) - base) / (jobs - 1000)

    each = asyncio.run(measure())
    return line(f"memory per pending job, {jobs:,} jobs", f"{each:,.0f} bytes", "<= 832", met=each <= 832)


# --- Scheduling


class Stub:
    """Stands in the place of the exchange; every job is pending, at once."""

    longest_poll = 0.0
    rate = None
    api_has_answered = True

    def __init__(self) -> None:
        self.emit = Hooks([log_event])
        self.time = asyncio.get_running_loop().time
        self.polls = 0
        self.real: Exchange | None = None

    def check_usable(self) -> None:
        pass

    async def acquire(self) -> None:
        pass

    def release(self) -> None:
        pass

    async def poll_acquired(
        self, ref: smilejobs.JobRef, include: Include, *, wait: object, began: float, late: float
    ) -> smilejobs.JobStatus:
        self.polls += 1
        if self.real is not None:
            return await self.real.poll(ref, include)
        return PENDING


@asynccontextmanager
async def polling(refs: Iterator[smilejobs.JobRef], count: int, pace: smilejobs.PaceFunction) -> AsyncIterator[Stub]:
    """Poll jobs over the stub; the block begins when every job has been polled once."""
    stub = Stub()
    engine = Engine(
        exchange=stub,  # type: ignore[arg-type]  # it stands in the place of an Exchange
        notifications=Notifications(),
        now=partial(datetime.now, UTC),
        max_connections=100,
        attempts=1,
    )
    running = ManyJobs(
        engine,
        refs,
        Terms(timeout=None, pace=pace),
        include=Include(),
        concurrency=100,
        max_pending=count + 1,
        on_progress=None,
        deadline=None,
    )
    async with running.running():
        while stub.polls < count:  # noqa: ASYNC110  # the other side has no event for it
            await asyncio.sleep(0.1)
        yield stub


def refs(count: int, within: timedelta = timedelta(0)) -> Iterator[smilejobs.JobRef]:
    """Return so many jobs, submitted at random within that time."""
    now, draw = datetime.now(UTC), random.Random(0)
    for index in range(count):
        yield smilejobs.JobRef(f"user-{index}", f"job-{index}", now - draw.random() * within)


def million(jobs: int = 1_000_000, duration: float = 60.0) -> bool:
    """A million jobs: memory and CPU time."""
    pin(0)

    async def measure() -> tuple[float, float, float]:
        async with polling(refs(jobs, timedelta(days=1)), jobs, smilejobs.Pace(max=3600)) as stub:
            await asyncio.sleep(5)
            polls, cpu, start = stub.polls, time.process_time(), time.perf_counter()
            await asyncio.sleep(duration)
            taken = time.perf_counter() - start
            return (stub.polls - polls) / taken, (time.process_time() - cpu) / taken, resident() / 2**20

    speed, share, mebibytes = asyncio.run(measure())
    name = f"{jobs:,} pending over a day, {speed:,.0f} polls/s"
    met = line(f"{name}: memory", f"{mebibytes:,.0f} MiB", "<= 1,024", met=mebibytes <= 1024)
    return line(f"{name}: CPU", f"{share:.1%} of a core", "<= 10 %", met=share <= 0.1) and met


def scheduler(jobs: int = 100_000) -> bool:
    """Polls per second when scheduling is all there is to do."""
    pin(0)

    async def measure() -> float:
        async with polling(refs(jobs), jobs, lambda age, polls: 1.0) as stub:
            speeds = []
            for _ in range(9):
                polls, cpu = stub.polls, time.process_time()
                await asyncio.sleep(1)
                speeds.append((stub.polls - polls) / (time.process_time() - cpu))
            return median(speeds)

    speed = asyncio.run(measure())
    return line("scheduler alone, per second of CPU", f"{speed:,.0f} polls", ">= 60,000", met=speed >= 60_000)


def growth() -> bool:
    """How the cost of a poll grows with the number of pending jobs."""
    pin(0)

    async def cost(count: int, speed: float, *, whole: bool) -> float:
        spread = count / speed

        def pace(age: float, polls: int) -> float:
            return spread * (random.random() if polls == 1 else 1.0)

        async with httpx.AsyncClient(transport=FromMemory()) as http_client, polling(refs(count), count, pace) as stub:
            if whole:
                stub.real = exchange(http_client)
            await asyncio.sleep(1)
            polls, cpu = stub.polls, time.process_time()
            await asyncio.sleep(3)
            return (time.process_time() - cpu) / (stub.polls - polls)

    met = True
    for whole, speed in ((True, 1000.0), (False, 5000.0)):
        pairs = [
            (asyncio.run(cost(1000, speed, whole=whole)), asyncio.run(cost(100_000, speed, whole=whole)))
            for _ in range(5)
        ]
        few, many = (median(side) * 1e6 for side in zip(*pairs, strict=True))
        ratio = median(more / less for less, more in pairs)
        name = f"{'a poll' if whole else 'its scheduling'} at 1,000 pending {few:.0f} us, at 100,000 {many:.0f} us"
        if whole:
            met = line(name, f"ratio {ratio:.2f}", "<= 1.30", met=ratio <= 1.3)
        else:
            print(f"{name:<58}{f'ratio {ratio:.2f}':>18}   -")
    return met


def learning(jobs: int = 1_000_000, rounds: int = 3) -> bool:
    """What a pace that learns costs a worker."""
    from smilejobs.durable import WatchList
    from smilejobs.durable.learning import Learning

    pin(0)
    draw = random.Random(0)

    def teach(pace: smilejobs.LearnedPace, count: int) -> None:
        for _ in range(count):
            median_seconds = 5.0 if draw.random() < 0.9 else 1200.0
            duration = draw.lognormvariate(math.log(median_seconds), 0.8)
            pace.observe(pending_at=0.9 * duration, complete_at=1.05 * duration)

    async def cost(pace: smilejobs.PaceFunction) -> float:
        given = refs(jobs, timedelta(days=1))
        gc.collect()
        cpu = time.process_time()
        async with polling(given, jobs, pace) as stub:
            return (time.process_time() - cpu) / stub.polls

    async def write(folder: str) -> tuple[float, int]:
        async with WatchList.open(f"sqlite:///{folder}/jobs.db") as watch:
            worker = Learning(watch.store.learned, base, watch.store.retry, 60.0)
            teach(worker.pace, 2000)
            await worker.sync()
            taken = []
            for _ in range(5):
                teach(worker.pace, 1000)
                cpu = time.process_time()
                await worker.sync()
                taken.append(time.process_time() - cpu)
            return median(taken), len(worker.pace.to_json())

    base = smilejobs.LearnedPace(base=smilejobs.Pace(max=3600))
    with tempfile.TemporaryDirectory() as folder:
        seconds, size = asyncio.run(write(folder))
    print(f"{'a write with 1,000 new jobs, CPU; the row':<58}{f'{seconds * 1e3:.0f} ms, {size / 1e3:.0f} kB':>18}   -")
    teach(base, 2000)
    pairs = [(asyncio.run(cost(smilejobs.Pace(max=3600))), asyncio.run(cost(base))) for _ in range(rounds)]
    fixed, learned = (median(side) * 1e6 for side in zip(*pairs, strict=True))
    ratio = median(more / less for less, more in pairs)
    name = f"scheduling of a poll, {jobs:,} pending: {fixed:.1f} us, learned {learned:.1f} us"
    return line(name, f"ratio {ratio:.2f}", "<= 1.20", met=ratio <= 1.2)


def exchange(http_client: httpx.AsyncClient) -> Exchange:
    """Return what a client asks with."""
    transport = Transport(
        "https://api.test/v1/job_status",
        HEADERS,
        http_client=http_client,
        max_connections=100,
        request_timeout=30,
        max_response_bytes=2**24,
    )
    credentials = smilejobs.Credentials(PARTNER_ID, API_KEY)
    return Exchange(
        transport, credentials, emit=Hooks([log_event]), now=partial(datetime.now, UTC), max_connections=100, rate=None
    )


# --- An API that limits the rate


def limit(jobs: int = 3000, allowed: float = 200.0) -> bool:
    """Time and refusals when the API allows less than the client could do."""

    async def measure(base_url: str) -> tuple[float, float, bool]:
        seen: list[tuple[float, bool]] = []

        class Count(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                seen.append((time.perf_counter() - start, "RateLimitedError" in record.getMessage()))

        logger = logging.getLogger("smilejobs")
        logger.addHandler(Count())
        logger.setLevel(logging.DEBUG)
        refs = ((f"user-{index}", f"job-{index}") for index in range(jobs))
        async with smilejobs.Client(partner_id=PARTNER_ID, api_key=API_KEY, base_url=base_url, rate=None) as client:
            start = time.perf_counter()
            async with client.wait_many(refs, timeout=None) as outcomes:
                done = [outcome.status is not None async for outcome in outcomes]
            taken = time.perf_counter() - start
        late = [refused for at, refused in seen if at > 2]
        return taken * allowed / (2 * jobs), sum(late) / len(late), done == [True] * jobs

    met = True
    for retry_after in (None, 1):
        with server(polls=2, limit=allowed, retry_after=retry_after) as base_url:
            longer, refused, all_done = asyncio.run(measure(base_url))
        name = f"an API of {allowed:.0f} polls/s, {'no ' if retry_after is None else ''}Retry-After"
        met = line(f"{name}: 429 after 2 s", f"{refused:.1%}", "<= 5 %", met=refused <= 0.05 and all_done) and met
        met = line(f"{name}: time", f"{longer:.2f} x", "<= 1.40", met=longer <= 1.4) and met
    return met


# --- Loss, limits and outages, in virtual time


def loses(share: float, seed: int) -> Callable[[float], bool]:
    """Return what loses polls at random."""
    draw = random.Random(seed)
    return lambda now: draw.random() >= share


def allows(per_second: float) -> Callable[[float], bool]:
    """Return a token bucket for one poll."""
    free_at = -1.0

    def is_good(now: float) -> bool:
        nonlocal free_at
        if now < free_at:
            return False
        free_at = max(free_at, now - 1 / per_second) + 1 / per_second
        return True

    return is_good


def collapses(above: float, below: float) -> Callable[[float], bool]:
    """Return a server of which nothing comes back above a speed, until the speed is below the other one."""
    speed, at, is_down = 0.0, 0.0, False

    def is_good(now: float) -> bool:
        nonlocal speed, at, is_down
        speed, at = speed * math.exp(at - now) + 1, now
        is_down = speed > below if is_down else speed > above
        return not is_down

    return is_good


def polls_per_second(
    is_good: Callable[[float], bool], bad: smilejobs.SmileJobsError, seconds: float = 480.0, jobs: int = 2000
) -> Counter[bool]:
    """Return the good and the other polls per second of a batch that is left after so many seconds.

    A stub in the place of the exchange answers after 20 ms, so that only the scheduler, its throttle and the rate
    limiter cost CPU time.

    Raises:
        TooManyFailuresError: The batch has given up before.
    """
    counts = Counter[bool]()

    async def poll(ref: smilejobs.JobRef, include: Include, **_: object) -> smilejobs.JobStatus:
        good = is_good(anyio.current_time())
        await anyio.sleep(0.02)
        counts[good] += 1
        if good:
            return PENDING
        raise copy.copy(bad)

    async def run() -> None:
        refs = [smilejobs.JobRef("user-1", f"job-{index}") for index in range(jobs)]
        async with Script({}).client() as client:
            client.engine.exchange.poll_acquired = poll  # type: ignore[method-assign]  # see above
            with anyio.move_on_after(seconds):
                async with client.wait_many(refs, timeout=None, pace=smilejobs.Pace(min=1, max=1)) as outcomes:
                    async for _ in outcomes:
                        pass

    backend, options = virtual_clock("asyncio")
    anyio.run(run, backend=backend, backend_options=options)
    return Counter({good: round(count / seconds, 1) for good, count in counts.items()})


def refused(jobs: int, share: float) -> tuple[float, int]:
    """Return the seconds that jobs of 2 s take where a share of polls is refused, and how many were not complete."""
    draw = random.Random(1)
    no = evolve(rate_limited(2), delay=0.02)

    def steps() -> Iterator[Step]:
        end = None
        while True:
            if draw.random() < share:
                yield no
                continue
            end = anyio.current_time() + 2 if end is None else end
            yield complete(delay=0.02) if anyio.current_time() >= end else pending(delay=0.02)

    async def run() -> tuple[float, int]:
        script = Script({f"job-{index}": steps() for index in range(jobs)})
        async with script.client() as client:
            begun = anyio.current_time()
            refs = [smilejobs.JobRef("user-1", f"job-{index}") for index in range(jobs)]
            async with client.wait_many(refs, timeout=30) as outcomes:
                failed = [outcome async for outcome in outcomes if outcome.error is not None]
            return anyio.current_time() - begun, len(failed)

    backend, options = virtual_clock("asyncio")
    return anyio.run(run, backend=backend, backend_options=options)


def loss() -> bool:
    """The speed of a batch where polls are lost or refused."""
    logging.getLogger("smilejobs").setLevel(logging.CRITICAL)
    met = True
    for share, least in ((0.05, 90), (0.1, 80), (0.2, 50), (0.4, 15)):
        speed = min(polls_per_second(loses(share, seed), LOST).total() for seed in range(3))
        met = line(f"{share:.0%} lost at random", f"{speed:.1f} polls/s", f">= {least}", met=speed >= least) and met
    for hint in (None, 1):
        counts = polls_per_second(allows(40), smilejobs.RateLimitedError("429", http_status=429, retry_after=hint))
        name = f"an API of 40 polls/s, {'no ' if hint is None else ''}Retry-After"
        share = counts[False] / counts.total()
        met = line(f"{name}: refused", f"{share:.1%}", "<= 10 %", met=share <= 0.1) and met
        met = line(f"{name}: good", f"{counts[True]:.1f} polls/s", ">= 28", met=counts[True] >= 28) and met
    for below in (60.0, 20.0):
        counts = polls_per_second(collapses(60, below), LOST)
        name = f"a server that collapses above 60/s, until below {below:.0f}/s"
        good, lost = f"{counts[True]:.1f} good/s", f"{counts[False]:.1f} lost/s"
        met = line(f"{name}", good, ">= 20", met=counts[True] >= 20) and met
        met = line(f"{name}", lost, "<= 5", met=counts[False] <= 5) and met
    start = None

    def is_over(now: float) -> bool:
        """An outage from the second minute to the fourth."""
        nonlocal start
        start = now if start is None else start
        is_good = not 60 <= now - start < 180
        during[is_good] += 1
        return is_good

    during = Counter[bool]()
    counts = polls_per_second(is_over, LOST)
    met = line("an outage of 2 minutes: polls in it", f"{during[False]}", "<= 200", met=during[False] <= 200) and met
    met = line("the same: good polls in 8 minutes", f"{counts[True]:.1f}/s", ">= 60", met=counts[True] >= 60) and met
    for jobs, longest in ((200, 60.0), (2000, 100.0)):
        calm, _ = refused(jobs, 0.0)
        taken, failed = refused(jobs, 0.1)
        name = f"{jobs:,} jobs, a tenth refused (calm: {calm:.1f} s)"
        met = line(name, f"{taken:.1f} s", f"<= {longest:.0f} s", met=taken <= longest and not failed) and met
    return met


MEASURES: dict[str, Callable[[], bool]] = {
    "memory": memory,
    "scheduler": scheduler,
    "growth": growth,
    "learning": learning,
    "limit": limit,
    "loss": loss,
    "million": million,
}

if __name__ == "__main__":
    sys.exit(main())
