"""A SQLite file with the jobs of a sandbox and its counts, so that a restarted sandbox goes on with them."""

import json
import os
import re
import sqlite3
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager, suppress
from datetime import timedelta
from os import PathLike
from pathlib import Path
from typing import TypeVar

from cattrs.errors import BaseValidationError
from cattrs.preconf.json import make_converter

from smilejobs.sandbox.jobs import Job

_Row = TypeVar("_Row")

RequestKey = tuple[str, ...]
"""A kind of request that is counted: "poll" with the ids of a job, or "picture" with the path of an image."""

_VERSION = 1
_TABLES = (
    "CREATE TABLE IF NOT EXISTS job (smile_job_id TEXT PRIMARY KEY, body TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS request (key TEXT PRIMARY KEY, number INTEGER NOT NULL)",
)
_SCHEMA = [("table", "job"), ("table", "request")]
"""All that a state holds: a trigger, or a view with the name of a table, is not ours."""
_SAVE_JOB = """
    INSERT INTO job VALUES (?, ?) ON CONFLICT DO UPDATE SET body = excluded.body
    WHERE json_extract(body, '$.ref.user_id') = json_extract(excluded.body, '$.ref.user_id')
    AND json_extract(body, '$.ref.job_id') = json_extract(excluded.body, '$.ref.job_id')
"""
"""Changes no row if another sandbox has given the number to another job."""
_SAVE_COUNT = "INSERT INTO request VALUES (?, ?) ON CONFLICT DO UPDATE SET number = excluded.number"
_NUMBER = re.compile(r"[0-9]{10,}", re.ASCII)

_converter = make_converter()
_converter.register_unstructure_hook(timedelta, timedelta.total_seconds)
_converter.register_structure_hook(timedelta, lambda value, _: timedelta(seconds=value))
_converter.register_structure_hook_func(lambda kind: kind is object, lambda value, _: value)


class StateError(OSError):
    """The state cannot be read or written; the text says why. A request that fails with it changed nothing."""


class State:
    """A SQLite file with one row for each job, and for each count of polls or image downloads.

    The file may hold personal data, so it is made with mode 0600. What is read from it is checked: a row that a sandbox
    cannot have written is an error. One sandbox at a time may use a file. It is opened for each change, and a change
    survives a process that is killed. All methods raise `StateError`.

    Args:
        path: The file; it is created if it is missing, but not its directory.

    Raises:
        StateError: The file cannot be used, or is not the state of a sandbox.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        self._path = Path(path).absolute()  # SQLite would take a name such as ":memory:" for no file
        # SQLite would create the file with the mode of the umask. O_EXCL does not follow a dangling symbolic link.
        with suppress(OSError):
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        with self._open() as connection:
            connection.execute("BEGIN IMMEDIATE")
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            found = connection.execute("SELECT type, name FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
            if not ((version == 0 and not found) or (version == _VERSION and sorted(found) == _SCHEMA)):
                raise StateError(f"the state in {self._path} is of another version of smilejobs, or of something else")
            for table in _TABLES:
                connection.execute(table)
            connection.execute(f"PRAGMA user_version = {_VERSION}")
            connection.execute("COMMIT")

    def load_jobs(self) -> list[Job]:
        """Return the jobs in the order in which they were submitted."""
        jobs = self._read("SELECT smile_job_id, body FROM job ORDER BY smile_job_id", _read_job)
        if len({job.ref for job in jobs}) < len(jobs):
            raise self._unreadable()
        return jobs

    def save_job(self, job: Job) -> None:
        """Write a job that is new or has changed."""
        if not self._write(_SAVE_JOB, job.smile_job_id, _converter.dumps(job)):
            raise StateError(f"the state in {self._path} is used by another sandbox too: each needs a file of its own")

    def load_counts(self) -> dict[RequestKey, int]:
        """Return how many requests of each kind there were."""
        return dict(self._read("SELECT key, number FROM request", _read_count))

    def save_count(self, key: RequestKey, number: int) -> None:
        """Write how many requests of a kind there were."""
        self._write(_SAVE_COUNT, json.dumps(key), number)

    def _write(self, statement: str, *row: object) -> int:
        with self._open() as connection:
            return connection.execute(statement, row).rowcount

    def _read(self, query: str, make: Callable[..., _Row]) -> list[_Row]:
        with self._open() as connection:
            rows = connection.execute(query).fetchall()
        try:
            return [make(*row) for row in rows]
        except (BaseValidationError, ArithmeticError, RecursionError, TypeError, ValueError):
            raise self._unreadable() from None

    def _unreadable(self) -> StateError:
        return StateError(f"the state in {self._path} cannot be read: it is not of this version of smilejobs")

    @contextmanager
    def _open(self) -> Generator[sqlite3.Connection, None, None]:
        uri = f"{self._path.as_uri()}?mode=rw"  # does not create the file
        try:
            with closing(sqlite3.connect(uri, uri=True, isolation_level=None)) as connection:
                # Only a failure of the machine, not of the process, can lose a change without syncs.
                connection.execute("PRAGMA synchronous = OFF")
                yield connection
        except sqlite3.Error as error:
            raise StateError(f"the state in {self._path} cannot be used: {error}") from None


def _read_job(smile_job_id: str, body: str) -> Job:
    job = _converter.loads(body, Job)
    if job.smile_job_id != smile_job_id or not _NUMBER.fullmatch(smile_job_id):
        raise ValueError("no sandbox has written this job")
    return job


def _read_count(key: str, number: object) -> tuple[RequestKey, int]:
    parts = json.loads(key)
    if not isinstance(parts, list) or not isinstance(number, int) or number < 0:
        raise ValueError("not a count")
    return tuple(map(str, parts)), number
