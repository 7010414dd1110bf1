"""Errors of the database of a watch list: which of them pass by themselves, and the text of each."""

import sqlite3
from collections.abc import Generator
from contextlib import contextmanager

import psycopg
from sqlalchemy import exc

from smilejobs.errors import WatchListError

_READ_ONLY = "25006"
_NO_PRIVILEGE = "42501"

_TRANSIENT_SQLITE = ("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_FULL", "SQLITE_IOERR")
"""Errors from which a SQLite file may recover."""

_TRANSIENT_SQLSTATES = ("08", "40", "53", "57", "58", "25P03", "25P04", "55P03")
"""SQLSTATEs (or their first two digits, the class) of errors that pass: no connection, a deadlock or a serialization
failure, no resources, an operator's intervention, a system error, a transaction that was idle or took too long, a lock
that another session holds. https://www.postgresql.org/docs/current/errcodes-appendix.html"""

CREATED_BY_OTHERS = frozenset({"23505", "42P06", "42P07", "42710"})
"""SQLSTATEs of CREATE for an object that another session has created a moment ago."""

UNDEFINED = frozenset({"42P01", "42703", "42704", "42883"})
"""SQLSTATEs of statements with a table, column, type or function that does not exist."""


def sqlstate(error: BaseException) -> str | None:
    """Return the SQLSTATE of an error of PostgreSQL, through SQLAlchemy or not; None if it has none."""
    return getattr(_cause(error), "sqlstate", None)


@contextmanager
def translated() -> Generator[None, None, None]:
    """Turn errors of the database into `WatchListError`s, which quote no row and no password.

    Raises:
        WatchListError: The database cannot be used; transient where waiting may help.
    """
    try:
        yield
    except (exc.SQLAlchemyError, psycopg.Error, sqlite3.Error, OSError, UnicodeError, OverflowError) as error:
        failure = _translate(error)
    else:
        return
    try:
        raise failure
    finally:
        # Crash reporters copy the context, whose frames hold rows and the password. Without this line it would be set:
        # the caller of a generator is still handling the first error.
        failure.__context__ = None


def _cause(error: BaseException) -> BaseException:
    return error.orig if isinstance(error, exc.DBAPIError) and error.orig is not None else error


def _translate(error: Exception) -> WatchListError:
    cause = _cause(error)
    state = sqlstate(error)
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
    """Whether an error without a SQLSTATE is about the connection, not about a statement or its result."""
    kinds = (psycopg.OperationalError, psycopg.InterfaceError, sqlite3.OperationalError, exc.TimeoutError, OSError)
    return isinstance(cause, kinds) or (isinstance(cause, exc.DBAPIError) and cause.connection_invalidated)
