"""The targets of pictures: memory, or a file that gets its name when it is complete."""

import os
from contextlib import suppress
from hashlib import sha256
from io import FileIO
from pathlib import Path
from threading import Lock
from typing import Protocol, TypeVar

import anyio.to_thread

from smilejobs.files import create_private, temporary_path
from smilejobs.images.values import Format, Image, shown
from smilejobs.model.jobs import JobRef

_BUFFER = 256 * 1024
"""Bytes that are collected before a thread writes them. Most pictures are smaller and need one call of a thread."""
_T_co = TypeVar("_T_co", covariant=True)


class Sink(Protocol[_T_co]):
    """Takes a picture, piece by piece."""

    async def add(self, piece: bytes) -> None:
        """Take the next piece."""
        ...

    async def finish(self, found: Format) -> _T_co:
        """Return the complete picture."""
        ...

    def discard(self) -> None:
        """Drop the pieces, unless the picture is complete."""
        ...


class InMemory:
    """Collects a picture for an `Image`."""

    def __init__(self, name: str, ref: JobRef) -> None:
        self._name = name
        self._ref = ref
        self._pieces: list[bytes] = []

    async def add(self, piece: bytes) -> None:
        """Take the next piece."""
        self._pieces.append(piece)

    async def finish(self, found: Format) -> Image:
        """Return the picture."""
        data = b"".join(self._pieces)
        return Image(name=self._name, content_type=found.content_type, data=data, ref=self._ref)

    def discard(self) -> None:
        """Do nothing: the pieces are freed with this object."""


class InFile:
    """Writes a picture to a file.

    The file gets its name when it is complete and on the disk. A thread can still write after asyncio has cancelled the
    task that waited for it: hence the lock. The name is *stem* and a suffix, which follows from the format.
    """

    def __init__(self, folder: Path, stem: str) -> None:
        self._folder = folder
        self._stem = stem
        self._partial: Path  # named with the first write, in a thread: the system's random source lets go of the GIL
        self._pieces: list[bytes] = []
        self._size = 0
        self._file: FileIO | None = None
        self._lock = Lock()
        self._ended = False

    async def add(self, piece: bytes) -> None:
        """Take the next piece."""
        self._pieces.append(piece)
        self._size += len(piece)
        if self._size >= _BUFFER:
            pieces, self._pieces, self._size = self._pieces, [], 0
            await anyio.to_thread.run_sync(self.write, pieces)

    async def finish(self, found: Format) -> Path:
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
                self._partial = temporary_path(self._folder, self._stem)
                self._file = FileIO(self._partial, "xb", opener=create_private)
            for piece in pieces:  # not joined: fresh memory for all of them costs as much as writing them
                left = memoryview(piece)
                while left:
                    left = left[self._file.write(left) :]
            if path is None:
                return
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


def stem(ref: JobRef, name: str) -> str:
    """Return the name of the file of a picture, without what tells the format.

    It begins with the tag of the job. More follows, for among a hundred thousand jobs two have the same tag.
    """
    more = sha256(f"{len(ref.user_id)} {ref.user_id}{ref.job_id}".encode()).hexdigest()[:16]
    return f"{ref.tag}{more}-{shown(name)}"
