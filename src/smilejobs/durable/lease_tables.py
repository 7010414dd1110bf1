"""Procrastinate's tables, which hold the leases on buckets and nothing else."""

from hashlib import sha256
from typing import Any, LiteralString

import psycopg
from procrastinate.schema import SchemaManager
from psycopg.sql import SQL, Identifier

from smilejobs.durable.database import SCHEMA, connection_options
from smilejobs.durable.failures import CREATED_BY_OTHERS, sqlstate
from smilejobs.errors import WatchListError

_ATTEMPTS = 5
"""How often the tables are looked at anew, when another worker creates them at the same time."""

_DROPPED_BY_OTHERS = frozenset({"42P01", "XX000"})
"""SQLSTATEs of a table that another session drops meanwhile."""

_IS_CURRENT = "SELECT obj_description('procrastinate_workers'::regclass) = %(version)s"

_LIVING = """
SELECT EXISTS (SELECT FROM procrastinate_workers WHERE last_heartbeat > now() - make_interval(secs => %(heartbeat)s))
"""
_DROPS = """
SELECT string_agg(format('DROP %%s IF EXISTS %%s CASCADE', kind, name), '; ' ORDER BY step) FROM (
    SELECT 1 AS step, 'TABLE' AS kind, oid::regclass::text AS name FROM pg_class
    WHERE relnamespace = %(schema)s::regnamespace AND relkind = 'r' AND starts_with(relname, 'procrastinate_')
    UNION ALL
    SELECT 2, 'FUNCTION', oid::regprocedure::text FROM pg_proc
    WHERE pronamespace = %(schema)s::regnamespace AND starts_with(proname, 'procrastinate_')
    UNION ALL
    SELECT 3, 'TYPE', oid::regtype::text FROM pg_type
    WHERE typnamespace = %(schema)s::regnamespace AND starts_with(typname, 'procrastinate_') AND typrelid = 0
    UNION ALL
    SELECT 3, 'TYPE', oid::regclass::text FROM pg_class
    WHERE relnamespace = %(schema)s::regnamespace AND relkind = 'c' AND starts_with(relname, 'procrastinate_')
) AS everything
"""


async def make_tables(url: str, heartbeat: float) -> None:
    """Make the tables if they are not there, beside those of the watch list.

    Those of another version of Procrastinate are made anew, once no worker works with them. No lock is taken that
    another role of the database could hold: see `Database.prepare`.

    Args:
        url: The database.
        heartbeat: After how many seconds without a sign of life a worker counts as dead.

    Raises:
        WatchListError: Workers with another version of Procrastinate are running.
        psycopg.Error: The database cannot be used.
    """
    left = _ATTEMPTS
    while True:
        left -= 1
        try:
            async with await psycopg.AsyncConnection.connect(url, **connection_options()) as connection:
                await _make_tables(connection, heartbeat)
        except psycopg.Error as error:
            if not left or sqlstate(error) not in CREATED_BY_OTHERS | _DROPPED_BY_OTHERS:
                raise
        else:
            return


async def _make_tables(connection: psycopg.AsyncConnection, heartbeat: float) -> None:
    tables = SchemaManager.get_schema()
    version = sha256(tables.encode()).hexdigest()[:16]
    if await first(connection, "SELECT to_regnamespace(%(schema)s)", schema=SCHEMA) is None:
        await connection.execute(SQL("CREATE SCHEMA {}").format(Identifier(SCHEMA)))
    if await first(connection, "SELECT to_regclass('procrastinate_workers')") is not None:
        if await first(connection, _IS_CURRENT, version=version):
            return
        if await first(connection, _LIVING, heartbeat=heartbeat):
            raise WatchListError(
                "the workers of this watch list run with another version of procrastinate: stop them all, then start "
                "those of one version"
            )
        await connection.execute("LOCK TABLE procrastinate_workers")  # another worker may be about to do the same
        await connection.execute((await first(connection, _DROPS, schema=SCHEMA)).encode())
    await connection.execute(tables)
    await connection.execute(SQL("COMMENT ON TABLE procrastinate_workers IS {}").format(version))


async def first(connection: psycopg.AsyncConnection, query: LiteralString, **arguments: object) -> Any:
    """Return the first value of the first row, None if there is no row."""
    row = await (await connection.execute(query, arguments)).fetchone()
    return row and row[0]
