"""What is true of aiohttp alone: its futures, its buffers and its resolver."""

import asyncio
import ssl

import aiohttp
import pytest
import trustme

from smilejobs import Client
from smilejobs.transport.carrier import Request
from smilejobs.transport.over_aiohttp import OverAiohttp, open_session
from tests.helpers.carriers import answer
from tests.helpers.patience import settled
from tests.helpers.servers import Stream, http, serve

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def in_two_pieces(stream: Stream, body: bytes) -> None:
    """Send the head of an answer, and its body later."""
    head, rest = http(answer()).split(b"\r\n\r\n")
    await stream.send(head + b"\r\n\r\n")
    await settled()
    await stream.send(rest)


async def test_closing_can_be_cancelled() -> None:
    """The future of each connection is cancelled then, and asyncio logs no exception of a callback."""
    problems: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: problems.append(context))
    authority = trustme.CA()
    tls, trust = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("localhost").configure_cert(tls)
    authority.configure_trust(trust)
    async with serve(in_two_pieces, tls) as server:
        session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trust))
        async with Client(
            partner_id="085", api_key="sandbox-key", base_url=server.url("https"), http_client=session
        ) as client:
            await client.job_status("user-1", "job-1")
            closing = asyncio.create_task(session.close())
            for _ in range(2):  # the end of TLS takes longer
                await asyncio.sleep(0)
            closing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await closing
        await settled()
    assert not problems


async def test_few_chunks_are_read_ahead() -> None:
    """Other tasks get their turn after some hundred chunks, however many have come."""
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"

    async def in_chunks_of_one_byte(stream: Stream, body: bytes) -> None:
        await stream.send(head + b"1\r\nx\r\n" * 20_000 + b"0\r\n\r\n")

    async with serve(in_chunks_of_one_byte) as server:
        carrier = OverAiohttp(open_session(1, ssl.create_default_context()))
        response = await carrier.send(Request("POST", server.url(), {}, b"{}"))
        pieces = []
        while piece := await response.read():
            pieces.append(len(piece))
            await settled()  # what has come is there
        await response.aclose(keep=True)
        await carrier.aclose()
    assert sum(pieces) == 20_000
    assert max(pieces) < 1_000
