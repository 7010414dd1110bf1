"""Follows the links to the pictures of a job, polls for new links when they expire, and checks the responses.

Here a picture gets the reason of its `ImageError`. Other modules hold the rules: `hosts` which links may be followed,
`values` which formats are pictures, `transport.body` how many bytes are read, `model.links` how long a link may be and
when it expires. ``docs/images.md`` lists all causes of each reason.
"""

from collections import deque
from collections.abc import Callable, Collection, Sequence
from itertools import islice
from pathlib import Path
from typing import TypedDict, TypeVar, Unpack

import anyio

from smilejobs.errors import ImageError, ImageReason, RequestError, SmileJobsError
from smilejobs.images.gallery import Gallery
from smilejobs.images.sinks import Sink
from smilejobs.images.values import CONTENT_TYPES, FORMATS, MAGIC_BYTES, Format, shown
from smilejobs.model.jobs import JobRef, JobStatus
from smilejobs.model.links import ImageLinks
from smilejobs.polling.pace import Backoff
from smilejobs.transport import UnreadableBodyError

EXISTS = "the file exists already and was not changed"

MAX_PICTURES = 64
"""The most pictures of one answer that are fetched; real ones have at most a dozen."""

_EXPECTED = "expected a JPEG, PNG, WebP or HEIC image"
_BACKOFF = Backoff()
_CLOCK_SKEW_SECONDS = 10.0
"""A link is not used in the last so many seconds before it expires, because clocks differ."""
_T = TypeVar("_T")


class _More(TypedDict, total=False):
    http_status: int
    transient: bool


class Pictures:
    """The pictures of one job, all or those of some names: the links to them, from an answer, and the failures.

    Attributes:
        left: The names of the pictures that have a link and were not fetched yet.
        failures: The errors of pictures that are missing.

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
        self.failures += [self._without_link(name) for name in dict.fromkeys(names or ()) if name not in links]
        if len(self.left) > MAX_PICTURES:
            words = f"the answer has links to {len(self.left)} pictures; only the first {MAX_PICTURES} are fetched"
            self.failures.append(ImageError(words, reason="oversized", ref=ref))
            self.left = deque(islice(self.left, MAX_PICTURES))

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

    async def fetch(self, name: str, sink: Callable[[], Sink[_T]]) -> _T:
        """Fetch one picture; retry after transient failures, and poll for new links at most once.

        Raises:
            ImageError: The picture could not be fetched.
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
        """Return whether a link should not be used any more.

        A link that had expired when it was received may be valid: the clock of this machine may be wrong.
        """
        expires_at = self._links[name].expires_at
        if expires_at is None:
            return False
        lifetime = (expires_at - self._taken_on).total_seconds()
        return 0 < lifetime <= anyio.current_time() - self._taken_at + min(_CLOCK_SKEW_SECONDS, lifetime / 10)

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

    async def _fetch_once(self, name: str, sink: Sink[_T]) -> _T:
        url = self._links[name].url
        problem = self._gallery.hosts.problem(url)
        if problem is not None:
            raise self.error(name, "untrusted", problem)
        timeout = self._gallery.fetcher.timeout
        try:
            with anyio.move_on_after(timeout):
                return await self._stream(name, url, sink)
            failure = self.error(name, "store", f"it was not received within {timeout:.10g} s", transient=True)
        except RequestError as error:
            failure = self.error(name, "store", str(error), transient=error.transient)
        except UnreadableBodyError as error:
            reason: ImageReason = "oversized" if error.oversized else "malformed"
            failure = self.error(name, reason, str(error))
        except FileExistsError:
            failure = self.error(name, "exists", EXISTS)
        except OSError as error:
            failure = self.error(name, "disk", f"the file could not be written: {error.strerror}")
        finally:
            sink.discard()
        raise failure

    async def _stream(self, name: str, url: str, sink: Sink[_T]) -> _T:
        async with self._gallery.fetcher.get(url, self._gallery.max_bytes) as answer:
            if answer.status != 200:
                raise self._refused(name, answer.status)
            content_type = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
            if content_type not in CONTENT_TYPES:
                raise self.error(name, "malformed", f"unexpected Content-Type {content_type[:60]!r}; {_EXPECTED}")
            if "content-length" not in answer.headers and "transfer-encoding" not in answer.headers:
                raise self.error(name, "store", "the response has no Content-Length")
            found: Format | None = None
            head = b""
            while piece := await answer.read():
                if found is not None:
                    await sink.add(piece)
                    continue
                head += piece
                found = next((each for each in FORMATS if each.magic.match(head)), None)
                if found is not None:
                    await sink.add(head)
                elif len(head) >= MAGIC_BYTES:
                    break
            if found is None:
                raise self.error(name, "malformed", f"unknown image format; {_EXPECTED}")
            return await sink.finish(found)

    def _refused(self, name: str, status: int) -> ImageError:
        words = f"the store answered {status}"
        if status == 403:
            return self.error(name, "expired", words, http_status=status)
        passes = status in (408, 429) or status >= 500
        return self.error(name, "store", words, http_status=status, transient=passes)
