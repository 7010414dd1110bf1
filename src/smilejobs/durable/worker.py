"""A worker polls the jobs of a watch list, in sessions that end when the list is paused.

All that must survive is in the database, and the pace of a job depends on its age alone: a worker that is killed loses
the polls in flight, and the next one computes from the row when a job is due.
"""

import secrets
from collections.abc import Generator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path

import anyio
from filelock import FileLock, Timeout

from smilejobs.client import Client
from smilejobs.durable.health import ApiHealth
from smilejobs.durable.learning import Learning
from smilejobs.durable.session import Session
from smilejobs.durable.shared_rate import SharedRate
from smilejobs.durable.watchlist import WatchList
from smilejobs.durations import Duration, seconds
from smilejobs.errors import CredentialsError, SmileJobsError, WatchListError
from smilejobs.events import Hooks, logger
from smilejobs.model.jobs import Include, JobRef
from smilejobs.polling.learned_pace import LearnedPace
from smilejobs.polling.pace import Pace, PaceFunction
from smilejobs.polling.rules import Terms
from smilejobs.wire.protocol import accepts_credentials

DEFAULT_PACE = Pace(max=3600.0)
"""A job is polled every second at first, and every hour when it is seven hours old."""

_NO_JOB = JobRef("smilejobs", "credentials")
"""A job that does not exist: the API says so if it accepts the credentials."""

_ATTEMPTS = 3
"""Tries of credentials that were refused, within a heartbeat, before the list is paused: one server of many may be
wrong."""


class Worker:
    """Polls the jobs of a watch list, alone (SQLite) or beside other workers (PostgreSQL).

    ::

        async with smilejobs.Client.from_env() as client, WatchList.open(url) as watch:
            await Worker(client, watch).run()

    On PostgreSQL, the client's ``rate`` is that of all workers together: give each the same.

    Args:
        client: Polls the API; it should have nothing else to do.
        watch: The watch list.
        pace: Between polls of a pending job, by its age; None for ``Pace(max=3600)``, by which a job is polled
            every second at first and every hour when it is seven hours old. With a `LearnedPace`, for which
            ``LearnedPace(base=Pace(max=3600))`` begins like that, the workers learn how long jobs take: what each of
            them sees goes into the watch list about once a minute, and all poll by it, also after a restart. The one
            given here is used until the list has learned something, and is not changed. Afterwards only its base and
            its lateness count.
        concurrency: How many polls may be under way at once, at most the client's ``max_connections``,
            which is also the default.
        keep_raw: Store the last answer of each job as it came, with personal data and links that expire.
        lease_duration: On PostgreSQL, for how many seconds (or a timedelta) a worker holds the lease on a share of the
            jobs: a new worker has its part after two of these.
        heartbeat: On PostgreSQL, after how many seconds (or a timedelta) without a sign of life a worker counts as
            dead. On both, how often it reports that it is at work, and for how long polls must fail before that counts
            as an outage of the API.
        learn: Whether what a `LearnedPace` learns goes into the watch list. With False, the worker neither reads nor
            writes what is there: the pace given here learns from this worker's waits alone.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument is invalid.
    """

    def __init__(
        self,
        client: Client,
        watch: WatchList,
        *,
        pace: PaceFunction | None = None,
        concurrency: int | None = None,
        keep_raw: bool = False,
        lease_duration: Duration = 60.0,
        heartbeat: Duration = 5.0,
        learn: bool = True,
    ) -> None:
        self._exchange = client.engine.exchange
        self._watch = watch
        self._heartbeat = seconds(heartbeat, "heartbeat", zero=False)
        self._api = ApiHealth(self._heartbeat)
        learning = None
        if learn and isinstance(pace, LearnedPace):
            store = watch.store
            learning = Learning(store.learned, pace, store.retry, store.tuning.sync_pace_seconds)
            pace = learning.pace
        self._session = partial(
            Session,
            client,
            watch,
            name=secrets.token_hex(4),
            api=self._api,
            learning=learning,
            pace=Terms(pace=DEFAULT_PACE if pace is None else pace).pace,
            concurrency=client.engine.concurrency(concurrency),
            keep_raw=keep_raw,
            lease_duration=seconds(lease_duration, "lease_duration", zero=False),
            heartbeat=self._heartbeat,
        )

    async def run(self) -> None:
        """Poll until cancelled; then store what is known and give all leases back, within 10 s if PostgreSQL hangs.

        An outage of the API, of any length and kind, ends nothing: see `WatchList.counts`.

        While the database cannot be reached, nothing is polled. When the API refuses the credentials, the whole list is
        paused: `WatchList.counts` says why, and any worker whose credentials are accepted ends the pause. If it refuses
        them only now and then, this worker rests for a part of a heartbeat each time.

        Raises:
            WatchListError: The database cannot be used, or another worker uses this SQLite file.
            RuntimeError: The client is closed, or belongs to another event loop.
        """
        exchange, store = self._exchange, self._watch.store
        emit, permits = exchange.emit, exchange.permits
        exchange.emit = Hooks((emit, self._api))
        if store.is_shared and exchange.rate is not None:
            exchange.permits = SharedRate(store, exchange.rate)
        try:
            with nullcontext() if store.is_shared else _locked(self._watch.path):
                await self._run()
        finally:
            exchange.emit, exchange.permits = emit, permits

    async def _run(self) -> None:
        store = self._watch.store
        refused = False
        while True:
            await self._until_accepted(refused=refused)
            try:
                await self._session().run()
            except CredentialsError as error:
                why = str(error)
                refused = await self._is_refused()
                if not refused:
                    logger.warning("the API accepts the credentials, and refused them a moment ago: %s", why)
                    continue
                logger.error(
                    "the API refuses the credentials, so the whole watch list is paused: %s", why
                )  # the traceback says nothing more
                await store.retry(partial(store.pause, why))

    async def _is_refused(self) -> bool:
        """Return whether credentials that were refused are refused again in further tries."""
        for _ in range(_ATTEMPTS):
            await anyio.sleep(self._heartbeat / _ATTEMPTS)
            if await self._is_accepted():
                return False
        return True

    async def _until_accepted(self, *, refused: bool) -> None:
        """Return when the list is not paused, and the API accepts the credentials if it has *refused* them before."""
        store = self._watch.store
        while (paused := await store.retry(store.paused) is not None) or refused:
            if await self._is_accepted():
                logger.info("the API accepts the credentials: the watch list goes on")
                if paused:
                    await store.retry(partial(store.pause, None))
                return
            await anyio.sleep(self._heartbeat)

    async def _is_accepted(self) -> bool:
        try:
            await self._exchange.poll(_NO_JOB, Include())
        except SmileJobsError as error:
            return accepts_credentials(error)
        return True


@contextmanager
def _locked(path: str) -> Generator[None, None, None]:
    """Lock a SQLite file for one worker; the operating system releases the lock however the process ends.

    Raises:
        WatchListError: Another worker has locked it.
    """
    lock = FileLock(f"{Path(path).resolve()}-worker")  # the same by all its names
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise WatchListError(
            "another worker polls this watch list; on SQLite there can be one, on PostgreSQL as many as you like"
        ) from None
    except OSError as error:
        raise WatchListError(f"no worker can write beside this SQLite file: {error.strerror}") from None
    try:
        yield
    finally:
        lock.release()
