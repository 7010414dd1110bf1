"""The images of the sandbox, and their links: served until they expire, refused afterwards and when changed."""

import struct
import zlib
from urllib.parse import parse_qsl, urlsplit

import anyio
import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request

from smilejobs import Client, ImageLink
from smilejobs.sandbox import FaultProfile, Sandbox
from smilejobs.sandbox.http.images import MIN_PADDED_BYTES, StorageError, check_url, make_png, sign_url
from smilejobs.testing import EPOCH, virtual_now

pytestmark = pytest.mark.anyio

HOST, PATH = "sandbox.test", "/images/0000000001/SID_Preview_Full.png"


async def link_of(sandbox: Sandbox, http_client: httpx.AsyncClient, job_id: str = "job-1") -> ImageLink:
    """The link that a poll brings."""
    client = Client(
        partner_id="085",
        api_key="sandbox-key",
        base_url=f"https://{HOST}/v1",
        http_client=http_client,
        now=virtual_now,
    )
    status = await client.job_status("user-1", job_id, image_links=True)
    assert status.image_links is not None
    return status.image_links["selfie_image"]


def open_http(sandbox: Sandbox) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=sandbox.app))


async def test_a_link_lives_as_long_as_it_says() -> None:
    """It serves a picture until the instant that our reader of links tells, and then answers 403 as S3 does."""
    sandbox = Sandbox(now=virtual_now)
    sandbox.submit("user-1", "job-1", machine=0)
    async with open_http(sandbox) as http_client:
        link = await link_of(sandbox, http_client)
        assert link.expires_at is not None
        lifetime = (link.expires_at - virtual_now()).total_seconds()
        assert 899 < lifetime <= 900
        assert not link.expired(virtual_now())
        alive = await http_client.get(link.url)
        assert (alive.status_code, alive.headers["content-type"]) == (200, "image/png")
        await anyio.sleep(lifetime - 0.001)
        assert (await http_client.get(link.url)).status_code == 200
        await anyio.sleep(0.002)
        assert link.expired(virtual_now())
        dead = await http_client.get(link.url)
        assert (dead.status_code, dead.headers["content-type"]) == (403, "application/xml")
        assert "<Code>AccessDenied</Code><Message>Request has expired</Message>" in dead.text
        fresh = await link_of(sandbox, http_client)
        assert (await http_client.get(fresh.url)).content == alive.content


async def test_each_job_has_a_picture_of_its_own() -> None:
    """Pictures that are mixed up are noticed."""
    sandbox = Sandbox(now=virtual_now, link_lifetime=60)
    sandbox.submit("user-1", "job-1", machine=0)
    sandbox.submit("user-1", "job-2", machine=0)
    async with open_http(sandbox) as http_client:
        links = [await link_of(sandbox, http_client, job_id) for job_id in ("job-1", "job-2")]
        one, two = [await http_client.get(link.url) for link in links]
        swapped = await http_client.get(links[0].url.replace("0000000001", "0000000002"))
    assert dict(parse_qsl(urlsplit(links[0].url).query))["X-Amz-Expires"] == "60"
    assert one.content != two.content
    assert swapped.status_code == 403


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("X-Amz-Expires=900", "X-Amz-Expires=901"),
        ("X-Amz-Date=2026", "X-Amz-Date=2027"),
        ("X-Amz-Signature=", "X-Amz-Signature=0"),
        ("X-Amz-Signature=", "X-Amz-Signature=%C3%A9"),
        ("X-Amz-Algorithm=", "more=x&X-Amz-Algorithm="),
        ("?X-Amz", "?" + "a=&" * 30 + "X-Amz"),
        ("SID_Preview_Full.png?", "SID_Preview_Full.png?#"),
        (f"//{HOST}", "//elsewhere.test"),
    ],
)
async def test_a_link_that_was_changed_is_refused(old: str, new: str) -> None:
    """After any change the signature is wrong, and the answer is 403 as that of S3."""
    sandbox = Sandbox(now=virtual_now)
    sandbox.submit("user-1", "job-1", machine=0)
    async with open_http(sandbox) as http_client:
        url = (await link_of(sandbox, http_client)).url
        assert old in url
        answer = await http_client.get(url.replace(old, new, 1))
    assert answer.status_code == 403
    assert "<Code>SignatureDoesNotMatch</Code>" in answer.text


def request_for(url: str, method: str = "GET") -> Request:
    parts = urlsplit(url)
    return Request(
        {
            "type": "http",
            "method": method,
            "path": parts.path,
            "query_string": parts.query.encode("latin-1"),
            "headers": [(b"host", parts.netloc.encode())],
        }
    )


def test_a_link_has_the_shape_of_the_recorded_ones() -> None:
    """The keys of Amazon's, in their order, with the date and the lifetime."""
    url = sign_url("one-key", "GET", f"https://{HOST}", PATH, at=EPOCH, lifetime=900)
    query = dict(parse_qsl(urlsplit(url).query))
    assert url.startswith(f"https://{HOST}{PATH}?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=")
    assert list(query)[2:] == ["X-Amz-Date", "X-Amz-Expires", "X-Amz-SignedHeaders", "X-Amz-Signature"]
    assert (query["X-Amz-Date"], query["X-Amz-Expires"]) == ("20260101T000000Z", "900")
    assert len(query["X-Amz-Signature"]) == 64


def test_a_link_of_another_key_or_method_is_refused() -> None:
    """Both are signed."""
    url = sign_url("one-key", "GET", f"https://{HOST}", PATH, at=EPOCH, lifetime=900)
    check_url("one-key", request_for(url), EPOCH)
    for key, method in (("another-key", "GET"), ("one-key", "PUT")):
        with pytest.raises(StorageError, match="does not match"):
            check_url(key, request_for(url, method), EPOCH)


@given(st.text(st.characters(max_codepoint=255)))
def test_any_other_query_is_refused(query: str) -> None:
    """Garbage is a wrong signature, never another error."""
    request = request_for(f"https://{HOST}{PATH}")
    request.scope["query_string"] = query.encode("latin-1")
    with pytest.raises(StorageError, match="does not match"):
        check_url("sandbox-key", request, EPOCH)


def test_the_picture_is_a_png() -> None:
    """Every chunk has its checksum, and the pixels are as many as the head says, in the one colour that there is."""
    image = make_png("0000000001")
    assert image.startswith(b"\x89PNG\r\n\x1a\n")
    chunks = {}
    offset = 8
    while offset < len(image):
        length, kind = struct.unpack_from(">I4s", image, offset)
        data = image[offset + 8 : offset + 8 + length]
        assert struct.unpack_from(">I", image, offset + 8 + length) == (zlib.crc32(kind + data),)
        chunks[kind] = data
        offset += length + 12
    assert list(chunks) == [b"IHDR", b"PLTE", b"IDAT", b"IEND"]
    width, height, depth, colour_type = struct.unpack_from(">IIBB", chunks[b"IHDR"])
    assert (depth, colour_type) == (1, 3)
    pixels = zlib.decompress(chunks[b"IDAT"])
    assert len(pixels) == height * (width // 8 + 1)
    assert set(pixels) == {0}
    assert len(chunks[b"PLTE"]) == 3


@pytest.mark.parametrize("size", [MIN_PADDED_BYTES, 200_000])
async def test_pictures_can_be_as_large_as_real_ones(size: int) -> None:
    """To the byte; what fills them up is noise that cannot be compressed, another for each picture."""
    sandbox = Sandbox(now=virtual_now, picture_bytes=size)
    sandbox.submit("user-1", "job-1", machine=0)
    sandbox.submit("user-1", "job-2", machine=0)
    async with open_http(sandbox) as http_client:
        one, other = [
            (await http_client.get((await link_of(sandbox, http_client, job_id)).url)).content
            for job_id in ("job-1", "job-2")
        ]
    assert len(one) == len(other) == size
    assert one != other
    assert len(zlib.compress(one)) > size * 0.9 - 100
    assert make_png("a", size) == make_png("a", size)


async def test_pictures_may_come_slowly() -> None:
    """In small pieces, over the time that the fault profile says."""
    sandbox = Sandbox(now=virtual_now, faults=FaultProfile(slow_pictures=1, slow=20))
    sandbox.submit("user-1", "job-1", machine=0)
    async with open_http(sandbox) as http_client:
        link = await link_of(sandbox, http_client)
        started = anyio.current_time()
        assert (await http_client.get(link.url)).status_code == 200
    assert anyio.current_time() - started == pytest.approx(20)


async def test_pictures_may_end_too_early() -> None:
    """Either the connection breaks, or the picture itself is not whole; another job has its own faults."""
    sandbox = Sandbox(now=virtual_now, faults=FaultProfile(cut_pictures=1))
    sandbox.submit("user-1", "job-1", machine=0)
    sandbox.submit("user-1", "job-2", machine=0, faults=FaultProfile(gzip=1))
    broken, short = 0, 0
    async with open_http(sandbox) as http_client:
        link = await link_of(sandbox, http_client)
        for _ in range(20):
            try:
                image = (await http_client.get(link.url)).content
            except ConnectionResetError:
                broken += 1
            else:
                short += 1
                assert image.startswith(b"\x89PNG"[: len(image)])
                assert b"IEND" not in image[:-12]
        whole = await http_client.get((await link_of(sandbox, http_client, "job-2")).url)
        assert whole.content.endswith(b"IEND\xaeB`\x82")
    assert min(broken, short) > 3


async def test_links_that_could_not_be_made() -> None:
    """There is an error in their place, or something that is no link, or none that says when it expires."""
    sandbox = Sandbox(now=virtual_now, faults=FaultProfile(link_errors=1))
    sandbox.submit("user-1", "job-1", machine=0)
    kinds = set()
    async with sandbox.client() as client:
        for _ in range(20):
            links = (await client.job_status("user-1", "job-1", image_links=True)).image_links
            assert links is not None
            if links.error is not None:
                assert not links
                kinds.add("error")
            else:
                assert links["selfie_image"].expires_at is None
                kinds.add(links["selfie_image"].url)
    assert kinds == {"error", "image_link", "https://localhost/images/0000000001/SID_Preview_Full.png"}


async def test_a_picture_of_a_job_that_is_forgotten() -> None:
    """A link that was made before a restart is as good as its signature."""
    sandbox = Sandbox(now=virtual_now)
    url = sign_url("sandbox-key", "GET", f"https://{HOST}", PATH, at=EPOCH, lifetime=900)
    async with open_http(sandbox) as http_client:
        assert (await http_client.get(url)).status_code == 200
