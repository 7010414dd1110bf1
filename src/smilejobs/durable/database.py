"""The database of a watch list, SQLite or PostgreSQL: how it is opened, and its transactions."""

import os
import secrets
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
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
    from sqlalchemy import URL, event, exc, inspect, make_url, select, text
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
except ImportError as error:
    raise ImportError("smilejobs.durable needs a few packages more: pip install 'smilejobs[durable]'") from error

from smilejobs.durable.failures import CREATED_BY_OTHERS, sqlstate, translated
from smilejobs.durable.schema import ABOUT, STEPS, TABLES, migrate
from smilejobs.tasks import beside

if TYPE_CHECKING:
    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection

SCHEMA = "smilejobs"
"""On PostgreSQL, the schema that holds all tables of a watch list."""

_APPLICATION_ID = 0x534D4A42
"""Marks a SQLite file as one of ours: the letters SMJB."""

_IS_OURS_OR_NEW = "SELECT application_id = ? OR NOT EXISTS (SELECT 1 FROM sqlite_master) FROM pragma_application_id"

TRANSACTION_SECONDS = 60.0
"""Time limit of a transaction on PostgreSQL that reads or writes many rows."""

QUICK_SECONDS = 5.0
"""Time limit of a transaction on PostgreSQL that touches a few rows, the check of the connection included."""

_PING_SECONDS = 2.0
"""Time limit for the answer to the check of a pooled connection."""

_CONNECT_SECONDS = 5
"""Time limit for a new connection to PostgreSQL."""

_LOCK_SECONDS = 10
"""Time limit for a lock on PostgreSQL that another session holds."""

_GRACE = 2.0
"""Seconds that a transaction of PostgreSQL still has when the task that waits for it is cancelled."""

_FAREWELL = 2.0
"""Seconds for closing connections."""

_ATTEMPTS = 5
"""How often the tables are looked at anew, when another session creates them at the same time."""

_DRIVERS = {
    "sqlite": "sqlite+aiosqlite",
    "postgresql": "postgresql+psycopg",
    "postgres": "postgresql+psycopg",
}


def parse(url: str) -> URL:
    """Return the URL of a database, with its driver.

    Raises:
        TypeError: It is not a string.
        ValueError: No watch list can live there.
    """
    if not isinstance(url, str):
        raise TypeError(f"the URL of a watch list must be a string, not {type(url).__name__}")
    hint = "write sqlite:///jobs.db or postgresql://user@host/database"
    parsed = _made(url)
    is_read_by_psycopg = parsed is not None and _is_read_by_psycopg(url)
    del url  # it holds a password: crash reporters copy the locals of each frame of a traceback
    if parsed is None:
        raise ValueError(f"this is not the URL of a database: {hint}")
    driver = _DRIVERS.get(parsed.drivername)
    if driver is None:
        raise ValueError(f"a watch list lives in SQLite or PostgreSQL, not in {parsed.drivername!r}: {hint}")
    if driver == _DRIVERS["sqlite"] and parsed.database in (None, "", ":memory:"):
        raise ValueError(f"a watch list in memory survives nothing: {hint}")
    if driver == _DRIVERS["sqlite"] and parsed.query:
        del parsed
        raise ValueError(f"a watch list in SQLite takes no options: {hint}")
    if driver == _DRIVERS["postgresql"] and not is_read_by_psycopg:
        raise ValueError(f"this is not the URL of a PostgreSQL database: {hint}")
    return parsed.set(drivername=driver)


def _made(url: str) -> URL | None:
    """Return the parts of a URL; None if it is none."""
    with suppress(exc.ArgumentError, ValueError):  # the second for a port that is none, and may be part of a password
        return make_url(url)
    return None


def _is_read_by_psycopg(url: str) -> bool:
    """Whether psycopg can read a URL, as what listens and what leases buckets does."""
    with suppress(psycopg.ProgrammingError, UnicodeError):
        return bool(conninfo_to_dict(url))
    return False


def without_secrets(url: str) -> str:
    """Return the URL of a database as people may see it: without password and options.

    Raises:
        ValueError: As for `parse`.
    """
    parsed = parse(url)
    return parsed.set(drivername=parsed.get_backend_name(), query={}).render_as_string(hide_password=True)


class Database:
    """A database that is open. Its errors are ours, and each transaction has a time limit.

    A transaction is not cancelled half-way: cut off twice, as a cancel scope does, the driver of SQLite never ends, and
    that of PostgreSQL leaves its connection behind. So a server that hangs is given up after the time limit, and soon
    after the waiting task is cancelled. After a time limit, all pooled connections are replaced: a firewall that has
    forgotten one of them has forgotten the others.

    Attributes:
        is_shared: Whether many workers may use it: PostgreSQL.
    """

    def __init__(self, url: URL) -> None:
        self.is_shared = url.get_backend_name() != "sqlite"
        self._is_suspect = False
        self._engine = self._postgres(url) if self.is_shared else _sqlite(url)
        self._reading = self._engine.execution_options(reads=True)

    @asynccontextmanager
    async def writing(self, within: float = TRANSACTION_SECONDS) -> AsyncGenerator[AsyncConnection, None]:
        """Open a transaction, committed at the end of the block.

        Raises:
            WatchListError: The database cannot be used.
        """
        async with self._limited(within), self._engine.begin() as connection:
            yield connection

    @asynccontextmanager
    async def reading(self, within: float = TRANSACTION_SECONDS) -> AsyncGenerator[AsyncConnection, None]:
        """Open a transaction that only reads.

        Raises:
            WatchListError: The database cannot be used.
        """
        async with self._limited(within), self._reading.connect() as connection:
            yield connection

    async def read(self, statement: Any, within: float = TRANSACTION_SECONDS) -> Sequence[Sequence[Any]]:
        """Return the rows that a statement finds."""
        async with self.reading(within) as connection:
            return (await connection.execute(statement)).all()

    async def only(self, statement: Any, kind: type, *, optional: bool = False) -> Any:
        """Return the one value of the one row that a statement finds.

        Raises:
            WatchListError: There is not one row, or its value is not of this *kind*.
        """
        rows = await self.read(statement, QUICK_SECONDS)
        if len(rows) == 1 and (isinstance(rows[0][0], kind) or (optional and rows[0][0] is None)):
            return rows[0][0]
        raise damaged(len(rows))

    async def prepare(self) -> None:
        """Create the tables, or bring them to today's version.

        No lock is taken that another role of the database could hold: where two sessions create the same, the unique
        indexes of the catalog let one of them fail, and it looks again.

        Raises:
            WatchListError: The database cannot be used.
        """
        async with self._limited(TRANSACTION_SECONDS):
            left = _ATTEMPTS
            while True:
                left -= 1
                try:
                    async with self._engine.begin() as connection:
                        await (_own_schema if self.is_shared else _own_file)(connection)
                        await migrate(connection, await _version(connection), secrets.token_hex(4))
                except exc.DBAPIError as error:
                    if not left or sqlstate(error) not in CREATED_BY_OTHERS:
                        raise
                else:
                    return

    async def close(self) -> None:
        """Close all connections."""
        with anyio.move_on_after(_FAREWELL, shield=True):  # what is cancelled while it closes complains
            await self._engine.dispose()

    @asynccontextmanager
    async def _limited(self, within: float) -> AsyncGenerator[None, None]:
        await anyio.lowlevel.checkpoint_if_cancelled()  # between two transactions, there may be no other place for it
        if not self.is_shared:
            with translated(), anyio.CancelScope(shield=True):
                yield
            return
        working = anyio.CancelScope(shield=True, deadline=anyio.current_time() + within)
        watching = anyio.CancelScope()
        with translated():
            async with beside(partial(_hasten, working, watching), watching.cancel):
                with working:
                    yield
            if working.cancelled_caught:
                self._is_suspect = True
                raise TimeoutError(f"no answer within {within:g} s")

    def _postgres(self, url: URL) -> AsyncEngine:
        engine = create_async_engine(
            url,
            hide_parameters=True,
            pool_size=3,
            max_overflow=7,  # as many as the tasks of a worker: none has to wait for another at the end
            pool_timeout=10,
            enable_from_linting=False,  # tables of one row are joined without a condition
            connect_args=connection_options(),
        )

        @event.listens_for(engine.sync_engine, "connect")
        def connected(_connection: "DBAPIConnection", record: "ConnectionPoolEntry") -> None:
            record.info["is_fresh"] = True

        @event.listens_for(engine.sync_engine, "checkout")
        def checked_out(connection: Any, record: "ConnectionPoolEntry", _proxy: "PoolProxiedConnection") -> None:
            if not record.info.pop("is_fresh", False) and (self._is_suspect or not connection.run_async(_answers)):
                self._is_suspect = False
                raise exc.InvalidatePoolError

        return engine


async def _answers(connection: "psycopg.AsyncConnection[Any]") -> bool:
    """Whether a pooled connection still works; as SQLAlchemy's own check, with a time limit."""
    with suppress(psycopg.Error), anyio.move_on_after(_PING_SECONDS):
        await connection.set_autocommit(True)  # psycopg's signature
        await connection.execute("SELECT 1")
        await connection.set_autocommit(False)
        return True
    return False


async def _hasten(working: anyio.CancelScope, watching: anyio.CancelScope) -> None:
    """Leave little time for *working* once this is cancelled."""
    with watching:
        try:
            await anyio.sleep_forever()
        finally:
            working.deadline = min(working.deadline, anyio.current_time() + _GRACE)


@asynccontextmanager
async def open_database(url: URL) -> AsyncGenerator[Database, None]:
    """Open the database, with the tables of today in it.

    Raises:
        WatchListError: It cannot be used.
    """
    database = Database(url)
    try:
        await database.prepare()
        yield database
    finally:
        await database.close()


def _sqlite(url: URL) -> AsyncEngine:
    path = Path(url.database or "").absolute()
    if not path.parent.is_dir():
        raise WatchListError(f"there is no folder {str(path.parent)!r} for the watch list: make it first")
    if path.is_dir():  # the driver would leave a thread behind that complains
        raise WatchListError(f"{str(path)!r} is a folder: name a file in it")
    with suppress(OSError):  # it is there, or SQLite says what is wrong
        # SQLite gives the files beside it the same mode. An existing file is not opened: to close it would release the
        # locks that this process has on it.
        os.close(os.open(path.resolve(), os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    identity = _identity(path)
    engine = create_async_engine(url.set(database=str(path)), hide_parameters=True, connect_args={"timeout": 30})

    @event.listens_for(engine.sync_engine, "connect")
    def connected(connection: "DBAPIConnection", _record: "ConnectionPoolEntry") -> None:
        connection.isolation_level = None  # the driver begins no transactions: we do, below
        # Text that is no UTF-8 is an id that cannot be sent, not the end of the page that it is on.
        connection.driver_connection.text_factory = partial(str, encoding="utf-8", errors="surrogateescape")
        cursor = connection.cursor()
        cursor.execute(_IS_OURS_OR_NEW, (_APPLICATION_ID,))
        if cursor.fetchone() == (1,):  # the mode is written into the file, and it may be another program's
            cursor.execute("PRAGMA journal_mode = WAL")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def begun(connection: Any) -> None:
        if _identity(path) != identity:
            raise WatchListError(
                f"the SQLite file {str(path)!r} was deleted, moved or replaced while it was open: what is stored now "
                "would be lost; put the right file there, and start again"
            )
        # A transaction that reads first and writes then would fail if another connection wrote in between.
        kind = "DEFERRED" if connection.get_execution_options().get("reads") else "IMMEDIATE"
        connection.exec_driver_sql(f"BEGIN {kind}")

    return engine


def _identity(path: Path) -> tuple[int, int] | None:
    """Return what tells a file from all others that are there, None if there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def connection_options() -> dict[str, Any]:
    """Return the options of a connection to PostgreSQL.

    They come before the defaults of the database and of the role: the isolation level that the statements rely on, and
    a time limit for whatever may wait.
    """
    settings = {
        "search_path": SCHEMA,
        "default_transaction_isolation": r"read\ committed",
        "lock_timeout": f"{_LOCK_SECONDS}s",
        "statement_timeout": f"{TRANSACTION_SECONDS:.0f}s",
        "idle_in_transaction_session_timeout": f"{TRANSACTION_SECONDS:.0f}s",
    }
    return {
        "options": " ".join(f"-c {name}={value}" for name, value in settings.items()),
        "connect_timeout": _CONNECT_SECONDS,
        "keepalives": 1,
        "keepalives_idle": 10,
        "keepalives_interval": 3,
        "keepalives_count": 3,
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
    names = await connection.run_sync(lambda sync: inspect(sync).get_schema_names())
    if SCHEMA not in names:
        await connection.execute(text(f"CREATE SCHEMA {SCHEMA}"))
        return
    tables = set(await connection.run_sync(lambda sync: inspect(sync).get_table_names(SCHEMA)))
    if tables & set(TABLES.tables) and ABOUT.name not in tables:
        raise WatchListError(f"the schema {SCHEMA!r} of this database belongs to another program: use another database")


async def _version(connection: AsyncConnection) -> int:
    """Return the version of the tables; 0 if there are none. Where they are to be changed, their one row is locked."""
    if not await connection.run_sync(lambda sync: inspect(sync).has_table(ABOUT.name)):
        return 0
    columns = {column["name"] for column in await connection.run_sync(lambda sync: inspect(sync).get_columns("about"))}
    if not {"version", "list"} <= columns:
        raise WatchListError("the table 'about' of this database belongs to another program: use another database")
    version = await _one_version(connection, select(ABOUT.c.version))
    if version < len(STEPS):
        version = await _one_version(connection, select(ABOUT.c.version).with_for_update())
    if version > len(STEPS):
        raise WatchListError(
            f"this watch list is of version {version}, and this smilejobs knows no later one than {len(STEPS)}: "
            "upgrade smilejobs here too"
        )
    return version


async def _one_version(connection: AsyncConnection, statement: Any) -> int:
    found = (await connection.execute(statement)).scalars().all()
    if len(found) != 1 or not isinstance(found[0], int) or found[0] < 1:
        raise damaged(len(found))
    return found[0]


def damaged(count: int) -> WatchListError:
    """Return the error of a table that must have one row, has *count* of them, or a wrong value in the one."""
    return WatchListError(
        f"a table of this watch list has {count} rows in place of one, or a wrong value in it: another program has "
        "changed the tables; use a backup"
    )
