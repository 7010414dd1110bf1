"""The database of a watch list: which it may be, and what is said of one that cannot be used."""

import asyncio
import importlib
import os
import shutil
import socket
import sqlite3
import sys
import tempfile
from collections.abc import Generator
from contextlib import closing, contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg.sql import SQL, Identifier
from sqlalchemy import exc, select

from smilejobs.durable import WatchList
from smilejobs.durable.database import open_database, set_journal_mode
from smilejobs.durable.failures import translated
from smilejobs.durable.schema import ABOUT, STEPS, migrate
from smilejobs.durable.tuning import DEFAULTS, Tuning
from smilejobs.durable.urls import parse, without_secrets
from smilejobs.errors import WatchListError
from tests.helpers.leaks import assert_keeps_secrets
from tests.helpers.watching import jobs

pytestmark = pytest.mark.anyio

SECRET = "p4ss-w0rd-of-the-database"
NOBODY = 65534


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def open_and_add(url: str) -> None:
    async with WatchList.open(url) as watch:
        await watch.add(jobs(1))


def execute(url: str, *statements: str) -> None:
    """Do something behind everybody's back, in the tables of a watch list or of others."""
    if url.startswith("sqlite"):
        with sqlite3.connect(url.removeprefix("sqlite:///")) as connection:
            for statement in statements:
                connection.execute(statement)
        connection.close()
    else:
        with psycopg.connect(url, options="-c search_path=smilejobs") as session:
            for statement in statements:
                session.execute(statement.encode())


def content(url: str) -> object:
    """What may not change."""
    if url.startswith("sqlite"):
        path = Path(url.removeprefix("sqlite:///"))
        return {file.name: sha256(file.read_bytes()).hexdigest() for file in path.parent.glob(f"{path.name}*")}
    query = """
    SELECT table_schema, table_name, column_name FROM information_schema.columns
    WHERE table_schema <> 'information_schema' AND NOT starts_with(table_schema, 'pg_') ORDER BY 1, 2, 3
    """
    with psycopg.connect(url) as connection:
        return connection.execute(query).fetchall()


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("", "not the URL of a database"),
        (f"user:{SECRET}@host/jobs", "not the URL of a database"),
        (f"postgresql://user:{SECRET}@host:port/jobs", "not the URL of a database"),
        (f"postgresql://user:x:{SECRET}/jobs", "not the URL of a"),
        (f"postgresql://user:{SECRET}@host/jobs?nonsense=1", "not the URL of a PostgreSQL database"),
        (f"mysql://user:{SECRET}@host/jobs", "in SQLite or PostgreSQL, not in 'mysql'"),
        (f"postgresql+asyncpg://user:{SECRET}@host/jobs", "not in 'postgresql\\+asyncpg'"),
        ("sqlite://", "in memory survives nothing"),
        ("sqlite:///:memory:", "in memory survives nothing"),
        ("sqlite:///file::memory:?uri=true", "takes no options"),
        ("sqlite:///jobs.db?mode=ro", "takes no options"),
    ],
)
def test_a_url_that_names_no_place(url: str, problem: str) -> None:
    """It is refused at once, with what to write instead, and without its password."""
    with pytest.raises(ValueError, match=problem) as caught:
        WatchList.open(url)
    assert "write sqlite:///jobs.db or postgresql://user@host/database" in str(caught.value)
    assert SECRET not in str(caught.value)
    assert caught.value.__context__ is None


@pytest.mark.parametrize("url", [None, Path("jobs.db"), b"sqlite:///jobs.db"])
def test_a_url_is_a_string(url: object) -> None:
    """Anything else is a mistake, and so is a clock that is none."""
    with pytest.raises(TypeError, match="the URL of a watch list must be a string"):
        WatchList.open(url)  # type: ignore[arg-type]  # what is refused here is no string


def test_a_clock_is_a_function() -> None:
    """That is said at once, too."""
    with pytest.raises(TypeError, match="now must be a function"):
        WatchList.open("sqlite:///jobs.db", now=5)  # type: ignore[arg-type]  # what is refused here is no function


async def test_a_list_is_made_once_and_found_again(database_url: str) -> None:
    """Also by many who open it at the same time; a second list has another name."""
    names = set()

    async def open_it() -> None:
        async with WatchList.open(database_url) as watch:
            names.add(watch.store.name)

    await asyncio.gather(*(open_it() for _ in range(6)))
    await open_it()
    assert len(names) == 1
    await open_and_add(database_url)
    async with WatchList.open(database_url) as watch:
        assert (await watch.counts()).pending == 1


async def test_tables_that_another_session_creates_meanwhile_are_not_filled_twice(database_url: str) -> None:
    """A worker that saw no tables a moment ago fails, and looks again; else each table of one row would have two."""
    async with open_database(parse(database_url), DEFAULTS) as database:
        with pytest.raises(WatchListError):
            async with database.writing() as connection:
                await migrate(connection, 0, "another")
        assert len(await database.read(select(ABOUT))) == 1


@pytest.mark.parametrize("scheme", ["postgres", "postgresql"])
async def test_both_names_of_postgres_will_do(postgres_url: str, scheme: str) -> None:
    """And options of libpq."""
    url = postgres_url.replace("postgresql:", f"{scheme}:") + "?sslmode=disable"
    await open_and_add(url)


async def test_a_folder_that_is_missing(tmp_path: Path) -> None:
    """It is named, and not made."""
    with pytest.raises(WatchListError, match="there is no folder '.*nowhere' for the watch list: make it first"):
        await open_and_add(f"sqlite:///{tmp_path}/nowhere/jobs.db")
    assert not (tmp_path / "nowhere").exists()  # a moment


async def test_a_path_that_is_no_file(tmp_path: Path) -> None:
    """A folder cannot be opened."""
    with pytest.raises(WatchListError, match="is a folder: name a file in it"):
        await open_and_add(f"sqlite:///{tmp_path}")


@pytest.mark.parametrize("data", [b"user_id,job_id\n" * 100, b"\0" * 5000])
async def test_a_file_that_is_no_database(tmp_path: Path, data: bytes) -> None:
    """Nothing is done to it."""
    path = tmp_path / "jobs.csv"
    path.write_bytes(data)
    with pytest.raises(WatchListError, match="not a SQLite database: name a file that does not exist yet"):
        await open_and_add(f"sqlite:///{path}")
    assert path.read_bytes() == data


@pytest.mark.parametrize("table", ["customers", "watch", "about"])
async def test_a_file_of_another_program(tmp_path: Path, table: str) -> None:
    """It is left as it is, to the byte, whatever its tables are called."""
    url = f"sqlite:///{tmp_path / 'customers.db'}"
    execute(url, f"CREATE TABLE {table} (id INTEGER)", "PRAGMA application_id = 7")
    before = content(url)
    with pytest.raises(WatchListError, match="belongs to another program: name a file that does not exist yet"):
        await open_and_add(url)
    assert content(url) == before


@pytest.mark.parametrize("table", ["watch", "shared_rate", "about"])
@pytest.mark.sample
async def test_a_schema_of_another_program(postgres_url: str, table: str) -> None:
    """It is left as it is."""
    execute(postgres_url, "CREATE SCHEMA smilejobs", f"CREATE TABLE smilejobs.{table} (id int)")
    before = content(postgres_url)
    with pytest.raises(WatchListError, match="belongs to another program: use another database"):
        await open_and_add(postgres_url)
    assert content(postgres_url) == before


async def test_an_empty_schema_will_do(postgres_url: str) -> None:
    """One that an administrator has made; tables of others in other schemas are no matter."""
    execute(postgres_url, "CREATE SCHEMA smilejobs", "CREATE TABLE public.watch (id int)")
    await open_and_add(postgres_url)
    execute(postgres_url, "DROP TABLE public.watch")
    await open_and_add(postgres_url)


async def test_a_newer_version(database_url: str) -> None:
    """What is not known is not touched."""
    await open_and_add(database_url)
    execute(database_url, f"UPDATE about SET version = {len(STEPS) + 1}")
    with pytest.raises(WatchListError, match=f"of version {len(STEPS) + 1}.*upgrade smilejobs here too") as caught:
        await open_and_add(database_url)
    assert not caught.value.transient
    execute(database_url, f"UPDATE about SET version = {len(STEPS)}")
    async with WatchList.open(database_url) as watch:
        assert (await watch.counts()).pending == 1


async def test_a_list_that_somebody_has_emptied(database_url: str) -> None:
    """Without its one row about itself it is not used."""
    await open_and_add(database_url)
    execute(database_url, "DELETE FROM about")
    with pytest.raises(WatchListError, match="another program has changed the tables"):
        await open_and_add(database_url)


@contextmanager
def nobody() -> Generator[None, None, None]:
    """Be a user who may not do everything, where the tests are run as root."""
    if os.geteuid():
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def public_folder() -> Generator[Path, None, None]:
    """A folder that everybody may read."""
    folder = Path(tempfile.mkdtemp())
    try:
        folder.chmod(0o755)
        yield folder
    finally:
        folder.chmod(0o755)
        shutil.rmtree(folder)


def protect(folder: Path) -> None:
    for path in (*folder.iterdir(), folder):
        path.chmod(0o555)


async def test_a_file_that_is_read_only(public_folder: Path) -> None:
    """It must be writable; that is said on entering."""
    url = f"sqlite:///{public_folder / 'jobs.db'}"
    await open_and_add(url)
    protect(public_folder)
    with nobody(), pytest.raises(WatchListError, match="read-only: it must be writable"):
        await open_and_add(url)


async def test_a_database_that_is_read_only(postgres_url: str) -> None:
    """A standby, say; a failover passes, so a worker waits for it."""
    name = urlsplit(postgres_url).path[1:]
    await open_and_add(postgres_url)
    execute(postgres_url, f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    with pytest.raises(WatchListError, match="read-only: it must be writable") as caught:
        await open_and_add(postgres_url)
    assert caught.value.transient


@pytest.mark.sample
async def test_a_user_without_rights(postgres_url: str) -> None:
    """What an administrator has to do is said."""
    name = urlsplit(postgres_url).path[1:]
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(Identifier(name), SECRET))
        try:
            address = urlsplit(postgres_url).netloc.rpartition("@")[2]
            with pytest.raises(WatchListError, match="CREATE SCHEMA smilejobs AUTHORIZATION") as caught:
                await open_and_add(f"postgresql://{name}:{SECRET}@{address}/{name}")
            assert SECRET not in str(caught.value)
        finally:
            connection.execute(SQL("DROP ROLE {}").format(Identifier(name)))


async def test_a_database_that_is_down() -> None:
    """It may be up later; nothing of the password is told, in no form."""
    with socket.socket() as taken:  # nobody else can have the port, and nobody listens at it
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(WatchListError, match="cannot be reached.*refused") as caught:
            await open_and_add(f"postgresql://user:{SECRET}@127.0.0.1:{taken.getsockname()[1]}/jobs")
    assert caught.value.transient
    assert SECRET not in f"{caught.value!r} {caught.value}"
    assert "\n" not in str(caught.value)
    assert caught.value.__context__ is None


async def test_a_database_that_is_not_there_and_a_wrong_password(postgres_url: str) -> None:
    """What the server says is told, but not the password."""
    with pytest.raises(WatchListError, match="does not exist"):
        await open_and_add(f"{postgres_url}_of_others")
    parts = urlsplit(postgres_url)
    wrong = parts._replace(netloc=f"{parts.username}:{SECRET}@{parts.hostname}:{parts.port}").geturl()
    with pytest.raises(WatchListError, match="password authentication failed") as caught:
        await open_and_add(wrong)
    assert SECRET not in str(caught.value)


def transaction_timeout() -> psycopg.Error:
    """Return the error as psycopg raises it where it has no class for it: before 3.2.3."""
    error = psycopg.InternalError("too long")
    error.sqlstate = "25P04"
    return error


@pytest.mark.parametrize(
    ("error", "text", "transient"),
    [
        (psycopg.errors.AdminShutdown("by the administrator"), "cannot be reached", True),
        (psycopg.errors.TooManyConnections("full"), "cannot be reached", True),
        (psycopg.errors.CannotConnectNow("starting up"), "cannot be reached", True),
        (psycopg.errors.DiskFull("no room"), "cannot be reached", True),
        (OSError("cut"), r"cannot be reached or used now \(OSError\)", True),
        (exc.TimeoutError("pool"), "cannot be reached", True),
        (psycopg.errors.LockNotAvailable("lock timeout"), "cannot be reached or used now.*lock timeout", True),
        (psycopg.errors.DeadlockDetected("deadlock"), "cannot be reached or used now", True),
        (psycopg.errors.SerializationFailure("concurrent update"), "cannot be reached or used now", True),
        (psycopg.errors.IdleInTransactionSessionTimeout("idle"), "cannot be reached or used now", True),
        (transaction_timeout(), "cannot be reached or used now", True),
        (psycopg.errors.QueryCanceled("statement timeout"), "cannot be reached or used now", True),
        (psycopg.errors.ReadOnlySqlTransaction("cannot execute UPDATE"), "read-only: it must be writable", True),
        (psycopg.errors.IoError("disk"), "cannot be reached or used now", True),
        (psycopg.errors.UndefinedTable("watch"), "SQLSTATE 42P01", False),
        (psycopg.InterfaceError("the connection is lost"), r"used now \(InterfaceError\)", True),
        (psycopg.DataError("user-secret"), r"refuses \(DataError\)", False),
        (psycopg.ProgrammingError("user-secret"), r"refuses \(ProgrammingError\)", False),
        (exc.NoResultFound("no row"), r"refuses \(NoResultFound\)", False),
        (UnicodeDecodeError("utf-8", b"user-secret", 0, 1, "bad"), r"refuses \(UnicodeDecodeError\)", False),
        (sqlite3.OperationalError("database is locked"), "database is locked", True),
        (sqlite3.OperationalError("attempt to write a readonly database"), "read-only", False),
        (sqlite3.OperationalError("database or disk is full"), "disk is full", True),
        (psycopg.errors.UniqueViolation("Key (user_id)=(user-secret)"), "SQLSTATE 23505", False),
        (psycopg.errors.DataException("user-secret"), "SQLSTATE 22000", False),
    ],
)
def test_what_may_pass_is_told_from_what_lasts(error: Exception, text: str, transient: bool) -> None:
    """Errors of the database are ours, and quote no row."""
    wrapped = exc.DBAPIError("UPDATE watch", {"user_id": "user-secret"}, error)
    for each in (wrapped,) if isinstance(error, sqlite3.Error) else (error, wrapped):
        with pytest.raises(WatchListError, match=text) as caught, translated():
            raise each
        assert caught.value.transient is transient
        assert "user-secret" not in f"{caught.value} {caught.value!r}"


def test_an_error_of_the_database_is_not_behind_ours() -> None:
    """Its frames hold rows and the password, and crash reporters copy them."""
    with pytest.raises(WatchListError) as caught, translated():
        raise exc.StatementError("it failed", "SELECT :id", {"id": SECRET}, ValueError(SECRET))
    assert (caught.value.__context__, caught.value.__cause__) == (None, None)


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://user:{SECRET}@host:port/jobs",
        f"postgresql://user:{SECRET}@host/jobs?unknown=1",
        f"oracle://user:{SECRET}@host/jobs",
        f"sqlite:///jobs.db?password={SECRET}",
    ],
)
@pytest.mark.sample
def test_a_url_that_is_refused_is_not_reachable(url: str) -> None:
    """Neither a frame nor a context of the error holds its password."""
    with pytest.raises(ValueError, match="watch list|not the URL") as caught:
        WatchList.open(url)
    assert_keeps_secrets(caught.value, SECRET)


async def test_a_password_is_not_reachable_from_a_database_that_is_away() -> None:
    """As above, where the URL is right."""
    with pytest.raises(WatchListError) as caught:
        async with WatchList.open(f"postgresql://user:{SECRET}@127.0.0.1:1/jobs"):
            pass
    assert_keeps_secrets(caught.value, SECRET)


def test_errors_that_are_not_the_databases_pass() -> None:
    """A mistake of the caller stays what it is."""
    with pytest.raises(KeyError), translated():
        raise KeyError("mistake")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("sqlite:////var/jobs.db", "sqlite:////var/jobs.db"),
        (f"postgresql://user:{SECRET}@host:5433/jobs", "postgresql://user:***@host:5433/jobs"),
        (f"postgres://user:{SECRET}@host/jobs?sslpassword={SECRET}", "postgresql://user:***@host/jobs"),
        (f"postgresql://host/jobs?password={SECRET}", "postgresql://host/jobs"),
    ],
)
def test_a_url_can_be_shown(url: str, shown: str) -> None:
    """Without its password, wherever that stands."""
    assert without_secrets(url) == shown


async def test_what_is_open_cannot_be_opened_by_its_password(database_url: str) -> None:
    """What shows itself shows no password."""
    async with WatchList.open(database_url) as watch:
        password = urlsplit(database_url).password or "none"
        assert password not in f"{watch!r} {watch.store!r} {await watch.counts()!r}"


@pytest.mark.parametrize("missing", ["aiosqlite", "procrastinate", "psycopg", "sqlalchemy"])
def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    """The line that mends it."""
    monkeypatch.setitem(sys.modules, missing, None)
    saved = {name: module for name, module in sys.modules.items() if name.startswith("smilejobs.durable")}
    for name in saved:
        monkeypatch.delitem(sys.modules, name)
    try:
        with pytest.raises(ImportError, match=r"pip install 'smilejobs\[durable\]'"):
            importlib.import_module("smilejobs.durable")
    finally:
        for name in [name for name in sys.modules if name.startswith("smilejobs.durable")]:
            with suppress(KeyError):
                del sys.modules[name]
        sys.modules |= saved


async def test_a_file_that_has_lost_its_tables_is_no_outage(tmp_path: Path) -> None:
    """Waiting would not bring them back."""
    path = tmp_path / "jobs.db"
    async with WatchList.open(f"sqlite:///{path}") as watch:
        with sqlite3.connect(path) as connection:
            connection.execute("DROP TABLE watch")
        connection.close()
        with pytest.raises(WatchListError, match="no such table") as caught:
            await watch.counts()
    assert not caught.value.transient


def test_the_journal_mode_is_left_to_the_connection_that_uses_the_file(tmp_path: Path) -> None:
    """SQLite does not wait there; another reason for which it cannot be set is an error."""
    path = tmp_path / "jobs.db"
    with (
        closing(sqlite3.connect(path, isolation_level=None)) as user,
        closing(sqlite3.connect(path, timeout=0)) as other,
    ):
        user.execute("CREATE TABLE t (x)")
        user.execute("BEGIN EXCLUSIVE")
        set_journal_mode(other.cursor())
        user.execute("COMMIT")
        assert user.execute("PRAGMA journal_mode").fetchone() == ("delete",)
    with (
        closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as reader,
        pytest.raises(sqlite3.OperationalError, match="readonly"),
    ):
        set_journal_mode(reader.cursor())


async def test_checks_that_fail_in_a_row_are_no_error(postgres_url: str) -> None:
    """A pooled connection that does not answer is replaced, also if the new one would not answer in time either."""
    async with open_database(parse(postgres_url), Tuning(ping_seconds=0.0)) as database:
        for _ in range(3):
            assert await database.read_one(select(ABOUT.c.version), int) == len(STEPS)


async def test_a_connection_that_comes_after_the_end_is_closed(postgres_url: str) -> None:
    """A task that was given up may still open one; nothing would close it."""
    async with open_database(parse(postgres_url), Tuning()) as database:
        earlier = await database.connect()
    later = await database.connect()
    assert (earlier.closed, later.closed) == (True, True)
