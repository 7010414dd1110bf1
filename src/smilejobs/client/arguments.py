"""What callers may give a client, and what can never be right."""

from collections.abc import AsyncIterable, Callable, Collection, Iterable
from datetime import datetime
from typing import TypedDict

from smilejobs.durations import Duration
from smilejobs.events import Hook
from smilejobs.model.jobs import Include
from smilejobs.transport import HTTPClient, HTTPSession, TransportName


class ClientOptions(TypedDict, total=False):
    """The arguments of `Client` that `Client.from_env` takes: all that do not come from the environment."""

    http_client: HTTPClient | HTTPSession | None
    transport: TransportName | None
    max_connections: int
    rate: float | None
    request_timeout: Duration
    attempts: int
    max_response_bytes: int
    insecure_http: bool
    now: Callable[[], datetime]
    hooks: Iterable[Hook]
    image_hosts: Iterable[str]


def include(*, image_links: bool, history: bool) -> Include:
    """Return what polls ask for besides the state of a job.

    Raises:
        TypeError: One of them is not a bool; the string "false" is true, for example.
    """
    for name, value in (("image_links", image_links), ("history", history)):
        if not isinstance(value, bool):
            raise TypeError(f"{name} must be True or False, not {type(value).__name__}")
    return Include(image_links=image_links, history=history)


def check_names(names: object) -> None:
    """Refuse what is not names of pictures; one text would be taken for its letters."""
    if names is None:
        return
    if not isinstance(names, Collection) or isinstance(names, str) or not all(isinstance(name, str) for name in names):
        raise TypeError('names must be names of pictures, in a list or the like, such as ["selfie_image"]')


def check_progress(on_progress: object) -> None:
    """Refuse what cannot be called, before anything is polled."""
    if on_progress is not None and not callable(on_progress):
        raise TypeError("on_progress must be a function that takes a Progress")


def check_refs(refs: object) -> None:
    """Refuse what cannot be iterated over; one text would be taken for its letters."""
    if not isinstance(refs, (Iterable, AsyncIterable)) or isinstance(refs, (str, bytes)):
        raise TypeError(f"refs must be an iterable of JobRefs or pairs, not {type(refs).__name__}")
