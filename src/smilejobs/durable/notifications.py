"""Notifications of the workers of a watch list: what they mean, and how a worker receives them.

Any role of the database can send one: a malformed notification means "look", and numbers are kept within bounds.
"""

import math
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress

import anyio
from attrs import frozen
from psycopg.sql import SQL, Identifier

from smilejobs.durable.failures import translated
from smilejobs.durable.store import ADDED, LOOK, Store

_KEY_BYTES = 16

_MAX_THROTTLE_SECONDS = 300.0
"""The longest pause that another worker can ask for."""

_ANSWER_SECONDS = 3.0
"""Time limit for the answer to the check of a connection without notifications."""

_READ_SECONDS = 0.2
"""Between two reads of the notifications in a SQLite file."""


@frozen
class JobNews:
    """There may be news of the job with this *key*."""

    key: bytes


@frozen
class ThrottleRequest:
    """The API has throttled a worker: no poll should begin for so many seconds."""

    worker: str
    seconds: float

    def __str__(self) -> str:
        return f"throttle {self.worker} {self.seconds:.3f}"


Notification = JobNews | ThrottleRequest | str
"""One of these two, `LOOK` or `ADDED`."""


def parse_notification(text: object) -> Notification:
    """Return the notification that a text stands for; `LOOK` for a malformed one."""
    with suppress(ValueError):
        match text.split(" ") if isinstance(text, str) else ():
            case [word] if word == ADDED:
                return ADDED
            case ["news", key] if len(parsed := bytes.fromhex(key)) == _KEY_BYTES:
                return JobNews(parsed)
            case ["throttle", worker, number] if not math.isnan(seconds := float(number)):
                return ThrottleRequest(worker, min(max(seconds, 0.0), _MAX_THROTTLE_SECONDS))
    return LOOK


async def listen(store: Store) -> AsyncGenerator[Notification, None]:
    """Yield notifications; `LOOK` first, and whenever something may have been missed.

    Raises:
        WatchListError: The connection is lost; listen again.
    """
    async with aclosing(_listen(store) if store.is_shared else _poll_sqlite(store)) as texts:
        async for text in texts:
            yield parse_notification(text)


async def _listen(store: Store) -> AsyncGenerator[str, None]:
    with translated():
        async with await store.connect(autocommit=True) as connection:
            await connection.execute(SQL("LISTEN {}").format(Identifier(store.channel)))
            yield LOOK
            while True:
                async for notify in connection.notifies(timeout=store.tuning.silent_connection_seconds):
                    yield notify.payload
                with anyio.fail_after(_ANSWER_SECONDS):
                    await connection.execute("SELECT 1")


async def _poll_sqlite(store: Store) -> AsyncGenerator[object, None]:
    yield LOOK
    last = 0
    while True:
        for text in await store.take_notifications():
            yield text
        newest = await store.last()
        if newest != last:
            yield ADDED
            last = newest
        await anyio.sleep(_READ_SECONDS)
