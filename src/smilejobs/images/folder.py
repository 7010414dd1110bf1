"""The folder in which pictures are saved."""

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import anyio
import anyio.to_thread

from smilejobs.errors import ImageError
from smilejobs.images.values import FORMATS


class Folder:
    """Checks and syncs a folder, in threads."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._was_empty = False
        self._lock = anyio.Lock(fast_acquire=True)
        self._requested = 0
        self._served = 0

    async def check(self) -> None:
        """Check that the folder exists.

        Raises:
            ImageError: It does not exist, or is not a folder.
        """
        await anyio.to_thread.run_sync(self._check)

    async def existing(self, stems: Iterable[str]) -> set[str]:
        """Return the stems of existing files of any format; none if the folder was empty when it was checked.

        Files that were created since are found when a file is to get its name.
        """
        return set() if self._was_empty else await anyio.to_thread.run_sync(self._existing, stems)

    async def sync(self) -> None:
        """Make the names of new files durable. One sync serves all callers that wait when it begins."""
        self._requested += 1
        mine = self._requested
        async with self._lock:
            if self._served >= mine:
                return
            requested = self._requested
            await anyio.to_thread.run_sync(self._sync)
            self._served = requested

    def _check(self) -> None:
        if not self.path.is_dir():
            raise ImageError(
                "the folder for the pictures does not exist or is not a folder; create it first", reason="disk"
            )
        with suppress(OSError), os.scandir(self.path) as entries:  # a folder can be writable and not readable
            self._was_empty = next(entries, None) is None

    def _existing(self, stems: Iterable[str]) -> set[str]:
        return {stem for stem in stems if any(os.path.lexists(self.path / f"{stem}{each.suffix}") for each in FORMATS)}

    def _sync(self) -> None:
        with suppress(OSError):  # some systems cannot sync a folder
            descriptor = os.open(self.path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
