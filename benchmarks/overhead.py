"""What the library costs: CPU time of one poll over a bare httpx POST, and the time of its import.

::

    python benchmarks/overhead.py [--quick]

**A poll.** One process holds both clients and alternates between them, in rounds; another one answers on loopback, on
a core of its own where the system allows that, with the same signed answer every time. Only the CPU time of the
client process counts (`time.process_time`). One side is ``client.job_status()``: signed, verified, decoded into
typed values. The other is ``httpx.AsyncClient.post(url, json=...)`` and ``.json()``, neither signed nor checked, over a
pool of the same size. Each round gives one ratio; rounds are short and many, because a machine that others use too
changes its speed within seconds, and the median of all rounds counts.

The bar holds for one request in flight, where every cost of our own shows. With several in flight the pool of httpx
assigns some requests to a connection that is taken a moment later and starts over with them: more CPU time on both
sides, by luck rather than by anything that the library does. That line is shown, without a bar.

The same is measured with an `httpx.AsyncClient` of the caller's, and over aiohttp: ``client.job_status()`` with
``transport="aiohttp"`` against a bare ``aiohttp.ClientSession.post`` and ``.json()``.

**The import.** A fresh interpreter imports the library, another one only what the library is built on, and a third
one nothing; in turns, with their bytecode cached. The fastest of all runs counts. The bar holds for the CPU time
without that of the bare interpreter.

**The hooks.** The same, between a client with the default hooks, whose logger writes nothing, and one with
``hooks=[]``.

The exit code is 1 if a bar is missed.
"""

import argparse
import asyncio
import gc
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from math import inf
from statistics import median, quantiles
from tempfile import TemporaryDirectory

import aiohttp
import httpx

import smilejobs
from server import API_KEY, PARTNER_ID, request_body, server, server_limit

POLL_BAR = 1.00
INJECTED_BAR = 1.25
AIOHTTP_BAR = 1.60
IMPORT_BAR = 1.15
HOOKS_BAR = 1.02

USER_ID = "user-1"
JOB_ID = "job-1"

MODULES = "httpx, attrs, cattrs, tenacity, anyio"
ANYIO = "anyio.create_task_group, anyio.CancelScope, anyio.Event, anyio.Lock, anyio.sleep"
"""Since 4.15 anyio imports its parts when they are first named; whoever uses it names these."""


def main() -> int:
    """Measure, print, and say by the exit code whether the bars hold."""
    parser = argparse.ArgumentParser(description="CPU time of one poll and of the import, as ratios.")
    parser.add_argument("--rounds", type=int, default=101, help="pairs of polls measured, at least 7 (default: 101)")
    parser.add_argument("--requests", type=int, default=100, help="requests of one side in one round (default: 100)")
    parser.add_argument("--in-flight", type=int, default=20, help="requests under way at once (default: 20)")
    parser.add_argument("--imports", type=int, default=15, help="imports of each kind, at least 7 (default: 15)")
    parser.add_argument("--quick", action="store_true", help="a few rounds of few requests, in a tenth of the time")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.requests, options.imports = 21, 40, 7
    with server() as base_url:
        rounds = max(options.rounds, 7)
        met = [
            asyncio.run(compare_polls(base_url, rounds, options.requests, options.in_flight)),
            asyncio.run(compare_injected(base_url, rounds, options.requests)),
            asyncio.run(compare_aiohttp(base_url, rounds, options.requests)),
            asyncio.run(compare_hooks(base_url, rounds, options.requests)),
        ]
    met.append(compare_imports(max(options.imports, 7)))
    return 0 if all(met) else 1


# --- A poll


async def compare_polls(base_url: str, rounds: int, requests: int, in_flight: int) -> bool:
    """Print one line for one request in flight, and one for several; return whether the first is within the bar."""
    limits = httpx.Limits(max_connections=100, max_keepalive_connections=100, keepalive_expiry=75)
    question = json.loads(request_body(USER_ID, JOB_ID))
    async with (
        smilejobs.Client(
            partner_id=PARTNER_ID, api_key=API_KEY, base_url=base_url, rate=None, transport="httpx"
        ) as client,
        httpx.AsyncClient(limits=limits) as bare,
    ):

        async def ours() -> None:
            status = await client.job_status(USER_ID, JOB_ID)
            assert status.job_complete

        async def theirs() -> None:
            answer = (await bare.post(f"{base_url}/job_status", json=question)).json()
            assert answer["job_complete"]

        print(f"One poll, {rounds} rounds of {requests} requests a side; CPU in microseconds per request")
        print(f"The server alone answers {server_limit(base_url):,.0f} requests/s (raw sockets, 100 connections)\n")
        row("", "smilejobs", "httpx", "ratio", "quartiles", "", "bar")
        headline = inf
        for width in (1, in_flight):
            bar = POLL_BAR if width == 1 else None
            ratio = await compare(
                f"{width} in flight", ours, theirs, rounds=rounds, requests=requests, width=width, bar=bar
            )
            headline = ratio if width == 1 else headline
    return headline <= POLL_BAR


async def compare_injected(base_url: str, rounds: int, requests: int) -> bool:
    """Print one line for a client of the caller's over the same client alone; return whether the bar holds."""
    question = json.loads(request_body(USER_ID, JOB_ID))
    async with (
        httpx.AsyncClient() as bare,
        smilejobs.Client(
            partner_id=PARTNER_ID, api_key=API_KEY, base_url=base_url, rate=None, http_client=bare
        ) as client,
    ):

        async def ours() -> None:
            await client.job_status(USER_ID, JOB_ID)

        async def theirs() -> None:
            (await bare.post(f"{base_url}/job_status", json=question)).json()

        name = "http_client=httpx, 1 in flight"
        ratio = await compare(name, ours, theirs, rounds=rounds, requests=requests, bar=INJECTED_BAR)
    return ratio <= INJECTED_BAR


async def compare_aiohttp(base_url: str, rounds: int, requests: int) -> bool:
    """Print one line for aiohttp over a bare session; return whether the bar holds."""
    question = json.loads(request_body(USER_ID, JOB_ID))
    async with (
        aiohttp.ClientSession() as bare,
        smilejobs.Client(
            partner_id=PARTNER_ID, api_key=API_KEY, base_url=base_url, rate=None, transport="aiohttp"
        ) as client,
    ):

        async def ours() -> None:
            await client.job_status(USER_ID, JOB_ID)

        async def theirs() -> None:
            async with bare.post(f"{base_url}/job_status", json=question) as answer:
                await answer.json()

        name = "aiohttp, 1 in flight"
        ratio = await compare(name, ours, theirs, rounds=rounds, requests=requests, bar=AIOHTTP_BAR)
    return ratio <= AIOHTTP_BAR


async def compare_hooks(base_url: str, rounds: int, requests: int) -> bool:
    """Print one line for the default hooks and none; return whether their ratio is within the bar."""
    options: smilejobs.ClientOptions = {"rate": None, "transport": "httpx"}
    no_hooks: smilejobs.ClientOptions = {**options, "hooks": []}
    async with (
        smilejobs.Client(partner_id=PARTNER_ID, api_key=API_KEY, base_url=base_url, **options) as told,
        smilejobs.Client(partner_id=PARTNER_ID, api_key=API_KEY, base_url=base_url, **no_hooks) as silent,
    ):

        async def with_hooks() -> None:
            await told.job_status(USER_ID, JOB_ID)

        async def without() -> None:
            await silent.job_status(USER_ID, JOB_ID)

        row("\n", "default", "hooks=[]", "ratio", "quartiles", "", "bar")
        name = "hooks, 1 in flight"
        ratio = await compare(name, with_hooks, without, rounds=rounds, requests=requests, bar=HOOKS_BAR)
    return ratio <= HOOKS_BAR


async def compare(
    name: str,
    ours: Callable[[], Awaitable[None]],
    theirs: Callable[[], Awaitable[None]],
    *,
    rounds: int,
    requests: int,
    width: int = 1,
    bar: float | None,
) -> float:
    """Print a line about two sides, by turns, and return the ratio of what they cost."""
    pairs = [(0.0, 0.0)] * rounds
    for side in (ours, theirs):
        await cpu_time(side, 200, width)  # opens the connections
    for index in range(rounds):  # who goes first changes with every round
        sides = (ours, theirs) if index % 2 else (theirs, ours)
        costs = {side: await cpu_time(side, requests, width) for side in sides}
        pairs[index] = (costs[ours], costs[theirs])
    low, middle, high = quantiles([mine / other for mine, other in pairs], n=4)
    row(
        name,
        *(f"{median(side) * 1e6:.0f}" for side in zip(*pairs, strict=True)),
        *(f"{ratio:.3f}" for ratio in (middle, low, high)),
        "-" if bar is None else verdict(middle, bar),
    )
    return middle


async def cpu_time(poll: Callable[[], Awaitable[None]], requests: int, width: int) -> float:
    """Return the CPU seconds that one of so many calls took, *width* of them under way at once."""

    async def some() -> None:
        for _ in range(requests // width):
            await poll()

    gc.collect()
    start = time.process_time()
    if width == 1:
        await some()
    else:
        await asyncio.gather(*(some() for _ in range(width)))
    return (time.process_time() - start) / (requests // width * width)


# --- The import


def compare_imports(rounds: int) -> bool:
    """Print the time of the import of each side, and return whether the bar holds."""
    programs = {"nothing": "pass", MODULES: f"import {MODULES}; {ANYIO}", "smilejobs": "import smilejobs"}
    best = dict.fromkeys(programs, (inf, inf))
    with TemporaryDirectory() as cache:
        for index in range(rounds + 1):  # the first one only fills the bytecode cache
            for name, program in programs.items():
                taken = run(program, cache)
                if index:
                    wall, cpu = best[name]
                    best[name] = (min(wall, taken[0]), min(cpu, taken[1]))
    print(f"\nImport, the fastest of {rounds} runs each; milliseconds\n")
    row("", "wall", "CPU", "net wall", "net CPU")
    bare = best["nothing"]
    net = {name: (wall - bare[0], cpu - bare[1]) for name, (wall, cpu) in best.items()}
    for name in programs:
        row(name, *(f"{seconds * 1e3:.0f}" for seconds in (*best[name], *net[name])))
    gross, clean = (tuple(a / b for a, b in zip(t["smilejobs"], t[MODULES], strict=True)) for t in (best, net))
    row("ratio", *(f"{ratio:.3f}" for ratio in (*gross, *clean)), "bar", verdict(clean[1], IMPORT_BAR))
    return clean[1] <= IMPORT_BAR


def run(program: str, cache: str) -> tuple[float, float]:
    """Return the wall and the CPU seconds of an interpreter that runs *program*.

    All bytecode lies in the directory *cache*: an environment may forbid to write it, and then what was installed
    would be read compiled, and what lies in a checkout compiled anew each time.
    """
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPYCACHEPREFIX"] = cache
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, "-c", program], check=True, env=environment)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def verdict(ratio: float, bar: float) -> str:
    """The bar, and whether it holds."""
    return f"{bar:.2f} {'met' if ratio <= bar else 'MISSED'}"


def row(name: str, *cells: str) -> None:
    """Print one line of a table."""
    print(f"{name:<40}" + "".join(f"{cell:>12}" for cell in cells), flush=True)


if __name__ == "__main__":
    sys.exit(main())
