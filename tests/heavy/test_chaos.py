"""Connections that are cut, delayed, reset and frozen at random: between a client and the API, and before a database.

``nox -s chaos``; CHAOS_JOBS makes it shorter, CHAOS_SEED draws other faults.
"""

import itertools
import os
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import get_args
from urllib.parse import urlsplit

import anyio
import pytest
from attrs import define, evolve, field

from smilejobs import Client, JobRef, Outcome, Pace, Verdict
from smilejobs.clock import utcnow
from smilejobs.durable import WatchList, WatchOutcome, Worker
from smilejobs.errors import WatchListError
from smilejobs.events import Event, PollFinished
from smilejobs.sandbox import Lognormal, Sandbox
from smilejobs.testing import Script, complete, pending
from smilejobs.transport import TransportName
from tests.helpers.fault_proxy import Fault, FaultProxy, Faults, fault_proxy
from tests.helpers.watching import HEARTBEAT

JOBS = int(os.environ.get("CHAOS_JOBS", "3000"))
SEED = int(os.environ.get("CHAOS_SEED", "0"))
MIXED = Faults(cut=0.2, delay=0.2, reset=0.2, freeze=0.2)
CHOICES = {
    "calm": Faults(),
    "cut": Faults(cut=0.5),
    "delay": Faults(delay=0.5),
    "reset": Faults(reset=0.5),
    "freeze": Faults(freeze=0.5),
    "mixed": MIXED,
}
MOST_TIMES_WITHOUT_FAULTS = 3.0
OUTCOMES = {"approved": Verdict.APPROVED, "rejected": Verdict.REJECTED, "error": Verdict.ERROR}

GROUPS = 10
"""The jobs of a watch list are added in groups, a second apart: its connections must be used for some time."""

DATABASE_FREEZE_SECONDS = 8.0
"""Longer than a worker waits for a connection, or for a statement about a few rows."""

PATIENCE_SECONDS = 900.0

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@define
class Stalls:
    """Measures the longest time for which nothing has come of a job: no answer to a poll, and no outcome."""

    longest: float = 0.0
    _last: dict[JobRef, float] = field(init=False, factory=dict)

    def begin(self, ref: JobRef) -> None:
        """Note that a job can be polled from now on."""
        self._last[ref] = time.monotonic()

    def note(self, ref: JobRef) -> None:
        """Note a sign of life of a job, unless it has ended."""
        if ref in self._last:
            now = time.monotonic()
            self.longest = max(self.longest, now - self._last[ref])
            self._last[ref] = now

    def end(self, ref: JobRef) -> None:
        """Note the outcome of a job; later polls of it say nothing."""
        self.note(ref)
        self._last.pop(ref, None)

    def hook(self, event: Event) -> None:
        """Note the answer to a poll."""
        if isinstance(event, PollFinished):
            self.note(event.ref)


def say(name: str, elapsed: float, stalls: Stalls, proxy: FaultProxy) -> None:
    figures = f"{dict(proxy.happened)} on {proxy.connections} connections"
    print(f"\n{name}: {elapsed:.1f} s, longest stall {stalls.longest:.1f} s, {figures}")  # noqa: T201  # shown by pytest -s


async def run_batch(name: str, transport: TransportName, faults: Faults, count: int) -> tuple[float, FaultProxy]:
    """Wait for all jobs over one carrier, and check that each one has come to its own end, once.

    Returns:
        The seconds that it took, and the proxy that it went through.
    """
    sandbox = Sandbox(machine=Lognormal(2.0, 0.6), seed=SEED)
    reported: dict[int, Outcome] = {}
    refs: list[JobRef] = []
    names = tuple(OUTCOMES)
    stalls = Stalls()

    async def jobs() -> AsyncIterator[JobRef]:
        for number in range(count):
            refs.append(sandbox.submit(f"user-{number % 7}", f"job-{number}", outcome=names[number % len(names)]))
            stalls.begin(refs[-1])
            yield refs[-1]

    async with (
        sandbox.serve() as base_url,
        fault_proxy(int(base_url.removesuffix("/v1").rpartition(":")[2]), faults, SEED) as proxy,
        Client(
            partner_id="085",
            api_key="sandbox-key",
            base_url=f"http://127.0.0.1:{proxy.port}/v1",
            transport=transport,
            rate=None,
            request_timeout=10,
            hooks=[stalls.hook],
        ) as client,
    ):
        started = time.perf_counter()
        async with client.wait_many(jobs(), timeout=None, pace=Pace(min=1, max=10)) as outcomes:
            async for outcome in outcomes:
                assert outcome.index not in reported, "a job was reported twice"
                reported[outcome.index] = outcome
                stalls.end(outcome.ref)
        elapsed = time.perf_counter() - started
    assert reported.keys() == set(range(count))
    for number, ref in enumerate(refs):
        outcome = reported[number]
        assert outcome.ref == ref
        assert outcome.error is None
        assert outcome.status is not None
        assert outcome.status.verdict is OUTCOMES[names[number % len(names)]]
        assert outcome.status.result is not None
        assert outcome.status.result.smile_job_id == sandbox.jobs[ref].smile_job_id
    say(f"{transport}, {name}, {count} jobs", elapsed, stalls, proxy)
    return elapsed, proxy


def assert_happened(proxy: FaultProxy) -> None:
    """Check that each fault that could happen has happened."""
    assert set(proxy.happened) == {name for name in get_args(Fault) if getattr(proxy.faults, name)}


@pytest.mark.parametrize("transport", ["httpx", "aiohttp"])
@pytest.mark.parametrize("choice", CHOICES)
async def test_a_batch_loses_doubles_and_crosses_nothing(choice: str, transport: TransportName) -> None:
    """With each kind of fault on half of all connections, and with all kinds, each job has the outcome of its own."""
    _, proxy = await run_batch(choice, transport, CHOICES[choice], JOBS // 10)
    assert_happened(proxy)


@pytest.mark.parametrize("transport", ["httpx", "aiohttp"])
async def test_a_large_batch_is_hardly_slower(transport: TransportName) -> None:
    """Each job has the outcome that is its own, and it takes at most three times as long as without faults."""
    without, _ = await run_batch("calm", transport, Faults(), JOBS)
    faulty, proxy = await run_batch("mixed", transport, MIXED, JOBS)
    assert_happened(proxy)
    assert faulty <= MOST_TIMES_WITHOUT_FAULTS * without


async def open_list(stack: AsyncExitStack, url: str) -> WatchList:
    """Open a watch list as often as it takes; each failure must say that another try makes sense."""
    while True:
        try:
            return await stack.enter_async_context(WatchList.open(url))
        except WatchListError as error:
            if not error.transient:
                raise


async def run_workers(name: str, url: str, faults: Faults, count: int) -> FaultProxy:
    """Let two workers empty a list through a proxy, and check by a direct connection that each job has its outcome.

    Returns:
        The proxy.
    """
    refs = {JobRef(f"user-{number % 7}", f"job-{number}"): f"{number:010}" for number in range(count)}
    script = Script(
        {
            ref.job_id: itertools.chain([pending()] * (number % 8), itertools.repeat(complete(SmileJobID=smile_job_id)))
            for number, (ref, smile_job_id) in enumerate(refs.items())
        },
        now=utcnow,
    )
    stalls = Stalls()
    stored: list[WatchOutcome] = []
    port = urlsplit(url).port
    assert port is not None

    async def work(through: str) -> None:
        async with script.client(rate=200, hooks=[stalls.hook]) as client, AsyncExitStack() as stack:
            watch = await open_list(stack, through)
            await Worker(client, watch, pace=Pace(min=0.5, max=2.0), heartbeat=HEARTBEAT).run()

    async def add(watch: WatchList) -> None:
        for number in range(GROUPS):
            group = list(refs)[number::GROUPS]
            await watch.add(group)
            for ref in group:
                stalls.begin(ref)
            await anyio.sleep(1)

    with anyio.fail_after(PATIENCE_SECONDS):
        async with (
            WatchList.open(url) as watch,
            fault_proxy(port, faults, SEED) as proxy,
            anyio.create_task_group() as tasks,  # a worker that ended with an error would end the test
        ):
            started = time.perf_counter()
            tasks.start_soon(add, watch)
            for _ in range(2):
                tasks.start_soon(work, url.replace(f":{port}/", f":{proxy.port}/"))
            async for outcome in watch.outcomes(follow=True):
                stored.append(outcome)
                stalls.end(outcome.ref)
                if len(stored) == count:
                    break
            elapsed = time.perf_counter() - started
            await anyio.sleep(DATABASE_FREEZE_SECONDS)  # a worker that was late has stored what it knew
            assert [outcome async for outcome in watch.outcomes()] == stored
            counts = await watch.counts()
            assert (counts.pending, counts.complete, counts.failed, counts.expired) == (0, count, 0, 0)
            tasks.cancel_scope.cancel()
    assert {outcome.ref: outcome.smile_job_id for outcome in stored} == refs
    say(f"database, {name}, {count} jobs", elapsed, stalls, proxy)
    return proxy


@pytest.mark.parametrize("choice", CHOICES)
async def test_workers_lose_double_and_cross_nothing(choice: str, postgres_url: str) -> None:
    """With faults between two workers and their database, each job has one outcome, its own, and no worker ends."""
    # Connections to a database stay open and carry little, so their faults go by age.
    faults = evolve(CHOICES[choice], after_seconds=20.0, delay_seconds=0.2, freeze_seconds=DATABASE_FREEZE_SECONDS)
    assert_happened(await run_workers(choice, postgres_url, faults, JOBS // 10))
