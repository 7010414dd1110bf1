"""What a worker reports about itself in the database: that it is at work, and an outage of the API."""

from collections.abc import Callable

import anyio
from attrs import define, field

from smilejobs.durable.named_leases import OUTAGE, WORKER
from smilejobs.durable.store import Store
from smilejobs.errors import ApiError, BadRequestError, SmileJobsError
from smilejobs.events import Event, PollFailed, PollFinished, logger
from smilejobs.notifications import Signal
from smilejobs.polling.rules import is_outage

_MAX_TEXT = 300
"""Characters of an error that are stored."""

_MIN_FAILURES = 3
"""Polls in a row that must fail before that is an outage."""


@define(eq=False, repr=False)
class ApiHealth:
    """A hook that detects the beginning and the end of an outage of the API.

    An outage is a time without good answers. A good answer is one of the API itself, also one that refuses the job. A
    connection that fails, TLS that fails, a proxy that refuses, a gateway that answers in place of the API, trouble
    that the API reports of itself and a request that it refuses as such (this worker's clock may be wrong) are none.

    Attributes:
        after: Seconds without a good answer that make an outage.
        outage: What polls fail with, during an outage.
        changed: Set when an outage begins or ends.
    """

    after: float
    outage: str | None = field(init=False, default=None)
    changed: Signal = field(init=False, factory=Signal)
    _failures: int = field(init=False, default=0)
    _since: float = field(init=False, default=0.0)

    def __call__(self, event: Event) -> None:
        """Count the result of a poll."""
        if isinstance(event, PollFinished):
            self._take_good()
        elif isinstance(event, PollFailed):
            if is_outage(event.error) or isinstance(event.error, BadRequestError):
                self._take_failure(event.error)
            elif isinstance(event.error, ApiError):
                self._take_good()

    def _take_good(self) -> None:
        if self.outage is not None:
            after = anyio.current_time() - self._since
            logger.warning("the API answers again, after %.0f s and %d failed polls", after, self._failures)
            self.outage = None
            self.changed.set()
        self._failures = 0

    def _take_failure(self, error: SmileJobsError) -> None:
        now = anyio.current_time()
        if not self._failures:
            self._since = now
        self._failures += 1
        if self.outage is None and self._failures >= _MIN_FAILURES and now - self._since >= self.after:
            text = Exception.__str__(error)[:_MAX_TEXT]  # without the job
            self.outage = "".join(
                letter if letter.isprintable() else "?" for letter in f"{type(error).__name__}: {text}"
            )
            logger.warning(
                "no good answer of the API for %.0f s and %d polls; the watch list goes on polling. The last one: %s",
                now - self._since,
                self._failures,
                self.outage,
            )
            self.changed.set()


@define(kw_only=True, eq=False, repr=False)
class Reporter:
    """Renews the named leases of one worker, and logs a warning when the list is stalled.

    Attributes:
        interval: Seconds between two renewals.
        is_at_work: Whether the worker does its work: outcomes are stored, and jobs are polled when they are due.
    """

    store: Store
    name: str
    interval: float
    api: ApiHealth
    is_at_work: Callable[[], bool]
    _is_stalled: bool = field(init=False, default=False)
    _has_reported: bool = field(init=False, default=False)

    async def run(self) -> None:
        """Report at intervals, and at once when an outage begins or ends; check the list after each interval.

        A worker that begins does not check at once: it takes a moment until it, or another, assigns the buckets.
        """
        while True:
            await self.store.retry(self._report)
            with anyio.move_on_after(self.interval):
                await self.api.changed.wait()
            await self.store.retry(self._check)

    async def leave(self) -> None:
        """Release the leases."""
        await self.store.leases.release(self.name, WORKER + self.name, OUTAGE)

    async def _report(self) -> None:
        leases, seconds = self.store.leases, self.store.tuning.liveness_heartbeats * self.interval
        if self.is_at_work():
            await leases.acquire(WORKER + self.name, self.name, seconds)
        if self.api.outage is not None:
            self._has_reported = await leases.acquire(OUTAGE, self.name, seconds, self.api.outage)
        elif self._has_reported:
            await leases.release(self.name, OUTAGE)
            self._has_reported = False

    async def _check(self) -> None:
        stalled = (await self.store.health()).stalled
        if (stalled is not None) != self._is_stalled:
            self._is_stalled = stalled is not None
            if stalled is not None:
                logger.warning("the watch list is stalled: %s", stalled)
            else:
                logger.warning("the watch list is no longer stalled")
