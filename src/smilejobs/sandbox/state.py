"""The jobs of a sandbox in a file, and how often they were asked about, so that a restart goes on with them."""

import logging
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

from smilejobs.model.codes import STATUS_CODES
from smilejobs.model.jobs import JobRef
from smilejobs.sandbox.jobs import Job
from smilejobs.sandbox.products import result_code_for
from smilejobs.sandbox.requests import can_be_sent

_Row = TypeVar("_Row")

_VERSION = 1
_TABLES = (
    "CREATE TABLE IF NOT EXISTS job (smile_job_id TEXT PRIMARY KEY, body TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS poll (user_id TEXT, job_id TEXT, polls INTEGER, PRIMARY KEY (user_id, job_id))",
    "CREATE TABLE IF NOT EXISTS fetch (path TEXT PRIMARY KEY, fetches INTEGER)",
)
_THERE = [("table", "fetch"), ("table", "job"), ("table", "poll")]
"""All that a state holds: no triggers, and no views in the place of tables."""
_SAVE_JOB = """
    INSERT INTO job VALUES (?, ?) ON CONFLICT DO UPDATE SET body = excluded.body
    WHERE json_extract(body, '$.ref.user_id') = json_extract(excluded.body, '$.ref.user_id')
    AND json_extract(body, '$.ref.job_id') = json_extract(excluded.body, '$.ref.job_id')
"""
"""A number that belongs to another job already was given by another sandbox: nothing is written over it."""
_SAVE_POLLS = "INSERT INTO poll VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET polls = excluded.polls"
_SAVE_FETCHES = "INSERT INTO fetch VALUES (?, ?) ON CONFLICT DO UPDATE SET fetches = excluded.fetches"

_NUMBER = re.compile(r"[0-9]{10,}", re.ASCII)
_ROOT = re.compile(r"https?://[0-9A-Za-z_.:\[\]-]+", re.ASCII)

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

    It holds names and perhaps data of people, so only its owner may read it. What another program has put into it is
    refused if no sandbox could have written it.

    One sandbox at a time may use it. It is opened for each change alone, and a change that was made survives the end of
    the process, however sudden.

    Args:
        path: The file; it is made if there is none, but not its directory.

    Raises:
        OSError: The file cannot be used, or is no state of a sandbox.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        self._path = Path(path).absolute()  # a name such as ":memory:" is no file to SQLite
        # SQLite would let everybody read what it makes. A link that leads nowhere is not followed.
        with suppress(OSError):
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        with self._opened() as connection:
            connection.execute("BEGIN IMMEDIATE")
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            there = connection.execute("SELECT type, name FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
            if not ((version == 0 and not there) or (version == _VERSION and sorted(there) == _THERE)):
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
        jobs = self._read("SELECT smile_job_id, body FROM job ORDER BY smile_job_id", _job)
        if len({job.ref for job in jobs}) < len(jobs):
            raise self._unreadable()
        return jobs

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
        return dict(self._read(query, lambda user_id, job_id, polls: (JobRef(user_id, job_id), _count(polls))))

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
        return dict(self._read("SELECT path, fetches FROM fetch", lambda path, fetches: (str(path), _count(fetches))))

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
        except (BaseValidationError, ArithmeticError, RecursionError, TypeError, ValueError):
            raise self._unreadable() from None

    def _unreadable(self) -> OSError:
        return OSError(f"the state in {self._path} cannot be read: it is not of this version of smilejobs")

    @property
    def _uri(self) -> str:
        """The file as one that is there already."""
        return f"{self._path.as_uri()}?mode=rw"

    @contextmanager
    def _opened(self) -> Generator[sqlite3.Connection, None, None]:
        try:
            with closing(sqlite3.connect(self._uri, uri=True, isolation_level=None)) as connection:
                # What a process has written outlives it without this; only a failure of the machine could lose it.
                connection.execute("PRAGMA synchronous = OFF")
                yield connection
        except sqlite3.Error as error:
            raise OSError(f"the state in {self._path} cannot be used: {error}") from None


def _job(smile_job_id: str, body: str) -> Job:
    """Return a job that a sandbox has kept.

    Raises:
        ArithmeticError: Its instants are beyond those that there are.
        BaseValidationError: It has another shape.
        ValueError: No sandbox can have made it.
    """
    job = _converter.loads(body, Job)
    result_code_for(job.result_code, job.job_type)
    job.milestones()
    durations = (job.machine, timedelta() if job.review is None else job.review)
    instants = (job.uploaded_at, job.reviewed_at)
    texts = (job.ref.user_id, job.ref.job_id, job.partner_params, job.details, job.callback_url)
    if (
        job.smile_job_id != smile_job_id
        or not _NUMBER.fullmatch(smile_job_id)
        or (job.refusal is not None and job.refusal not in STATUS_CODES)
        or (job.root is not None and not _ROOT.fullmatch(job.root))
        or any(duration < timedelta() for duration in durations)
        or any(at is not None and at.tzinfo is None for at in instants)
        or not can_be_sent(texts)
    ):
        raise ValueError("no sandbox has made this job")
    return job


def _count(value: object) -> int:
    if not isinstance(value, int) or value < 0:
        raise ValueError("no number of times")
    return value
