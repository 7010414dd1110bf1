"""Run a batch: read the rows of the input, wait for their jobs, and write each row when its job ends."""

from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path

import anyio
from anyio import to_thread
from attrs import define, field

from smilejobs.batch.extra import extra_of
from smilejobs.batch.journal import Journal
from smilejobs.batch.records import Ending, RowRecord, add_images, make_record
from smilejobs.batch.rows import BadRow, Row
from smilejobs.client import Client, SaveManyOptions
from smilejobs.durations import Duration
from smilejobs.images import SavedImages
from smilejobs.model.jobs import JobRef
from smilejobs.outcomes import JobRefs, Outcome, Progress
from smilejobs.polling.rules import Until

_VERIFY_INTERVAL_SECONDS = 2.0
"""Between two verifications of the results file."""


@define(kw_only=True)
class Run:
    """A run of a batch: it waits for the jobs of a file and writes their outcomes.

    Those attributes that are not described here are arguments of `Client.wait_many`.

    Attributes:
        journal: The results file; the jobs of its settled rows are not polled.
        personal: Write personal data.
        save_images: The folder for the pictures of complete jobs; None to save none.
        on_record: Called with every row after it was written.
        on_bad_row: Called with every row that names no valid job, after it was written.
        is_read: Whether all rows of the input were read.
    """

    client: Client
    journal: Journal
    timeout: Duration
    until: Until
    history: bool
    personal: bool
    save_images: Path | None
    on_record: Callable[[RowRecord], None]
    on_bad_row: Callable[[BadRow], None]
    on_progress: Callable[[Progress], None]
    deadline: Duration | None = None
    is_read: bool = field(init=False, default=False)
    _pending: dict[int, Row] = field(init=False, repr=False, factory=dict[int, Row])
    """By `Outcome.index`, which counts neither bad rows nor settled ones."""
    _started: int = field(init=False, default=0)
    _verify_at: float = field(init=False, default=0.0)

    async def wait(self, rows: Iterable[Row | BadRow], *, blocking: bool) -> None:
        """Wait for all jobs.

        Every row that was read is written, also if this raises or is cancelled: jobs that are pending, as pending.

        Args:
            rows: The input.
            blocking: Whether reading the input may block, as with a pipe; then a thread reads it.

        Raises:
            CredentialsError: Two in a row.
            TooManyFailuresError: Too many polls in a row failed.
            ImageError: The folder for the pictures does not exist.
            ValueError: The input is not the one of the first run.
            ResultsLostError: Another program removed, replaced or changed the results file.
            OSError: The input cannot be read, or the results file cannot be written.
        """
        refs: JobRefs = self._read_in_thread(iter(rows)) if blocking else self._read(rows)
        options: SaveManyOptions = {
            "timeout": self.timeout,
            "deadline": self.deadline,
            "until": self.until,
            "history": self.history,
            "on_progress": self._report_progress,
        }
        try:
            if self.save_images is None:
                async with self.client.wait_many(refs, **options) as outcomes:
                    async for outcome in outcomes:
                        self._write_outcome(outcome)
            else:
                async with self.client.save_images_many(refs, self.save_images, **options) as savings:
                    async for saved in savings:
                        self._write_outcome(saved.outcome, saved)
        finally:
            for row in self._pending.values():
                self._write(_make_pending_record(row), row.carried)

    def _report_progress(self, progress: Progress) -> None:
        now = anyio.current_time()
        if now >= self._verify_at:
            self._verify_at = now + _VERIFY_INTERVAL_SECONDS
            self.journal.verify()
        self.on_progress(progress)

    def _read(self, rows: Iterable[Row | BadRow]) -> Generator[JobRef, None, None]:
        for row in rows:
            yield from self._start(row)
        self.is_read = True

    async def _read_in_thread(self, rows: Iterator[Row | BadRow]) -> AsyncGenerator[JobRef, None]:
        read = partial(next, rows, None)
        while (row := await to_thread.run_sync(read, abandon_on_cancel=True)) is not None:
            for ref in self._start(row):
                yield ref
        self.is_read = True

    def _start(self, row: Row | BadRow) -> tuple[JobRef, ...]:
        """Return the job of a row, if it is to be polled; write a bad row."""
        if isinstance(row, BadRow):
            self._write(_make_invalid_record(row), row.carried)
            self.on_bad_row(row)
            return ()
        if self.journal.holds(row):
            return ()
        self._pending[self._started] = row
        self._started += 1
        return (row.ref,)

    def _write_outcome(self, outcome: Outcome, saved: SavedImages | None = None) -> None:
        row = self._pending[outcome.index]
        record = make_record(outcome, index=row.index, line=row.line)
        if saved is not None:
            record = add_images(record, saved)
        self._write(record, row.carried, extra_of(outcome.status, history=self.history, personal=self.personal))
        del self._pending[outcome.index]

    def _write(
        self, record: RowRecord, carried: Mapping[str, object], extra: Mapping[str, object] | None = None
    ) -> None:
        self.journal.write(record, extra=extra, carried=carried)
        self.on_record(record)


def _make_pending_record(row: Row) -> RowRecord:
    return RowRecord(
        index=row.index,
        line=row.line,
        user_id=row.ref.user_id,
        job_id=row.ref.job_id,
        submitted_at=row.ref.submitted_at,
        outcome=Ending.PENDING,
    )


def _make_invalid_record(row: BadRow) -> RowRecord:
    return RowRecord(
        index=row.index,
        line=row.line,
        user_id=row.user_id,
        job_id=row.job_id,
        outcome=Ending.INVALID,
        error="ValueError",
        error_text=row.reason,
    )
