"""The images of the jobs, and the links to them."""

from datetime import datetime

from attrs import evolve
from starlette.requests import Request
from starlette.types import ASGIApp

from smilejobs.durations import Duration, seconds
from smilejobs.sandbox.http.answers import Answer
from smilejobs.sandbox.http.storage import MAX_LIFETIME_SECONDS, check_url, sign_url
from smilejobs.sandbox.jobs import Job
from smilejobs.sandbox.png import make_png, min_padded_size
from smilejobs.sandbox.registry import Registry

IMAGE_PATH = "/images/{smile_job_id}/{file_name}"
_MAX_IMAGE_BYTES = 16 * 1024 * 1024


class Images:
    """Makes the links, and serves the images. Its arguments are those of `Sandbox`."""

    def __init__(self, registry: Registry, *, lifetime: Duration, picture_bytes: int | None) -> None:
        self._registry = registry
        self._secret = registry.credentials.api_key
        self._lifetime = _to_lifetime(lifetime)
        self._picture_bytes = None if picture_bytes is None else _check_size(picture_bytes)

    def links(self, job: Job, root: str, at: datetime) -> dict[str, str]:
        """Return the links to the images of *job*, by the vendor's names; their lifetime begins at *at*."""
        paths = {
            name: IMAGE_PATH.format(smile_job_id=job.smile_job_id, file_name=file_name)
            for name, file_name in job.pictures.items()
        }
        return {
            name: sign_url(self._secret, "GET", root, path, at=at, lifetime=self._lifetime)
            for name, path in paths.items()
        }

    async def answer(self, request: Request) -> ASGIApp:
        """Serve an image."""
        check_url(self._secret, request, self._registry.now())
        path = request.scope["path"]
        count = self._registry.count("picture", path)
        faults = self._registry.faults_of(self._registry.numbered.get(request.path_params["smile_job_id"]))
        answer = Answer(body=make_png(path, self._picture_bytes), media_type="image/png")
        rng = self._registry.rng("picture", path, count)
        if rng.random() < faults.slow_pictures:
            answer = evolve(answer, slow_for=faults.slow)
        if rng.random() < faults.cut_pictures:
            size = rng.randrange(1, len(answer.body))
            # Either the stored file is incomplete, which only the image itself shows, or the connection breaks.
            is_stored_so = rng.random() < 0.5
            answer = evolve(answer, body=answer.body[:size]) if is_stored_so else evolve(answer, cut_at=size)
        return answer


def _to_lifetime(value: Duration) -> int:
    lifetime = seconds(value, "link_lifetime")
    if not lifetime.is_integer() or not 1 <= lifetime <= MAX_LIFETIME_SECONDS:
        raise ValueError(f"link_lifetime must be a whole number of seconds from 1 to {MAX_LIFETIME_SECONDS}")
    return int(lifetime)


def _check_size(value: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"picture_bytes must be a whole number, not {type(value).__name__}")
    if not min_padded_size() <= value <= _MAX_IMAGE_BYTES:
        raise ValueError(f"picture_bytes must be from {min_padded_size()} to {_MAX_IMAGE_BYTES}")
    return value
