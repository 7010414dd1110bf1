"""`Client.images` and its kin: over real sockets, from stores of all kinds; and expiry, by a clock in our hands."""

import itertools
import json
import logging
import os
import re
import resource
import stat
import traceback
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from threading import Event
from typing import Any
from urllib.parse import urlsplit

import anyio
import anyio.from_thread
import anyio.to_thread
import pytest
from attrs import define, field
from hypothesis import given, strategies

import smilejobs
from smilejobs import Client, Credentials, Image, ImageError, JobRef, JobStatus, Progress, SavedImages
from smilejobs.errors import CredentialsError, RateLimitedError
from smilejobs.images import Gallery, Hosts
from smilejobs.images.fetching import MAX_PICTURES
from smilejobs.images.folder import Folder
from smilejobs.images.one import Images
from smilejobs.images.sinks import InFile, stem
from smilejobs.images.values import FORMATS, shown
from smilejobs.model.links import ImageLink, ImageLinks
from smilejobs.sandbox import Sandbox
from smilejobs.sandbox.faults import FaultProfile
from smilejobs.testing import EPOCH, Script, complete, pending, virtual_clock
from smilejobs.transport import Fetcher
from smilejobs.wire.signature import format_timestamp, sign
from tests.helpers.bodies import sigv4_url
from tests.helpers.patience import let_pass, stepped_clock, until
from tests.helpers.servers import Server, Stream, serve, serve_proxy

pytestmark = pytest.mark.anyio

CREDENTIALS = Credentials("085", "sandbox-key")
REF = JobRef("user-amber-17", "job-basalt-42")
PNG = b"\x89PNG\r\n\x1a\n" + b"a picture of nobody" * 50
JPEG = b"\xff\xd8\xff\xe0" + b"another" * 10
WEBP = b"RIFF\x40\0\0\0WEBPVP8 " + b"x" * 50
HEIC = b"\0\0\0\x18ftypheic" + b"x" * 50
SECRET = "X-Amz-Signature=5ec7e7"
FILE = re.compile(r"[0-9a-f]{24}-(selfie_image|id_card_image|id_card_back|image-[0-9a-f]{16})\.(png|jpg|webp|heic)")


@pytest.fixture
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    backend, over_sockets, _ = request.param.partition("/")
    return stepped_clock(backend) if over_sockets else virtual_clock(backend)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test with a `world` has a real socket, over httpx and aiohttp; the others have a virtual clock."""
    if "sandboxed" in metafunc.fixturenames:
        metafunc.parametrize("anyio_backend", ["asyncio/"], indirect=True)
    elif "way" in metafunc.fixturenames:
        ways = [("asyncio/", "httpx"), ("asyncio/", "aiohttp"), ("trio/", "httpx")]
        metafunc.parametrize(("anyio_backend", "way"), ways, indirect=["anyio_backend"])
    elif "anyio_backend" in metafunc.fixturenames:
        metafunc.parametrize("anyio_backend", ["asyncio", "trio"], indirect=True)


def http(body: bytes, status: str = "200 OK", content_type: str = "image/png", *more: str, length: int = -1) -> bytes:
    """The bytes of a response of a store."""
    length = len(body) if length < 0 else length
    head = [f"HTTP/1.1 {status}", f"Content-Length: {length}", f"Content-Type: {content_type}", *more]
    return "\r\n".join([*head, "", ""]).encode() + body


@define
class World:
    """An API and a store in one server.

    Attributes:
        links: What the API gives as ``image_links``: names, and paths or whole links.
        store: What the store has, by path: the bytes of responses, one for each request; the last one stays.
        more: Further keys of the API's answers.
        hang_up: Whether connections are closed after a picture.
        drip: Seconds from one byte of a picture to the next.
        meanwhile: What happens before a picture is sent.
    """

    links: dict[str, str] | None = field(factory=dict)
    store: dict[str, list[bytes]] = field(factory=dict)
    more: dict[str, object] = field(factory=dict)
    polls: int = 0
    fetched: Counter[str] = field(factory=Counter)
    heads: list[bytes] = field(factory=list)
    server: Server = field(init=False)
    client: Client = field(init=False)
    hang_up: bool = False
    drip: float = 0.0
    meanwhile: Callable[[], Awaitable[None]] | None = None

    def put(self, name: str, *responses: bytes) -> None:
        assert self.links is not None
        self.links[name] = f"/{name}.png?{SECRET}"
        self.store[f"/{name}.png"] = list(responses)

    async def handle(self, stream: Stream, body: bytes) -> None:
        head = self.server.heads[-1]
        if head.startswith(b"POST"):
            self.polls += 1
            await stream.send(self.answer(json.loads(body)))
            return
        self.heads.append(head)
        path = head.split()[1].decode().partition("?")[0]
        responses = self.store[path]
        response = responses[min(self.fetched[path], len(responses) - 1)]
        self.fetched[path] += 1
        if self.meanwhile is not None:
            await self.meanwhile()
        if self.drip:
            for byte in response:
                await stream.send(bytes([byte]))
                await let_pass(self.drip)
        await stream.send(response)
        if self.hang_up:
            await stream.aclose()

    def answer(self, asked: Mapping[str, object]) -> bytes:
        timestamp = format_timestamp(datetime.now(UTC))
        links = self.links and {
            name: f"http://127.0.0.1:{self.server.port}{path}" if path.startswith("/") else path
            for name, path in self.links.items()
        }
        params = {"user_id": asked["user_id"], "job_id": asked["job_id"], "job_type": 1}
        data = {
            "timestamp": timestamp,
            "signature": sign(CREDENTIALS, timestamp),
            "job_complete": True,
            "job_success": True,
            "code": "2302",
            "result": {"ResultCode": "0810", "PartnerParams": params},
            **({} if links is None else {"image_links": links}),
            **self.more,
        }
        return http(json.dumps(data).encode(), "200 OK", "application/json")


Open = Callable[..., Any]


@pytest.fixture
def open_world(way: Any) -> Open:
    """Open a world of two pictures, with a client that fetches in that way."""

    @asynccontextmanager
    async def opened(**options: Any) -> AsyncGenerator[World, None]:
        world = World()
        world.put("selfie_image", http(PNG))
        world.put("id_card_image", http(JPEG, "200 OK", "image/jpeg"))
        options = {"rate": None, "attempts": 1, "max_response_bytes": 100_000, "max_connections": 2, **options}
        async with serve(world.handle) as world.server:
            world.client = Client(
                partner_id="085", api_key="sandbox-key", base_url=world.server.url(), transport=way, **options
            )
            async with world.client:
                yield world

    return opened


async def everything(images: AsyncIterator[Image]) -> tuple[list[Image], ImageError | None]:
    """What came, and the error at the end."""
    came: list[Image] = []
    try:
        async for image in images:
            came.append(image)  # noqa: PERF401  # what came before an error is to be seen
    except ImageError as error:
        return came, error
    return came, None


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def assert_secret(error: BaseException) -> None:
    """Neither link nor id is in any text of an error, nor in those that it is chained to."""
    text = "".join(traceback.format_exception(error)) + repr(error)
    for secret in (SECRET, "127.0.0.1", REF.user_id, REF.job_id, "amazonaws"):
        assert secret not in text


# What works


async def test_the_pictures_of_a_job_come_one_by_one(way: str, open_world: Open) -> None:
    """Name, type and bytes; each is fetched when it is asked for, and all after one poll."""
    async with open_world() as world:
        images = world.client.images(*ids())
        first = await anext(images)
        assert first == Image(name="selfie_image", content_type="image/png", data=PNG, ref=REF)
        assert not world.fetched["/id_card_image.png"]
        second = await anext(images)
        assert (second.name, second.content_type, second.data) == ("id_card_image", "image/jpeg", JPEG)
        with pytest.raises(StopAsyncIteration):
            await anext(images)
        assert world.polls == 1
    assert REF.tag in repr(first)
    assert "nobody" not in repr(first)


def ids() -> tuple[str, str]:
    return REF.user_id, REF.job_id


async def test_only_what_is_named_is_fetched(way: str, open_world: Open) -> None:
    """A name without a link is an error, after the others; one, also if it is named twice."""
    names = ["id_card_image", "id_card_back", "id_card_back"]
    async with open_world() as world:
        came, error = await everything(world.client.images(*ids(), names=names))
        assert [image.name for image in came] == ["id_card_image"]
        assert error is not None
        assert (error.reason, error.name, error.ref, error.others) == ("missing", "id_card_back", REF, ())
        assert not world.fetched["/selfie_image.png"]


async def test_files_are_whole_private_and_named_by_us(way: str, open_world: Open, tmp_path: Path) -> None:
    """Mode 0600, and no id or strange name in the name of a file."""
    async with open_world() as world:
        world.put("../Evil Name", http(HEIC, "200 OK", "binary/octet-stream"))
        world.store["/../Evil Name.png"] = [http(HEIC)]
        world.links["../Evil Name"] = "/evil"
        world.store["/evil"] = [http(HEIC, "200 OK", "binary/octet-stream")]
        world.put("id_card_back", http(WEBP, "200 OK", "image/webp;x=y"))
        paths = await world.client.save_images(*ids(), tmp_path)
    assert [path.read_bytes() for path in paths] == [PNG, JPEG, HEIC, WEBP]
    assert [path.suffix for path in paths] == [".png", ".jpg", ".heic", ".webp"]
    assert names(tmp_path) == sorted(path.name for path in paths)
    for path in paths:
        assert FILE.fullmatch(path.name)
        assert path.name.startswith(REF.tag)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_only_what_is_named_is_saved(way: str, open_world: Open, tmp_path: Path) -> None:
    """Nothing else is fetched."""
    async with open_world() as world:
        (path,) = await world.client.save_images(*ids(), tmp_path, names=["id_card_image"])
        assert path.read_bytes() == JPEG
        assert not world.fetched["/selfie_image.png"]


async def test_large_pictures_are_written_in_parts(way: str, open_world: Open, tmp_path: Path) -> None:
    """Nothing is lost at the seams."""
    large = PNG + bytes(range(256)) * 4000
    async with open_world(max_response_bytes=2_000_000) as world:
        world.put("selfie_image", http(large))
        paths = await world.client.save_images(*ids(), tmp_path)
    assert paths[0].read_bytes() == large


async def test_nothing_of_ours_goes_to_the_store(way: str, open_world: Open, caplog: pytest.LogCaptureFixture) -> None:
    """Host and encoding, no more; no cookie comes back to it; no URL is in a log, at whatever level."""
    caplog.set_level(logging.DEBUG)
    async with open_world() as world:
        world.put("selfie_image", http(PNG, "200 OK", "image/png", "Set-Cookie: a=b; Path=/"))
        came, error = await everything(world.client.images(*ids()))
        assert (len(came), error) == (2, None)
    for head in world.heads:
        lines = head.decode().lower().split("\r\n")[1:]
        assert {line.partition(":")[0] for line in lines} <= {"host", "accept-encoding", "connection"}
        assert "accept-encoding: identity" in lines
    assert SECRET not in caplog.text


async def test_what_is_signed_is_sent_as_it_is(way: str, open_world: Open) -> None:
    """Escapes in a link stay as they are: the store has signed them."""
    query = "X-Amz-Credential=A%2F20260304%2Fs3&X-Amz-Security-Token=a%2Bb%2F%3D%3d&x-id=GetObject"
    async with open_world() as world:
        world.links = {"selfie_image": f"/selfie_image.png?{query}"}
        await everything(world.client.images(*ids()))
    assert world.heads[0].split()[1].decode() == f"/selfie_image.png?{query}"


async def test_connections_are_used_again(way: str, open_world: Open) -> None:
    """After a picture, and after one that failed."""
    async with open_world(max_connections=1) as world:
        world.put("selfie_image", http(b"<html>", "404 Not Found", "text/html"), http(PNG))
        for _ in range(3):
            await everything(world.client.images(*ids()))
        assert world.server.connections <= 4


# What goes wrong


def chunked(body: bytes) -> bytes:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)


REDIRECT = http(b"", "302 Found", "image/png", "Location: /id_card_image.png")
BAD: Mapping[str, tuple[bytes, str, bool]] = {
    "HTML": (http(b"<html>no picture at all</html>", "200 OK", "text/html"), "malformed", False),
    "HTML that is called a picture": (http(b"<html>no picture at all</html>"), "malformed", False),
    "a picture that is called HTML": (http(PNG, "200 OK", "text/html"), "malformed", False),
    "short": (http(b"\x89PNG"), "malformed", False),
    "empty": (http(b""), "malformed", False),
    "redirect": (REDIRECT, "store", False),
    "gone": (http(b"", "404 Not Found"), "store", False),
    "refused": (http(b"<Error/>", "403 Forbidden", "application/xml"), "expired", False),
    "busy": (http(b"<Error/>", "503 Slow Down", "application/xml"), "store", True),
    "too many": (http(b"", "429 Too Many Requests"), "store", True),
    "too large": (http(PNG + b"x" * 200_000), "oversized", False),
    "too large in chunks": (chunked(PNG + b"x" * 200_000), "oversized", False),
    "no end": (b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nConnection: close\r\n\r\n" + PNG, "store", False),
    "no HTTP": (b"what do you want\r\n\r\n", "store", True),
}


@pytest.mark.parametrize("what", BAD)
async def test_one_bad_picture_is_one_clear_error(way: str, open_world: Open, tmp_path: Path, what: str) -> None:
    """Nothing half-written, the other picture is saved, and no secret is in the error."""
    response, reason, transient = BAD[what]
    async with open_world() as world:
        world.put("selfie_image", response)
        world.hang_up = what in ("no end", "no HTTP")
        with pytest.raises(ImageError) as caught:
            await world.client.save_images(*ids(), tmp_path)
        error = caught.value
        assert (error.reason, error.name, error.transient) == (reason, "selfie_image", transient)
        assert [path.read_bytes() for path in error.saved] == [JPEG]
        assert names(tmp_path) == [error.saved[0].name]
        assert world.fetched["/id_card_image.png"] == 1
        assert_secret(error)


async def test_a_chunked_picture_will_do(way: str, open_world: Open) -> None:
    """It says where it ends."""
    async with open_world() as world:
        world.put("selfie_image", chunked(PNG))
        came, error = await everything(world.client.images(*ids()))
        assert (came[0].data, error) == (PNG, None)


async def test_a_picture_shorter_than_was_said(way: str, open_world: Open, tmp_path: Path) -> None:
    """It broke off; that may pass."""
    async with open_world() as world:
        world.put("selfie_image", http(PNG, length=len(PNG) + 10))
        world.hang_up = True
        with pytest.raises(ImageError, match="^selfie_image: .* broke off before its end .job") as caught:
            await world.client.save_images(*ids(), tmp_path)
        assert (caught.value.reason, caught.value.transient) == ("store", True)
        assert len(names(tmp_path)) == 1
        assert_secret(caught.value)


async def test_only_so_many_pictures_of_one_answer_are_fetched(way: str, open_world: Open) -> None:
    """An answer does not say how much work there is; the rest is reported."""
    async with open_world() as world:
        url = next(iter(world.links.values()))
        world.links = {f"image_{number}": url for number in range(MAX_PICTURES + 5)}
        came, error = await everything(world.client.images(*ids()))
        assert len(came) == MAX_PICTURES
        assert error is not None
        assert (error.reason, error.name) == ("oversized", None)
        assert f"links to {MAX_PICTURES + 5} pictures; only the first {MAX_PICTURES} are fetched" in str(error)


async def test_a_slow_drip_ends(way: str, open_world: Open, tmp_path: Path) -> None:
    """The whole picture has the time of one request, which does not begin anew with each byte."""
    async with open_world(request_timeout=60) as world:
        world.drip = 25.0
        with pytest.raises(ImageError, match="it was not received within 60 s") as caught:
            await world.client.save_images(*ids(), tmp_path)
        assert len(caught.value.others) == 1
        assert caught.value.transient
        assert not names(tmp_path)
        world.drip = 0.0
        assert len(await world.client.save_images(*ids(), tmp_path)) == 2


async def test_an_endless_body_ends(way: str, open_world: Open) -> None:
    """What is too much is not read to its end."""
    async with open_world() as world:
        world.put("selfie_image", http(PNG + b"x" * 3_000_000, length=10**12))
        came, error = await everything(world.client.images(*ids()))
        assert error is not None
        assert (error.reason, [image.data for image in came]) == ("oversized", [JPEG])


async def test_a_store_that_is_not_there(way: str, open_world: Open) -> None:
    """That may pass."""
    async with open_world() as world:
        world.links = {"selfie_image": f"http://localhost:1/a.png?{SECRET}"}
        came, error = await everything(world.client.images(*ids()))
        assert error is not None
        assert (came, error.reason, error.transient) == ([], "store", True)
        assert str(error) == f"selfie_image: no answer: Connection refused [job {REF.tag}]"
        assert_secret(error)


async def test_what_may_pass_is_tried_again(way: str, open_world: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to `attempts` times."""
    monkeypatch.setattr(smilejobs.images.fetching, "_BACKOFF", lambda attempt: 0.0)
    async with open_world(attempts=3) as world:
        world.put("selfie_image", http(b"", "503 Slow Down"), http(b"", "500 Oh"), http(PNG))
        world.put("id_card_image", http(b"", "503 Slow Down"))
        came, error = await everything(world.client.images(*ids()))
        assert error is not None
        assert ([image.name for image in came], error.http_status) == (["selfie_image"], 503)
        assert world.fetched == {"/selfie_image.png": 3, "/id_card_image.png": 3}
        assert world.polls == 1


async def test_a_refused_link_is_asked_for_again_once(way: str, open_world: Open) -> None:
    """For each picture; the second refusal is the end."""
    async with open_world() as world:
        world.put("selfie_image", http(b"", "403 Forbidden"), http(PNG))
        came, error = await everything(world.client.images(*ids(), names=["selfie_image"]))
        assert (len(came), error, world.polls) == (1, None, 2)
        world.put("id_card_image", http(b"", "403 Forbidden"))
        came, error = await everything(world.client.images(*ids(), names=["id_card_image"]))
        assert error is not None
        assert (error.reason, error.http_status, world.polls) == ("expired", 403, 4)
        assert world.fetched["/id_card_image.png"] == 2


@pytest.mark.parametrize(
    "link",
    [
        "https://evil.example/a.png",
        "https://smile-results-prod.s3.us-west-2.amazonaws.com.evil.example/a.png",
        "https://smile-results-prod.s3.us-west-2.amazonaws.com@evil.example/a.png",
        "https://u:p@smile-results-prod.s3.us-west-2.amazonaws.com/a.png",
        "https://smile-results-prod.s3.us-west-2.amazonaws.com:8443/a.png",
        "http://smile-results-prod.s3.us-west-2.amazonaws.com/a.png",
        "https://169.254.169.254/latest/meta-data",
        "https://2852039166/",
        "https://0xa9fea9fe/",
        "https://[fd00:ec2::254]/",
        "image_link",
    ],
)
async def test_a_hostile_link_is_not_followed(way: str, open_world: Open, link: str) -> None:
    """The other picture comes all the same."""
    async with open_world() as world:
        world.links["selfie_image"] = link
        came, error = await everything(world.client.images(*ids()))
        assert error is not None
        assert (error.reason, error.transient, len(came)) == ("untrusted", False, 1)
        assert_secret(error)
        assert "evil" not in str(error)


@pytest.mark.parametrize(
    ("links", "more", "reason"),
    [
        (None, {}, "missing"),
        ({}, {}, "missing"),
        (None, {"job_complete": False, "job_success": False, "result": None}, "pending"),
        (None, {"image_links": {"error": "Unable to make links for user-amber-17"}}, "missing"),
    ],
)
async def test_no_links(way: str, open_world: Open, links: Any, more: dict[str, Any], reason: str) -> None:
    """The error says why; the API's own words are in an attribute."""
    async with open_world() as world:
        world.links, world.more = links, more
        came, error = await everything(world.client.images(*ids()))
        assert error is not None
        assert (came, error.reason, error.name) == ([], reason, None)
        assert error.text == more.get("image_links", {}).get("error")
        assert_secret(error)


async def test_an_error_beside_links_comes_after_the_pictures(way: str, open_world: Open) -> None:
    """Some is better than nothing."""
    async with open_world() as world:
        world.links = {**world.links, "error": "one of them is lost"}
        came, error = await everything(world.client.images(*ids()))
        assert error is not None
        assert (len(came), error.text) == (2, "one of them is lost")


# The folder


async def test_a_file_that_exists_is_left_as_it_is(way: str, open_world: Open, tmp_path: Path) -> None:
    """It is not even fetched again; what is missing is."""
    async with open_world() as world:
        first, second = await world.client.save_images(*ids(), tmp_path)
        first.write_bytes(b"mine")
        second.unlink()
        with pytest.raises(ImageError, match="the file exists already") as caught:
            await world.client.save_images(*ids(), tmp_path)
        assert (caught.value.reason, caught.value.saved) == ("exists", (second,))
        assert first.read_bytes() == b"mine"
        assert world.fetched == {"/selfie_image.png": 1, "/id_card_image.png": 2}


@pytest.mark.parametrize("has_links", [True, False])
async def test_a_file_that_appears_meanwhile_is_left_as_it_is(
    way: str, open_world: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_links: bool
) -> None:
    """On file systems with and without hard links."""
    monkeypatch.setattr(Folder, "_existing", lambda folder, stems: set())
    async with open_world() as world:
        paths = await world.client.save_images(*ids(), tmp_path)
        paths[0].write_bytes(b"mine")
        if not has_links:
            monkeypatch.setattr(os, "link", refuse_link)
        with pytest.raises(ImageError) as caught:
            await world.client.save_images(*ids(), tmp_path)
        assert [caught.value.reason, caught.value.others[0].reason] == ["exists"] * 2
    assert paths[0].read_bytes() == b"mine"
    assert len(names(tmp_path)) == 2


def refuse_link(*paths: object) -> None:
    raise PermissionError(1, "Operation not permitted")


async def test_a_file_system_without_hard_links(
    way: str, open_world: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There a file is renamed."""
    monkeypatch.setattr(os, "link", refuse_link)
    async with open_world() as world:
        paths = await world.client.save_images(*ids(), tmp_path)
    assert [path.read_bytes() for path in paths] == [PNG, JPEG]
    assert len(names(tmp_path)) == 2


@pytest.mark.parametrize("folder", ["nowhere", "file"])
async def test_a_folder_that_is_none(way: str, open_world: Open, tmp_path: Path, folder: str) -> None:
    """That is said before anything is asked for."""
    (tmp_path / "file").touch()
    async with open_world() as world:
        with pytest.raises(ImageError, match="create it first") as caught:
            await world.client.save_images(*ids(), tmp_path / folder)
        assert (caught.value.reason, world.polls) == ("disk", 0)
        with pytest.raises(ImageError, match="create it first"):
            async with world.client.save_images_many([REF], tmp_path / folder):
                pytest.fail("it was entered")


async def test_a_folder_that_is_not_writable(way: str, open_world: Open) -> None:
    """One error for each picture; /proc is writable for nobody."""
    async with open_world() as world:
        with pytest.raises(ImageError, match="selfie_image: the file could not be written: ") as caught:
            await world.client.save_images(*ids(), "/proc")
        assert [caught.value.reason, *(other.reason for other in caught.value.others)] == ["disk"] * 2
        assert_secret(caught.value)


@contextmanager
def full_disk(size: int) -> Iterator[None]:
    """No file may become larger."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("size", [60_000, 600_000])
async def test_a_full_disk(way: str, open_world: Open, tmp_path: Path, size: int) -> None:
    """Nothing half-written, whether it fills up at once or later; what fits is saved."""
    async with open_world(max_response_bytes=2_000_000) as world:
        world.put("selfie_image", http(PNG + b"x" * size))
        with (
            full_disk(size // 2),
            pytest.raises(ImageError, match="the file could not be written: File too large") as caught,
        ):
            await world.client.save_images(*ids(), tmp_path)
        assert caught.value.reason == "disk"
        assert names(tmp_path) == [caught.value.saved[0].name]


async def test_a_partial_file_that_cannot_be_removed(
    way: str, open_world: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error is still the first one."""

    def stuck(path: Path) -> None:
        raise PermissionError(13, "Permission denied")

    async with open_world(max_response_bytes=2_000_000) as world:
        world.put("selfie_image", http(PNG + b"x" * 50_000))
        monkeypatch.setattr(Path, "unlink", stuck)
        with full_disk(10_000), pytest.raises(ImageError, match="File too large"):
            await world.client.save_images(*ids(), tmp_path)


async def test_a_folder_that_was_empty_is_not_searched(way: str, tmp_path: Path) -> None:
    """Only where there was something, or where one may not look, it is seen whether a picture is there already."""
    folder = Folder(tmp_path)
    await folder.check()
    (tmp_path / "a.webp").touch()
    assert await folder.existing(["a", "b"]) == set()
    folder = Folder(tmp_path)
    await folder.check()
    assert await folder.existing(["a", "b"]) == {"a"}


async def test_a_folder_that_may_not_be_read(way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be written to all the same, and a file that exists is found."""

    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied")

    (tmp_path / "a.png").touch()
    monkeypatch.setattr(os, "scandir", refuse)
    folder = Folder(tmp_path)
    await folder.check()
    assert await folder.existing(["a", "b"]) == {"a"}


async def test_one_syncing_serves_many(way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All who ask while one is under way wait for the next one, for theirs may have come too late for the first."""
    synced: list[int] = []
    has_begun, may_end = anyio.Event(), Event()

    def fsync(descriptor: int) -> None:
        synced.append(descriptor)
        anyio.from_thread.run_sync(has_begun.set)
        assert may_end.wait(60)

    monkeypatch.setattr(os, "fsync", fsync)
    folder = Folder(tmp_path)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(folder.sync)
        await has_begun.wait()
        for _ in range(10):
            tasks.start_soon(folder.sync)
        await anyio.wait_all_tasks_blocked()
        may_end.set()
    assert len(synced) == 2
    await folder.sync()
    assert len(synced) == 3


# Cancellation


@pytest.mark.parametrize("size", [10_000, 900_000])
async def test_a_cancelled_saving_leaves_nothing_behind(way: str, open_world: Open, tmp_path: Path, size: int) -> None:
    """Neither a partial file nor a broken client."""
    async with open_world(max_response_bytes=2_000_000, max_connections=1) as world:
        body = PNG + b"x" * size
        world.put("selfie_image", http(body, length=len(body) + 1))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(world.client.save_images, *ids(), tmp_path)
            # What is small is written at its end; of what is large there is a partial file by now.
            await until(lambda: bool(names(tmp_path) if size > 500_000 else world.fetched["/selfie_image.png"]))
            assert not any(FILE.fullmatch(name) for name in names(tmp_path))
            tasks.cancel_scope.cancel()
        assert not names(tmp_path)
        world.put("selfie_image", http(body))
        assert len(await world.client.save_images(*ids(), tmp_path)) == 2


async def test_an_abandoned_iteration_leaves_nothing_open(way: str, open_world: Open) -> None:
    """Nothing is held between two pictures; warnings are errors here."""
    async with open_world() as world:
        async for image in world.client.images(*ids()):
            assert image.name == "selfie_image"
            break
        images = world.client.images(*ids())
        await anext(images)
        del images


async def test_a_thread_that_comes_too_late_writes_nothing(way: str, tmp_path: Path) -> None:
    """A task can be cancelled by asyncio itself while it waits for a thread, which may begin only then."""
    sink = InFile(tmp_path, "stem")
    sink.discard()
    await anyio.to_thread.run_sync(sink.write, [PNG])
    assert not names(tmp_path)
    sink = InFile(tmp_path, "stem")
    sink.write([PNG])
    assert len(names(tmp_path)) == 1
    sink.discard()
    sink.write([PNG], tmp_path / "stem.png")
    assert not names(tmp_path)


async def test_one_task_at_a_time(way: str, open_world: Open) -> None:
    """Two that iterate over the same pictures are told."""
    async with open_world() as world:
        images = world.client.images(*ids())
        failures: list[str] = []

        async def step() -> None:
            try:
                await anext(images)
            except RuntimeError as error:
                failures.append(str(error))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(step)
            tasks.start_soon(step)
        assert failures == ["these images are being iterated by another task"]


async def test_an_answer_with_links_needs_no_poll(way: str, open_world: Open, tmp_path: Path) -> None:
    """Its links are used for an iteration and for files; a ref is polled for them, as two ids are."""
    async with open_world() as world:
        status = await world.client.wait(*ids(), image_links=True)
        came, error = await everything(world.client.images(status))
        assert (len(came), error, world.polls) == (2, None, 1)
        assert {image.ref for image in came} == {REF}
        assert len(await world.client.save_images(status, tmp_path, names=["selfie_image"])) == 1
        assert world.polls == 1
        came, error = await everything(world.client.images(REF))
        assert (len(came), error, world.polls) == (2, None, 2)
        assert len(await world.client.save_images(REF, tmp_path, names=["id_card_image"])) == 1
        assert world.polls == 3


async def test_an_expired_link_of_an_answer_is_renewed(way: str, open_world: Open) -> None:
    """By one poll for each picture, as for links that expire during an iteration."""
    async with open_world() as world:
        status = await world.client.job_status(*ids(), image_links=True)
        world.put("selfie_image", http(b"", "403 Forbidden"), http(PNG))
        came, error = await everything(world.client.images(status, names=["selfie_image"]))
        assert (len(came), error, world.polls) == (1, None, 2)


async def test_an_answer_without_links(way: str, open_world: Open, tmp_path: Path) -> None:
    """A complete one was not asked for with links; a pending one has none yet."""
    async with open_world() as world:
        status = await world.client.job_status(*ids())
        with pytest.raises(ValueError, match="ask for it with image_links=True"):
            world.client.images(status)
        with pytest.raises(ValueError, match="ask for it with image_links=True"):
            await world.client.save_images(status, tmp_path)
        _, error = await everything(world.client.images(JobStatus(user_id="u", job_id="j")))
        assert error is not None
        assert (error.reason, world.polls) == ("pending", 1)


async def test_a_closed_client(way: str, open_world: Open, tmp_path: Path) -> None:
    """It says so."""
    async with open_world() as world:
        status = await world.client.job_status(*ids(), image_links=True)
    for job in (REF, status):
        with pytest.raises(RuntimeError, match="closed"):
            await anext(world.client.images(job))
    with pytest.raises(RuntimeError, match="closed"):
        async with world.client.save_images_many([REF], tmp_path):
            pass


# Many


async def test_the_pictures_of_many_jobs(way: str, open_world: Open, tmp_path: Path) -> None:
    """One outcome for each job, as it ends, with its files; a poll each."""
    refs = [JobRef(f"user-{index}", "job") for index in range(20)]
    seen: list[Progress] = []
    async with open_world() as world:
        async with world.client.save_images_many(refs, tmp_path, on_progress=seen.append) as outcomes:
            ended = [outcome async for outcome in outcomes]
        assert world.polls == 20
    assert sorted(outcome.index for outcome in ended) == list(range(20))
    for outcome in ended:
        assert outcome.ref == refs[outcome.index]
        assert outcome.error is None
        assert [path.read_bytes() for path in outcome.paths] == [PNG, JPEG]
    assert len(names(tmp_path)) == 40
    assert (seen[-1].pending, seen[-1].done, seen[-1].failed, seen[-1].polls, seen[-1].eta) == (0, 20, 0, 20, 0.0)


async def test_one_failure_does_not_end_the_others(way: str, open_world: Open, tmp_path: Path) -> None:
    """A bad picture is the error of its job, and the rest of that job is saved."""
    refs = (JobRef(f"user-{index}", "job") for index in range(5))
    seen: list[Progress] = []
    async with open_world() as world:
        world.put("selfie_image", http(PNG), http(PNG), http(b"<html></html>"), http(PNG))
        async with world.client.save_images_many(refs, tmp_path, on_progress=seen.append) as outcomes:
            ended = [outcome async for outcome in outcomes]
            with pytest.raises(StopAsyncIteration):
                await anext(outcomes)
        with pytest.raises(StopAsyncIteration):
            await anext(outcomes)
    failed = [outcome for outcome in ended if outcome.error is not None]
    assert len(ended) == 5
    assert [(type(outcome.error), len(outcome.paths)) for outcome in failed] == [(ImageError, 1)]
    assert (seen[-1].done, seen[-1].failed, seen[-1].eta) == (4, 1, None)


async def test_a_job_that_fails_is_an_outcome(way: str, open_world: Open, tmp_path: Path) -> None:
    """What the waiting for it has ended with."""
    async with open_world() as world:
        world.more = {"job_complete": False, "result": None, "image_links": None}
        async with world.client.save_images_many([REF], tmp_path, timeout=0.1) as outcomes:
            (outcome,) = [outcome async for outcome in outcomes]
    assert isinstance(outcome.error, smilejobs.WaitTimeoutError)
    assert (outcome.index, outcome.ref, outcome.paths) == (0, REF, ())


async def test_what_ends_the_batch_comes_out_bare(way: str, open_world: Open, tmp_path: Path) -> None:
    """An error of the input, after what is known; of the progress; of the block."""

    async def refs() -> AsyncIterator[JobRef]:
        yield REF
        await until(lambda: len(names(tmp_path)) == 2)
        raise ZeroDivisionError

    def complain(progress: Progress) -> None:
        raise LookupError

    async with open_world() as world:
        ended: list[SavedImages] = []
        with pytest.raises(ZeroDivisionError):
            await collect(ended, world.client.save_images_many(refs(), tmp_path))
        assert [outcome.error for outcome in ended] == [None]
        with pytest.raises(LookupError):
            await collect([], world.client.save_images_many([REF], tmp_path, on_progress=complain))
        with pytest.raises(FloatingPointError):
            await collect(Full(), world.client.save_images_many([REF] * 100, tmp_path))


class Full(list[SavedImages]):
    def append(self, outcome: SavedImages) -> None:
        raise FloatingPointError


async def collect(ended: list[SavedImages], saving: AbstractAsyncContextManager[AsyncIterator[SavedImages]]) -> None:
    async with saving as outcomes:
        async for outcome in outcomes:
            ended.append(outcome)  # noqa: PERF401  # what came before an error is to be seen


async def test_progress_is_told_meanwhile(way: str, open_world: Open, tmp_path: Path) -> None:
    """Every 0.2 s, and a job counts as done when its pictures are saved."""
    seen: list[Progress] = []
    counts = [0]

    async def wait_a_second() -> None:
        for _ in range(5):
            await let_pass(0.2)
            counts.append(len(seen))

    async with open_world() as world:
        world.meanwhile = wait_a_second
        async with world.client.save_images_many([REF], tmp_path, on_progress=seen.append) as outcomes:
            (outcome,) = [outcome async for outcome in outcomes]
    assert outcome.error is None
    assert len(counts) == 1 + 2 * 5
    assert all(later > earlier for earlier, later in pairwise(counts))
    told = [(progress.done, progress.failed, progress.pending, progress.polls) for progress in seen]
    assert (told[counts[-1] - 1], told[-1]) == ((0, 0, 1, 1), (1, 0, 0, 1))


async def test_leaving_the_block_stops_all_work(way: str, open_world: Open, tmp_path: Path) -> None:
    """And leaves nothing half-written; cancelling it does as well."""
    refs = [JobRef(f"user-{index}", "job") for index in range(500)]
    async with open_world() as world:
        async with world.client.save_images_many(refs, tmp_path) as outcomes:
            await anext(outcomes)
        polls = world.polls
        assert polls < 100
        with anyio.move_on_after(0.1):
            async with world.client.save_images_many(refs[100:], tmp_path) as outcomes:
                async for _ in outcomes:
                    await anyio.sleep_forever()
        assert world.polls < polls + 100
    assert all(FILE.fullmatch(name) for name in names(tmp_path))


async def test_a_slow_consumer_holds_up_the_polling(way: str, open_world: Open, tmp_path: Path) -> None:
    """What nobody takes is neither polled nor fetched: its links would die."""
    refs = [JobRef(f"user-{index}", "job") for index in range(50)]
    async with open_world() as world, world.client.save_images_many(refs, tmp_path) as outcomes:
        await anext(outcomes)
        await anyio.sleep(0.3)
        assert world.polls <= 12


# Arguments


async def test_arguments_that_can_never_be_right(way: str, open_world: Open, tmp_path: Path) -> None:
    """They are refused at once."""
    async with open_world() as world:
        client = world.client
        wrong: list[Callable[[], object]] = [
            lambda: client.images("u", "j", names="selfie_image"),
            lambda: client.images("u", "j", names=5),
            lambda: client.images("u", "j", names=b"ab"),
            lambda: client.images("u", "j", names=["selfie_image", 5]),
            lambda: client.images("u", 5),
            lambda: client.images("u"),
            lambda: client.images(REF, "j"),
            lambda: client.save_images_many("refs", tmp_path),
            lambda: client.save_images_many([], 5),
            lambda: client.save_images_many([], tmp_path, on_progress=5),
        ]
        for call in wrong:
            with pytest.raises(TypeError):
                call()
        with pytest.raises(ValueError, match="max_connections"):
            client.save_images_many([], tmp_path, concurrency=3)
        with pytest.raises(TypeError):
            await client.save_images("u", "j", 5)
        with pytest.raises(TypeError, match="folder"):
            await client.save_images("u", "j")
        with pytest.raises(TypeError, match="by a JobRef"):
            await client.save_images(REF, "j", tmp_path)
        with pytest.raises(TypeError, match="patience"):
            client.save_images_many([], tmp_path, patience=5)
        with pytest.raises(TypeError, match="image_links"):
            client.save_images_many([], tmp_path, image_links=True)
        assert world.polls == 0


@given(strategies.binary(max_size=40))
def test_only_pictures_look_like_pictures(head: bytes) -> None:
    """Each format has its own first bytes."""
    found = [each.content_type for each in FORMATS if each.magic.match(head)]
    assert len(found) <= 1
    for picture, content_type in ((PNG, "png"), (JPEG, "jpeg"), (WEBP, "webp"), (HEIC, "heic")):
        (one,) = [each.content_type for each in FORMATS if each.magic.match(picture + head)]
        assert one == f"image/{content_type}"


@given(strategies.text())
def test_names_become_harmless(name: str) -> None:
    """A short word of small letters stays; of all else a hash does."""
    assert re.fullmatch(r"[a-z0-9_]{1,40}|image-[0-9a-f]{16}", shown(name))


def test_names_stay_different() -> None:
    """Jobs and pictures have files of their own, whatever their names."""
    assert len({shown(name) for name in ("a/b", "a?b", "A", "a", "", "x" * 41, "image-0")}) == 7
    assert stem(JobRef("a", "b\0c"), "x")[8:] != stem(JobRef("a\0b", "c"), "x")[8:]


# Expiry, by the virtual clock


@define
class Answer:
    """What a store of the imagination answers."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(factory=lambda: {"content-type": "image/png", "content-length": "0"})

    async def read(self) -> bytes:
        body, self.body = self.body, b""
        return body


class Imagined(Fetcher):
    """A store whose pictures take a while, and whose links die when they say."""

    def __init__(self, takes: float, now: Callable[[], datetime]) -> None:
        super().__init__(max_connections=1, timeout=1000)
        self.takes = takes
        self.now = now
        self.requests = 0
        self.refused = 0

    @asynccontextmanager
    async def get(self, url: str, max_bytes: int) -> AsyncGenerator[Any, None]:
        self.requests += 1
        expires_at = ImageLink(url=url).expires_at
        if expires_at is not None and self.now() >= expires_at:
            self.refused += 1
            yield Answer(403)
            return
        await anyio.sleep(self.takes)
        yield Answer(200, PNG)


class Asked:
    """An API whose links live so long."""

    def __init__(self, count: int, lifetime: float, now: Callable[[], datetime], skew: float = 0) -> None:
        self.polls = 0
        self.count = count
        self.lifetime = lifetime
        self.now = now
        self.skew = timedelta(seconds=skew)
        self.failure: Exception | None = None

    async def __call__(self, ref: JobRef | JobStatus) -> JobStatus:
        self.polls += 1
        if self.failure is not None and self.polls > 1:
            raise self.failure
        signed = (self.now() - self.skew).astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
        url = sigv4_url(signed=signed, expires=f"{self.lifetime:.0f}").replace("bucket.example", "a.example")
        links = {f"image_{index}": ImageLink(url=url) for index in range(self.count)}
        return JobStatus(user_id=ref.user_id, job_id=ref.job_id, job_complete=True, image_links=ImageLinks(links=links))


def now() -> datetime:
    return EPOCH + timedelta(seconds=anyio.current_time())


def gallery(asked: Asked, store: Imagined) -> Gallery:
    hosts = Hosts(["a.example"], loopback=False)
    return Gallery(ask=asked, fetcher=store, hosts=hosts, max_bytes=10_000, attempts=1, now=now)


@pytest.mark.parametrize(("takes", "polls"), [(1, 1), (100, 2), (800, 5), (895, 10)])
async def test_links_are_asked_for_again_before_they_die(takes: float, polls: int) -> None:
    """No more often than needed: new links serve all pictures that are left."""
    asked, store = Asked(10, 900, now), Imagined(takes, now)
    came, error = await everything(Images(gallery(asked, store), REF, None))
    assert (len(came), error, store.refused) == (10, None, 0)
    assert asked.polls == polls


async def test_a_link_is_not_used_in_its_last_seconds() -> None:
    """Clocks differ, and a request takes its time."""
    for pause, polls in ((889, 1), (891, 2)):
        asked, store = Asked(2, 900, now), Imagined(0, now)
        images = Images(gallery(asked, store), REF, None)
        await anext(images)
        await anyio.sleep(pause)
        await anext(images)
        assert asked.polls == polls


@pytest.mark.parametrize("skew", [100_000, -100_000])
async def test_a_wrong_clock_does_no_harm(skew: float) -> None:
    """Links that look dead when they come are tried; if they are, the links are asked for again, once."""
    asked, store = Asked(3, 900, now, skew=skew), Imagined(0, lambda: now() - timedelta(seconds=skew))
    came, error = await everything(Images(gallery(asked, store), REF, None))
    assert (len(came), error, asked.polls, store.requests) == (3, None, 1, 3)


async def test_links_that_are_always_dead() -> None:
    """Two requests and one more poll for each picture, and then an end."""
    asked, store = Asked(3, 900, now, skew=1000), Imagined(0, now)
    came, error = await everything(Images(gallery(asked, store), REF, None))
    assert error is not None
    assert (came, error.reason, len(error.others), asked.polls, store.requests) == ([], "expired", 2, 4, 6)


@pytest.mark.parametrize("failure", [RateLimitedError("later"), CredentialsError("no")])
async def test_links_that_are_not_given_again(failure: smilejobs.SmileJobsError) -> None:
    """The picture's error says what the API said; the picture before is there."""
    asked, store = Asked(2, 900, now), Imagined(895, now)
    asked.failure = failure
    came, error = await everything(Images(gallery(asked, store), REF, None))
    assert error is not None
    assert (len(came), error.reason, error.name) == (1, "expired", "image_1")
    assert (error.transient, error.__cause__) == (failure.transient, failure)


async def test_a_picture_that_is_gone_when_links_are_asked_for_again() -> None:
    """It is missing then."""
    asked, store = Asked(2, 900, now), Imagined(0, now)
    images = Images(gallery(asked, store), REF, None)
    await anext(images)
    await anyio.sleep(1000)
    asked.count = 1
    with pytest.raises(ImageError, match="no link to it") as caught:
        await anext(images)
    assert (caught.value.reason, caught.value.name) == ("missing", "image_1")
    with pytest.raises(StopAsyncIteration):
        await anext(images)


async def test_a_link_that_does_not_say_when_it_dies() -> None:
    """It is used as it is."""
    asked, store = Asked(2, 0, now), Imagined(5000, now)
    store.timeout = 10_000
    came, error = await everything(Images(gallery(asked, store), REF, None))
    assert (len(came), error, asked.polls) == (2, None, 1)


async def test_the_poll_fails() -> None:
    """As it does for `job_status`."""

    async def refuse(ref: JobRef | JobStatus) -> JobStatus:
        raise CredentialsError("no")

    of = Gallery(ask=refuse, fetcher=Imagined(0, now), hosts=Hosts((), loopback=True), max_bytes=1, attempts=1, now=now)
    with pytest.raises(CredentialsError):
        await anext(Images(of, REF, None))


async def test_a_cancelled_step_is_done_again() -> None:
    """No picture is lost by a timeout around one step."""
    asked, store = Asked(2, 900, now), Imagined(10, now)
    images = Images(gallery(asked, store), REF, None)
    with anyio.move_on_after(5):
        await anext(images)
    assert [image.name async for image in images] == ["image_0", "image_1"]


# Against the sandbox


async def test_a_deadline_ends_the_polling_for_pictures(tmp_path: Path) -> None:
    """Each pending job has an outcome then, and the pictures of complete ones are dealt with."""
    script = Script({"job-0": [complete()], "job-1": itertools.repeat(pending())})
    refs = [JobRef("user-1", f"job-{index}") for index in range(2)]
    async with script.client() as client:
        begun = anyio.current_time()
        async with client.save_images_many(refs, tmp_path, deadline=timedelta(minutes=1)) as outcomes:
            ended = [outcome async for outcome in outcomes]
        assert anyio.current_time() - begun == pytest.approx(60)
    assert [type(outcome.error).__name__ for outcome in ended] == ["ImageError", "WaitTimeoutError"]
    assert "The deadline of the batch, 60 s, has come" in str(ended[1].error)
    assert names(tmp_path) == []


@pytest.fixture
def sandboxed() -> None:
    """Real sockets on asyncio, which the sandbox needs."""


def client_of(base_url: str, **options: Any) -> Client:
    return Client(partner_id="085", api_key="sandbox-key", base_url=base_url, rate=None, **options)


async def test_the_sandbox_in_a_storm_of_pictures(sandboxed: None, tmp_path: Path) -> None:
    """Cut and slow pictures, missing links and placeholders: what is saved is what is stored; errors have reasons."""
    faults = FaultProfile(link_errors=0.2, slow_pictures=0.2, slow=0.05, cut_pictures=0.3)
    sandbox = Sandbox(faults=faults, picture_bytes=20_000)
    refs = [sandbox.submit("user", f"job-{index}", job_type=6, machine=0) for index in range(15)]
    async with (
        sandbox.serve() as base_url,
        client_of(base_url, attempts=1) as client,
        client.save_images_many(refs, tmp_path) as outcomes,
    ):
        ended = [outcome async for outcome in outcomes]
    reasons = Counter(
        error.reason
        for outcome in ended
        if isinstance(outcome.error, ImageError)
        for error in (outcome.error, *outcome.error.others)
    )
    assert reasons.keys() == {"missing", "store", "untrusted"}
    assert len(names(tmp_path)) == sum(len(outcome.paths) for outcome in ended)
    assert all(FILE.fullmatch(name) for name in names(tmp_path))


async def test_links_of_a_moment(sandboxed: None, tmp_path: Path) -> None:
    """Every picture is saved although its link is dead when its turn comes; then the job is polled once more."""
    sandbox = Sandbox(link_lifetime=30, picture_bytes=2000, now=now)
    refs = [sandbox.submit("user", f"job-{index}", machine=0) for index in range(60)]
    have_waited: set[JobRef] = set()
    may_have_waited: set[JobRef] = set()
    taken = 0

    def saved() -> set[str]:
        return {name[:24] for name in names(tmp_path) if FILE.fullmatch(name)}

    def waiting() -> set[JobRef]:
        return {ref for ref in refs if sandbox.polls(ref) and stem(ref, "")[:24] not in saved()}

    async with (
        sandbox.serve() as base_url,
        client_of(base_url, max_connections=4, request_timeout=10_000, now=now) as client,
        client.save_images_many(refs, tmp_path, timeout=None) as outcomes,
    ):
        async for outcome in outcomes:
            assert outcome.error is None
            taken += 1
            # Four outcomes more wait to be taken, and four workers wait to hand theirs over: no link is in use.
            await until(lambda: len(saved()) == min(taken + 8, 60))
            have_waited |= waiting()
            await let_pass(30)
            may_have_waited |= waiting()
    assert len(names(tmp_path)) == 60
    assert have_waited
    assert {sandbox.polls(ref) for ref in have_waited} == {2}
    assert {sandbox.polls(ref) for ref in set(refs) - may_have_waited} == {1}


async def test_one_job_of_slow_pictures(sandboxed: None) -> None:
    """The links that were asked for again serve the pictures after it as well."""
    sandbox = Sandbox(link_lifetime=30, now=now)
    ref = sandbox.submit("user", "job", job_type=6, machine=0)
    async with sandbox.serve() as base_url, client_of(base_url, now=now) as client:
        images = client.images(ref.user_id, ref.job_id)
        await anext(images)
        await let_pass(30)
        assert len([image async for image in images]) == len(sandbox.jobs[ref].product.pictures) - 1 > 1
    assert sandbox.polls(ref) == 2


async def test_over_tls(sandboxed: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Certificates are checked: one that is not trusted will not be so later."""
    sandbox = Sandbox()
    ref = sandbox.submit("user", "job", machine=0)
    (tmp_path / "ca.pem").write_bytes(sandbox.ca_pem)
    async with sandbox.serve(tls=True) as base_url:
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        for transport in ("httpx", "aiohttp"):
            async with client_of(base_url, transport=transport) as client:
                (image,) = [image async for image in client.images(ref.user_id, ref.job_id, names=["selfie_image"])]
                assert image.content_type == "image/png"
            async with client_of(base_url, transport=transport) as client:
                await client.job_status(ref.user_id, ref.job_id)
                monkeypatch.delenv("SSL_CERT_FILE")
                with pytest.raises(ImageError, match="certificate is not trusted") as caught:
                    await anext(client.images(ref.user_id, ref.job_id, names=["selfie_image"]))
                assert (caught.value.transient, caught.value.reason) == (False, "store")
                monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))


@pytest.mark.parametrize("user", ["", "jane:p%40ss@"])
async def test_through_a_proxy(sandboxed: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, user: str) -> None:
    """The one of the environment, as for polls."""
    sandbox = Sandbox()
    ref = sandbox.submit("user", "job", machine=0)
    (tmp_path / "ca.pem").write_bytes(sandbox.ca_pem)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    async with sandbox.serve(tls=True) as base_url, serve_proxy(int(urlsplit(base_url).port or 0)) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://{user}127.0.0.1:{proxy.port}")
        monkeypatch.setenv("NO_PROXY", "")
        for transport in ("httpx", "aiohttp"):
            seen = len(proxy.heads)
            async with client_of(base_url, transport=transport) as client:
                await anext(client.images(ref.user_id, ref.job_id))
            assert len(proxy.heads) == seen + 2
            assert all(head.startswith(b"CONNECT ") for head in proxy.heads)
            assert all((b"Basic amFuZTpwQHNz" in head) is bool(user) for head in proxy.heads)
