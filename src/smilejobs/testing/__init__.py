"""Test code that waits for jobs: answers by script, and hours that pass in a millisecond.

Nothing is patched. `Script` takes the place of the HTTP client, `virtual_clock` that of the event loop's clock; the
code between them is the one that runs in production.
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
