"""The database of a watch list, SQLite or PostgreSQL: how it is opened, and its transactions."""

import os
import secrets
import sqlite3
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import psycopg
from sqlalchemy import URL, ColumnElement, Double, Table, cast, event, exc, func, inspect, literal_column, select, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from smilejobs.durable.failures import retry_creation, translated
from smilejobs.durable.schema import ABOUT, SCHEMA, STEPS, TABLES, migrate
from smilejobs.durable.tuning import Tuning
from smilejobs.errors import WatchListError
from smilejobs.tasks import beside

if TYPE_CHECKING:
    from sqlalchemy.engine.interfaces import DBAPIConnection, DBAPICursor
    from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection

_APPLICATION_ID = 0x534D4A42
"""Marks a SQLite file as a watch list: the letters SMJB."""

_IS_OURS_OR_NEW = "SELECT application_id = ? OR NOT EXISTS (SELECT 1 FROM sqlite_master) FROM pragma_application_id"


class OpenConnections:
    """The connections to PostgreSQL of one user, whatever opened them, so that none of them outlives it."""

    def __init__(self) -> None:
        self._connections: list[psycopg.AsyncConnection[Any]] = []
        self._is_closed = False

    async def add(self, connection: psycopg.AsyncConnection[Any]) -> None:
        """Add a new connection; close it at once if all have been closed meanwhile."""
        if self._is_closed:
            await connection.close()
        self._connections = [each for each in self._connections if not each.closed]
        self._connections.append(connection)

    async def close(self) -> None:
        """Close all connections, those in use too, without waiting for the server."""
        self._is_closed = True
        for connection in self._connections:
            await connection.close()


class Database:
    """An open database. Its errors are `WatchListError`s, and each transaction on PostgreSQL has a time limit.

    A cancellation does not end a transaction half-way: cancelled twice, as a cancel scope does, the driver of SQLite
    never ends. So a server that hangs is given up after the time limit, and soon after the waiting task is cancelled.
    A pooled connection is checked before it is used. If it does not answer, all are replaced: a firewall that
    dropped one has usually dropped all.

    Args:
        url: The database, as `parse` returns it.
        tuning: Time limits.

    Attributes:
        is_shared: Whether many workers may use it: PostgreSQL.
        tuning: Time limits, for the modules that use the database.
        insert: An INSERT that can say what happens on a conflict.
        clock: The clock of the database, in seconds since 1970, for statements.
    """

    def __init__(self, url: URL, tuning: Tuning) -> None:
        self.is_shared = url.get_backend_name() != "sqlite"
        self.tuning = tuning
        self.insert: Callable[[Table], Any] = postgresql.insert if self.is_shared else sqlite.insert
        self.clock: ColumnElement[Any] = literal_column("((julianday('now') - 2440587.5) * 86400.0)", Double)
        if self.is_shared:
            self.clock = cast(func.extract("epoch", func.clock_timestamp()), Double)
        self._conninfo = url.set(drivername="postgresql").render_as_string(hide_password=False)
        self._connections = OpenConnections()
        self._engine = self._open_postgres(url) if self.is_shared else _open_sqlite(url)
        self._reading = self._engine.execution_options(reads=True)

    @asynccontextmanager
    async def writing(self, *, quick: bool = False) -> AsyncGenerator[AsyncConnection, None]:
        """Open a transaction, committed at the end of the block; a *quick* one touches only a few rows.

        Raises:
            WatchListError: The database cannot be used.
        """
        async with self._limited(quick=quick), self._engine.begin() as connection:
            yield connection

    @asynccontextmanager
    async def reading(self, *, quick: bool = False) -> AsyncGenerator[AsyncConnection, None]:
        """Open a transaction that only reads. See `writing`."""
        async with self._limited(quick=quick), self._reading.connect() as connection:
            yield connection

    async def read(self, statement: Any, *, quick: bool = False) -> Sequence[Sequence[Any]]:
        """Return the rows that a statement finds."""
        async with self.reading(quick=quick) as connection:
            return (await connection.execute(statement)).all()

    async def read_one(self, statement: Any, kind: type, *, optional: bool = False) -> Any:
        """Return the one value of the one row that a statement finds.

        Raises:
            WatchListError: There is not one row, or its value is not of this *kind*.
        """
        rows = await self.read(statement, quick=True)
        if len(rows) == 1 and (isinstance(rows[0][0], kind) or (optional and rows[0][0] is None)):
            return rows[0][0]
        raise damaged(len(rows))

    async def prepare(self) -> None:
        """Create the tables, or bring them to the current version.

        Raises:
            WatchListError: The database cannot be used.
        """
        async with self._limited():
            await self._create_tables()

    @retry_creation
    async def _create_tables(self) -> None:
        async with self._engine.begin() as connection:
            await (_prepare_schema if self.is_shared else _prepare_file)(connection)
            await migrate(connection, await _read_version(connection), secrets.token_hex(4))

    async def connect(self, *, autocommit: bool = False) -> psycopg.AsyncConnection[Any]:
        """Open a connection to PostgreSQL outside the pool; `close` closes it without waiting for the server."""
        options = connection_options(self.tuning)
        connection = await psycopg.AsyncConnection.connect(self._conninfo, autocommit=autocommit, **options)
        await self._connections.add(connection)
        return connection

    async def close(self) -> None:
        """Close all connections.

        A transaction that is given up leaves its connection to a background task of SQLAlchemy, which may return it
        after the pool was closed; a task that is cancelled twice leaves it as it is.
        """
        try:
            with anyio.move_on_after(self.tuning.close_seconds, shield=True):
                await self._engine.dispose()
        finally:
            await self._connections.close()

    @asynccontextmanager
    async def _limited(self, *, quick: bool = False) -> AsyncGenerator[None, None]:
        await anyio.lowlevel.checkpoint_if_cancelled()  # between two transactions, there may be no other place for it
        if not self.is_shared:
            with translated(), anyio.CancelScope(shield=True):
                yield
            return
        within = self.tuning.quick_transaction_seconds if quick else self.tuning.transaction_seconds
        working = anyio.CancelScope(shield=True, deadline=anyio.current_time() + within)
        watching = anyio.CancelScope()
        hasten = partial(_hasten, working, watching, self.tuning.cancelled_transaction_seconds)
        with translated():
            async with beside(hasten, watching.cancel):
                with working:
                    yield
            if working.cancelled_caught:
                raise TimeoutError(f"no answer within {within:g} s")

    def _open_postgres(self, url: URL) -> AsyncEngine:
        engine = create_async_engine(
            url,
            async_creator=self.connect,
            hide_parameters=True,
            pool_size=3,
            max_overflow=7,  # as many as the tasks of a worker: none has to wait for another at the end
            pool_timeout=10,
            enable_from_linting=False,  # tables of one row are joined without a condition
        )

        @event.listens_for(engine.sync_engine, "checkout")
        def on_checkout(connection: Any, record: "ConnectionPoolEntry", _proxy: "PoolProxiedConnection") -> None:
            # A new connection is not checked: when two checks in a row fail, SQLAlchemy reports an error of usage.
            if not record.info.get("was_used"):
                record.info["was_used"] = True
            elif not connection.run_async(partial(_answers, within=self.tuning.ping_seconds)):
                raise exc.InvalidatePoolError

        return engine


async def _answers(connection: psycopg.AsyncConnection[Any], within: float) -> bool:
    """Return whether a connection in a pool works, as SQLAlchemy's own check does; with a time limit in seconds."""
    with suppress(psycopg.Error), anyio.move_on_after(within):
        await connection.set_autocommit(True)  # psycopg's signature
        await connection.execute("SELECT 1")
        await connection.set_autocommit(False)
        return True
    return False


async def _hasten(working: anyio.CancelScope, watching: anyio.CancelScope, seconds: float) -> None:
    """Leave so many seconds for *working* once this is cancelled."""
    with watching:
        try:
            await anyio.sleep_forever()
        finally:
            working.deadline = min(working.deadline, anyio.current_time() + seconds)


@asynccontextmanager
async def open_database(url: URL, tuning: Tuning) -> AsyncGenerator[Database, None]:
    """Open the database, with its tables in the current version.

    Raises:
        WatchListError: It cannot be used.
    """
    database = Database(url, tuning)
    try:
        await database.prepare()
        yield database
    finally:
        await database.close()


def _open_sqlite(url: URL) -> AsyncEngine:
    path = Path(url.database or "").absolute()
    if not path.parent.is_dir():
        raise WatchListError(f"there is no folder {str(path.parent)!r} for the watch list: make it first")
    if path.is_dir():  # the driver would leave a thread behind that complains
        raise WatchListError(f"{str(path)!r} is a folder: name a file in it")
    with suppress(OSError):  # it exists already, or SQLite reports what is wrong
        # SQLite gives the files beside it the same mode. An existing file is not opened: to close it would release the
        # locks that this process has on it.
        os.close(os.open(path.resolve(), os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    identity = _identity(path)
    engine = create_async_engine(url.set(database=str(path)), hide_parameters=True, connect_args={"timeout": 30})

    @event.listens_for(engine.sync_engine, "connect")
    def on_connect(connection: "DBAPIConnection", _record: "ConnectionPoolEntry") -> None:
        connection.isolation_level = None  # the driver begins no transactions; on_begin does
        # Text that is no UTF-8 is an id that cannot be sent, not the end of the page that it is on.
        connection.driver_connection.text_factory = partial(str, encoding="utf-8", errors="surrogateescape")
        cursor = connection.cursor()
        cursor.execute(_IS_OURS_OR_NEW, (_APPLICATION_ID,))
        if cursor.fetchone() == (1,):  # the mode is written into the file, and it may be another program's
            set_journal_mode(cursor)
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def on_begin(connection: Any) -> None:
        if _identity(path) != identity:
            raise WatchListError(
                f"the SQLite file {str(path)!r} was deleted, moved or replaced while it was open: what is stored now "
                "would be lost; put the right file there, and start again"
            )
        # A transaction that reads first and writes then would fail if another connection wrote in between.
        kind = "DEFERRED" if connection.get_execution_options().get("reads") else "IMMEDIATE"
        connection.exec_driver_sql(f"BEGIN {kind}")

    return engine


def set_journal_mode(cursor: "DBAPICursor | sqlite3.Cursor") -> None:
    """Write the mode into the file, unless another connection uses the file: then that one has done it, or does."""
    try:
        cursor.execute("PRAGMA journal_mode = WAL")
    except sqlite3.OperationalError as error:  # SQLite does not wait here, whatever the timeout of the connection
        if error.sqlite_errorcode != sqlite3.SQLITE_BUSY:
            raise


def _identity(path: Path) -> tuple[int, int] | None:
    """Return what identifies a file; None if it does not exist."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


async def _prepare_file(connection: AsyncConnection) -> None:
    if (await connection.exec_driver_sql("PRAGMA application_id")).scalar_one() == _APPLICATION_ID:
        return
    if await connection.run_sync(lambda sync: inspect(sync).get_table_names()):
        raise WatchListError("this SQLite file belongs to another program: name a file that does not exist yet")
    await connection.exec_driver_sql(f"PRAGMA application_id = {_APPLICATION_ID}")


async def _prepare_schema(connection: AsyncConnection) -> None:
    names = await connection.run_sync(lambda sync: inspect(sync).get_schema_names())
    if SCHEMA not in names:
        await connection.execute(text(f"CREATE SCHEMA {SCHEMA}"))
        return
    tables = set(await connection.run_sync(lambda sync: inspect(sync).get_table_names(SCHEMA)))
    if tables & set(TABLES.tables) and ABOUT.name not in tables:
        raise WatchListError(f"the schema {SCHEMA!r} of this database belongs to another program: use another database")


async def _read_version(connection: AsyncConnection) -> int:
    """Return the version of the tables; 0 if there are none."""
    if not await connection.run_sync(lambda sync: inspect(sync).has_table(ABOUT.name)):
        return 0
    columns = {column["name"] for column in await connection.run_sync(lambda sync: inspect(sync).get_columns("about"))}
    if not {"version", "list"} <= columns:
        raise WatchListError("the table 'about' of this database belongs to another program: use another database")
    found = (await connection.execute(select(ABOUT.c.version))).scalars().all()
    if len(found) != 1 or not isinstance(found[0], int) or found[0] < 1:
        raise damaged(len(found))
    if found[0] > len(STEPS):
        raise WatchListError(
            f"this watch list is of version {found[0]}, and this smilejobs knows no later one than {len(STEPS)}: "
            "upgrade smilejobs here too"
        )
    return found[0]


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


def damaged(count: int) -> WatchListError:
    """Return the error of a table that must have one row, has *count* of them, or a wrong value in the one."""
    return WatchListError(
        f"a table of this watch list has {count} rows in place of one, or a wrong value in it: another program has "
        "changed the tables; use a backup"
    )
