"""How far a batch is: a live display in a terminal, a line now and then elsewhere."""

from collections import Counter, deque
from collections.abc import Iterator
from types import TracebackType
from typing import Protocol, Self

import anyio
from attrs import define, field
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from smilejobs.batch.records import WORDS, Ending, Record
from smilejobs.batch.rows import BadRow
from smilejobs.batch.words import number_of
from smilejobs.cli.display import STYLES, format_clock, printable
from smilejobs.outcomes import Progress, time_left

_ENDING_STYLES = {"pending": "yellow", "refused": "red", "failed": "red", "invalid": "red"}
_LAST_ERRORS = 3
_SHOWN_BAD_ROWS = 20
_REDRAWN_EVERY = 0.5
_TOLD_EVERY = 10.0
"""Seconds between two lines."""


@define(kw_only=True)
class Tally:
    """What has come of the rows so far.

    Attributes:
        name: What the input is called.
        total: How many rows it has; None if that cannot be known.
        words: How many rows have ended how, by `Record.word`.
        earlier: How many of them were there before this run.
        errors: The last errors, as lines.
    """

    name: str
    total: int | None
    words: Counter[str] = field(init=False, factory=Counter[str])
    earlier: int = field(init=False, default=0)
    errors: deque[str] = field(init=False, factory=lambda: deque[str](maxlen=_LAST_ERRORS))

    def add(self, record: Record) -> None:
        """Count a row."""
        self.words[record.word] += 1
        if record.outcome in (Ending.REFUSED, Ending.FAILED):
            self.errors.append(printable(f"line {record.line}: {record.error}: {record.error_text}"))
        if record.images_error is not None:
            self.errors.append(printable(f"line {record.line}: {record.images_error_text}"))

    @property
    def ended(self) -> int:
        """How many rows have ended."""
        return self.words.total()

    def rows(self) -> str:
        """Return how many rows have ended, of how many if that is known."""
        if self.total is None or self.total == self.ended:
            return number_of(self.ended, "row")
        return f"{self.ended:,} of {number_of(self.total, 'row')}"

    def counts(self) -> Iterator[tuple[str, int]]:
        """Return how many rows have ended how, best first."""
        return ((word, self.words[word]) for word in WORDS if self.words[word])


class View(Protocol):
    """Shows how far a batch is, while a block runs; to be made in an event loop."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...

    def on_progress(self, progress: Progress) -> None:
        """Show how far it is."""

    def on_bad_row(self, row: BadRow) -> None:
        """Show what is wrong with a row of the input."""


def view(console: Console, tally: Tally, *, quiet: bool) -> View:
    """Return what shows the progress of a batch.

    Args:
        console: Where to.
        tally: What has come of the rows.
        quiet: Show bad rows and nothing else.
    """
    if quiet:
        return _Quiet(console, tally)
    if console.is_terminal and not console.is_dumb_terminal:
        return _Display(console, tally)
    return _Lines(console, tally)


class _Quiet:
    def __init__(self, console: Console, tally: Tally) -> None:
        self._console = console
        self._tally = tally
        self._bad_rows = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Nothing is left behind."""

    def on_progress(self, progress: Progress) -> None:
        """Show how far it is."""

    def on_bad_row(self, row: BadRow) -> None:
        """Show what is wrong with a row of the input."""
        self._bad_rows += 1
        if self._bad_rows <= _SHOWN_BAD_ROWS:
            self._console.print(printable(f"{self._tally.name}:{row.line}: {row.reason}"))
        if self._bad_rows == _SHOWN_BAD_ROWS:
            self._console.print("further bad rows are only counted; the results file has them all")


class _Told(_Quiet):
    """What is shown of the progress, now and then."""

    def __init__(self, console: Console, tally: Tally) -> None:
        super().__init__(console, tally)
        self._started = anyio.current_time()
        self._shown_at: float | None = None

    def _speed(self, progress: Progress) -> str:
        tally = self._tally
        total = None if tally.total is None else tally.total - tally.earlier
        left = time_left(total, tally.ended - tally.earlier, anyio.current_time() - self._started)
        return (
            f"{number_of(round(progress.polls_per_second), 'poll')}/s, {progress.pending:,} pending"
            f"{'' if left is None else f', {format_clock(left)} left'}"
            f"{', throttled: the API cannot keep up' if progress.throttled else ''}"
        )

    def _is_time(self, every: float) -> bool:
        now = anyio.current_time()
        if self._shown_at is not None and now < self._shown_at + every:
            return False
        self._shown_at = now
        return True


class _Lines(_Told):
    def on_progress(self, progress: Progress) -> None:
        if self._is_time(_TOLD_EVERY):
            counts = "".join(f", {count:,} {word}" for word, count in self._tally.counts())
            self._console.print(f"{self._tally.rows()}, {self._speed(progress)}{counts}")


class _Display(_Told):
    """Drawn anew from the event loop, so that it needs no thread."""

    def __init__(self, console: Console, tally: Tally) -> None:
        super().__init__(console, tally)
        self._live = Live(console=console, auto_refresh=False, transient=True, redirect_stdout=False)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._live.stop()

    def on_progress(self, progress: Progress) -> None:
        if self._is_time(_REDRAWN_EVERY):
            self._live.update(self._drawn(progress), refresh=True)

    def _drawn(self, progress: Progress) -> RenderableType:
        tally = self._tally
        bar = Table.grid(padding=(0, 1), expand=True)
        bar.add_column(ratio=1)
        bar.add_column(no_wrap=True)
        bar.add_row(
            ProgressBar(total=tally.total, completed=tally.ended, animation_time=anyio.current_time()),
            tally.rows(),
        )
        counts = Text("  ").join(
            Text(f"{count:,} {word}", style=STYLES.get(word) or _ENDING_STYLES.get(word, ""))
            for word, count in tally.counts()
        )
        errors = (Text(line, style="red", no_wrap=True, overflow="ellipsis") for line in tally.errors)
        return Group(bar, Text(self._speed(progress)), counts, *errors)
