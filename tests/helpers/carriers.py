"""A client over each HTTP carrier, and servers that misbehave."""

import json
import ssl
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import aiohttp
import httpx
import httpx2
import pytest

from smilejobs import Client
from smilejobs.settings import Credentials
from smilejobs.wire.signature import format_timestamp, sign
from tests.helpers.patience import stepped_clock
from tests.helpers.servers import Handler, Stream, http

CREDENTIALS = Credentials("085", "sandbox-key")
LIMIT = 100_000
OpenClient = Callable[..., AbstractAsyncContextManager[Client]]


@pytest.fixture
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, object]]:
    return stepped_clock(request.param)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Own pools over httpx, httpx2 and aiohttp, and injected clients and sessions; aiohttp knows no trio."""
    if "open_client" in metafunc.fixturenames:
        ways = ["httpx pool", "httpx2 pool", "httpx", "httpx2"]
        pairs = [(backend, way) for backend in ("asyncio", "trio") for way in ways]
        pairs += [("asyncio", "aiohttp pool"), ("asyncio", "aiohttp session")]
        metafunc.parametrize(("anyio_backend", "open_client"), pairs, indirect=True)
    elif "anyio_backend" in metafunc.fixturenames:
        metafunc.parametrize("anyio_backend", ["asyncio", "trio"], indirect=True)


@pytest.fixture
def open_client(request: pytest.FixtureRequest) -> OpenClient:
    """Open a client whose pool has one connection, over its own pool or over an injected client."""

    @asynccontextmanager
    async def opened(url: str, verify: ssl.SSLContext | bool = True, **options: Any) -> AsyncGenerator[Client, None]:
        options = {"max_connections": 1, "rate": None, "attempts": 1, "max_response_bytes": LIMIT, **options}

        def make(http_client: Any) -> Client:
            return Client(partner_id="085", api_key="sandbox-key", base_url=url, http_client=http_client, **options)

        if request.param.endswith(" pool"):
            options["transport"] = request.param.removesuffix(" pool")
            async with make(None) as client:
                yield client
            return
        if request.param == "aiohttp session":
            connector = aiohttp.TCPConnector(limit=1, ssl=verify)
            session = aiohttp.ClientSession(connector=connector, headers={"X-Theirs": "1", "Cookie": "theirs=1"})
            async with session, make(session) as client:
                yield client
                assert not session.closed
            return
        library = {"httpx": httpx, "httpx2": httpx2}[request.param]
        async with library.AsyncClient(verify=verify) as http_client, make(http_client) as client:
            yield client
            assert not http_client.is_closed

    return opened


def answer() -> bytes:
    timestamp = format_timestamp(datetime.now(UTC))
    return json.dumps(
        {"timestamp": timestamp, "signature": sign(CREDENTIALS, timestamp), "job_complete": False}
    ).encode()


def first(misbehave: Handler) -> Handler:
    """Misbehave at the first request, behave at all others."""
    requests = 0

    async def handler(stream: Stream, body: bytes) -> None:
        nonlocal requests
        requests += 1
        if requests == 1:
            await misbehave(stream, body)
        else:
            await stream.send(http(answer()))

    return handler


def sending(response: bytes, *, close: bool = False) -> Handler:
    async def handler(stream: Stream, body: bytes) -> None:
        await stream.send(response)
        if close:
            await stream.aclose()

    return handler


async def well(stream: Stream, body: bytes) -> None:
    await stream.send(http(answer()))
