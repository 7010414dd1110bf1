"""Fetching what others store: what cannot be fetched, and what is told of it."""

import sys
from collections.abc import Callable

import anyio
import pytest

from smilejobs import ImageError, RequestError, TransportName
from smilejobs.testing import Reply, Script, complete
from smilejobs.transport import Download, Fetcher
from tests.helpers.leaks import assert_keeps_secrets
from tests.helpers.patience import stepped_clock
from tests.helpers.servers import Stream, http, serve

pytestmark = pytest.mark.anyio

OVER_EACH_TRANSPORT = pytest.mark.parametrize(
    ("anyio_backend", "transport"),
    [("asyncio", "httpx"), ("asyncio", "aiohttp"), ("trio", "httpx")],
    indirect=["anyio_backend"],
)

UNREADABLE: dict[str, Callable[[], bytes]] = {
    "no HTTP": lambda: b"Amber\r\n\r\n",
    "nothing": lambda: b"",
    "a large head": lambda: http(b"", "200 OK", *[f"X-{number}: {'Amber' * 700}" for number in range(20)]),
    "a body that is cut": lambda: http(b"Amber-Quartz")[:-3],
}
"""What cannot be read as a picture."""

URL = "https://smile-pictures.s3.amazonaws.com/secret.png"


@pytest.fixture(params=["foo://jane:secret@proxy.example", "socks5://127.0.0.1:1080"])
def useless_proxy(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy of the environment that cannot be used."""
    monkeypatch.setenv("HTTPS_PROXY", request.param)
    monkeypatch.setitem(sys.modules, "socksio", None)


@pytest.mark.usefixtures("useless_proxy")
async def test_a_proxy_that_cannot_be_used() -> None:
    """It fails as a server fails that is not there, but will not pass; no word of the URL or of the proxy's user."""
    fetcher = Fetcher(max_connections=1, timeout=10)
    for _ in range(2):
        with pytest.raises(RequestError, match="^request not sent: ") as caught:
            async with fetcher.get(URL, 1000):
                pass
        assert not caught.value.transient
        assert_keeps_secrets(caught.value, "secret")
    await fetcher.aclose()


async def test_certificates_that_cannot_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the variable and the path."""
    monkeypatch.setenv("SSL_CERT_FILE", "nowhere.pem")
    fetcher = Fetcher(max_connections=1, timeout=10)
    with pytest.raises(RequestError, match="^request not sent: SSL_CERT_FILE: 'nowhere.pem'"):
        async with fetcher.get(URL, 1000):
            pass
    await fetcher.aclose()


@pytest.mark.usefixtures("useless_proxy")
async def test_pictures_of_a_client_that_needs_no_proxy() -> None:
    """An injected client has its own way to the API: its pictures fail one by one, and each says why."""
    links = {"selfie_image": URL, "liveness_image_0": URL}
    body = complete().body
    assert isinstance(body, dict)
    async with Script({"job-1": [Reply(body={**body, "image_links": links})]}).client() as client:
        with pytest.raises(ImageError, match="request not sent: ") as caught:
            await anext(client.images("user-1", "job-1"))
        assert [error.reason for error in (caught.value, *caught.value.others)] == ["store", "store"]


class TestOverSockets:
    """Answers of real servers."""

    @pytest.fixture
    def anyio_backend(self, request: pytest.FixtureRequest) -> tuple[str, dict[str, object]]:
        return stepped_clock(request.param)

    @OVER_EACH_TRANSPORT
    async def test_a_head_of_more_than_64_kib_is_refused(self, transport: TransportName) -> None:
        """The limit is that of polls, for the whole head; the connection is closed, and the next picture comes."""
        headers = [f"X-{number}: {'x' * 3_500}" for number in range(20)]
        responses = [http(b"picture", "200 OK", *headers), http(b"picture")]

        async def handler(stream: Stream, body: bytes) -> None:
            await stream.send(responses.pop(0))

        async with serve(handler) as server:
            fetcher = Fetcher(max_connections=1, timeout=60, transport=transport)
            with pytest.raises(RequestError, match="not valid HTTP, or its head is too large"):
                await fetch(fetcher, server.url())
            assert await fetch(fetcher, server.url()) == b"picture"
            await fetcher.aclose()
        assert server.connections == 2

    @OVER_EACH_TRANSPORT
    @pytest.mark.parametrize("name", UNREADABLE)
    async def test_errors_keep_the_link(self, transport: TransportName, name: str) -> None:
        """No frame, cause or context of an error holds the link, which opens the picture, or what the server sent."""

        async def handler(stream: Stream, body: bytes) -> None:
            await stream.send(UNREADABLE[name]())
            await stream.aclose()

        async with serve(handler) as server:
            fetcher = Fetcher(max_connections=1, timeout=60, transport=transport)
            with pytest.raises(RequestError) as caught:
                await fetch(fetcher, f"{server.url()}/Amber?X-Amz-Signature=Quartz")
            await fetcher.aclose()
        assert_keeps_secrets(caught.value, "Amber", "Quartz")

    @OVER_EACH_TRANSPORT
    async def test_errors_of_servers_that_are_not_there_keep_the_link(self, transport: TransportName) -> None:
        """The same where no connection is made."""
        async with serve(lambda stream, body: stream.aclose()) as server:
            url = f"{server.url()}/Amber?X-Amz-Signature=Quartz"
        fetcher = Fetcher(max_connections=1, timeout=60, transport=transport)
        with pytest.raises(RequestError, match="Connection refused") as caught:
            await fetch(fetcher, url)
        await fetcher.aclose()
        assert_keeps_secrets(caught.value, "Amber", "Quartz")


async def fetch(fetcher: Fetcher, url: str) -> bytes:
    with anyio.fail_after(fetcher.timeout):
        async with fetcher.get(url, 1_000) as download:
            return await whole(download)


async def whole(download: Download) -> bytes:
    pieces = b""
    while piece := await download.read():
        pieces += piece
    return pieces
