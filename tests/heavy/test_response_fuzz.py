"""Responses with random faults, against every carrier: by name, with a seed; tens of thousands of them.

``SMILEJOBS_FUZZ_RESPONSES`` says how many each carrier gets (20,000 by default), ``SMILEJOBS_FUZZ_SEED`` the seed.
"""

import asyncio
import gzip
import json
import os
import random
import re
import time
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import aiohttp
import httpx
import httpx2
import pytest

import smilejobs
from smilejobs.settings import Credentials
from smilejobs.wire.signature import format_timestamp, sign

RESPONSES = int(os.environ.get("SMILEJOBS_FUZZ_RESPONSES", "20000"))
SEED = int(os.environ.get("SMILEJOBS_FUZZ_SEED", "0"))
AT_ONCE = 20
TIMEOUT = 2.0
CREDENTIALS = Credentials("085", "sandbox-key")
WAYS = ["httpx pool", "httpx2 pool", "aiohttp pool", "httpx", "httpx2", "aiohttp session"]

TOKENS = [
    b"\r\n", b"\n", b"\r", b"\0", b"\xff", b"\xe9", b" ", b"\t", b":", b"0\r\n\r\n", b"-1", b"99999999999999999999",
    b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/2 200\r\n", b"HTTP/1.1 204 No Content\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\n", b"Content-Length: 0\r\n", b"Content-Length: 5\r\n",
    b"Content-Length: x\r\n",
    b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: gzip, chunked\r\n", b"Content-Encoding: gzip\r\n",
    b"Content-Encoding: br\r\n", b"Content-Encoding: gzip, gzip\r\n", b"Connection: close\r\n",
    b"Connection: upgrade\r\nUpgrade: websocket\r\n", b"Location: //[::1\r\n", b"Set-Cookie: \xff=\0\r\n",
    b"Retry-After: \xd9\xa1\r\n", b"Content-Type: text/html; charset=\xff\r\n", b"{", b"[", b"\x1f\x8b", b"5;x=\r\n",
]  # fmt: skip


def good(job_id: str, rng: random.Random) -> bytes:
    """An answer about a job, in one of the ways in which it can be sent."""
    timestamp = format_timestamp(datetime.now(UTC))
    params = {"user_id": "user-1", "job_id": job_id, "job_type": 1}
    result = {"ResultCode": "0810", "PartnerParams": params}
    status = {"timestamp": timestamp, "signature": sign(CREDENTIALS, timestamp), "job_complete": True}
    body = json.dumps({**status, "code": "2302", "result": result}).encode()
    head = [b"HTTP/1.1 200 OK", b"Content-Type: application/json"]
    if rng.random() < 0.3:
        body = gzip.compress(body)
        head.append(b"Content-Encoding: gzip")
    if rng.random() < 0.5:
        head.append(b"Content-Length: %d" % len(body))
    else:
        head.append(b"Transfer-Encoding: chunked")
        cut = rng.randrange(1, len(body))
        body = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:cut], body[cut:])) + b"0\r\n\r\n"
    return b"\r\n".join([*head, b"", b""]) + body


def mutated(response: bytes, rng: random.Random) -> bytes:
    """The same with some faults, most of them in its head."""
    data = bytearray(response)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        end = len(data) if rng.random() < 0.4 else max(1, data.find(b"\r\n\r\n") + 4)
        at = rng.randrange(end) if data else 0
        match rng.randrange(6):
            case 0:
                data[at : at + 1] = bytes([rng.randrange(256)])
            case 1:
                data[at:at] = rng.choice(TOKENS)
            case 2:
                del data[at : at + rng.choice((1, 1, 2, 20))]
            case 3:
                lines = [match.end() for match in re.finditer(b"\r\n", bytes(data))] or [0]
                place = rng.choice(lines)
                data[place:place] = rng.choice(TOKENS)
            case 4:
                del data[at:]
            case _:
                data[at:at] = data[at : at + rng.choice((5, 50, 500))]
    return bytes(data)


class Hostile(asyncio.Protocol):
    """Answers every other request with faults; the seed says which."""

    rng: random.Random

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.buffer = b""

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n") + 4) >= 4:
            length = int(self.buffer[:end].lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
            if len(self.buffer) < end + length:
                return
            asked, self.buffer = json.loads(self.buffer[end : end + length]), self.buffer[end + length :]
            response = good(asked["job_id"], self.rng)
            if asked["job_id"].startswith("good"):
                self.transport.write(response)
                continue
            response = mutated(response, self.rng)
            cut = self.rng.randrange(len(response) + 1)
            self.transport.write(response[:cut])
            if self.rng.random() < 0.3:
                asyncio.get_running_loop().call_soon(self.transport.write, response[cut:])
            else:
                self.transport.write(response[cut:])
            if self.rng.random() < 0.9:
                self.transport.close()


class PatientEventLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock does not count the time for which a busy machine lets this process wait.

    Server and client run in it, so no timeout passes while neither of them can run. `tick` must run beside them.
    """

    def __init__(self) -> None:
        self._passed = 0.0
        self._read_at = time.monotonic()
        super().__init__()

    def time(self) -> float:
        now = time.monotonic()
        self._passed += min(now - self._read_at, 0.1)
        self._read_at = now
        return self._passed

    def tick(self) -> None:
        """Never let the event loop sleep for as long as its clock does not count."""
        self.call_later(0.05, self.tick)


@asynccontextmanager
async def opened(way: str, base_url: str) -> AsyncGenerator[smilejobs.Client, None]:
    options: dict[str, Any] = {"max_connections": AT_ONCE, "rate": None, "attempts": 1, "request_timeout": TIMEOUT}

    def make(**more: Any) -> smilejobs.Client:
        return smilejobs.Client(partner_id="085", api_key="sandbox-key", base_url=base_url, **options, **more)

    if way.endswith("pool"):
        async with make(transport=way.removesuffix(" pool")) as client:
            yield client
    elif way == "aiohttp session":
        async with aiohttp.ClientSession() as session, make(http_client=session) as client:
            yield client
    else:
        library = {"httpx": httpx, "httpx2": httpx2}[way]
        async with library.AsyncClient(timeout=None) as http_client, make(http_client=http_client) as client:
            yield client


@pytest.mark.parametrize("way", WAYS)
def test_whatever_comes_ends_one_poll_with_one_of_our_errors(way: str) -> None:
    """Nothing foreign comes out, no poll takes longer than its timeout, and no answer reaches another job's poll."""

    async def main() -> Counter[str]:
        Hostile.rng = random.Random(f"{SEED} {way}")
        seen: Counter[str] = Counter()
        numbers = iter(range(RESPONSES))
        foreign: list[object] = []
        loop = asyncio.get_running_loop()
        assert isinstance(loop, PatientEventLoop)
        loop.set_exception_handler(lambda _, context: foreign.append(context))
        listener = await loop.create_server(Hostile, "127.0.0.1", 0)
        port = listener.sockets[0].getsockname()[1]
        async with listener, opened(way, f"http://127.0.0.1:{port}/v1") as client:

            async def work() -> None:
                for number in numbers:
                    began = loop.time()
                    try:
                        status = await client.job_status("user-1", f"bad-{number}")
                    except smilejobs.SmileJobsError as error:
                        seen[re.sub(r" \[job.*", "", str(error))] += 1
                    else:
                        params = None if status.result is None else status.result.partner_params
                        assert params is None or params.job_id in (None, f"bad-{number}")
                        seen["answer"] += 1
                    assert loop.time() - began < TIMEOUT + 5, f"response {number} held a poll up"
                    if number % 10 == 0:
                        failures: list[str] = []
                        while len(failures) < 3:  # a stray answer may still meet one poll, but not all
                            try:
                                status = await client.job_status("user-1", f"good-{number}")
                            except smilejobs.SmileJobsError as error:
                                failures.append(str(error))
                                continue
                            assert status.job_complete
                            break
                        else:
                            raise AssertionError(f"after response {number} no poll works: {failures}")

            loop.tick()
            await asyncio.gather(*(work() for _ in range(AT_ONCE)))
        assert not foreign
        return seen

    with asyncio.Runner(loop_factory=PatientEventLoop) as runner:
        seen = runner.run(main())
    print(way, dict(seen))  # noqa: T201  # with -s, how often what was seen
    assert sum(seen.values()) == RESPONSES
    assert seen["answer"] > RESPONSES / 50
