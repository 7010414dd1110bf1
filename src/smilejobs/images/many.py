"""The pictures of many jobs, saved as the jobs complete."""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path

import anyio
from attrs import evolve

from smilejobs.errors import ImageError
from smilejobs.images.fetching import Pictures
from smilejobs.images.folder import Folder
from smilejobs.images.gallery import Gallery
from smilejobs.images.one import save_all
from smilejobs.images.values import SavedImages
from smilejobs.notifications import Signal
from smilejobs.outcomes import Outcome, Progress, time_left
from smilejobs.scheduler.progress import Reporter
from smilejobs.scheduler.results import Results
from smilejobs.tasks import beside, run_bare


class SavingMany:
    """Saves the pictures of jobs as they complete. See `Client.save_images_many`.

    Few outcomes of the polling wait here, for their links expire: pictures of *concurrency* jobs are fetched at once.
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
        self._reporter = Reporter(on_progress, self._progress)
        self._polling = Progress(pending=0, done=0, failed=0, polls=0, throttled=False, polls_per_second=0.0, eta=None)
        self._done = 0
        self._failed = 0
        self._room = Signal()
        self._saved = Results[SavedImages](concurrency, self._room.set)

    def note(self, progress: Progress) -> None:
        """Take note of how far the polling is."""
        self._polling = progress

    @asynccontextmanager
    async def running(
        self, polling: AbstractAsyncContextManager[Results[Outcome]]
    ) -> AsyncGenerator[Results[SavedImages], None]:
        """Poll and save while the block runs.

        Raises:
            ImageError: The folder is not there.
            RuntimeError: The client is closed, or belongs to another event loop.
        """
        await self._folder.check()
        self._started_at = anyio.current_time()
        self._turn = anyio.Lock(fast_acquire=True)
        scope = anyio.CancelScope()

        async def run() -> None:
            with scope, self._saved.ending():
                workers = [partial(self._save_each, outcomes)] * self._concurrency
                await run_bare(*workers, background=[self._reporter.run])
                outcomes.raise_error()
                self._reporter.report()

        async with polling as outcomes, beside(run, scope.cancel):
            yield self._saved

    async def _save_each(self, outcomes: Results[Outcome]) -> None:
        while True:
            async with self._turn:
                outcome = await outcomes.take()
            if outcome is None:
                return
            saved = await self._save(outcome)
            while self._saved.is_full:
                await self._room.wait()
            self._saved.put(saved)

    async def _save(self, outcome: Outcome) -> SavedImages:
        paths: Sequence[Path] = ()
        failure = outcome.error
        if outcome.status is not None:
            try:
                pictures = Pictures(self._gallery, outcome.ref, None, outcome.status)
                paths = await save_all(pictures, outcome.ref, self._folder)
            except ImageError as error:
                paths, failure = error.saved, error
        self._done += failure is None
        self._failed += failure is not None
        return SavedImages(outcome=outcome, paths=tuple(paths), error=failure)

    def _progress(self) -> Progress:
        polling = self._polling
        ended = self._done + self._failed
        return evolve(
            polling,
            pending=polling.pending + polling.done + polling.failed - ended,
            done=self._done,
            failed=self._failed,
            eta=time_left(self._total, ended, anyio.current_time() - self._started_at),
        )
