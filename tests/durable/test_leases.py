"""The leases on the buckets of a watch list: on a real Postgres, in real time, with short leases and heartbeats."""

import asyncio
import gc
import itertools
import logging
from collections.abc import AsyncGenerator, Awaitable, Generator
from contextlib import asynccontextmanager
from importlib.metadata import version
from types import coroutine
from typing import Any
from urllib.parse import urlsplit

import anyio
import psycopg
import pytest
from attrs import define, evolve, field
from procrastinate import App, PsycopgConnector
from procrastinate.exceptions import ConnectorException
from procrastinate.jobs import Job

from smilejobs.durable.database import connection_options
from smilejobs.durable.leases import Leases, end_lease, without_errors
from smilejobs.durable.tuning import Tuning
from smilejobs.errors import WatchListError
from tests.helpers.patience import until
from tests.helpers.postgres import Postgres, empty_database
from tests.helpers.watching import HEARTBEAT, PATIENT, execute
from tests.helpers.wire import wire

pytestmark = pytest.mark.anyio

DEFER = """
INSERT INTO procrastinate_jobs (queue_name, task_name, lock, queueing_lock, args)
SELECT 'smilejobs', 'smilejobs.work_on_bucket', bucket::text, bucket::text, jsonb_build_object('bucket', bucket)
FROM (SELECT %(bucket)s::int AS bucket) AS one
RETURNING id
"""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@define
class List:
    """A watch list of buckets alone, and the workers that hold them."""

    url: str
    pending: set[int] = field(factory=set)
    holders: dict[int, list[str]] = field(factory=dict)
    begun: list[tuple[str, int]] = field(factory=list)
    most: int = 0
    """Most holders of one bucket at once."""
    looks: list[float] = field(factory=list)
    """When it was asked what is pending."""
    workers: list[Leases] = field(factory=list)
    leader: str | None = None
    leads_until: float = 0.0

    def leases(self, name: str = "a", **options: Any) -> Leases:
        defaults: dict[str, Any] = {
            "work_on": lambda bucket: self.hold(name, bucket),
            "pending": self.look,
            "lead": lambda seconds: self.lead(name, seconds),
            "lease_duration": 60.0,
            "heartbeat": HEARTBEAT,
            "tuning": PATIENT,
        }
        self.workers.append(Leases(**{"url": self.url, **defaults, **options}))
        return self.workers[-1]

    async def lead(self, name: str, seconds: float) -> bool:
        """Give the lead to one at a time, as a lease of the database does; it comes free when it expires."""
        now = anyio.current_time()
        if self.leader in (None, name) or now >= self.leads_until:
            self.leader, self.leads_until = name, now + seconds
        return self.leader == name

    async def look(self) -> set[int]:
        self.looks.append(anyio.current_time())
        return set(self.pending)

    async def looked(self) -> None:
        """Return when all has been done that follows from a look that begins now; nobody waits for a heartbeat."""
        looks = len(self.looks)

        def twice() -> bool:
            for each in self.workers:
                each.sweep_soon()
            return len(self.looks) >= looks + 2  # the second begins when the first is over

        await until(twice)

    @asynccontextmanager
    async def hold(self, name: str, bucket: int) -> AsyncGenerator[None, None]:
        holders = self.holders.setdefault(bucket, [])
        holders.append(name)
        self.begun.append((name, bucket))
        self.most = max(self.most, len(holders))
        try:
            yield
        finally:
            holders.remove(name)

    def held(self, name: str = "a") -> set[int]:
        return {bucket for bucket, holders in self.holders.items() if name in holders}

    def begun_by(self, name: str) -> set[int]:
        return {bucket for holder, bucket in self.begun if holder == name}

    async def execute(self, query: str, **arguments: object) -> list[tuple[Any, ...]]:
        return await execute(self.url, query, **arguments)

    async def blocked(self, words: str) -> bool:
        """Whether a query with such words waits for what another transaction has locked."""
        query = (
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
            " AND position(%(words)s in query) > 0 AND pid <> pg_backend_pid()"
        )
        return await self.execute(query, words=words) != []


@pytest.fixture
def buckets(postgres_url: str) -> List:
    return List(with_schema(postgres_url))


def with_schema(url: str) -> str:
    """Create the schema of the watch list in a database, and return its URL."""
    with psycopg.connect(url) as connection:
        connection.execute("CREATE SCHEMA smilejobs")
    return url


@pytest.fixture
def own_server() -> Generator[Postgres, None, None]:
    with Postgres() as server:
        yield server


@asynccontextmanager
async def running(*leases: Leases) -> AsyncGenerator[list[asyncio.Task[None]], None]:
    """Workers, while the block runs."""
    for each in leases:
        await each.prepare()
    tasks = [asyncio.create_task(each.run()) for each in leases]
    try:
        yield tasks
    finally:
        await cancel(*tasks)


async def cancel(*tasks: asyncio.Task[None]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert all(task.cancelled() for task in tasks)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "smilejobs"]


async def test_the_tables_are_created_once_beside_those_of_the_list(buckets: List) -> None:
    """By the worker that is first, in the schema of the watch list; tables that are there are not touched."""
    await asyncio.gather(*(buckets.leases().prepare() for _ in range(4)))
    await buckets.execute(DEFER, bucket=1)
    await buckets.leases().prepare()
    assert await buckets.execute("SELECT count(*) FROM procrastinate_jobs") == [(1,)]
    where = "SELECT DISTINCT schemaname FROM pg_tables WHERE tablename LIKE 'procrastinate%%'"
    assert await buckets.execute(where) == [("smilejobs",)]


@pytest.mark.parametrize(
    ("change", "missing", "migration"),
    [
        (
            "DROP FUNCTION procrastinate_fetch_job_v2",
            "procrastinate_fetch_job_v2",
            "03.01.00_01_pre_add_heartbeat.sql",
        ),
        (
            "ALTER TABLE procrastinate_jobs DROP COLUMN abort_requested CASCADE",
            "abort_requested",
            "02.06.00_01_add_cancel_states.sql",
        ),
        ("DROP TYPE procrastinate_job_to_defer_v1 CASCADE", "job_to_defer_v1", "03.02.00_01_pre_batch_defer_jobs.sql"),
        ("ALTER TABLE procrastinate_workers RENAME last_heartbeat TO seen", "last_heartbeat", "03.01.00_01_pre_"),
        ("ALTER TABLE procrastinate_jobs RENAME queue_name TO named", "queue_name", "00.00.00_01_initial.sql"),
    ],
)
async def test_tables_of_another_version(buckets: List, change: str, missing: str, migration: str) -> None:
    """End a worker, with an error that names what is missing and the migration that adds it; nothing is changed."""
    buckets.pending = {1}
    leases = buckets.leases()
    await leases.prepare()
    await buckets.execute(change)
    await leases.prepare()
    with pytest.raises(WatchListError, match=f"{missing}.*apply the migrations from") as caught:
        await asyncio.wait_for(leases.run(), 120)
    assert f"not those of procrastinate {version('procrastinate')}" in str(caught.value)
    assert migration in str(caught.value)
    assert (caught.value.transient, caught.value.__context__) == (False, None)


async def test_tables_that_cannot_be_created(buckets: List) -> None:
    """A leftover of another program is an error, after some tries: another worker may have been creating them."""
    await buckets.execute("CREATE TYPE procrastinate_job_status AS ENUM ('new')")
    with pytest.raises(WatchListError, match="SQLSTATE 42710"):
        await buckets.leases().prepare()


async def test_a_pending_bucket_is_leased_again_and_again(buckets: List) -> None:
    """By one worker at a time; a bucket that is not pending, or no longer, has no holder."""
    buckets.pending = {3, 200}
    async with running(buckets.leases(lease_duration=0.2)):
        await until(lambda: {buckets.begun.count(("a", bucket)) >= 3 for bucket in (3, 200)} == {True})
        assert {bucket for _, bucket in buckets.begun} == {3, 200}
        assert buckets.most == 1
        buckets.pending.clear()
        await buckets.looked()
        await until(lambda: nothing_left(buckets))
        assert not buckets.held()
        begun = len(buckets.begun)
        await buckets.looked()
        assert len(buckets.begun) == begun


async def test_a_job_of_another_program_in_the_queue_stops_no_sweep(buckets: List) -> None:
    """Whatever its lock is; no bucket is taken for one that has a holder."""
    buckets.pending = {0, 3}
    leases = buckets.leases()
    await leases.prepare()
    for lock in (None, "mine"):
        await buckets.execute(
            "INSERT INTO procrastinate_jobs (queue_name, task_name, lock, scheduled_at)"
            " VALUES ('smilejobs', 'another', %(lock)s, now() + interval '1 day')",
            lock=lock,
        )
    async with running(leases):
        await until(lambda: buckets.held() == {0, 3})


async def nothing_left(buckets: List) -> bool:
    """Procrastinate keeps no row of what is over."""
    return await buckets.execute("SELECT id FROM procrastinate_jobs") == []


async def test_many_buckets_are_held_at_once_and_many_calls_are_few_looks(buckets: List) -> None:
    """All 256 of them; who is told of new ones a thousand times looks a few times."""
    buckets.pending, heartbeat = set(range(256)), 60.0
    leases = buckets.leases(heartbeat=heartbeat)
    calls = 0

    def told() -> bool:
        nonlocal calls
        for _ in range(100):
            leases.sweep_soon()
            calls += 1
        return calls >= 1000 and len(buckets.held()) == 256 and len(buckets.looks) > 1

    async with running(leases):
        await until(told)
    gaps = [later - earlier for earlier, later in itertools.pairwise(buckets.looks)]
    assert min(gaps) > heartbeat / 60


async def test_a_new_one_is_held_at_once(buckets: List) -> None:
    """Who adds says so, and nobody waits for the next look."""
    leases = buckets.leases(heartbeat=100.0)  # a look every 20 s
    async with running(leases):
        await until(lambda: buckets.looks)
        buckets.pending.add(7)
        leases.sweep_soon()
        await until(buckets.held)
        assert buckets.held() == {7}
    first, second, *_ = buckets.looks
    assert second - first < 20


async def test_a_second_worker_gets_its_share(buckets: List) -> None:
    """As slices end: whoever is first has the next; nobody holds what another holds."""
    buckets.pending = set(range(24))
    async with running(buckets.leases("a", lease_duration=1.0)):
        await until(lambda: len(buckets.begun_by("a")) == 24)
        buckets.begun.clear()
        async with running(buckets.leases("b", lease_duration=1.0)):
            await until(lambda: len(buckets.begun_by("a")) >= 4 and len(buckets.begun_by("b")) >= 4)
    assert buckets.most == 1


async def test_who_is_cancelled_gives_back(buckets: List) -> None:
    """At once, and all; the other one has them when it looks next, and does not wait until their worker is dead."""
    buckets.pending = set(range(24))
    heartbeat = 100.0
    async with running(buckets.leases("a", heartbeat=heartbeat, tuning=evolve(PATIENT, stop_seconds=100.0))) as [first]:
        await until(lambda: len(buckets.held("a")) == 24)
        async with running(buckets.leases("b", heartbeat=heartbeat)):
            with anyio.fail_after(heartbeat / 4):
                await cancel(first)
            assert not buckets.held("a")
            with anyio.fail_after(heartbeat / 2):
                await buckets.looked()
                await until(lambda: len(buckets.held("b")) == 24)
            assert len(await buckets.execute("SELECT id FROM procrastinate_workers")) == 1
    assert buckets.most == 1


async def test_a_cancelled_scope_is_as_good(buckets: List) -> None:
    """It goes on cancelling while buckets are given back, where a task's own cancellation comes once."""
    buckets.pending = set(range(24))
    leases = buckets.leases(heartbeat=100.0, tuning=evolve(PATIENT, stop_seconds=200.0))
    await leases.prepare()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(leases.run)
        await until(lambda: len(buckets.held()) == 24)
        tasks.cancel_scope.cancel()
    assert not buckets.held()
    assert await nothing_left(buckets)
    assert await buckets.execute("SELECT id FROM procrastinate_workers") == []


async def test_who_cannot_leave_is_made_to(buckets: List) -> None:
    """Before its worker would count as dead; the bucket is given back all the same."""

    @asynccontextmanager
    async def hold(bucket: int) -> AsyncGenerator[None, None]:
        async with buckets.hold("a", bucket):
            yield
            await anyio.sleep_forever()

    buckets.pending = {1}
    heartbeat = 60.0
    tuning = evolve(PATIENT, stop_seconds=24.0)  # a quarter of it is for leaving, and as much for giving the lease back
    async with running(buckets.leases(work_on=hold, heartbeat=heartbeat, tuning=tuning)) as [task]:
        await until(buckets.held)
        with anyio.fail_after(heartbeat):
            await cancel(task)
    assert not buckets.held()
    assert await nothing_left(buckets)


async def test_a_bucket_that_comes_while_leaving_is_left_at_once(buckets: List) -> None:
    """A claim may be under way when the worker is told to stop."""

    async def claims() -> bool:
        return await buckets.blocked("procrastinate_fetch_job")

    buckets.pending = {1}
    heartbeat = 100.0
    async with running(buckets.leases(heartbeat=heartbeat)) as [task]:
        await until(buckets.held)
        async with await psycopg.AsyncConnection.connect(buckets.url, **connection_options(PATIENT)) as connection:
            await connection.execute("LOCK TABLE procrastinate_jobs")
            await connection.execute(DEFER.encode(), {"bucket": 2})
            await until(claims)
            task.cancel()
            await until(lambda: not buckets.held())
        with anyio.fail_after(heartbeat / 4):  # who does not leave at once has half of it
            await asyncio.wait({task})
    assert [bucket for _, bucket in buckets.begun] == [1, 2]
    assert not buckets.held()
    assert await nothing_left(buckets)


@pytest.mark.parametrize("heard", ["now() - interval '1 h'", None])
async def test_the_buckets_of_the_dead_are_taken_over(buckets: List, heard: str | None) -> None:
    """Their runs are ended and begun anew, by new ids: those whose heartbeat is old, and those that are forgotten."""
    buckets.pending = {5}
    await buckets.leases().prepare()
    [(job,)] = await buckets.execute(DEFER, bucket=5)
    await buckets.execute("UPDATE procrastinate_jobs SET status = 'doing'")
    if heard is not None:
        await buckets.execute(f"INSERT INTO procrastinate_workers (last_heartbeat) VALUES ({heard})")
        await buckets.execute("UPDATE procrastinate_jobs SET worker_id = (SELECT id FROM procrastinate_workers)")
    async with running(buckets.leases()):
        await until(buckets.held)
        assert await buckets.execute("SELECT count(*) FROM procrastinate_jobs WHERE id <> %(job)s", job=job) == [(1,)]


async def test_the_buckets_of_the_living_are_not(buckets: List) -> None:
    """As long as their heart beats."""
    buckets.pending = {5, 6}
    await buckets.leases().prepare()
    await buckets.execute("INSERT INTO procrastinate_workers (last_heartbeat) VALUES (now() + interval '1 h')")
    await buckets.execute(DEFER, bucket=5)
    await buckets.execute(
        "UPDATE procrastinate_jobs SET status = 'doing', worker_id = (SELECT id FROM procrastinate_workers)"
    )
    async with running(buckets.leases()):
        await until(buckets.held)
        await buckets.looked()
        assert buckets.held() == {6}


async def test_what_was_taken_back_is_left(buckets: List, caplog: pytest.LogCaptureFixture) -> None:
    """A worker that has slept too long finds out, keeps what it still has, and complains to nobody."""
    buckets.pending = {1, 2}
    async with running(buckets.leases()):
        await until(lambda: len(buckets.held()) == 2)
        await buckets.execute("DELETE FROM procrastinate_jobs WHERE lock = '1'")
        await until(lambda: len(buckets.begun) == 3)
        await buckets.looked()
        assert buckets.holders == {1: ["a"], 2: ["a"]}
    assert buckets.begun[2] == ("a", 1)
    assert warnings(caplog) == []
    assert [record for record in caplog.records if record.name == "asyncio"] == []


async def test_a_lease_that_could_not_be_given_back_is_given_back_later(
    buckets: List, caplog: pytest.LogCaptureFixture
) -> None:
    """One statement of Procrastinate's failed; its worker lives, so that no other would take the bucket back."""
    buckets.pending = {1}

    async def is_waited_for() -> bool:
        return await buckets.blocked("procrastinate_finish_job")

    async with (
        running(buckets.leases(lease_duration=0.2, tuning=Tuning(lock_seconds=1))),
        await psycopg.AsyncConnection.connect(buckets.url, options="-c search_path=smilejobs") as other,
    ):
        await until(buckets.held)
        await other.execute("SELECT 1 FROM procrastinate_jobs WHERE status = 'doing' FOR UPDATE")
        await until(is_waited_for)
        begun = len(buckets.begun)

        async def is_given_up() -> bool:
            return not await is_waited_for()

        await until(is_given_up)
        await other.rollback()
        await until(lambda: len(buckets.begun) > begun)
    assert warnings(caplog) == []


async def test_a_worker_that_counts_as_dead_starts_anew(buckets: List, caplog: pytest.LogCaptureFixture) -> None:
    """Its heartbeats may fail in silence."""
    buckets.pending = {1}
    async with running(buckets.leases()):
        await until(buckets.held)
        await buckets.execute("DELETE FROM procrastinate_workers")
        await until(lambda: warnings(caplog))
        assert "TimeoutError: the database has had no sign of life from this worker" in warnings(caplog)[0]
        await until(buckets.held)


async def test_a_sweep_that_comes_too_late_is_none(buckets: List, caplog: pytest.LogCaptureFixture) -> None:
    """Somebody else may have handed the bucket out since the look."""

    async def comes() -> bool:
        return await buckets.blocked("procrastinate_defer_job")

    buckets.pending = {5}
    leases = buckets.leases()
    await leases.prepare()
    async with await psycopg.AsyncConnection.connect(buckets.url, **connection_options(PATIENT)) as connection:
        await connection.execute(DEFER.encode(), {"bucket": 5})  # nobody sees it before it is committed
        async with running(leases):
            await until(comes)
            await connection.commit()
            await until(buckets.held)
            await buckets.looked()
    assert buckets.begun == [("a", 5)]
    assert warnings(caplog) == []


@pytest.mark.parametrize("when", ["entering", "leaving"])
async def test_a_bucket_that_cannot_be_tended_costs_nobody_else(
    buckets: List, caplog: pytest.LogCaptureFixture, when: str
) -> None:
    """It is tried again after a heartbeat, and logged; without the text, which might quote a row."""
    failures = 0

    @asynccontextmanager
    async def hold(bucket: int) -> AsyncGenerator[None, None]:
        nonlocal failures
        fails = bucket == 1 and not failures
        failures += fails
        if fails and when == "entering":
            raise LookupError("user-1")
        async with buckets.hold("a", bucket):
            yield
        if fails:
            raise LookupError("user-1")

    buckets.pending = {1, 2}
    async with running(buckets.leases(work_on=hold, lease_duration=0.5, heartbeat=1.0)):
        await until(lambda: failures and buckets.held() == {1, 2})
    told = [text for text in warnings(caplog) if "TimeoutError" not in text]  # it may have to, on a busy machine
    assert told == ["a bucket of the watch list could not be worked on: LookupError"]


async def test_who_leaves_does_not_wait_for_a_bucket_that_could_not_be_tended(buckets: List) -> None:
    """Nor for the heartbeat that it is left alone."""

    def hold(bucket: int) -> Any:
        buckets.begun.append(("a", bucket))
        raise LookupError

    buckets.pending = {1}
    heartbeat = 100.0
    async with running(buckets.leases(work_on=hold, heartbeat=heartbeat)) as [task]:
        await until(lambda: buckets.begun)
        with anyio.fail_after(heartbeat / 4):
            await cancel(task)
    assert await nothing_left(buckets)


async def test_what_is_pending_may_be_unknown_for_a_while(buckets: List, caplog: pytest.LogCaptureFixture) -> None:
    """It is asked again, and our own errors are quoted."""
    buckets.pending = {1}
    errors: list[Exception] = [WatchListError("the database is read-only"), psycopg.DataError("user-1")]

    async def look() -> set[int]:
        if errors:
            raise errors.pop(0)
        return buckets.pending

    async with running(buckets.leases(pending=look)):
        await until(buckets.held)
    assert [text.partition(" starts anew: ")[2] for text in warnings(caplog)] == [
        "WatchListError: the database is read-only",
        "DataError",
    ]


async def test_cut_connections_are_made_again(buckets: List, caplog: pytest.LogCaptureFixture) -> None:
    """All at once; a lease outlives that, and a new one is acquired soon."""
    buckets.pending = {1, 2}
    ours = "FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'smilejobs leases'"

    async def connections() -> int:
        return len(await buckets.execute(f"SELECT pid {ours}"))

    async def all_are_made() -> bool:
        return await connections() >= 2  # a pool, and one that listens

    async def none_is_left() -> bool:  # the server notices a little later
        return not await connections()

    async with running(buckets.leases()):
        await until(lambda: len(buckets.held()) == 2)
        await until(all_are_made)
        await buckets.execute(f"SELECT pg_terminate_backend(pid) {ours}")
        buckets.pending.add(3)
        await until(lambda: buckets.held() == {1, 2, 3})
        await until(all_are_made)
    await until(none_is_left)
    assert str(urlsplit(buckets.url).password) not in caplog.text


@pytest.mark.sample
async def test_a_database_that_is_away_is_waited_for(own_server: Postgres, caplog: pytest.LogCaptureFixture) -> None:
    """Leases end meanwhile, and are acquired again soon after it is back; Procrastinate logs no errors of its own."""
    with empty_database(own_server.url("postgres")) as url:
        buckets = List(with_schema(url), {1, 2, 3})
        async with running(buckets.leases("a", heartbeat=2.0), buckets.leases("b", heartbeat=2.0)):
            await until(lambda: len(buckets.held("a") | buckets.held("b")) == 3)
            await asyncio.to_thread(own_server.stop)
            await until(lambda: not buckets.held("a") | buckets.held("b"))
            await until(lambda: any("OperationalError: connection" in text for text in warnings(caplog)))
            begun = len(buckets.begun)
            await asyncio.to_thread(own_server.start)
            await until(lambda: len(buckets.begun) > begun and len(buckets.held("a") | buckets.held("b")) == 3)
            await asyncio.to_thread(own_server.restart)
            buckets.pending.add(4)
            await until(lambda: buckets.held("a") | buckets.held("b") == {1, 2, 3, 4})
    assert str(urlsplit(url).password) not in caplog.text
    of_others = [record for record in caplog.records if record.name.startswith("procrastinate")]
    assert [record.getMessage() for record in of_others if record.levelno >= logging.WARNING] == []


def test_the_end_of_one_worker_does_not_let_the_errors_of_another_be_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Each worker of a process silences Procrastinate's errors on its own."""
    listener = logging.getLogger("procrastinate.utils")
    with without_errors():
        with without_errors():
            pass
        listener.error("of the worker that goes on")
    listener.error("of an application")
    assert [record.getMessage() for record in caplog.records] == ["of an application"]


async def test_who_hears_nothing_of_the_database_lets_go(buckets: List, caplog: pytest.LogCaptureFixture) -> None:
    """About when others may take over: a connection need not be cut to be dead."""
    buckets.pending = {1, 2}
    parts = urlsplit(buckets.url)
    async with wire(buckets.url) as between:
        netloc = f"{parts.username}:{parts.password}@127.0.0.1:{between.port}"
        cut_off = List(parts._replace(netloc=netloc).geturl(), buckets.pending, buckets.holders)
        heartbeat = 3.0
        async with running(cut_off.leases("a", heartbeat=heartbeat)):
            await until(lambda: len(buckets.held("a")) == 2)
            async with running(buckets.leases("b", lease_duration=0.5, heartbeat=heartbeat)):
                between.speaks.clear()
                await until(lambda: not buckets.held("a"), within=3 * heartbeat)
                await until(lambda: len(buckets.held("b")) == 2)
                between.speaks.set()
                await until(lambda: buckets.held("a"))
    assert any("gives its leases back and starts anew" in text for text in warnings(caplog))


@coroutine
def cancelled_at(awaitable: Awaitable[object], waits: int) -> Generator[Any, Any, bool]:
    """Await it, but cancel it in the place of its last wait; return whether it had so many."""
    steps = awaitable.__await__()
    try:
        for _ in range(waits):
            yield next(steps)
        next(steps)
        waited = steps.throw(asyncio.CancelledError())
        while True:  # it may wait while it ends
            yield waited
            waited = next(steps)
    except StopIteration:
        return False
    except asyncio.CancelledError:
        return True


async def test_a_cancelled_start_leaves_no_connection_open(buckets: List) -> None:
    """Wherever it is cancelled while it looks whether the database is there; an open one is a warning, an error here.

    psycopg lets other tasks run before it commits nothing, if it has not done so for a while.
    """
    for waits in itertools.count():
        if not await cancelled_at(buckets.leases()._probe(), waits):  # noqa: SLF001  # what every round begins with
            break
        gc.collect()
    assert waits > 3


async def test_connections_are_closed_although_another_is_being_opened(buckets: List) -> None:
    """Procrastinate's pool would first wait for the new connection, which may take as long as the server wants."""
    buckets.pending = {1}
    await buckets.leases().prepare()
    async with wire(buckets.url) as between:
        between.most = 4  # the check, the one that listens, and two of the pool
        parts = urlsplit(buckets.url)
        netloc = f"{parts.username}:{parts.password}@127.0.0.1:{between.port}"
        worker = List(parts._replace(netloc=netloc).geturl(), buckets.pending)
        task = asyncio.create_task(worker.leases(tuning=evolve(PATIENT, close_seconds=0.2, stop_seconds=1.0)).run())
        await until(worker.held)
        async with await psycopg.AsyncConnection.connect(buckets.url) as other:
            await other.execute("SET search_path = smilejobs")
            await other.execute("LOCK TABLE procrastinate_jobs")
            await until(lambda: between.count > between.most)
        opened = [each for each in gc.get_objects() if isinstance(each, psycopg.AsyncConnection)]
        await cancel(task)
        assert [each for each in opened if not each.closed] == []


async def test_a_worker_whose_checks_hang_starts_anew(buckets: List, caplog: pytest.LogCaptureFixture) -> None:
    """Before others count it as dead: a statement may wait for an answer that never comes."""
    buckets.pending = {1}
    leads = 0

    async def lead(seconds: float) -> bool:
        nonlocal leads
        leads += 1
        if leads == 1:
            await anyio.sleep_forever()
        return await buckets.lead("a", seconds)

    async with running(buckets.leases(lead=lead, heartbeat=1.0)):
        await until(buckets.held)
    assert "TimeoutError: the database has not answered for most of a heartbeat" in warnings(caplog)[0]


async def test_a_lease_that_has_ended_meanwhile_is_not_ended_again(buckets: List) -> None:
    """Procrastinate has no such job any more; every other failure is one."""
    await buckets.leases().prepare()
    app = App(connector=PsycopgConnector(conninfo=buckets.url, kwargs=connection_options(PATIENT)))
    async with app.open_async():
        job = Job(id=10**6, queue="smilejobs", lock="1", queueing_lock="1", task_name="smilejobs.bucket")
        await end_lease(app, job)
        await buckets.execute("DROP TABLE procrastinate_jobs CASCADE")
        with pytest.raises(ConnectorException):
            await end_lease(app, job)
