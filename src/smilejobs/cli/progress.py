"""Show the progress of a batch: in a terminal a live display, elsewhere a line every few seconds."""

from collections import Counter, deque
from collections.abc import Iterator
from typing import Self

import anyio
from attrs import define, field
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from smilejobs.batch.records import WORDS, Ending, RowRecord
from smilejobs.batch.rows import BadRow
from smilejobs.batch.words import number_of
from smilejobs.cli.display import STYLES, format_clock, printable
from smilejobs.outcomes import Progress, time_left

_MAX_ERRORS = 3
_MAX_BAD_ROWS = 20
_REDRAW_INTERVAL_SECONDS = 0.5
_LINE_INTERVAL_SECONDS = 10.0


@define(kw_only=True)
class Tally:
    """The number of rows of a batch by outcome.

    Attributes:
        name: The name of the input.
        total: The number of its rows; None if that cannot be known.
        words: The number of rows that have ended, by `RowRecord.word`.
        earlier: The number of rows that earlier runs settled.
        errors: The last errors, as lines.
    """

    name: str
    total: int | None
    words: Counter[str] = field(init=False, factory=Counter[str])
    earlier: int = field(init=False, default=0)
    errors: deque[str] = field(init=False, factory=lambda: deque[str](maxlen=_MAX_ERRORS))

    def add(self, record: RowRecord) -> None:
        """Count a row."""
        self.words[record.word] += 1
        if record.outcome in (Ending.REFUSED, Ending.FAILED):
            self.errors.append(printable(f"line {record.line}: {record.error}: {record.error_text}"))
        if record.images_error is not None:
            self.errors.append(printable(f"line {record.line}: {record.images_error_text}"))

    @property
    def ended(self) -> int:
        """The number of rows that have ended."""
        return self.words.total()

    def format_rows(self) -> str:
        """Return the number of rows that have ended, and of the total if that is known and larger."""
        if self.total is None or self.total == self.ended:
            return number_of(self.ended, "row")
        return f"{self.ended:,} of {number_of(self.total, 'row')}"

    def counts(self) -> Iterator[tuple[str, int]]:
        """Return each outcome and its number of rows, best first."""
        return ((word, self.words[word]) for word in WORDS if self.words[word])


class View:
    """Shows how far a batch is: in a terminal a live display, elsewhere a line every few seconds.

    A context manager, to be entered in an event loop, which redraws the display without a thread. Of a *quiet* batch,
    it shows only the first bad rows of the input.
    """

    def __init__(self, console: Console, tally: Tally, *, quiet: bool) -> None:
        self._console = console
        self._tally = tally
        self._is_quiet = quiet
        self._live: Live | None = None
        if console.is_terminal and not console.is_dumb_terminal and not quiet:
            self._live = Live(console=console, auto_refresh=False, transient=True, redirect_stdout=False)
        self._bad_rows = 0

    def __enter__(self) -> Self:
        self._started = self._due = anyio.current_time()
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def on_progress(self, progress: Progress) -> None:
        """Show the progress, if it is time."""
        now = anyio.current_time()
        if self._is_quiet or now < self._due:
            return
        if self._live is not None:
            self._due = now + _REDRAW_INTERVAL_SECONDS
            self._live.update(self._draw(progress), refresh=True)
        else:
            self._due = now + _LINE_INTERVAL_SECONDS
            counts = "".join(f", {count:,} {word}" for word, count in self._tally.counts())
            self._console.print(f"{self._tally.format_rows()}, {self._format_speed(progress)}{counts}")

    def on_bad_row(self, row: BadRow) -> None:
        """Print the line and the reason of a bad row."""
        self._bad_rows += 1
        if self._bad_rows <= _MAX_BAD_ROWS:
            self._console.print(printable(f"{self._tally.name}:{row.line}: {row.reason}"))
        if self._bad_rows == _MAX_BAD_ROWS:
            self._console.print("further bad rows are only counted; the results file has them all")

    def _format_speed(self, progress: Progress) -> str:
        tally = self._tally
        total = None if tally.total is None else tally.total - tally.earlier
        left = time_left(total, tally.ended - tally.earlier, anyio.current_time() - self._started)
        return (
            f"{number_of(round(progress.polls_per_second), 'poll')}/s, {progress.pending:,} pending"
            f"{'' if left is None else f', {format_clock(left)} left'}"
            f"{', throttled: the API cannot keep up' if progress.throttled else ''}"
        )

    def _draw(self, progress: Progress) -> RenderableType:
        tally = self._tally
        bar = Table.grid(padding=(0, 1), expand=True)
        bar.add_column(ratio=1)
        bar.add_column(no_wrap=True)
        bar.add_row(
            ProgressBar(total=tally.total, completed=tally.ended, animation_time=anyio.current_time()),
            tally.format_rows(),
        )
        counts = Text("  ").join(
            Text(f"{count:,} {word}", style=STYLES.get(word, "")) for word, count in tally.counts()
        )
        errors = (Text(line, style="red", no_wrap=True, overflow="ellipsis") for line in tally.errors)
        return Group(bar, Text(self._format_speed(progress)), counts, *errors)
