"""A batch: jobs of an iterable, polled by one scheduler."""

import math
from collections.abc import AsyncGenerator, Callable, Sized
from contextlib import asynccontextmanager

import anyio

from smilejobs.engine import Engine
from smilejobs.errors import SmileJobsError, TooManyFailuresError
from smilejobs.model.jobs import Include
from smilejobs.outcomes import JobRefs, Outcome, Progress
from smilejobs.polling.rules import Terms, describe_error
from smilejobs.scheduler.intake import Intake
from smilejobs.scheduler.progress import Reporter
from smilejobs.scheduler.results import Results
from smilejobs.scheduler.scheduler import Scheduler

MAX_FAILURES = 30
"""So many polls in a row without one good answer end a batch. A poll counts if it began after the failure before it was
known, so polls that fail together count once. With the pauses of the throttle they take about ten
minutes: longer than an API needs to restart. More than the 20 that end the wait for one job: the job ends first."""


class ManyJobs:
    """Waits for the jobs of an iterable. See `Client.wait_many`.

    Args:
        engine: What the client shares.
        refs: The jobs.
        terms: What the caller wants for each of them.
        include: What the polls ask for besides the state of a job.
        concurrency: How many polls may be under way at once.
        max_pending: How many jobs may be pending at once.
        on_progress: Called every 0.2 s, and at the end.
        deadline: Seconds after which what is pending is reported as pending; None for no limit.
    """

    def __init__(
        self,
        engine: Engine,
        refs: JobRefs,
        terms: Terms,
        *,
        include: Include,
        concurrency: int,
        max_pending: int,
        on_progress: Callable[[Progress], None] | None,
        deadline: float | None,
    ) -> None:
        self._scheduler = Scheduler(engine, include=include, concurrency=concurrency, on_failures=self._check_failures)
        self._intake = Intake(self._scheduler, refs, terms, max_pending=max_pending)
        self._reporter = Reporter(on_progress, self._progress)
        self._total = len(refs) if isinstance(refs, Sized) else None
        self._deadline = deadline

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[Results[Outcome], None]:
        """Poll while the block runs.

        Raises:
            RuntimeError: The client is closed, or belongs to another event loop.
        """
        async with self._scheduler.running(self._wait, self._reporter.run) as outcomes:
            yield outcomes

    async def _wait(self) -> None:
        """Read the input and wait for its jobs, up to the deadline."""
        with anyio.move_on_after(math.inf if self._deadline is None else self._deadline) as scope:
            await self._intake.read()
            self._total = self._intake.count
            await self._scheduler.wait_until_idle()
        if scope.cancelled_caught:
            self._scheduler.cut_short(f"The deadline of the batch, {self._deadline:.10g} s, has come")
        with self._scheduler.outcomes.ending():
            self._reporter.report()

    def _check_failures(self, count: int, last_error: SmileJobsError) -> None:
        """End the batch if the API cannot be reached, or answers about no job.

        Raises:
            TooManyFailuresError: Too many polls in a row have failed.
        """
        if count < MAX_FAILURES:
            return
        why = f"{count} polls in a row failed without one good answer"
        error = TooManyFailuresError(
            f"{why}, the last one with {describe_error(last_error)}. The jobs may be fine: those that are pending are "
            "reported as pending, wait for them and for the rest of the input again when the API can be reached",
            last_error=last_error,
            polls=self._scheduler.polls,
        )
        error.__cause__ = last_error
        self._scheduler.cut_short(f"The batch has ended: {why}", error)
        self._reporter.report()
        raise error

    def _progress(self) -> Progress:
        return self._scheduler.progress(self._total)
