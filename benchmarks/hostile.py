"""What a hostile answer costs: seconds for which it blocks the event loop, and memory.

::

    python benchmarks/hostile.py [--only TEXT]

Each case runs in a process of its own, and prints the size of one answer, the longest time for which the event loop
was blocked, in CPU time of its thread, so that other work of the machine does not count, and the memory.

The cases "reading: ..." hand a body to `smilejobs.wire.protocol.read_answer`, for a poll that asks for links and
history: once without a signature, as any sender can write it, and once with a valid one, so that it is structured as
far as it can be; the larger figures of the two count. Bodies have the size of ``max_response_bytes``; in the cases "as
many as are decoded" they have just as many JSON values as are read. Memory is the most that Python has allocated, with
the result and without the body.

The cases of the other names poll over one of the HTTP carriers, 50 polls at once, with ``request_timeout=5``. A server
in another process answers each of them with:

- **endless**: chunks of 8 KiB without end.
- **chunks of one byte**: the same in chunks of one byte.
- **bomb**: 1 MiB of gzip that inflates to 1 GiB.
- **empty blocks**: blocks of gzip without content, without end.

The size of an endless answer is ``max_response_bytes``. Memory is the growth of the resident set, for one poll. These
cases need aiohttp, httpx2 and a Linux.

The exit code is 1 if a case takes more than 0.5 s, or more than ten times its size in memory and more than 8 MiB.
"""

import argparse
import asyncio
import gc
import gzip
import inspect
import json
import resource
import subprocess
import sys
import time
import tracemalloc
import zlib
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import aiohttp
import httpx
import httpx2
from attrs import frozen

import smilejobs
from server import child, pin, resident
from smilejobs.clock import utcnow
from smilejobs.model.jobs import Include
from smilejobs.wire.codec import MAX_VALUES
from smilejobs.wire.protocol import read_answer
from smilejobs.wire.signature import sign

SECONDS_BAR = 0.5
MEMORY_BAR = 10.0
"""Times the size of what was sent."""
MEMORY_FLOOR_MIB = 8.0
"""Memory that a case may take however small it is."""

MIB = 1024 * 1024
SIZE: int = inspect.signature(smilejobs.Client).parameters["max_response_bytes"].default
CREDENTIALS = smilejobs.Credentials("085", "fictional-key")
TIMESTAMP = "2026-03-04T05:06:07.890Z"
REF = smilejobs.JobRef("user-1", "job-1")
VALUES = MAX_VALUES - 50


@frozen
class Measured:
    """What one case took."""

    sent: int
    seconds: float
    mib: float

    @property
    def is_within_bars(self) -> bool:
        """Whether it blocks for a short time and takes little memory."""
        return self.seconds <= SECONDS_BAR and self.mib * MIB <= max(MEMORY_BAR * self.sent, MEMORY_FLOOR_MIB * MIB)


def measure(sent: int, read: Callable[[], object]) -> Measured:
    """Return the seconds of one call of *read*, and the peak of the memory of another one; *sent* is in bytes."""
    gc.collect()
    began = time.thread_time()
    read()
    seconds = time.thread_time() - began
    tracemalloc.start()
    kept = read()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    del kept
    return Measured(sent=sent, seconds=seconds, mib=peak / MIB)


# Bodies


def answer(inside: str) -> bytes:
    """Return an answer that is not complete, with more keys in it."""
    return f'{{"job_complete":false,{inside}}}'.encode()


def of_result(inside: str) -> bytes:
    """Return a complete answer with more keys in its result."""
    return f'{{"job_complete":true,"result":{{"ResultCode":"0810",{inside}}}}}'.encode()


def array(key: str, piece: str, size: int) -> str:
    """Return a key and an array that holds *piece*, a value and a comma, as often as fits into *size* bytes."""
    return f'"{key}":[{(piece * (size // len(piece.encode())))[:-1]}]'


def members(key: str, count: int, name: str = "{}") -> str:
    """Return a key and an object that has *count* keys, all different."""
    return f'"{key}":{{{keys(count, name)}}}'


def keys(count: int, name: str = "{}") -> str:
    """Return *count* keys, all different."""
    return ",".join(f'"{name.format(index)}":"0"' for index in range(count))


def text(key: str, value: str) -> str:
    """Return a key and a text, which is not escaped here."""
    return f'"{key}":"{value}"'


def history() -> bytes:
    """Return the largest history of whole results that is read."""
    fields = ("FullName", "DOB", "IDNumber", "Address", "PhoneNumber", "Country", "IDType", "Gender", "ResultText")
    entry = {
        "ResultCode": "0810",
        "SmileJobID": "0000004711",
        "PartnerParams": {"user_id": "u", "job_id": "j", "job_type": 1},
        "Actions": {f"Action_{index}": "Passed" for index in range(5)},
        **dict.fromkeys(fields, "Not Available"),
    }
    return answer(f'"history":{json.dumps([entry] * 1_000)}')


def links(characters: int) -> bytes:
    """Return as many links as are read, each of *characters* characters and with 100 parameters."""
    query = "&".join(f"x-amz-{index}=%41%42" for index in range(99))
    link = f"https://bucket.example/?X-Amz-Date=20260304T050607Z&{query}"
    named = {f"image {index}": f"{link}{index}".ljust(characters, "x") for index in range(100)}
    return answer(f'"image_links":{json.dumps(named)}')


FACE = "\N{SLIGHTLY SMILING FACE}"
NEWLINE = "\\n"

BODIES: Mapping[str, Callable[[], bytes]] = {
    "500,000 zeros in `history`": lambda: answer(array("history", "0,", 1_000_000)),
    "zeros in `history`": lambda: answer(array("history", "0,", SIZE)),
    "zeros in `history`, as many as are decoded": lambda: answer(array("history", "0,", 2 * VALUES)),
    "`{}` in `history`, wrong at the end": lambda: answer(array("history", "{}," * 999 + "0,", 3_000)),
    "1,000 results in `history`": history,
    "links": lambda: answer(members("image_links", SIZE // 14)),
    "links, as many as are decoded": lambda: answer(members("image_links", VALUES)),
    "100 links of 8 KiB": lambda: links(8_192),
    "100 longer links": lambda: links(SIZE // 101),
    "keys of PartnerParams": lambda: of_result(members("PartnerParams", SIZE // 14)),
    "keys of PartnerParams, as many as are decoded": lambda: of_result(members("PartnerParams", VALUES)),
    "keys of Actions": lambda: of_result(members("Actions", SIZE // 14)),
    "keys of Actions, as many as are decoded": lambda: of_result(members("Actions", VALUES)),
    "keys at the top, as many as are decoded": lambda: answer(keys(VALUES)),
    "keys at the top, not ASCII, as many as are decoded": lambda: answer(keys(VALUES, FACE + "{}")),
    "`[[[[0]]]],`": lambda: of_result(array("x", "[[[[0]]]],", SIZE)),
    "`[[[[0]]]],`, as many as are decoded": lambda: of_result(array("x", "[[[[0]]]],", 2 * VALUES)),
    "`[],`": lambda: answer(array("x", "[],", SIZE)),
    "`[],`, as many as are decoded": lambda: answer(array("x", "[],", VALUES // 2 * 3)),
    '`{"a":0},`, as many as are decoded': lambda: answer(array("x", '{"a":0},', VALUES // 2 * 8)),
    "integers of 4,299 digits": lambda: of_result(array("x", "9" * 4_299 + ",", SIZE)),
    "integers of 100 digits, as many as are decoded": lambda: of_result(array("x", "9" * 100 + ",", 101 * VALUES)),
    "one fraction": lambda: of_result('"x":0.' + "1" * SIZE),
    "deep nesting": lambda: answer('"x":' + "[" * (SIZE // 2) + "]" * (SIZE // 2)),
    "deep nesting, as much as is decoded": lambda: answer('"x":' + "[" * VALUES + "]" * VALUES),
    "deep nesting of objects, as much as is decoded": lambda: answer('"x":' + '{"":' * VALUES + "0" + "}" * VALUES),
    "one text": lambda: of_result(text("FullName", "x" * SIZE)),
    "one text, all of it escaped": lambda: of_result(text("FullName", NEWLINE * (SIZE // 2))),
    "one text, not ASCII at its end": lambda: of_result(text("FullName", "x" * SIZE + FACE)),
    "texts, not ASCII at their end": lambda: of_result(array("x", '"' + "x" * 800 + FACE + '",', SIZE)),
    "one text that is a number": lambda: of_result(text("ConfidenceValue", "9" * SIZE)),
    "one text that is a timestamp": lambda: answer(text("timestamp", "9" * SIZE)),
    "commas in a text": lambda: of_result(text("FullName", "," * SIZE)),
    "HTML": lambda: b"<html>" + b"<p>" * (SIZE // 3),
    "white space": lambda: b" " * SIZE,
}


def reading(make: Callable[[], bytes]) -> Measured:
    """Measure what the reading of a body takes, without and with a valid signature."""
    everything = Include(image_links=True, history=True)
    bare = make()
    both: list[Measured] = []
    for signature in ("?", sign(CREDENTIALS, TIMESTAMP)):
        body = bare.replace(b"{", f'{{"timestamp":"{TIMESTAMP}","signature":"{signature}",'.encode(), 1)

        def read(body: bytes = body) -> object:
            try:
                return read_answer(
                    REF, CREDENTIALS, utcnow(), include=everything, http_status=200, headers={}, body=body
                )
            except smilejobs.SmileJobsError as error:
                return error

        both.append(measure(len(body), read))
    return Measured(sent=both[0].sent, seconds=max(one.seconds for one in both), mib=max(one.mib for one in both))


# Carriers

AT_ONCE = 50
CARRIERS = ("httpx pool", "httpx2 pool", "aiohttp pool", "httpx client", "httpx2 client", "aiohttp session")
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n"


def bomb() -> tuple[bytes, bytes]:
    """Return an answer that inflates to 1 GiB, and nothing."""
    body = gzip.compress(bytes(2**30), 9)
    return b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(body) + body, b""


def empty_blocks() -> tuple[bytes, bytes]:
    """Return the head of an answer in gzip, and blocks without content."""
    compressor = zlib.compressobj(wbits=31)
    start = compressor.compress(b"") + compressor.flush(zlib.Z_SYNC_FLUSH)
    blocks = b"\0\0\0\xff\xff" * 1_000
    return CHUNKED + b"Content-Encoding: gzip\r\n\r\n" + chunk(start), chunk(blocks)


def chunk(data: bytes) -> bytes:
    """Return one chunk of a body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


ANSWERS: Mapping[str, tuple[int, Callable[[], tuple[bytes, bytes]]]] = {
    "endless": (SIZE, lambda: (CHUNKED + b"\r\n", chunk(b"x" * 8_192))),
    "chunks of one byte": (SIZE, lambda: (CHUNKED + b"\r\n", chunk(b"x") * 1_000)),
    "bomb": (MIB, bomb),
    "empty blocks": (SIZE, empty_blocks),
}
"""The size of an answer, and what is sent: once, and then without end."""


async def serve(start: bytes, more: bytes) -> None:
    """Answer on a free port of loopback, which is printed, until standard input ends."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]))
                writer.write(start)
                while more:
                    writer.write(more)
                    await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            writer.close()

    listener = await asyncio.start_server(answer, "127.0.0.1", 0)
    print(listener.sockets[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    listener.close()


def polling(name: str, carrier: str) -> Measured:
    """Measure what polls take that get one of the answers, all at once."""
    with child([sys.executable, __file__, "--serve", name]) as port:
        before = resident()
        blocked = asyncio.run(poll_all(carrier, f"http://127.0.0.1:{port}/v1"))
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    return Measured(sent=ANSWERS[name][0], seconds=blocked, mib=max(0, grown) / AT_ONCE / MIB)


async def poll_all(carrier: str, base_url: str) -> float:
    """Poll, and return the longest time for which the event loop was blocked."""
    blocked = 0.0

    async def watch() -> None:
        nonlocal blocked
        while True:
            began = time.thread_time()
            await asyncio.sleep(0)
            blocked = max(blocked, time.thread_time() - began)

    async with opened(carrier, base_url) as client:

        async def poll(number: int) -> None:
            try:
                await client.job_status("user-1", f"job-{number}")
            except smilejobs.SmileJobsError:
                return
            raise AssertionError("a hostile answer was read")

        watching = asyncio.create_task(watch())
        await asyncio.gather(*map(poll, range(AT_ONCE)))
        watching.cancel()
    return blocked


@asynccontextmanager
async def opened(carrier: str, base_url: str) -> AsyncGenerator[smilejobs.Client, None]:
    """Open a client over a carrier."""
    name, _, kind = carrier.partition(" ")
    options: dict[str, Any] = {"max_connections": AT_ONCE, "rate": None, "attempts": 1, "request_timeout": 5}

    def make(**more: Any) -> smilejobs.Client:
        return smilejobs.Client(partner_id="085", api_key="fictional-key", base_url=base_url, **options, **more)

    if kind == "pool":
        async with make(transport=name) as client:
            yield client
    elif kind == "session":
        async with aiohttp.ClientSession() as session, make(http_client=session) as client:
            yield client
    else:
        library = {"httpx": httpx, "httpx2": httpx2}[name]
        own = library.AsyncClient(timeout=None, limits=library.Limits(max_connections=AT_ONCE))
        async with own as http_client, make(http_client=http_client) as client:
            yield client


# A case is a function without arguments that measures something; add those of further parts of the library here.
CASES: Mapping[str, Callable[[], Measured]] = {
    **{f"reading: {what}": partial(reading, make) for what, make in BODIES.items()},
    **{f"{name}, {carrier}": partial(polling, name, carrier) for name in ANSWERS for carrier in CARRIERS},
}


def main() -> int:
    """Run the cases, print a table, and say by the exit code whether the bars hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", metavar="TEXT", help="run the cases with this text in their name")
    parser.add_argument("--case", metavar="NAME", help=argparse.SUPPRESS)
    parser.add_argument("--serve", metavar="NAME", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve is not None:
        pin(1)
        asyncio.run(serve(*ANSWERS[arguments.serve][1]()))
        return 0
    if arguments.case is not None:
        measured = CASES[arguments.case]()
        print(json.dumps([measured.sent, measured.seconds, measured.mib]))
        return 0
    are_all_within = True
    print("| case | sent, MiB | blocked, s | memory, MiB | within |\n|---|---:|---:|---:|---|")
    for name in CASES:
        if arguments.only in name:
            run = subprocess.run([sys.executable, __file__, "--case", name], capture_output=True, check=True, text=True)
            measured = Measured(*json.loads(run.stdout))
            within = "yes" if measured.is_within_bars else "no"
            figures = f"{measured.sent / MIB:.2f} | {measured.seconds:.3f} | {measured.mib:.1f}"
            print(f"| {name} | {figures} | {within} |", flush=True)
            are_all_within = are_all_within and measured.is_within_bars
    return 0 if are_all_within else 1


if __name__ == "__main__":
    sys.exit(main())
