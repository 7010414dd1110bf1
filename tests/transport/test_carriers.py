"""What HTTP can look like: one table, run over real sockets against every carrier, with one outcome for one cause."""

import json
import socket
import struct
from contextlib import suppress
from datetime import UTC, datetime
from socket import SO_LINGER, SOL_SOCKET

import anyio
import pytest
from anyio.abc import SocketAttribute

import smilejobs
from smilejobs.transport.failures import CLOSED, NOT_HTTP
from smilejobs.wire.signature import format_timestamp, sign
from tests.helpers.carriers import (
    CREDENTIALS,
    OpenClient,
    answer,
    anyio_backend,
    first,
    open_client,
    pytest_generate_tests,
    well,
)
from tests.helpers.patience import let_pass, settled
from tests.helpers.servers import Handler, Stream, http, serve

__all__ = ["anyio_backend", "open_client", "pytest_generate_tests"]

pytestmark = pytest.mark.anyio


def has_ipv6() -> bool:
    with suppress(OSError), socket.create_server(("::1", 0), family=socket.AF_INET6):
        return True
    return False


HAS_IPV6 = has_ipv6()
BODY = answer()
CUT = "the answer cannot be read: it broke off before its end"
LARGE = "the answer cannot be read: it is larger than 100000 bytes"


def head(*lines: str) -> bytes:
    """The head of an answer."""
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def chunked(*chunks: bytes) -> bytes:
    """A body in chunks, without its end."""
    return b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)


PAUSE = b"<a pause>"
"""Between two pieces of an answer. (Of a piece that it cannot read aiohttp tells nothing, its head neither.)"""

CHUNKED = head("HTTP/1.1 200 OK", "Transfer-Encoding: chunked")
LENGTH = f"Content-Length: {len(BODY)}"

GOOD: dict[str, tuple[bytes, bool]] = {
    "as usual": (http(BODY), False),
    "answers on the way": (
        head("HTTP/1.1 100 Continue") + head("HTTP/1.1 103 Early Hints", "Link: </a>") + http(BODY),
        False,
    ),
    "chunks": (CHUNKED + chunked(BODY[:20], BODY[20:]) + b"0\r\n\r\n", False),
    "chunks of one byte": (CHUNKED + chunked(*(BODY[i : i + 1] for i in range(len(BODY)))) + b"0\r\n\r\n", False),
    "chunks with extensions and a trailer": (
        CHUNKED + b"%X;name=value\r\n%b\r\n0\r\nX-Trailer: 1\r\n\r\n" % (len(BODY), BODY),
        False,
    ),
    "HTTP/1.0": (head("HTTP/1.0 200 OK", LENGTH) + BODY, True),
    "HTTP/1.0 up to its end": (head("HTTP/1.0 200 OK") + BODY, True),
    "up to its end": (head("HTTP/1.1 200 OK", "Connection: close") + BODY, True),
    "closed after it": (head("HTTP/1.1 200 OK", "Connection: close", LENGTH) + BODY, True),
    "no reason": (head("HTTP/1.1 200 ", LENGTH) + BODY, False),
    "a reason that is not UTF-8": (head("HTTP/1.1 200 Tr\xe8s bien", LENGTH) + BODY, False),
    "a header that is not UTF-8": (head("HTTP/1.1 200 OK", "X-Name: Andr\xe9", LENGTH) + BODY, False),
    "a long header": (head("HTTP/1.1 200 OK", f"X-Long: {'x' * 64_000}", LENGTH) + BODY, False),
    "many headers": (head("HTTP/1.1 200 OK", *(f"X-{i}: {'x' * 250}" for i in range(200)), LENGTH) + BODY, False),
    "a header twice": (head("HTTP/1.1 200 OK", "X-A: 1", "X-A: 2", LENGTH) + BODY, False),
    "cookies": (head("HTTP/1.1 200 OK", "Set-Cookie: a=1", "Set-Cookie: b=2; Path=/", LENGTH) + BODY, False),
    "identity": (head("HTTP/1.1 200 OK", "Content-Encoding: identity", LENGTH) + BODY, False),
}
"""Answers that are read: the bytes, and whether the connection is closed after them."""

BAD: dict[str, tuple[bytes, bool, str]] = {
    "nothing": (b"", True, f"no answer: {CLOSED}"),
    "half a head": (b"HTTP/1.1 200 OK\r\nContent-Le", True, f"no answer: {CLOSED}"),
    "no HTTP": (b"SSH-2.0-OpenSSH_9.6\r\n\r\n", False, f"no answer: {NOT_HTTP}"),
    "a header without a colon": (head("HTTP/1.1 200 OK", "Jane Roe", LENGTH) + BODY, False, f"no answer: {NOT_HTTP}"),
    "a header without end": (head("HTTP/1.1 200 OK", f"X-Long: {'x' * 1_000_000}"), False, f"no answer: {NOT_HTTP}"),
    "headers without end": (
        head("HTTP/1.1 200 OK", *(f"X-{i}: {'x' * 250}" for i in range(4000)), LENGTH) + BODY,
        False,
        f"no answer: {NOT_HTTP}",
    ),
    "headers of more than 64 KiB in all": (
        head("HTTP/1.1 200 OK", *(f"X-{i}: {'x' * 3_500}" for i in range(20)), LENGTH) + BODY,
        False,
        f"no answer: {NOT_HTTP}",
    ),
    "a length in words": (
        head("HTTP/1.1 200 OK", "Content-Length: x") + BODY,
        False,
        f"no answer: {NOT_HTTP}",
    ),
    "a negative length": (head("HTTP/1.1 200 OK", "Content-Length: -1") + BODY, False, f"no answer: {NOT_HTTP}"),
    "two lengths": (head("HTTP/1.1 200 OK", "Content-Length: 5", LENGTH) + BODY, False, f"no answer: {NOT_HTTP}"),
    "a length that is too long": (http(BODY)[:-5], True, CUT),
    "chunks without an end": (CHUNKED + chunked(BODY), True, CUT),
    "a chunk that is cut": (CHUNKED + chunked(BODY)[:-9], True, CUT),
    "a chunk without a length": (CHUNKED + PAUSE + b"{Jane}\r\n", False, CUT),
    "a chunk that is too long": (CHUNKED + PAUSE + b"2\r\n[0]\r\n0\r\n\r\n", False, CUT),
    "a length beyond the limit": (head("HTTP/1.1 200 OK", "Content-Length: 999999999") + b"x" * 200_000, False, LARGE),
}
"""Answers that are not read: the bytes, whether the connection is closed after them, and the words."""


def sending(response: bytes, *, close: bool) -> Handler:
    async def handler(stream: Stream, body: bytes) -> None:
        for piece in response.split(PAUSE):
            await stream.send(piece)
            await settled()
        if close:
            await stream.aclose()

    return handler


async def ask(client: smilejobs.Client, job_id: str = "job-1") -> smilejobs.JobStatus:
    with anyio.fail_after(120):
        return await client.job_status("user-1", job_id)


async def failure(client: smilejobs.Client) -> str:
    """The words of a poll that fails, and for good only if they say so."""
    with pytest.raises((smilejobs.RequestError, smilejobs.BadResponseError)) as caught:
        await ask(client)
    assert caught.value.transient
    assert "Jane" not in str(caught.value)
    return str(caught.value).partition(" [")[0].partition(" (HTTP")[0]


@pytest.mark.parametrize("name", GOOD)
async def test_answers_that_are_read(request: pytest.FixtureRequest, open_client: OpenClient, name: str) -> None:
    """Three polls in a row, with nothing of ours in the next that the last one brought."""
    response, close = GOOD[name]
    async with serve(sending(response, close=close)) as server, open_client(server.url()) as client:
        for _ in range(3):
            assert not (await ask(client)).job_complete
            await settled()
    assert (server.connections, server.requests) == (3 if close else 1, 3)
    if not request.node.callspec.id.split("-")[1].startswith("httpx") or "pool" in request.node.callspec.id:
        # Not by a client of the caller's, which has cookies of its own.
        assert b"cookie" not in b"".join(server.heads).lower()


@pytest.mark.parametrize("name", BAD)
async def test_answers_that_are_not_read(open_client: OpenClient, name: str) -> None:
    """One text for one cause; the connection is not used again, and the next poll works."""
    response, close, words = BAD[name]
    async with serve(first(sending(response, close=close))) as server, open_client(server.url()) as client:
        assert await failure(client) == words
        assert not (await ask(client)).job_complete
    assert (server.connections, server.requests) == (2, 2)


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        (b"", "no answer: Connection reset by peer"),
        (b"HTTP/1.1 200 OK\r\nX: ", "no answer: Connection reset by peer"),
        (http(BODY)[:-5], CUT),
    ],
    ids=["before the head", "in the head", "in the body"],
)
async def test_connections_that_are_reset(open_client: OpenClient, sent: bytes, words: str) -> None:
    """The words are those of the operating system."""

    async def reset(stream: Stream, body: bytes) -> None:
        if sent:
            await stream.send(sent)
            await settled()
        raw = stream.extra(SocketAttribute.raw_socket)
        raw.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
        await stream.aclose()

    async with serve(first(reset)) as server, open_client(server.url()) as client:
        assert await failure(client) == words
        assert not (await ask(client)).job_complete


def flood(start: bytes, more: bytes) -> Handler:
    async def handler(stream: Stream, body: bytes) -> None:
        await stream.send(start)
        while True:
            await stream.send(more)

    return handler


FLOODS = {
    "a body": (CHUNKED, chunked(b"x" * 8192)),
    "chunks of one byte": (CHUNKED, chunked(*[b"x"] * 1000)),
    "a body without a length": (head("HTTP/1.1 200 OK"), b"x" * 8192),
}


@pytest.mark.filterwarnings("ignore:Async generator:ResourceWarning")  # of trio: too much to end it well
@pytest.mark.parametrize("name", FLOODS)
async def test_bodies_that_never_end(open_client: OpenClient, name: str) -> None:
    """The limit ends them, and their connection is closed."""
    async with (
        serve(first(flood(*FLOODS[name]))) as server,
        open_client(server.url(), max_response_bytes=10_000) as client,
    ):
        assert await failure(client) == "the answer cannot be read: it is larger than 10000 bytes"
        assert not (await ask(client)).job_complete
    assert server.connections == 2


@pytest.mark.filterwarnings("ignore:Async generator:ResourceWarning")  # of trio: too much to end it well
@pytest.mark.parametrize(
    "sent",
    [(CHUNKED, chunked(b"x" * 8192)), (CHUNKED, chunked(*[b"x"] * 1000)), (b"", head("HTTP/1.1 103 Early Hints"))],
    ids=["a body", "chunks of one byte", "answers on the way"],
)
async def test_a_deadline_cuts_what_never_pauses(open_client: OpenClient, sent: tuple[bytes, bytes]) -> None:
    """Bytes that are always there hold up neither a timeout nor a cancellation."""
    async with serve(flood(*sent)) as server:
        async with open_client(server.url(), request_timeout=0.3, max_response_bytes=2**40) as client:
            with anyio.fail_after(120), pytest.raises(smilejobs.SmileJobsError, match=r"within 0\.3 s"):
                await client.job_status("user-1", "job-1")
        async with open_client(server.url(), max_response_bytes=2**40) as client:
            with anyio.move_on_after(0.3) as scope:
                await client.job_status("user-1", "job-1")
            assert scope.cancelled_caught


@pytest.mark.skipif(not HAS_IPV6, reason="this machine has no IPv6")
async def test_ipv6(open_client: OpenClient) -> None:
    """An address of IPv6 is connected to, and named as the host."""
    async with serve(well, host="::1") as server, open_client(f"http://[::1]:{server.port}/v1") as client:
        assert not (await ask(client)).job_complete
    assert f"host: [::1]:{server.port}\r\n".encode() in server.heads[0].lower()


async def test_a_kept_connection_that_the_server_closes_costs_nothing(open_client: OpenClient) -> None:
    """The request is sent once more at once, over a new connection, and the event of the poll counts it."""

    async def handler(stream: Stream, body: bytes) -> None:
        if server.requests == 2:
            await stream.aclose()
        else:
            await stream.send(http(answer()))

    events: list[smilejobs.Event] = []
    async with serve(handler) as server, open_client(server.url(), hooks=[events.append]) as client:
        await ask(client)
        await ask(client)
    assert (server.connections, server.requests) == (2, 3)
    assert [event.requests for event in events if isinstance(event, smilejobs.PollFinished)] == [1, 2]


# --- No answer meets another poll


def signed(job_id: str, **more: object) -> bytes:
    """A complete answer about a job."""
    timestamp = format_timestamp(datetime.now(UTC))
    params = {"user_id": "user-1", "job_id": job_id, "job_type": 1}
    return json.dumps(
        {
            "timestamp": timestamp,
            "signature": sign(CREDENTIALS, timestamp),
            "job_complete": True,
            "code": "2302",
            "result": {"ResultCode": "0810", "PartnerParams": params},
            **more,
        }
    ).encode()


def echoing(behind: bytes, status: str = "200 OK") -> Handler:
    """Answer each request about its own job, the first one with something *behind* it."""
    requests = 0

    async def handler(stream: Stream, body: bytes) -> None:
        nonlocal requests
        requests += 1
        own = http(signed(json.loads(body)["job_id"]))
        if requests > 1:
            await stream.send(own)
        elif status == "200 OK":
            await stream.send(own + behind)
        else:
            await stream.send(head(f"HTTP/1.1 {status}", "ETag: x") + behind)

    return handler


STRAY = http(signed("job-of-another"))


@pytest.mark.parametrize("rest", [STRAY, STRAY[:30], b"Jane Roe"], ids=["an answer", "half an answer", "garbage"])
async def test_what_comes_behind_an_answer_is_no_answer(open_client: OpenClient, rest: bytes) -> None:
    """The bytes of one request are never read as the answer to the next."""
    async with serve(echoing(rest)) as server, open_client(server.url(), attempts=3) as client:
        for number in range(4):
            status = await ask(client, f"job-{number}")
            assert status.result is not None
            await settled()
    if rest != STRAY[:30]:  # aiohttp forgets it, and uses the connection again
        assert server.connections >= 2


async def test_what_comes_while_a_connection_is_idle_is_no_answer(open_client: OpenClient) -> None:
    """A connection over which something came that was not asked for is not used again."""
    idle = anyio.Event()

    async def handler(stream: Stream, body: bytes) -> None:
        await stream.send(http(signed(json.loads(body)["job_id"])))
        if not idle.is_set():
            idle.set()
            await let_pass(1)
            await stream.send(STRAY)

    async with serve(handler) as server, open_client(server.url()) as client:
        await ask(client, "job-1")
        await let_pass(5)
        await settled()
        status = await ask(client, "job-2")
        assert status.result is not None
    assert (server.connections, server.requests) == (2, 2)


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
async def test_answers_that_have_no_body_close_their_connection(open_client: OpenClient, status: str) -> None:
    """What a server sends as their body would be read as the next answer."""
    async with serve(echoing(STRAY, status)) as server, open_client(server.url()) as client:
        with pytest.raises(smilejobs.SmileJobsError):
            await ask(client)
        assert (await ask(client, "job-2")).job_complete
    assert (server.connections, server.requests) == (2, 2)


def untrusted(kind: str, times: int) -> Handler:
    """Answer so many times what must not be believed, then well."""
    requests = 0

    async def handler(stream: Stream, body: bytes) -> None:
        nonlocal requests
        requests += 1
        body_of_mine = signed(json.loads(body)["job_id"])
        if requests > times:
            await stream.send(http(body_of_mine))
        elif kind == "another job":
            await stream.send(STRAY)
        else:
            await stream.send(http(signed("job-1", signature="forged")))

    return handler


KINDS = {"another job": smilejobs.WrongJobError, "a forged signature": smilejobs.SignatureError}


@pytest.mark.parametrize("kind", KINDS)
async def test_an_answer_that_must_not_be_believed_gets_a_second_try(open_client: OpenClient, kind: str) -> None:
    """It may have been another request's: the poll is sent again at once, freshly signed, on a fresh connection."""
    events: list[smilejobs.Event] = []
    async with serve(untrusted(kind, 1)) as server, open_client(server.url(), hooks=[events.append]) as client:
        assert (await ask(client)).job_complete
    assert (server.connections, server.requests) == (2, 2)
    assert [event.requests for event in events if isinstance(event, smilejobs.PollFinished)] == [2]


@pytest.mark.parametrize("kind", KINDS)
async def test_the_second_such_answer_counts(open_client: OpenClient, kind: str) -> None:
    """There is no third try."""
    async with serve(untrusted(kind, 2)) as server, open_client(server.url(), attempts=3) as client:
        with pytest.raises(KINDS[kind]):
            await ask(client)
        assert server.requests == 2
        assert (await ask(client)).job_complete
    assert server.connections == 3


async def test_a_session_gives_its_connections_and_nothing_else(open_client: OpenClient) -> None:
    """Headers and cookies of the caller do not travel with our requests."""
    async with serve(well) as server, open_client(server.url()) as client:
        await ask(client)
    assert b"theirs" not in server.heads[0].lower()
