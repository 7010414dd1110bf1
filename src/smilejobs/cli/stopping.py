"""SIGTERM stops a command as Ctrl-C does, also where the command is process 1 of a container."""

import signal
from types import FrameType


def stop_on_sigterm() -> None:
    """Handle SIGTERM as Ctrl-C from now on, in the whole process; to be called from its main thread.

    The system does not deliver a signal to process 1 unless the process has a handler for it. A SIGTERM that the
    parent process has set to be ignored stays ignored.
    """
    if signal.getsignal(signal.SIGTERM) is not signal.SIG_IGN:
        signal.signal(signal.SIGTERM, _interrupt)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Call the handler of Ctrl-C: while an event loop runs, it cancels the main task; else it raises.

    The handler is called, not the signal sent: a shell that starts a command in the background has it ignore SIGINT.
    """
    handler = signal.getsignal(signal.SIGINT)
    if not callable(handler):
        raise KeyboardInterrupt
    handler(signal.SIGINT, frame)
