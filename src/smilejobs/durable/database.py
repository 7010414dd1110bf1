"""The database of a watch list: how it is opened, and what its errors mean. SQLite or PostgreSQL."""

import secrets
import sqlite3
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel

from smilejobs.errors import WatchListError

try:
    import aiosqlite  # noqa: F401  # SQLAlchemy imports it by name; without it, say so here
    import psycopg
    from psycopg.conninfo import conninfo_to_dict
    from sqlalchemy import URL, event, exc, func, inspect, make_url, select, text
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
except ImportError as error:
    raise ImportError("smilejobs.durable needs a few packages more: pip install 'smilejobs[durable]'") from error

from smilejobs.durable.schema import ABOUT, STEPS, TABLES, migrate
from smilejobs.tasks import beside

if TYPE_CHECKING:
    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.pool import ConnectionPoolEntry

SCHEMA = "smilejobs"
"""On PostgreSQL, the schema that holds all tables of a watch list."""

_APPLICATION_ID = 0x534D4A42
"""Marks a SQLite file as one of ours: the letters SMJB."""

_IS_OURS_OR_NEW = "SELECT application_id = ? OR NOT EXISTS (SELECT 1 FROM sqlite_master) FROM pragma_application_id"

_LONGEST = 60.0
"""Seconds for one transaction of PostgreSQL."""

_GRACE = 2.0
"""Seconds that a transaction of PostgreSQL still has when whoever waits for it is cancelled."""

_FAREWELL = 2.0
"""Seconds for closing connections."""

_DRIVERS = {
    "sqlite": "sqlite+aiosqlite",
    "postgresql": "postgresql+psycopg",
    "postgres": "postgresql+psycopg",
}
_READ_ONLY = "25006"
_NO_PRIVILEGE = "42501"
_PASSING = ("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_FULL", "SQLITE_IOERR")
"""What a SQLite file may recover from."""

_UNREACHABLE = ("08", "53", "57")
"""Classes of SQLSTATE: no connection, no room, being shut down."""


def parse(url: str) -> URL:
    """Return the URL of a database, with its driver.

    Raises:
        TypeError: It is not a string.
        ValueError: No watch list can live there.
    """
    if not isinstance(url, str):
        raise TypeError(f"the URL of a watch list must be a string, not {type(url).__name__}")
    hint = "write sqlite:///jobs.db or postgresql://user@host/database"
    try:
        parsed = make_url(url)
    except (exc.ArgumentError, ValueError):  # the second for a port that is none, and may be part of a password
        raise ValueError(f"this is not the URL of a database: {hint}") from None
    driver = _DRIVERS.get(parsed.drivername)
    if driver is None:
        raise ValueError(f"a watch list lives in SQLite or PostgreSQL, not in {parsed.drivername!r}: {hint}")
    if driver == _DRIVERS["sqlite"] and parsed.database in (None, "", ":memory:"):
        raise ValueError(f"a watch list in memory survives nothing: {hint}")
    if driver == _DRIVERS["sqlite"] and parsed.query:
        raise ValueError(f"a watch list in SQLite takes no options: {hint}")
    if driver == _DRIVERS["postgresql"]:
        try:
            conninfo_to_dict(url)  # what listens and what leases buckets reads it so
        except psycopg.ProgrammingError:
            raise ValueError(f"this is not the URL of a PostgreSQL database: {hint}") from None
    return parsed.set(drivername=driver)


def without_secrets(url: str) -> str:
    """Return the URL of a database as people may see it: without password and options.

    Raises:
        ValueError: As for `parse`.
    """
    parsed = parse(url)
    return parsed.set(drivername=parsed.get_backend_name(), query={}).render_as_string(hide_password=True)


@asynccontextmanager
async def opened(url: URL) -> AsyncGenerator[AsyncEngine, None]:
    """Open the database, with the tables of today in it.

    Raises:
        WatchListError: It cannot be used.
    """
    is_sqlite = url.get_backend_name() == "sqlite"
    engine = _sqlite(url) if is_sqlite else _postgres(url)
    try:
        async with at_work(engine), engine.begin() as connection:
            await (_own_file if is_sqlite else _own_schema)(connection)
            await migrate(connection, await _version(connection), secrets.token_hex(4))
        yield engine
    finally:
        with anyio.move_on_after(_FAREWELL, shield=True):  # what is cancelled while it closes complains
            await engine.dispose()


def _sqlite(url: URL) -> AsyncEngine:
    path = Path(url.database or "").absolute()
    if not path.parent.is_dir():
        raise WatchListError(f"there is no folder {str(path.parent)!r} for the watch list: make it first")
    if path.is_dir():  # the driver would leave a thread behind that complains
        raise WatchListError(f"{str(path)!r} is a folder: name a file in it")
    engine = create_async_engine(url, hide_parameters=True, connect_args={"timeout": 30})

    @event.listens_for(engine.sync_engine, "connect")
    def connected(connection: "DBAPIConnection", _record: "ConnectionPoolEntry") -> None:
        connection.isolation_level = None  # the driver begins no transactions: we do, below
        cursor = connection.cursor()
        cursor.execute(_IS_OURS_OR_NEW, (_APPLICATION_ID,))
        if cursor.fetchone() == (1,):  # the mode is written into the file, and this may be somebody else's
            cursor.execute("PRAGMA journal_mode = WAL")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def begun(connection: Any) -> None:
        # A transaction that reads first and writes then would fail if somebody else wrote in between.
        kind = "DEFERRED" if connection.get_execution_options().get("reads") else "IMMEDIATE"
        connection.exec_driver_sql(f"BEGIN {kind}")

    return engine


def _postgres(url: URL) -> AsyncEngine:
    return create_async_engine(
        url,
        hide_parameters=True,
        pool_size=3,
        max_overflow=7,  # as many as the tasks of a worker: none has to wait for another at the end
        pool_timeout=10,
        pool_pre_ping=True,
        connect_args=connection_options(),
    )


def connection_options() -> dict[str, Any]:
    """Options of a connection to PostgreSQL."""
    return {
        "options": f"-c search_path={SCHEMA}",
        "connect_timeout": 10,
        "tcp_user_timeout": 10_000,
        "application_name": "smilejobs",
    }


async def _own_file(connection: AsyncConnection) -> None:
    if (await connection.exec_driver_sql("PRAGMA application_id")).scalar_one() == _APPLICATION_ID:
        return
    if await connection.run_sync(lambda sync: inspect(sync).get_table_names()):
        raise WatchListError("this SQLite file belongs to another program: name a file that does not exist yet")
    await connection.exec_driver_sql(f"PRAGMA application_id = {_APPLICATION_ID}")


async def _own_schema(connection: AsyncConnection) -> None:
    await connection.execute(select(func.pg_advisory_xact_lock(_APPLICATION_ID)))
    names = await connection.run_sync(lambda sync: inspect(sync).get_schema_names())
    if SCHEMA not in names:
        await connection.execute(text(f"CREATE SCHEMA {SCHEMA}"))
        return
    tables = set(await connection.run_sync(lambda sync: inspect(sync).get_table_names(SCHEMA)))
    if tables & set(TABLES.tables) and ABOUT.name not in tables:
        raise WatchListError(f"the schema {SCHEMA!r} of this database belongs to another program: use another database")


async def _version(connection: AsyncConnection) -> int:
    """Return the version of the tables; 0 if there are none."""
    if not await connection.run_sync(lambda sync: inspect(sync).has_table(ABOUT.name)):
        return 0
    columns = {column["name"] for column in await connection.run_sync(lambda sync: inspect(sync).get_columns("about"))}
    if not {"version", "list"} <= columns:
        raise WatchListError("the table 'about' of this database belongs to another program: use another database")
    version: int | None = (await connection.execute(select(ABOUT.c.version))).scalar_one_or_none()
    if version is None:
        raise WatchListError("the table 'about' of this watch list is empty: somebody has changed it; use a backup")
    if version > len(STEPS):
        raise WatchListError(
            f"this watch list is of version {version}, and this smilejobs knows no later one than {len(STEPS)}: "
            "upgrade smilejobs here too"
        )
    return version


@asynccontextmanager
async def at_work(engine: AsyncEngine) -> AsyncGenerator[None, None]:
    """Ask the database something, with errors of ours.

    It is not cancelled half-way: cut off twice, as a cancel scope does, the driver of SQLite never ends, and that of
    PostgreSQL leaves its connection behind. So a server that hangs is given up after a while, and soon by whoever is
    cancelled.

    Raises:
        WatchListError: The database cannot be used.
    """
    await anyio.lowlevel.checkpoint_if_cancelled()  # between two transactions, there may be no other place for it
    if engine.dialect.name == "sqlite":
        with translated(), anyio.CancelScope(shield=True):
            yield
        return
    asking = anyio.CancelScope(shield=True, deadline=anyio.current_time() + _LONGEST)
    watching = anyio.CancelScope()
    with translated():
        async with beside(partial(_hasten, asking, watching), watching.cancel):
            with asking:
                yield
        if asking.cancelled_caught:
            raise TimeoutError


async def _hasten(asking: anyio.CancelScope, watching: anyio.CancelScope) -> None:
    """Leave little time for *asking* once this is cancelled."""
    with watching:
        try:
            await anyio.sleep_forever()
        finally:
            asking.deadline = min(asking.deadline, anyio.current_time() + _GRACE)


@contextmanager
def translated() -> Generator[None, None, None]:
    """Turn errors of the database into ours. They name no row and no password.

    Raises:
        WatchListError: The database cannot be used.
    """
    try:
        yield
    except (exc.DBAPIError, exc.TimeoutError, psycopg.Error, OSError) as error:
        raise _ours(error) from None


def _ours(error: Exception) -> WatchListError:
    cause = error.orig if isinstance(error, exc.DBAPIError) and error.orig is not None else error
    state = getattr(cause, "sqlstate", None)
    words = " ".join(str(cause).split())
    if state == _READ_ONLY or "readonly" in words:
        return WatchListError("the database of the watch list is read-only: it must be writable, also for workers")
    if state == _NO_PRIVILEGE:
        return WatchListError(
            f"the database of the watch list refuses: this user may not create or use the schema {SCHEMA!r}; "
            f"its owner can: CREATE SCHEMA {SCHEMA} AUTHORIZATION ..."
        )
    if "not a database" in words:
        return WatchListError("this file is not a SQLite database: name a file that does not exist yet")
    name = getattr(cause, "sqlite_errorname", None)
    if name is not None and not name.startswith(_PASSING):
        return WatchListError(f"the database of the watch list cannot be used ({type(cause).__name__}): {words}")
    if state is None or state.startswith(_UNREACHABLE):
        # No row can be named before there is a session, and SQLite names none here.
        where = f": {words}" if isinstance(cause, (psycopg.OperationalError, sqlite3.OperationalError)) else ""
        return WatchListError(
            f"the database of the watch list cannot be reached or used now ({type(cause).__name__}){where}",
            transient=True,
        )
    return WatchListError(f"the database of the watch list refuses ({type(cause).__name__}, SQLSTATE {state})")
