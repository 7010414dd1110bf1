"""A SQLite file with the jobs of a sandbox and its counts, so that a restarted sandbox goes on with them."""

import json
import os
import sqlite3
from collections.abc import Generator
from contextlib import closing, contextmanager, suppress
from datetime import timedelta
from hashlib import sha256
from os import PathLike
from pathlib import Path

from cattrs.errors import BaseValidationError
from cattrs.preconf.json import make_converter

from smilejobs.sandbox.jobs import Job

RequestKey = tuple[str, ...]
"""A kind of request that is counted: "poll" with the ids of a job, or "picture" with the path of an image."""

_TABLE = "CREATE TABLE entry (key TEXT PRIMARY KEY, value TEXT NOT NULL, checksum TEXT NOT NULL)"
_INSERT = "INSERT INTO entry VALUES (?, ?, ?)"
_REPLACE = "INSERT OR REPLACE INTO entry VALUES (?, ?, ?)"
_JOB = "job"

_converter = make_converter()
_converter.register_unstructure_hook(timedelta, timedelta.total_seconds)
_converter.register_structure_hook(timedelta, lambda value, _: timedelta(seconds=value))
_converter.register_structure_hook_func(lambda kind: kind is object, lambda value, _: value)


class StateError(OSError):
    """The state cannot be read or written; the text says why. A request that fails with it changed nothing."""


class State:
    """A SQLite file with one row for each job, and for each count of polls or image downloads.

    The file may hold personal data, so it is made with mode 0600. Each row has a checksum, by which a row that no
    sandbox has written is found. The file is opened for each change, which survives a process that is killed. All
    methods raise `StateError`.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        self._path = Path(path).absolute()  # SQLite would take a name such as ":memory:" for no file
        # SQLite would create the file with the mode of the umask. O_EXCL does not follow a dangling symbolic link.
        with suppress(OSError):
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        with self._open() as connection:
            connection.execute("BEGIN IMMEDIATE")
            found = connection.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
            if not found:
                connection.execute(_TABLE)
            elif found != [(_TABLE,)]:  # a trigger, for example, is not ours
                raise StateError(f"the state in {self._path} is of another version of smilejobs, or of something else")
            connection.execute("COMMIT")

    def load(self) -> tuple[list[Job], dict[RequestKey, int]]:
        """Return the jobs in the order in which they were submitted, and how many requests of each kind there were."""
        with self._open() as connection:
            rows = connection.execute("SELECT key, value, checksum FROM entry ORDER BY key").fetchall()
        if any(checksum != _sum(key, value) for key, value, checksum in rows):
            raise StateError(f"the state in {self._path} cannot be read: something else has changed it")
        entries = [(tuple[str, ...](json.loads(key)), value) for key, value, _ in rows]
        try:
            jobs = [_converter.loads(value, Job) for key, value in entries if key[0] == _JOB]
        except BaseValidationError:
            raise StateError(
                f"the state in {self._path} cannot be read: it is of another version of smilejobs"
            ) from None
        return jobs, {key: int(value) for key, value in entries if key[0] != _JOB}

    def save_job(self, job: Job, *, is_new: bool) -> None:
        """Write a job that is new or has changed; a number of a new job that is in use is another sandbox's."""
        self._save(_INSERT if is_new else _REPLACE, (_JOB, job.smile_job_id), _converter.dumps(job))

    def save_count(self, key: RequestKey, number: int) -> None:
        """Write how many requests of a kind there were."""
        self._save(_REPLACE, key, str(number))

    def _save(self, statement: str, key: RequestKey, value: str) -> None:
        name = json.dumps(key)
        with self._open() as connection:
            connection.execute(statement, (name, value, _sum(name, value)))

    @contextmanager
    def _open(self) -> Generator[sqlite3.Connection, None, None]:
        uri = f"{self._path.as_uri()}?mode=rw"  # does not create the file
        try:
            with closing(sqlite3.connect(uri, uri=True, isolation_level=None)) as connection:
                # Only a failure of the machine, not of the process, can lose a change without syncs.
                connection.execute("PRAGMA synchronous = OFF")
                yield connection
        except sqlite3.IntegrityError:
            raise StateError(
                f"the state in {self._path} is used by another sandbox too: each needs a file of its own"
            ) from None
        except sqlite3.Error as error:
            raise StateError(f"the state in {self._path} cannot be used: {error}") from None


def _sum(key: object, value: object) -> str:
    return sha256(f"{key}\0{value}".encode("utf-8", "surrogatepass")).hexdigest()
