"""Connections of httpcore, each in a pool of its own: over stand-ins, under the virtual clock."""

from collections.abc import AsyncIterator

import anyio
import httpx
import pytest

from smilejobs.transport.carrier import Request
from smilejobs.transport.over_client import OverClient
from smilejobs.transport.over_httpx import OverHttpx, end_body

pytestmark = pytest.mark.anyio

URL = "https://api.example/v1"


class Body(httpx.AsyncByteStream):
    """A body whose end can go wrong."""

    def __init__(self, *, breaks: bool) -> None:
        self.breaks = breaks

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b"{}"

    async def aclose(self) -> None:
        await anyio.sleep(0.1)
        if self.breaks:
            raise OSError("broken")


class Pool(httpx.AsyncBaseTransport):
    """In the place of a pool of httpcore."""

    def __init__(self, *, breaks: bool = False) -> None:
        self.requests = 0
        self.breaks = breaks
        self.closed_at: float | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.requests += 1
        await anyio.sleep(1)
        if request.method == "PUT":
            raise httpx.ReadError("broken")
        return httpx.Response(200, stream=Body(breaks=self.breaks))

    async def aclose(self) -> None:
        await anyio.sleep(0.5)
        self.closed_at = anyio.current_time()


class Made(list[Pool]):
    """Makes pools, and remembers them; the first one is the trial that every set of connections begins with."""

    def __init__(self, *, breaks: bool = False) -> None:
        self.breaks = breaks

    def __call__(self) -> Pool:
        self.append(Pool(breaks=self.breaks))
        return self[-1]


async def ask(connections: OverHttpx, method: str = "POST", *, fresh: bool = False) -> None:
    response = await connections.send(Request(method, URL, {}, b"{}"), fresh=fresh)
    is_whole = False
    try:
        assert await response.read() == b"{}"
        assert not await response.read()
        is_whole = True
    finally:
        await response.aclose(keep=is_whole)


async def test_the_connection_that_was_used_last_is_used_first() -> None:
    """The others are there for busier times, and are closed when those have not come for 75 s."""
    made = Made()
    connections = OverHttpx(made, 10)
    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(ask, connections)
    _, *pools = made
    assert [pool.requests for pool in pools] == [1] * 5
    begun = anyio.current_time()
    for _ in range(100):
        await ask(connections)
    assert len(made) == 6
    used = [pool for pool in pools if pool.requests > 1]
    assert [pool.requests for pool in used] == [101]
    assert [pool.closed_at is None for pool in pools].count(True) == 1
    assert all(pool.closed_at - begun == pytest.approx(75, abs=3) for pool in pools if pool.closed_at is not None)
    await connections.aclose()
    assert used[0].closed_at is not None


async def test_a_busy_time_after_a_quiet_one() -> None:
    """Old connections are closed while others are taken into use."""
    connections = OverHttpx(Made(), 10)
    for _ in range(3):
        async with anyio.create_task_group() as tasks:
            for _ in range(10):
                tasks.start_soon(ask, connections)
        await anyio.sleep(100)
    async with anyio.create_task_group() as tasks:
        for delay in range(100):
            tasks.start_soon(ask_after, delay / 10, connections)


async def ask_after(delay: float, connections: OverHttpx) -> None:
    await anyio.sleep(delay)
    await ask(connections)


async def test_there_are_no_more_than_were_asked_for() -> None:
    """The other requests wait for their turn."""
    made = Made()
    connections = OverHttpx(made, 3)
    begun = anyio.current_time()
    async with anyio.create_task_group() as tasks:
        for _ in range(9):
            tasks.start_soon(ask, connections)
    assert len(made) == 4
    assert anyio.current_time() - begun == pytest.approx(3.3)


@pytest.mark.parametrize("breaks", ["before the answer", "at its end", "by cancellation"])
async def test_what_was_cut_short_is_not_used_again(breaks: str) -> None:
    """Its pool may have lost it; its place is free for another one."""
    made = Made(breaks=breaks == "at its end")
    connections = OverHttpx(made, 1)
    if breaks == "by cancellation":
        with anyio.move_on_after(0.5):
            await ask(connections)
    else:
        with pytest.raises((httpx.ReadError, OSError)):
            await ask(connections, "PUT" if breaks == "before the answer" else "POST")
    _, cut = made
    assert cut.closed_at is not None
    made.breaks = False
    await ask(connections)
    assert [pool.requests for pool in made] == [0, 1, 1]


async def test_a_fresh_connection_takes_the_place_of_an_idle_one() -> None:
    """There are never more than were asked for."""
    made = Made()
    connections = OverHttpx(made, 1)
    await ask(connections)
    await ask(connections, fresh=True)
    assert [pool.requests for pool in made] == [0, 1, 1]
    assert [pool.closed_at is None for pool in made] == [True, False, True]


class Endless:
    """A body without an end that is no generator."""

    def __aiter__(self) -> "Endless":
        return self

    async def __anext__(self) -> bytes:
        return b"x"


async def test_a_body_that_cannot_be_closed_is_left() -> None:
    """It is read for a while, and no longer."""
    with anyio.fail_after(1):
        await end_body(Endless())


async def test_a_connection_may_have_no_socket() -> None:
    """A transport of the caller's client may name a connection that is none of the operating system."""

    class Connection:
        def get_extra_info(self, info: str) -> None:
            return None

    def respond(request: httpx.Request) -> httpx.Response:
        extensions = {"network_stream": Connection(), "http_version": b"HTTP/1.1"}
        return httpx.Response(200, content=b"{}", extensions=extensions)

    async with httpx.AsyncClient(transport=httpx.MockTransport(respond)) as http_client:
        response = await OverClient(http_client).send(Request("POST", URL, {}, b"{}"))
        await response.aclose(keep=False)
