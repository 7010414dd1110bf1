"""Stop a command on SIGTERM as on Ctrl-C, also as process 1 of a container."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable
from types import FrameType
from typing import TypeVar

import anyio

_T = TypeVar("_T")


def exit_on_signals() -> None:
    """End the process on SIGTERM (exit code 143) or Ctrl-C (130) at once, until `stop_on_sigterm` is called.

    For the time of the imports: no command has begun, and an exception could come from any line of any module. A signal
    that is ignored, or has a handler of the caller, keeps it.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, _exit)


def _exit(number: int, frame: FrameType | None) -> None:
    os._exit(128 + number)


def stop_on_sigterm() -> None:
    """Handle SIGTERM as Ctrl-C from now on, in the whole process; only from the main thread.

    The system does not deliver a signal to process 1 unless the process has a handler for it. If the parent process
    ignores SIGTERM, it stays ignored.
    """
    if signal.getsignal(signal.SIGINT) is _exit:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGTERM) is signal.SIG_IGN:
        return
    if sys.platform != "win32" and signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # A shell starts commands in the background with Ctrl-C ignored. asyncio cancels its main task, instead of
        # raising at any line, only if Ctrl-C has Python's own handler. Blocked, Ctrl-C stays ignored.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, _interrupt)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Call the handler of Ctrl-C: it cancels the main task of a running event loop, else it raises."""
    handler = signal.getsignal(signal.SIGINT)
    if callable(handler):
        handler(signal.SIGINT, frame)


def run_until_stopped(work: Callable[[], Awaitable[_T]]) -> _T:
    """Run an async function in an event loop that every signal wakes up; only from the main thread.

    Python runs its handler of a signal between two of its own instructions: if a signal comes just before the loop
    waits for an event, the handler would run after that event. So a socket, which the loop reads, wakes it up.

    Raises:
        KeyboardInterrupt: Ctrl-C or SIGTERM stopped the function.
    """

    async def run_awake() -> _T:
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
    return anyio.run(run_awake, backend_options={"loop_factory": asyncio.SelectorEventLoop})
