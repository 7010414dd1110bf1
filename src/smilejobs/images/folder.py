"""The folder that pictures are saved to."""

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import anyio
import anyio.to_thread

from smilejobs.errors import ImageError
from smilejobs.images.values import FORMATS


class Folder:
    """What is done with a folder as a whole, by threads.

    Args:
        path: Where it is.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._was_empty = False
        self._turn = anyio.Lock(fast_acquire=True)
        self._asked = 0
        self._served = 0

    async def check(self) -> None:
        """See whether files can have a place there.

        Raises:
            ImageError: It is no folder.
        """
        await anyio.to_thread.run_sync(self._check)

    async def existing(self, stems: Iterable[str]) -> set[str]:
        """Return those of which there is a file, in whatever format; none if the folder was empty when it was checked.

        What has come since is found when a file is to get its name.
        """
        return set() if self._was_empty else await anyio.to_thread.run_sync(self._existing, stems)

    async def sync(self) -> None:
        """Let the names of new files outlive a power failure. One syncing serves all who wait for it to begin."""
        self._asked += 1
        mine = self._asked
        async with self._turn:
            if self._served >= mine:
                return
            asked = self._asked
            await anyio.to_thread.run_sync(self._sync)
            self._served = asked

    def _check(self) -> None:
        if not self.path.is_dir():
            raise ImageError("the folder for the pictures is not there, or is no folder; make it first", reason="disk")
        with suppress(OSError), os.scandir(self.path) as entries:  # one may write to folders that one may not read
            self._was_empty = next(entries, None) is None

    def _existing(self, stems: Iterable[str]) -> set[str]:
        return {stem for stem in stems if any(os.path.lexists(self.path / f"{stem}{each.suffix}") for each in FORMATS)}

    def _sync(self) -> None:
        with suppress(OSError):  # some systems let no folder be synced
            descriptor = os.open(self.path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
