"""The rows of a watch list, in SQLite and in PostgreSQL."""

import asyncio
import random
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

import anyio
import psycopg
import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from smilejobs import JobRef
from smilejobs.clock import utcnow
from smilejobs.durable.named_leases import OUTAGE, SWEEPER, WORKER
from smilejobs.durable.rows import Counts, Ending, instant, key_of
from smilejobs.durable.schema import BUCKETS, COMPLETE, EXPIRED, FAILED, PENDING, STATES
from smilejobs.durable.store import Store
from smilejobs.durable.tuning import Tuning
from smilejobs.errors import WatchListError
from tests.helpers.leaks import assert_keeps_secrets
from tests.helpers.patience import until
from tests.helpers.watching import PATIENT, ending, execute, jobs, readable

pytestmark = pytest.mark.anyio

texts = st.text(min_size=1).filter(lambda text: bool(text.strip()) and "\0" not in text)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def rows_of(url: str, query: str) -> list[tuple[Any, ...]]:
    """Do something in the tables behind everybody's back; return the rows."""
    if url.startswith("postgresql"):
        return await execute(url, query)
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)) as connection:
        return connection.execute(query).fetchall()


async def add(store: Store, refs: list[JobRef], now: float = 0.0, **options: Any) -> tuple[int, list[JobRef]]:
    return await store.add(refs, now=now, **{"final": False, "deadline": None, **options})


@given(st.lists(st.tuples(texts, texts), unique=True, max_size=10))
def test_different_ids_have_different_keys(pairs: list[tuple[str, str]]) -> None:
    """Wherever the one id ends and the other begins; and all keys are of one size."""
    keys = [key_of(JobRef(*pair)) for pair in [*pairs, ("a", "bc"), ("ab", "c"), ("1 a", "b"), ("1", " ab")]]
    assert len({*keys}) == len({*pairs, ("a", "bc"), ("ab", "c"), ("1 a", "b"), ("1", " ab")})
    assert {len(key) for key in keys} == {16}


async def test_rows_come_back_as_they_went_in(database_url: str) -> None:
    """Every id that can be sent, instants to the microsecond, and the terms."""
    ref = JobRef("ü 😀\\'\";--%", "j" * 10_000, instant(1e9 + 0.123456))
    async with Store.open(database_url, PATIENT) as store:
        assert await store.add([ref], final=True, deadline=7.5, now=1e9 + 0.654321) == (1, [])
        (row,) = readable(await store.pending(range(BUCKETS)))
    assert (row.ref, row.ref.submitted_at, row.final, row.deadline) == (ref, ref.submitted_at, True, 7.5)
    assert row.added_at == 1e9 + 0.654321
    assert row.bucket == key_of(ref)[0]


async def test_an_id_is_only_text(database_url: str) -> None:
    """What looks like SQL or like a parameter is stored and found."""
    refs = [JobRef(text, text) for text in ("'; DROP TABLE watch; --", ":key", "%(key)s", "?", "{}", "NULL")]
    async with Store.open(database_url, PATIENT) as store:
        assert await add(store, refs) == (len(refs), [])
        assert {row.ref for row in readable(await store.pending(range(BUCKETS)))} == set(refs)


async def test_rows_are_read_in_pages(database_url: str) -> None:
    """Of some buckets or of all, after a row and so many."""
    refs = jobs(600)
    async with Store.open(database_url, PATIENT) as store:
        await add(store, refs[:300])
        await add(store, refs[300:])
        rows = readable(await store.pending(range(BUCKETS)))
        assert [row.seq for row in rows] == sorted({row.seq for row in rows})
        assert {row.ref for row in rows[:300]} == set(refs[:300])
        assert await store.pending(range(BUCKETS), after=rows[9].seq, limit=20) == rows[10:30]
        some = {3, 77, 255}
        assert await store.pending(some) == [row for row in rows if row.bucket in some]
        assert await store.pending(set()) == []
        threes = [row.seq for row in rows if row.bucket == 3]
        assert await store.sums({3}) == (len(threes), sum(threes))
        assert await store.last() == rows[-1].seq
        assert await store.named(key_of(refs[5])) == [row for row in rows if row.ref == refs[5]]
        assert await store.named(b"0123456789abcdef") == []
        await store.end([ending(refs[5])], 1.0)
        assert await store.named(key_of(refs[5])) == []


async def test_which_buckets_have_something_to_do(postgres_url: str) -> None:
    """Those with a pending job, and no others."""
    refs = jobs(40)
    async with Store.open(postgres_url, PATIENT) as store:
        assert await store.buckets() == set()
        await add(store, refs)
        await store.end([ending(ref) for ref in refs[:20]], 1.0)
        assert await store.buckets() == {key_of(ref)[0] for ref in refs[20:]}


async def test_the_first_outcome_stands(database_url: str) -> None:
    """Two workers that polled the same job store one outcome, and one for each of the others of the group."""
    one, other = jobs(2)
    async with Store.open(database_url, PATIENT) as store:
        await add(store, [one, other])
        await store.end([ending(one, COMPLETE, code="first")], 1.0)
        await store.end([ending(one, FAILED, code="second"), ending(other, EXPIRED), ending(other, FAILED)], 2.0)
        rows = await store.ended(after=0, limit=10)
        assert [(row.job_id, STATES[row.state], row.ended_at) for row in rows] == [
            ("job-0", "complete", 1.0),
            ("job-1", "expired", 2.0),
        ]
        assert rows[0].outcome == '{"code": "first"}'
        assert rows[0].place < rows[1].place <= await store.places()


async def test_a_database_that_goes_away_between_two_outcomes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of the group is refused, so each is stored alone; the rest waits for the database."""
    one, other = jobs(2)
    async with Store.open(f"sqlite:///{tmp_path / 'jobs.db'}") as store:
        await add(store, [one, other])
        write = store._end  # noqa: SLF001  # the database cannot be stopped between two statements

        async def fail_second(column: Any, ends: list[tuple[object, Ending]], now: float) -> None:
            if len(ends) > 1:
                raise WatchListError("one of them is refused")
            if ends[0][1].ref == other:
                raise WatchListError("the database is away", transient=True)
            await write(column, ends, now)

        monkeypatch.setattr(store, "_end", fail_second)
        with pytest.raises(WatchListError, match="the database is away"):
            await store.end([ending(one), ending(other)], 1.0)
        assert [row.job_id for row in await store.ended(after=0, limit=10)] == ["job-0"]


@pytest.mark.parametrize("bucket", [-1, BUCKETS])
async def test_a_bucket_that_no_worker_would_poll_is_refused(database_url: str, bucket: int) -> None:
    """Another program cannot move a job where no worker looks, to be pending for ever."""
    async with Store.open(database_url, PATIENT) as store:
        await add(store, jobs(1))
        with pytest.raises((sqlite3.IntegrityError, psycopg.errors.CheckViolation)):
            await rows_of(database_url, f"UPDATE watch SET bucket = {bucket}")


async def test_neither_ids_nor_answers_are_reachable_from_an_error(database_url: str) -> None:
    """Crash reporters copy the locals of each frame of a traceback."""
    ref = JobRef("user-secret", "job-secret")
    answer: dict[str, object] = {"FullName": "Jane Secret"}
    async with Store.open(database_url, PATIENT) as store:
        await add(store, [ref])
        (row,) = await store.pending(range(BUCKETS))
        await store.end([ending(ref, raw=answer, result_text="Secret")], 1.0)
        (ended,) = await store.ended(after=0, limit=1)
        assert "secret" not in f"{row} {ended} {ending(ref, raw=answer, result_text='Secret')}".lower()
        await rows_of(database_url, "DROP TABLE watch")
        with pytest.raises(WatchListError) as caught:
            await add(store, [ref])
        assert_keeps_secrets(caught.value, "user-secret", "job-secret")
        with pytest.raises(WatchListError) as caught:
            await store.end([ending(ref, raw=answer)], 1.0)
        assert_keeps_secrets(caught.value, "user-secret", "job-secret", "Jane Secret")


async def test_an_outcome_of_no_job_is_dropped(database_url: str) -> None:
    """Of one that was pruned, say."""
    async with Store.open(database_url, PATIENT) as store:
        await store.end([ending(jobs(1)[0])], 1.0)
        assert await store.ended(after=0, limit=10) == []


async def test_nothing_is_missed_and_nothing_seen_twice(database_url: str) -> None:
    """By a reader that follows the places while four workers store outcomes, of which some have been stored before."""
    refs = jobs(160)
    left = [list(refs) for _ in range(4)]
    seen: list[tuple[str, str]] = []

    async def write(mine: list[JobRef]) -> None:
        random.shuffle(mine)
        async with Store.open(database_url, PATIENT) as store:
            while mine:
                group = [ending(mine.pop()) for _ in range(min(len(mine), random.randint(1, 20)))]
                await store.end(group, 1.0)

    async def read() -> None:
        last = 0
        async with Store.open(database_url, PATIENT) as store:
            while len(seen) < len(refs):
                for row in await store.ended(after=last, limit=17):
                    assert row.place > last
                    last = row.place
                    seen.append((row.user_id, row.job_id))
            assert await store.ended(after=last, limit=17) == []

    async with Store.open(database_url, PATIENT) as store:
        await add(store, refs)
        with anyio.fail_after(120):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(read)
                for mine in left:
                    tasks.start_soon(write, mine)
    assert sorted(seen) == sorted((ref.user_id, ref.job_id) for ref in refs)


async def test_a_place_is_seen_after_all_before_it(postgres_url: str) -> None:
    """A writer that has its places and is slow holds up those that come after it, not the readers."""
    one, other = jobs(2)
    seen: list[str] = []
    async with Store.open(postgres_url, PATIENT) as store:
        await add(store, [one, other])
        async with await psycopg.AsyncConnection.connect(postgres_url) as slow, anyio.create_task_group() as tasks:
            await slow.execute("UPDATE smilejobs.about SET places = places + 1")
            tasks.start_soon(store.end, [ending(other)], 1.0)
            for _ in range(10):
                await anyio.sleep(0.01)
                seen += [row.job_id for row in await store.ended(after=0, limit=10)]
            assert seen == []
            await slow.execute("UPDATE smilejobs.watch SET state = 1, place = 1, ended_at = 1, outcome = '{}'"
                               " WHERE job_id = 'job-0'")  # fmt: skip
            await slow.commit()
        assert [row.job_id for row in await store.ended(after=0, limit=10)] == ["job-0", "job-1"]


async def test_who_adds_the_same_locks_nobody_out(postgres_url: str) -> None:
    """Two that add the same jobs in different orders add each of them once, and wait for each other at most."""
    refs = jobs(3000)
    async with Store.open(postgres_url, PATIENT) as one, Store.open(postgres_url, PATIENT) as other:
        for begin in range(0, 3000, 1000):
            group = refs[begin : begin + 1000]
            added = await asyncio.gather(add(one, group), add(other, group[::-1]))
            assert sum(count for count, _ in added) == 1000
        assert (await one.counts()).pending == 3000


async def test_permits_are_given_out_once(postgres_url: str) -> None:
    """Chunks follow each other, for all workers; unused permits do not add up."""
    async with Store.open(postgres_url, PATIENT) as store, Store.open(postgres_url, PATIENT) as other:

        async def taken(taker: Store, count: int) -> tuple[float, float]:
            """Take permits of an hour; return the earliest and the latest instant that the first of them may be at.

            The instant is told by the clock of the database, which was read somewhere between the two.
            """
            began = anyio.current_time()
            first, ahead = await taker.reserve_permits(count, 3600.0)
            assert ahead is None
            return first - (anyio.current_time() - began), first

        for number in range(10):  # so many may have taken a permit of an hour each
            await store.leases.acquire(f"{WORKER}{number}", f"{number}", 600.0)
        earliest, latest = await taken(store, 1)
        for taker, count, hours in ((store, 2, 1), (other, 1, 3)):
            least, most = await taken(taker, count)
            assert least <= latest + hours * 3600.0
            assert earliest + hours * 3600.0 <= most
        await execute(postgres_url, "UPDATE shared_rate SET next_permit = next_permit - 36000")
        now = anyio.current_time()
        least, most = await taken(store, 1)
        assert least <= now
        assert most >= now - 0.021


@pytest.mark.parametrize("ahead", ["20", "3600", "'Infinity'", "'NaN'"])
async def test_permits_of_a_clock_that_was_set_back_do_not_count(postgres_url: str, ahead: str) -> None:
    """No worker waits for them: they are further ahead than all workers could have taken."""
    async with Store.open(postgres_url, PATIENT) as store:
        await execute(
            postgres_url, f"UPDATE shared_rate SET next_permit = extract(epoch FROM clock_timestamp()) + {ahead}"
        )
        first, told = await store.reserve_permits(1, 0.01)
        assert told is not None
        assert not told <= 10
        assert first <= anyio.current_time()
        _, told = await store.reserve_permits(1, 0.01)
        assert told is None


async def test_the_more_workers_the_further_ahead_permits_may_be(postgres_url: str) -> None:
    """Each may have taken a chunk of them, or a single one where they are rare."""
    async with Store.open(postgres_url, PATIENT) as store:
        await execute(postgres_url, "UPDATE shared_rate SET next_permit = extract(epoch FROM clock_timestamp()) + 30")
        for number in range(20):
            await store.leases.acquire(f"{WORKER}{number}", f"{number}", 600.0)
        assert (await store.reserve_permits(1, 1.0))[1] is None
        assert (await store.reserve_permits(1, 0.1))[1] is not None


async def test_a_lease_is_held_by_one(database_url: str) -> None:
    """Until it expires or is given back; its holder can renew it, and say something else."""
    async with Store.open(database_url, PATIENT) as one, Store.open(database_url, PATIENT) as other:
        assert await one.leases.acquire(OUTAGE, "one", 600.0, "TLS")
        assert not await other.leases.acquire(OUTAGE, "other", 600.0, "DNS")
        before = await other.health()
        assert (before.outage, before.paused, before.stalled) == ("TLS", None, None)
        assert await one.leases.acquire(OUTAGE, "one", 600.0, "a proxy")
        assert await other.health() == evolve(before, outage="a proxy")
        await other.leases.release("other", OUTAGE)
        assert (await one.health()).outage == "a proxy"
        await one.leases.release("one", OUTAGE)
        assert (await one.health()).outage is None
        assert await other.leases.acquire(OUTAGE, "other", 0.0, "DNS")
        await until(lambda: one.leases.acquire(OUTAGE, "one", 600.0, "TLS"))


@pytest.mark.parametrize(
    "change",
    ["renewed_at = renewed_at + 3600, expires_at = expires_at + 3600", "expires_at = 1e300", "expires_at = 0"],
)
async def test_a_lease_of_another_clock_has_expired(database_url: str, change: str) -> None:
    """It was renewed in the future, or ends after all time: the clock of the database has been set back since."""
    async with Store.open(database_url, PATIENT) as store:
        assert await store.leases.acquire(SWEEPER, "one", 600.0)
        await rows_of(database_url, f"UPDATE leases SET {change}")
        assert await store.leases.acquire(SWEEPER, "other", 600.0)
        assert not await store.leases.acquire(SWEEPER, "one", 600.0)


async def test_a_list_that_nobody_works_on_says_so(database_url: str) -> None:
    """Once jobs have been pending for a while; not while it is paused, which says enough."""
    now = utcnow().timestamp()
    async with Store.open(database_url, PATIENT) as store:
        await add(store, jobs(1, "new"), now=now + 600.0)
        assert (await store.health()).stalled is None
        await add(store, jobs(40), now=now - 600.0)
        assert "no worker is at work, and none has been yet" in str((await store.health()).stalled)
        await store.leases.acquire(f"{WORKER}a", "a", 600.0)
        if store.is_shared:
            assert "no worker assigns the buckets, and none has been yet" in str((await store.health()).stalled)
            await store.leases.acquire(SWEEPER, "a", 600.0)
        assert (await store.health()).stalled is None
        await rows_of(database_url, "UPDATE leases SET expires_at = 1.8e9 - 1e8")
        assert "no worker is at work, since 2023-11-14" in str((await store.health()).stalled)
        assert (await store.counts()).stalled == (await store.health()).stalled
        await store.pause("no key")
        assert (await store.health()).stalled is None
        await store.leases.release("b")
        assert await rows_of(database_url, "SELECT 1 FROM leases") == []


async def test_notifications_in_sqlite_are_taken_once(tmp_path: Path) -> None:
    """Where no worker takes them, the file does not fill with them."""
    async with Store.open(f"sqlite:///{tmp_path / 'jobs.db'}", Tuning(kept_notifications=10)) as store:
        assert await store.take_notifications() == []
        await store.notify("one")
        await store.notify("two")
        assert await store.take_notifications() == ["one", "two"]
        assert await store.take_notifications() == []
        for number in range(30):
            await store.notify(str(number))
        assert await store.take_notifications() == [str(number) for number in range(20, 30)]


@pytest.mark.sample
async def test_a_damaged_table_of_the_shared_rate(postgres_url: str) -> None:
    """Is an error of the watch list, which another program has changed."""
    async with Store.open(postgres_url, PATIENT) as store:
        await execute(postgres_url, "DELETE FROM shared_rate")
        with pytest.raises(WatchListError, match="a table of this watch list has 0 rows in place of one"):
            await store.reserve_permits(1, 1.0)


async def test_a_pause_is_for_all(database_url: str) -> None:
    """Whoever has the list open sees it, until it is over."""
    async with Store.open(database_url, PATIENT) as one, Store.open(database_url, PATIENT) as other:
        assert await other.paused() is None
        await one.pause("no key")
        assert await other.paused() == "no key"
        assert (await other.counts()).paused == "no key"
        await other.pause(None)
        assert await one.paused() is None


class Model(RuleBasedStateMachine):
    """The store on SQLite against a dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = tempfile.TemporaryDirectory()
        self.now = 1000.0
        self.rows: dict[JobRef, tuple[int, bool, float | None, float, float | None]] = {}
        """State, final, deadline, added_at, ended_at."""
        self.order: list[JobRef] = []
        self.cursor = 0
        self.opening = Store.open(f"sqlite:///{self.folder.name}/jobs.db")

    @initialize()
    def open(self) -> None:
        self.store = self.runner.run(self.opening.__aenter__())

    def teardown(self) -> None:
        self.runner.run(self.opening.__aexit__(None, None, None))
        self.runner.close()
        self.folder.cleanup()

    refs = st.lists(st.sampled_from(jobs(8)), min_size=1, max_size=6)

    @rule(refs=refs, final=st.booleans(), deadline=st.sampled_from([None, 5.0, 60.0]))
    def add(self, refs: list[JobRef], final: bool, deadline: float | None) -> None:
        new = {ref for ref in refs if ref not in self.rows}
        differ = {ref for ref in refs if ref in self.rows and self.rows[ref][1:3] != (final, deadline)}
        count, told = self.runner.run(self.store.add(refs, final=final, deadline=deadline, now=self.now))
        assert count == len(new)
        assert sorted(ref.job_id for ref in told) == sorted(ref.job_id for ref in differ)
        self.rows |= dict.fromkeys(new, (PENDING, final, deadline, self.now, None))

    @rule(refs=refs, states=st.lists(st.sampled_from([COMPLETE, FAILED, EXPIRED]), min_size=6, max_size=6))
    def end(self, refs: list[JobRef], states: list[int]) -> None:
        self.runner.run(
            self.store.end([ending(ref, state) for ref, state in zip(refs, states, strict=False)], self.now)
        )
        for ref, state in zip(refs, states, strict=False):
            if ref in self.rows and self.rows[ref][0] == PENDING:
                _, final, deadline, added, _ = self.rows[ref]
                self.rows[ref] = (state, final, deadline, added, self.now)
                self.order.append(ref)

    @rule()
    def reopen(self) -> None:
        failed = [ref for ref, row in self.rows.items() if row[0] == FAILED]
        assert self.runner.run(self.store.reopen(self.now)) == len(failed)
        for ref in failed:
            _, final, deadline, _, _ = self.rows[ref]
            self.rows[ref] = (PENDING, final, deadline, self.now, None)
            self.order.remove(ref)

    @rule(age=st.integers(0, 50))
    def prune(self, age: int) -> None:
        old = [ref for ref, row in self.rows.items() if row[4] is not None and row[4] < self.now - age]
        assert self.runner.run(self.store.prune(self.now - age)) == len(old)
        for ref in old:
            del self.rows[ref]
            self.order.remove(ref)

    @rule(seconds=st.integers(0, 100))
    def wait(self, seconds: int) -> None:
        self.now += seconds

    @rule(limit=st.integers(1, 3))
    def follow(self, limit: int) -> None:
        """All that ended after the cursor comes after it, and nothing else."""
        rows = self.runner.run(self.store.ended(after=self.cursor, limit=limit))
        for row in rows:
            assert row.place > self.cursor
            self.cursor = row.place

    @invariant()
    def same(self) -> None:
        if not hasattr(self, "store"):
            return
        rows = self.runner.run(self.store.ended(after=0, limit=100))
        assert [JobRef(row.user_id, row.job_id) for row in rows] == self.order
        assert [row.state for row in rows] == [self.rows[ref][0] for ref in self.order]
        assert [row.ended_at for row in rows] == [self.rows[ref][4] for ref in self.order]
        pending = {row.ref: row for row in readable(self.runner.run(self.store.pending(range(BUCKETS))))}
        assert {ref: (PENDING, row.final, row.deadline, row.added_at, None) for ref, row in pending.items()} == {
            ref: row for ref, row in self.rows.items() if row[0] == PENDING
        }
        states = [STATES[row[0]] for row in self.rows.values()]
        oldest = min((row[3] for row in self.rows.values() if row[0] == PENDING), default=None)
        assert evolve(self.runner.run(self.store.counts()), stalled=None) == Counts(
            pending=states.count("pending"),
            complete=states.count("complete"),
            failed=states.count("failed"),
            expired=states.count("expired"),
            oldest=None if oldest is None else instant(oldest),
            paused=None,
        )


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=10, stateful_step_count=12)
