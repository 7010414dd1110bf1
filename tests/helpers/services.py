"""What the tests of web frameworks share: callbacks, good and bad, and apps behind real servers."""

import asyncio
import json
import socket
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import uvicorn
from aiohttp import web
from attrs import field, frozen

from smilejobs import Credentials, JobRef
from smilejobs.wire.signature import format_timestamp, sign
from tests.helpers.patience import until

CREDENTIALS = Credentials("085", "sandbox-key")
REF = JobRef("user-amber-17", "job-basalt-42")
MAX_BYTES = 2000
SECRETS = (REF.user_id, REF.job_id, "Ada Fiction", CREDENTIALS.api_key, "bucket.example")


def callback(at: datetime, ref: JobRef = REF, credentials: Credentials = CREDENTIALS, **more: object) -> bytes:
    """A callback that was made at that instant."""
    timestamp = format_timestamp(at)
    body = {
        "ResultCode": "0810",
        "PartnerParams": {"user_id": ref.user_id, "job_id": ref.job_id, "job_type": 1},
        "FullName": "Ada Fiction",
        "ImageLinks": {"selfie_image": "https://bucket.example/selfie.jpg"},
        "timestamp": timestamp,
        "signature": sign(credentials, timestamp),
        **more,
    }
    return json.dumps(body).encode()


@frozen
class Refusal:
    """A callback that is refused: why, with which status, and its body by the instant of its arrival."""

    reason: str
    http_status: int
    age: timedelta = timedelta()
    more: Mapping[str, Any] = field(factory=dict[str, Any])
    credentials: Credentials = CREDENTIALS

    def body(self, now: datetime) -> bytes:
        if self.reason == "malformed":
            return b"<html>" + REF.job_id.encode()
        return callback(now - self.age, credentials=self.credentials, **self.more)


REFUSALS = {
    refusal.reason: refusal
    for refusal in [
        Refusal("oversized", 413, more={"Address": "x" * MAX_BYTES}),
        Refusal("malformed", 400),
        Refusal("unsigned", 401, credentials=Credentials("085", "another-key")),
        Refusal("undated", 401, more={"timestamp": "soon", "signature": sign(CREDENTIALS, "soon")}),
        Refusal("stale", 401, age=timedelta(days=4)),
        Refusal("future", 401, age=timedelta(hours=-1)),
    ]
}
"""One for each reason."""


def pieces(body: bytes, cuts: Iterable[int]) -> list[bytes]:
    """A body, cut at these places."""
    places = [0, *sorted(cut for cut in cuts if cut < len(body)), len(body)]
    return [body[start:end] for start, end in pairwise(places)]


@frozen
class Serving:
    """An app behind a real server.

    Attributes:
        root: Its URL.
        under_way: Says how many requests are being answered.
    """

    root: str
    under_way: Callable[[], int]


@asynccontextmanager
async def by_uvicorn(app: Any, port: int = 0) -> AsyncGenerator[Serving, None]:
    """Serve an ASGI app while the block runs; the end is a graceful shutdown."""
    config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="on")
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", port), backlog=1000) as listener:
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            await until(lambda: server.started)
            root = f"http://127.0.0.1:{listener.getsockname()[1]}"
            yield Serving(root, lambda: len(server.server_state.tasks))
        finally:
            server.should_exit = True
            await serving


@asynccontextmanager
async def by_aiohttp(app: web.Application, port: int = 0) -> AsyncGenerator[str, None]:
    """Serve an application of aiohttp while the block runs, as ``run_app`` does; yield its root URL."""
    runner = web.AppRunner(app, handler_cancellation=True, access_log=None)
    with socket.create_server(("127.0.0.1", port)) as listener:
        try:
            await runner.setup()
            await web.SockSite(runner, listener).start()
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            await runner.cleanup()
