"""The sandbox over real sockets."""

import asyncio
import gc
import signal
import socket
from urllib.parse import urlsplit

import anyio
import httpx
import pytest

from smilejobs import Client, Verdict
from smilejobs.sandbox import Sandbox
from smilejobs.sandbox.server import _url

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def port_of(base_url: str) -> int:
    port = urlsplit(base_url).port
    assert port is not None
    return port


def client_of(base_url: str) -> Client:
    return Client(partner_id="085", api_key="sandbox-key", base_url=base_url)


async def test_a_job_is_waited_for_over_http() -> None:
    """A client that knows nothing but the URL and the credentials gets the result."""
    sandbox = Sandbox()
    ref = sandbox.submit("user-1", "job-1", machine=0.3)
    async with sandbox.serve() as base_url, client_of(base_url) as client:
        status = await client.wait("user-1", "job-1", pace=lambda age, polls: 0.1)
    assert status.verdict is Verdict.APPROVED
    assert sandbox.polls(ref) > 1


async def test_nothing_is_left_behind() -> None:
    """After the block the port is free, no task runs, no signal handler was replaced, and nothing was unclosed."""
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    tasks = asyncio.all_tasks()
    sandbox = Sandbox()
    sandbox.submit("user-1", "job-1")
    async with sandbox.serve() as base_url:
        async with client_of(base_url) as client:
            await client.job_status("user-1", "job-1")
        assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
        first = port_of(base_url)
    assert asyncio.all_tasks() == tasks
    async with sandbox.serve(port=first) as again:
        assert port_of(again) == first
    gc.collect()


async def test_a_body_that_is_too_large_is_not_read_to_its_end() -> None:
    """After a megabyte it is refused."""
    async with Sandbox().serve() as base_url, httpx.AsyncClient() as http_client:
        answer = await http_client.post(f"{base_url}/job_status", content=b" " * 1024 * 1024)
        assert answer.status_code == 400
        answer = await http_client.post(f"{base_url}/job_status", content=b" " * (1024 * 1024 + 1))
        assert (answer.status_code, answer.json()["code"]) == (413, "2303")


async def test_a_connection_that_is_idle_or_stuck_does_not_hold_up_the_end() -> None:
    """Whoever has not finished asking is cut off."""
    async with Sandbox().serve() as base_url:
        idle = await anyio.connect_tcp("127.0.0.1", port_of(base_url))
        stuck = await anyio.connect_tcp("127.0.0.1", port_of(base_url))
        await stuck.send(b"POST /v1/job_status HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{")
        await anyio.sleep(0.1)
        started = anyio.current_time()
    assert anyio.current_time() - started < 1
    async with idle, stuck:
        for stream in (idle, stuck):
            with pytest.raises(anyio.EndOfStream):
                await stream.receive()


async def test_the_server_ends_when_it_is_cancelled() -> None:
    """Cancelling the block closes everything all the same, and the port can be used again."""
    sandbox = Sandbox()
    async with anyio.create_task_group() as tasks, sandbox.serve() as base_url:
        tasks.cancel_scope.cancel()
        await anyio.sleep_forever()
    async with sandbox.serve(port=port_of(base_url)):
        pass


async def test_a_port_that_is_taken_is_an_os_error() -> None:
    """It is raised in the caller, and does not end the process."""
    with socket.create_server(("127.0.0.1", 0)) as listener, pytest.raises(OSError, match="in use"):
        async with Sandbox().serve(port=listener.getsockname()[1]):
            pytest.fail("there is somebody else at this port")


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8787"),
        ("localhost", "http://localhost:8787"),
        ("0.0.0.0", "http://127.0.0.1:8787"),
        ("::1", "http://[::1]:8787"),
        ("::", "http://[::1]:8787"),
    ],
)
def test_the_url_can_be_reached(host: str, url: str) -> None:
    """An address of IPv6 has its brackets; one that means everywhere is found on loopback."""
    assert _url(host, 8787) == url


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")
async def test_it_listens_on_ipv6() -> None:
    """The family of the socket follows the address."""
    sandbox = Sandbox()
    sandbox.submit("user-1", "job-1", machine=0)
    async with sandbox.serve(host="::1") as base_url, client_of(base_url) as client:
        assert (await client.job_status("user-1", "job-1")).job_complete


def test_on_trio_it_says_that_it_cannot() -> None:
    """Uvicorn needs asyncio; the error tells the way out."""

    async def main() -> None:
        with pytest.raises(RuntimeError, match="asyncio only"):
            async with Sandbox().serve():
                pytest.fail("uvicorn does not run on trio")

    anyio.run(main, backend="trio")
