"""Test code that waits for jobs: scripted answers, and a virtual clock that skips waiting times.

Nothing is patched. `Script` replaces the HTTP client, and `virtual_clock` replaces the event loop's clock; the code
between them is the same as in production.
"""

from smilejobs.testing.clock import EPOCH, VirtualClockEventLoop, virtual_clock, virtual_now
from smilejobs.testing.script import (
    Poll,
    Reply,
    Script,
    Step,
    complete,
    cut,
    html,
    no_zip,
    not_found,
    pending,
    provisional,
    rate_limited,
    refused,
)

__all__ = [
    "EPOCH",
    "Poll",
    "Reply",
    "Script",
    "Step",
    "VirtualClockEventLoop",
    "complete",
    "cut",
    "html",
    "no_zip",
    "not_found",
    "pending",
    "provisional",
    "rate_limited",
    "refused",
    "virtual_clock",
    "virtual_now",
]
