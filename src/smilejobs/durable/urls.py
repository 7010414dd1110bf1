"""URLs of watch lists: which databases they may name, and how they are shown."""

from contextlib import suppress

import psycopg
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import URL, exc, make_url

_DRIVERS = {
    "sqlite": "sqlite+aiosqlite",
    "postgresql": "postgresql+psycopg",
    "postgres": "postgresql+psycopg",
}


def parse(url: str) -> URL:
    """Return the URL of a database, with its driver.

    Raises:
        TypeError: It is not a string.
        ValueError: No watch list can be stored there.
    """
    if not isinstance(url, str):
        raise TypeError(f"the URL of a watch list must be a string, not {type(url).__name__}")
    hint = "write sqlite:///jobs.db or postgresql://user@host/database"
    parsed = _split(url)
    is_read_by_psycopg = parsed is not None and _is_read_by_psycopg(url)
    del url  # it holds a password: crash reporters copy the locals of each frame of a traceback
    if parsed is None:
        raise ValueError(f"this is not the URL of a database: {hint}")
    driver = _DRIVERS.get(parsed.drivername)
    if driver is None:
        raise ValueError(f"a watch list is stored in SQLite or PostgreSQL, not in {parsed.drivername!r}: {hint}")
    if driver == _DRIVERS["sqlite"] and parsed.database in (None, "", ":memory:"):
        raise ValueError(f"a watch list in memory survives nothing: {hint}")
    if driver == _DRIVERS["sqlite"] and parsed.query:
        del parsed
        raise ValueError(f"a watch list in SQLite takes no options: {hint}")
    if driver == _DRIVERS["postgresql"] and not is_read_by_psycopg:
        raise ValueError(f"this is not the URL of a PostgreSQL database: {hint}")
    return parsed.set(drivername=driver)


def without_secrets(url: str) -> str:
    """Return the URL of a database without password and options, to be shown.

    Raises:
        ValueError: As for `parse`.
    """
    parsed = parse(url)
    return parsed.set(drivername=parsed.get_backend_name(), query={}).render_as_string(hide_password=True)


def _split(url: str) -> URL | None:
    """Return the parts of a URL; None if it is none."""
    with suppress(exc.ArgumentError, ValueError):  # the second for a bad port, which may be part of a password
        return make_url(url)
    return None


def _is_read_by_psycopg(url: str) -> bool:
    """Whether psycopg can read a URL, as the connections do that listen and that lease buckets."""
    with suppress(psycopg.ProgrammingError, UnicodeError):
        return bool(conninfo_to_dict(url))
    return False
