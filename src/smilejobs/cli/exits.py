"""How a command ends, and how it says what went wrong."""

import enum
import traceback
from collections.abc import Generator
from contextlib import contextmanager

import typer


class ExitCode(enum.IntEnum):
    """How a command ends."""

    APPROVED = 0
    COMPLETE = 0
    NOT_APPROVED = 1
    USAGE = 2
    PENDING = 3
    ERROR = 4
    INTERRUPTED = 130


class _Complaints:
    """What ``--debug`` turns on, for the one command of this process."""

    tracebacks = False


def show_tracebacks(*, wanted: bool) -> None:
    """Say whether `trace` shows where an error comes from."""
    _Complaints.tracebacks = wanted


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
    if str(error):
        typer.echo(f"smilejobs: {error}", err=True)


def trace(error: BaseException) -> None:
    """Show where an error comes from, with ``--debug``."""
    if _Complaints.tracebacks:
        traceback.print_exception(error)
