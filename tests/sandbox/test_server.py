"""The sandbox over real sockets."""

import asyncio
import gc
import json
import re
import signal
import socket
from typing import Any
from urllib.parse import urlsplit

import anyio
import httpx
import pytest

from smilejobs import Client, Credentials, JobRef, SmileJobsError, Verdict
from smilejobs.clock import utcnow
from smilejobs.model.jobs import Include
from smilejobs.sandbox import FaultProfile, Sandbox
from smilejobs.sandbox.http.common import ConnectionCutError
from smilejobs.sandbox.server import make_url, serve
from smilejobs.wire.protocol import encode_request
from smilejobs.wire.signature import format_timestamp, sign
from tests.helpers.patience import free_port, settled, until

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def port_of(base_url: str) -> int:
    port = urlsplit(base_url).port
    assert port is not None
    return port


def client_of(base_url: str, **options: Any) -> Client:
    return Client(partner_id="085", api_key="sandbox-key", base_url=base_url, **options)


async def test_a_job_is_waited_for_over_http() -> None:
    """A client that knows nothing but the URL and the credentials gets the result."""
    sandbox = Sandbox()
    ref = sandbox.submit("user-1", "job-1", upload=None, machine=0)

    async def upload() -> None:
        await until(lambda: sandbox.polls(ref) > 0)
        sandbox.receive(ref)

    async with sandbox.serve() as base_url, client_of(base_url) as client, anyio.create_task_group() as tasks:
        tasks.start_soon(upload)
        status = await client.wait("user-1", "job-1", pace=lambda age, polls: 0.1)
    assert status.verdict is Verdict.APPROVED
    assert sandbox.polls(ref) > 1


async def test_nothing_is_left_behind() -> None:
    """After the block the port is free, no task runs, no signal handler was replaced, and nothing was unclosed."""
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    tasks = asyncio.all_tasks()
    sandbox = Sandbox()
    sandbox.submit("user-1", "job-1")
    port = free_port()
    async with sandbox.serve(port=port) as base_url:
        assert port_of(base_url) == port
        async with client_of(base_url) as client:
            await client.job_status("user-1", "job-1")
        assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert asyncio.all_tasks() == tasks
    async with sandbox.serve(port=port) as again:
        assert port_of(again) == port
    gc.collect()


async def test_a_body_that_is_too_large_is_not_read_to_its_end() -> None:
    """After a megabyte it is refused."""
    async with Sandbox().serve() as base_url, httpx.AsyncClient() as http_client:
        answer = await http_client.post(f"{base_url}/job_status", content=b" " * 1024 * 1024)
        assert answer.status_code == 400
        answer = await http_client.post(f"{base_url}/job_status", content=b" " * (1024 * 1024 + 1))
        assert (answer.status_code, answer.json()) == (413, {"message": "Request Too Long"})


async def test_a_connection_that_is_idle_or_stuck_does_not_hold_up_the_end() -> None:
    """Their connections are closed."""
    async with Sandbox().serve() as base_url:
        idle = await anyio.connect_tcp("127.0.0.1", port_of(base_url))
        stuck = await anyio.connect_tcp("127.0.0.1", port_of(base_url))
        await stuck.send(b"POST /v1/job_status HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{")
        await settled()
        started = anyio.current_time()
    # For an answer uvicorn waits forever, for another request two minutes.
    assert anyio.current_time() - started < 60
    async with idle, stuck:
        for stream in (idle, stuck):
            with pytest.raises(anyio.EndOfStream):
                await stream.receive()


async def test_the_server_ends_when_it_is_cancelled() -> None:
    """Cancelling the block closes everything all the same, and the port can be used again."""
    sandbox, port = Sandbox(), free_port()
    async with anyio.create_task_group() as tasks, sandbox.serve(port=port):
        tasks.cancel_scope.cancel()
        await anyio.sleep_forever()
    async with sandbox.serve(port=port):
        pass


async def test_a_start_that_is_cancelled_leaves_nothing_behind() -> None:
    """At any step: the port can be used again, nothing was unclosed, and the event loop watches no old socket."""
    sandbox = Sandbox()
    for steps in range(8):
        port = free_port()

        async def serve(port: int = port) -> None:
            async with sandbox.serve(port=port):
                await anyio.sleep_forever()

        task = asyncio.create_task(serve())
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        socket.create_server(("127.0.0.1", port)).close()
        # Its socket gets the number of the last one: the event loop would wait for the wrong one.
        async with sandbox.serve() as base_url, httpx.AsyncClient() as http_client:
            assert (await http_client.get(base_url, timeout=5)).status_code == 403
    gc.collect()


async def test_a_port_that_is_taken_is_an_os_error() -> None:
    """It is raised in the caller, and does not end the process; the text says which port, and what to do."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(OSError, match="in use") as refused:
            async with Sandbox().serve(port=port):
                pytest.fail("another program listens at this port")
    assert str(refused.value).startswith(f"port {port} of 127.0.0.1 is in use by another program")
    assert "choose another port" in str(refused.value)


async def test_an_address_of_another_machine_is_an_os_error() -> None:
    """What the system says about it is passed on."""
    with pytest.raises(OSError, match=r"192\.0\.2\.1|assign"):
        async with Sandbox().serve(host="192.0.2.1"):
            pytest.fail("it listens")


@pytest.mark.parametrize(
    ("host", "said"),
    [
        ("", "host must not be empty; to listen at every address of this machine, give 0.0.0.0 or ::"),
        ("\u00e4..b", "cannot listen at host '\u00e4..b', port 0: "),
    ],
)
async def test_a_host_that_can_not_be_listened_at_is_an_os_error(host: str, said: str) -> None:
    """None at all, which a socket would take for every address there is, or no name of a host."""
    with pytest.raises(OSError, match=re.escape(said)):
        async with Sandbox().serve(host=host):
            pytest.fail("it listens")


async def test_a_port_that_there_is_not_is_an_os_error() -> None:
    """It has sixteen bits."""
    with pytest.raises(OSError, match="port 65536"):
        async with Sandbox().serve(port=65_536):
            pytest.fail("it listens")


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
    assert make_url("http", host, 8787) == url


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


def raw_poll() -> bytes:
    """One poll, made by hand."""
    body = encode_request(JobRef("user-1", "job-1"), Credentials("085", "sandbox-key"), utcnow(), Include())
    return f"POST /v1/job_status HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def is_whole(answer: bytes) -> bool:
    """Whether its body is as long as its head says."""
    head, _, body = answer.partition(b"\r\n\r\n")
    return len(body) == int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])


async def ask_raw(port: int) -> bytes:
    """Send one poll over a connection of its own, and return all that comes until the server closes it."""
    received = b""
    async with await anyio.connect_tcp("127.0.0.1", port) as stream:
        await stream.send(raw_poll())
        try:
            async for piece in stream:
                received += piece
        except anyio.BrokenResourceError:
            pass
    return received


async def test_connections_are_cut_on_request(caplog: pytest.LogCaptureFixture) -> None:
    """Before the head or within the body: the connection closes, and nothing is logged; the next one is answered."""
    sandbox = Sandbox(faults=FaultProfile(cuts=1), seed=1)
    sandbox.submit("user-1", "job-1", machine=0)
    sandbox.submit("user-1", "job-2", machine=0, faults="none")
    async with sandbox.serve() as base_url:
        async with anyio.create_task_group() as tasks:
            answers: list[bytes] = []

            async def ask() -> None:
                answers.append(await ask_raw(port_of(base_url)))

            for _ in range(20):
                tasks.start_soon(ask)
        async with client_of(base_url, attempts=1) as client:
            assert (await client.job_status("user-1", "job-2")).job_complete
            with pytest.raises(SmileJobsError) as failed:
                await client.job_status("user-1", "job-1")
    assert failed.value.transient
    empty = [answer for answer in answers if not answer]
    partial = [answer for answer in answers if answer]
    assert min(len(empty), len(partial)) > 3
    for answer in partial:
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert not is_whole(answer)
    assert not caplog.records


async def test_an_answer_in_drips_does_not_hold_up_the_end(caplog: pytest.LogCaptureFixture) -> None:
    """Nor one that is late: their connections are closed, and nothing is logged."""
    sandbox = Sandbox(faults=FaultProfile(slow_bodies=1, slow=600))
    sandbox.submit("user-1", "job-1", machine=0)
    sandbox.submit("user-1", "job-2", machine=0, faults=FaultProfile(latency=600))

    async def fail(client: Client, job_id: str) -> None:
        with pytest.raises(SmileJobsError) as failed:
            await client.job_status("user-1", job_id)
        assert failed.value.transient

    with anyio.fail_after(120):
        async with anyio.create_task_group() as tasks, sandbox.serve() as base_url:
            client = client_of(base_url, attempts=1, request_timeout=600)
            for job_id in ("job-1", "job-2"):
                tasks.start_soon(fail, client, job_id)
            await until(lambda: all(sandbox.polls(JobRef("user-1", job_id)) == 1 for job_id in ("job-1", "job-2")))
            await settled()
    await client.aclose()
    assert not caplog.records


async def test_an_answer_is_not_held_back() -> None:
    """Its body follows its head at once: the least time between them is less than what systems wait for more."""
    sandbox = Sandbox()
    sandbox.submit("user-1", "job-1", machine=0)
    taken = []
    async with sandbox.serve() as base_url, await anyio.connect_tcp("127.0.0.1", port_of(base_url)) as stream:
        for _ in range(20):
            await stream.send(raw_poll())
            answer = await stream.receive()
            started = anyio.current_time()
            while not is_whole(answer):
                answer += await stream.receive()
            taken.append(anyio.current_time() - started)
    assert min(taken[10:]) < 0.035


async def test_the_page_is_served_at_the_address_that_is_listened_at() -> None:
    """And at names of this machine, but no others."""
    sandbox = Sandbox()
    async with sandbox.serve(host="0.0.0.0") as base_url, httpx.AsyncClient() as http_client:
        root = base_url.removesuffix("v1")
        assert (await http_client.get(root)).status_code == 200
        assert (await http_client.get(root, headers={"host": "0.0.0.0:1"})).status_code == 200
        assert (await http_client.get(root, headers={"host": "evil.example"})).status_code == 403


ROUTES = [
    ("POST", "/v1/job_status"),
    ("POST", "/v1/upload"),
    ("OPTIONS", "/v1/upload"),
    ("PUT", "/videos/085/085-1-2/selfie.zip"),
    ("GET", "/images/0000000001/SID_Preview_Full.png"),
    ("GET", "/"),
    ("GET", "/sandbox/jobs"),
    ("POST", "/sandbox/review"),
    ("GET", "/nothing"),
]


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.example"},
        {"host": "evil"},
        {"host": "localhost.evil.example:80"},
        {"host": "192.168.0.7"},
        {"host": ""},
        {"origin": "https://evil.example"},
        {"origin": "http://203.0.113.5"},
        {"origin": "null"},
        {"origin": "evil"},
        {"host": "evil.example", "origin": "http://evil.example"},
    ],
)
async def test_no_route_answers_a_page_from_elsewhere(headers: dict[str, str]) -> None:
    """By a name that it has made point here, or across origins: 403, and no job is registered or looked up."""
    sandbox = Sandbox()
    ref = sandbox.submit("user-1", "job-1", machine=0)
    async with sandbox.serve() as base_url, httpx.AsyncClient(base_url=base_url.removesuffix("/v1")) as http_client:
        for method, path in ROUTES:
            answer = await http_client.request(method, path, headers=headers, content=signed())
            assert (answer.status_code, answer.json().keys()) == (403, {"message"})
            assert "localhost" in answer.text
    assert (list(sandbox.jobs), sandbox.polls(ref)) == ([ref], 0)


def signed() -> bytes:
    """Return the body of a poll and of a registration, as an attacker with the key would send it."""
    timestamp = format_timestamp(utcnow())
    proof = {"timestamp": timestamp, "signature": sign(Credentials("085", "sandbox-key"), timestamp)}
    ids = {"user_id": "user-1", "job_id": "job-1"}
    params = {"partner_params": {"user_id": "user-1", "job_id": "job-2", "job_type": 1}}
    return json.dumps({**proof, **ids, **params, "partner_id": "085", "smile_client_id": "085"}).encode()


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"host": "localhost"},
        {"host": "127.0.0.1:1"},
        {"host": "[::1]:80"},
        {"host": "127.0.0.2"},
        {"origin": "http://localhost:3000"},
        {"origin": "http://127.0.0.1"},
        {"origin": "https://LOCALHOST"},
    ],
)
async def test_names_of_the_sandbox_are_answered(headers: dict[str, str]) -> None:
    """Those of this machine; also to pages of this machine."""
    sandbox = Sandbox()
    sandbox.submit("user-1", "job-1", machine=0)
    async with sandbox.serve() as base_url, httpx.AsyncClient(base_url=base_url) as http_client:
        answer = await http_client.post("/job_status", content=signed(), headers=headers)
        assert answer.json()["code"] == "2302"
        assert answer.headers["access-control-allow-origin"] == "*"


@pytest.mark.parametrize(
    ("headers", "http_status"),
    [
        ({"host": "sandbox:8787"}, 200),
        ({"host": "192.168.0.7:8787"}, 200),
        ({"host": "[fe80::1]:8787"}, 200),
        ({"host": "evil.example"}, 403),
        ({"origin": "http://shop:3000"}, 200),
        ({"host": "192.168.0.7", "origin": "http://192.168.0.7"}, 200),
        ({"origin": "http://192.168.0.7"}, 403),
        ({"origin": "http://[fe80::1]"}, 403),
        ({"origin": "http://evil.example"}, 403),
    ],
)
async def test_beyond_this_machine_more_names_are_answered(headers: dict[str, str], http_status: int) -> None:
    """Addresses, and names without a dot as containers have them; a page from elsewhere can have neither."""
    sandbox = Sandbox()
    sandbox.submit("user-1", "job-1", machine=0)
    async with sandbox.serve(host="0.0.0.0") as base_url, httpx.AsyncClient(base_url=base_url) as http_client:
        answer = await http_client.post("/job_status", content=signed(), headers=headers)
    assert answer.status_code == http_status


async def test_a_request_that_is_not_read_can_be_cut(caplog: pytest.LogCaptureFixture) -> None:
    """The connection closes without an answer, and nothing is logged."""

    async def cut(scope: object, receive: object, send: object) -> None:
        raise ConnectionCutError

    async with serve(cut, "127.0.0.1", 0) as root:
        assert await ask_raw(port_of(root)) == b""
    assert not caplog.records


async def test_a_server_that_cannot_start_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """It does not wait for ever, and leaves nothing behind."""

    async def fail(*args: object, **options: object) -> None:
        raise OSError("no server today")

    monkeypatch.setattr(asyncio.get_running_loop(), "create_server", fail)
    with pytest.raises(ExceptionGroup) as failed:
        async with serve(Sandbox().app, "127.0.0.1", 0):
            pytest.fail("it serves")
    assert failed.group_contains(OSError, match="no server today")
    gc.collect()
