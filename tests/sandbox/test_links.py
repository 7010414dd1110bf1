"""The links of the sandbox: signed as S3 signs them, served while they live, refused afterwards and when changed."""

import struct
import zlib
from urllib.parse import parse_qsl, urlsplit

import anyio
import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smilejobs import Client, ImageLink
from smilejobs.sandbox import Sandbox, Weather
from smilejobs.sandbox.links import LinkRefusedError, check, presign, signature
from smilejobs.sandbox.picture import picture, smallest_with_noise
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
    """Whatever is changed, the signature no longer fits, and the answer is 403 as that of S3."""
    sandbox = Sandbox(now=virtual_now)
    sandbox.submit("user-1", "job-1", machine=0)
    async with open_http(sandbox) as http_client:
        url = (await link_of(sandbox, http_client)).url
        assert old in url
        answer = await http_client.get(url.replace(old, new, 1))
    assert answer.status_code == 403
    assert "<Code>SignatureDoesNotMatch</Code>" in answer.text


def test_the_signature_is_that_of_amazon() -> None:
    """The example of Amazon's page on pre-signed URLs."""
    query = [
        ("X-Amz-Algorithm", "AWS4-HMAC-SHA256"),
        ("X-Amz-Credential", "AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request"),
        ("X-Amz-Date", "20130524T000000Z"),
        ("X-Amz-Expires", "86400"),
        ("X-Amz-SignedHeaders", "host"),
    ]
    computed = signature(
        "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "examplebucket.s3.amazonaws.com", "/test.txt", query
    )
    assert computed == "aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"


def test_a_link_of_another_key_is_refused() -> None:
    """The secret counts."""
    query = presign("one-key", HOST, PATH, at=EPOCH, lifetime=900)
    check("one-key", HOST, PATH, query, EPOCH)
    with pytest.raises(LinkRefusedError, match="does not match"):
        check("another-key", HOST, PATH, query, EPOCH)


@given(st.text(st.characters(max_codepoint=255)))
def test_any_other_query_is_refused(query: str) -> None:
    """Garbage is a wrong signature, never another error."""
    with pytest.raises(LinkRefusedError) as refused:
        check("sandbox-key", HOST, PATH, query, EPOCH)
    assert refused.value.code == "SignatureDoesNotMatch"


def test_the_picture_is_a_png() -> None:
    """Every chunk has its checksum, and the pixels are as many as the head says, in colours that exist."""
    image = picture("0000000001")
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
    assert (depth, colour_type) == (8, 3)
    pixels = zlib.decompress(chunks[b"IDAT"])
    assert len(pixels) == height * (width + 1)
    assert set(pixels) == {0, 1}
    assert len(chunks[b"PLTE"]) == 2 * 3


@pytest.mark.parametrize("size", [smallest_with_noise(), 200_000])
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
    assert picture("a", size) == picture("a", size)


async def test_pictures_may_come_slowly() -> None:
    """In drips, over the time that the weather says."""
    sandbox = Sandbox(now=virtual_now, weather=Weather(slow_pictures=1, slow=20))
    sandbox.submit("user-1", "job-1", machine=0)
    async with open_http(sandbox) as http_client:
        link = await link_of(sandbox, http_client)
        started = anyio.current_time()
        assert (await http_client.get(link.url)).status_code == 200
    assert anyio.current_time() - started == pytest.approx(20)


async def test_pictures_may_end_too_early() -> None:
    """Either the connection breaks, or the picture itself is not whole; another job has its own weather."""
    sandbox = Sandbox(now=virtual_now, weather=Weather(cut_pictures=1))
    sandbox.submit("user-1", "job-1", machine=0)
    sandbox.submit("user-1", "job-2", machine=0, weather=Weather(gzip=1))
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
    sandbox = Sandbox(now=virtual_now, weather=Weather(link_errors=1))
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
    query = presign("sandbox-key", HOST, PATH, at=EPOCH, lifetime=900)
    async with open_http(sandbox) as http_client:
        assert (await http_client.get(f"https://{HOST}{PATH}?{query}")).status_code == 200
