"""One connected stretch of a worker: from its start to its end, or to a pause of the list."""

from collections.abc import AsyncGenerator, Callable
from contextlib import ExitStack, aclosing, asynccontextmanager
from functools import partial

import anyio
from attrs import frozen

from smilejobs.client import Client
from smilejobs.durable.buckets import Buckets
from smilejobs.durable.health import ApiHealth, Reporter
from smilejobs.durable.leases import Leases, WorkOn
from smilejobs.durable.loading import Loader
from smilejobs.durable.notifications import ADDED, JobNews, Notification, ThrottleRequest, listen
from smilejobs.durable.outbox import Outbox
from smilejobs.durable.retrying import Retries
from smilejobs.durable.rows import key_of
from smilejobs.durable.schema import BUCKETS
from smilejobs.durable.watchlist import WatchList
from smilejobs.errors import CredentialsError, RateLimitedError, SmileJobsError, WatchListError
from smilejobs.model.jobs import JobRef
from smilejobs.notifications import Signal
from smilejobs.polling.pace import PaceFunction
from smilejobs.scheduler import Scheduler
from smilejobs.tasks import run_bare


@frozen(kw_only=True)
class SessionOptions:
    """The options of a worker, see `Worker`.

    Attributes:
        name: Of the worker, among all workers.
        pace: Between polls of a pending job.
        concurrency: How many polls may be under way at once.
        rate: Polls per second of all workers together; None for no limit.
        keep_raw: Store answers as they came.
        heartbeat: Seconds between two signs of life.
    """

    name: str
    pace: PaceFunction
    concurrency: int
    rate: float | None
    keep_raw: bool
    heartbeat: float


class Session:
    """Polls until the list is paused.

    Its parts: `Leases` says which *buckets* are polled here, the *loader* reads their rows, the *scheduler* polls their
    jobs, the *outbox* stores their outcomes.

    Args:
        client: Polls the API.
        watch: The watch list.
        options: Those of the worker.
        leases: Makes the `Leases` that share the buckets, from the work on one; None if there is one worker.
        api: Detects outages of the API.
        retries: Waits for the database.
    """

    def __init__(
        self,
        client: Client,
        watch: WatchList,
        options: SessionOptions,
        *,
        leases: Callable[[WorkOn], Leases] | None,
        api: ApiHealth,
        retries: Retries,
    ) -> None:
        self._client = client
        self._store = watch.store
        self._tuning = watch.store.tuning
        self._name = options.name
        self._retry = retries.while_unavailable
        self._leases = None if leases is None else leases(self.work_on)
        self._scheduler = Scheduler(
            client.engine,
            concurrency=options.concurrency,
            on_throttle=None if leases is None else self._on_throttle,
        )
        self._buckets = Buckets()
        self._outbox = Outbox(watch.store, watch.now, retries, keep_raw=options.keep_raw)
        self._loader = Loader(
            watch,
            self._buckets,
            self._outbox,
            self._scheduler,
            pace=options.pace,
            rate=options.rate,
            retries=retries,
        )
        self._reporter = Reporter(
            self._store,
            options.name,
            heartbeat=options.heartbeat,
            api=api,
            is_at_work=lambda: not (self._outbox.is_full or self._scheduler.is_stuck(options.heartbeat)),
            retries=retries,
        )
        self._jobs_added = _Request()
        self._look_wanted = _Request()
        self._throttled = _Request()
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
            await self._retry(self._leases.prepare)
        await self._retry(self._loader.start)
        async with self._scheduler.running():
            try:
                with self._polling:
                    await run_bare(
                        self._take_outcomes,
                        self._outbox.run,
                        self._receive_notifications,
                        self._load_new_jobs,
                        self._look_again,
                        self._reporter.run,
                        self._hold_buckets,
                        self._tick,
                        self._send_throttles,
                        self._limit_stop,
                    )
            finally:
                with self._stopping:
                    await self._outbox.store_all()
                    await self._retry(self._reporter.leave)
                    if self._leases is not None:  # so that the others look now for buckets without a holder
                        await self._retry(partial(self._store.notify, ADDED))

    async def _limit_stop(self) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            self._stopping.deadline = anyio.current_time() + self._tuning.stop_seconds

    # Buckets

    async def _hold_buckets(self) -> None:
        if self._leases is not None:
            await self._leases.run()
        else:
            with ExitStack() as stack:
                for bucket in range(BUCKETS):
                    stack.enter_context(self._buckets.holding(bucket))
                await self._retry(self._loader.load_all)
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
            await anyio.sleep(self._tuning.tick_seconds)
            self._scheduler.discard(self._buckets.forget(self._tuning.released_bucket_seconds))
            if self._leases is not None:
                self._loader.mark()
                await self._retry(self._loader.load_late)

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
            notifications, first = await self._retry(self._listen, lost=lost)
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
        refs: list[JobRef] = await self._retry(partial(self._loader.load_named, key))
        for ref in refs:
            self._client.notify(ref)

    async def _load_new_jobs(self) -> None:
        while True:
            await self._jobs_added.wait()
            await self._retry(self._loader.load_new)
            await anyio.sleep(self._tuning.new_jobs_seconds)

    async def _look_again(self) -> None:
        while True:
            await self._look_wanted.wait()
            await self._retry(self._look)
            await anyio.sleep(self._tuning.full_look_seconds)

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

    async def _send_throttles(self) -> None:
        while True:
            await self._throttled.wait()
            text = str(ThrottleRequest(self._name, self._pause_seconds))
            await self._retry(partial(self._store.notify, text))


class _Request:
    """Something to be done once, however often it is asked for meanwhile."""

    def __init__(self) -> None:
        self._is_set = False
        self._signal = Signal()

    def set(self) -> None:
        """Ask for it."""
        self._is_set = True
        self._signal.set()

    async def wait(self) -> None:
        """Return when it was asked for since the last return."""
        while not self._is_set:
            await self._signal.wait()
        self._is_set = False
