"""`Worker`: what a watch list promises, on SQLite and on PostgreSQL, in real time, against an API by script."""

import asyncio
import itertools
import sqlite3
from collections import Counter
from contextlib import ExitStack, closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import psycopg
import pytest

from smilejobs import JobRef, Pace
from smilejobs.clock import utcnow
from smilejobs.durable import Worker
from smilejobs.durable.buckets import Buckets
from smilejobs.durable.rows import Pending, key_of
from smilejobs.durable.tuning import Tuning
from smilejobs.errors import WatchListError
from smilejobs.testing import (
    Script,
    complete,
    cut,
    html,
    no_zip,
    not_found,
    pending,
    provisional,
    refused,
)
from smilejobs.testing.script import Step
from tests.helpers.patience import until
from tests.helpers.watching import Gate, execute, jobs, listed, open_list, polled, polls, scripted, until_ended, working

pytestmark = pytest.mark.anyio

FOR_EVER = 3600.0
"""A lease that outlives every test: what a worker notices, it was notified of."""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def same_bucket(count: int, ref: JobRef | None = None) -> list[JobRef]:
    """Jobs that whoever holds the bucket of *ref* holds."""
    bucket = 7 if ref is None else key_of(ref)[0]
    refs = (JobRef("user-1", f"same-{number}") for number in itertools.count())
    return list(itertools.islice((each for each in refs if key_of(each)[0] == bucket), count))


# One job, from its addition to its outcome


async def test_every_job_gets_its_outcome(database_url: str) -> None:
    """Those that were there before the worker, and those that come while it runs; one each, in the order of ending."""
    before, later = jobs(20, "before"), jobs(20, "later")
    script = scripted([*before, *later])
    async with open_list(database_url) as watch:
        await watch.add(before)
        async with working(script, database_url, tuning=Tuning(store_rows=7, load_rows=7)):
            await until_ended(watch)
            await watch.add(later)
            await until_ended(watch)
        outcomes = await listed(watch)
        assert (await watch.counts()).complete == 40
    assert Counter(outcome.ref for outcome in outcomes) == Counter([*before, *later])
    assert {outcome.ref for outcome in outcomes[:20]} == set(before)
    assert {outcome.state for outcome in outcomes} == {"complete"}


async def test_an_outcome_says_what_the_result_was(sqlite_url: str) -> None:
    """Rejected is complete; what the API refuses for good has failed, with the class of the error and its text."""
    steps: dict[str, list[Step]] = {
        "approved": [pending(), complete("0810", ConfidenceValue="99.5")],
        "rejected": [complete("0811")],
        "disabled": [refused("2307")],
        "forged": [complete("0810", PartnerParams={"user_id": "user-1", "job_id": "another"})],
        "weather": [cut(), html(), no_zip(), not_found(), complete()],
    }
    script = Script(steps, now=utcnow)
    async with open_list(sqlite_url) as watch:
        await watch.add(("user-1", job_id) for job_id in steps)
        async with working(script, sqlite_url):
            await until_ended(watch)
        by_job = {outcome.ref.job_id: outcome for outcome in await listed(watch)}
        counts = await watch.counts()
    assert (counts.complete, counts.failed, counts.expired) == (3, 2, 0)
    assert {job_id: outcome.state for job_id, outcome in by_job.items()} == {
        "approved": "complete",
        "rejected": "complete",
        "disabled": "failed",
        "forged": "failed",
        "weather": "complete",
    }
    approved = by_job["approved"]
    assert (approved.verdict, approved.result_code, approved.confidence) == ("approved", "0810", 99.5)
    assert (approved.is_final, approved.code, approved.smile_job_id) == (True, "2302", "0000000001")
    assert (approved.error, approved.error_text, approved.raw) == (None, None, None)
    assert by_job["rejected"].verdict == "rejected"
    assert (by_job["disabled"].error, by_job["disabled"].code) == ("UserDisabledError", "2307")
    assert by_job["disabled"].error_text
    assert (by_job["forged"].error, by_job["forged"].verdict) == ("WrongJobError", None)


async def test_a_ref_that_is_added_later_is_polled_at_once(database_url: str) -> None:
    """During a lease, not at the next."""
    first, *later = same_bucket(4)
    script = scripted([first, *later])
    async with open_list(database_url) as watch:
        await watch.add([first])
        async with working(script, database_url, lease_duration=FOR_EVER):
            await until_ended(watch)
            for ref in later:
                await watch.add([ref])
                await until_ended(watch)


@pytest.mark.sample
async def test_news_brings_a_job_to_the_front(database_url: str) -> None:
    """Whoever gets the callback, and whoever has the job; news of other jobs are no matter."""
    refs = jobs(5)
    gate = Gate(open=False)
    script = scripted(refs, gate)
    async with open_list(database_url) as watch:
        await watch.add(refs)
        async with working(script, database_url, pace=Pace(min=3600, max=3600)):
            for ref in refs:
                await polled(script, ref)
            gate.open = True
            await watch.notify(JobRef("user-1", "unknown"))
            await watch.notify(refs[3])

            async def ended() -> bool:
                return bool(await listed(watch))

            await until(ended)
            assert [outcome.ref for outcome in await listed(watch)] == [refs[3]]
            assert [len(script.polls[ref.job_id]) for ref in refs] == [1, 1, 1, 2, 1]


async def test_a_deadline_ends_the_wait_with_the_last_answer(sqlite_url: str) -> None:
    """The job has expired, which is no error; nothing is asked about it any more."""
    script = scripted(jobs(1), Gate(open=False), refused_0=itertools.repeat(cut()))
    async with open_list(sqlite_url) as watch:
        await watch.add([*jobs(1), ("user-1", "refused-0")], deadline=0.5)
        async with working(script, sqlite_url, keep_raw=True):
            await until_ended(watch)
            count = len(polls(script))
            await anyio.sleep(0.2)
            assert len(polls(script)) == count
        by_job = {outcome.ref.job_id: outcome for outcome in await listed(watch)}
        counts = await watch.counts()
    assert (counts.expired, counts.failed) == (2, 0)
    last = by_job["job-0"]
    assert (last.state, last.code, last.is_final, last.error, last.error_text) == ("expired", "2302", None, None, None)
    assert last.ended_at - last.added_at >= timedelta(seconds=0.5)
    assert (by_job["refused-0"].state, by_job["refused-0"].code) == ("expired", None)


async def test_a_deadline_that_passed_while_nobody_worked(database_url: str) -> None:
    """There is one poll all the same: what has ended meanwhile is complete, the rest has expired."""
    done, running = jobs(2)
    script = scripted([done], job_1=itertools.repeat(pending(delay=0.1)))
    async with open_list(database_url, now=lambda: utcnow() - timedelta(days=1)) as yesterday:
        await yesterday.add([done, running], deadline=60)
    async with open_list(database_url) as watch, working(script, database_url):
        await until_ended(watch)
        states = {outcome.ref: outcome.state for outcome in await listed(watch)}
    assert states == {done: "complete", running: "expired"}
    assert [len(script.polls[ref.job_id]) for ref in (done, running)] == [1, 1]


async def test_until_final_waits_for_the_review(sqlite_url: str) -> None:
    """By default a provisional result is one; a deadline keeps it as the last answer."""
    script = Script(
        {
            "soon": [provisional()],
            "final": [provisional(), provisional(), complete("0811")],
            "never": itertools.repeat(provisional()),
        },
        now=utcnow,
    )
    async with open_list(sqlite_url) as watch:
        await watch.add([("user-1", "soon")])
        await watch.add([("user-1", "final")], until="final")
        await watch.add([("user-1", "never")], until="final", deadline=1.0)
        async with working(script, sqlite_url):
            await until_ended(watch)
        by_job = {outcome.ref.job_id: outcome for outcome in await listed(watch)}
    assert (by_job["soon"].state, by_job["soon"].verdict, by_job["soon"].is_final) == ("complete", "provisional", False)
    assert (by_job["final"].state, by_job["final"].verdict, by_job["final"].is_final) == ("complete", "rejected", True)
    assert (by_job["never"].state, by_job["never"].verdict) == ("expired", "provisional")


async def test_raw_answers_are_kept_if_asked(database_url: str) -> None:
    """As they came, whatever is in them; the class, the verdict and the rest are there as well."""
    nested: object = "leaf"
    for _ in range(150):
        nested = [nested]
    odd: dict[str, Any] = {
        "FullName": "Ada \ud800",
        "Extra": {"deep": nested, "null": None, "big": 10**30, "nul": "\0"},
    }
    script = Script({"job-0": [complete(**odd)]}, now=utcnow)
    async with open_list(database_url) as watch:
        await watch.add(jobs(1))
        async with working(script, database_url, keep_raw=True):
            await until_ended(watch)
        (outcome,) = await listed(watch)
    assert outcome.raw is not None
    assert outcome.raw["code"] == "2302"
    assert isinstance(outcome.raw["result"], dict)
    assert odd.items() <= outcome.raw["result"].items()
    assert outcome.verdict == "approved"


async def test_retry_is_noticed(database_url: str) -> None:
    """Jobs that are opened again are polled at once, and get a new outcome."""
    script = Script({"job-0": [refused("2307"), complete()]}, now=utcnow)
    async with open_list(database_url) as watch:
        await watch.add(jobs(1))
        async with working(script, database_url, lease_duration=FOR_EVER):
            await until_ended(watch)
            assert await watch.retry() == 1
            await until_ended(watch)
        assert [outcome.state for outcome in await listed(watch)] == ["complete"]


# Bad input


@pytest.mark.parametrize(
    ("options", "kind", "text"),
    [
        ({"pace": 5}, TypeError, "pace must be"),
        ({"concurrency": 0}, ValueError, "concurrency must"),
        ({"concurrency": 101}, ValueError, "concurrency must not be more than the client's max_connections"),
        ({"concurrency": "many"}, TypeError, "concurrency must"),
        ({"lease_duration": 0}, ValueError, "lease_duration must be more than 0"),
        ({"heartbeat": -1}, ValueError, "heartbeat must be more than 0"),
        ({"heartbeat": "5s"}, TypeError, "heartbeat must be seconds"),
    ],
)
async def test_arguments_that_can_never_be_right(
    sqlite_url: str, options: dict[str, Any], kind: type[Exception], text: str
) -> None:
    """They are refused at once."""
    async with Script({}).client() as client, open_list(sqlite_url) as watch:
        with pytest.raises(kind, match=text):
            Worker(client, watch, **options)


async def test_a_client_that_is_closed(database_url: str) -> None:
    """That is a mistake of the caller's, and leaves no lock behind."""
    async with open_list(database_url) as watch:
        async with Script({}).client() as client:
            pass
        for _ in range(2):
            with pytest.raises(RuntimeError, match="this smilejobs client is closed"):
                await asyncio.wait_for(Worker(client, watch).run(), 120)


async def test_a_lock_that_cannot_be_had(sqlite_url: str, tmp_path: Path) -> None:
    """Beside the file, a worker must be able to write."""
    (tmp_path / "jobs.db-worker").mkdir()
    async with Script({}).client() as client, open_list(sqlite_url) as watch:
        with pytest.raises(WatchListError, match="no worker can write beside this SQLite file"):
            await Worker(client, watch).run()


# Inside


async def test_a_silent_connection_is_checked(postgres_url: str) -> None:
    """It goes on listening."""
    tuning = Tuning(silent_connection_seconds=0.1)
    first, later = same_bucket(2)
    script = scripted([first, later])

    async def asked() -> bool:
        return bool(await execute(postgres_url, "SELECT 1 FROM pg_stat_activity WHERE query = 'SELECT 1'"))

    options: dict[str, Any] = {"tuning": tuning, "lease_duration": FOR_EVER}
    async with open_list(postgres_url) as watch, working(script, postgres_url, **options):
        await watch.add([first])
        await until_ended(watch)
        await until(asked)
        await watch.add([later])
        await until_ended(watch)


async def test_a_bucket_may_be_leased_again_before_it_was_released() -> None:
    """It is held until the last lease has ended, and polled for some time after that."""
    buckets = Buckets()
    with ExitStack() as stack:
        stack.enter_context(buckets.holding(7))
        again = stack.enter_context(ExitStack())
        again.enter_context(buckets.holding(7))
        again.close()
        assert set(buckets.held) == {7}
    assert set(buckets.held) == set()


async def test_a_bucket_whose_lease_does_not_come_back_is_forgotten() -> None:
    """Its jobs are polled for some time, and then by its new holder alone."""
    [ref] = jobs(1)
    row = Pending(5, key_of(ref)[0], ref.user_id, ref.job_id, None, 0.0, None, False)  # a row
    buckets = Buckets()
    with buckets.holding(row.bucket):
        buckets.add(row)
        assert buckets.sums(row.bucket) == (1, 5)
        assert buckets.forget(0.0) == []
    assert buckets.is_polled(row.bucket)
    assert buckets.forget(600.0) == []
    assert buckets.sums(row.bucket) == (1, 5)
    await until(lambda: buckets.forget(0.0) == [row.ref])
    assert not buckets.is_polled(row.bucket)
    assert buckets.sums(row.bucket) == (0, 0)


async def test_a_row_that_is_committed_late(postgres_url: str) -> None:
    """One that was numbered before others and seen after them is polled all the same, and soon."""
    late, early = jobs(2)
    (same,) = same_bucket(1, late)
    script = scripted([late, early, same])
    async with open_list(postgres_url) as watch, working(script, postgres_url, lease_duration=FOR_EVER):
        await watch.add([same])  # so that the worker has the bucket
        await until_ended(watch)
        async with await psycopg.AsyncConnection.connect(postgres_url) as slow:
            await slow.execute(
                "INSERT INTO smilejobs.watch (key, bucket, state, final, user_id, job_id, added_at)"
                " VALUES (%s, %s, 0, false, 'user-1', %s, %s)",
                [key_of(late), key_of(late)[0], late.job_id, utcnow().timestamp()],
            )
            await watch.add([early])
            await until_ended(watch)
        await watch.store.notify("nothing that anybody understands")
        await until_ended(watch)
    assert [len(each) for each in script.polls.values()] == [0, 1, 1, 1]


async def test_more_rows_than_are_added_at_once(sqlite_url: str) -> None:
    """Other tasks run in between; every job is polled."""
    refs = jobs(501)
    async with open_list(sqlite_url) as watch:
        await watch.add(refs)
        async with working(scripted(refs), sqlite_url):
            await until_ended(watch)
        assert (await watch.counts()).complete == 501


async def test_a_worker_without_notifications_ends(sqlite_url: str) -> None:
    """Another program has dropped their table: waiting does not help."""
    script = scripted(jobs(1), Gate(open=False))
    async with script.client() as client, open_list(sqlite_url) as watch:
        await watch.add(jobs(1))
        task = asyncio.create_task(Worker(client, watch).run())
        await polled(script, jobs(1)[0])

        async def drop() -> bool:
            try:
                with closing(sqlite3.connect(watch.path, timeout=0.1)) as connection, connection:
                    connection.execute("DROP TABLE notifications")
            except sqlite3.OperationalError:  # the worker is writing
                return False
            return True

        await until(drop)
        with pytest.raises(WatchListError, match="no such table: notifications"):
            await asyncio.wait_for(task, 120)


async def test_polling_waits_for_a_database_that_is_slow(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Outcomes do not pile up in memory."""
    refs = jobs(100)
    script = scripted(refs)
    async with open_list(sqlite_url) as watch:
        await watch.add(refs)
        async with working(script, sqlite_url, concurrency=2, tuning=Tuning(unstored_outcomes=5)) as work:
            store, end = asyncio.Event(), work.watch.store.end

            async def slow(*arguments: Any) -> None:
                await store.wait()
                await end(*arguments)

            monkeypatch.setattr(work.watch.store, "end", slow)
            await anyio.sleep(0.5)
            asked = len(polls(script))
            assert asked < 20
            store.set()
            await until_ended(watch)
        assert Counter(outcome.ref for outcome in await listed(watch)) == Counter(refs)
