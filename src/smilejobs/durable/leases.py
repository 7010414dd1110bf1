"""Leases on the buckets of a watch list on PostgreSQL, by Procrastinate: which worker polls which bucket.

A worker holds the lease on a bucket while it runs the bucket's Procrastinate job. The work on a bucket is a function of
the caller, which knows nothing of Procrastinate, as this module knows nothing of jobs at Smile ID.

One worker is the *sweeper*. About once a second it ends the leases of dead workers, and enqueues every bucket that has
pending jobs and no holder. All four causes are handled the same way: a lease has expired, a worker has stopped, a job
was added, or a worker has crashed in between. The function *lead* says which worker is the sweeper; two at once do no
harm.

Procrastinate is used through its documented API only. It runs on asyncio only, and needs PostgreSQL 14 or newer,
without a pooler in between that shares sessions (LISTEN belongs to a session).
"""

import asyncio
import logging
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, suppress
from functools import partial
from typing import Any

import anyio
import psycopg
from attrs import define, field
from procrastinate import App, JobContext, PsycopgConnector
from procrastinate.exceptions import AlreadyEnqueued, ConnectorException
from procrastinate.jobs import Job, Status

from smilejobs.durable.database import OpenConnections, connection_options
from smilejobs.durable.failures import cause_of, describe, find_mismatch, retry_creation, translated
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
"""Effectively never: no job is aborted."""

_CONNECTIONS = 4
"""In the pool of a worker, at most."""

_PARALLEL_FINISHES = _CONNECTIONS - 1
"""Leases of dead workers that are ended at once; a connection is left for the signs of life."""

_HELD = (Status.TODO.value, Status.DOING.value)
"""The states of a job of Procrastinate whose bucket has a holder, or will have one at once."""

_BEATS = 5
"""Signs of life within a heartbeat, so that a late one costs no lease."""

_SWEEPER_BEATS = 3
"""A sweeper keeps its role for this many signs of life without renewing it."""

_LOGGERS = (f"procrastinate.worker.{_QUEUE}", "procrastinate.utils")
"""Those that report, with tracebacks, a database that is unavailable."""

_PAUSE = Backoff(min=0.2, max=2.0)
"""After a round that has failed, in seconds."""


@define(kw_only=True, eq=False, repr=False)
class Leases:
    """Shares the buckets of a watch list among its workers, each of which has one `Leases`.

    Attributes:
        url: The database, as ``postgresql://user:password@host/database``.
        work_on: Called with the number of a bucket. Entering begins the work on it, leaving ends it, and should not
            take long. An error costs the bucket a heartbeat, and is logged.
        pending: Returns the buckets that have pending jobs. It should answer within a second, and must within a
            heartbeat.
        lead: Returns whether this worker is the sweeper for so many seconds; called before each sweep, and with 0 when
            it is no longer.
        lease_duration: For how long a bucket is leased, in seconds, give or take a fifth, before any worker may lease
            it again.
        heartbeat: After how many seconds without a sign of life a worker counts as dead.
        tuning: Time limits.
    """

    url: str
    work_on: WorkOn
    pending: Callable[[], Awaitable[set[int]]]
    lead: Callable[[float], Awaitable[bool]]
    lease_duration: float
    heartbeat: float
    tuning: Tuning
    sweep_wanted: asyncio.Event = field(init=False, factory=asyncio.Event)
    workers: set[int | None] = field(init=False, factory=set)
    """Procrastinate's numbers of this worker, one for each round in which it has had a lease."""

    @property
    def beat(self) -> float:
        """Seconds between two signs of life."""
        return self.heartbeat / _BEATS

    async def prepare(self) -> None:
        """Create Procrastinate's tables if they are not there, in the schema of the watch list.

        Raises:
            WatchListError: The database cannot be used.
        """
        with translated():
            await self._probe()
            async with self._open_app() as app:
                await _create_tables(app)

    def sweep_soon(self) -> None:
        """Look now which buckets have no holder, rather than within a second: there may be new ones."""
        self.sweep_wanted.set()

    async def run(self) -> None:
        """Lease buckets and work on them, until cancelled; then give the leases back.

        An error of the database ends one round: the leases are given back, and the next round begins as soon as the
        database answers. Rounds that fail one after another with the same error are logged once.

        Raises:
            WatchListError: Procrastinate's tables are of another version.
        """
        failures, logged = 0, ""
        with without_errors():
            while True:
                began = anyio.current_time()
                mismatch, words = None, ""
                try:
                    await self._round()
                except Exception as error:  # noqa: BLE001  # a worker that has ended works on nothing
                    mismatch, words = find_mismatch(error), describe(error)
                if mismatch is not None:
                    raise mismatch
                if anyio.current_time() - began > self.heartbeat:
                    failures, logged = 0, ""
                level = logging.DEBUG if words == logged else logging.WARNING
                logger.log(level, "a worker of the watch list gives its leases back and starts anew: %s", words)
                failures, logged = failures + 1, words
                await anyio.sleep(_PAUSE(failures))

    async def _round(self) -> None:
        await self._probe()
        async with self._open_app() as app:
            await _Round(self, app).run()

    async def _probe(self) -> None:
        """Raise an error at once, with its reason, if the database is unavailable; a pool of connections would wait."""
        connection = await psycopg.AsyncConnection.connect(self.url, **self._connection_options())
        await connection.close()  # a context would commit first, and a cancellation of that leaves it open

    @asynccontextmanager
    async def _open_app(self) -> AsyncGenerator[App, None]:
        connections = OpenConnections()
        connector = PsycopgConnector(
            conninfo=self.url,
            kwargs=self._connection_options(),
            configure=connections.add,
            min_size=1,
            max_size=_CONNECTIONS,
            timeout=self.heartbeat,
            name=_QUEUE,
        )
        app = App(connector=connector)
        try:
            await app.open_async()
            yield app
        finally:
            try:
                with anyio.move_on_after(self.tuning.close_seconds, shield=True):
                    await app.close_async()  # waits for connections that are being opened
            finally:
                await connections.close()

    def _connection_options(self) -> dict[str, Any]:
        # A host that is cut off is noticed in time, where TCP can report it.
        timeout = {"tcp_user_timeout": round(self.heartbeat * 1000)}
        return connection_options(self.tuning) | {"application_name": "smilejobs leases"} | timeout


@define
class _Round:
    """A worker of Procrastinate, from its start to its end, and the task that watches it."""

    _leases: Leases
    _app: App
    _worker: int | None = field(init=False, default=None)
    """Procrastinate's number of this worker; None until it has a lease."""
    _held: dict[int, asyncio.Event] = field(init=False, factory=dict)
    """By the ids of Procrastinate's jobs: what ends a lease at once."""
    _unreleased: set[int | None] = field(init=False, factory=set)
    """Procrastinate's jobs whose leases had ended here, and not in the database, at the last check."""
    _is_leaving: bool = field(init=False, default=False)
    _is_sweeper: bool = field(init=False, default=False)
    _is_alive: bool = field(init=False, default=False)

    async def run(self) -> None:
        """Work on buckets until something fails, or this is cancelled; then give the leases back.

        Raises:
            Exception: What has failed.
        """
        leases = self._leases
        leave_seconds = min(leases.heartbeat, leases.tuning.stop_seconds / 2)
        self._app.task(name=_TASK, queue=_QUEUE, pass_context=True)(self.hold)
        working = asyncio.create_task(
            self._app.run_worker_async(
                queues=[_QUEUE],
                name=_QUEUE,
                concurrency=BUCKETS,  # with less, buckets would queue behind others for a whole lease
                fetch_job_polling_interval=min(1.0, leases.beat),  # for buckets that were enqueued before it listened
                abort_job_polling_interval=_NEVER_SECONDS,
                shutdown_graceful_timeout=leave_seconds / 2,  # heartbeats stop when it begins
                delete_jobs="always",
                install_signal_handlers=False,
                update_heartbeat_interval=leases.beat,
                stalled_worker_timeout=leases.heartbeat,
            )
        )
        watching = asyncio.create_task(self._watch())
        try:
            while True:
                done, _ = await asyncio.wait(
                    {working, watching}, timeout=leases.heartbeat - leases.beat, return_when=asyncio.FIRST_COMPLETED
                )
                for task in done:
                    task.result()
                if done or not self._is_alive:
                    raise TimeoutError("the database has not answered for most of a heartbeat")
                self._is_alive = False
        finally:
            self._end_leases(self._held)
            self._is_leaving = True
            with anyio.move_on_after(leave_seconds, shield=True):
                for task in (working, watching):
                    task.cancel()
                    task.add_done_callback(_retrieve_error)
                await asyncio.wait({working, watching})
                if self._is_sweeper:
                    with suppress(WatchListError):  # then it expires
                        await leases.lead(0.0)

    async def hold(self, context: JobContext, bucket: int) -> None:
        """Hold the lease on a bucket and work on it: what Procrastinate runs."""
        task, job = asyncio.current_task(), context.job.id
        assert task is not None
        assert job is not None
        task.add_done_callback(_retrieve_error)  # finishing it fails if it was taken back, or the database is away
        self._worker = context.job.worker_id
        self._leases.workers.add(self._worker)
        end = self._held[job] = asyncio.Event()
        if self._is_leaving:
            end.set()
        try:
            async with self._leases.work_on(bucket):
                with anyio.move_on_after(self._leases.lease_duration * random.uniform(0.8, 1.2)):
                    await end.wait()
        except Exception as error:  # noqa: BLE001  # a bucket that fails must not end the others
            logger.warning("a bucket of the watch list could not be worked on: %s", describe(error))
            with anyio.move_on_after(self._leases.heartbeat):
                await end.wait()
        finally:
            del self._held[job]

    def _end_leases(self, jobs: Iterable[int]) -> None:
        for job in jobs:
            self._held[job].set()

    async def _watch(self) -> None:
        """End leases that were taken back, and sweep if no other worker does."""
        leases = self._leases
        while True:
            held = set(self._held)
            found = await self._app.job_manager.list_jobs_async(queue=_QUEUE)
            jobs = {job.id: job for job in found if job.status in _HELD}
            await self._check(held & self._held.keys(), jobs)
            self._is_alive = True
            self._is_sweeper = await leases.lead(_SWEEPER_BEATS * leases.beat)
            if self._is_sweeper:
                await self._sweep(jobs)
            self._is_alive = True
            await asyncio.sleep(leases.beat / 10)  # many calls of sweep_soon() are few sweeps
            with anyio.move_on_after(leases.beat):
                await leases.sweep_wanted.wait()
            leases.sweep_wanted.clear()

    async def _check(self, held: set[int], jobs: dict[int | None, Job]) -> None:
        """End the leases that were taken back: this worker may have slept, or its heartbeats may have failed.

        Give back those that have ended here: the statement that does so may have failed, and a former round may have
        ended without the database. Procrastinate notices neither.

        Those that are given back are removed from *jobs*.

        Raises:
            TimeoutError: The whole worker counts as dead.
        """
        lost = {job for job in held if job not in jobs or jobs[job].worker_id != self._worker}
        if held and lost == held:
            raise TimeoutError("the database has had no sign of life from this worker for a heartbeat")
        self._end_leases(lost)
        ours = [job for job in jobs.values() if job.worker_id in self._leases.workers and job.id not in self._held]
        for job in ours:
            if job.worker_id != self._worker or job.id in self._unreleased:
                await end_lease(self._app, job)
                del jobs[job.id]
        self._unreleased = {job.id for job in ours}

    async def _sweep(self, jobs: dict[int | None, Job]) -> None:
        """End the leases of dead workers, and enqueue the buckets that have pending jobs and no holder."""
        manager, heartbeat = self._app.job_manager, self._leases.heartbeat
        stalled = list(await manager.get_stalled_jobs(queue=_QUEUE, seconds_since_heartbeat=heartbeat))
        parallel = anyio.Semaphore(_PARALLEL_FINISHES)

        async def finish(job: Job) -> None:
            async with parallel:
                await end_lease(self._app, job)

        await run_bare(*(partial(finish, job) for job in stalled))
        pending = await self._leases.pending()
        with_holder = {job.lock for job in jobs.values()}.difference(job.lock for job in stalled)
        new = [
            Job(queue=_QUEUE, task_name=_TASK, lock=lock, queueing_lock=lock, task_kwargs={"bucket": int(lock)})
            for lock in map(str, pending)
            if lock not in with_holder
        ]
        with suppress(AlreadyEnqueued):  # by a former sweeper, a moment ago; the next sweep sees it
            if new:
                await manager.batch_defer_jobs_async(new)


@retry_creation
async def _create_tables(app: App) -> None:
    if not await app.check_connection_async():
        await app.schema_manager.apply_schema_async()


@contextmanager
def without_errors() -> Generator[None, None, None]:
    """Silence Procrastinate's errors about the worker while the block runs: they are logged here, in one line each."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]

    def is_no_error(record: logging.LogRecord) -> bool:  # of its own: another worker of the process may end earlier
        return record.levelno < logging.WARNING

    for each in loggers:
        each.addFilter(is_no_error)
    try:
        yield
    finally:
        for each in loggers:
            each.removeFilter(is_no_error)


def _retrieve_error(task: asyncio.Task[Any]) -> None:
    """Retrieve the error of a task, so that asyncio does not log that it never was."""
    if not task.cancelled() and (error := task.exception()):
        logger.debug("a task of the watch list has failed: %s", describe(error))


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
