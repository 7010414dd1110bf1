"""Real sockets: what a server can do to a client, and that the client still works afterwards."""

import gzip
import ssl
import traceback
import zlib
from typing import Any

import anyio
import httpx
import httpx2
import pytest
import trustme

import smilejobs
from smilejobs import Client
from smilejobs.transport import Transport
from tests.helpers.carriers import (
    OpenClient,
    answer,
    anyio_backend,
    first,
    open_client,
    pytest_generate_tests,
    sending,
    well,
)
from tests.helpers.leaks import assert_keeps_secrets
from tests.helpers.patience import let_pass
from tests.helpers.servers import Handler, Stream, http, serve

__all__ = ["anyio_backend", "open_client", "pytest_generate_tests"]

pytestmark = pytest.mark.anyio


async def test_connections_are_kept(open_client: OpenClient) -> None:
    """Many polls, one connection; and the headers say who asks."""
    async with serve(well) as server, open_client(server.url()) as client:
        for _ in range(5):
            assert not (await client.job_status("user-1", "job-1")).job_complete
    assert (server.connections, server.requests) == (1, 5)
    head = server.heads[0].lower()
    assert head.startswith(b"post /v1/job_status http/1.1")
    assert b"user-agent: smilejobs/" in head
    assert b"content-type: application/json" in head
    assert b"accept-encoding: gzip\r\n" in head


async def test_compressed_answers_are_read(open_client: OpenClient) -> None:
    """In gzip, the one encoding that is asked for."""
    handler = sending(http(gzip.compress(answer()), "200 OK", "Content-Encoding: gzip"))
    async with serve(handler) as server, open_client(server.url()) as client:
        assert not (await client.job_status("user-1", "job-1")).job_complete


@pytest.mark.parametrize(
    ("misbehave", "text"),
    [
        pytest.param(sending(http(b"x" * 1_000_000)), "larger than 100000 bytes", id="oversized"),
        pytest.param(
            sending(http(gzip.compress(bytes(20_000_000)), "200 OK", "Content-Encoding: gzip")),
            "larger than 100000 bytes",
            id="gzip bomb",
        ),
        pytest.param(
            sending(http(gzip.compress(gzip.compress(b"{}")), "200 OK", "Content-Encoding: gzip, gzip")),
            "compressed in a way that was not asked for",
            id="layers of gzip",
        ),
        pytest.param(
            sending(http(b"{}", "200 OK", "Content-Encoding: br")),
            "compressed in a way that was not asked for",
            id="another encoding",
        ),
        pytest.param(
            sending(http(zlib.compress(b"{}"), "200 OK", "Content-Encoding: deflate")),
            "compressed in a way that was not asked for",
            id="deflate",
        ),
        pytest.param(
            sending(http(b"no gzip", "200 OK", "Content-Encoding: gzip")),
            "not the gzip data that its head promises",
            id="corrupt gzip",
        ),
        pytest.param(
            sending(http(gzip.compress(b"{}")[:-3], "200 OK", "Content-Encoding: gzip")),
            "its gzip data has no end",
            id="truncated gzip",
        ),
        pytest.param(
            sending(http(gzip.compress(b"{}") * 2, "200 OK", "Content-Encoding: gzip")),
            "more after the end of its gzip data",
            id="two gzip members",
        ),
        pytest.param(
            sending(http(gzip.compress(b"{}") + b"x", "200 OK", "Content-Encoding: gzip")),
            "more after the end of its gzip data",
            id="gzip and a rest",
        ),
        pytest.param(
            sending(http(b'{"job_complete": true}')[:-7], close=True), "broke off before its end", id="truncated"
        ),
        pytest.param(sending(http(b"<html>Bad Gateway</html>", "502 Bad Gateway")), "HTML.*502", id="HTML"),
        pytest.param(sending(http(b"")), "empty", id="empty"),
    ],
)
async def test_answers_that_cannot_be_read(open_client: OpenClient, misbehave: Handler, text: str) -> None:
    """Each is a BadResponseError that names the HTTP status, and the next call works."""
    async with serve(first(misbehave)) as server, open_client(server.url()) as client:
        with pytest.raises(smilejobs.BadResponseError, match=text) as caught:
            await client.job_status("user-1", "job-1")
        assert caught.value.http_status in (200, 502)
        assert caught.value.transient
        with anyio.fail_after(120):
            assert not (await client.job_status("user-1", "job-1")).job_complete


@pytest.mark.parametrize("status", ["400 Bad Request", "401 Unauthorized", "404 Not Found"])
async def test_a_refusal_that_breaks_off_is_asked_for_again(open_client: OpenClient, status: str) -> None:
    """It could have been "not found yet"; only a whole one ends a wait."""
    cut_off = sending(http(b'{"error": "not found", "code": "2304"}', status)[:-9], close=True)
    async with serve(first(cut_off)) as server, open_client(server.url(), attempts=2) as client:
        assert not (await client.job_status("user-1", "job-1")).job_complete
    assert server.requests == 2


async def test_an_endless_answer_is_cut_off(open_client: OpenClient) -> None:
    """The limit ends it, not the timeout."""

    async def endless(stream: Stream, body: bytes) -> None:
        await stream.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            await stream.send(b"2000\r\n" + b"[" * 0x2000 + b"\r\n")

    async with serve(first(endless)) as server, open_client(server.url()) as client:
        with anyio.fail_after(120), pytest.raises(smilejobs.BadResponseError, match="larger"):
            await client.job_status("user-1", "job-1")
        with anyio.fail_after(120):
            assert not (await client.job_status("user-1", "job-1")).job_complete


async def test_a_slow_drip_ends_with_the_request_timeout(open_client: OpenClient) -> None:
    """The timeout is for the whole exchange, and does not begin anew with each byte; what the head said is kept."""

    async def drip(stream: Stream, body: bytes) -> None:
        await stream.send(b"HTTP/1.1 503 Unavailable\r\nRetry-After: 120\r\nContent-Length: 1000\r\n\r\n")
        while True:
            await stream.send(b" ")
            await let_pass(4)

    async with serve(first(drip)) as server, open_client(server.url(), request_timeout=60) as client:
        with pytest.raises(smilejobs.BadResponseError, match="end within 60 s") as caught:
            await client.job_status("user-1", "job-1")
        assert (caught.value.transient, caught.value.http_status, caught.value.retry_after) == (True, 503, 120)
    async with serve(well) as server, open_client(server.url()) as client:
        assert not (await client.job_status("user-1", "job-1")).job_complete


async def test_an_answer_may_take_as_long_as_the_request_timeout(open_client: OpenClient) -> None:
    """No shorter timeout of a library's own cuts it, neither before the head nor in the body."""

    async def think(stream: Stream, body: bytes) -> None:
        head, rest = http(answer()).split(b"\r\n\r\n")
        await let_pass(40)
        await stream.send(head + b"\r\n\r\n")
        await let_pass(40)
        await stream.send(rest)

    async with serve(think) as server, open_client(server.url(), request_timeout=100) as client:
        assert not (await client.job_status("user-1", "job-1")).job_complete


async def test_a_connection_that_is_closed_without_an_answer(open_client: OpenClient) -> None:
    """It is a transient RequestError, and the next call opens a new one."""

    async def hang_up(stream: Stream, body: bytes) -> None:
        await stream.aclose()

    async with serve(first(hang_up)) as server, open_client(server.url()) as client:
        with pytest.raises(smilejobs.RequestError, match="no answer: the server closed the connection") as caught:
            await client.job_status("user-1", "job-1")
        assert caught.value.transient
        assert not (await client.job_status("user-1", "job-1")).job_complete


async def test_a_refused_connection(open_client: OpenClient) -> None:
    """Nobody listens: a transient RequestError."""
    async with serve(well) as server:
        url = server.url()
    async with open_client(url) as client:
        with pytest.raises(smilejobs.RequestError, match="no answer: Connection refused") as caught:
            await client.job_status("user-1", "job-1")
    assert caught.value.transient


async def test_redirects_are_not_followed(open_client: OpenClient) -> None:
    """A signed body is never posted anywhere else; the error says that the URL is wrong."""
    async with serve(well) as other:
        redirect = sending(http(b"", "307 Temporary Redirect", f"Location: {other.url()}/job_status"))
        async with serve(redirect) as server, open_client(server.url()) as client:
            with pytest.raises(smilejobs.GatewayError, match="base_url"):
                await client.job_status("user-1", "job-1")
    assert other.requests == 0


async def test_a_certificate_that_is_not_trusted_ends_a_wait(open_client: OpenClient) -> None:
    """It will not be trusted at the next try either."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("localhost").configure_cert(tls)
    async with serve(well, tls) as server, open_client(server.url("https")) as client:
        with anyio.fail_after(120), pytest.raises(smilejobs.RequestError, match="certificate is not trusted") as caught:
            await client.wait("user-1", "job-1")
    assert not caught.value.transient
    assert server.requests == 0


@pytest.mark.parametrize("library", [httpx, httpx2])
async def test_certificates_of_an_injected_client_count(library: Any) -> None:
    """A private CA is trusted by the client that was given."""
    authority = trustme.CA()
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(tls)
    trust = ssl.create_default_context()
    authority.configure_trust(trust)
    async with serve(well, tls) as server, library.AsyncClient(verify=trust) as http_client:
        url = server.url("https")
        async with Client(partner_id="085", api_key="sandbox-key", base_url=url, http_client=http_client) as client:
            assert not (await client.job_status("user-1", "job-1")).job_complete


async def test_answers_that_were_never_on_a_wire() -> None:
    """A mock transport, whose bodies are there before they are read, works as well."""

    def respond(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, content=answer())

    async with httpx.AsyncClient(transport=httpx.MockTransport(respond)) as http_client:
        client = Client(partner_id="085", api_key="sandbox-key", environment="sandbox", http_client=http_client)
        assert not (await client.job_status("user-1", "job-1")).job_complete


@pytest.mark.parametrize("library", [httpx, httpx2])
async def test_a_hook_that_raises_for_a_status_does_not_end_a_wait(library: Any) -> None:
    """Such hooks are common; what they raise is read as an answer without a body."""

    async def raise_for_status(response: Any) -> None:
        response.raise_for_status()

    unwell = sending(http(b"{}", "503 Service Unavailable", "Retry-After: 1"))
    async with (
        serve(first(unwell)) as server,
        library.AsyncClient(event_hooks={"response": [raise_for_status]}) as hooked,
    ):
        client = Client(partner_id="085", api_key="sandbox-key", base_url=server.url(), http_client=hooked, attempts=1)
        with pytest.raises(smilejobs.BadResponseError, match="hook.*503") as caught:
            await client.job_status("user-1", "job-1")
        assert not (await client.job_status("user-1", "job-1")).job_complete
    assert (caught.value.retry_after, caught.value.transient) == (1, True)


@pytest.mark.parametrize("status", ["429 Too Many Requests", "503 Service Unavailable"])
@pytest.mark.parametrize("how", ["cut off", "another encoding"])
async def test_retry_after_counts_without_a_body(open_client: OpenClient, status: str, how: str) -> None:
    """The head of an answer is read although its body cannot be."""
    head = ["Retry-After: 60", *(["Content-Encoding: br"] if how == "another encoding" else [])]
    response = http(b"{}" * 9, status, *head)
    handler = sending(response[:-5], close=True) if how == "cut off" else sending(response)
    async with serve(handler) as server, open_client(server.url()) as client:
        with pytest.raises(smilejobs.SmileJobsError) as caught:
            await client.job_status("user-1", "job-1")
    assert caught.value.retry_after == 60
    assert caught.value.transient
    assert isinstance(caught.value, smilejobs.RateLimitedError) == status.startswith("429")


@pytest.mark.parametrize(
    "response",
    [
        b"Jane Roe is no status line\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nJane Roe\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{Jane Roe}\r\n",
    ],
)
async def test_nothing_of_an_answer_is_in_a_traceback(open_client: OpenClient, response: bytes) -> None:
    """HTTP libraries quote what they cannot read; a log of the whole traceback does not."""
    async with serve(sending(response)) as server, open_client(server.url()) as client:
        with pytest.raises(smilejobs.SmileJobsError) as caught:
            await client.job_status("user-1", "job-1")
    assert "Jane" not in "".join(traceback.format_exception(caught.value))


async def test_plain_http_never_goes_through_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy of the environment would see the signatures of requests that are meant to stay on this machine."""
    async with serve(well) as proxy, serve(well) as server:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        async with Client(partner_id="085", api_key="sandbox-key", base_url=server.url()) as client:
            await client.job_status("user-1", "job-1")
    assert (proxy.requests, server.requests) == (0, 1)


async def test_whatever_a_client_raises_is_an_error_of_that_poll() -> None:
    """A defect of a client or of its hooks ends one poll; its text, which may quote the answer, is not repeated."""

    def respond(request: httpx.Request) -> httpx.Response:
        raise ZeroDivisionError("Jane Roe")

    async with httpx.AsyncClient(transport=httpx.MockTransport(respond)) as http_client:
        client = Client(partner_id="085", api_key="sandbox-key", environment="sandbox", http_client=http_client)
        with pytest.raises(smilejobs.RequestError, match="the HTTP client raised ZeroDivisionError") as caught:
            await client.job_status("user-1", "job-1")
    assert "Jane" not in "".join(traceback.format_exception(caught.value))


def test_a_url_that_is_refused_is_in_no_frame() -> None:
    """It may hold a password."""
    with pytest.raises(ValueError, match="base_url is not a URL") as caught:
        Transport(
            "https://jane:Amber@1.2.3.999/v1",
            {},
            http_client=None,
            max_connections=1,
            request_timeout=1.0,
            max_response_bytes=1,
        )
    assert_keeps_secrets(caught.value, "Amber")
