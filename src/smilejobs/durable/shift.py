"""One stretch of a worker's polling, from its start to a pause of the list, or to its end."""

import random
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import aclosing, asynccontextmanager
from functools import partial

import anyio
import anyio.lowlevel

from smilejobs.client import Client
from smilejobs.durable.calls import ADDED, Brake, Call, News, calls
from smilejobs.durable.endings import ending_of
from smilejobs.durable.failures import translated
from smilejobs.durable.health import ApiHealth, Reporter
from smilejobs.durable.leases import Hold, Leases
from smilejobs.durable.patience import Patience
from smilejobs.durable.reading import Unreadable
from smilejobs.durable.rows import Pending, key_of
from smilejobs.durable.schema import BUCKETS
from smilejobs.durable.storing import Outbox
from smilejobs.durable.watchlist import WatchList
from smilejobs.errors import CredentialsError, RateLimitedError, SmileJobsError, WatchListError
from smilejobs.events import logger
from smilejobs.model.jobs import JobRef
from smilejobs.notifications import Signal
from smilejobs.polling.pace import Backoff, PaceFunction
from smilejobs.polling.rules import Terms
from smilejobs.scheduler import Scheduler
from smilejobs.tasks import run_bare

_LINGER = 3.0
"""Seconds for which a bucket that was let go is still polled: mostly it comes back, and nothing has to be read anew."""

_CHECKPOINT_ROWS = 500
"""Rows that are taken in before other tasks have their turn."""

_PAGE = 5000
_FAREWELL = 8.0
"""Seconds from its stop in which a worker hands back what it has, and stores what it knows."""

_BREATH = 0.1
"""Seconds between two looks for new jobs: where a thousand are added in a second, nobody looks a thousand times."""

_LOOK_PAUSE_SECONDS = 0.5
"""Between two looks at all buckets: any role of the database can ask for one, as often as it likes."""

_TICK = 0.5
_SETTLED = 4
"""Ticks after which nobody commits a row any more that was numbered before."""

_FAST = 1000.0
"""Polls per second at which jobs are taken over, where there is no rate."""

_BACKOFF = Backoff(max=300.0)
_NEVER = 10**9
"""Failures after which to give up: a list that waits for days sits out an outage."""


class Shift:
    """Polls until the list is paused.

    Args:
        client: Asks the API.
        watch: The watch list.
        pace: Between polls of a pending job.
        concurrency: How many polls may be under way at once.
        rate: Polls per second of all workers together; None for no limit.
        keep_raw: Store answers as they came.
        leases: Makes what shares the buckets, from what holds one; None if there is nobody to share them with.
        name: Of the worker, among all workers.
        heartbeat: Seconds between two signs of life.
        api: Notices outages of the API.
        patience: Waits for the database.
    """

    def __init__(
        self,
        client: Client,
        watch: WatchList,
        *,
        pace: PaceFunction,
        concurrency: int,
        rate: float | None,
        keep_raw: bool,
        leases: Callable[[Hold], Leases] | None,
        name: str,
        heartbeat: float,
        api: ApiHealth,
        patience: Patience,
    ) -> None:
        self._client = client
        self._watch = watch
        self._store = watch.store
        self._pace = pace
        self._rate = rate or _FAST
        self._keep_raw = keep_raw
        self._leases = None if leases is None else leases(self.hold)
        self._name = name
        self._until_it_works = patience.until_it_works
        self._outbox = Outbox(watch.store, watch.now, patience)
        self._reporter = Reporter(
            self._store,
            name,
            heartbeat=heartbeat,
            api=api,
            is_at_work=lambda: not (self._outbox.is_full or self._scheduler.is_stuck(heartbeat)),
            patience=patience,
        )
        self._held: set[int] = set()
        self._holders: Counter[int] = Counter()
        self._released: dict[int, float] = {}
        self._refs: defaultdict[int, dict[JobRef, int]] = defaultdict(dict)
        self._shouts: list[str] = []
        self._newest = self._settled = 0
        self._any_new = self._must_look = False
        self._added = Signal()
        self._look_wanted = Signal()
        self._shouted = Signal()
        self._loading = anyio.Semaphore(2)
        self._polling = anyio.CancelScope()
        self._farewell = anyio.CancelScope(shield=True)
        self._scheduler = Scheduler(
            client.engine,
            concurrency=concurrency,
            on_throttle=None if leases is None else self._throttled,
        )

    async def work(self) -> None:
        """Poll until cancelled, or until the list is paused; then store what is known.

        Raises:
            CredentialsError: The API refuses the credentials.
            WatchListError: The database cannot be used.
        """
        if self._leases is not None:
            await self._until_it_works(partial(_prepare, self._leases))
        self._newest = self._settled = await self._until_it_works(self._store.last)
        async with self._scheduler.running():
            try:
                with self._polling:
                    await run_bare(
                        self._consume,
                        self._outbox.run,
                        self._hear,
                        self._look_again,
                        self._reporter.run,
                        self._tend,
                        self._admit,
                        self._tick,
                        self._shout,
                        self._until_stopped,
                    )
            finally:
                with self._farewell:
                    await self._outbox.store_all()
                    await self._until_it_works(self._reporter.leave)
                    if self._leases is not None:  # so that the others look now for what no worker has
                        await self._until_it_works(partial(self._store.ring, ADDED))

    async def _until_stopped(self) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            self._farewell.deadline = anyio.current_time() + _FAREWELL

    # Buckets

    async def _tend(self) -> None:
        if self._leases is not None:
            await self._leases.run()
        else:
            self._held.update(range(BUCKETS))
            await self._until_it_works(self._load_all)

    @asynccontextmanager
    async def hold(self, bucket: int) -> AsyncGenerator[None, None]:
        """Poll the jobs of a bucket while the block runs."""
        self._held.add(bucket)
        self._holders[bucket] += 1
        self._released.pop(bucket, None)
        try:
            await self._load(bucket)
            yield
        finally:
            self._holders[bucket] -= 1  # a lease may come back before its last one has been left
            if not self._holders[bucket]:
                self._held.discard(bucket)
                self._released[bucket] = anyio.current_time()

    async def _load_all(self) -> None:
        """Take in everything: nobody else is there."""
        total, _ = await self._store.sums(self._held)
        after = 0
        while rows := await self._store.pending(self._held, after=after, limit=_PAGE):
            await self._take_in(rows, spread=total / self._rate)
            after = rows[-1].seq

    async def _load(self, bucket: int) -> None:
        """Take in the jobs of a bucket, unless they are just those that are known."""
        async with self._loading:
            known = self._refs[bucket].values()
            if known and (len(known), sum(known)) == await self._store.sums({bucket}):
                return
            rows = await self._store.pending({bucket})
        # Nobody knows when these were polled last: they are spread as if they were all of the list's.
        await self._take_in(rows, spread=len(rows) * BUCKETS / self._rate)

    async def _admit(self) -> None:
        """Take in what is added."""
        while True:
            while not self._any_new:
                await self._added.wait()
            self._any_new = False
            await self._until_it_works(self._take_new)
            await anyio.sleep(_BREATH)

    async def _take_new(self) -> None:
        full = True
        while full:
            newest = await self._store.last()
            rows = await self._store.pending(self._held, after=self._newest, limit=_PAGE)
            full = len(rows) == _PAGE
            await self._take_in(rows)
            self._newest = rows[-1].seq if full else newest

    async def _take_named(self, key: bytes) -> None:
        if key[0] in self._held or key[0] in self._released:  # who lets go of it still polls it
            rows = await self._store.named(key)
            await self._take_in(rows)
            for row in rows:
                if isinstance(row, Pending):
                    self._client.notify(row.ref)

    async def _take_in(self, rows: Iterable[Pending | Unreadable], *, spread: float = 0.0) -> None:
        now = self._watch.now().timestamp()
        terms: dict[tuple[bool, float | None], Terms] = {}
        broken: list[Unreadable] = []
        for place, row in enumerate(rows, 1):
            if place % _CHECKPOINT_ROWS == 0:
                await anyio.lowlevel.checkpoint()
            if isinstance(row, Unreadable):
                broken.append(row)
                continue
            ref, bucket = row.ref, row.bucket
            if ref in self._outbox or bucket not in self._held:
                continue
            end = None if row.deadline is None else row.added_at + row.deadline
            if (row.final, end) not in terms:
                terms[row.final, end] = self._terms(final=row.final, timeout=None if end is None else end - now)
            self._refs[bucket][ref] = row.seq
            # The clock of whoever added the job may be ahead of this one.
            delay = min(spread, self._pace(max(0.0, now - row.born_at), 0)) if spread else 0.0
            if end is not None:
                delay = max(0.0, min(delay, end - now))
            if ref not in self._scheduler:
                self._scheduler.add(ref, terms[row.final, end], first_after=random.uniform(0.0, delay))
        if broken:
            await self._until_it_works(partial(self._store.fail, broken, now))
            for unreadable in broken:
                logger.error("%s; the job has failed", unreadable.text)

    def _terms(self, *, final: bool, timeout: float | None) -> Terms:
        return Terms(
            until="final" if final else "complete",
            timeout=None if timeout is None else max(timeout, 0.001),
            pace=self._pace,
            backoff=_BACKOFF,
            max_failures=_NEVER,
            sits_out_outages=True,
        )

    async def _tick(self) -> None:
        """Let go of what did not come back, and look once more for rows that were committed late."""
        marks = [self._newest] * _SETTLED
        while True:
            await anyio.sleep(_TICK)
            now = anyio.current_time()
            for bucket in [bucket for bucket, at in self._released.items() if now - at > _LINGER]:
                del self._released[bucket]
                self._scheduler.discard(self._refs.pop(bucket, ()))
            marks.append(self._newest)
            settled = marks.pop(0)
            if settled > self._settled and self._leases is not None:
                await self._until_it_works(partial(self._take_late, settled))

    async def _take_late(self, settled: int) -> None:
        """Take in what was added before *settled* and committed after others."""
        while self._settled < settled:
            rows = await self._store.pending(self._held, after=self._settled, limit=_PAGE)
            await self._take_in(rows)
            self._settled = rows[-1].seq if len(rows) == _PAGE else settled

    # Outcomes

    async def _consume(self) -> None:
        async for outcome in self._scheduler.outcomes:
            key = key_of(outcome.ref)
            self._refs[key[0]].pop(outcome.ref, None)
            if isinstance(outcome.error, CredentialsError):
                # Not the job's fault. A second one in a row ends the shift.
                await self._until_it_works(partial(self._take_named, key))
                continue
            await self._outbox.put(ending_of(outcome, keep_raw=self._keep_raw))

    # The other workers

    async def _hear(self) -> None:
        lost: WatchListError | None = None
        while True:
            heard, first = await self._until_it_works(self._listen, lost=lost)
            async with aclosing(heard):
                try:
                    if lost is not None or self._store.is_shared:
                        await self._heed(first)
                    async for call in heard:
                        await self._heed(call)
                except WatchListError as error:
                    if not error.transient:
                        raise
                    lost = error

    async def _listen(self) -> tuple[AsyncGenerator[Call, None], Call]:
        heard = calls(self._store, self._watch.url)
        return heard, await anext(heard)

    async def _heed(self, call: Call) -> None:
        if isinstance(call, News):
            await self._until_it_works(partial(self._take_named, call.key))
        elif isinstance(call, Brake):
            if call.worker != self._name:
                trouble = RateLimitedError("another worker throttled", http_status=429, retry_after=call.seconds)
                self._scheduler.throttle(trouble)
        elif call == ADDED:
            if self._leases is not None:
                self._leases.sweep_soon()
            self._any_new = True
            self._added.set()
        else:
            self._must_look = True
            self._look_wanted.set()

    async def _look_again(self) -> None:
        while True:
            while not self._must_look:
                await self._look_wanted.wait()
            self._must_look = False
            await self._until_it_works(self._look)
            await anyio.sleep(_LOOK_PAUSE_SECONDS)

    async def _look(self) -> None:
        if await self._store.paused() is not None:
            self._polling.cancel()
            return
        if self._leases is not None:
            self._leases.sweep_soon()
        for bucket in list(self._held):
            await self._load(bucket)

    def _throttled(self, trouble: SmileJobsError) -> None:
        if trouble.http_status not in {429, 503}:
            return  # it may be this worker's own network
        self._shouts.append(str(Brake(self._name, trouble.retry_after or 0.0)))
        self._shouted.set()

    async def _shout(self) -> None:
        while True:
            while self._shouts:
                text = self._shouts.pop()
                self._shouts.clear()
                await self._until_it_works(partial(self._store.ring, text))
            await self._shouted.wait()


async def _prepare(leases: Leases) -> None:
    with translated():
        await leases.prepare()
