"""Connections to PostgreSQL: how they are opened and checked, and that none is left open."""

from contextlib import suppress
from typing import Any

import anyio
import psycopg

from smilejobs.durable.tuning import Tuning

SCHEMA = "smilejobs"
"""The schema that holds all tables of a watch list."""


class Connections:
    """Opens connections to one database, and closes those that are still open at the end.

    A transaction that is given up leaves its connection to a background task of SQLAlchemy, which may return it after
    the pool was closed; a task that is cancelled twice leaves it as it is.

    Args:
        url: The database, as psycopg reads it.
        tuning: Time limits.
    """

    def __init__(self, url: str, tuning: Tuning) -> None:
        self._url = url
        self._options = connection_options(tuning)
        self._opened: list[psycopg.AsyncConnection[Any]] = []

    async def open(self, *, autocommit: bool = False) -> psycopg.AsyncConnection[Any]:
        """Open a connection."""
        connection = await psycopg.AsyncConnection.connect(self._url, autocommit=autocommit, **self._options)
        self._opened = [each for each in self._opened if not each.closed]
        self._opened.append(connection)
        return connection

    async def close(self) -> None:
        """Close all connections, without waiting for the server."""
        for connection in self._opened:
            await connection.close()


async def answers(connection: psycopg.AsyncConnection[Any], within: float) -> bool:
    """Whether a connection in a pool still works; as SQLAlchemy's own check, with a time limit in seconds."""
    with suppress(psycopg.Error), anyio.move_on_after(within):
        await connection.set_autocommit(True)  # psycopg's signature
        await connection.execute("SELECT 1")
        await connection.set_autocommit(False)
        return True
    return False


def connection_options(tuning: Tuning) -> dict[str, Any]:
    """Return the options of a connection.

    They come before the defaults of the database and of the role: the isolation level that the statements rely on, and
    a time limit for everything that may wait.
    """
    settings = {
        "search_path": SCHEMA,
        "default_transaction_isolation": r"read\ committed",
        "lock_timeout": f"{tuning.lock_seconds}s",
        "statement_timeout": f"{tuning.transaction_seconds * 1000:.0f}ms",
        "idle_in_transaction_session_timeout": f"{tuning.transaction_seconds * 1000:.0f}ms",
    }
    return {
        "options": " ".join(f"-c {name}={value}" for name, value in settings.items()),
        "connect_timeout": tuning.connect_seconds,
        "keepalives": 1,
        "keepalives_idle": 10,
        "keepalives_interval": 3,
        "keepalives_count": 3,
        "tcp_user_timeout": 10_000,
        "application_name": "smilejobs",
    }
