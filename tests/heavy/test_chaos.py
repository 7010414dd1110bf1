"""A batch of 3,000 jobs through a proxy that cuts, delays, resets and freezes connections at random.

``nox -s chaos``; CHAOS_JOBS makes it shorter, CHAOS_SEED draws other faults.
"""

import os
import time
from collections.abc import AsyncIterator

import pytest

from smilejobs import Client, JobRef, Outcome, Pace, Verdict
from smilejobs.sandbox import Lognormal, Sandbox
from smilejobs.transport import TransportName
from tests.helpers.fault_proxy import FaultProxy, Faults, fault_proxy

JOBS = int(os.environ.get("CHAOS_JOBS", "3000"))
SEED = int(os.environ.get("CHAOS_SEED", "0"))
FAULTS = Faults(cut=0.2, delay=0.2, reset=0.2, freeze=0.2)
MOST_TIMES_WITHOUT_FAULTS = 3.0
OUTCOMES = {"approved": Verdict.APPROVED, "rejected": Verdict.REJECTED, "error": Verdict.ERROR}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def run(transport: TransportName, faults: Faults) -> tuple[float, FaultProxy]:
    """Wait for all jobs over one carrier, and check that each one has come to its own end, once.

    Returns:
        The seconds that it took, and the proxy that it went through.
    """
    sandbox = Sandbox(machine=Lognormal(2.0, 0.6), seed=SEED)
    reported: dict[int, Outcome] = {}
    refs: list[JobRef] = []
    names = tuple(OUTCOMES)

    async def jobs() -> AsyncIterator[JobRef]:
        for number in range(JOBS):
            refs.append(sandbox.submit(f"user-{number % 7}", f"job-{number}", outcome=names[number % len(names)]))
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
        ) as client,
    ):
        started = time.perf_counter()
        async with client.wait_many(jobs(), timeout=None, pace=Pace(min=1, max=10)) as outcomes:
            async for outcome in outcomes:
                assert outcome.index not in reported, "a job was reported twice"
                reported[outcome.index] = outcome
        elapsed = time.perf_counter() - started
    assert reported.keys() == set(range(JOBS))
    for number, ref in enumerate(refs):
        outcome = reported[number]
        assert outcome.ref == ref
        assert outcome.error is None
        assert outcome.status is not None
        assert outcome.status.verdict is OUTCOMES[names[number % len(names)]]
        assert outcome.status.result is not None
        assert outcome.status.result.smile_job_id == sandbox.jobs[ref].smile_job_id
    return elapsed, proxy


@pytest.mark.anyio
@pytest.mark.parametrize("transport", ["httpx", "aiohttp"])
async def test_nothing_is_lost_doubled_or_crossed(transport: TransportName) -> None:
    """Each job has the outcome that is its own, and it takes at most three times as long as without faults."""
    without, _ = await run(transport, Faults())
    faulty, proxy = await run(transport, FAULTS)
    # The figures of the run, shown by pytest -s.
    figures = f"{dict(proxy.happened)} on {proxy.connections} connections"
    print(f"\n{transport}: {without:.1f} s without faults, {faulty:.1f} s with {figures}")  # noqa: T201  # the figures are what it is run for
    assert all(proxy.happened[fault] for fault in ("cut", "delay", "reset", "freeze"))
    assert faulty <= MOST_TIMES_WITHOUT_FAULTS * without
