"""A batch from rows to rows: what is read is waited for, and written as it ends."""

from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TypedDict

import anyio
from anyio import to_thread
from attrs import define, field

from smilejobs.batch.extra import extra_of
from smilejobs.batch.journal import Journal
from smilejobs.batch.records import Ending, Record, record_of, with_images
from smilejobs.batch.rows import BadRow, Row
from smilejobs.client import Client
from smilejobs.durations import Duration
from smilejobs.images import SavedImages
from smilejobs.model.jobs import JobRef
from smilejobs.outcomes import JobRefs, Outcome, Progress
from smilejobs.polling.rules import Until

_CHECK_INTERVAL_SECONDS = 2.0
"""Between two looks whether the results file is still there."""


class _Options(TypedDict):
    timeout: Duration
    deadline: Duration | None
    until: Until
    history: bool
    on_progress: Callable[[Progress], None]


@define(kw_only=True)
class Run:
    """Waits for the jobs of a file, and writes how each one has ended.

    Attributes:
        client: Asks.
        journal: Where to write; the rows whose final outcome it holds are not asked for.
        timeout: Seconds (or a timedelta) for each job.
        deadline: Seconds (or a timedelta) for all of them; None for no limit.
        until: "complete" or "final", as for `Client.wait`.
        history: Ask for the history, and write it.
        personal: Write personal data.
        save_images: The folder for the pictures of complete jobs; None not to fetch them.
        on_record: Told of every row that was written.
        on_bad_row: Told of every row that names no job, after it was written.
        on_progress: As for `Client.wait_many`.
        is_read: Whether all rows were read.
    """

    client: Client
    journal: Journal
    timeout: Duration
    until: Until
    history: bool
    personal: bool
    save_images: Path | None
    on_record: Callable[[Record], None]
    on_bad_row: Callable[[BadRow], None]
    on_progress: Callable[[Progress], None]
    deadline: Duration | None = None
    is_read: bool = field(init=False, default=False)
    _pending: dict[int, Row] = field(init=False, repr=False, factory=dict[int, Row])
    """By the index of the fleet, which knows nothing of rows that are bad or have been asked for."""
    _asked: int = field(init=False, default=0)
    _check_at: float = field(init=False, default=0.0)

    async def ask(self, rows: Iterable[Row | BadRow], *, slow: bool) -> None:
        """Wait for all jobs.

        However it ends, every row that was read is written: those that are still pending, as pending.

        Args:
            rows: The input.
            slow: Whether reading it may block, as a pipe does; then that is left to a thread.

        Raises:
            CredentialsError: It is the second one in a row.
            TooManyFailuresError: The API gives no good answer any more.
            ImageError: The folder for the pictures is not there.
            ValueError: The input is not the one that the journal was begun with.
            ResultsLostError: The results file was removed, replaced or changed.
            OSError: The input cannot be read, or the results file not be written.
        """
        refs: JobRefs = self._refs_by_thread(iter(rows)) if slow else self._refs(rows)
        options: _Options = {
            "timeout": self.timeout,
            "deadline": self.deadline,
            "until": self.until,
            "history": self.history,
            "on_progress": self._tell,
        }
        try:
            if self.save_images is None:
                async with self.client.wait_many(refs, **options) as outcomes:
                    async for outcome in outcomes:
                        self._end(outcome)
            else:
                async with self.client.save_images_many(refs, self.save_images, **options) as savings:
                    async for saved in savings:
                        self._end(saved.outcome, saved)
        finally:
            for row in self._pending.values():
                self._write(_unanswered(row), carried=row.carried)

    def _tell(self, progress: Progress) -> None:
        now = anyio.current_time()
        if now >= self._check_at:
            self._check_at = now + _CHECK_INTERVAL_SECONDS
            self.journal.check()
        self.on_progress(progress)

    def _refs(self, rows: Iterable[Row | BadRow]) -> Generator[JobRef, None, None]:
        for row in rows:
            yield from self._admit(row)
        self.is_read = True

    async def _refs_by_thread(self, rows: Iterator[Row | BadRow]) -> AsyncGenerator[JobRef, None]:
        read = partial(next, rows, None)
        while (row := await to_thread.run_sync(read, abandon_on_cancel=True)) is not None:
            for ref in self._admit(row):
                yield ref
        self.is_read = True

    def _admit(self, row: Row | BadRow) -> tuple[JobRef, ...]:
        """Return the job of a row, if it is to be asked for."""
        if isinstance(row, BadRow):
            self._write(_invalid(row), carried=row.carried)
            self.on_bad_row(row)
            return ()
        if self.journal.holds(row):
            return ()
        self._pending[self._asked] = row
        self._asked += 1
        return (row.ref,)

    def _end(self, outcome: Outcome, saved: SavedImages | None = None) -> None:
        row = self._pending[outcome.index]
        record = record_of(outcome, index=row.index, line=row.line)
        if saved is not None:
            record = with_images(record, saved)
        extra = extra_of(outcome.status, history=self.history, personal=self.personal)
        self._write(record, extra=extra, carried=row.carried)
        del self._pending[outcome.index]

    def _write(
        self,
        record: Record,
        *,
        extra: Mapping[str, object] | None = None,
        carried: Mapping[str, object],
    ) -> None:
        self.journal.write(record, extra=extra, carried=carried)
        self.on_record(record)


def _unanswered(row: Row) -> Record:
    return Record(
        index=row.index,
        line=row.line,
        user_id=row.ref.user_id,
        job_id=row.ref.job_id,
        submitted_at=row.ref.submitted_at,
        outcome=Ending.PENDING,
    )


def _invalid(row: BadRow) -> Record:
    return Record(
        index=row.index,
        line=row.line,
        user_id=row.user_id,
        job_id=row.job_id,
        outcome=Ending.INVALID,
        error="ValueError",
        error_text=row.reason,
    )
