"""Who tends which bucket of a watch list on PostgreSQL: leases, by Procrastinate.

A bucket is tended by the worker that runs its Procrastinate job, for a slice of time. What the job does is a function
of the caller, which knows nothing of Procrastinate, as this module knows nothing of jobs at Smile ID.

One worker is the *sweeper*. About once a second it takes back the buckets of workers that have died, and enqueues every
bucket that has pending jobs and no holder. It treats a slice that has ended, a worker that has stopped, a job that was
added and a crash in between alike. The function *lead* says which worker it is; where two sweep at once, no harm is
done.

It runs on asyncio only, and needs PostgreSQL 14 or newer, without a pooler in between that shares sessions (LISTEN
belongs to a session).
"""

import asyncio
import logging
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, suppress
from typing import Any

import anyio
from attrs import define, field

try:
    import psycopg
    from procrastinate import App, JobContext, PsycopgConnector
    from procrastinate.exceptions import AlreadyEnqueued
    from procrastinate.jobs import Job
    from procrastinate.worker import Worker
    from psycopg.conninfo import conninfo_to_dict
except ImportError as error:
    raise ImportError("a watch list on PostgreSQL needs procrastinate: pip install 'smilejobs[durable]'") from error

from smilejobs.durable.database import connection_options
from smilejobs.durable.lease_tables import first, make_tables
from smilejobs.durable.schema import BUCKETS
from smilejobs.durations import seconds
from smilejobs.errors import SmileJobsError, WatchListError
from smilejobs.polling.pace import Backoff

logger = logging.getLogger("smilejobs")

Hold = Callable[[int], AbstractAsyncContextManager[None]]
"""Tends a bucket from entry to exit."""

_NAME = "smilejobs"
"""The queue."""

_TASK = "smilejobs.tend"

_LEAD_BEATS = 3
"""For how many beats a sweeper leads without renewing it."""

_NEVER_SECONDS = 10**6
"""Between two looks for jobs that are to be aborted: there are none."""

_LOGGERS = (f"procrastinate.worker.{_NAME}", "procrastinate.worker", "procrastinate.utils")
"""Those that report what this module reports itself: a database that is away."""

_BEATS = 5
"""Signs of life per heartbeat, so that one that is late costs nobody a bucket."""

_LEAVING, _CLOSING = 4.0, 1.0
"""Seconds for giving the buckets back, and then for closing connections, which a database that hangs would make longer;
what was not given back is taken back a heartbeat later."""

_PAUSE = Backoff(min=0.2, max=2.0)
"""After a failure, in seconds."""

_OURS = """
SELECT array_remove(array_agg(job.id), NULL) FROM procrastinate_workers worker
LEFT JOIN procrastinate_jobs job ON job.worker_id = worker.id AND job.status = 'doing'
WHERE worker.id = %(worker)s AND worker.last_heartbeat > now() - make_interval(secs => %(heartbeat)s)
GROUP BY worker.id
"""
_TAKE_BACK = """
DELETE FROM procrastinate_jobs job WHERE job.queue_name = %(queue)s AND job.status = 'doing' AND NOT EXISTS (
    SELECT FROM procrastinate_workers worker WHERE worker.id = job.worker_id
    AND worker.last_heartbeat > now() - make_interval(secs => %(heartbeat)s)
)
"""
"""A run of a dead worker is ended, never tried again: a retry keeps its id, and a worker that was only asleep could end
the run of its successor."""

_TENDED = "SELECT array_agg(lock) FROM procrastinate_jobs WHERE queue_name = %(queue)s AND status IN ('todo', 'doing')"


class Leases:
    """Shares the buckets of a watch list among its workers, each of which has one `Leases`.

    Args:
        url: The database, as ``postgresql://user:password@host/database``.
        hold: Called with the number of a bucket. Entering begins to tend it, leaving ends it, and should not take long.
            An error costs the bucket a heartbeat, and is logged.
        pending: Returns the buckets that have something to do. It should answer within a second, and must within a
            heartbeat.
        lead: Returns whether this worker is the sweeper for so many seconds; called before each sweep, and with 0 when
            it is no longer.
        slice: For how long a bucket is tended, in seconds, give or take a fifth, before anybody may have it.
        heartbeat: After how many seconds without a sign of life a worker counts as dead.

    Raises:
        TypeError: A duration that is no number.
        ValueError: A duration that is not more than 0, or a URL that cannot be read.
    """

    def __init__(
        self,
        url: str,
        *,
        hold: Hold,
        pending: Callable[[], Awaitable[set[int]]],
        lead: Callable[[float], Awaitable[bool]],
        slice: float = 60.0,  # noqa: A002  # the field's word
        heartbeat: float = 5.0,
    ) -> None:
        try:
            conninfo_to_dict(url)
        except psycopg.ProgrammingError:
            raise ValueError("this is no URL of a PostgreSQL database: write postgresql://user@host/database") from None
        self._url = url
        self._hold = hold
        self._pending = pending
        self._lead = lead
        self._slice = seconds(slice, "slice", zero=False)
        self._heartbeat = seconds(heartbeat, "heartbeat", zero=False)
        self._soon = asyncio.Event()
        self._left_behind: list[int] = []

    async def prepare(self) -> None:
        """Make Procrastinate's tables if they are not there, see `make_tables`."""
        await make_tables(self._url, self._heartbeat)

    def sweep_soon(self) -> None:
        """Look now which buckets nobody tends, rather than within a second: there may be new ones."""
        self._soon.set()

    async def run(self) -> None:
        """Take buckets and hold them, until cancelled; then leave them all and give them back.

        An error of the database ends no more than a round: the buckets are left, and the next round begins as soon as
        the database answers. What fails is logged, once for all rounds in a row that fail with the same.
        """
        failures, told = 0, ""
        with _quiet():
            while True:
                began = anyio.current_time()
                try:
                    await self._round()
                except Exception as error:  # noqa: BLE001  # whatever it is: a worker that has ended tends nothing
                    if anyio.current_time() - began > self._heartbeat:
                        failures, told = 0, ""
                    words = _words(error)
                    level = logging.DEBUG if words == told else logging.WARNING
                    logger.log(level, "a worker of the watch list leaves its buckets and starts anew: %s", words)
                    told = words
                failures += 1
                await anyio.sleep(_PAUSE(failures))

    async def _round(self) -> None:
        async with _session(self._url, self._heartbeat) as session, _app(self._url, self._heartbeat) as app:
            while self._left_behind:
                await app.job_manager.unregister_worker(self._left_behind[-1])
                self._left_behind.pop()
            a_round = _Round(
                app=app,
                session=session,
                hold=self._hold,
                pending=self._pending,
                lead=self._lead,
                slice=self._slice,
                heartbeat=self._heartbeat,
                soon=self._soon,
            )
            try:
                await a_round.run()
            finally:
                if a_round.worker.worker_id is not None:
                    self._left_behind.append(a_round.worker.worker_id)


@define(kw_only=True)
class _Round:
    """A worker of Procrastinate, from its start to its end, and what watches over it."""

    app: App
    session: psycopg.AsyncConnection
    hold: Hold
    pending: Callable[[], Awaitable[set[int]]]
    lead: Callable[[float], Awaitable[bool]]
    slice: float
    heartbeat: float
    soon: asyncio.Event
    worker: Worker = field(init=False)
    _held: dict[int, asyncio.Event] = field(init=False, factory=dict)
    """By the ids of Procrastinate's jobs: what ends a slice at once."""
    _leaving: bool = field(init=False, default=False)
    _leads: bool = field(init=False, default=False)
    _sure: bool = field(init=False, default=False)

    def __attrs_post_init__(self) -> None:
        self.app.task(name=_TASK, queue=_NAME, pass_context=True)(self.tend)
        self.worker = Worker(
            self.app,
            queues=[_NAME],
            name=_NAME,
            concurrency=BUCKETS,  # with less, buckets would queue behind others for a slice
            fetch_job_polling_interval=min(1.0, self.beat),  # what was handed out before it could listen
            abort_job_polling_interval=_NEVER_SECONDS,
            shutdown_graceful_timeout=self.leaving / 2,  # heartbeats stop when it begins
            delete_jobs="always",
            install_signal_handlers=False,
            update_heartbeat_interval=self.beat,
            stalled_worker_timeout=self.heartbeat,
        )

    @property
    def beat(self) -> float:
        return self.heartbeat / _BEATS

    @property
    def leaving(self) -> float:
        return min(self.heartbeat, _LEAVING)

    async def run(self) -> None:
        """Tend buckets until something fails, or this is cancelled; then leave them.

        Raises:
            Exception: What has failed.
        """
        working = asyncio.create_task(self.worker.run())  # type: ignore[no-untyped-call]  # procrastinate's omission
        watching = asyncio.create_task(self._watch())
        try:
            while True:
                done, _ = await asyncio.wait(
                    {working, watching}, timeout=self.heartbeat - self.beat, return_when=asyncio.FIRST_COMPLETED
                )
                for task in done:
                    task.result()
                if done or not self._sure:
                    raise TimeoutError("the database has not answered for most of a heartbeat")
                self._sure = False
        finally:
            self._leave(self._held)
            self._leaving = True
            with anyio.move_on_after(self.leaving, shield=True):
                for task in (working, watching):
                    task.cancel()
                    task.add_done_callback(_seen)
                await asyncio.wait({working, watching})
                if self._leads:
                    with suppress(WatchListError):  # then it expires
                        await self.lead(0.0)

    async def tend(self, context: JobContext, bucket: int) -> None:
        """Hold a bucket for a slice: what Procrastinate runs."""
        task, job = asyncio.current_task(), context.job.id
        assert task is not None
        assert job is not None
        task.add_done_callback(_seen)  # ending it fails if it was taken back, or if the database is gone
        end = self._held[job] = asyncio.Event()
        if self._leaving:
            end.set()
        try:
            async with self.hold(bucket):
                with anyio.move_on_after(self.slice * random.uniform(0.8, 1.2)):
                    await end.wait()
        except Exception as error:  # noqa: BLE001  # a bucket that cannot be tended must not end the others
            logger.warning("a bucket of the watch list could not be tended: %s", _words(error))
            with anyio.move_on_after(self.heartbeat):
                await end.wait()
        finally:
            del self._held[job]

    def _leave(self, jobs: Iterable[int]) -> None:
        for job in jobs:
            self._held[job].set()

    async def _watch(self) -> None:
        """Leave what is no longer ours, and sweep if no other worker does."""
        while True:
            await self._check()
            self._sure = True
            self._leads = await self.lead(_LEAD_BEATS * self.beat)
            if self._leads:
                await self._sweep()
            self._sure = True
            await asyncio.sleep(self.beat / 10)  # many calls of sweep_soon() are few sweeps
            with anyio.move_on_after(self.beat):
                await self.soon.wait()
            self.soon.clear()

    async def _check(self) -> None:
        """Leave the buckets that were taken back: this worker may have slept, or its heartbeats may have failed.

        Procrastinate does not notice either.

        Raises:
            TimeoutError: The whole worker counts as dead.
        """
        held = set(self._held)
        if self.worker.worker_id is None:  # not registered yet
            return
        ours = await first(self.session, _OURS, worker=self.worker.worker_id, heartbeat=self.heartbeat)
        if ours is None:
            raise TimeoutError("the database has not heard of this worker for a heartbeat")
        self._leave(held.difference(ours) & self._held.keys())

    async def _sweep(self) -> None:
        await self.session.execute(_TAKE_BACK, {"queue": _NAME, "heartbeat": self.heartbeat})
        pending = await self.pending()
        tended = await first(self.session, _TENDED, queue=_NAME)
        untended = pending.difference(map(int, tended or ()))
        jobs = [
            Job(queue=_NAME, task_name=_TASK, lock=lock, queueing_lock=lock, task_kwargs={"bucket": int(lock)})
            for lock in map(str, untended)
        ]
        with suppress(AlreadyEnqueued):  # by a sweeper that was, a moment ago; the next sweep sees it
            if jobs:
                await self.app.job_manager.batch_defer_jobs_async(jobs, self.session)


@asynccontextmanager
async def _session(url: str, heartbeat: float) -> AsyncGenerator[psycopg.AsyncConnection, None]:
    """Open the connection that watches."""
    session = await psycopg.AsyncConnection.connect(url, autocommit=True, **_connection(heartbeat))
    try:
        yield session
    finally:
        await session.close()


@asynccontextmanager
async def _app(url: str, heartbeat: float) -> AsyncGenerator[App, None]:
    """Open Procrastinate."""
    connector = PsycopgConnector(
        conninfo=url, kwargs=_connection(heartbeat), min_size=1, max_size=4, timeout=heartbeat, name=_NAME
    )
    app = App(connector=connector)
    try:
        await app.open_async()
        yield app
    finally:
        with anyio.move_on_after(_CLOSING, shield=True):
            await app.close_async()


def _connection(heartbeat: float) -> dict[str, Any]:
    # Where TCP can say so, a host that is cut off is noticed in time.
    return connection_options() | {"application_name": "smilejobs leases", "tcp_user_timeout": round(heartbeat * 1000)}


class _Reported(logging.Filter):
    """Lets through what is not about the worker of this module."""

    def filter(self, record: logging.LogRecord) -> bool:
        worker = getattr(record, "worker", None)
        is_ours = record.name != "procrastinate.worker" or (isinstance(worker, dict) and worker.get("name") == _NAME)
        return record.levelno < logging.WARNING or not is_ours


@contextmanager
def _quiet() -> Generator[None, None, None]:
    """Silence Procrastinate's errors while the block runs: this module logs what has failed, in one line."""
    reported = _Reported()
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    for each in loggers:
        each.addFilter(reported)
    try:
        yield
    finally:
        for each in loggers:
            each.removeFilter(reported)


def _seen(task: asyncio.Task[Any]) -> None:
    """Look at the end of a task, so that asyncio does not complain that nobody did."""
    if not task.cancelled() and (error := task.exception()):
        logger.debug("a task of the watch list has failed: %s", _words(error))


def _words(error: BaseException) -> str:
    """Say what has failed, in one line; without the text of errors that might quote a row."""
    cause = error.__cause__ or error
    told = isinstance(cause, (SmileJobsError, psycopg.OperationalError, TimeoutError, OSError))
    return " ".join(f"{type(cause).__name__}{f': {cause}' if told else ''}".split())
