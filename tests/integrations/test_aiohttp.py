"""The integration with aiohttp's server, over real sockets: the life of the client, and callbacks."""

import asyncio
import importlib
import logging
import socket
import sys
import zlib
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import anyio
import httpx
import pytest
from aiohttp import web

from smilejobs import Callback, CallbackVerifier, Client, Verdict
from smilejobs.integrations.aiohttp import CLIENT, callback_handler, cleanup_ctx
from smilejobs.testing import Script, complete, pending
from tests.helpers.patience import until
from tests.helpers.services import CREDENTIALS, MAX_BYTES, REF, REFUSALS, SECRETS, Refusal, by_aiohttp, callback

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def new_client(**options: Any) -> Client:
    return Client(partner_id="085", api_key="sandbox-key", base_url="http://localhost:1/v1", **options)


def now() -> datetime:
    return datetime.now(UTC)


def application(script: Script | None = None, **options: Any) -> web.Application:
    app = web.Application()
    app.cleanup_ctx.append(cleanup_ctx(lambda: new_client(http_client=script)))
    app.router.add_post("/callback", callback_handler(CallbackVerifier(CREDENTIALS, max_bytes=MAX_BYTES), **options))
    return app


@asynccontextmanager
async def service(
    script: Script | None = None, **options: Any
) -> AsyncGenerator[tuple[httpx.AsyncClient, Client], None]:
    """Run an application with a callback route behind a socket; yield an HTTP client for it, and its own client."""
    app = application(script, **options)
    async with by_aiohttp(app) as root, httpx.AsyncClient(base_url=root) as http:
        yield http, app[CLIENT]


@asynccontextmanager
async def waiting(client: Client, script: Script) -> AsyncGenerator[None, None]:
    """Run a wait that has polled once while the block runs; then check that it was notified."""

    async def wait() -> None:
        status = await client.wait(REF.user_id, REF.job_id, pace=lambda age, polls: 250.0)
        assert status.verdict is Verdict.APPROVED

    async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
        tasks.create_task(wait())
        await until(lambda: bool(script.polls[REF.job_id]))
        yield


async def raw(http: httpx.AsyncClient, request: bytes) -> bytes:
    """Send bytes and return the first bytes of the answer."""
    stream = await anyio.connect_tcp("127.0.0.1", int(http.base_url.port or 0))
    async with stream:
        await stream.send(request)
        with anyio.fail_after(120):
            return await stream.receive()


async def test_an_application_has_a_client_while_it_runs() -> None:
    """The client is open for the cleanup contexts after it, until their end."""
    seen: list[Client] = []

    async def mine(app: web.Application) -> AsyncIterator[None]:
        seen.append(app[CLIENT])
        yield
        await seen[0].aclose()

    app = application()
    app.cleanup_ctx.append(mine)
    async with by_aiohttp(app):
        assert seen == [app[CLIENT]]
    with pytest.raises(RuntimeError, match="closed"):
        await seen[0].job_status("user-1", "job-1")


async def test_two_applications_have_two_clients_and_an_inner_one_has_that_of_the_outer() -> None:
    """`request.config_dict` searches outer applications too, and so does the callback handler."""
    first, second, inner = application(), application(), web.Application()
    inner.router.add_post("/callback", callback_handler(CallbackVerifier(CREDENTIALS)))

    async def whose(request: web.Request) -> web.Response:
        return web.json_response(id(request.config_dict[CLIENT]))

    for app in (first, second, inner):
        app.router.add_get("/whose", whose)
    first.add_subapp("/inner", inner)
    async with by_aiohttp(first) as root, by_aiohttp(second) as other, httpx.AsyncClient() as http:
        assert (await http.get(f"{root}/whose")).json() == id(first[CLIENT])
        assert (await http.get(f"{root}/inner/whose")).json() == id(first[CLIENT])
        assert (await http.get(f"{other}/whose")).json() == id(second[CLIENT]) != id(first[CLIENT])
        assert (await http.post(f"{root}/inner/callback", content=callback(now()))).status_code == 200


async def test_without_a_client_the_handler_says_what_is_missing(caplog: pytest.LogCaptureFixture) -> None:
    """The log says it, because the service is wrong; the vendor repeats the callback."""
    app = web.Application()
    app.router.add_post("/callback", callback_handler(CallbackVerifier(CREDENTIALS)))
    async with by_aiohttp(app) as root, httpx.AsyncClient(base_url=root) as http:
        assert (await http.post("/callback", content=callback(now()))).status_code == 500
    assert "cleanup_ctx.append" in caplog.text


async def test_by_default_the_client_is_that_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is `Client.from_env()`."""
    for name, value in {"PARTNER_ID": "085", "API_KEY": "key", "ENVIRONMENT": "sandbox"}.items():
        monkeypatch.setenv(f"SMILE_{name}", value)
    app = web.Application()
    app.cleanup_ctx.append(cleanup_ctx())
    async with by_aiohttp(app):
        assert "testapi" in repr(app[CLIENT])


async def test_wrong_arguments_are_refused_at_once() -> None:
    """A client in place of a function, credentials in place of a verifier."""
    wrong: Any = new_client()
    with pytest.raises(TypeError, match="open_client must be a function"):
        cleanup_ctx(wrong)
    with pytest.raises(TypeError, match="CallbackVerifier"):
        callback_handler(wrong)


async def test_without_the_extra_the_import_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the extra."""
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    monkeypatch.delitem(sys.modules, "smilejobs.integrations.aiohttp")
    with pytest.raises(ImportError, match=r"pip install 'smilejobs\[aiohttp\]'"):
        importlib.import_module("smilejobs.integrations.aiohttp")


async def test_a_callback_notifies_a_wait() -> None:
    """The answer is an empty 200; the wait polls, and has its result long before its pace would poll."""
    script = Script({REF.job_id: [pending(), complete()]})
    async with service(script) as (http, client), waiting(client, script):
        answer = await http.post("/callback", content=callback(now()))
        assert (answer.status_code, answer.content) == (200, b"")


async def test_a_duplicate_is_taken_like_the_first() -> None:
    """The vendor repeats a callback because the first answer was lost: it notifies as well."""
    script = Script({REF.job_id: [pending(), complete()]})
    seen: list[bool] = []

    async def on_callback(news: Callback) -> None:
        seen.append(news.duplicate)

    async with service(script, on_callback=on_callback) as (http, client):
        body = callback(now())
        assert (await http.post("/callback", content=body)).status_code == 200
        async with waiting(client, script):
            assert (await http.post("/callback", content=body)).status_code == 200
    assert seen == [False, True]


@pytest.mark.parametrize("refusal", REFUSALS.values(), ids=list(REFUSALS))
async def test_a_refused_callback_notifies_no_wait(refusal: Refusal, caplog: pytest.LogCaptureFixture) -> None:
    """The status says why, the body is empty, and the log holds neither ids nor secrets."""
    caplog.set_level(logging.DEBUG)
    async with service(on_callback=lambda news: pytest.fail("refused")) as (http, _):
        answer = await http.post("/callback", content=refusal.body(now()))
    assert (answer.status_code, answer.content) == (refusal.http_status, b"")
    assert "callback refused" in caplog.text
    assert not [secret for secret in SECRETS if secret in caplog.text]


async def test_the_largest_body_is_the_verifiers_business() -> None:
    """The server's own limit of 1 MiB would refuse callbacks of the vendor."""
    app = application()
    app.router.add_post("/large", callback_handler(CallbackVerifier(CREDENTIALS)))
    body = callback(now(), Photo="x" * 1_500_000)
    async with by_aiohttp(app) as root, httpx.AsyncClient(base_url=root) as http:
        assert (await http.post("/large", content=body)).status_code == 200
        assert (await http.post("/callback", content=body)).status_code == 413


async def test_of_what_is_too_large_no_more_is_kept() -> None:
    """The answer comes before the body has ended."""
    async with service() as (http, _):
        port = http.base_url.port
        stream = await anyio.connect_tcp("127.0.0.1", int(port or 0))
        async with stream:
            await stream.send(b"POST /callback HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
            for _ in range(MAX_BYTES // 100 + 1):
                await stream.send(b"64\r\n" + b"x" * 100 + b"\r\n")
            with anyio.fail_after(120):
                assert (await stream.receive()).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize(
    "request_",
    [
        b"Transfer-Encoding: chunked\r\n\r\nnot a length\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n5\r\nabcdefgh\r\n",
        b"Content-Length: many\r\n\r\n",
    ],
)
async def test_a_body_that_http_cannot_read_is_malformed(request_: bytes) -> None:
    """Invalid chunks, an invalid length."""
    async with service(on_callback=lambda news: pytest.fail("malformed")) as (http, _):
        answer = await raw(http, b"POST /callback HTTP/1.1\r\nHost: x\r\n" + request_)
    assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.0 400 "))


@pytest.mark.parametrize("coding", ["gzip", "deflate", "identity, gzip"])
async def test_a_compressed_body_is_refused(coding: str) -> None:
    """With 415 as on FastAPI, although the server could decompress it: a small body can expand to a large one."""
    packed = zlib.compress(callback(now()), wbits=31 if coding == "gzip" else 15)
    async with service(on_callback=lambda news: pytest.fail("compressed")) as (http, _):
        answer = await http.post("/callback", content=packed, headers={"content-encoding": coding})
        assert (answer.status_code, answer.content) == (415, b"")
        assert (answer.headers["accept-encoding"], answer.headers["connection"]) == ("identity", "close")
        plain = await http.post("/callback", content=b"", headers={"content-encoding": "identity"})
        assert plain.status_code == 400


async def test_a_body_has_a_time_limit() -> None:
    """A body that never ends is answered with 408, and its connection is closed."""
    async with service(body_timeout=0.05, on_callback=lambda news: pytest.fail("slow")) as (http, _):
        answer = await raw(http, b"POST /callback HTTP/1.1\r\nHost: x\r\nContent-Length: 500\r\n\r\n{")
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"\r\nconnection: close\r\n" in answer.lower()


@pytest.mark.parametrize("abort", [False, True])
async def test_a_callback_that_breaks_off_is_nothing(abort: bool, caplog: pytest.LogCaptureFixture) -> None:
    """No error is logged, no wait is notified, and the server continues."""
    async with service(on_callback=lambda news: pytest.fail("broken")) as (http, _):
        with socket.create_connection(("127.0.0.1", int(http.base_url.port or 0))) as connection:
            connection.sendall(b"POST /callback HTTP/1.1\r\nHost: x\r\nContent-Length: 500\r\n\r\n{")
            await asyncio.sleep(0.02)
            if abort:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        await asyncio.sleep(0.02)
        assert (await http.post("/callback", content=b"")).status_code == 400
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == [
        "callback refused: the callback cannot be read: it is empty"
    ]


async def test_what_else_is_done_may_fail(caplog: pytest.LogCaptureFixture) -> None:
    """An error of on_callback is a 500, so the vendor repeats the callback; the waits were notified before."""

    async def fail(news: Callback) -> None:
        raise OSError

    script = Script({REF.job_id: [pending(), complete()]})
    async with service(script, on_callback=fail) as (http, client), waiting(client, script):
        assert (await http.post("/callback", content=callback(now()))).status_code == 500
    assert "OSError" in caplog.text


async def test_a_wait_ends_when_its_http_client_goes() -> None:
    """The server cancels it with ``handler_cancellation``."""
    script = Script({REF.job_id: [pending()]})
    app = application(script)
    ended = asyncio.Event()

    async def result(request: web.Request) -> web.Response:
        try:
            await request.config_dict[CLIENT].wait(REF.user_id, REF.job_id, timeout=None)
        finally:
            ended.set()
        pytest.fail("it has no end")

    app.router.add_get("/result", result)
    async with by_aiohttp(app) as root, httpx.AsyncClient(base_url=root) as http:
        asking = asyncio.create_task(http.get("/result"))
        await until(lambda: bool(script.polls[REF.job_id]))
        asking.cancel()
        await asyncio.wait_for(ended.wait(), 120)
