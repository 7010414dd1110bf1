"""Options and arguments of several commands."""

import os
import re
import select
import sys
from collections.abc import Iterable
from io import BufferedReader, FileIO, RawIOBase, TextIOWrapper, UnsupportedOperation
from pathlib import Path
from stat import S_ISREG
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

from smilejobs.batch.cells import read_instant
from smilejobs.batch.rows import ENCODING, ERRORS
from smilejobs.client import Client
from smilejobs.durations import seconds
from smilejobs.events import Hook, log_event
from smilejobs.model.jobs import JobRef
from smilejobs.polling.rules import Until
from smilejobs.settings import HOSTS, arguments_from

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

CREDENTIALS_HELP = (
    "Credentials are read from SMILE_PARTNER_ID, SMILE_API_KEY and SMILE_ENVIRONMENT (or SMILE_BASE_URL)."
)
CLIENT_ERRORS = (ImportError, ValueError)
"""The errors of a client that is made from wrong variables, or from a proxy that needs a missing package."""

_UNITS_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}

UserID = Annotated[str, typer.Argument(metavar="USER", help="The user_id of the job.")]
JobID = Annotated[str, typer.Argument(metavar="JOB", help="The job_id of the job.")]
ListURL = Annotated[
    str,
    typer.Argument(
        metavar="URL",
        help="The watch list: sqlite:///jobs.db, or postgresql://user@host/database with its password in PGPASSWORD.",
    ),
]

WaitUntil = Annotated[
    Until, typer.Option("--until", help="What to wait for; a provisional result is complete, but not final.")
]


def parse_duration(text: str, name: str) -> float:
    """Return a duration in seconds.

    Args:
        text: A number and a unit: s, m, h or d; a number alone is seconds.
        name: The name of the option, with which the error text begins.

    Raises:
        ValueError: The text is not a duration, or the duration is 0.
    """
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([smhd]?)", text.strip())
    if found is None:
        raise ValueError(f"{name} must be a number and a unit, for example 90s, 10m, 2h or 1d")
    return seconds(float(found[1]) * _UNITS_SECONDS[found[2]], name, zero=False)


def make_client_and_ref(
    user_id: str, job_id: str, *, submitted_at: str | None = None, hooks: Iterable[Hook] = ()
) -> tuple[Client, JobRef]:
    """Return a client for the credentials of the environment, with *hooks* besides the log, and the job as typed.

    Raises:
        ImportError: A variable names a proxy that needs a missing package.
        ValueError: A variable, an id or the time is invalid.
    """
    return Client.from_env(hooks=(log_event, *hooks)), JobRef(
        user_id, job_id, read_instant(submitted_at, "--submitted-at")
    )


def read_base_url() -> str:
    """Return the base URL of the API that the environment variables name.

    Raises:
        ValueError: A variable is invalid.
    """
    arguments = arguments_from(os.environ)
    return arguments.get("base_url") or HOSTS[str(arguments.get("environment"))]


def require_folder(path: Path, name: str) -> None:
    """Raise ValueError unless the folder of a file can be written; the text begins with the *name* of the option."""
    folder = path.resolve().parent
    if not (folder.is_dir() and os.access(folder, os.W_OK)):
        raise ValueError(f"{name}: there is no folder {path.parent}, or nothing can be written there")


def open_input(source: str) -> TextIO:
    """Open a file of jobs, for `Rows`.

    Closing the file ends a read in another thread, also of a pipe that stays open (not on Windows).

    Args:
        source: The path; - for standard input.

    Raises:
        OSError: The file cannot be opened.
    """
    is_standard = source == "-"
    try:
        file = FileIO(sys.stdin.fileno() if is_standard else source, closefd=not is_standard)
    except UnsupportedOperation:
        return TextIOWrapper(sys.stdin.buffer, ENCODING, ERRORS, newline="")  # it has no descriptor: it is in memory
    if S_ISREG(os.fstat(file.fileno()).st_mode) or os.name == "nt":
        return TextIOWrapper(BufferedReader(file), ENCODING, ERRORS, newline="")
    return _PipeText(_Pipe(file))


class _Pipe(RawIOBase):
    """A pipe or a terminal whose reads can be ended: a read waits for data or for `end`."""

    def __init__(self, file: FileIO) -> None:
        self._file = file
        self._end_reader, self._end_writer = os.pipe()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer") -> int | None:
        ready, _, _ = select.select([self._file.fileno(), self._end_reader], [], [])
        return 0 if self._end_reader in ready else self._file.readinto(buffer)

    def end(self) -> None:
        """End the read that is under way, and all later ones."""
        os.close(self._end_writer)

    def close(self) -> None:
        os.close(self._end_reader)
        self._file.close()
        super().close()


class _PipeText(TextIOWrapper):
    """The text of a pipe; closing it first ends a read that is under way, which holds the lock of the buffer."""

    def __init__(self, pipe: _Pipe) -> None:
        super().__init__(BufferedReader(pipe), ENCODING, ERRORS, newline="")
        self._pipe = pipe

    def close(self) -> None:
        if not self.closed:
            self._pipe.end()
        super().close()
