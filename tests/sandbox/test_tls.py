"""TLS of the sandbox: clients that trust its authority reach it, and others do not."""

import ssl
import tempfile
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from smilejobs import Client, RequestError, Verdict
from smilejobs.sandbox import Sandbox
from smilejobs.sandbox.server import Authority
from tests.helpers.patience import settled
from tests.helpers.servers import http, serve

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def trusting(pem: bytes) -> ssl.SSLContext:
    """A client's side that trusts this authority alone."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=pem.decode())
    return context


async def _answer(stream: Any, body: bytes) -> None:
    await stream.send(http(b"{}"))


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
async def test_who_trusts_the_authority_reaches_this_machine(host: str) -> None:
    """By name and by address."""
    authority = Authority()
    async with (
        serve(_answer, authority.context()) as server,
        httpx.AsyncClient(verify=trusting(authority.pem)) as http_client,
    ):
        answer = await http_client.post(f"https://{host}:{server.port}/", json={})
    assert answer.status_code == 200


async def test_who_trusts_another_authority_does_not() -> None:
    """Each sandbox has an authority of its own."""
    async with (
        serve(_answer, Authority().context()) as server,
        httpx.AsyncClient(verify=trusting(Authority().pem)) as http_client,
    ):
        with pytest.raises(httpx.ConnectError):
            await http_client.post(server.url("https"), json={})
    assert server.connections
    assert not server.requests


def names_of(context: ssl.SSLContext, authority: Authority, host: str) -> object:
    """What the certificate says to a client that asks for *host*, over no network at all."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = trusting(authority.pem).wrap_bio(to_client, to_server, server_hostname=host)
    server = context.wrap_bio(to_server, to_client, server_side=True)
    for side in (client, server, client, server):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
    certificate: Any = client.getpeercert()
    return [name for _, name in certificate["subjectAltName"]]


def test_the_certificate_names_the_host_that_is_served() -> None:
    """Besides this machine; each name once."""
    authority = Authority()
    names = ["localhost", "127.0.0.1", "0:0:0:0:0:0:0:1"]
    assert names_of(authority.context("sandbox"), authority, "sandbox") == [*names, "sandbox"]
    assert names_of(authority.context("localhost"), authority, "localhost") == names
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        names_of(authority.context(), authority, "sandbox")


def test_no_key_is_left_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenSSL reads it from one that is gone at once."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    authority = Authority()
    authority.context()
    assert not list(tmp_path.iterdir())
    assert b"PRIVATE KEY" not in authority.pem


class TestTheSandbox:
    """Served over https."""

    @pytest.fixture
    def anyio_backend(self) -> str:
        return "asyncio"

    async def test_a_job_is_waited_for_over_https(self) -> None:
        """The authority's certificate is all that a client needs; links are https too."""
        sandbox = Sandbox()
        sandbox.submit("user-1", "job-1", machine=0)
        async with (
            sandbox.serve(tls=True) as base_url,
            httpx.AsyncClient(verify=trusting(sandbox.ca_pem)) as http_client,
        ):
            assert base_url.startswith("https://127.0.0.1:")
            client = Client(partner_id="085", api_key="sandbox-key", base_url=base_url, http_client=http_client)
            status = await client.job_status("user-1", "job-1", image_links=True)
            assert status.image_links is not None
            url = status.image_links["selfie_image"].url
            assert url.startswith(base_url.removesuffix("v1"))
            assert (await http_client.get(url)).status_code == 200
        assert status.verdict is Verdict.APPROVED

    async def test_who_does_not_shake_hands_does_not_hold_up_the_end(self) -> None:
        """It is hung up on at once, whether it is silent or has begun."""
        async with Sandbox().serve(tls=True) as base_url:
            port = int(base_url.removesuffix("/v1").rpartition(":")[2])
            silent, begun = [await anyio.connect_tcp("127.0.0.1", port) for _ in range(2)]
            await begun.send(bytes.fromhex("16030100c8010000c4"))
            await settled()
            started = anyio.current_time()
        # asyncio gives them a minute for the handshake.
        assert anyio.current_time() - started < 40
        async with silent, begun:
            for stream in (silent, begun):
                with anyio.fail_after(120), pytest.raises(anyio.EndOfStream):
                    await stream.receive()

    async def test_a_host_that_no_certificate_can_name(self) -> None:
        """It can never be right."""
        with pytest.raises(ValueError, match="Codepoint"):
            async with Sandbox().serve(host="a host", tls=True):
                pytest.fail("there is such a certificate")

    async def test_a_client_that_does_not_know_it_does_not_trust_it(self) -> None:
        """That is no failure that passes."""
        async with Sandbox().serve(tls=True) as base_url:
            client = Client(partner_id="085", api_key="sandbox-key", base_url=base_url)
            async with client:
                with pytest.raises(RequestError, match="not trusted") as refused:
                    await client.job_status("user-1", "job-1")
        assert not refused.value.transient
