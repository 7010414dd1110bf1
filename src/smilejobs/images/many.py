"""The pictures of many jobs, saved as a fleet sees the jobs complete."""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Self

import anyio
from attrs import evolve

from smilejobs.errors import ImageError
from smilejobs.images.fetching import Pictures
from smilejobs.images.folder import Folder
from smilejobs.images.gallery import Gallery
from smilejobs.images.one import save_all
from smilejobs.images.values import SavedImages
from smilejobs.outcomes import TICK, Outcome, Progress, time_left
from smilejobs.tasks import beside

if TYPE_CHECKING:
    from smilejobs.fleet import Fleet


class SavingMany:
    """Saves the pictures of jobs as a fleet sees them complete; iterate over it to get the outcomes.

    See `Client.save_images_many`. All polling is the fleet's. Few outcomes of its wait here, for their links grow old.

    Args:
        gallery: Fetches.
        folder: Where to.
        total: How many jobs there are, if that is known.
        concurrency: For how many jobs pictures are fetched at once.
        on_progress: Told every 0.2 s, and at the end.
    """

    def __init__(
        self,
        gallery: Gallery,
        folder: Path,
        *,
        total: int | None,
        concurrency: int,
        on_progress: Callable[[Progress], None] | None,
    ) -> None:
        self._gallery = gallery
        self._folder = Folder(folder)
        self._total = total
        self._concurrency = concurrency
        self._on_progress = on_progress
        self._polling = Progress(pending=0, done=0, failed=0, polls=0, throttled=False, polls_per_second=0.0, eta=None)
        self._done = 0
        self._failed = 0
        self._error: Exception | None = None
        self._scope = anyio.CancelScope()

    def heard(self, progress: Progress) -> None:
        """Take note of how far the fleet is."""
        self._polling = progress

    @asynccontextmanager
    async def running(self, fleet: "Fleet") -> AsyncGenerator[Self, None]:
        """Poll and save while the block runs.

        Raises:
            ImageError: The folder is not there.
            RuntimeError: The client is closed, or belongs to another event loop.
        """
        await self._folder.check()
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

    async def _run(self, answers: AsyncIterator[Outcome]) -> None:
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
        except Exception as error:  # noqa: BLE001  # the caller's own code runs here, which may raise anything
            self._error = self._error or error
            self._scope.cancel()

    async def _work(self, answers: AsyncIterator[Outcome]) -> None:
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
                    pictures = Pictures(self._gallery, answer.ref, None, answer.status)
                    paths = await save_all(pictures, answer.ref, self._folder)
                except ImageError as error:
                    paths, failure = error.saved, error
            self._done += failure is None
            self._failed += failure is not None
            await self._ended.send(SavedImages(outcome=answer, paths=tuple(paths), error=failure))

    async def _tell(self, on_progress: Callable[[Progress], None]) -> None:
        while True:
            await anyio.sleep(TICK)
            await self._tell_once(on_progress)

    async def _tell_once(self, on_progress: Callable[[Progress], None]) -> None:
        polling = self._polling
        ended = self._done + self._failed
        on_progress(
            evolve(
                polling,
                pending=polling.pending + polling.done + polling.failed - ended,
                done=self._done,
                failed=self._failed,
                eta=time_left(self._total, ended, anyio.current_time() - self._started),
            )
        )
