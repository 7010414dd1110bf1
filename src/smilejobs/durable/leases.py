"""Leases on the buckets of a watch list on PostgreSQL, by Procrastinate: which worker polls which bucket.

A worker holds the lease on a bucket while it runs the bucket's Procrastinate job. The work on a bucket is a function of
the caller, which knows nothing of Procrastinate, as this module knows nothing of jobs at Smile ID.

One worker is the *sweeper*. About once a second it ends the leases of dead workers, and enqueues every bucket that has
pending jobs and no holder. So it treats a lease that has expired, a worker that has stopped, a job that was added and a
crash in between alike. The function *lead* says which worker is the sweeper; two at once do no harm.

Procrastinate is used through its documented API only. It runs on asyncio only, and needs PostgreSQL 14 or newer,
without a pooler in between that shares sessions (LISTEN belongs to a session).
"""

import asyncio
import logging
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from functools import partial
from typing import Any

import anyio
from attrs import define, field

try:
    import psycopg
    from procrastinate import App, JobContext, PsycopgConnector
    from procrastinate.exceptions import AlreadyEnqueued, ConnectorException
    from procrastinate.jobs import Job, Status
except ImportError as error:
    raise ImportError("a watch list on PostgreSQL needs procrastinate: pip install 'smilejobs[durable]'") from error

from smilejobs.durable.failures import CREATED_BY_OTHERS, sqlstate, translated
from smilejobs.durable.postgres import connection_options
from smilejobs.durable.procrastinate_errors import (
    cause_of,
    describe,
    driver_errors,
    find_mismatch,
    retrieve_error,
    without_errors_of,
)
from smilejobs.durable.schema import BUCKETS
from smilejobs.durable.tuning import Tuning
from smilejobs.errors import WatchListError
from smilejobs.events import logger
from smilejobs.polling.pace import Backoff
from smilejobs.tasks import run_bare

WorkOn = Callable[[int], AbstractAsyncContextManager[None]]
"""Works on a bucket, by its number, from entry to exit."""

_QUEUE = "smilejobs"
"""Of Procrastinate, and the name of its worker."""

_TASK = "smilejobs.work_on_bucket"

_NEVER_SECONDS = 10**6
"""Between two looks for jobs that are to be aborted: there are none."""

_CONNECTIONS = 4
"""In the pool of a worker, at most."""

_PARALLEL_FINISHES = _CONNECTIONS - 1
"""Leases of dead workers that are ended at once; a connection is left for the signs of life."""

_ATTEMPTS = 5
"""Tries to create the tables, where another worker creates them at the same time."""

_PAUSE = Backoff(min=0.2, max=2.0)
"""After a round that has failed, in seconds."""


class Leases:
    """Shares the buckets of a watch list among its workers, each of which has one `Leases`.

    Args:
        url: The database, as ``postgresql://user:password@host/database``.
        work_on: Called with the number of a bucket. Entering begins the work on it, leaving ends it, and should not
            take long. An error costs the bucket a heartbeat timeout, and is logged.
        pending: Returns the buckets that have pending jobs. It should answer within a second, and must within a
            heartbeat timeout.
        lead: Returns whether this worker is the sweeper for so many seconds; called before each sweep, and with 0 when
            it is no longer.
        lease_duration: For how long a bucket is leased, in seconds, give or take a fifth, before any worker may lease
            it again.
        heartbeat: After how many seconds without a sign of life a worker counts as dead.
        tuning: Other intervals.
    """

    def __init__(
        self,
        url: str,
        *,
        work_on: WorkOn,
        pending: Callable[[], Awaitable[set[int]]],
        lead: Callable[[float], Awaitable[bool]],
        lease_duration: float,
        heartbeat: float,
        tuning: Tuning,
    ) -> None:
        self._url = url
        self._work_on = work_on
        self._pending = pending
        self._lead = lead
        self._lease_duration = lease_duration
        self._heartbeat = heartbeat
        self._tuning = tuning
        self._sweep_wanted = asyncio.Event()
        self._former: set[int] = set()

    async def prepare(self) -> None:
        """Create Procrastinate's tables if they are not there, in the schema of the watch list.

        No lock is taken that another role of the database could hold: see `Database.prepare`.

        Raises:
            WatchListError: The database cannot be used.
        """
        with translated(), driver_errors():
            await self._probe()
            async with self._open_app() as app:
                left = _ATTEMPTS
                while not await app.check_connection_async():
                    left -= 1
                    try:
                        await app.schema_manager.apply_schema_async()
                    except ConnectorException as error:
                        if not left or sqlstate(cause_of(error)) not in CREATED_BY_OTHERS:
                            raise

    def sweep_soon(self) -> None:
        """Look now which buckets have no holder, rather than within a second: there may be new ones."""
        self._sweep_wanted.set()

    async def run(self) -> None:
        """Lease buckets and work on them, until cancelled; then give the leases back.

        An error of the database ends one round: the leases are given back, and the next round begins as soon as the
        database answers. Rounds that fail one after another with the same error are logged once.

        Raises:
            WatchListError: Procrastinate's tables are of another version.
        """
        failures, logged = 0, ""
        with without_errors_of(_QUEUE):
            while True:
                began = anyio.current_time()
                mismatch = None
                try:
                    await self._round()
                except Exception as error:  # noqa: BLE001  # a worker that has ended works on nothing
                    mismatch = find_mismatch(error)
                    if mismatch is None:
                        if anyio.current_time() - began > self._heartbeat:
                            failures, logged = 0, ""
                        words = describe(error)
                        level = logging.DEBUG if words == logged else logging.WARNING
                        logger.log(level, "a worker of the watch list gives its leases back and starts anew: %s", words)
                        logged = words
                if mismatch is not None:
                    raise mismatch
                failures += 1
                await anyio.sleep(_PAUSE(failures))

    async def _round(self) -> None:
        await self._probe()
        async with self._open_app() as app:
            for worker in list(self._former):
                for job in await app.job_manager.list_jobs_async(queue=_QUEUE, status="doing", worker_id=worker):
                    await end_lease(app, job)
                self._former.discard(worker)
            a_round = _Round(
                app=app,
                work_on=self._work_on,
                pending=self._pending,
                lead=self._lead,
                lease_duration=self._lease_duration,
                heartbeat=self._heartbeat,
                tuning=self._tuning,
                sweep_wanted=self._sweep_wanted,
            )
            try:
                await a_round.run()
            finally:
                if a_round.worker_id is not None:
                    self._former.add(a_round.worker_id)

    async def _probe(self) -> None:
        """Raise an error at once, with its reason, if the database is unavailable; a pool of connections would wait."""
        async with await psycopg.AsyncConnection.connect(self._url, **self._connection_options()):
            pass

    @asynccontextmanager
    async def _open_app(self) -> AsyncGenerator[App, None]:
        connector = PsycopgConnector(
            conninfo=self._url,
            kwargs=self._connection_options(),
            min_size=1,
            max_size=_CONNECTIONS,
            timeout=self._heartbeat,
            name=_QUEUE,
        )
        app = App(connector=connector)
        try:
            await app.open_async()
            yield app
        finally:
            with anyio.move_on_after(self._tuning.close_seconds, shield=True):
                await app.close_async()

    def _connection_options(self) -> dict[str, Any]:
        # A host that is cut off is noticed in time, where TCP can report it.
        timeout = {"tcp_user_timeout": round(self._heartbeat * 1000)}
        return connection_options(self._tuning) | {"application_name": "smilejobs leases"} | timeout


@define(kw_only=True)
class _Round:
    """A worker of Procrastinate, from its start to its end, and the task that watches it.

    Attributes:
        worker_id: Procrastinate's number of this worker; None until it has a lease.
    """

    app: App
    work_on: WorkOn
    pending: Callable[[], Awaitable[set[int]]]
    lead: Callable[[float], Awaitable[bool]]
    lease_duration: float
    heartbeat: float
    tuning: Tuning
    sweep_wanted: asyncio.Event
    worker_id: int | None = field(init=False, default=None)
    _held: dict[int, asyncio.Event] = field(init=False, factory=dict)
    """By the ids of Procrastinate's jobs: what ends a lease at once."""
    _unreleased: set[int | None] = field(init=False, factory=set)
    """Procrastinate's jobs whose leases had ended here, and not in the database, at the last check."""
    _is_leaving: bool = field(init=False, default=False)
    _is_sweeper: bool = field(init=False, default=False)
    _is_alive: bool = field(init=False, default=False)

    @property
    def beat(self) -> float:
        """Seconds between two signs of life."""
        return self.heartbeat / self.tuning.heartbeats_per_timeout

    @property
    def leave_seconds(self) -> float:
        return min(self.heartbeat, self.tuning.leave_seconds)

    async def run(self) -> None:
        """Work on buckets until something fails, or this is cancelled; then give the leases back.

        Raises:
            Exception: What has failed.
        """
        self.app.task(name=_TASK, queue=_QUEUE, pass_context=True)(self.hold)
        working = asyncio.create_task(
            self.app.run_worker_async(
                queues=[_QUEUE],
                name=_QUEUE,
                concurrency=BUCKETS,  # with less, buckets would queue behind others for a whole lease
                fetch_job_polling_interval=min(1.0, self.beat),  # for buckets that were enqueued before it listened
                abort_job_polling_interval=_NEVER_SECONDS,
                shutdown_graceful_timeout=self.leave_seconds / 2,  # heartbeats stop when it begins
                delete_jobs="always",
                install_signal_handlers=False,
                update_heartbeat_interval=self.beat,
                stalled_worker_timeout=self.heartbeat,
            )
        )
        watching = asyncio.create_task(self._watch())
        try:
            while True:
                done, _ = await asyncio.wait(
                    {working, watching}, timeout=self.heartbeat - self.beat, return_when=asyncio.FIRST_COMPLETED
                )
                for task in done:
                    task.result()
                if done or not self._is_alive:
                    raise TimeoutError("the database has not answered for most of a heartbeat timeout")
                self._is_alive = False
        finally:
            self._end_leases(self._held)
            self._is_leaving = True
            with anyio.move_on_after(self.leave_seconds, shield=True):
                for task in (working, watching):
                    task.cancel()
                    task.add_done_callback(retrieve_error)
                await asyncio.wait({working, watching})
                if self._is_sweeper:
                    with suppress(WatchListError):  # then it expires
                        await self.lead(0.0)

    async def hold(self, context: JobContext, bucket: int) -> None:
        """Hold the lease on a bucket and work on it: what Procrastinate runs."""
        task, job = asyncio.current_task(), context.job.id
        assert task is not None
        assert job is not None
        task.add_done_callback(retrieve_error)  # finishing it fails if it was taken back, or the database is away
        self.worker_id = context.job.worker_id
        end = self._held[job] = asyncio.Event()
        if self._is_leaving:
            end.set()
        try:
            async with self.work_on(bucket):
                with anyio.move_on_after(self.lease_duration * random.uniform(0.8, 1.2)):
                    await end.wait()
        except Exception as error:  # noqa: BLE001  # a bucket that fails must not end the others
            logger.warning("a bucket of the watch list could not be worked on: %s", describe(error))
            with anyio.move_on_after(self.heartbeat):
                await end.wait()
        finally:
            del self._held[job]

    def _end_leases(self, jobs: Iterable[int]) -> None:
        for job in jobs:
            self._held[job].set()

    async def _watch(self) -> None:
        """End leases that were taken back, and sweep if no other worker does."""
        while True:
            stalled = await self.app.job_manager.get_stalled_jobs(queue=_QUEUE, seconds_since_heartbeat=self.heartbeat)
            await self._check({job.id for job in stalled})
            self._is_alive = True
            self._is_sweeper = await self.lead(self.tuning.sweeper_beats * self.beat)
            if self._is_sweeper:
                await self._sweep(stalled)
            self._is_alive = True
            await asyncio.sleep(self.beat / 10)  # many calls of sweep_soon() are few sweeps
            with anyio.move_on_after(self.beat):
                await self.sweep_wanted.wait()
            self.sweep_wanted.clear()

    async def _check(self, stalled: set[int | None]) -> None:
        """End the leases that were taken back: this worker may have slept, or its heartbeats may have failed.

        Give back those that have ended here: the statement that does so may have failed. Procrastinate notices neither.

        Raises:
            TimeoutError: The whole worker counts as dead.
        """
        if self.worker_id is None:
            return
        held = set(self._held)
        if held & stalled:
            raise TimeoutError("the database has had no sign of life from this worker for a heartbeat timeout")
        jobs = await self.app.job_manager.list_jobs_async(queue=_QUEUE, status="doing", worker_id=self.worker_id)
        self._end_leases(held.difference(job.id for job in jobs) & self._held.keys())
        unreleased = {job.id: job for job in jobs if job.id not in self._held}
        with anyio.move_on_after(self.beat):
            for number in unreleased.keys() & self._unreleased:  # others are being finished at this moment
                await end_lease(self.app, unreleased[number])
        self._unreleased = set(unreleased)

    async def _sweep(self, stalled: Iterable[Job]) -> None:
        parallel = anyio.Semaphore(_PARALLEL_FINISHES)

        async def finish(job: Job) -> None:
            async with parallel:
                await end_lease(self.app, job)

        await run_bare(*(partial(finish, job) for job in stalled))
        pending = await self.pending()
        jobs = await self.app.job_manager.list_jobs_async(queue=_QUEUE)
        with_holder = {job.lock for job in jobs if job.status in {Status.TODO.value, Status.DOING.value}}
        new = [
            Job(queue=_QUEUE, task_name=_TASK, lock=lock, queueing_lock=lock, task_kwargs={"bucket": int(lock)})
            for lock in map(str, pending)
            if lock not in with_holder
        ]
        with suppress(AlreadyEnqueued):  # by a former sweeper, a moment ago; the next sweep sees it
            if new:
                await self.app.job_manager.batch_defer_jobs_async(new)


async def end_lease(app: App, job: Job) -> None:
    """End the lease of a dead worker, if it has not ended meanwhile.

    It is never retried: a retry keeps its id, and a worker that was only asleep could end the lease of its successor.

    Raises:
        ConnectorException: The database cannot be used.
    """
    try:
        await app.job_manager.finish_job(job, Status.ABORTED, delete_job=True)
    except ConnectorException as error:
        if not isinstance(cause_of(error), psycopg.errors.RaiseException):  # there is no such job
            raise
