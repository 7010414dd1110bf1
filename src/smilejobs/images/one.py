"""The pictures of one job, loaded into memory one by one or saved in a folder."""

from collections.abc import Collection
from functools import partial
from pathlib import Path
from typing import Self

from smilejobs.errors import ImageError
from smilejobs.images.fetching import EXISTS, Pictures
from smilejobs.images.folder import Folder
from smilejobs.images.gallery import Gallery
from smilejobs.images.sinks import InFile, InMemory, stem
from smilejobs.images.values import Image
from smilejobs.model.jobs import JobRef, JobStatus


class Images:
    """The pictures of one job, each fetched when it is asked for; see `Client.images`.

    This is not a generator: between two pictures nothing is held that an abandoned iteration would keep.
    """

    def __init__(self, gallery: Gallery, job: JobRef | JobStatus, names: Collection[str] | None) -> None:
        self._gallery = gallery
        self._job = job
        self._ref = job if isinstance(job, JobRef) else job.ref
        self._names = names
        self._pictures: Pictures | None = None
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
            status = await self._gallery.ask(self._job)
            self._pictures = Pictures(self._gallery, self._ref, self._names, status)
        pictures = self._pictures
        while pictures.left:
            name = pictures.left[0]
            try:
                image = await pictures.fetch(name, partial(InMemory, name, self._ref))
            except ImageError as error:
                pictures.failures.append(error)
            else:
                pictures.left.popleft()
                return image
            pictures.left.popleft()
        pictures.raise_failures()
        raise StopAsyncIteration


async def save(gallery: Gallery, job: JobRef | JobStatus, names: Collection[str] | None, folder: Path) -> list[Path]:
    """Save the pictures of a job; see `Client.save_images`.

    Raises:
        SmileJobsError: The poll failed, or (`ImageError`) a picture could not be saved.
    """
    into = Folder(folder)
    await into.check()
    status = await gallery.ask(job)
    ref = job if isinstance(job, JobRef) else job.ref
    return await save_all(Pictures(gallery, ref, names, status), ref, into)


async def save_all(pictures: Pictures, ref: JobRef, folder: Folder) -> list[Path]:
    """Save pictures of a job; those that fail are reported at the end.

    Raises:
        ImageError: A picture could not be saved.
    """
    stems = {name: stem(ref, name) for name in pictures.left}
    there = await folder.existing(stems.values())
    saved: list[Path] = []
    for name, its_stem in stems.items():
        try:
            if its_stem in there:
                raise pictures.error(name, "exists", EXISTS)
            saved.append(await pictures.fetch(name, partial(InFile, folder.path, its_stem)))
        except ImageError as error:
            pictures.failures.append(error)
    if saved:
        await folder.sync()
    pictures.raise_failures(saved)
    return saved
