"""The own pool over httpx and over aiohttp: the same trust, proxies, limits and ends, over real sockets."""

import asyncio
import gc
import logging
import random
import socket
import ssl
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from threading import Event
from typing import Any

import aiohttp
import anyio
import anyio.lowlevel
import httpx
import httpx2
import pytest
import trustme
from anyio.abc import SocketAttribute, SocketStream

import smilejobs
from smilejobs import Client, TransportName
from smilejobs.transport import Transport
from tests.helpers.carriers import answer, well
from tests.helpers.carriers import sending as sending_answer
from tests.helpers.patience import settled, until
from tests.helpers.servers import Server, Stream, http, serve, serve_proxy

pytestmark = pytest.mark.anyio

PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Both own pools, on all that they know; the other tests say on what they run, or run on both event loops."""
    is_said = any("anyio_backend" in mark.args[0] for mark in metafunc.definition.iter_markers("parametrize"))
    if is_said:
        return
    if "transport" in metafunc.fixturenames and "anyio_backend" in metafunc.fixturenames:
        pairs = [("asyncio", "httpx"), ("trio", "httpx"), ("asyncio", "httpx2"), ("trio", "httpx2")]
        pairs.append(("asyncio", "aiohttp"))
        metafunc.parametrize(("anyio_backend", "transport"), pairs)
    elif "transport" in metafunc.fixturenames:
        metafunc.parametrize("transport", ["httpx", "httpx2", "aiohttp"])
    elif "anyio_backend" in metafunc.fixturenames:
        metafunc.parametrize("anyio_backend", ["asyncio", "trio"])


@pytest.fixture
def anyio_backend() -> str:
    """Overrides that of all the other tests, whose clock is not for real sockets."""
    raise NotImplementedError("pytest_generate_tests says it")


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost", "api.example").configure_cert(context)
    return context


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, authority: trustme.CA, tmp_path: Path) -> None:
    """The environment trusts the authority and names no proxy."""
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


def client_of(url: str, **options: Any) -> Client:
    options = {"max_connections": 1, "rate": None, "attempts": 1, "request_timeout": 60, **options}
    return Client(partner_id="085", api_key="sandbox-key", base_url=url, **options)


async def ask(client: Client) -> None:
    with anyio.fail_after(120):
        assert not (await client.job_status("user-1", "job-1")).job_complete


async def failure(client: Client) -> tuple[str, bool]:
    """Why a poll failed, in words, and whether that is transient."""
    with anyio.fail_after(120), pytest.raises(smilejobs.RequestError) as caught:
        await client.job_status("user-1", "job-1")
    return str(caught.value).partition(" [")[0], caught.value.transient


@asynccontextmanager
async def listening(connection: Callable[[SocketStream], Awaitable[None]]) -> AsyncGenerator[int, None]:
    """A port where whoever connects is met by *connection*."""
    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, connection)
        yield listener.extra(SocketAttribute.local_port)
        tasks.cancel_scope.cancel()


# --- Trust


async def test_the_environment_says_who_is_trusted(transport: TransportName, tls: ssl.SSLContext) -> None:
    """As for httpx, SSL_CERT_FILE counts; the connection is kept, and closing it leaves nothing behind."""
    async with serve(well, tls) as server:
        async with client_of(server.url("https"), transport=transport) as client:
            for _ in range(3):
                await ask(client)
        await anyio.lowlevel.checkpoint()  # until then an event loop holds the last exception of the task
        gc.collect()
    assert (server.connections, server.requests) == (1, 3)


@pytest.mark.parametrize("who", ["another host", "another authority"])
async def test_nobody_else_is_trusted(transport: TransportName, authority: trustme.CA, who: str) -> None:
    """A certificate for another name is as bad as one from somebody else."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if who == "another host":
        authority.issue_cert("other.example").configure_cert(context)
    else:
        trustme.CA().issue_cert("localhost").configure_cert(context)
    async with serve(well, context) as server, client_of(server.url("https"), transport=transport) as client:
        why = "Hostname mismatch" if who == "another host" else "unable to get local issuer certificate"
        assert await failure(client) == (f"no answer: the server's certificate is not trusted ({why})", False)
    assert server.requests == 0


async def test_a_server_that_speaks_no_tls(transport: TransportName) -> None:
    """It may come to its senses."""

    async def greet(stream: SocketStream) -> None:
        async with stream:
            await stream.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with listening(greet) as port, client_of(f"https://localhost:{port}/v1", transport=transport) as client:
        assert await failure(client) == ("no answer: TLS failed (wrong version number)", True)


async def test_a_host_that_does_not_exist(transport: TransportName) -> None:
    """Names that are not found may be found later."""
    with pytest.raises(socket.gaierror) as theirs:
        socket.getaddrinfo("no-such-host.invalid", 443)
    async with client_of("https://no-such-host.invalid/v1", transport=transport) as client:
        words = f"no answer: the name of the host was not resolved ({theirs.value.strerror})"
        assert await failure(client) == (words, True)


def test_certificates_that_are_not_there(transport: TransportName, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong path is seen before the first request."""
    monkeypatch.setenv("SSL_CERT_FILE", "/no/such/file.pem")
    with pytest.raises(ValueError, match="^SSL_CERT_FILE: '/no/such/file.pem': No such file or directory"):
        client_of("https://localhost/v1", transport=transport)


# --- Proxies


@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"])
@pytest.mark.parametrize("address", ["http://127.0.0.1:{port}", "127.0.0.1:{port}", "https://localhost:{port}"])
async def test_https_goes_through_the_proxy_of_the_environment(
    transport: TransportName, tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch, variable: str, address: str
) -> None:
    """The proxy gets to know the host and nothing else; connections through it are kept."""
    proxy_tls = tls if address.startswith("https") else None
    async with serve(well, tls) as server, serve_proxy(server.port, proxy_tls) as proxy:
        monkeypatch.setenv(variable, address.format(port=proxy.port))
        async with client_of("https://api.example/v1", transport=transport) as client:
            await ask(client)
            await ask(client)
        await anyio.lowlevel.checkpoint()  # until then an event loop holds the last exception of the task
        gc.collect()
    assert (proxy.connections, server.connections, server.requests) == (1, 1, 2)
    assert [head.split(b" HTTP/1.1")[0] for head in proxy.heads] == [b"CONNECT api.example:443"]
    assert b"authorization" not in proxy.heads[0].lower() + b"".join(server.heads).lower()


async def test_a_proxy_may_want_a_password(
    transport: TransportName, tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The proxy gets it, the server does not."""
    async with serve(well, tls) as server, serve_proxy(server.port) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://jane:p%40ss%C3%A9@127.0.0.1:{proxy.port}")
        async with client_of("https://api.example/v1", transport=transport) as client:
            await ask(client)
    assert b"uthorization: Basic " + b64encode("jane:p@ssé".encode()) in proxy.heads[0]
    assert b"authorization" not in server.heads[0].lower()


@pytest.mark.parametrize("exceptions", ["localhost", "other.example, localhost", "*", "localhost:{port}"])
@pytest.mark.parametrize("variable", ["NO_PROXY", "no_proxy"])
async def test_no_proxy_is_obeyed(
    transport: TransportName, tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch, variable: str, exceptions: str
) -> None:
    """Hosts are named as they are for other programs."""
    async with serve(well, tls) as server, serve_proxy(server.port) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.port}")
        monkeypatch.setenv(variable, exceptions.format(port=server.port))
        async with client_of(server.url("https"), transport=transport) as client:
            await ask(client)
    assert (proxy.connections, server.requests) == (0, 1)


@pytest.mark.parametrize("status", ["403 Forbidden", "407 Proxy Authentication Required", "502 Bad Gateway"])
async def test_a_proxy_that_refuses(transport: TransportName, status: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is named as the one at fault, with its status, and the connection is given up."""
    refusal = http(b"", status)
    async with serve_proxy(0, refusal=refusal) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://jane:secret@127.0.0.1:{proxy.port}")
        async with client_of("https://api.example/v1", transport=transport) as client:
            for _ in range(2):
                words = "no answer: the proxy refused to connect to the server"
                assert await failure(client) == (f"{words} (HTTP {status[:3]}); see HTTPS_PROXY, ALL_PROXY", True)
    assert proxy.connections == 2


async def test_a_proxy_that_is_not_there(transport: TransportName, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a server that is not there."""
    async with serve(well) as nobody:
        pass
    monkeypatch.setenv("HTTPS_PROXY", f"http://jane:secret@127.0.0.1:{nobody.port}")
    async with client_of("https://api.example/v1", transport=transport) as client:
        assert await failure(client) == ("no answer: Connection refused", True)


@pytest.mark.parametrize("address", ["http://proxy.example:port", "ftp://jane:secret@proxy.example"])
def test_a_proxy_that_can_never_be_right(
    transport: TransportName, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    """It is refused before the first request, and its password is not shown."""
    monkeypatch.setenv("HTTPS_PROXY", address)
    with pytest.raises(ValueError, match="HTTPS_PROXY") as caught:
        client_of("https://api.example/v1", transport=transport)
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_socks_is_for_httpx(monkeypatch: pytest.MonkeyPatch) -> None:
    """Aiohttp cannot use such a proxy: it says so if it is asked for, and is not chosen if not."""
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:1080")
    monkeypatch.setitem(sys.modules, "socksio", None)
    with pytest.raises(ValueError, match="SOCKS"):
        client_of("https://api.example/v1", transport="aiohttp")
    with pytest.raises(ImportError, match="socksio"):  # httpx was chosen
        client_of("https://api.example/v1")


# --- Connections


async def test_there_are_never_more_connections_than_allowed(transport: TransportName) -> None:
    """The pool itself sees to that, whoever uses it; they are all used, and kept."""

    async def slow(stream: Stream, body: bytes) -> None:
        await anyio.sleep(0.01)
        await stream.send(http(answer()))

    async with serve(slow) as server:
        pool = Transport(
            server.url() + "/job_status",
            {},
            http_client=None,
            max_connections=3,
            request_timeout=60,
            max_response_bytes=100_000,
            transport=transport,
        )

        async def post() -> None:
            deadline = anyio.current_time() + 60
            assert await pool.post(b"{}", lambda answer: answer.http_status, deadline=deadline) == 200

        async with anyio.create_task_group() as tasks:
            for _ in range(20):
                tasks.start_soon(post)
        assert (server.most_open, server.connections, server.requests) == (3, 3, 20)
        await pool.aclose()


async def test_a_connection_that_was_closed_while_idle_is_replaced(transport: TransportName) -> None:
    """Nobody notices."""

    async def once(stream: Stream, body: bytes) -> None:
        await stream.send(http(answer()))
        await stream.aclose()

    async with serve(once) as server, client_of(server.url(), transport=transport) as client:
        for _ in range(5):
            await ask(client)
            await until(lambda: not server.open)
            await settled()
    assert server.connections == 5


async def test_a_kept_connection_that_the_server_closes_costs_nothing(transport: TransportName) -> None:
    """The poll is sent once more at once, over a new connection: no attempt is used up for it, and no backoff.

    The event of the poll tells the number of requests.
    """

    async def hang_up(stream: Stream, body: bytes) -> None:
        if server.requests == 2:
            await stream.aclose()
        else:
            await stream.send(http(answer()))

    events: list[smilejobs.Event] = []
    async with serve(hang_up) as server, client_of(server.url(), transport=transport, hooks=[events.append]) as client:
        await ask(client)
        await ask(client)
        assert (server.connections, server.requests) == (2, 3)
    assert [event.requests for event in events if isinstance(event, smilejobs.PollFinished)] == [1, 2]


async def test_a_new_connection_that_the_server_closes_is_an_error(transport: TransportName) -> None:
    """A request is not sent a third time."""

    async def hang_up(stream: Stream, body: bytes) -> None:
        if server.requests > 1:
            await stream.aclose()
        else:
            await stream.send(http(answer()))

    events: list[smilejobs.Event] = []
    async with serve(hang_up) as server, client_of(server.url(), transport=transport, hooks=[events.append]) as client:
        await ask(client)
        assert await failure(client) == ("no answer: the server closed the connection", True)
        assert server.requests == 3
    assert [event.requests for event in events if isinstance(event, smilejobs.PollFailed)] == [2]


async def test_cookies_are_not_kept(transport: TransportName) -> None:
    """Each poll stands for itself."""
    handler = sending_answer(http(answer(), "200 OK", "Set-Cookie: session=1; Path=/"))
    async with serve(handler) as server, client_of(server.url(), transport=transport) as client:
        await ask(client)
        await ask(client)
    assert b"cookie" not in b"".join(server.heads).lower()


async def test_a_request_timeout_includes_the_handshake(transport: TransportName) -> None:
    """Somebody who accepts connections and is silent then."""

    async def be_silent(stream: SocketStream) -> None:
        async with stream:
            await anyio.sleep_forever()

    async with listening(be_silent) as port:
        url = f"https://localhost:{port}/v1"
        async with client_of(url, transport=transport, request_timeout=0.05) as client:
            assert await failure(client) == ("no answer within 0.05 s", True)
        await anyio.lowlevel.checkpoint()  # until then an event loop holds the last exception of the task
        gc.collect()


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_cancelling_at_random_loses_no_connection(
    tls: ssl.SSLContext, transport: TransportName, scheme: str
) -> None:
    """Hundreds of polls cut short wherever they are; the one connection of the pool is there for the next one."""
    instants = random.Random(4)
    async with serve(in_pieces, tls if scheme == "https" else None) as server:
        async with client_of(server.url(scheme), transport=transport) as client:
            for number in range(300):
                with anyio.move_on_after(instants.uniform(0, 0.006)):
                    await client.job_status("user-1", "job-1")
                if number % 20 == 0:
                    await ask(client)
            await ask(client)
        await anyio.lowlevel.checkpoint()  # until then an event loop holds the last exception of the task
        gc.collect()
        await gone(server)


@pytest.mark.parametrize(("anyio_backend", "transport"), [("asyncio", "httpx"), ("asyncio", "aiohttp")])
@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_tasks_can_be_cancelled_at_random(tls: ssl.SSLContext, transport: TransportName, scheme: str) -> None:
    """The cancellation of asyncio itself, once or twice, of several polls at once."""
    instants = random.Random(5)
    async with serve(in_pieces, tls if scheme == "https" else None) as server:
        async with client_of(server.url(scheme), transport=transport, max_connections=3) as client:
            for _ in range(60):
                tasks = [asyncio.ensure_future(client.job_status("user-1", "job-1")) for _ in range(5)]
                for task in tasks:
                    await asyncio.sleep(instants.uniform(0, 0.002))
                    task.cancel()
                    if instants.random() < 0.3:
                        await asyncio.sleep(0)
                        task.cancel()
                await asyncio.wait(tasks)
            async with anyio.create_task_group() as group:
                for _ in range(6):
                    group.start_soon(ask, client)
        await anyio.lowlevel.checkpoint()  # until then an event loop holds the last exception of the task
        gc.collect()
        await gone(server)


async def in_pieces(stream: Stream, body: bytes) -> None:
    response = http(answer())
    for start in range(0, len(response), 100):
        await stream.send(response[start : start + 100])
        await anyio.sleep(0.001)


async def gone(server: Server) -> None:
    """All connections are closed, and nobody forgot one."""
    await until(lambda: not server.open)
    await anyio.lowlevel.checkpoint()  # until then an event loop holds the last exception of the task
    gc.collect()


# --- Which transport


CHOICE = """
import sys
import anyio
from smilejobs import Client

assert "aiohttp" not in sys.modules
backend, transport, port = sys.argv[1:]

async def main():
    client = Client(
        partner_id="085", api_key="sandbox-key", base_url=f"http://localhost:{port}/v1", transport=eval(transport)
    )
    async with client:
        await client.job_status("user-1", "job-1")
    print("aiohttp" in sys.modules)

anyio.run(main, backend=backend)
"""


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize(
    ("backend", "transport_argument", "is_aiohttp"),
    [
        ("asyncio", "None", True),
        ("asyncio", "'aiohttp'", True),
        ("asyncio", "'httpx'", False),
        ("trio", "None", False),
        ("trio", "'httpx'", False),
    ],
)
async def test_the_fast_transport_is_used_where_it_can_be(
    backend: str, transport_argument: str, *, is_aiohttp: bool
) -> None:
    """It is loaded by the first poll, and only where it is used."""
    async with serve(well) as server:
        command = [sys.executable, "-W", "error", "-c", CHOICE, backend, transport_argument, str(server.port)]
        run = await anyio.run_process(command, stderr=subprocess.STDOUT, check=False)
    assert run.stdout.decode().split() == [str(is_aiohttp)]


def test_the_extra_httpx2_may_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says what to install."""
    monkeypatch.setitem(sys.modules, "httpx2", None)
    with pytest.raises(ImportError, match=r"transport='httpx2' needs httpx2: pip install 'smilejobs\[httpx2\]'"):
        client_of("http://localhost:1/v1", transport="httpx2")


@pytest.mark.parametrize("anyio_backend", ["trio"])
async def test_aiohttp_needs_asyncio() -> None:
    """If it is asked for on trio, the first call says what to do."""
    async with client_of("http://localhost:1/v1", transport="aiohttp") as client:
        with pytest.raises(RuntimeError, match="asyncio; transport='httpx'"):
            await client.job_status("user-1", "job-1")


async def test_without_the_extra_httpx_does_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless aiohttp was asked for: then the error says what to install."""
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    monkeypatch.delitem(sys.modules, "smilejobs.transport.over_aiohttp", raising=False)
    with pytest.raises(ImportError, match=r"pip install 'smilejobs\[fast\]'"):
        client_of("http://localhost:1/v1", transport="aiohttp")
    async with serve(well) as server, client_of(server.url()) as client:
        await ask(client)


async def test_a_broken_extra_is_not_hidden(
    anyio_backend: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is an error where it was asked for, else a warning in the log and slow."""
    (tmp_path / "aiohttp.py").write_text("raise ImportError('half installed')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "aiohttp", raising=False)
    monkeypatch.delitem(sys.modules, "smilejobs.transport.over_aiohttp", raising=False)
    with pytest.raises(ImportError, match="half installed"):
        client_of("http://localhost:1/v1", transport="aiohttp")
    with caplog.at_level(logging.WARNING, "smilejobs"):
        async with serve(well) as server, client_of(server.url()) as client:
            await ask(client)
            await ask(client)
    expected = ["the extra 'fast' is broken, so requests are slower than they could be: half installed"]
    assert [record.message for record in caplog.records] == (expected if anyio_backend == "asyncio" else [])


@pytest.mark.parametrize("http_client", [httpx.Client(), httpx.AsyncClient, object(), "httpx", 1])
def test_other_objects_are_no_http_client(http_client: Any) -> None:
    """Before any request; the text names the argument and what it can be."""
    with pytest.raises(TypeError, match=r"http_client must be an httpx\.AsyncClient, httpx2.* or aiohttp"):
        client_of("http://localhost:1/v1", http_client=http_client)


def test_a_session_of_another_event_loop_is_refused() -> None:
    """With the first request, which is not sent."""

    async def make() -> aiohttp.ClientSession:
        return aiohttp.ClientSession()

    async def use() -> None:
        with pytest.raises(RuntimeError, match="http_client belongs to another event loop"):
            await client_of("http://localhost:1/v1", http_client=session).job_status("user-1", "job-1")

    with asyncio.Runner() as runner, asyncio.Runner() as another:
        session = runner.run(make())
        another.run(use())
        runner.run(session.close())


@pytest.mark.parametrize("name", ["curl", "", "HTTPX", 1])
def test_other_transports_are_refused(name: Any) -> None:
    """The text names those that there are."""
    with pytest.raises(ValueError, match="'httpx', 'httpx2', 'aiohttp' or None"):
        client_of("http://localhost:1/v1", transport=name)


def test_an_injected_client_has_a_transport_of_its_own(transport: TransportName) -> None:
    """Only one of them could be used."""
    with pytest.raises(ValueError, match="leave out transport=, or http_client="):
        client_of("http://localhost:1/v1", transport=transport, http_client=object())


async def test_a_client_that_was_never_used_can_be_closed(transport: TransportName) -> None:
    """There is nothing to close yet."""
    await client_of("http://localhost:1/v1", transport=transport).aclose()
    await client_of("http://localhost:1/v1").aclose()


@pytest.mark.parametrize("library", [httpx, httpx2])
async def test_a_closed_client_is_refused(library: Any) -> None:
    """Before any request."""
    http_client = library.AsyncClient()
    await http_client.aclose()
    with pytest.raises(ValueError, match="http_client is closed"):
        client_of("http://localhost:1/v1", http_client=http_client)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_closed_session_is_refused() -> None:
    """At the construction of the client, or with its first request."""
    session = aiohttp.ClientSession()
    client = client_of("http://localhost:1/v1", http_client=session)
    await session.close()
    with pytest.raises(RuntimeError, match="http_client is closed"):
        await client.job_status("user-1", "job-1")
    with pytest.raises(ValueError, match="http_client is closed"):
        client_of("http://localhost:1/v1", http_client=session)


def test_a_session_needs_asyncio() -> None:
    """On trio, the first call says what to do."""

    async def make() -> aiohttp.ClientSession:
        return aiohttp.ClientSession()

    async def on_trio() -> None:
        with pytest.raises(RuntimeError, match="needs asyncio; an httpx.AsyncClient"):
            await client_of("http://localhost:1/v1", http_client=session).job_status("user-1", "job-1")

    with asyncio.Runner() as runner:
        session = runner.run(make())
        anyio.run(on_trio, backend="trio")
        runner.run(session.close())


# --- What is written to logs


async def test_the_own_pool_writes_nothing_to_the_logs_of_libraries(
    transport: TransportName, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither a line for each request nor what the server wrote as its reason."""
    with caplog.at_level(logging.INFO):
        server = serve(sending_answer(http(answer(), "200 Jane")))
        async with server as seen, client_of(seen.url(), transport=transport) as client:
            await ask(client)
    assert [record for record in caplog.records if not record.name.startswith("smilejobs")] == []


# --- Names


@pytest.mark.parametrize(("anyio_backend", "transport"), [("asyncio", "aiohttp")])
def test_a_resolver_that_hangs_holds_nothing_up(
    anyio_backend: str, transport: TransportName, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wait that is cancelled ends at once, and so does the event loop."""
    hangs, goes_on = Event(), Event()

    def getaddrinfo(*args: object, **more: object) -> object:
        hangs.set()
        goes_on.wait()
        raise OSError

    async def main() -> None:
        async with client_of("https://api.example/v1", transport=transport) as client:
            task = asyncio.create_task(client.job_status("user-1", "job-1"))
            await asyncio.to_thread(hangs.wait)
            task.cancel()
            await asyncio.wait([task])

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    began = time.monotonic()
    asyncio.run(main())
    assert time.monotonic() - began < 120  # without it, for ever
    goes_on.set()
