"""Show the progress of a wait for one job, as a line in a terminal."""

import time
from collections.abc import Callable

from attrs import Factory, define, field
from rich.text import Text

from smilejobs.batch.words import number_of
from smilejobs.cli.display import format_clock, printable
from smilejobs.errors import JobNotFoundError
from smilejobs.events import Event, PollFailed, PollFinished
from smilejobs.model.tables import word


@define
class WaitView:
    """A hook that remembers the last poll; rich draws it, in a thread of its own. All times are in seconds."""

    timeout: float
    now: Callable[[], float] = time.monotonic
    _state: str = field(init=False, default="no answer yet")
    _polls: int = field(init=False, default=0)
    _started: float = field(init=False, default=Factory(lambda view: view.now(), takes_self=True))

    def __call__(self, event: Event) -> None:
        """Remember the result of a poll."""
        if isinstance(event, PollFinished):
            self._polls += 1
            self._state = f"{word(event.status.verdict)} ({event.status.code or 'no code'})"
        elif isinstance(event, PollFailed):
            self._polls += 1
            is_missing = isinstance(event.error, JobNotFoundError)
            self._state = "the API knows no such job yet" if is_missing else f"the last poll failed: {event.error}"

    def __rich__(self) -> Text:
        """Return the line."""
        times = f"{format_clock(self.now() - self._started)} of {format_clock(self.timeout)}"
        line = f"{printable(self._state)}, {number_of(self._polls, 'poll')}, {times}"
        return Text(line, no_wrap=True, overflow="ellipsis")
