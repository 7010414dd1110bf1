"""The jobs of a sandbox in a file, so that a restart goes on with them."""

import sqlite3
from collections.abc import Generator
from contextlib import closing, contextmanager
from datetime import timedelta
from os import PathLike, fspath

from cattrs.errors import BaseValidationError
from cattrs.preconf.json import make_converter

from smilejobs.sandbox.jobs import Job

_VERSION = 1
_TABLE = "CREATE TABLE IF NOT EXISTS job (smile_job_id TEXT PRIMARY KEY, body TEXT NOT NULL)"

_converter = make_converter()
_converter.register_unstructure_hook(timedelta, timedelta.total_seconds)
_converter.register_structure_hook(timedelta, lambda value, _: timedelta(seconds=value))
_converter.register_structure_hook_func(lambda kind: kind is object, lambda value, _: value)


class State:
    """A file of SQLite with one row for each job. One sandbox at a time may use it.

    It is opened for each change alone, and a change that was made survives the end of the process, however sudden.

    Args:
        path: The file; it is made if there is none, but not its directory.

    Raises:
        OSError: The file cannot be used, or is no state of a sandbox.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        self._path = fspath(path)
        with self._opened() as connection:
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version not in (0, _VERSION):
                raise OSError(f"the state in {self._path} is that of another version of smilejobs")
            connection.execute(_TABLE)
            connection.execute(f"PRAGMA user_version = {_VERSION}")

    def load(self) -> list[Job]:
        """Return the jobs that are kept, in the order in which they were submitted.

        Raises:
            OSError: The file cannot be read, or is no state of a sandbox.
        """
        with self._opened() as connection:
            rows = connection.execute("SELECT body FROM job ORDER BY smile_job_id").fetchall()
        try:
            return [_converter.loads(body, Job) for (body,) in rows]
        except (BaseValidationError, ValueError, TypeError):
            raise OSError(f"the state in {self._path} cannot be read: it is not of this version of smilejobs") from None

    def save(self, job: Job) -> None:
        """Keep a job that is new, or has changed.

        Raises:
            OSError: The file cannot be written.
        """
        with self._opened() as connection:
            connection.execute("INSERT OR REPLACE INTO job VALUES (?, ?)", (job.smile_job_id, _converter.dumps(job)))

    @contextmanager
    def _opened(self) -> Generator[sqlite3.Connection, None, None]:
        try:
            with closing(sqlite3.connect(self._path, isolation_level=None)) as connection:
                # What a process has written outlives it without this; only a failure of the machine could lose it.
                connection.execute("PRAGMA synchronous = OFF")
                yield connection
        except sqlite3.Error as error:
            raise OSError(f"the state in {self._path} cannot be used: {error}") from None
