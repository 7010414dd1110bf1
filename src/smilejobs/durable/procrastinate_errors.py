"""Errors of Procrastinate and its driver: what they mean, and where they are logged."""

import asyncio
import logging
import re
from collections.abc import Generator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psycopg
from procrastinate.exceptions import ConnectorException
from procrastinate.schema import SchemaManager

from smilejobs.durable.failures import UNDEFINED, sqlstate
from smilejobs.errors import SmileJobsError, WatchListError
from smilejobs.events import logger

_LOGGERS = ("procrastinate.worker", "procrastinate.utils")
"""Those that report a database that is unavailable, besides the one of a worker."""


@contextmanager
def driver_errors() -> Generator[None, None, None]:
    """Raise the driver's error in place of Procrastinate's."""
    try:
        yield
    except ConnectorException as error:
        cause = cause_of(error)
    else:
        return
    raise cause


def cause_of(error: BaseException) -> BaseException:
    """Return the driver's error behind one of Procrastinate, which keeps it as the cause or as the context."""
    return error.__cause__ or error.__context__ or error if isinstance(error, ConnectorException) else error


def find_mismatch(error: Exception) -> WatchListError | None:
    """Return what to raise if Procrastinate's tables are of another version; None if they are not.

    The version of the tables is not stored in them, but each migration names what it adds.
    """
    if not isinstance(error, ConnectorException) or sqlstate(cause_of(error)) not in UNDEFINED:
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


class _OfOtherWorkers(logging.Filter):
    """Drops the warnings and errors about one worker, by its name."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._worker = name

    def filter(self, record: logging.LogRecord) -> bool:
        worker = getattr(record, "worker", None)
        is_ours = record.name != "procrastinate.worker" or (
            isinstance(worker, dict) and worker.get("name") == self._worker
        )
        return record.levelno < logging.WARNING or not is_ours


@contextmanager
def without_errors_of(worker: str) -> Generator[None, None, None]:
    """Silence Procrastinate's errors about a worker while the block runs: they are logged here, in one line each."""
    of_others = _OfOtherWorkers(worker)
    loggers = [logging.getLogger(name) for name in (f"procrastinate.worker.{worker}", *_LOGGERS)]
    for each in loggers:
        each.addFilter(of_others)
    try:
        yield
    finally:
        for each in loggers:
            each.removeFilter(of_others)


def retrieve_error(task: asyncio.Task[Any]) -> None:
    """Retrieve the error of a task, so that asyncio does not log that it never was."""
    if not task.cancelled() and (error := task.exception()):
        logger.debug("a task of the watch list has failed: %s", describe(error))


def describe(error: BaseException) -> str:
    """Describe an error in one line; without the text of errors that might quote a row."""
    cause = cause_of(error)
    is_safe = isinstance(cause, (SmileJobsError, psycopg.OperationalError, TimeoutError, OSError))
    return " ".join(f"{type(cause).__name__}{f': {cause}' if is_safe else ''}".split())
