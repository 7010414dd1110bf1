"""Fetching what others store: where there is no way to ask."""

import sys

import pytest

from smilejobs import ImageError, RequestError
from smilejobs.testing import Reply, Script, complete
from smilejobs.transport import Fetcher

pytestmark = pytest.mark.anyio

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
        assert "secret" not in str(caught.value)
        assert caught.value.__cause__ is None
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
