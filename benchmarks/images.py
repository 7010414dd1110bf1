"""Pictures per second over a bare download loop, and the memory that saving them takes.

::

    python benchmarks/images.py [--pictures 10000] [--rounds 5] [--cheap] [--quick]

The sandbox, in a process and on a core of its own, answers polls with links to three pictures of 200 KB a job, and
serves those. On the other core, in alternating rounds, 50 jobs at a time:

- **bare**: a loop over aiohttp, as one writes it in an afternoon. It asks for the links, signing by hand, and reads
  what they lead to. Nothing is verified or checked.
- **bare, to files**: the same, and a thread writes each picture: `Path.write_bytes`, no fsync, under its last name.
- **images**: `Client.images`. The answer is verified; links, type, first bytes and size of a picture are checked.
- **save_images_many**: polled by the scheduler, checked as above; a picture is written under another name, fsynced, and
  given its name, and the folder is fsynced.

Each round gives one ratio of pictures per second, and the median counts. With ``--cheap`` the pictures come from a
server to which they cost nearly nothing, so that all of the time is the client's: the bars are lower then. Memory: the
resident set when `save_images_many` is through with a tenth of its first pictures, and at their end.

The exit code is 1 if a bar is missed. It needs the extras ``fast`` and ``sandbox``, and a Linux. Each file is truncated
after its round, but removed at the end only: ext4 makes the next files slowly while inodes are fresh from a removal.
"""

import argparse
import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from statistics import median, quantiles
from tempfile import TemporaryDirectory

import aiohttp

import smilejobs
from server import API_KEY, PARTNER_ID, child, pin, resident, signature
from smilejobs.sandbox import Sandbox

SIZE = 200_000
PER_JOB = 3
CONCURRENCY = 50
PICTURE = b"\x89PNG\r\n\x1a\n" + os.urandom(SIZE - 8)
BARS = (0.8, 0.8, 0.8)
CHEAP_BARS = (0.65, 0.5, None)
"""In memory; saved, over a loop that saves; saved, over a loop in memory. None where there is no bar."""
GROWTH = 10 * 2**20


def main() -> int:
    """Measure, print, and say by the exit code whether the bars hold."""
    parser = argparse.ArgumentParser(description="Pictures per second, and memory.")
    parser.add_argument("--pictures", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cheap", action="store_true", help="from a server to which a picture costs nearly nothing")
    parser.add_argument("--quick", action="store_true", help="1,500 pictures in each of 3 rounds")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.quick:
        options.pictures, options.rounds = 1500, 3
    if options.serve:
        pin(1)
        asyncio.run(serve() if options.cheap else serve_sandbox(options.pictures))
        return 0
    with server(["--pictures", str(options.pictures), *(["--cheap"] if options.cheap else [])]) as root:
        return compare(root, options.pictures, options.rounds, CHEAP_BARS if options.cheap else BARS)


def compare(root: str, pictures: int, rounds: int, bars: Sequence[float | None]) -> int:
    """Run the sides in turns, and print the medians."""
    memory: list[int] = []
    sides: dict[str, Callable[[Path], Coroutine[None, None, None]]] = {
        "bare": lambda folder: bare(root, pictures, None),
        "images": lambda folder: in_memory(root, pictures),
        "bare, to files": lambda folder: bare(root, pictures, folder),
        "save_images_many": lambda folder: saved(root, pictures, folder, memory),
    }
    taken: dict[str, list[float]] = {name: [] for name in sides}
    with TemporaryDirectory() as folder:
        for index in range(rounds):
            for name, side in sides.items():
                place = Path(folder, f"{name} {index}")
                place.mkdir()
                start = time.perf_counter()
                asyncio.run(side(place))
                taken[name].append(time.perf_counter() - start)
                for path in place.iterdir():
                    os.truncate(path, 0)
    for name, times in taken.items():
        print(f"{name:<20}{pictures / median(times):>10,.0f} pictures/s")
    met = True
    pairs = (("images", "bare"), ("save_images_many", "bare, to files"), ("save_images_many", "bare"))
    for (name, against), bar in zip(pairs, bars, strict=True):
        ratios = [theirs / ours for theirs, ours in zip(taken[against], taken[name], strict=True)]
        low, middle, high = quantiles(ratios, n=4)
        words = f"{name} over {against}: {middle:.2f} ({low:.2f} to {high:.2f})"
        if bar is not None:
            met = met and middle >= bar
            words += f", >= {bar} {'met' if middle >= bar else 'MISSED'}"
        print(words)
    growth = memory[1] - memory[0]
    print(f"memory grows by {growth / 2**20:.1f} MB, <= 10 MB {'met' if growth <= GROWTH else 'MISSED'}")
    return 0 if met and growth <= GROWTH else 1


async def bare(root: str, pictures: int, folder: Path | None) -> None:
    """Ask and download as a short program does."""
    jobs = iter(range(pictures // PER_JOB))

    async def links(job_id: str) -> list[str]:
        timestamp = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        signed = {"partner_id": PARTNER_ID, "timestamp": timestamp, "signature": signature(timestamp)}
        question = {**signed, "user_id": "user", "job_id": job_id, "image_links": True, "history": False}
        async with session.post(f"{root}/v1/job_status", json=question) as response:
            return list((await response.json())["image_links"].values())

    async def work() -> None:
        for index in jobs:
            for number, link in enumerate(await links(f"job-{index}")):
                async with session.get(link) as response:
                    data = await response.read()
                assert len(data) == SIZE
                if folder is not None:
                    await asyncio.to_thread((folder / f"{index}-{number}.png").write_bytes, data)

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=CONCURRENCY)) as session:
        await asyncio.gather(*(work() for _ in range(CONCURRENCY)))


def client(root: str) -> smilejobs.Client:
    """Return a client of as many connections."""
    return smilejobs.Client(
        partner_id=PARTNER_ID, api_key=API_KEY, base_url=f"{root}/v1", rate=None, max_connections=CONCURRENCY
    )


async def in_memory(root: str, pictures: int) -> None:
    """Fetch the pictures of one job after the other, many at a time."""
    jobs = iter(range(pictures // PER_JOB))

    async def work() -> None:
        for index in jobs:
            async for image in own.images("user", f"job-{index}"):
                assert len(image.data) == SIZE

    async with client(root) as own:
        await asyncio.gather(*(work() for _ in range(CONCURRENCY)))


async def saved(root: str, pictures: int, folder: Path, memory: list[int]) -> None:
    """Save the pictures of all jobs."""

    async def refs() -> AsyncIterator[tuple[str, str]]:
        for index in range(pictures // PER_JOB):
            yield "user", f"job-{index}"

    async with client(root) as own, own.save_images_many(refs(), folder) as outcomes:
        done = 0
        async for outcome in outcomes:
            assert outcome.error is None
            assert len(outcome.paths) == PER_JOB
            done += PER_JOB
            if not memory and done >= pictures // 10:
                memory.append(resident())
    if len(memory) == 1:
        memory.append(resident())


class Connection(asyncio.Protocol):
    """Answers polls with links, and links with a picture."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.root = f"http://127.0.0.1:{transport.get_extra_info('sockname')[1]}"
        self.buffer = b""

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n") + 4) >= 4:
            if self.buffer.startswith(b"GET"):
                self.buffer = self.buffer[end:]
                self.transport.write(FOUND)
                continue
            length = int(self.buffer[:end].lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
            if len(self.buffer) < end + length:
                return
            asked, self.buffer = json.loads(self.buffer[end : end + length]), self.buffer[end + length :]
            self.transport.write(self.answer(asked))

    def answer(self, asked: dict[str, str]) -> bytes:
        """A complete job with pictures."""
        timestamp = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
        query = f"X-Amz-Date={datetime.now(UTC):%Y%m%dT%H%M%SZ}&X-Amz-Expires=900&X-Amz-Signature={'0' * 64}"
        params = {"user_id": asked["user_id"], "job_id": asked["job_id"], "job_type": 6}
        status = {
            "timestamp": timestamp,
            "signature": signature(timestamp),
            "job_complete": True,
            "job_success": True,
            "code": "2302",
            "result": {"ResultCode": "0810", "PartnerParams": params},
            "image_links": {f"image_{index}": f"{self.root}/pictures/{index}?{query}" for index in range(PER_JOB)},
        }
        body = json.dumps(status).encode()
        return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body


FOUND = b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nContent-Length: %d\r\n\r\n" % SIZE + PICTURE


async def serve() -> None:
    """Answer on a free port of loopback, which is printed, until standard input ends."""
    loop = asyncio.get_running_loop()
    listener = await loop.create_server(Connection, "127.0.0.1", 0, backlog=1000)
    print(listener.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    listener.close()


async def serve_sandbox(pictures: int) -> None:
    """The same, by the sandbox."""
    sandbox = Sandbox(partner_id=PARTNER_ID, api_key=API_KEY, picture_bytes=SIZE)
    for index in range(pictures // PER_JOB):
        sandbox.submit("user", f"job-{index}", job_type=6, machine=0.0)
    async with sandbox.serve() as base_url:
        print(base_url.rpartition(":")[2].partition("/")[0], flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


@contextmanager
def server(arguments: Sequence[str] = ()) -> Iterator[str]:
    """Run the server on the second core, stay on the first one ourselves, and yield the root of its URLs."""
    command = [sys.executable, __file__, "--serve", *arguments]
    with child(command) as port:
        yield f"http://127.0.0.1:{port}"


if __name__ == "__main__":
    sys.exit(main())
