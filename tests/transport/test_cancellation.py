"""Cancelling harms nothing: at every await point, on both backends."""

import asyncio
import gc
import json
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from importlib.util import find_spec

import anyio
import anyio.lowlevel
import httpx
import pytest
from anyio.abc import TaskStatus

import smilejobs
from smilejobs import Client, TransportName
from smilejobs.settings import Credentials
from smilejobs.testing import Reply, Script, complete, html, no_zip, pending, rate_limited
from smilejobs.wire.signature import format_timestamp, sign
from tests.helpers.servers import Server, Stream, http, serve

pytestmark = pytest.mark.anyio

CREDENTIALS = Credentials("085", "sandbox-key")
OVER_EACH_TRANSPORT = pytest.mark.parametrize(
    ("anyio_backend", "transport"),
    [("asyncio", "httpx"), ("asyncio", "aiohttp"), ("trio", "httpx")],
    indirect=["anyio_backend"],
)


def eager_loop() -> asyncio.AbstractEventLoop:
    """An event loop whose tasks begin at once."""
    loop = asyncio.new_event_loop()
    loop.set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined,unused-ignore]  # since 3.12
    return loop


EVENT_LOOPS = [
    pytest.param(("asyncio", {}), id="asyncio"),
    pytest.param(
        ("asyncio", {"loop_factory": eager_loop}),
        id="eager tasks",
        marks=pytest.mark.skipif(sys.version_info < (3, 12), reason="there are no eager tasks before Python 3.12"),
    ),
    pytest.param(
        ("asyncio", {"use_uvloop": True}),
        id="uvloop",
        marks=pytest.mark.skipif(find_spec("uvloop") is None, reason="uvloop is not installed"),
    ),
]


async def cancelled_after(ticks: int, work: Callable[[], Awaitable[object]]) -> bool:
    """Run *work*, cancel it after so many turns of the event loop; True if it ended by itself before that."""
    done = False

    async def run(task_status: TaskStatus[None]) -> None:
        nonlocal done
        task_status.started()
        await work()
        done = True

    async with anyio.create_task_group() as tasks:
        await tasks.start(run)
        for _ in range(ticks):
            if done:
                return True
            await anyio.lowlevel.checkpoint()
        tasks.cancel_scope.cancel()
    return done


async def test_a_wait_can_be_cancelled_at_every_await_point() -> None:
    """Whatever a wait is about to do when it is cancelled, the next call on the same client works."""
    done, ticks = False, 0
    while not done:
        script = Script({"job-1": [pending(), no_zip(), pending(), complete()], "job-2": [complete()]})
        client = Client(
            partner_id="085",
            api_key="sandbox-key",
            environment="sandbox",
            http_client=script,
            max_connections=1,
            rate=None,  # time stands still here, so nothing may sleep
        )
        done = await cancelled_after(ticks, lambda: client.wait("user-1", "job-1", pace=lambda age, polls: 0.0))
        assert (await client.job_status("user-1", "job-2")).job_complete
        ticks += 1
    assert ticks > 10


@pytest.mark.parametrize("step", [pending(), html(), rate_limited(10), complete(delay=10)])
async def test_a_wait_can_be_cancelled_while_it_sleeps(step: Reply) -> None:
    """Between polls, after a failure, while the API wants to be left alone, while an answer is under way."""
    async with Script({"job-1": [step], "job-2": [complete()]}).client(max_connections=1) as client:
        with anyio.move_on_after(0.4) as scope:
            await client.wait("user-1", "job-1")
        assert scope.cancelled_caught
        assert anyio.current_time() == pytest.approx(0.4)
        assert (await client.wait("user-1", "job-2")).job_complete


async def test_a_watch_can_be_cancelled_while_it_sleeps() -> None:
    """What is cancelled is that step; the next one goes on."""
    async with Script({"job-1": [pending(), complete()]}).client() as client:
        answers = client.watch("user-1", "job-1")
        await anext(answers)
        with anyio.move_on_after(0.4) as scope:
            await anext(answers)
        assert scope.cancelled_caught
        assert (await anext(answers)).job_complete


class TestOverSockets:
    """The same over a real connection, which must neither leak nor serve a half-read answer to the next call."""

    @pytest.fixture(params=["asyncio", "trio"])
    def anyio_backend(self, request: pytest.FixtureRequest) -> object:
        return request.param

    @OVER_EACH_TRANSPORT
    async def test_a_poll_can_be_cancelled_at_every_await_point(self, transport: TransportName) -> None:
        """With a pool of one connection, a leaked one would block the next call for ever."""
        async with serve(answer_in_pieces) as server, client_of(server, transport=transport) as client:
            done, ticks = False, 0
            while not done:
                done = await cancelled_after(ticks, lambda: client.job_status("user-1", f"cancelled-{ticks}"))
                with anyio.fail_after(120):
                    status = await client.job_status("user-1", f"job-{ticks}")
                assert status.result is not None
                assert status.result.smile_job_id == f"job-{ticks}"
                ticks += 1
            assert ticks > 3
        gc.collect()

    @pytest.mark.filterwarnings("ignore:Async generator 'http:ResourceWarning")  # httpx abandons that of its body
    async def test_an_injected_client_stays_usable_and_open(self) -> None:
        """It is the caller's before, during and after."""
        async with serve(answer_in_pieces) as server, httpx.AsyncClient() as http_client:
            async with client_of(server, http_client) as client:
                for ticks in (0, 3, 6, 9, 12):
                    await cancelled_after(ticks, lambda: client.job_status("user-1", "job-1"))
                assert (await client.job_status("user-1", "job-1")).job_complete
            assert not http_client.is_closed

    @pytest.mark.parametrize("anyio_backend", EVENT_LOOPS, indirect=True)
    @pytest.mark.parametrize("way", ["httpx", "aiohttp", "client"])
    @pytest.mark.parametrize("how", ["cancel", "cancel twice", "timeout"])
    @pytest.mark.parametrize("is_warm", [False, True])
    async def test_asyncios_own_cancellation_loses_no_connection(self, way: str, how: str, *, is_warm: bool) -> None:
        """`Task.cancel` and `asyncio.timeout` at every turn of the loop, on a new connection or a kept one."""
        async with serve(answer_in_pieces) as server:
            for ticks in range(0, 40, 1 if how == "cancel" else 3):
                async with open_client(server, way) as client:
                    if is_warm:
                        await client.job_status("user-1", "job-1")
                    await cut_after(ticks, how, client)
                    with anyio.fail_after(120):
                        assert (await client.job_status("user-1", "job-1")).job_complete

    @OVER_EACH_TRANSPORT
    async def test_closing_ends_what_is_under_way(self, transport: TransportName) -> None:
        """A poll in flight when its client is closed ends with an error of the tree, or as the closed client's."""
        asked = anyio.Event()

        async def never(stream: Stream, body: bytes) -> None:
            asked.set()
            await anyio.sleep_forever()

        async with serve(never) as server:
            client = client_of(server, transport=transport)
            errors: list[Exception] = []

            async def ask() -> None:
                try:
                    await client.job_status("user-1", "job-1")
                except (smilejobs.SmileJobsError, RuntimeError) as error:
                    errors.append(error)

            with anyio.fail_after(120):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(ask)
                    await asked.wait()
                    await client.aclose()
            assert len(errors) == 1


@asynccontextmanager
async def open_client(server: Server, way: str) -> AsyncGenerator[Client, None]:
    """A client whose pool has one connection, over its own pool or over an injected client."""
    if way != "client":
        async with client_of(server, transport="httpx" if way == "httpx" else "aiohttp") as client:
            yield client
        return
    limits = httpx.Limits(max_connections=1)
    async with httpx.AsyncClient(limits=limits) as http_client, client_of(server, http_client) as client:
        yield client


async def cut_after(ticks: int, how: str, client: Client) -> None:
    """Cut a poll off after so many turns of the event loop, with the means of asyncio."""
    limit = asyncio.timeout(None)

    async def poll() -> None:
        async with limit:
            await client.job_status("user-1", "job-1")

    task = asyncio.ensure_future(poll())
    for _ in range(ticks):
        await asyncio.sleep(0)
    if how == "timeout" and not task.done() and ticks:
        limit.reschedule(0)
    elif how != "timeout":
        for _ in range(2 if how == "cancel twice" else 1):
            task.cancel()
            await asyncio.sleep(0)
    await asyncio.wait([task])
    if not task.cancelled():
        assert isinstance(task.exception(), TimeoutError | None)


def client_of(
    server: Server, http_client: httpx.AsyncClient | None = None, transport: TransportName | None = None
) -> Client:
    return Client(
        partner_id="085",
        api_key="sandbox-key",
        base_url=server.url(),
        max_connections=1,
        rate=None,
        http_client=http_client,
        transport=transport,
    )


async def answer_in_pieces(stream: Stream, body: bytes) -> None:
    asked = json.loads(body)
    timestamp = format_timestamp(datetime.now(UTC))
    answer = {
        "timestamp": timestamp,
        "signature": sign(CREDENTIALS, timestamp),
        "job_complete": True,
        "code": "2302",
        "result": {"ResultCode": "0810", "SmileJobID": asked["job_id"]},
    }
    response = http(json.dumps(answer).encode())
    for start in range(0, len(response), 150):
        await stream.send(response[start : start + 150])
        await anyio.lowlevel.checkpoint()
