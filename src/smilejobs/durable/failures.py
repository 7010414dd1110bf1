"""Errors of the database of a watch list and of Procrastinate: which of them pass, and the text of each."""

import re
import sqlite3
from collections.abc import Generator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import psycopg
from procrastinate.exceptions import ConnectorException
from procrastinate.schema import SchemaManager
from sqlalchemy import exc
from tenacity import retry, retry_if_exception, stop_after_attempt

from smilejobs.errors import SmileJobsError, WatchListError

_READ_ONLY = "25006"
_NO_PRIVILEGE = "42501"

_TRANSIENT_SQLITE = ("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_FULL", "SQLITE_IOERR")
"""Errors from which a SQLite file may recover."""

_TRANSIENT_SQLSTATES = ("08", "40", "53", "57", "58", "25P03", "25P04", "55P03")
"""SQLSTATEs (or their first two digits, the class) of errors that pass: no connection, a deadlock or a serialization
failure, no resources, an operator's intervention, a system error, a transaction that was idle or took too long, a lock
that another session holds. https://www.postgresql.org/docs/current/errcodes-appendix.html"""

_CREATED_BY_OTHERS = frozenset({"23505", "42P06", "42P07", "42710"})
"""SQLSTATEs of CREATE for an object that another session has created a moment ago."""

_UNDEFINED = frozenset({"42P01", "42703", "42704", "42883"})
"""SQLSTATEs of statements with a table, column, type or function that does not exist."""


_ERRORS = (
    exc.SQLAlchemyError,
    ConnectorException,
    psycopg.Error,
    sqlite3.Error,
    OSError,
    UnicodeError,
    OverflowError,
)


def cause_of(error: BaseException) -> BaseException:
    """Return the driver's error behind one of SQLAlchemy or Procrastinate; the latter keeps it as cause or context."""
    if isinstance(error, exc.DBAPIError):
        return error.orig or error
    if isinstance(error, ConnectorException):
        return error.__cause__ or error.__context__ or error
    return error


def _sqlstate(error: BaseException) -> str | None:
    return getattr(cause_of(error), "sqlstate", None)


retry_creation = retry(
    retry=retry_if_exception(lambda error: _sqlstate(error) in _CREATED_BY_OTHERS),
    stop=stop_after_attempt(5),
    reraise=True,
)
"""Decorates a function that creates what is not there. No lock is taken that another role of the database could hold:
where two sessions create the same, the unique indexes of the catalog let one of them fail, and it looks again."""


@contextmanager
def translated() -> Generator[None, None, None]:
    """Turn errors of the database into `WatchListError`s, which quote no row and no password.

    Raises:
        WatchListError: The database cannot be used; transient where waiting may help.
    """
    try:
        yield
    except _ERRORS as error:
        failure = _translate(error)
    else:
        return
    try:
        raise failure
    finally:
        # Crash reporters copy the context, whose frames hold rows and the password. Without this line it would be set:
        # the caller of a generator is still handling the first error.
        failure.__context__ = None


def _translate(error: Exception) -> WatchListError:
    cause = cause_of(error)
    state = _sqlstate(error)
    words = " ".join(str(cause).split())
    if state == _READ_ONLY or "readonly" in words:
        return WatchListError(
            "the database of the watch list is read-only: it must be writable, also for workers",
            transient=state == _READ_ONLY,  # a failover passes; the mode of a file does not
        )
    if state == _NO_PRIVILEGE:
        return WatchListError(
            "the database of the watch list refuses: this user may not create or use the schema 'smilejobs'; "
            "its owner can: CREATE SCHEMA smilejobs AUTHORIZATION ..."
        )
    if "not a database" in words:
        return WatchListError("this file is not a SQLite database: name a file that does not exist yet")
    name = getattr(cause, "sqlite_errorname", None)
    if name is not None and not name.startswith(_TRANSIENT_SQLITE):
        return WatchListError(f"the database of the watch list cannot be used ({type(cause).__name__}): {words}")
    if _is_connection_failure(cause) if state is None else state.startswith(_TRANSIENT_SQLSTATES):
        # No row can be named before there is a session, and SQLite names none here.
        where = f": {words}" if isinstance(cause, (psycopg.OperationalError, sqlite3.OperationalError)) else ""
        return WatchListError(
            f"the database of the watch list cannot be reached or used now ({type(cause).__name__}){where}",
            transient=True,
        )
    what = type(cause).__name__ if state is None else f"{type(cause).__name__}, SQLSTATE {state}"
    return WatchListError(f"the database of the watch list refuses ({what})")


def _is_connection_failure(cause: BaseException) -> bool:
    """Return whether an error without a SQLSTATE is about the connection, not about a statement or its result."""
    kinds = (psycopg.OperationalError, psycopg.InterfaceError, sqlite3.OperationalError, exc.TimeoutError, OSError)
    return isinstance(cause, kinds) or (isinstance(cause, exc.DBAPIError) and cause.connection_invalidated)


def find_mismatch(error: Exception) -> WatchListError | None:
    """Return what to raise if Procrastinate's tables are of another version; None if they are not.

    The version of the tables is not stored in them, but each migration names what it adds.
    """
    if not isinstance(error, ConnectorException) or _sqlstate(error) not in _UNDEFINED:
        return None
    sentence = str(cause_of(error)).partition("\n")[0]
    names = set(re.findall(r"\w+_\w+", sentence))
    migrations = sorted(Path(SchemaManager.get_migrations_path()).glob("*.sql"))
    adding = (path.name for path in migrations if names.intersection(re.findall(r"\w+", path.read_text("utf-8"))))
    return WatchListError(
        f"Procrastinate's tables in this database are not those of procrastinate {version('procrastinate')}: "
        f"{sentence}. If they are older, stop all workers and apply the migrations from "
        f"{next(adding, 'the first one')} on, in the folder that `procrastinate schema --migrations-path` prints; "
        "if they are newer, upgrade procrastinate here"
    )


def describe(error: BaseException) -> str:
    """Describe an error in one line; without the text of errors that might quote a row."""
    cause = cause_of(error)
    is_safe = isinstance(cause, (SmileJobsError, psycopg.OperationalError, TimeoutError, OSError))
    return " ".join(f"{type(cause).__name__}{f': {cause}' if is_safe else ''}".split())
