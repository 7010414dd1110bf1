"""SIGTERM stops a command as Ctrl-C does, also where the command is process 1 of a container."""

import asyncio
import signal
import socket
import sys
from collections.abc import Awaitable, Callable
from types import FrameType
from typing import TypeVar

import anyio

_T = TypeVar("_T")


def stop_on_sigterm() -> None:
    """Handle SIGTERM as Ctrl-C from now on, in the whole process; to be called from its main thread.

    The system does not deliver a signal to process 1 unless the process has a handler for it. A SIGTERM that the
    parent process has set to be ignored stays ignored.
    """
    if signal.getsignal(signal.SIGTERM) is signal.SIG_IGN:
        return
    if sys.platform != "win32" and signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # A shell has the commands that it starts in the background ignore Ctrl-C. asyncio cancels its main task, in
        # place of an exception at any line, only where Ctrl-C has Python's own handler. Blocked, it stays ignored.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, _interrupt)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Call the handler of Ctrl-C: while an event loop runs, it cancels the main task; else it raises."""
    handler = signal.getsignal(signal.SIGINT)
    if callable(handler):
        handler(signal.SIGINT, frame)


def run(work: Callable[[], Awaitable[_T]]) -> _T:
    """Run an async function in an event loop that no signal finds asleep; only from the main thread.

    Python's handler of a signal runs when the interpreter does: one that comes just before the loop waits for its next
    event would be seen after that event. So the system's handler writes to a socket that the loop reads.

    Args:
        work: The function.

    Returns:
        What it returns.

    Raises:
        KeyboardInterrupt: It was stopped by Ctrl-C or SIGTERM.
    """

    async def awake() -> _T:
        loop = asyncio.get_running_loop()
        reading, writing = socket.socketpair()
        with reading, writing:
            reading.setblocking(False)  # noqa: FBT003  # its only parameter
            writing.setblocking(False)  # noqa: FBT003  # its only parameter
            loop.add_reader(reading, reading.recv, 4096)
            before = signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False)
            try:
                return await work()
            finally:
                signal.set_wakeup_fd(before)
                loop.remove_reader(reading)

    # psycopg cannot use the default event loop of Windows; elsewhere, this one is the default.
    return anyio.run(awake, backend_options={"loop_factory": asyncio.SelectorEventLoop})
