"""Reads the rows of pending jobs, and passes the jobs to a scheduler."""

import math
import random
from collections import deque
from collections.abc import Callable, Iterable
from datetime import datetime
from functools import partial

import anyio
import anyio.lowlevel
from attrs import define, field

from smilejobs.durable.buckets import Buckets
from smilejobs.durable.outbox import Outbox
from smilejobs.durable.reading import Unreadable
from smilejobs.durable.rows import Pending
from smilejobs.durable.schema import BUCKETS
from smilejobs.durable.store import Store
from smilejobs.events import logger
from smilejobs.model.jobs import JobRef
from smilejobs.polling.pace import Backoff, PaceFunction
from smilejobs.polling.rules import Terms
from smilejobs.scheduler import Scheduler

_CHECKPOINT_ROWS = 500
"""Rows that are added before other tasks run."""

_PARALLEL_LOADS = 2
"""Buckets whose rows are read at once."""

_FAST = 1000.0
"""Polls per second at which the first polls of loaded jobs are spread, where there is no rate."""

_SETTLED_TICKS = 4
"""After so many ticks of a session, no transaction that is older commits any more rows."""

_BACKOFF = Backoff(max=300.0)
_NEVER = 10**9
"""Failures after which a wait ends: a watch list sits out any outage."""


@define(kw_only=True, eq=False, repr=False)
class Loader:
    """Reads the rows of a worker's buckets, and adds their jobs to its scheduler.

    All methods raise `WatchListError` where the database cannot be used.

    Attributes:
        outbox: Outcomes that are not stored yet; their rows are still pending.
        rate: Polls per second of all workers together; None for no limit.
    """

    store: Store
    now: Callable[[], datetime]
    buckets: Buckets
    outbox: Outbox
    scheduler: Scheduler
    pace: PaceFunction
    rate: float | None
    _parallel: anyio.Semaphore = field(init=False, factory=lambda: anyio.Semaphore(_PARALLEL_LOADS))
    _newest: int = field(init=False, default=0)
    _settled: int = field(init=False, default=0)
    _marks: deque[int] = field(init=False, factory=deque)

    async def start(self) -> None:
        """Note which row is the newest: earlier ones are loaded with their buckets."""
        self._newest = self._settled = await self.store.last()
        self._marks.extend([self._newest] * _SETTLED_TICKS)

    async def load_all(self) -> None:
        """Load all rows: there is no other worker."""
        total, _ = await self.store.sums(self.buckets.held)
        await self._load_after(0, spread=self._spread(total), is_new=False)

    async def load(self, bucket: int) -> None:
        """Load a bucket, unless count and sum of its rows are unchanged."""
        async with self._parallel:
            known = self.buckets.sums(bucket)
            if known[0] and known == await self.store.sums({bucket}):
                return
            rows = await self.store.pending({bucket})
        # When these were polled last is not known: they are spread as if they were all of the list's.
        await self._add_rows(rows, spread=self._spread(len(rows) * BUCKETS), is_new=False)

    async def load_new(self) -> None:
        """Load the rows that were added since the last time."""
        self._newest = await self._load_after(self._newest)

    async def load_named(self, key: bytes) -> list[JobRef]:
        """Load the job with this *key*, if its bucket is polled here; return it in a list if it is pending."""
        if not self.buckets.is_polled(key[0]):
            return []
        rows = await self.store.named(key)
        await self._add_rows(rows, is_new=False)
        return [row.ref for row in rows if isinstance(row, Pending)]

    async def load_late(self) -> None:
        """Load rows that were numbered before others and committed after them; called at each tick."""
        self._marks.append(self._newest)
        settling = self._marks.popleft()
        await self.store.retry(partial(self._load_after, self._settled, until=settling))
        self._settled = settling

    async def _load_after(
        self, after: int, *, until: float = math.inf, spread: float = 0.0, is_new: bool = True
    ) -> int:
        """Load the rows after the number *after*, up to *until* at least; return the number of the last."""
        limit = self.store.tuning.load_rows
        while after < until and (rows := await self.store.pending(self.buckets.held, after=after, limit=limit)):
            await self._add_rows(rows, spread=spread, is_new=is_new)
            after = rows[-1].seq
        return after

    def _spread(self, jobs: int) -> float:
        """Return within how many seconds the first polls of so many jobs begin."""
        return jobs / (self.rate or _FAST)

    async def _add_rows(self, rows: Iterable[Pending | Unreadable], *, is_new: bool, spread: float = 0.0) -> None:
        """Add the jobs of rows, whose first polls begin within *spread* seconds; new ones no worker has polled yet."""
        now = self.now().timestamp()
        terms: dict[tuple[bool, float | None, bool], Terms] = {}
        unreadable: list[Unreadable] = []
        for place, row in enumerate(rows, 1):
            if place % _CHECKPOINT_ROWS == 0:
                await anyio.lowlevel.checkpoint()
            if isinstance(row, Unreadable):
                unreadable.append(row)
                continue
            ref = row.ref
            if ref in self.outbox or row.bucket not in self.buckets.held:
                continue
            end = None if row.deadline is None else row.added_at + row.deadline
            key = row.final, end, row.submitted_at is not None
            if key not in terms:
                terms[key] = self._terms(row, timeout=None if end is None else end - now, is_new=is_new)
            self.buckets.add(row)
            # The clock of the process that added the job may be ahead of this one.
            delay = min(spread, self.pace(max(0.0, now - row.born_at), 0)) if spread else 0.0
            if end is not None:
                delay = max(0.0, min(delay, end - now))
            if ref not in self.scheduler:
                self.scheduler.add(ref, terms[key], first_after=random.uniform(0.0, delay))
        if unreadable:
            await self.store.retry(partial(self.store.fail, unreadable, now))
            for row in unreadable:
                logger.error("%s; the job has failed", row.text)

    def _terms(self, row: Pending, *, timeout: float | None, is_new: bool) -> Terms:
        return Terms(
            until="final" if row.final else "complete",
            timeout=None if timeout is None else max(timeout, 0.001),
            pace=self.pace,
            backoff=_BACKOFF,
            max_failures=_NEVER,
            sits_out_outages=True,
            is_age_known=row.submitted_at is not None,
            is_resumed=not is_new,
        )
