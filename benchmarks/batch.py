"""A batch of jobs that are all complete: polls per second of CPU time, against the other ways to ask for them.

::

    python benchmarks/batch.py [--tls] [--quick]

Everybody asks the same server about the same jobs, over loopback, 50 at once. The server has a core of its own; what
it can do at most is shown, so that it can be seen whether it is the bottleneck. All clients live in this one process
and take turns, in rounds; each round gives one ratio, and the median counts. Speeds are polls per second of CPU time of
this process, which is busy all the time: other processes do not count then.

- **smilejobs**: ``client.wait_many(refs)``, with the extra ``fast`` and ``rate=None``. Signed, verified, typed.
- **smilejobs, httpx alone**: the same without the extra.
- **smile-id-core**: the vendor's ``Utilities.get_job_status`` in 50 threads; it verifies too.
- **httpx**: 50 tasks over one `httpx.AsyncClient` with 50 connections: ``post(url, json=...)`` and ``.json()``, with
  one signature for all, and nothing verified.
- **aiohttp**: 50 tasks over one session, in the same way.
- **aiohttp, by hand**: the same, signing every request and verifying every answer by hand.

It needs the extra ``fast``, ``smile-id-core`` and ``trustme``. The exit code is 1 if a bar is missed.
"""

import argparse
import asyncio
import base64
import gc
import hmac
import json
import ssl
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from statistics import median, quantiles

import aiohttp
import httpx
from smile_id_core import Utilities

import smilejobs
from server import API_KEY, PARTNER_ID, TIMESTAMP, server, server_limit, signature

AT_ONCE = 50
BARS = {
    ("smilejobs", "aiohttp"): 0.70,
    ("smilejobs", "aiohttp, by hand"): None,
    ("smilejobs", "smile-id-core"): 4.0,
    ("smilejobs", "httpx"): 8.0,
    ("smilejobs, httpx alone", "httpx"): 3.0,
}
"""The least ratio of the polls per second of the first to those of the second; None where there is no bar."""

Job = tuple[str, str]
SIGNED = {"partner_id": PARTNER_ID, "timestamp": TIMESTAMP, "signature": signature(TIMESTAMP)}
FLAGS = {"image_links": False, "history": False}


def main() -> int:
    """Measure, print, and say by the exit code whether the bars hold."""
    parser = argparse.ArgumentParser(description="Polls per second of CPU time of a batch, as ratios.")
    parser.add_argument("--rounds", type=int, default=7, help="at least 5 (default: 7)")
    parser.add_argument("--jobs", type=int, default=5000, help="jobs of a batch (default: 5000)")
    parser.add_argument("--slow-jobs", type=int, default=1000, help="jobs for the vendor's client (default: 1000)")
    parser.add_argument("--tls", action="store_true", help="over TLS")
    parser.add_argument("--quick", action="store_true", help="short rounds, in a tenth of the time")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.jobs, options.slow_jobs = 5, 1000, 200
    with server(tls=options.tls) as base_url:
        print(f"The server alone answers {server_limit(base_url):,.0f} requests/s (raw sockets, 100 connections)")
        sides: dict[str, Callable[[], float]] = {
            "smilejobs": lambda: asyncio.run(fleet(base_url, jobs(options.jobs), "aiohttp")),
            "smilejobs, httpx alone": lambda: asyncio.run(fleet(base_url, jobs(options.jobs), "httpx")),
            "smile-id-core": lambda: vendor(base_url, jobs(options.slow_jobs)),
            "httpx": lambda: asyncio.run(bare_httpx(base_url, jobs(options.slow_jobs))),
            "aiohttp": lambda: asyncio.run(raw_aiohttp(base_url, jobs(options.jobs))),
            "aiohttp, by hand": lambda: asyncio.run(aiohttp_by_hand(base_url, jobs(options.jobs))),
        }
        speeds: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(max(options.rounds, 5)):
            for name, run in sides.items():
                gc.collect()
                speeds[name].append(run())
    return 0 if report(speeds) else 1


def jobs(count: int) -> list[Job]:
    """Return the ids of so many jobs."""
    return [(f"user-{index}", f"job-{index}") for index in range(count)]


async def fleet(base_url: str, batch: list[Job], transport: smilejobs.TransportName) -> float:
    """The library."""
    async with smilejobs.Client(
        partner_id=PARTNER_ID,
        api_key=API_KEY,
        base_url=base_url,
        rate=None,
        transport=transport,
        max_connections=AT_ONCE,
    ) as client:
        start = time.process_time()
        async with client.wait_many(batch) as outcomes:
            done = [outcome.status is not None async for outcome in outcomes]
        taken = time.process_time() - start
    assert done == [True] * len(batch)
    return len(batch) / taken


def vendor(base_url: str, batch: list[Job]) -> float:
    """The vendor's client."""

    def ask(job: Job) -> bool:
        params = {"user_id": job[0], "job_id": job[1], "job_type": 1}
        status = Utilities(PARTNER_ID, API_KEY, base_url).get_job_status(params, {})
        return bool(status["job_complete"])

    start = time.process_time()
    with ThreadPoolExecutor(AT_ONCE) as threads:
        assert all(threads.map(ask, batch))
    return len(batch) / (time.process_time() - start)


async def bare_httpx(base_url: str, batch: list[Job]) -> float:
    """A loop as it is written quickly."""
    limits = httpx.Limits(max_connections=AT_ONCE, max_keepalive_connections=AT_ONCE)
    async with httpx.AsyncClient(limits=limits, timeout=httpx.Timeout(30, pool=None)) as client:

        async def ask(job: Job) -> None:
            question = {**SIGNED, "user_id": job[0], "job_id": job[1], **FLAGS}
            answer = (await client.post(f"{base_url}/job_status", json=question)).json()
            assert answer["job_complete"]

        return await timed(ask, batch)


async def raw_aiohttp(base_url: str, batch: list[Job]) -> float:
    """About as fast as Python can be."""
    async with session_of_aiohttp() as session:

        async def ask(job: Job) -> None:
            question = {**SIGNED, "user_id": job[0], "job_id": job[1], **FLAGS}
            async with session.post(f"{base_url}/job_status", json=question) as response:
                answer = await response.json()
            assert answer["job_complete"]

        return await timed(ask, batch)


async def aiohttp_by_hand(base_url: str, batch: list[Job]) -> float:
    """The same, signed and verified."""
    url = f"{base_url}/job_status"
    async with session_of_aiohttp() as session:

        async def ask(job: Job) -> None:
            now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
            signed = {"partner_id": PARTNER_ID, "timestamp": now, "signature": signature(now)}
            question = {**signed, "user_id": job[0], "job_id": job[1], **FLAGS}
            async with session.post(url, data=json.dumps(question).encode()) as response:
                answer = json.loads(await response.read())
            expected = hmac.digest(API_KEY.encode(), f"{answer['timestamp']}{PARTNER_ID}sid_request".encode(), "sha256")
            assert hmac.compare_digest(base64.b64encode(expected).decode(), answer["signature"])
            assert answer["job_complete"]
            assert answer["result"]["PartnerParams"]["job_id"] == job[1]

        return await timed(ask, batch)


def session_of_aiohttp() -> aiohttp.ClientSession:
    """Return a session with as many connections as there are tasks."""
    connector = aiohttp.TCPConnector(limit=AT_ONCE, ssl=ssl.create_default_context())
    return aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())


async def timed(ask: Callable[[Job], Awaitable[None]], batch: list[Job]) -> float:
    """Ask about each job once, `AT_ONCE` at a time; return polls per second of CPU time."""

    async def some(left: Iterator[Job]) -> None:
        for job in left:
            await ask(job)

    left = iter(batch)
    start = time.process_time()
    await asyncio.gather(*(some(left) for _ in range(AT_ONCE)))
    return len(batch) / (time.process_time() - start)


def report(speeds: dict[str, list[float]]) -> bool:
    """Print the tables; return whether all bars hold."""
    for name, seen in speeds.items():
        print(f"{name:<26}{median(seen):>10,.0f} polls per second of CPU")
    met = True
    print(f"\n{'':<42}{'ratio':>8}  {'quartiles':<16}bar")
    for (one, other), bar in BARS.items():
        ratios = [mine / theirs for mine, theirs in zip(speeds[one], speeds[other], strict=True)]
        low, middle, high = quantiles(ratios, n=4)
        met = met and (bar is None or middle >= bar)
        shown = "-" if bar is None else f"{bar:.2f} {'met' if middle >= bar else 'MISSED'}"
        print(f"{f'{one} over {other}':<42}{middle:>8.2f}  {f'{low:.2f} to {high:.2f}':<16}{shown}")
    return met


if __name__ == "__main__":
    sys.exit(main())
