"""Exit codes and error messages of commands."""

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
    """The exit code of a command."""

    APPROVED = 0
    COMPLETE = 0
    NOT_APPROVED = 1
    """Complete, not approved; a command that fails has another code."""
    USAGE = 2
    PENDING = 3
    ERROR = 4
    INTERRUPTED = 130
    """Stopped by Ctrl-C or SIGTERM."""


_OUTPUT_ERRORS = (errno.EPIPE, errno.ENOSPC, errno.EIO)
"""An OSError with one of these numbers that no command has caught is about standard output."""


class _Debug:
    """The state of ``--debug``, for the one command of this process."""

    is_on = False


def set_debug(*, is_on: bool) -> None:
    """Turn the tracebacks of `trace` on or off."""
    _Debug.is_on = is_on


def run_commands(commands: Callable[[], object]) -> NoReturn:
    """Run a command, and end the process with the exit code that the help of the command states.

    Text that the terminal cannot encode is escaped. Any exception of the command is one line on standard error.

    Args:
        commands: Parses the command line, calls the command, and raises SystemExit.
    """
    set_debug(is_on=False)
    stop_on_sigterm()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    code = _exit_code(commands)
    if not _flush(sys.stdout):
        code = ExitCode.ERROR
    _flush(sys.stderr, silent=True)
    sys.exit(code)


def _exit_code(commands: Callable[[], object]) -> int:
    try:
        commands()
    except SystemExit as end:
        # A verdict is a typer.Exit. Typer itself exits with 1 if the reader of a pipe is gone.
        if end.code == ExitCode.NOT_APPROVED and not isinstance(end.__context__, typer.Exit):
            if isinstance(end.__context__, OSError):
                _report_output_error(end.__context__)
            return ExitCode.ERROR
        return end.code if isinstance(end.code, int) else ExitCode.COMPLETE
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except OSError as error:
        if error.errno in _OUTPUT_ERRORS:
            _report_output_error(error)
        else:
            complain(error)
    except Exception as error:  # noqa: BLE001  # nothing may end the process with the exit code of a verdict
        trace(error)
        _print_error(
            f"unexpected {type(error).__name__}: {describe(error)}; smilejobs --debug shows where it comes from"
        )
    else:
        return ExitCode.COMPLETE
    return ExitCode.ERROR


def _flush(stream: TextIO | None, *, silent: bool = False) -> bool:
    """Flush a standard stream, if there is one; return whether that worked.

    Text that cannot be written is dropped: the interpreter would try again at its end, and change the exit code.
    """
    if stream is None:
        return True
    try:
        stream.flush()
    except OSError as error:
        if not silent:
            _report_output_error(error)
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return False
    return True


@contextmanager
def exit_on(kind: type[BaseException] | tuple[type[BaseException], ...], code: int) -> Generator[None, None, None]:
    """End the command with an exit code if the block raises such an error, and print the error in one line."""
    try:
        yield
    except kind as error:
        complain(error)
        raise typer.Exit(code) from None


def complain(error: BaseException) -> None:
    """Print an error in one line; print nothing for an error without a text, such as Ctrl-C."""
    trace(error)
    if text := describe(error):
        _print_error(text)


def describe(error: BaseException) -> str:
    """Return the text of an error, without the error number of the system."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror if error.filename is None else f"{error.strerror}: {os.fspath(error.filename)!r}"
    return str(error)


def _report_output_error(error: OSError) -> None:
    trace(error)
    _print_error(f"standard output cannot be written: {describe(error)}")


def trace(error: BaseException) -> None:
    """Print the traceback of an error, with ``--debug``."""
    if _Debug.is_on:
        with suppress(OSError):
            traceback.print_exception(error)


def _print_error(text: str) -> None:
    with suppress(OSError):  # standard error cannot be written either; the exit code remains
        typer.echo(f"smilejobs: {printable(text)}", err=True)
