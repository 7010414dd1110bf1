"""URLs of watch lists: which databases they may name, and how they are shown."""

from contextlib import suppress

import psycopg
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import URL, exc, make_url


def parse(url: str) -> URL:
    """Return the URL of a database, with its driver.

    Raises:
        TypeError: It is not a string.
        ValueError: No watch list can be stored there.
    """
    if not isinstance(url, str):
        raise TypeError(f"the URL of a watch list must be a string, not {type(url).__name__}")
    found = _read(url)
    del url  # it holds a password: crash reporters copy the locals of each frame of a traceback
    if isinstance(found, URL):
        return found
    raise ValueError(f"{found}: write sqlite:///jobs.db or postgresql://user@host/database")


def without_secrets(url: str) -> str:
    """Return the URL of a database without password and options, to be shown.

    Raises:
        ValueError: As for `parse`.
    """
    parsed = parse(url)
    return parsed.set(drivername=parsed.get_backend_name(), query={}).render_as_string(hide_password=True)


def _read(url: str) -> URL | str:
    """Return the URL of a database, with its driver, or what is wrong with it."""
    try:
        parsed = make_url(url)
    except (exc.ArgumentError, ValueError):  # the second for a bad port, which may be part of a password
        return "this is not the URL of a database"
    if parsed.drivername == "sqlite":
        if parsed.database in (None, "", ":memory:"):
            return "a watch list in memory survives nothing"
        return "a watch list in SQLite takes no options" if parsed.query else parsed.set(drivername="sqlite+aiosqlite")
    if parsed.drivername in ("postgresql", "postgres"):
        with suppress(psycopg.ProgrammingError, UnicodeError):
            if conninfo_to_dict(url):  # psycopg reads it for the connections that listen and that lease buckets
                return parsed.set(drivername="postgresql+psycopg")
        return "this is not the URL of a PostgreSQL database"
    return f"a watch list is stored in SQLite or PostgreSQL, not in {parsed.drivername!r}"
