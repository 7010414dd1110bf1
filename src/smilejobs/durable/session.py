"""The polling of a worker between two pauses of the list, also across losses of its connection to the database."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import ExitStack, aclosing, asynccontextmanager
from functools import partial

import anyio

from smilejobs.client import Client
from smilejobs.durable.buckets import Buckets
from smilejobs.durable.health import ApiHealth, Reporter
from smilejobs.durable.learning import Learning
from smilejobs.durable.leases import Leases
from smilejobs.durable.loading import Loader
from smilejobs.durable.named_leases import SWEEPER
from smilejobs.durable.notifications import JobNews, Notification, ThrottleRequest, listen
from smilejobs.durable.outbox import Outbox
from smilejobs.durable.rows import key_of
from smilejobs.durable.schema import BUCKETS
from smilejobs.durable.store import ADDED
from smilejobs.durable.watchlist import WatchList
from smilejobs.errors import CredentialsError, RateLimitedError, SmileJobsError, WatchListError
from smilejobs.model.jobs import JobRef
from smilejobs.polling.pace import PaceFunction
from smilejobs.scheduler import Scheduler
from smilejobs.tasks import run_bare

_TICK_SECONDS = 0.5
"""Between two clean-ups of released buckets."""

_NEW_JOBS_SECONDS = 0.1
"""Between two reads for new jobs, at least."""

_FULL_LOOK_SECONDS = 0.5
"""Between two reads of all buckets, at least: any role of the database can ask for one."""


class Session:
    """Polls until the list is paused, or the API refuses the credentials.

    Its parts: `Leases` says which *buckets* are polled here, the *loader* reads their rows, the *scheduler* polls their
    jobs, the *outbox* stores their outcomes.

    The *name* is that of the worker, *learning* is None for a pace that does not learn. For the other arguments see
    `smilejobs.durable.Worker`; durations are in seconds.
    """

    def __init__(
        self,
        client: Client,
        watch: WatchList,
        *,
        name: str,
        api: ApiHealth,
        learning: Learning | None,
        pace: PaceFunction,
        concurrency: int,
        keep_raw: bool,
        lease_duration: float,
        heartbeat: float,
    ) -> None:
        store = watch.store
        self._client = client
        self._store = store
        self._name = name
        self._learning = learning
        self._leases = None
        if store.is_shared:
            self._leases = Leases(
                url=watch.url,
                work_on=self.work_on,
                pending=store.buckets,
                lead=partial(store.leases.acquire, SWEEPER, name),
                lease_duration=lease_duration,
                heartbeat=heartbeat,
                tuning=store.tuning,
            )
        on_throttle = self._on_throttle if store.is_shared else None
        self._scheduler = Scheduler(client.engine, concurrency=concurrency, on_throttle=on_throttle)
        self._buckets = Buckets()
        self._outbox = Outbox(store=store, now=watch.now, keep_raw=keep_raw)
        self._loader = Loader(
            store=store,
            now=watch.now,
            buckets=self._buckets,
            outbox=self._outbox,
            scheduler=self._scheduler,
            pace=pace,
            rate=client.engine.exchange.rate,
        )
        self._reporter = Reporter(
            store=store,
            name=name,
            interval=heartbeat,
            api=api,
            is_at_work=lambda: not (self._outbox.is_full or self._scheduler.is_stuck(heartbeat)),
        )
        self._jobs_added = asyncio.Event()
        self._look_wanted = asyncio.Event()
        self._throttled = asyncio.Event()
        self._pause_seconds = 0.0
        self._polling = anyio.CancelScope()
        self._stopping = anyio.CancelScope(shield=True)

    async def run(self) -> None:
        """Poll until cancelled, or until the list is paused; then store the outcomes that are known.

        Raises:
            CredentialsError: The API refuses the credentials.
            WatchListError: The database cannot be used.
        """
        if self._leases is not None:
            await self._store.retry(self._leases.prepare)
        learn: tuple[Callable[[], Awaitable[None]], ...] = ()
        if self._learning is not None:
            await self._learning.sync()
            learn = (self._learning.run,)
        await self._store.retry(self._loader.start)
        async with self._scheduler.running():
            try:
                with self._polling:
                    await run_bare(
                        self._take_outcomes,
                        self._outbox.run,
                        self._receive_notifications,
                        partial(self._repeat, self._jobs_added, self._loader.load_new, _NEW_JOBS_SECONDS),
                        partial(self._repeat, self._look_wanted, self._look, _FULL_LOOK_SECONDS),
                        self._reporter.run,
                        self._hold_buckets,
                        self._tick,
                        partial(self._repeat, self._throttled, self._send_throttle, 0.0),
                        self._limit_stop,
                        *learn,
                    )
            finally:
                with self._stopping:
                    await self._outbox.store_all()
                    await self._store.retry(self._reporter.leave)
                    if self._store.is_shared:  # so that the others look now for buckets without a holder
                        await self._store.retry(partial(self._store.notify, ADDED))
                    if self._learning is not None:
                        await self._learning.sync()

    async def _limit_stop(self) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            self._stopping.deadline = anyio.current_time() + self._store.tuning.stop_seconds

    # Buckets

    async def _hold_buckets(self) -> None:
        if self._leases is not None:
            await self._leases.run()
        else:
            with ExitStack() as stack:
                for bucket in range(BUCKETS):
                    stack.enter_context(self._buckets.holding(bucket))
                await self._store.retry(self._loader.load_all)
                await anyio.sleep_forever()

    @asynccontextmanager
    async def work_on(self, bucket: int) -> AsyncGenerator[None, None]:
        """Poll the jobs of a bucket while the block runs."""
        with self._buckets.holding(bucket):
            await self._loader.load(bucket)
            yield

    async def _tick(self) -> None:
        """Forget buckets whose leases did not come back, and load rows that were committed late."""
        while True:
            await anyio.sleep(_TICK_SECONDS)
            self._scheduler.discard(self._buckets.forget(self._store.tuning.released_bucket_seconds))
            if self._store.is_shared:
                await self._loader.load_late()

    # Outcomes

    async def _take_outcomes(self) -> None:
        async for outcome in self._scheduler.outcomes:
            self._buckets.remove(outcome.ref)
            if isinstance(outcome.error, CredentialsError):
                # The job is polled again. A second one in a row ends the session.
                await self._poll_named(key_of(outcome.ref))
            else:
                await self._outbox.put(outcome)

    # Notifications

    async def _receive_notifications(self) -> None:
        lost: WatchListError | None = None
        while True:
            notifications, first = await self._store.retry(self._listen, lost=lost)
            async with aclosing(notifications):
                try:
                    if lost is not None or self._store.is_shared:
                        await self._receive(first)
                    while True:
                        await self._receive(await anext(notifications))
                except WatchListError as error:
                    if not error.transient:
                        raise
                    lost = error

    async def _listen(self) -> tuple[AsyncGenerator[Notification, None], Notification]:
        notifications = listen(self._store)
        return notifications, await anext(notifications)

    async def _receive(self, notification: Notification) -> None:
        if isinstance(notification, JobNews):
            await self._poll_named(notification.key)
        elif isinstance(notification, ThrottleRequest):
            if notification.worker != self._name:
                self._scheduler.throttle(
                    RateLimitedError("another worker throttled", http_status=429, retry_after=notification.seconds)
                )
        elif notification == ADDED:
            if self._leases is not None:
                self._leases.sweep_soon()
            self._jobs_added.set()
        else:
            self._look_wanted.set()

    async def _poll_named(self, key: bytes) -> None:
        refs: list[JobRef] = await self._store.retry(partial(self._loader.load_named, key))
        for ref in refs:
            self._client.notify(ref)

    async def _repeat(self, wanted: asyncio.Event, work: Callable[[], Awaitable[None]], seconds: float) -> None:
        """Do *work* when it is wanted, once however often it is asked for; then rest for so many seconds."""
        while True:
            await wanted.wait()
            wanted.clear()
            await self._store.retry(work)
            await anyio.sleep(seconds)

    async def _look(self) -> None:
        if await self._store.paused() is not None:
            self._polling.cancel()
            return
        if self._leases is not None:
            self._leases.sweep_soon()
        for bucket in list(self._buckets.held):
            await self._loader.load(bucket)

    def _on_throttle(self, error: SmileJobsError) -> None:
        if error.http_status in {429, 503}:  # else it may be this worker's own network
            self._pause_seconds = error.retry_after or 0.0
            self._throttled.set()

    async def _send_throttle(self) -> None:
        await self._store.notify(str(ThrottleRequest(self._name, self._pause_seconds)))
