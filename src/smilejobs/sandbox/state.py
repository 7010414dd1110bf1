"""The jobs of a sandbox in a file, and how often they were asked about, so that a restart goes on with them."""

import logging
import sqlite3
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager
from datetime import timedelta
from os import PathLike
from pathlib import Path
from typing import TypeVar

from cattrs.errors import BaseValidationError
from cattrs.preconf.json import make_converter

from smilejobs.model.jobs import JobRef
from smilejobs.sandbox.jobs import Job
from smilejobs.sandbox.products import result_code_for

_Row = TypeVar("_Row")

_VERSION = 1
_TABLES = (
    "CREATE TABLE IF NOT EXISTS job (smile_job_id TEXT PRIMARY KEY, body TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS poll (user_id TEXT, job_id TEXT, polls INTEGER, PRIMARY KEY (user_id, job_id))",
    "CREATE TABLE IF NOT EXISTS fetch (path TEXT PRIMARY KEY, fetches INTEGER)",
)
_SAVE_JOB = """
    INSERT INTO job VALUES (?, ?) ON CONFLICT DO UPDATE SET body = excluded.body
    WHERE json_extract(body, '$.ref.user_id') = json_extract(excluded.body, '$.ref.user_id')
    AND json_extract(body, '$.ref.job_id') = json_extract(excluded.body, '$.ref.job_id')
"""
"""A number that belongs to another job already was given by another sandbox: nothing is written over it."""
_SAVE_POLLS = "INSERT INTO poll VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET polls = excluded.polls"
_SAVE_FETCHES = "INSERT INTO fetch VALUES (?, ?) ON CONFLICT DO UPDATE SET fetches = excluded.fetches"

_converter = make_converter()
_converter.register_unstructure_hook(timedelta, timedelta.total_seconds)
_converter.register_structure_hook(timedelta, lambda value, _: timedelta(seconds=value))
_converter.register_structure_hook_func(lambda kind: kind is object, lambda value, _: value)

logger = logging.getLogger("smilejobs.sandbox")


class NotKeptError(Exception):
    """The state cannot be written: what was asked for has not happened, and may be asked for again."""


@contextmanager
def keeping() -> Generator[None, None, None]:
    """Write to the state in this block; say in the log if that cannot be done.

    Raises:
        NotKeptError: It cannot.
    """
    try:
        yield
    except OSError as error:
        logger.error("%s", error)  # noqa: TRY400  # the text says it all: which file, and what is wrong
        raise NotKeptError from None


class State:
    """A file of SQLite: one row for each job, and how often it was asked about, and its pictures fetched.

    One sandbox at a time may use it. It is opened for each change alone, and a change that was made survives the end of
    the process, however sudden.

    Args:
        path: The file; it is made if there is none, but not its directory.

    Raises:
        OSError: The file cannot be used, or is no state of a sandbox.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        self._path = Path(path).absolute()  # a name such as ":memory:" is no file to SQLite
        with self._opened() as connection:
            connection.execute("BEGIN IMMEDIATE")
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            tables = connection.execute("SELECT name FROM sqlite_master").fetchall()
            if not ((version == 0 and not tables) or (version == _VERSION and ("job",) in tables)):
                raise OSError(f"the state in {self._path} is of another version of smilejobs, or of something else")
            for table in _TABLES:
                connection.execute(table)
            connection.execute(f"PRAGMA user_version = {_VERSION}")
            connection.execute("COMMIT")

    def load(self) -> list[Job]:
        """Return the jobs that are kept, in the order in which they were submitted.

        Raises:
            OSError: The file cannot be read, or is no state of a sandbox.
        """
        return self._read("SELECT body FROM job ORDER BY smile_job_id", _job)

    def save(self, job: Job) -> None:
        """Keep a job that is new, or has changed.

        Raises:
            OSError: The file cannot be written.
        """
        with self._opened() as connection:
            row = (job.smile_job_id, _converter.dumps(job))
            if not connection.execute(_SAVE_JOB, row).rowcount:
                raise OSError(f"the state in {self._path} is used by another sandbox too: each needs a file of its own")

    def polls(self) -> dict[JobRef, int]:
        """Return how often each job was asked about, known or not.

        Raises:
            OSError: The file cannot be read, or is no state of a sandbox.
        """
        query = "SELECT user_id, job_id, polls FROM poll"
        return dict(self._read(query, lambda user_id, job_id, polls: (JobRef(user_id, job_id), int(polls))))

    def save_polls(self, ref: JobRef, polls: int) -> None:
        """Keep how often a job was asked about.

        Raises:
            OSError: The file cannot be written.
        """
        with self._opened() as connection:
            connection.execute(_SAVE_POLLS, (ref.user_id, ref.job_id, polls))

    def fetches(self) -> dict[str, int]:
        """Return how often each picture was fetched, by its path.

        Raises:
            OSError: The file cannot be read, or is no state of a sandbox.
        """
        return dict(self._read("SELECT path, fetches FROM fetch", lambda path, fetches: (path, int(fetches))))

    def save_fetches(self, path: str, fetches: int) -> None:
        """Keep how often a picture was fetched.

        Raises:
            OSError: The file cannot be written.
        """
        with self._opened() as connection:
            connection.execute(_SAVE_FETCHES, (path, fetches))

    def _read(self, query: str, make: Callable[..., _Row]) -> list[_Row]:
        with self._opened() as connection:
            rows = connection.execute(query).fetchall()
        try:
            return [make(*row) for row in rows]
        except (BaseValidationError, ValueError, TypeError):
            raise OSError(f"the state in {self._path} cannot be read: it is not of this version of smilejobs") from None

    @contextmanager
    def _opened(self) -> Generator[sqlite3.Connection, None, None]:
        try:
            with closing(sqlite3.connect(self._path, isolation_level=None)) as connection:
                # What a process has written outlives it without this; only a failure of the machine could lose it.
                connection.execute("PRAGMA synchronous = OFF")
                yield connection
        except sqlite3.Error as error:
            raise OSError(f"the state in {self._path} cannot be used: {error}") from None


def _job(body: str) -> Job:
    job = _converter.loads(body, Job)
    result_code_for(job.result_code, job.job_type)
    return job
