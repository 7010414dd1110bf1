"""How a command ends, and how it says what went wrong."""

import enum
import errno
import os
import sys
import traceback
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from io import TextIOWrapper
from typing import NoReturn, TextIO

import typer

from smilejobs.cli.display import printable
from smilejobs.cli.stopping import stop_on_sigterm


class ExitCode(enum.IntEnum):
    """How a command ends."""

    APPROVED = 0
    COMPLETE = 0
    NOT_APPROVED = 1
    """A verdict, and nothing else: a command that fails ends with another code."""
    USAGE = 2
    PENDING = 3
    ERROR = 4
    INTERRUPTED = 130
    """By Ctrl-C or SIGTERM."""


_OUTPUT_ERRORS = (errno.EPIPE, errno.ENOSPC, errno.EIO)
"""What an error of the system that no command expects is about: all files are written where such errors are caught."""


class _Complaints:
    """What ``--debug`` turns on, for the one command of this process."""

    tracebacks = False


def show_tracebacks(*, wanted: bool) -> None:
    """Say whether `trace` shows where an error comes from."""
    _Complaints.tracebacks = wanted


def run_commands(commands: Callable[[], object]) -> NoReturn:
    """Run a command, and end the process with an exit code that means what the help says.

    Text that the terminal cannot encode is escaped. Whatever the command raises is one line on standard error.

    Args:
        commands: Parses the command line, calls the command, and raises SystemExit.

    Raises:
        SystemExit: Always.
    """
    show_tracebacks(wanted=False)
    stop_on_sigterm()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    code = _exit_code(commands)
    if not _flush(sys.stdout):
        code = ExitCode.ERROR
    _flush(sys.stderr, says=False)
    sys.exit(code)


def _exit_code(commands: Callable[[], object]) -> int:
    try:
        commands()
    except SystemExit as end:
        # A verdict comes as typer.Exit. Typer itself exits with 1 where the reader of a pipe has left.
        if end.code == ExitCode.NOT_APPROVED and not isinstance(end.__context__, typer.Exit):
            if isinstance(end.__context__, OSError):
                _complain_of_output(end.__context__)
            return ExitCode.ERROR
        return end.code if isinstance(end.code, int) else ExitCode.COMPLETE
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except OSError as error:
        if error.errno in _OUTPUT_ERRORS:
            _complain_of_output(error)
        else:
            complain(error)
    except Exception as error:  # noqa: BLE001  # the end of the process: nothing may leave it with the code of a verdict
        trace(error)
        _say(f"unexpected {type(error).__name__}: {describe(error)}; smilejobs --debug shows where it comes from")
    else:
        return ExitCode.COMPLETE
    return ExitCode.ERROR


def _flush(stream: TextIO | None, *, says: bool = True) -> bool:
    """Write what is left of a standard stream, if there is one; return whether that worked.

    What cannot be written is dropped: the interpreter would try again at its end, and exit with a code of its own.
    """
    if stream is None:
        return True
    try:
        stream.flush()
    except OSError as error:
        if says:
            _complain_of_output(error)
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return False
    return True


@contextmanager
def exit_on(kind: type[BaseException] | tuple[type[BaseException], ...], code: int) -> Generator[None, None, None]:
    """End the command with an exit code if the block raises such an error; say in one line what it is."""
    try:
        yield
    except kind as error:
        complain(error)
        raise typer.Exit(code) from None


def complain(error: BaseException) -> None:
    """Say in one line what went wrong; Ctrl-C has nothing to say."""
    trace(error)
    if text := describe(error):
        _say(text)


def describe(error: BaseException) -> str:
    """Return what an error says, without the number that the system has for it."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror if error.filename is None else f"{error.strerror}: {os.fspath(error.filename)!r}"
    return str(error)


def _complain_of_output(error: OSError) -> None:
    trace(error)
    _say(f"standard output cannot be written: {describe(error)}")


def trace(error: BaseException) -> None:
    """Show where an error comes from, with ``--debug``."""
    if _Complaints.tracebacks:
        with suppress(OSError):
            traceback.print_exception(error)


def _say(text: str) -> None:
    with suppress(OSError):  # standard error cannot be written either: the exit code is all that is left
        typer.echo(f"smilejobs: {printable(text)}", err=True)
