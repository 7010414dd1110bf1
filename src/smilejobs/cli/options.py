"""What several commands take."""

import enum
import os
import re
import select
import sys
from collections.abc import Iterable
from io import BufferedReader, FileIO, RawIOBase, TextIOWrapper, UnsupportedOperation
from stat import S_ISREG
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

from smilejobs.batch.cells import read_instant
from smilejobs.batch.rows import ENCODING, ERRORS
from smilejobs.client import Client
from smilejobs.durations import seconds
from smilejobs.events import Hook, log_event
from smilejobs.model.jobs import JobRef
from smilejobs.settings import HOSTS, arguments_from

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

WHO_ASKS = "Credentials are read from SMILE_PARTNER_ID, SMILE_API_KEY and SMILE_ENVIRONMENT (or SMILE_BASE_URL)."
CANNOT_ASK = (ImportError, ValueError)
"""What is raised where a client cannot be made: of the variables, or of a proxy that they name."""

_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}

UserID = Annotated[str, typer.Argument(metavar="USER", help="The user_id of the job.")]
JobID = Annotated[str, typer.Argument(metavar="JOB", help="The job_id of the job.")]
ListURL = Annotated[
    str,
    typer.Argument(
        metavar="URL",
        help="Where the watch list is: sqlite:///jobs.db, or postgresql://user@host/database with its password in "
        "PGPASSWORD.",
    ),
]


class Until(enum.StrEnum):
    """What to wait for."""

    COMPLETE = "complete"
    FINAL = "final"


def duration(text: str, name: str) -> float:
    """Return a duration in seconds.

    Args:
        text: A number and a unit: s, m, h or d; a number alone is seconds.
        name: What the user calls it; it opens the error text.

    Raises:
        ValueError: It is no duration, or not more than 0.
    """
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([smhd]?)", text.strip())
    if found is None:
        raise ValueError(f"{name} must be a number and a unit, for example 90s, 10m, 2h or 1d")
    return seconds(float(found[1]) * _UNITS[found[2]], name, zero=False)


def client_and_ref(
    user_id: str, job_id: str, *, submitted_at: str | None = None, hooks: Iterable[Hook] = ()
) -> tuple[Client, JobRef]:
    """Return a client for the credentials of the environment, and a job.

    Args:
        user_id: The id, as the user has typed it.
        job_id: The same.
        submitted_at: The same, in ISO 8601 with its time zone.
        hooks: Told of events, besides the log.

    Raises:
        ImportError: A variable names a proxy that needs what is not installed.
        ValueError: A variable or an id can never be right.
    """
    return Client.from_env(hooks=(log_event, *hooks)), JobRef(
        user_id, job_id, read_instant(submitted_at, "--submitted-at")
    )


def api_url() -> str:
    """Return the base URL of the API that the environment variables name.

    Raises:
        ValueError: A variable can never be right.
    """
    arguments = arguments_from(os.environ)
    return arguments.get("base_url") or HOSTS[str(arguments.get("environment"))]


def open_input(source: str) -> TextIO:
    """Open a file of jobs, for `Rows`.

    To close it ends a read that is under way in another thread, even if nothing ever comes (not so on Windows).

    Args:
        source: Its path; - for standard input.

    Raises:
        OSError: It cannot be opened.
    """
    is_standard = source == "-"
    try:
        file = FileIO(sys.stdin.fileno() if is_standard else source, closefd=not is_standard)
    except UnsupportedOperation:
        return TextIOWrapper(sys.stdin.buffer, ENCODING, ERRORS, newline="")  # it is no file, but in memory
    if S_ISREG(os.fstat(file.fileno()).st_mode) or os.name == "nt":
        return TextIOWrapper(BufferedReader(file), ENCODING, ERRORS, newline="")
    return _PipeText(_Pipe(file))


class _Pipe(RawIOBase):
    """A pipe or a terminal, whose read can be ended. Another thread cannot be made to leave a read of the system."""

    def __init__(self, file: FileIO) -> None:
        self._file = file
        self._ended, self._ending = os.pipe()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer") -> int | None:
        ready, _, _ = select.select([self._file.fileno(), self._ended], [], [])
        return 0 if self._ended in ready else self._file.readinto(buffer)

    def end(self) -> None:
        """Let whoever reads find the end."""
        os.close(self._ending)

    def close(self) -> None:
        os.close(self._ended)
        self._file.close()
        super().close()


class _PipeText(TextIOWrapper):
    """The text of a pipe; to close it, its reader must have left."""

    def __init__(self, pipe: _Pipe) -> None:
        super().__init__(BufferedReader(pipe), ENCODING, ERRORS, newline="")
        self._pipe = pipe

    def close(self) -> None:
        if not self.closed:
            self._pipe.end()
        super().close()
