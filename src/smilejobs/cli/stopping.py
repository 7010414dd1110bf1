"""SIGTERM stops a command as Ctrl-C does, also where the command is process 1 of a container."""

import signal
import sys
from types import FrameType


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
