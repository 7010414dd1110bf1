"""The pictures of jobs, fetched before their links expire.

A link is a bearer secret to a face: it is followed only to where the vendor keeps pictures, with nothing of ours in the
request, and is in no log, repr or error text. What it brings is believed to be a picture only if it looks like one.
"""

import os
import re
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from functools import partial
from hashlib import sha256
from pathlib import Path
from secrets import token_hex
from threading import Lock
from typing import TYPE_CHECKING, BinaryIO, Protocol, Self, TypedDict, TypeVar, Unpack

import anyio
import anyio.to_thread
from attrs import evolve, field, frozen

from smilejobs.errors import ImageError, ImageReason, RequestError, SmileJobsError
from smilejobs.model.jobs import JobRef, JobStatus
from smilejobs.model.links import ImageLinks
from smilejobs.polling.pace import Backoff
from smilejobs.settings import is_loopback, split_url
from smilejobs.tasks import beside
from smilejobs.transport import Fetcher

if TYPE_CHECKING:
    from smilejobs.fleet import Fleet, Outcome, Progress

IMAGE_HOSTS: tuple[str, ...] = (
    "smile-*.s3.amazonaws.com",
    "smile-*.s3.*.amazonaws.com",
    "smile-*.s3-*.amazonaws.com",
    "smile-*.s3.dualstack.*.amazonaws.com",
)
"""Where pictures may come from: the vendor's buckets at Amazon S3, in its spellings. A ``*`` is any part of a label.

Source: ``smile-results-prod.s3.us-west-2.amazonaws.com``, the one host that was seen in real links.
"""

_BACKOFF = Backoff()
_LONGEST_LINK = 8192
_SKEW = 10.0
"""Seconds before its end at which a link is not used any more, if it lives long; for clocks differ."""
_BUFFER = 256 * 1024
"""Bytes that are gathered before a thread writes them. Most pictures are smaller: one thread does all for them."""
_EXISTS = "there is a file of that name already; it was left as it is"
_PLAIN = re.compile(r"[a-z0-9_]{1,40}")
_TICK = 0.2
"""Seconds between two reports of progress."""
_T = TypeVar("_T")
_T_co = TypeVar("_T_co", covariant=True)


def shown(name: str) -> str:
    """Return a name of the vendor's for texts and file names: a hash, where it is not a short word of small letters."""
    if _PLAIN.fullmatch(name):
        return name
    return f"image-{sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:16]}"


@frozen(kw_only=True)
class Image:
    """A picture.

    Attributes:
        name: The vendor's name for it, such as "selfie_image".
        content_type: What it is, by its first bytes: "image/jpeg", "image/png", "image/webp" or "image/heic".
        data: The picture.
        ref: The job that it belongs to.
    """

    name: str = field(repr=shown)
    content_type: str
    data: bytes = field(repr=False)
    ref: JobRef


@frozen(kw_only=True)
class SavedImages:
    """How the saving of the pictures of one job of many has ended.

    Attributes:
        index: The position of the job in the input, from 0.
        ref: The job, as the input named it.
        paths: The files that were written.
        error: Why there are not more; what `Client.wait` or `Client.save_images` would have raised.
    """

    index: int
    ref: JobRef
    paths: tuple[Path, ...] = ()
    error: SmileJobsError | None = None


@frozen(kw_only=True)
class _Format:
    content_type: str
    suffix: str
    magic: re.Pattern[bytes]


FORMATS = (
    _Format(content_type="image/jpeg", suffix=".jpg", magic=re.compile(rb"\xff\xd8\xff")),
    _Format(content_type="image/png", suffix=".png", magic=re.compile(rb"\x89PNG\r\n\x1a\n")),
    _Format(content_type="image/webp", suffix=".webp", magic=re.compile(rb"RIFF.{4}WEBP", re.DOTALL)),
    _Format(
        content_type="image/heic",
        suffix=".heic",
        magic=re.compile(rb".{4}ftyp(hei[cmsx]|hev[cmsx]|mif1|msf1)", re.DOTALL),
    ),
)
_MAGIC_BYTES = 12
"""How many bytes tell the format."""

_CONTENT_TYPES = {
    *(each.content_type for each in FORMATS),
    "image/jpg",
    "image/heif",
    # What S3 says of an object that was stored without a type: nothing. Then the first bytes decide alone.
    "application/octet-stream",
    "binary/octet-stream",
}


class Hosts:
    """Where links may lead.

    Args:
        patterns: Names of hosts; a ``*`` is any part of a label.
        loopback: Whether this machine is allowed too, over plain http and on any port: for tests.

    Raises:
        TypeError: A pattern is no string.
        ValueError: A pattern is not the name of a host, with two labels at least.
    """

    _NAME = re.compile(r"[a-z0-9*_-]+(\.[a-z0-9*_-]+)+")
    _NUMBER = re.compile(r"([0-9]+|0x[0-9a-f]*)\.?")

    def __init__(self, patterns: Iterable[str], *, loopback: bool) -> None:
        if isinstance(patterns, str):
            raise TypeError("image_hosts must be names of hosts, in a list or the like")
        self._loopback = loopback
        self._patterns: list[re.Pattern[str]] = []
        for pattern in patterns:
            if not isinstance(pattern, str):
                raise TypeError(f"image_hosts must be names of hosts, not {type(pattern).__name__}")
            name = pattern.lower()
            if not self._NAME.fullmatch(name) or self._is_number(name):
                raise ValueError(f"image_hosts: {pattern!r} is not the name of a host, such as 'pictures.example.org'")
            self._patterns.append(re.compile(re.escape(name).replace(r"\*", "[a-z0-9_-]*")))

    def problem(self, url: str) -> str | None:
        """Say what is wrong with a link, without quoting it; None if it may be followed."""
        try:
            parts = split_url(url, "the link")
        except ValueError as error:
            return str(error)
        if len(url) > _LONGEST_LINK:
            return f"the link has more than {_LONGEST_LINK} characters"
        host = str(parts.hostname)
        if is_loopback(host):
            return None if self._loopback else "the link leads to this machine"
        wrong = {
            "the link is not https": parts.scheme != "https",
            "the link leads to an IP address": parts.netloc.startswith("[") or self._is_number(host),
            "the link leads to an odd port": parts.port not in (None, 443),
            "the link leads to a host that is not among image_hosts": not any(
                pattern.fullmatch(host) for pattern in self._patterns
            ),
        }
        return next((words for words, is_so in wrong.items() if is_so), None)

    def _is_number(self, host: str) -> bool:
        """Whether it is an IPv4 address, in any spelling: "127.1", "0x7f000001". Source: the URL standard."""
        return self._NUMBER.fullmatch(host.rstrip(".").rpartition(".")[2]) is not None


class _More(TypedDict, total=False):
    http_status: int
    transient: bool


@frozen(kw_only=True)
class Gallery:
    """What it takes to fetch pictures.

    Attributes:
        ask: Asks about a job, with its links.
        fetcher: Follows links.
        hosts: Where links may lead.
        max_bytes: The most bytes of a picture.
        attempts: How often a picture is fetched, in all, when that fails for a reason that may pass.
        now: The wall clock, aware.
    """

    ask: Callable[[JobRef], Awaitable[JobStatus]]
    fetcher: Fetcher
    hosts: Hosts
    max_bytes: int
    attempts: int
    now: Callable[[], datetime]


class Images:
    """The pictures of one job, each fetched when it is asked for; see `Client.images`.

    No generator: between two pictures nothing is held, and there is nothing to abandon.

    Args:
        gallery: Fetches.
        ref: The job.
        names: Which ones, by the vendor's names; None for all.
    """

    def __init__(self, gallery: Gallery, ref: JobRef, names: Collection[str] | None) -> None:
        self._gallery = gallery
        self._ref = ref
        self._names = names
        self._pictures: _Pictures | None = None
        self._stepping = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Image:
        """Return the next picture; those that fail are reported at the end.

        Raises:
            SmileJobsError: The poll failed, or (`ImageError`) pictures could not be fetched.
            StopAsyncIteration: There are no more.
        """
        if self._stepping:
            raise RuntimeError("these images are being iterated by another task")
        self._stepping = True
        try:
            return await self._next()
        finally:
            self._stepping = False

    async def _next(self) -> Image:
        if self._pictures is None:
            status = await self._gallery.ask(self._ref)
            self._pictures = _Pictures(self._gallery, self._ref, self._names, status)
        pictures = self._pictures
        while pictures.left:
            name = pictures.left[0]
            try:
                image = await pictures.fetch(name, partial(_InMemory, name, self._ref))
            except ImageError as error:
                pictures.failures.append(error)
            else:
                pictures.left.popleft()
                return image
            pictures.left.popleft()
        pictures.raise_failures()
        raise StopAsyncIteration


async def save(gallery: Gallery, ref: JobRef, names: Collection[str] | None, folder: Path) -> list[Path]:
    """Ask about a job, and save its pictures; see `Client.save_images`.

    Raises:
        SmileJobsError: The poll failed, or (`ImageError`) a picture could not be saved.
    """
    await anyio.to_thread.run_sync(_check_folder, folder)
    status = await gallery.ask(ref)
    return await _save(_Pictures(gallery, ref, names, status), ref, folder)


async def _save(pictures: "_Pictures", ref: JobRef, folder: Path) -> list[Path]:
    stems = {name: stem(ref, name) for name in pictures.left}
    there = await anyio.to_thread.run_sync(_existing, folder, stems.values())
    saved: list[Path] = []
    for name, its_stem in stems.items():
        try:
            if its_stem in there:
                raise pictures.error(name, "exists", _EXISTS)
            saved.append(await pictures.fetch(name, partial(InFile, folder, its_stem)))
        except ImageError as error:
            pictures.failures.append(error)
    if saved:
        await anyio.to_thread.run_sync(_sync, folder)
    pictures.raise_failures(saved)
    return saved


class _Sink(Protocol[_T_co]):
    """Takes a picture, piece by piece."""

    async def add(self, piece: bytes) -> None: ...

    async def finish(self, found: _Format) -> _T_co: ...

    def discard(self) -> None: ...


class _InMemory:
    """A picture that is becoming an `Image`."""

    def __init__(self, name: str, ref: JobRef) -> None:
        self._name = name
        self._ref = ref
        self._pieces: list[bytes] = []

    async def add(self, piece: bytes) -> None:
        self._pieces.append(piece)

    async def finish(self, found: _Format) -> Image:
        data = b"".join(self._pieces)
        return Image(name=self._name, content_type=found.content_type, data=data, ref=self._ref)

    def discard(self) -> None:
        pass


class InFile:
    """A picture that is becoming a file.

    It gets its name when it is whole and on the disk. What threads do here can go on while the task that waited for
    them has been cancelled, by asyncio itself: hence the lock.

    Args:
        folder: Where.
        stem: The name that it is to have, without what tells the format.
    """

    def __init__(self, folder: Path, stem: str) -> None:
        self._folder = folder
        self._stem = stem
        self._partial = folder / f".{stem}-{token_hex(4)}.part"
        self._pieces: list[bytes] = []
        self._size = 0
        self._file: BinaryIO | None = None
        self._lock = Lock()
        self._ended = False

    async def add(self, piece: bytes) -> None:
        """Take the next piece."""
        self._pieces.append(piece)
        self._size += len(piece)
        if self._size >= _BUFFER:
            pieces, self._pieces, self._size = self._pieces, [], 0
            await anyio.to_thread.run_sync(self.write, pieces)

    async def finish(self, found: _Format) -> Path:
        """Give the file its name.

        Raises:
            OSError: It cannot be written, or there is one of that name.
        """
        path = self._folder / f"{self._stem}{found.suffix}"
        await anyio.to_thread.run_sync(self.write, self._pieces, path)
        return path

    def discard(self) -> None:
        """Remove what there is, unless it is whole."""
        with self._lock:
            self._ended = True
            if self._file is not None:
                with suppress(OSError):  # that of a full disk, once more
                    self._file.close()
                with suppress(OSError):
                    self._partial.unlink()

    def write(self, pieces: list[bytes], path: Path | None = None) -> None:
        """Write, in a thread; with *path*, that was all.

        Raises:
            OSError: It cannot be written, or there is such a file.
        """
        with self._lock:
            if self._ended:
                return
            if self._file is None:
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
                self._file = os.fdopen(os.open(self._partial, flags, 0o600), "wb")
            self._file.writelines(pieces)
            if path is None:
                return
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._name_it(path)
            self._file = None

    def _name_it(self, path: Path) -> None:
        """Give the file its name. Unlike a renaming, a link replaces nothing; but some file systems have none."""
        try:
            os.link(self._partial, path)
        except FileExistsError:
            raise
        except OSError:
            if os.path.lexists(path):
                raise FileExistsError from None
            self._partial.rename(path)
        else:
            self._partial.unlink()


class _Pictures:
    """Those of one job: the links to them, and what has become of them.

    Args:
        gallery: Fetches.
        ref: The job.
        names: Which ones; None for all.
        status: The answer with the links.

    Attributes:
        left: The names of those that have a link.
        failures: Why others are missing.

    Raises:
        ImageError: There are no links.
    """

    def __init__(self, gallery: Gallery, ref: JobRef, names: Collection[str] | None, status: JobStatus) -> None:
        self._gallery = gallery
        self._ref = ref
        self._renewed: set[str] = set()
        self._take(status)
        links = self._links
        self.left = deque(name for name in links if names is None or name in names)
        self.failures: list[ImageError] = []
        if links.error is not None:
            words = "the API could not make links to the pictures"
            self.failures.append(ImageError(words, reason="missing", text=links.error, ref=ref))
        elif not links and status.job_complete:
            raise ImageError("the API gave no links to pictures", reason="missing", ref=ref)
        elif not links:
            words = "the job is not complete, and there are no links to its pictures yet; wait for it first"
            raise ImageError(words, reason="pending", ref=ref)
        self.failures += [self._without_link(name) for name in names or () if name not in links]

    def raise_failures(self, saved: Sequence[Path] = ()) -> None:
        """Raise the first failure, if there is one, with all the others; once.

        Raises:
            ImageError: A picture is missing.
        """
        if self.failures:
            failures, self.failures = self.failures, []
            first = failures[0]
            first.saved = tuple(saved)
            first.others = tuple(failures[1:])
            raise first

    async def fetch(self, name: str, sink: "Callable[[], _Sink[_T]]") -> _T:
        """Fetch one picture; again where the failure may pass. The links are asked for again once, if at all.

        Raises:
            ImageError: It could not be fetched.
        """
        attempt = 1
        while True:
            if self._is_about_to_expire(name) and name not in self._renewed:
                await self._renew(name)
            try:
                return await self._fetch_once(name, sink())
            except ImageError as error:
                failure = error
            if failure.reason == "expired" and name not in self._renewed:
                await self._renew(name)
                continue
            if not failure.transient or attempt == self._gallery.attempts:
                raise failure
            await anyio.sleep(_BACKOFF(attempt))
            attempt += 1

    def error(self, name: str, reason: ImageReason, words: str, **more: Unpack[_More]) -> ImageError:
        """Return an error about one picture."""
        return ImageError(f"{shown(name)}: {words}", reason=reason, name=name, ref=self._ref, **more)

    def _without_link(self, name: str) -> ImageError:
        return self.error(name, "missing", "the API gave no link to it")

    def _take(self, status: JobStatus) -> None:
        self._links = ImageLinks() if status.image_links is None else status.image_links  # one without links is false
        self._taken_at = anyio.current_time()
        self._taken_on = self._gallery.now()

    def _is_about_to_expire(self, name: str) -> bool:
        """Whether a link should not be used any more. One that came dead tells of a wrong clock, and may be alive."""
        expires_at = self._links[name].expires_at
        if expires_at is None:
            return False
        lifetime = (expires_at - self._taken_on).total_seconds()
        return 0 < lifetime <= anyio.current_time() - self._taken_at + min(_SKEW, lifetime / 10)

    async def _renew(self, name: str) -> None:
        self._renewed.add(name)
        try:
            status = await self._gallery.ask(self._ref)
        except SmileJobsError as error:
            words = f"its link has expired, and the API gave no other: {type(error).__name__}"
            raise self.error(name, "expired", words, transient=error.transient) from error
        if name not in (status.image_links or ()):
            raise self._without_link(name)
        self._take(status)

    async def _fetch_once(self, name: str, sink: _Sink[_T]) -> _T:
        url = self._links[name].url
        problem = self._gallery.hosts.problem(url)
        if problem is not None:
            raise self.error(name, "untrusted", problem)
        timeout = self._gallery.fetcher.timeout
        failure = self.error(name, "store", f"it did not come within {timeout:.10g} s", transient=True)
        try:
            with anyio.move_on_after(timeout):
                return await self._stream(name, url, sink)
        except RequestError as error:
            failure = self.error(name, "store", str(error), transient=error.transient)
        except FileExistsError:
            failure = self.error(name, "exists", _EXISTS)
        except OSError as error:
            failure = self.error(name, "disk", f"it could not be written: {error.strerror}")
        finally:
            sink.discard()
        raise failure

    async def _stream(self, name: str, url: str, sink: _Sink[_T]) -> _T:
        max_bytes = self._gallery.max_bytes
        async with self._gallery.fetcher.get(url) as answer:
            if answer.status != 200:
                raise self._refused(name, answer.status)
            content_type = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
            if content_type not in _CONTENT_TYPES:
                raise self.error(name, "malformed", "what came is not called a picture")
            if "content-length" not in answer.headers and "transfer-encoding" not in answer.headers:
                raise self.error(name, "store", "the store does not say where it ends")
            found: _Format | None = None
            head = b""
            size = 0
            while piece := await answer.read():
                size += len(piece)
                if size > max_bytes:
                    raise self.error(name, "oversized", f"it has more than {max_bytes} bytes")
                if found is not None:
                    await sink.add(piece)
                    continue
                head += piece
                found = next((each for each in FORMATS if each.magic.match(head)), None)
                if found is not None:
                    await sink.add(head)
                elif len(head) >= _MAGIC_BYTES:
                    break
            if found is None:
                raise self.error(name, "malformed", "what came does not begin as a picture does")
            return await sink.finish(found)

    def _refused(self, name: str, status: int) -> ImageError:
        words = f"the store answered {status}"
        if status == 403:
            return self.error(name, "expired", words, http_status=status)
        passes = status in (408, 429) or status >= 500
        return self.error(name, "store", words, http_status=status, transient=passes)


class SavingMany:
    """Saves the pictures of jobs as a fleet sees them complete; iterate over it to get the outcomes.

    See `Client.save_images_many`. All polling is the fleet's. Few outcomes of its wait here, for their links grow old.

    Args:
        gallery: Fetches.
        folder: Where to.
        total: How many jobs there are, if that is known.
        concurrency: For how many jobs pictures are fetched at once.
        polling: How far the fleet is at the beginning.
        on_progress: Told every 0.2 s, and at the end.
    """

    def __init__(
        self,
        gallery: Gallery,
        folder: Path,
        *,
        total: int | None,
        concurrency: int,
        polling: "Progress",
        on_progress: "Callable[[Progress], None] | None",
    ) -> None:
        self._gallery = gallery
        self._folder = folder
        self._total = total
        self._concurrency = concurrency
        self._on_progress = on_progress
        self._polling = polling
        self._done = 0
        self._failed = 0
        self._error: Exception | None = None
        self._scope = anyio.CancelScope()

    def heard(self, progress: "Progress") -> None:
        """Take note of how far the fleet is."""
        self._polling = progress

    @asynccontextmanager
    async def running(self, fleet: "Fleet") -> AsyncGenerator[Self, None]:
        """Poll and save while the block runs.

        Raises:
            ImageError: The folder is not there.
            RuntimeError: The client is closed, or belongs to another event loop.
        """
        await anyio.to_thread.run_sync(_check_folder, self._folder)
        self._started = anyio.current_time()
        self._turn = anyio.Lock(fast_acquire=True)
        self._ended, self._outcomes = anyio.create_memory_object_stream[SavedImages](self._concurrency)
        with self._ended, self._outcomes:
            async with fleet.running() as answers, beside(partial(self._run, answers), self._scope.cancel):
                yield self

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> SavedImages:
        with suppress(anyio.EndOfStream, anyio.ClosedResourceError):
            return await self._outcomes.receive()
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        raise StopAsyncIteration

    async def _run(self, answers: "AsyncIterator[Outcome]") -> None:
        with self._ended, self._scope:
            async with anyio.create_task_group() as telling:
                if self._on_progress is not None:
                    telling.start_soon(self._guarded, partial(self._tell, self._on_progress))
                async with anyio.create_task_group() as saving:
                    for _ in range(self._concurrency):
                        saving.start_soon(self._guarded, partial(self._work, answers))
                telling.cancel_scope.cancel()
            if self._error is None and self._on_progress is not None:
                await self._guarded(partial(self._tell_once, self._on_progress))

    async def _guarded(self, work: Callable[[], Awaitable[None]]) -> None:
        """Let an error end the batch; the iteration raises it, bare, after the outcomes that are known."""
        try:
            await work()
        except Exception as error:  # noqa: BLE001  # see above
            self._error = self._error or error
            self._scope.cancel()

    async def _work(self, answers: "AsyncIterator[Outcome]") -> None:
        while True:
            async with self._turn:
                try:
                    answer = await anext(answers, None)
                except Exception as error:  # noqa: BLE001  # it ends the polling; the pictures under way may be saved
                    self._error = self._error or error
                    return
            if answer is None:
                return
            paths: Sequence[Path] = ()
            failure = answer.error
            if answer.status is not None:
                try:
                    pictures = _Pictures(self._gallery, answer.ref, None, answer.status)
                    paths = await _save(pictures, answer.ref, self._folder)
                except ImageError as error:
                    paths, failure = error.saved, error
            self._done += failure is None
            self._failed += failure is not None
            await self._ended.send(SavedImages(index=answer.index, ref=answer.ref, paths=tuple(paths), error=failure))

    async def _tell(self, on_progress: "Callable[[Progress], None]") -> None:
        while True:
            await anyio.sleep(_TICK)
            await self._tell_once(on_progress)

    async def _tell_once(self, on_progress: "Callable[[Progress], None]") -> None:
        polling = self._polling
        ended = self._done + self._failed
        elapsed = anyio.current_time() - self._started
        on_progress(
            evolve(
                polling,
                pending=polling.pending + polling.done + polling.failed - ended,
                done=self._done,
                failed=self._failed,
                eta=None if self._total is None or not ended else (self._total - ended) / ended * elapsed,
            )
        )


def stem(ref: JobRef, name: str) -> str:
    """Return the name of the file of a picture, without what tells the format.

    It begins with the tag of the job. More follows, for among a hundred thousand jobs two have the same tag.
    """
    more = sha256(f"{len(ref.user_id)} {ref.user_id}{ref.job_id}".encode()).hexdigest()[:16]
    return f"{ref.tag}{more}-{shown(name)}"


def _check_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise ImageError("the folder for the pictures is not there, or is no folder; make it first", reason="disk")


def _existing(folder: Path, stems: Iterable[str]) -> set[str]:
    return {stem for stem in stems if any(os.path.lexists(folder / f"{stem}{each.suffix}") for each in FORMATS)}


def _sync(folder: Path) -> None:
    """Let the names of new files outlive a power failure, where the system lets a folder be synced at all."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
