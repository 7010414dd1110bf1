"""Ten minutes of faults: 20,000 jobs through a server that drops, delays, refuses and limits at random.

``nox -s soak``; SOAK_JOBS and SOAK_SECONDS make it shorter.
"""

import asyncio
import gc
import json
import os
import random
import ssl
import time
import warnings
import zlib
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest
import trustme

from smilejobs import Client, Credentials, JobRef, Outcome, Pace, Progress
from smilejobs.wire.signature import format_timestamp, sign
from tests.helpers.servers import Stream, http, serve

JOBS = int(os.environ.get("SOAK_JOBS", "20000"))
SECONDS = float(os.environ.get("SOAK_SECONDS", "600"))
CREDENTIALS = Credentials("085", "sandbox-key")


class Faulty:
    """Answers with faults; it allows 300 polls per second, and every job ends after a time of its own."""

    def __init__(self) -> None:
        self.draw = random.Random(0)
        self.begun = time.monotonic()
        self.tokens, self.at = 30.0, self.begun
        self.seen: Counter[str] = Counter()

    async def __call__(self, stream: Stream, body: bytes) -> None:
        chance = self.draw.random()
        self.seen["polls"] += 1
        if not self.allowed():
            self.seen["429"] += 1
            header = ["Retry-After: 1"] if chance < 0.2 else []
            await stream.send(http(b'{"message": "Too Many Requests"}', "429 Too Many Requests", *header))
        elif chance < 0.01:
            self.seen["dropped"] += 1
            await stream.aclose()
        elif chance < 0.02:
            self.seen["cut"] += 1
            await stream.send(http(self.answer(body))[:-20])
            await stream.aclose()
        elif chance < 0.03:
            self.seen["5xx"] += 1
            await stream.send(http(b"<html>Bad Gateway</html>", "502 Bad Gateway"))
        elif chance < 0.031:
            self.seen["silent"] += 1
            await anyio.sleep(8)
        else:
            if chance > 0.97:
                await anyio.sleep(self.draw.uniform(0, 2))
            await stream.send(http(self.answer(body)))

    def allowed(self) -> bool:
        now = time.monotonic()
        self.tokens, self.at = min(30.0, self.tokens + (now - self.at) * 300), now
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True

    def answer(self, body: bytes) -> bytes:
        asked = json.loads(body)
        timestamp = format_timestamp(datetime.now(UTC))
        signed = {"timestamp": timestamp, "signature": sign(CREDENTIALS, timestamp), "code": "2302"}
        ends_after = zlib.crc32(asked["job_id"].encode()) / 2**32 * SECONDS * 0.8
        if time.monotonic() - self.begun < ends_after:
            return json.dumps({**signed, "job_complete": False}).encode()
        params = {"user_id": asked["user_id"], "job_id": asked["job_id"], "job_type": 1}
        result = {"ResultCode": "1210", "SmileJobID": "0000000001", "PartnerParams": params}
        return json.dumps({**signed, "job_complete": True, "job_success": True, "result": result}).encode()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.anyio
async def test_a_batch_with_faults(anyio_backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every job is reported exactly once; memory stays flat; nothing warns, and no task is left."""
    authority = trustme.CA()
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(tls)
    authority.cert_pem.write_to_path(str(tmp_path / "authority.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    faulty, memory, snapshots = Faulty(), [], []
    tasks_before = len(asyncio.all_tasks())

    async def jobs() -> AsyncIterator[JobRef]:
        for index in range(JOBS):
            yield JobRef(f"user-{index}", f"job-{index}")
            if index % 100 == 0:
                await anyio.lowlevel.checkpoint()

    def on_progress(progress: Progress) -> None:
        snapshots.append(progress)
        if len(snapshots) % 50 == 0:
            memory.append(resident())

    reported: Counter[int] = Counter()
    kinds: Counter[str] = Counter()

    def count(outcome: Outcome) -> None:
        reported[outcome.index] += 1
        kinds[type(outcome.error).__name__] += 1

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        async with (
            serve(faulty, tls) as server,
            Client(
                partner_id="085",
                api_key="sandbox-key",
                base_url=server.url("https"),
                rate=None,
                request_timeout=5,
            ) as client,
            client.wait_many(
                jobs(),
                timeout=None,
                pace=Pace(min=5, max=SECONDS / 6, fraction=0.4),
                max_pending=10_000,
                on_progress=on_progress,
            ) as outcomes,
        ):
            async for outcome in outcomes:
                count(outcome)
        gc.collect()
    await anyio.sleep(0.1)
    # The figures of the run, shown by pytest -s.
    print(f"\n{dict(faulty.seen)}; {dict(kinds)}; {[round(each / 2**20) for each in memory]} MiB")  # noqa: T201  # the figures are what it is run for
    assert reported == Counter(dict.fromkeys(range(JOBS), 1))
    assert kinds == {"NoneType": JOBS}
    assert len(asyncio.all_tasks()) == tasks_before
    assert all(faulty.seen[kind] for kind in ("429", "dropped", "cut", "5xx", "silent"))
    settled = memory[len(memory) // 2 :]
    assert max(settled) < 1.15 * settled[0]


def resident() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * 4096
