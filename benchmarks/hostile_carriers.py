"""What hostile bodies cost on each carrier: seconds for which the event loop stands still, and memory.

::

    python benchmarks/hostile_carriers.py [--at-once 50]

A server in a process of its own answers each poll with one of these:

- **endless**: chunks of 8 KiB without end.
- **endless, 1-byte chunks**: the same in chunks of one byte.
- **bomb**: 1 MiB of gzip that is 1 GiB.
- **trickle of nothing**: gzip blocks without content, without end.

Each carrier polls as often as ``--at-once`` says, all at once, with ``request_timeout=5``. Each case runs in a process
of its own. The columns: seconds until all polls have ended; the longest time for which the event loop stood still; how
much the resident set grew at most. It needs the extra ``fast``, httpx2 and a Linux.
"""

import argparse
import asyncio
import gzip
import json
import resource
import subprocess
import sys
import time
import zlib
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import httpx
import httpx2

import smilejobs
from server import API_KEY, PARTNER_ID, child, pin, resident

WAYS = ("httpx pool", "aiohttp pool", "httpx", "httpx2", "aiohttp session")
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n"


def cases() -> dict[str, tuple[bytes, bytes]]:
    """What is sent, once and then without end."""
    nothing = zlib.compressobj(wbits=31)
    start = nothing.compress(b"") + nothing.flush(zlib.Z_SYNC_FLUSH)
    empty = b"\0\0\0\xff\xff" * 1000
    return {
        "endless": (CHUNKED + b"\r\n", b"2000\r\n" + b"x" * 0x2000 + b"\r\n"),
        "endless, 1-byte chunks": (CHUNKED + b"\r\n", b"1\r\nx\r\n" * 1000),
        "bomb": (b"", b""),
        "trickle of nothing": (
            CHUNKED + b"Content-Encoding: gzip\r\n\r\n%x\r\n%b\r\n" % (len(start), start),
            b"%x\r\n%b\r\n" % (len(empty), empty),
        ),
    }


def main() -> None:
    """Measure each case on each carrier, and print the table."""
    parser = argparse.ArgumentParser(description="What hostile bodies cost.")
    parser.add_argument("--at-once", type=int, default=50, help="polls at once (default: 50)")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        pin(1)
        asyncio.run(serve(*cases()[options.serve]))
        return
    if options.measure:
        print(json.dumps(asyncio.run(measure(options.measure[0], options.measure[1], options.at_once))))
        return
    print(f"{'':<26}{'':<18}{'seconds':>9}{'blocked':>9}{'MiB':>7}  errors")
    for case in cases():
        for way in WAYS:
            with child([sys.executable, __file__, "--serve", case]) as port:
                command = [sys.executable, __file__, "--at-once", str(options.at_once), "--measure", way, str(port)]
                seconds, blocked, grown, errors = json.loads(subprocess.check_output(command, text=True))
            print(f"{case:<26}{way:<18}{seconds:>9.1f}{blocked:>9.2f}{grown / 2**20:>7.0f}  {errors}", flush=True)


async def measure(way: str, port: str, at_once: int) -> tuple[float, float, int, str]:
    """Poll so often at once."""
    blocked = 0.0
    before = resident()
    seen: Counter[str] = Counter()

    async def watch() -> None:
        nonlocal blocked
        while True:
            began = time.perf_counter()
            await asyncio.sleep(0.01)
            blocked = max(blocked, time.perf_counter() - began - 0.01)

    async with opened(way, f"http://127.0.0.1:{port}/v1", at_once) as client:
        watching = asyncio.create_task(watch())
        began = time.perf_counter()

        async def poll(number: int) -> None:
            try:
                await client.job_status("user", f"job-{number}")
            except smilejobs.SmileJobsError as error:
                seen[str(error).partition(" (HTTP")[0].partition(" [")[0]] += 1

        await asyncio.gather(*map(poll, range(at_once)))
        seconds = time.perf_counter() - began
        watching.cancel()
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    return seconds, blocked, max(0, grown), "; ".join(f"{count} x {text}" for text, count in seen.items())


@asynccontextmanager
async def opened(way: str, base_url: str, at_once: int) -> AsyncGenerator[smilejobs.Client, None]:
    """Open a client over a carrier."""
    options: dict[str, Any] = {"max_connections": at_once, "rate": None, "attempts": 1, "request_timeout": 5}

    def make(**more: Any) -> smilejobs.Client:
        return smilejobs.Client(partner_id=PARTNER_ID, api_key=API_KEY, base_url=base_url, **options, **more)

    if way.endswith("pool"):
        async with make(transport=way.removesuffix(" pool")) as client:
            yield client
    elif way == "aiohttp session":
        async with aiohttp.ClientSession() as session, make(http_client=session) as client:
            yield client
    else:
        limits = {"httpx": httpx, "httpx2": httpx2}[way].Limits(max_connections=at_once)
        library = {"httpx": httpx, "httpx2": httpx2}[way]
        own = library.AsyncClient(timeout=None, limits=limits)
        async with own as http_client, make(http_client=http_client) as client:
            yield client


async def serve(start: bytes, more: bytes) -> None:
    """Answer on a free port of loopback, which is printed, until standard input ends."""
    bomb = gzip.compress(bytes(2**20) * 1024, 9) if not start else b""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]))
                if bomb:
                    length = b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(bomb)
                    writer.write(b"HTTP/1.1 200 OK\r\n" + length + bomb)
                    continue
                writer.write(start)
                while True:
                    writer.write(more)
                    await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            writer.close()

    listener = await asyncio.start_server(answer, "127.0.0.1", 0)
    print(listener.sockets[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    listener.close()


if __name__ == "__main__":
    main()
