"""A worker polls the jobs of a watch list, in sessions that end when the list is paused.

The database holds the truth, and the pace of a job depends on its age alone: a worker that is killed loses the polls in
flight, and the next one computes from the row when a job is due.
"""

import secrets
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import anyio
from filelock import FileLock, Timeout

from smilejobs.client import Client
from smilejobs.durable.health import ApiHealth
from smilejobs.durable.leases import Leases, WorkOn
from smilejobs.durable.named_leases import SWEEPER
from smilejobs.durable.retrying import Retries
from smilejobs.durable.session import Session, SessionOptions
from smilejobs.durable.shared_rate import SharedRate
from smilejobs.durable.watchlist import WatchList
from smilejobs.durations import Duration, seconds
from smilejobs.errors import CredentialsError, SmileJobsError, WatchListError
from smilejobs.events import Hooks, logger
from smilejobs.model.jobs import Include, JobRef
from smilejobs.polling.pace import Pace, PaceFunction
from smilejobs.polling.rules import Terms
from smilejobs.wire.protocol import accepts_credentials

_NO_JOB = JobRef("smilejobs", "credentials")
"""A job that does not exist: the API says so if it accepts the credentials."""


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
            every second at first and every hour when it is seven hours old.
        concurrency: How many polls may be under way at once, at most the client's ``max_connections``, which None
            stands for.
        keep_raw: Store the last answer of each job as it came, with personal data and links that expire.
        lease_duration: On PostgreSQL, for how many seconds (or a timedelta) a worker holds the lease on a share of the
            jobs: a new worker has its part after two of these.
        heartbeat: On PostgreSQL, after how many seconds (or a timedelta) without a sign of life a worker counts as
            dead. On both, how often it reports that it is at work, and for how long polls must fail before that counts
            as an outage of the API.

    Raises:
        TypeError: An argument of the wrong type.
        ValueError: An argument that can never be right.
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
    ) -> None:
        self._client = client
        self._exchange = client.engine.exchange
        self._watch = watch
        self._tuning = watch.store.tuning
        self._lease_duration = seconds(lease_duration, "lease_duration", zero=False)
        self._options = SessionOptions(
            name=secrets.token_hex(4),
            pace=Terms(pace=Pace(max=3600.0) if pace is None else pace).pace,
            concurrency=client.engine.concurrency(concurrency),
            rate=self._exchange.rate,
            keep_raw=keep_raw,
            heartbeat=seconds(heartbeat, "heartbeat", zero=False),
        )
        self._api = ApiHealth(self._options.heartbeat, self._tuning)
        self._retries = Retries()

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
        exchange = self._exchange
        emit = exchange.emit
        exchange.emit = Hooks((emit, self._api))
        try:
            if self._watch.store.is_shared:
                await self._run_beside_others()
            else:
                with _locked(self._watch.path):
                    await self._run(None)
        finally:
            exchange.emit = emit

    async def _run_beside_others(self) -> None:
        exchange = self._exchange
        permits = exchange.permits
        if exchange.rate is not None:
            exchange.permits = SharedRate(self._watch.store, exchange.rate, self._retries)
        try:
            await self._run(self._share_buckets)
        finally:
            exchange.permits = permits

    def _share_buckets(self, work_on: WorkOn) -> Leases:
        return Leases(
            self._watch.url,
            work_on=work_on,
            pending=self._watch.store.buckets,
            lead=partial(self._watch.store.leases.acquire, SWEEPER, self._options.name),
            lease_duration=self._lease_duration,
            heartbeat=self._options.heartbeat,
            tuning=self._tuning,
        )

    async def _run(self, leases: Callable[[WorkOn], Leases] | None) -> None:
        refused = False
        while True:
            await self._until_accepted(refused=refused)
            try:
                await Session(
                    self._client, self._watch, self._options, leases=leases, api=self._api, retries=self._retries
                ).run()
            except CredentialsError as error:
                why = str(error)
                refused = await self._is_refused()
                if not refused:
                    logger.warning("the API accepts the credentials, and refused them a moment ago: %s", why)
                    continue
                logger.error(
                    "the API refuses the credentials, so the whole watch list is paused: %s", why
                )  # the traceback says nothing more
                await self._retries.while_unavailable(partial(self._watch.store.pause, why))

    async def _is_refused(self) -> bool:
        """Whether credentials that were refused are not accepted either when they are tried again."""
        attempts = self._tuning.credentials_attempts  # one server of many may be wrong
        for _ in range(attempts):
            await anyio.sleep(self._options.heartbeat / attempts)
            if await self._is_accepted():
                return False
        return True

    async def _until_accepted(self, *, refused: bool) -> None:
        """Return when the list is not paused, and the API accepts the credentials if it has *refused* them before."""
        store = self._watch.store
        while (paused := await self._retries.while_unavailable(store.paused) is not None) or refused:
            if await self._is_accepted():
                logger.info("the API accepts the credentials: the watch list goes on")
                if paused:
                    await self._retries.while_unavailable(partial(store.pause, None))
                return
            await anyio.sleep(self._options.heartbeat)

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
