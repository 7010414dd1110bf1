"""The pictures of the jobs: links that expire, and what they lead to."""

from collections import Counter
from collections.abc import Callable, Mapping
from datetime import datetime

from attrs import evolve
from starlette.requests import Request
from starlette.types import ASGIApp

from smilejobs.durations import Duration, seconds
from smilejobs.sandbox.answers import Answer
from smilejobs.sandbox.dice import dice
from smilejobs.sandbox.jobs import Job
from smilejobs.sandbox.links import LONGEST, LinkRefusedError, check, presign
from smilejobs.sandbox.picture import picture, smallest_with_noise
from smilejobs.sandbox.requests import host_of, storage_error, storage_unavailable
from smilejobs.sandbox.state import NotKeptError, keeping
from smilejobs.sandbox.weather import CALM, Weather
from smilejobs.settings import Credentials

_LARGEST_PICTURE = 16 * 1024 * 1024
PATH = "/images/{smile_job_id}/{file_name}"


class Images:
    """Makes links, and serves the pictures.

    Args:
        jobs: The jobs, by the number that the sandbox gave them.
        credentials: The key that signs the links.
        seed: Draws what goes wrong.
        weather: What pictures have to live with, but for the jobs that have a weather of their own.
        lifetime: Seconds (or a timedelta) for which a link works.
        picture_bytes: How large a picture is; None for as small as it can be.
        now: The wall clock.
        keep: Keeps how often a picture was fetched; an OSError says that it cannot.

    Raises:
        TypeError: *lifetime* or *picture_bytes* has the wrong type.
        ValueError: It can never be right.

    Attributes:
        counts: How often each picture was fetched, by its path.
    """

    def __init__(
        self,
        jobs: Mapping[str, Job],
        credentials: Credentials,
        *,
        seed: int,
        weather: Weather,
        lifetime: Duration,
        picture_bytes: int | None,
        now: Callable[[], datetime],
        keep: Callable[[str, int], None],
    ) -> None:
        self._jobs = jobs
        self._credentials = credentials
        self._seed = seed
        self._weather = weather
        self._lifetime = _lifetime(lifetime)
        self._picture_bytes = _picture_bytes(picture_bytes)
        self._now = now
        self._keep = keep
        self.counts: Counter[str] = Counter()

    def links(self, job: Job, root: str, at: datetime) -> dict[str, str]:
        """Return the links to the pictures of *job*, by the vendor's names, signed at the instant *at*.

        Args:
            job: The job.
            root: Where the client reaches the sandbox, such as "http://127.0.0.1:8787".
            at: The instant from which they are valid.
        """
        host = root.partition("://")[2]
        links = {}
        for name, file_name in job.pictures.items():
            path = PATH.format(smile_job_id=job.smile_job_id, file_name=file_name)
            query = presign(self._credentials.api_key, host, path, at=at, lifetime=self._lifetime)
            links[name] = f"{root}{path}?{query}"
        return links

    async def answer(self, request: Request) -> ASGIApp:
        """Serve a picture, if its link is still good."""
        path, query = request.scope["path"], request.scope["query_string"].decode("latin-1")
        try:
            check(self._credentials.api_key, host_of(request), path, query, self._now())
        except LinkRefusedError as error:
            return storage_error(error.code, str(error), http_status=403)
        count = self.counts[path] + 1
        try:
            with keeping():
                self._keep(path, count)
        except NotKeptError:
            return storage_unavailable()
        self.counts[path] = count
        job = self._jobs.get(request.path_params["smile_job_id"])
        weather = self._weather if job is None or job.weather is None else job.weather
        answer = Answer(body=picture(path, self._picture_bytes), media_type="image/png")
        if weather is CALM:
            return answer
        chance = dice(self._seed, "picture", path, count)
        if chance.random() < weather.slow_pictures:
            answer = evolve(answer, drips_for=weather.slow)
        if chance.random() < weather.cut_pictures:
            size = chance.randrange(1, len(answer.body))
            # Either the connection breaks, or what is stored is not whole: then only the picture itself tells.
            is_stored_so = chance.random() < 0.5
            answer = evolve(answer, body=answer.body[:size]) if is_stored_so else evolve(answer, cut_at=size)
        return answer


def _lifetime(value: Duration) -> int:
    lifetime = seconds(value, "link_lifetime")
    if not lifetime.is_integer() or not 1 <= lifetime <= LONGEST:
        raise ValueError(f"link_lifetime must be a whole number of seconds from 1 to {LONGEST}")
    return int(lifetime)


def _picture_bytes(value: int | None) -> int | None:
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"picture_bytes must be a whole number, not {type(value).__name__}")
    if not smallest_with_noise() <= value <= _LARGEST_PICTURE:
        raise ValueError(f"picture_bytes must be from {smallest_with_noise()} to {_LARGEST_PICTURE}")
    return value
