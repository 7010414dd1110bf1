"""A worker polls what a watch list holds: one scheduler, fed by the buckets that it has.

The table is the truth, and the pace of a job depends on its age alone: a worker that dies loses the polls in flight,
and whoever goes on computes from the row when the next one is due.
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
from smilejobs.durable.leases import Hold, Leases
from smilejobs.durable.patience import Patience
from smilejobs.durable.shift import Shift
from smilejobs.durable.signs import SWEEPER
from smilejobs.durable.turns import SharedTurns
from smilejobs.durable.watchlist import WatchList
from smilejobs.durations import Duration, seconds
from smilejobs.errors import CredentialsError, SmileJobsError, WatchListError
from smilejobs.events import Hooks, logger
from smilejobs.model.jobs import Include, JobRef
from smilejobs.polling.pace import Pace, PaceFunction
from smilejobs.polling.rules import Terms
from smilejobs.wire.protocol import accepts_credentials

_NOBODY = JobRef("smilejobs", "credentials")
"""A job that does not exist: the API says so to those whom it knows."""

_ASKED = 3
"""So often, within a heartbeat, are credentials tried before they count as refused: one server of many may be wrong."""


class Worker:
    """Polls the jobs of a watch list, alone (SQLite) or beside other workers (PostgreSQL).

    ::

        async with smilejobs.Client.from_env() as client, WatchList.open(url) as watch:
            await Worker(client, watch).run()

    On PostgreSQL, the client's ``rate`` is that of all workers together: give each the same.

    Args:
        client: Asks the API; it should have nothing else to do.
        watch: The watch list.
        pace: Between polls of a pending job, by its age; None for ``Pace(max=3600)``, by which a job is asked about
            every second at first and every hour when it is seven hours old.
        concurrency: How many polls may be under way at once, at most the client's ``max_connections``, which None
            stands for.
        keep_raw: Store the last answer of each job as it came, with personal data and links that expire.
        slice: On PostgreSQL, for how many seconds (or a timedelta) a worker keeps a share of the jobs before others may
            have it: after two of these, a new worker has its part.
        heartbeat: On PostgreSQL, after how many seconds (or a timedelta) without a sign of life a worker counts as
            dead. On both, how often it says that it is at work, and for how long polls must fail before that counts as
            an outage of the API.

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
        slice: Duration = 60.0,  # noqa: A002  # the field's word
        heartbeat: Duration = 5.0,
    ) -> None:
        self._client = client
        self._exchange = client.engine.exchange
        self._watch = watch
        self._pace = Terms(pace=Pace(max=3600.0) if pace is None else pace).pace
        self._concurrency = client.engine.concurrency(concurrency)
        self._keep_raw = keep_raw
        self._slice = seconds(slice, "slice", zero=False)
        self._heartbeat = seconds(heartbeat, "heartbeat", zero=False)
        self._name = secrets.token_hex(4)
        self._api = ApiHealth(self._heartbeat)
        self._patience = Patience()

    async def run(self) -> None:
        """Poll until cancelled; then store what is known, and hand everything back, within 10 s if PostgreSQL hangs.

        An outage of the API, of whatever length and kind, ends nothing: see `WatchList.counts`.

        While the database cannot be reached, nothing is polled. When the API refuses the credentials, the whole list is
        paused: `WatchList.counts` says why, and any worker whose credentials are accepted ends that. If it refuses them
        only now and then, this worker rests for a part of a heartbeat each time.

        Raises:
            WatchListError: The database cannot be used, or another worker has this SQLite file.
            RuntimeError: The client is closed, or belongs to another event loop.
        """
        exchange = self._exchange
        emit = exchange.emit
        exchange.emit = Hooks((emit, self._api))
        try:
            if self._watch.store.is_shared:
                await self._run_beside_others()
            else:
                with _alone(self._watch.path):
                    await self._run(None)
        finally:
            exchange.emit = emit

    async def _run_beside_others(self) -> None:
        def leases(hold: Hold) -> Leases:
            return Leases(
                self._watch.url,
                hold=hold,
                pending=self._watch.store.buckets,
                lead=self._lead,
                slice=self._slice,
                heartbeat=self._heartbeat,
            )

        exchange = self._exchange
        permits = exchange.permits
        if exchange.rate is not None:
            exchange.permits = SharedTurns(self._watch.store, exchange.rate, self._patience)
        try:
            await self._run(leases)
        finally:
            exchange.permits = permits

    async def _lead(self, duration: float) -> bool:
        return await self._watch.store.signs.hold(SWEEPER, self._name, duration)

    async def _run(self, leases: Callable[[Hold], Leases] | None) -> None:
        refused = False
        while True:
            await self._until_accepted(refused=refused)
            try:
                await Shift(
                    self._client,
                    self._watch,
                    pace=self._pace,
                    concurrency=self._concurrency,
                    rate=self._exchange.rate,
                    keep_raw=self._keep_raw,
                    leases=leases,
                    name=self._name,
                    heartbeat=self._heartbeat,
                    api=self._api,
                    patience=self._patience,
                ).work()
            except CredentialsError as error:
                why = str(error)
                refused = await self._is_refused()
                if not refused:
                    logger.warning("the API accepts the credentials, and refused them a moment ago: %s", why)
                    continue
                logger.error(
                    "the API refuses the credentials, so the whole watch list is paused: %s", why
                )  # the traceback says nothing more
                await self._patience.until_it_works(partial(self._watch.store.pause, why))

    async def _is_refused(self) -> bool:
        """Whether credentials that were refused are not accepted either when they are tried again."""
        for _ in range(_ASKED):
            await anyio.sleep(self._heartbeat / _ASKED)
            if await self._is_accepted():
                return False
        return True

    async def _until_accepted(self, *, refused: bool) -> None:
        """Return as soon as nothing is paused, and the API accepts the credentials if it has *refused* them before."""
        store = self._watch.store
        while (paused := await self._patience.until_it_works(store.paused) is not None) or refused:
            if await self._is_accepted():
                logger.info("the API accepts the credentials: the watch list goes on")
                if paused:
                    await self._patience.until_it_works(partial(store.pause, None))
                return
            await anyio.sleep(self._heartbeat)

    async def _is_accepted(self) -> bool:
        try:
            await self._exchange.poll(_NOBODY, Include())
        except SmileJobsError as error:
            return accepts_credentials(error)
        return True


@contextmanager
def _alone(path: str) -> Generator[None, None, None]:
    """Be the only worker on a SQLite file; the operating system lets go of the lock however the process ends.

    Raises:
        WatchListError: Another worker is.
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
