"""Calls to all workers of a watch list: what they mean, and how a worker receives them.

Any role of the database can call: what cannot be understood means "look", and numbers are kept within bounds.
"""

import math
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress

import anyio
import psycopg
from attrs import frozen
from psycopg.sql import SQL, Identifier

from smilejobs.durable.database import connection_options
from smilejobs.durable.failures import translated
from smilejobs.durable.store import Store

_LOOK_INTERVAL_SECONDS = 0.2
"""Between two looks into SQLite, which sends no notifications."""

_ALIVE = 5.0
"""Seconds after which a connection that says nothing is asked whether it is still there."""

_ANSWER_SECONDS = 3.0
"""Time limit for its answer."""

_MAX_BRAKE_SECONDS = 300.0
_KEY_BYTES = 16

LOOK = "look"
"""Something may have been missed, or much has changed."""

ADDED = "added"
"""There are new jobs."""


@frozen
class News:
    """There may be news of the job that *key* stands for."""

    key: bytes


@frozen
class Brake:
    """A worker was asked by the API to slow down.

    Attributes:
        worker: Which.
        seconds: For how long no poll should begin.
    """

    worker: str
    seconds: float

    def __str__(self) -> str:
        return f"brake {self.worker} {self.seconds:.3f}"


Call = News | Brake | str
"""What was called: one of these two, `LOOK` or `ADDED`."""


def parse_call(text: object) -> Call:
    """Return what was called; `LOOK` for anything that cannot be understood."""
    with suppress(ValueError):
        match text.split(" ") if isinstance(text, str) else ():
            case ["added"]:
                return ADDED
            case ["news", key] if len(parsed := bytes.fromhex(key)) == _KEY_BYTES:
                return News(parsed)
            case ["brake", worker, number] if not math.isnan(seconds := float(number)):
                return Brake(worker, min(max(seconds, 0.0), _MAX_BRAKE_SECONDS))
    return LOOK


async def calls(store: Store, url: str) -> AsyncGenerator[Call, None]:
    """Yield what is called; `LOOK` first, and whenever something may have been missed.

    Raises:
        WatchListError: The database cannot be reached; begin anew.
    """
    async with aclosing(_listen(store, url) if store.is_shared else _look(store)) as heard:
        async for text in heard:
            yield parse_call(text)


async def _listen(store: Store, url: str) -> AsyncGenerator[str, None]:
    with translated():
        async with await psycopg.AsyncConnection.connect(url, autocommit=True, **connection_options()) as connection:
            await connection.execute(SQL("LISTEN {}").format(Identifier(store.channel)))
            yield LOOK
            while True:
                async for notify in connection.notifies(timeout=_ALIVE):
                    yield notify.payload
                with anyio.fail_after(_ANSWER_SECONDS):
                    await connection.execute("SELECT 1")


async def _look(store: Store) -> AsyncGenerator[object, None]:
    yield LOOK
    last = 0
    while True:
        for text in await store.rung():
            yield text
        newest = await store.last()
        if newest != last:
            yield ADDED
            last = newest
        await anyio.sleep(_LOOK_INTERVAL_SECONDS)
