"""What a worker notes and tells: outages, a stalled list, rows that cannot be read, calls of other roles."""

import asyncio
import json
import logging
import sqlite3
import stat
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import psycopg
import pytest
from attrs import evolve

from smilejobs import JobRef, Pace
from smilejobs.clock import utcnow
from smilejobs.durable import WatchList, Worker
from smilejobs.durable.database import connection_options
from smilejobs.durable.notifications import JobNews, ThrottleRequest, parse_notification
from smilejobs.durable.reading import UNREADABLE_ID
from smilejobs.durable.rows import key_of
from smilejobs.durable.store import ADDED, LOOK
from smilejobs.durable.tuning import Tuning
from smilejobs.errors import WatchListError
from smilejobs.testing import Reply, Script, complete, cut, pending, refused
from tests.helpers.patience import until
from tests.helpers.watching import (
    PATIENT,
    Gate,
    ending,
    execute,
    jobs,
    listed,
    open_list,
    polled,
    scripted,
    until_ended,
    working,
)

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def change(url: str, statement: str, *values: object) -> None:
    """Write into the tables behind everybody's back."""
    if url.startswith("postgresql"):
        async with await psycopg.AsyncConnection.connect(url, options="-c search_path=smilejobs") as connection:
            await connection.execute(statement.replace("?", "%s").encode(), values)
        return

    def write() -> None:
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"), timeout=30)) as connection, connection:
            connection.execute(statement, values)

    await anyio.to_thread.run_sync(write)  # a worker in this event loop may hold the lock, and must go on to let go


GATEWAY = Reply(body=b"default backend - 404", http_status=404)


@pytest.mark.parametrize(
    "trouble",
    [
        pytest.param(cut(), marks=pytest.mark.sample),
        GATEWAY,
        Reply(body={"message": "Forbidden"}, http_status=403),
        refused("2204"),
        refused("2303"),
    ],
)
async def test_an_outage_is_told_once(database_url: str, trouble: Any, caplog: pytest.LogCaptureFixture) -> None:
    """By one warning, in the list with its beginning, and by one warning when it is over; no job fails."""
    down = True

    def steps() -> Any:
        while True:
            yield trouble if down else complete()

    refs = jobs(5)
    script = Script({ref.job_id: steps() for ref in refs}, now=utcnow)
    began = utcnow()
    async with WatchList.open(database_url, tuning=PATIENT) as watch:
        await watch.add(refs)

        async def out() -> bool:
            return (await watch.counts()).outage is not None

        async def over() -> bool:
            return (await watch.counts()).outage is None

        async with working(script, database_url, heartbeat=2.0):
            await until(out)
            counts = await watch.counts()
            assert (counts.pending, counts.failed, counts.paused) == (5, 0, None)
            assert counts.outage_since is not None
            assert counts.outage_since >= began
            down = False
            await until_ended(watch)
            await until(over)
        assert {outcome.state for outcome in await listed(watch)} == {"complete"}
    told = [record.getMessage() for record in caplog.records if "good answer" in record.getMessage()]
    assert len(told) == 1
    assert len([record for record in caplog.records if "the API answers again" in record.getMessage()]) == 1
    assert not any(ref.job_id in f"{told} {counts}" or ref.tag in f"{counts.outage}" for ref in refs)


async def test_single_losses_are_no_outage(sqlite_url: str, caplog: pytest.LogCaptureFixture) -> None:
    """The polls around them have good answers."""
    refs = jobs(30)
    lost = {refs[10], refs[20]}
    script = Script({ref.job_id: [cut(), complete()] if ref in lost else [complete()] for ref in refs}, now=utcnow)
    async with WatchList.open(sqlite_url) as watch:
        await watch.add(refs)
        async with working(script, sqlite_url):
            await until_ended(watch)
    assert "no good answer" not in caplog.text


AT_ONCE = Tuning(stalled_seconds=0.0)
"""A list is stalled as soon as it has no worker."""


async def test_a_worker_that_lives_is_seen(database_url: str) -> None:
    """As long as it works; when it has stopped, jobs that are pending are seen to be waited for by no worker."""
    script = scripted(jobs(1), Gate(open=False))
    async with WatchList.open(database_url, tuning=AT_ONCE) as watch:
        await watch.add(jobs(1))
        assert (await watch.counts()).stalled is not None

        async def well() -> bool:
            return (await watch.counts()).stalled is None

        async with working(script, database_url):
            await until(well)
            await polled(script, jobs(1)[0])
        assert "no worker is at work, since 20" in str((await watch.counts()).stalled)


async def test_a_worker_that_begins_calls_no_list_stalled(database_url: str, caplog: pytest.LogCaptureFixture) -> None:
    """It takes a moment until it assigns the buckets, although jobs have been pending for long."""
    async with open_list(database_url, tuning=AT_ONCE) as watch:
        await watch.add(jobs(1))
        async with working(scripted(jobs(1)), database_url, tuning=AT_ONCE, heartbeat=100.0):
            await until_ended(watch)
    assert "stalled" not in caplog.text


async def test_a_worker_that_begins_no_poll_is_not_at_work(database_url: str, caplog: pytest.LogCaptureFixture) -> None:
    """Jobs are due, the worker runs and hears nothing bad, and yet the list is stalled."""
    async with working(scripted(jobs(1)), database_url, tuning=AT_ONCE, heartbeat=1.0) as work:
        exchange = work.client.engine.exchange  # permits may be kept back by another role of the database
        exchange.acquire, exchange.longest_poll = anyio.sleep_forever, 0.1  # type: ignore[method-assign]  # stand-ins
        await work.watch.add(jobs(1))
        await until(lambda: "the watch list is stalled: jobs are pending" in caplog.text)

        async def no_worker_is_at_work() -> bool:  # first, the worker may have been late to assign the buckets
            return "no worker is at work" in str((await work.watch.counts()).stalled)

        await until(no_worker_is_at_work)


async def test_a_stalled_list_is_warned_of_once(postgres_url: str, caplog: pytest.LogCaptureFixture) -> None:
    """By the workers that live, and once more when it is over."""
    script = scripted(jobs(1), Gate(open=False))
    async with open_list(postgres_url) as watch:
        await watch.add(jobs(1))
        async with working(script, postgres_url, tuning=AT_ONCE, heartbeat=2.0):
            await polled(script, jobs(1)[0])
            await until(lambda: "no longer stalled" in caplog.text or "is stalled" not in caplog.text)
            caplog.clear()
            async with await psycopg.AsyncConnection.connect(postgres_url) as other:
                await other.execute("INSERT INTO smilejobs.leases VALUES ('sweeper', 'x', 0, 0, 0)"
                                    " ON CONFLICT (name) DO UPDATE SET holder = 'x', expires_at = 0")  # fmt: skip
                await until(lambda: "the watch list is stalled: jobs are pending" in caplog.text)
                await other.rollback()
            await until(lambda: "the watch list is no longer stalled" in caplog.text)


async def test_locks_of_another_role_stop_no_worker(postgres_url: str) -> None:
    """A role that may do nothing but connect can take any advisory lock; none guards anything."""
    script = scripted(jobs(3))
    keys = [0x534D4A42, 0x534D4A53, 0x534D4A54]
    async with await psycopg.AsyncConnection.connect(postgres_url, autocommit=True) as other:
        for key in keys:
            await other.execute("SELECT pg_advisory_lock(%s)", [key])
        async with open_list(postgres_url) as watch:
            await watch.add(jobs(3))
            async with working(script, postgres_url):
                await until_ended(watch)


MALFORMED = [
    *("news zz", "news", "news 00", "news 0 0", "throttle x y", "throttle x nan", "throttle", "throttle x"),
    *("", " ", "\0", "zz"),
]


@pytest.mark.parametrize("text", [*MALFORMED, None, b"news", 5, 2.5])
def test_a_malformed_notification_means_look(text: object) -> None:
    """Any role of the database can send one."""
    assert parse_notification(text) == LOOK


def test_notifications_are_parsed() -> None:
    """Their numbers are kept within bounds."""
    key = key_of(jobs(1)[0])
    parse = parse_notification
    assert parse("added") == ADDED
    assert parse(f"news {key.hex()}") == JobNews(key)
    assert parse(str(ThrottleRequest("a", 2.5))) == ThrottleRequest("a", 2.5)
    assert parse("throttle a inf") == parse("throttle a 1e300") == ThrottleRequest("a", 300.0)
    assert parse("throttle a -1") == parse("throttle a -inf") == ThrottleRequest("a", 0.0)


async def test_malformed_notifications_end_no_worker(database_url: str) -> None:
    """It goes on, and hears what comes after."""
    script = scripted([*jobs(1), *jobs(1, "later")])
    async with open_list(database_url) as watch:
        await watch.add(jobs(1))
        async with working(script, database_url):
            await until_ended(watch)
            for text in MALFORMED:
                if "\0" not in text:
                    await watch.store.notify(text)
            if not watch.store.is_shared:
                await change(database_url, "INSERT INTO notifications (text) VALUES (?)", b"\xff")
                await change(database_url, "INSERT INTO notifications (text) VALUES (CAST(x'ff' AS TEXT))")
            await watch.add(jobs(1, "later"))
            await until_ended(watch)


POISON: list[tuple[str, tuple[object, ...], str]] = [
    ("user_id = ''", (), "user_id must not be empty"),
    ("job_id = ' '", (), "job_id must not be empty"),
    ("submitted_at = ?", (1e300,), "submitted_at is not within the calendar"),
    ("added_at = ?", (1e300,), "added_at is not within the calendar"),
    ("added_at = ?", (-62_135_500_000.0,), "added_at is not within the calendar"),
    ("added_at = ?", (-1e12,), "added_at is not within the calendar"),
    ("deadline = ?", (-1e15,), "deadline must be greater than 0"),
    ("bucket = 255 - bucket", (), "its key is not the one of its ids"),
    ("user_id = 'another'", (), "its key is not the one of its ids"),
]
POISON_SQLITE: list[tuple[str, tuple[object, ...], str]] = [
    ("job_id = ?", (b"blob",), "job_id must be a string"),
    ("job_id = CAST(x'ff' AS TEXT)", (), "job_id holds half a surrogate pair"),
    ("added_at = ?", ("yesterday",), "added_at must be a number"),
    ("deadline = ?", ("never",), "deadline must be a number"),
    ("final = ?", (7,), "final must be true or false"),
    ("final = ?", ("no",), "final must be true or false"),
]


async def poison(url: str, assignment: str, values: tuple[object, ...], problem: str, caplog: Any) -> None:
    """One row of three cannot be read: the others complete, and it fails."""
    refs = jobs(3)
    script = scripted(refs)
    async with open_list(url) as watch:
        await watch.add(refs)
        await change(url, f"UPDATE watch SET {assignment} WHERE job_id = 'job-1'", *values)
        [number] = [row.seq for row in await watch.store.pending(range(256)) if not hasattr(row, "user_id")]
        assert len([job async for job in watch.pending()]) == 2
        async with working(script, url):
            await until_ended(watch)
        counts = await watch.counts()
        assert (counts.complete, counts.failed, counts.oldest) == (2, 1, None)
        outcomes = await listed(watch)
        [failed] = [outcome for outcome in outcomes if outcome.state == "failed"]
        assert failed.error == "WatchListError"
        assert f"row {number} of the watch list cannot be read: {problem}" in str(failed.error_text)
        assert sorted(outcome.state for outcome in outcomes) == ["complete", "complete", "failed"]
    assert f"row {number} of the watch list cannot be read: {problem}" in caplog.text
    assert "; the job has failed" in caplog.text


@pytest.mark.parametrize(("assignment", "values", "problem"), POISON)
async def test_a_row_that_cannot_be_read_is_one_failed_job(
    database_url: str, assignment: str, values: tuple[object, ...], problem: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Named in the log by its number."""
    await poison(database_url, assignment, values, problem, caplog)


@pytest.mark.parametrize(("assignment", "values", "problem"), POISON_SQLITE)
async def test_sqlite_keeps_values_of_any_type(
    sqlite_url: str, assignment: str, values: tuple[object, ...], problem: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A row with a wrong one is one failed job."""
    await poison(sqlite_url, assignment, values, problem, caplog)


@pytest.mark.parametrize(
    ("outcome", "problem"),
    [
        ("[]", "its outcome is no JSON object"),
        ("null", "its outcome is no JSON object"),
        ("{", "its outcome is no JSON object"),
        (None, "its outcome is no JSON object"),
        ('{"verdict": 5}', "its outcome holds no text"),
        ('{"confidence": "much"}', "confidence must be a number"),
        ('{"is_final": 1}', "is_final must be true or false"),
        ("[" * 100_000, "its outcome is no JSON object"),
    ],
)
async def test_an_outcome_that_cannot_be_read(sqlite_url: str, outcome: str | None, problem: str) -> None:
    """It has failed, and says so; the others come as they are."""
    refs = jobs(3)
    async with WatchList.open(sqlite_url) as watch:
        await watch.add(refs)
        await watch.store.end([ending(ref, raw={}) for ref in refs], 1.0)
        await change(sqlite_url, "UPDATE watch SET outcome = ? WHERE job_id = 'job-1'", outcome)
        outcomes = await listed(watch)
    assert [each.state for each in outcomes] == ["complete", "failed", "complete"]
    assert outcomes[1].ref == refs[1]
    assert f" of the watch list cannot be read: {problem}" in str(outcomes[1].error_text)


@pytest.mark.parametrize(
    ("assignment", "problem"),
    [
        ("state = 9", "its state is unknown"),
        ("user_id = ''", "user_id must not be empty"),
        ("ended_at = 1e300", "ended_at is not within the calendar"),
        ("raw = '[]'", "its raw is no JSON object"),
    ],
)
async def test_an_ended_row_that_cannot_be_read(database_url: str, assignment: str, problem: str) -> None:
    """Counts as failed."""
    async with open_list(database_url) as watch:
        await watch.add(jobs(1))
        await watch.store.end([ending(jobs(1)[0])], 1.0)
        await change(database_url, f"UPDATE watch SET {assignment}")
        [outcome] = await listed(watch)
        counts = await watch.counts()
    assert (outcome.state, counts.pending) == ("failed", 0)
    assert problem in str(outcome.error_text)
    assert outcome.ref.user_id == (UNREADABLE_ID if "user_id" in assignment else "user-1")
    assert counts.failed == ("state" in assignment)


async def test_what_an_outcome_may_not_say(sqlite_url: str) -> None:
    """Names that this version does not know, or that are told elsewhere, are left out."""
    async with WatchList.open(sqlite_url) as watch:
        await watch.add(jobs(1))
        await watch.store.end([ending(jobs(1)[0])], 1.0)
        text = json.dumps({"code": "2302", "state": "failed", "cursor": "x", "raw": 1, "ref": 2, "new": 3})
        await change(sqlite_url, "UPDATE watch SET outcome = ?", text)
        [outcome] = await listed(watch)
    assert (outcome.state, outcome.code, outcome.raw) == ("complete", "2302", None)


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO about (version, list, places) SELECT version, list, places FROM about",
        "DELETE FROM about",
    ],
)
async def test_a_table_with_a_wrong_number_of_rows(database_url: str, statement: str) -> None:
    """Is an error of ours, for every method and for a worker; waiting does not help."""
    async with open_list(database_url) as watch, scripted([]).client() as client:
        await watch.add(jobs(1))
        await change(database_url, statement)
        with pytest.raises(WatchListError, match="rows in place of one"):
            await watch.counts()
        with pytest.raises(WatchListError) as caught:
            await Worker(client, watch).run()
        assert not caught.value.transient
    with pytest.raises(WatchListError, match="rows in place of one"):
        async with WatchList.open(database_url):
            pass


@pytest.mark.parametrize("column", ["places", "list"])
async def test_a_wrong_value_in_the_table_about(sqlite_url: str, column: str) -> None:
    """Is an error of ours too."""
    async with WatchList.open(sqlite_url) as watch:
        await change(sqlite_url, f"UPDATE about SET {column} = ?", b"wrong")
        with pytest.raises(WatchListError, match="a wrong value"):
            await (watch.store.places() if column == "places" else WatchList.open(sqlite_url).__aenter__())


async def test_an_outcome_that_the_database_refuses_is_one_failed_job(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """For a constraint that another program has added, say; the others of its group are stored."""
    refs = jobs(3)
    async with open_list(database_url) as watch:
        await watch.add(refs)
        if watch.store.is_shared:
            await execute(database_url, "ALTER TABLE watch ADD CHECK (raw IS NULL)")
        else:
            refuse = "BEFORE UPDATE ON watch WHEN new.raw IS NOT NULL BEGIN SELECT RAISE(ABORT, 'no raw'); END"
            await change(database_url, f"CREATE TRIGGER refuse {refuse}")
        await watch.store.end([ending(refs[0]), ending(refs[1], raw={}), ending(refs[2])], 1.0)
        by_job = {outcome.ref: outcome for outcome in await listed(watch)}
    assert [by_job[ref].state for ref in refs] == ["complete", "failed", "complete"]
    reason = "SQLSTATE 23514" if database_url.startswith("postgresql") else "IntegrityError"
    assert "the outcome of the job cannot be stored: the database" in str(by_job[refs[1]].error_text)
    assert reason in str(by_job[refs[1]].error_text)
    assert refs[1].tag in caplog.text


@pytest.mark.parametrize("by", ["unlink", "replace"])
async def test_a_file_that_goes_away_ends_the_worker(sqlite_url: str, tmp_path: Path, by: str) -> None:
    """Within a second or so, with an error: what it writes into a file without a name is lost."""
    script = scripted(jobs(1), Gate(open=False))
    async with script.client() as client, WatchList.open(sqlite_url) as watch:
        await watch.add(jobs(1))
        with pytest.raises(WatchListError, match="was deleted, moved or replaced") as caught, anyio.fail_after(120):
            await asyncio.gather(Worker(client, watch).run(), lose(script, tmp_path / "jobs.db", by))
        assert not caught.value.transient
        with pytest.raises(WatchListError, match="was deleted, moved or replaced"):
            await watch.add(jobs(2))


async def lose(script: Script, path: Path, by: str) -> None:
    """Take the file of a list away once its worker polls."""
    await polled(script, jobs(1)[0])
    if by == "replace":
        (path.parent / "new.db").touch()
        (path.parent / "new.db").replace(path)
    else:
        path.unlink()  # noqa: ASYNC240  # it takes no time


async def test_files_are_for_their_owner_alone(sqlite_url: str, tmp_path: Path) -> None:
    """From their first byte: a watch list holds ids, and answers with personal data."""
    (tmp_path / "link.db").symlink_to(tmp_path / "target.db")
    for url in (sqlite_url, f"sqlite:///{tmp_path / 'link.db'}"):
        async with WatchList.open(url) as watch:
            await watch.add(jobs(1))
            files = list(tmp_path.glob(f"{Path(url).stem}.db*"))  # noqa: ASYNC240  # it takes no time
            modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in files}
            assert set(modes.values()) == {0o600}
            assert "link.db" in modes or "jobs.db-wal" in modes
    assert stat.S_IMODE((tmp_path / "target.db").stat().st_mode) == 0o600


async def test_a_clock_that_is_behind_passes_no_negative_age(sqlite_url: str) -> None:
    """The job was added by another clock: it is just new."""
    ages: list[float] = []

    def pace(age: float, polls: int) -> float:
        ages.append(age)
        return Pace(min=0.05, max=0.05)(age, polls)

    script = Script({"job-0": [pending(), complete()]}, now=utcnow)
    async with WatchList.open(sqlite_url) as watch:
        await watch.store.add([JobRef("user-1", "job-0")], final=False, deadline=None, now=utcnow().timestamp() + 120.0)
        async with working(script, sqlite_url, pace=pace):
            await until_ended(watch)
    assert ages
    assert min(ages) >= 0.0


async def test_a_session_sets_the_isolation_that_it_relies_on(postgres_url: str) -> None:
    """And time limits for all that may wait, whatever the defaults of the database are."""
    name = postgres_url.rpartition("/")[2]
    await execute(postgres_url, f"ALTER DATABASE {name} SET default_transaction_isolation = 'serializable'")
    await execute(postgres_url, f"ALTER DATABASE {name} SET lock_timeout = 0")
    assert await execute(postgres_url, "SHOW transaction_isolation") == [("read committed",)]
    assert await execute(postgres_url, "SHOW lock_timeout") == [("10s",)]
    assert await execute(postgres_url, "SHOW statement_timeout") == [("1min",)]
    assert "statement_timeout=500ms" in connection_options(Tuning(transaction_seconds=0.5))["options"]  # 0 is no limit


@pytest.mark.sample
async def test_what_touches_a_few_rows_is_given_up_soon(postgres_url: str) -> None:
    """Before the time limit of a lock, and long before that of a transaction that reads or writes many rows."""
    tuning = Tuning(quick_transaction_seconds=3.0, stalled_seconds=0.0)
    async with (
        WatchList.open(postgres_url, tuning=tuning) as watch,
        await psycopg.AsyncConnection.connect(postgres_url) as other,
    ):
        await watch.add(jobs(1))
        await other.execute("LOCK TABLE smilejobs.watch IN ACCESS EXCLUSIVE MODE")
        errors = await asyncio.gather(
            watch.store.named(key_of(jobs(1)[0])), watch.store.health(), return_exceptions=True
        )
        assert [isinstance(error, WatchListError) and "(TimeoutError)" in str(error) for error in errors] == [True] * 2


async def test_every_loss_of_the_listening_connection_is_told_once(
    postgres_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Not only the first; and what was called meanwhile is not missed."""
    caplog.set_level(logging.WARNING)
    script = scripted(jobs(2))

    def is_told(count: int) -> bool:
        texts = ("trying again until the database works", "the database of the watch list works again")
        return all(caplog.text.count(text) == count for text in texts)

    async def listening() -> list[tuple[Any, ...]]:
        return await execute(
            postgres_url,
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN \"smilejobs%%'",
        )

    tuning = evolve(PATIENT, silent_connection_seconds=600.0)  # LISTEN stays its last statement
    async with (
        open_list(postgres_url) as watch,
        working(script, postgres_url, tuning=tuning, lease_duration=3600.0),
    ):
        for count in (1, 2):
            await until(listening)
            for (pid,) in await listening():
                await execute(postgres_url, "SELECT pg_terminate_backend(%(pid)s)", pid=pid)
            await until(partial(is_told, count))
            await watch.add([jobs(2)[count - 1]])
            await until_ended(watch)
