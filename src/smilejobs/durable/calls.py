"""What is called out to all workers of a watch list, heard by each."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

import anyio
import psycopg
from psycopg.sql import SQL, Identifier

from smilejobs.durable.database import connection_options, translated
from smilejobs.durable.store import Store

_LOOK = 0.2
"""Seconds between two looks into SQLite, which calls nobody."""

_ALIVE = 5.0
"""Seconds after which a connection that says nothing is asked whether it is still there."""

LOOK = "look"
"""Something may have been missed, or much has changed."""

ADDED = "added"
"""There are new jobs."""


async def calls(store: Store, url: str) -> AsyncGenerator[str, None]:
    """Yield what is called out; `LOOK` whenever something may have been missed.

    Raises:
        WatchListError: The database cannot be reached; begin anew.
    """
    async with aclosing(_listen(store, url) if store.is_shared else _look(store)) as heard:
        async for text in heard:
            yield text


async def _listen(store: Store, url: str) -> AsyncGenerator[str, None]:
    with translated():
        async with await psycopg.AsyncConnection.connect(url, autocommit=True, **connection_options()) as connection:
            await connection.execute(SQL("LISTEN {}").format(Identifier(store.channel)))
            yield LOOK
            while True:
                async for notify in connection.notifies(timeout=_ALIVE):
                    yield notify.payload
                with anyio.fail_after(2 * _ALIVE):
                    await connection.execute("SELECT 1")


async def _look(store: Store) -> AsyncGenerator[str, None]:
    last = 0
    while True:
        for text in await store.rung():
            yield text
        newest = await store.last()
        if newest != last:
            yield ADDED
            last = newest
        await anyio.sleep(_LOOK)
