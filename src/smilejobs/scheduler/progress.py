"""Reports of how far a batch is, at regular intervals."""

from collections.abc import Callable

import anyio

from smilejobs.outcomes import Progress

INTERVAL_SECONDS = 0.2
"""Between two reports of progress."""


class Reporter:
    """Reports the progress of a batch.

    Args:
        on_progress: Called with each report; None for no reports.
        measure: Returns the progress at that instant.
    """

    def __init__(self, on_progress: Callable[[Progress], None] | None, measure: Callable[[], Progress]) -> None:
        self._on_progress = on_progress
        self._measure = measure

    async def run(self) -> None:
        """Report at regular intervals, until cancelled."""
        if self._on_progress is None:
            return
        while True:
            await anyio.sleep(INTERVAL_SECONDS)
            self.report()

    def report(self) -> None:
        """Report once."""
        if self._on_progress is not None:
            self._on_progress(self._measure())
