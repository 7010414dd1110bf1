"""A batch of jobs that are all complete: polls per second, against the other ways to ask for them.

::

    python benchmarks/batch.py

Everybody asks the same server about the same jobs, over TLS on loopback, 100 at once. The server has a core of its
own; what it can do at most is shown, so that it can be seen whether it is the bottleneck. All clients live in this one
process and take turns, in rounds; each round gives one ratio, and the median counts.

- **smilejobs**: ``client.wait_many(refs)``, with the extra ``fast`` and ``rate=None``. Signed, verified, typed.
- **smile-id-core**: the vendor's ``Utilities.get_job_status`` in 100 threads; it verifies too.
- **httpx**: 100 tasks over one `httpx.AsyncClient` with 100 connections: ``post(url, json=...)`` and ``.json()``, with
  one signature for all, and nothing verified.
- **aiohttp**: 100 tasks over one session, signing every request and verifying every answer by hand.

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

AT_ONCE = 100
BARS = {"smile-id-core": 5.0, "httpx": 2.5, "aiohttp": 0.25}

Job = tuple[str, str]


def main() -> int:
    """Measure, print, and say by the exit code whether the bars hold."""
    parser = argparse.ArgumentParser(description="Polls per second of a batch, as ratios.")
    parser.add_argument("--rounds", type=int, default=7, help="at least 5 (default: 7)")
    parser.add_argument("--jobs", type=int, default=5000, help="jobs of a batch (default: 5000)")
    parser.add_argument("--slow-jobs", type=int, default=1000, help="jobs for the vendor's client (default: 1000)")
    options = parser.parse_args()
    with server(tls=True) as base_url:
        print(f"The server alone answers {server_limit(base_url):,.0f} requests/s (raw TLS sockets, 100 connections)")
        sides: dict[str, Callable[[], float]] = {
            "smilejobs": lambda: asyncio.run(fleet(base_url, jobs(options.jobs), "aiohttp")),
            "smilejobs, plain httpx": lambda: asyncio.run(fleet(base_url, jobs(options.jobs), "httpx")),
            "smile-id-core": lambda: vendor(base_url, jobs(options.slow_jobs)),
            "httpx": lambda: asyncio.run(bare_httpx(base_url, jobs(options.jobs))),
            "aiohttp": lambda: asyncio.run(raw_aiohttp(base_url, jobs(options.jobs))),
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
        partner_id=PARTNER_ID, api_key=API_KEY, base_url=base_url, rate=None, transport=transport
    ) as client:
        start = time.perf_counter()
        async with client.wait_many(batch) as outcomes:
            done = [outcome.status is not None async for outcome in outcomes]
        taken = time.perf_counter() - start
    assert done == [True] * len(batch)
    return len(batch) / taken


def vendor(base_url: str, batch: list[Job]) -> float:
    """The vendor's client."""

    def ask(job: Job) -> bool:
        params = {"user_id": job[0], "job_id": job[1], "job_type": 1}
        status = Utilities(PARTNER_ID, API_KEY, base_url).get_job_status(params, {})
        return bool(status["job_complete"])

    start = time.perf_counter()
    with ThreadPoolExecutor(AT_ONCE) as threads:
        assert all(threads.map(ask, batch))
    return len(batch) / (time.perf_counter() - start)


async def bare_httpx(base_url: str, batch: list[Job]) -> float:
    """A loop as it is written quickly."""
    limits = httpx.Limits(max_connections=AT_ONCE, max_keepalive_connections=AT_ONCE)
    signed = {"partner_id": PARTNER_ID, "timestamp": TIMESTAMP, "signature": signature(TIMESTAMP)}
    flags = {"image_links": False, "history": False}
    async with httpx.AsyncClient(limits=limits, timeout=httpx.Timeout(30, pool=None)) as client:

        async def ask(job: Job) -> None:
            question = {**signed, "user_id": job[0], "job_id": job[1], **flags}
            answer = (await client.post(f"{base_url}/job_status", json=question)).json()
            assert answer["job_complete"]

        return await timed(ask, batch)


async def raw_aiohttp(base_url: str, batch: list[Job]) -> float:
    """About as fast as Python can be."""
    flags = {"image_links": False, "history": False}
    url = f"{base_url}/job_status"
    connector = aiohttp.TCPConnector(limit=AT_ONCE, ssl=ssl.create_default_context())
    async with aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar()) as session:

        async def ask(job: Job) -> None:
            now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
            signed = {"partner_id": PARTNER_ID, "timestamp": now, "signature": signature(now)}
            question = {**signed, "user_id": job[0], "job_id": job[1], **flags}
            async with session.post(url, data=json.dumps(question).encode()) as response:
                answer = json.loads(await response.read())
            expected = hmac.digest(API_KEY.encode(), f"{answer['timestamp']}{PARTNER_ID}sid_request".encode(), "sha256")
            assert hmac.compare_digest(base64.b64encode(expected).decode(), answer["signature"])
            assert answer["job_complete"]
            assert answer["result"]["PartnerParams"]["job_id"] == job[1]

        return await timed(ask, batch)


async def timed(ask: Callable[[Job], Awaitable[None]], batch: list[Job]) -> float:
    """Ask about each job once, `AT_ONCE` at a time; return polls per second."""

    async def some(left: Iterator[Job]) -> None:
        for job in left:
            await ask(job)

    left = iter(batch)
    start = time.perf_counter()
    await asyncio.gather(*(some(left) for _ in range(AT_ONCE)))
    return len(batch) / (time.perf_counter() - start)


def report(speeds: dict[str, list[float]]) -> bool:
    """Print the table; return whether all bars hold."""
    met = True
    ours = speeds["smilejobs"]
    print(f"\n{'':<26}{'polls/s':>10}{'ratio':>8}  {'quartiles':<16}bar")
    for name, theirs in speeds.items():
        ratios = [mine / other for mine, other in zip(ours, theirs, strict=True)]
        low, middle, high = quantiles(ratios, n=4)
        bar = BARS.get(name)
        met = met and (bar is None or middle >= bar)
        shown = "" if bar is None else f"{bar:.2f} {'met' if middle >= bar else 'MISSED'}"
        print(f"{name:<26}{median(theirs):>10,.0f}{middle:>8.2f}  {f'{low:.2f} to {high:.2f}':<16}{shown}")
    return met


if __name__ == "__main__":
    sys.exit(main())
