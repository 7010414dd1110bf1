"""`WatchList` as a service sees it, in SQLite and in PostgreSQL, without a worker."""

import logging
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from shutil import copyfile
from typing import Any

import anyio
import psycopg
import pytest
from attrs import evolve
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from smilejobs import JobRef
from smilejobs.clock import utcnow
from smilejobs.durable import Added, Counts, WatchList, WatchOutcome
from smilejobs.durable.rows import key_of
from smilejobs.durable.schema import COMPLETE, EXPIRED, FAILED
from smilejobs.durable.tuning import Tuning
from smilejobs.errors import WatchListError
from smilejobs.model.callback import Callback
from smilejobs.model.jobs import JobResult
from tests.helpers.watching import PATIENT, START, Clock, ending, jobs, listed, open_list

pytestmark = pytest.mark.anyio

ID = "ada-lovelace-1815"
"""An id that is looked for where none may be."""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def tuning() -> Tuning:
    """Replaced by the parameters of tests."""
    return PATIENT


@pytest.fixture
async def watch(database_url: str, clock: Clock, tuning: Tuning) -> AsyncIterator[WatchList]:
    async with WatchList.open(database_url, now=clock, tuning=tuning) as opened:
        yield opened


@pytest.fixture
async def small(tmp_path: Path) -> AsyncIterator[WatchList]:
    """A list in SQLite, for what has nothing to do with the database."""
    async with WatchList.open(f"sqlite:///{tmp_path / 'small.db'}") as opened:
        yield opened


async def end(watch: WatchList, *refs: JobRef, state: int = COMPLETE, **options: Any) -> None:
    await watch.store.end([ending(ref, state, **options) for ref in refs], watch.now().timestamp())


async def test_adding_is_idempotent(watch: WatchList) -> None:
    """One row per job, however often it is named, in one call or in several."""
    refs = jobs(3)
    assert await watch.add([*refs, refs[0]]) == Added(new=3, known=1, different=())
    assert await watch.add(refs) == Added(new=0, known=3, different=())
    assert await watch.add([*refs, *jobs(1, "other")]) == Added(new=1, known=3, different=())
    assert (await watch.counts()).pending == 4


async def test_the_terms_of_the_first_stand_and_the_caller_is_told(watch: WatchList) -> None:
    """Another deadline, none at all, or another `until` is another term; the same in other words is not."""
    (ref,) = jobs(1)
    await watch.add([ref], until="final", deadline=timedelta(minutes=1))
    (row,) = await watch.store.pending(range(256))
    assert (await watch.add([ref], until="final", deadline=60)).different == ()
    for terms in ({"until": "complete", "deadline": 60}, {"until": "final", "deadline": 61}, {"until": "final"}):
        assert await watch.add([("user-1", "job-0")], **terms) == Added(new=0, known=1, different=(ref,))
    assert (await watch.add([ref], until="final", deadline=None)).different == (ref,)
    assert await watch.store.pending(range(256)) == [row]
    await watch.add(jobs(1, "forever"), deadline=None)
    assert (await watch.add(jobs(1, "forever"), deadline=None)).different == ()
    assert (await watch.add(jobs(1, "forever"))).different == tuple(jobs(1, "forever"))


async def test_a_job_that_has_ended_is_not_opened_by_adding_it(watch: WatchList) -> None:
    """Its outcome stays, and stays one."""
    (ref,) = jobs(1)
    await watch.add([ref])
    await end(watch, ref)
    assert await watch.add([ref]) == Added(new=0, known=1, different=())
    assert (await watch.add([ref], until="final")).different == (ref,)
    assert [outcome.ref for outcome in await listed(watch)] == [ref]
    assert (await watch.counts()).pending == 0


@pytest.mark.parametrize("tuning", [Tuning(add_rows=10)])
async def test_refs_may_come_from_anywhere(watch: WatchList) -> None:
    """In groups, from iterables of either kind; a generator is closed when something is wrong with what it yields."""
    closed = []

    def plain() -> Iterator[tuple[str, str]]:
        try:
            yield from (("user-1", f"plain-{index}") for index in range(25))
            yield "user-1", ""
        finally:
            closed.append("plain")

    async def slow() -> AsyncIterator[JobRef]:
        try:
            for ref in jobs(30, "slow"):
                await anyio.lowlevel.checkpoint()
                yield ref
        finally:
            closed.append("slow")

    with pytest.raises(ValueError, match=r"refs\[25\]: job_id must not be empty"):
        await watch.add(plain())
    assert (await watch.counts()).pending == 20
    assert (await watch.add(slow())).new == 30
    assert closed == ["plain", "slow"]
    assert await watch.add([]) == Added(new=0, known=0, different=())


@pytest.mark.parametrize(
    ("refs", "kind", "text"),
    [
        ([("user\0", "job")], ValueError, r"refs\[0\]: an id with a NUL character cannot be stored"),
        ([("user", "job"), ("user", "\0")], ValueError, r"refs\[1\]: an id with a NUL"),
        ([("user", "\ud800")], ValueError, r"refs\[0\]: job_id holds half a surrogate pair"),
        ([("", "job")], ValueError, r"refs\[0\]: user_id must not be empty"),
        ([JobRef("u", "j", datetime.max.replace(tzinfo=UTC))], ValueError, r"refs\[0\]: submitted_at must be in"),
        ([JobRef("u", "j", datetime.min.replace(tzinfo=UTC))], ValueError, r"refs\[0\]: submitted_at must be in"),
        ([("user",)], TypeError, r"refs\[0\] must be a JobRef or a pair"),
        (["ab"], TypeError, r"refs\[0\] must be a JobRef or a pair"),
        (5, TypeError, "iter"),
        (JobRef("user", "job"), TypeError, "iter"),
    ],
)
async def test_what_is_no_job_is_refused(small: WatchList, refs: Any, kind: type[Exception], text: str) -> None:
    """With its place in the input, and without its ids; nothing is stored."""
    with pytest.raises(kind, match=text):
        await small.add(refs)
    assert (await small.counts()).pending == 0


@pytest.mark.parametrize(
    ("terms", "kind", "text"),
    [
        ({"until": "done"}, ValueError, "until must be 'complete' or 'final'"),
        ({"until": None}, ValueError, "until must be"),
        ({"deadline": 0}, ValueError, "deadline must be more than 0"),
        ({"deadline": -1}, ValueError, "deadline must be more than 0"),
        ({"deadline": float("inf")}, ValueError, "deadline must be a finite"),
        ({"deadline": float("nan")}, ValueError, "deadline must be a finite"),
        ({"deadline": True}, TypeError, "deadline must be seconds"),
        ({"deadline": "7d"}, TypeError, "deadline must be seconds"),
    ],
)
async def test_terms_that_can_never_be_right(
    small: WatchList, terms: dict[str, Any], kind: type[Exception], text: str
) -> None:
    """They are refused before anything is stored."""
    with pytest.raises(kind, match=text):
        await small.add(jobs(1), **terms)
    assert (await small.counts()).pending == 0


async def test_outcomes_come_in_the_order_of_completion(watch: WatchList, clock: Clock) -> None:
    """Not of addition; every cursor resumes right after its outcome, also in another process."""
    refs = jobs(6)
    await watch.add(refs)
    clock.at += timedelta(minutes=1)
    for index in (3, 0, 5, 1):
        await end(watch, refs[index])
    outcomes = await listed(watch)
    assert [outcome.ref.job_id for outcome in outcomes] == ["job-3", "job-0", "job-5", "job-1"]
    assert {outcome.added_at for outcome in outcomes} == {START}
    assert {outcome.ended_at for outcome in outcomes} == {clock.at}
    async with open_list(watch.url) as again:
        for index, outcome in enumerate(outcomes):
            assert await listed(again, after=outcome.cursor) == outcomes[index + 1 :]
    await end(watch, refs[2])
    assert [outcome.ref for outcome in await listed(watch, after=outcomes[-1].cursor)] == [refs[2]]


@pytest.mark.parametrize("tuning", [Tuning(page_rows=4)])
async def test_outcomes_are_read_in_pages(watch: WatchList) -> None:
    """Which nobody notices, whatever their size; and the reader may stop anywhere."""
    refs = jobs(12)
    await watch.add(refs)
    await end(watch, *refs)
    assert [outcome.ref for outcome in await listed(watch)] == refs
    async for outcome in watch.outcomes():
        if outcome.ref == refs[5]:
            break
    assert [each.ref for each in await listed(watch, after=outcome.cursor)] == refs[6:]


@pytest.mark.parametrize("tuning", [Tuning(follow_seconds=0.01)])
async def test_following_waits_for_more(watch: WatchList) -> None:
    """And for ever; what comes later comes, in order."""
    refs = jobs(3)
    await watch.add(refs)
    seen: list[WatchOutcome] = []

    async def follow() -> None:
        async for outcome in watch.outcomes(follow=True):
            seen.append(outcome)  # noqa: PERF401  # what has come by now is looked at below

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(follow)
        for count, ref in enumerate(refs, 1):
            await end(watch, ref)
            with anyio.fail_after(120):
                while len(seen) < count:  # noqa: ASYNC110  # the database sets no events
                    await anyio.sleep(0.005)
        await anyio.sleep(0.05)
        tasks.cancel_scope.cancel()
    assert [outcome.ref for outcome in seen] == refs


async def test_a_cursor_of_another_list(watch: WatchList, tmp_path: Path) -> None:
    """It is refused, rather than taken for a place in this one."""
    async with WatchList.open(f"sqlite:///{tmp_path / 'other.db'}") as other:
        await other.add(jobs(1))
        await end(other, *jobs(1))
        (outcome,) = await listed(other)
    with pytest.raises(ValueError, match="of another watch list: begin without one, or open the other list"):
        await listed(watch, after=outcome.cursor)


async def test_a_cursor_of_a_list_that_was_set_back(tmp_path: Path) -> None:
    """A backup of it was restored: waiting for outcomes beyond the cursor would skip those that come before."""
    url, backup = f"sqlite:///{tmp_path / 'jobs.db'}", tmp_path / "backup.db"
    refs = jobs(3)
    async with open_list(url) as watch:
        await watch.add(refs)
        await end(watch, refs[0])
    copyfile(tmp_path / "jobs.db", backup)
    async with open_list(url) as watch:
        await end(watch, *refs[1:])
        cursors = [outcome.cursor for outcome in await listed(watch)]
        assert await listed(watch, after=cursors[-1]) == []
    copyfile(backup, tmp_path / "jobs.db")
    async with open_list(url) as watch:
        for cursor in cursors[1:]:
            with (
                pytest.raises(ValueError, match="ahead of the watch list.*begin with an older cursor, or without one"),
                anyio.fail_after(120),
            ):
                await listed(watch, after=cursor, follow=True)
        assert await listed(watch, after=cursors[0]) == []
        await end(watch, *refs[1:])
        assert [outcome.ref for outcome in await listed(watch, after=cursors[0])] == refs[1:]


@pytest.mark.parametrize("by", ["retry", "prune"])
async def test_a_cursor_of_an_outcome_that_is_gone(watch: WatchList, by: str) -> None:
    """It is behind the list all the same, also if it was the last: what comes later comes."""
    refs = jobs(3)
    await watch.add(refs)
    await end(watch, *refs[:2], state=FAILED)
    *_, last = await listed(watch)
    await (watch.retry() if by == "retry" else watch.store.prune(watch.now().timestamp() + 1))
    assert await listed(watch, after=last.cursor) == []
    await end(watch, refs[2])
    assert [outcome.ref for outcome in await listed(watch, after=last.cursor)] == refs[2:]
    with pytest.raises(ValueError, match="ahead of the watch list"):
        await listed(watch, after=f"{watch.store.name}-{await watch.store.places() + 1}")


@pytest.mark.parametrize(
    "cursor",
    ["", "1", "{}", "{}-", "{}--1", "{}-1.5", "{}-x", "{}-\u0663", "{}- 1", "{}-1e3", f"{{}}-{10**18}", "-" * 9000, 5],
)
async def test_a_cursor_that_is_none(small: WatchList, cursor: Any) -> None:
    """It is refused in words, whatever it is."""
    given = cursor.format(small.store.name) if isinstance(cursor, str) else cursor
    with pytest.raises(ValueError, match="after must be the cursor of an outcome of this watch list"):
        await listed(small, after=given)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text())
def test_any_text_is_a_cursor_or_is_refused(cursor: str) -> None:
    """Nothing else is raised, and nothing that another list gave out is accepted."""

    class Store:
        name = "0a1b2c3d"

    watch = WatchList(Store(), "sqlite:///jobs.db", utcnow)  # type: ignore[arg-type]  # a name is all that is needed
    with pytest.raises(ValueError, match="cursor"):
        watch._place(cursor)  # noqa: SLF001  # what every method asks


async def test_counts(watch: WatchList, clock: Clock) -> None:
    """Of each state, and since when something is pending."""
    assert await watch.counts() == Counts(pending=0, complete=0, failed=0, expired=0, oldest=None, paused=None)
    refs = jobs(7)
    await watch.add(refs[:4])
    clock.at += timedelta(hours=1)
    await watch.add(refs[4:])
    first = await watch.counts()
    assert first.oldest == START
    assert first.stalled is not None
    assert "no worker is at work, and none has been yet: start a worker" in first.stalled
    await end(watch, refs[0], refs[1])
    await end(watch, refs[2], state=FAILED)
    await end(watch, refs[3], state=EXPIRED)
    assert evolve(await watch.counts(), stalled=None) == Counts(
        pending=3, complete=2, failed=1, expired=1, oldest=START + timedelta(hours=1), paused=None
    )


@pytest.mark.parametrize("tuning", [Tuning(page_rows=4)])
async def test_what_is_pending_can_be_listed(watch: WatchList) -> None:
    """In pages that nobody notices, those that were added first before the others, with their terms."""
    assert [job async for job in watch.pending()] == []
    early, late = jobs(9, "early"), jobs(2, "late")
    await watch.add(early, deadline=None)
    await watch.add(late, until="final", deadline=60)
    await end(watch, early[3])
    listing = [job async for job in watch.pending()]
    assert {job.ref for job in listing[:8]} == {*early} - {early[3]}
    assert {job.ref for job in listing[8:]} == {*late}
    assert {(job.until, job.added_at, job.expires_at) for job in listing} == {
        ("complete", START, None),
        ("final", START, START + timedelta(seconds=60)),
    }
    assert not any(ref.job_id in repr(listing) for ref in (*early, *late))


@pytest.mark.parametrize("news", [("user-1", "job-0"), "job-0", None])
async def test_notify_takes_a_callback_or_a_job(small: WatchList, news: Any) -> None:
    """Nothing else."""
    with pytest.raises(TypeError, match="news must be a Callback or a JobRef"):
        await small.notify(news)


async def test_notify_tells_no_ids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is called out stands for them."""
    async with WatchList.open(f"sqlite:///{tmp_path / 'jobs.db'}") as watch:
        ref = JobRef(ID, f"{ID}-job")
        await watch.notify(ref)
        await watch.notify(Callback(ref=ref, result=JobResult()))
        assert await watch.store.take_notifications() == [f"news {key_of(ref).hex()}"] * 2


async def test_an_outcome_tells_what_is_known(watch: WatchList, clock: Clock) -> None:
    """In typed attributes; what an older or a newer version has stored besides is no matter."""
    (ref,) = refs = [JobRef("user-1", "job-0", START - timedelta(hours=1))]
    await watch.add(refs)
    raw = {"code": "2302", "nested": [1, None, {"ü": "\ud800"}], "big": 10**50}
    known = {"code": "2302", "verdict": "approved", "result_code": "0810", "confidence": 99.9, "is_final": True}
    await watch.store.end([ending(ref, COMPLETE, raw, **known, of_another_version=1)], START.timestamp())
    (outcome,) = await listed(watch)
    assert outcome == WatchOutcome(
        cursor=outcome.cursor,
        ref=ref,
        state="complete",
        code="2302",
        verdict="approved",
        result_code="0810",
        confidence=99.9,
        is_final=True,
        added_at=START,
        ended_at=START,
    )
    assert outcome.ref.submitted_at == START - timedelta(hours=1)
    assert outcome.raw == raw


async def test_nothing_personal_shows(watch: WatchList, caplog: pytest.LogCaptureFixture) -> None:
    """Neither ids nor what a result says, in reprs, errors or logs."""
    caplog.set_level(logging.INFO)
    ref = JobRef(f"user-{ID}", f"job-{ID}")
    added = [await watch.add([ref]), await watch.add([ref], until="final")]
    await watch.store.end([ending(ref, raw={"FullName": ID}, result_text=ID, result_code=ID)], START.timestamp())
    await watch.notify(ref)
    shown = [*added, *await listed(watch), watch, await watch.counts()]
    with pytest.raises(ValueError, match="NUL") as caught:
        await watch.add([(ID, f"{ID}\0")])
    assert ID not in f"{shown!r} {caught.value!r} {caplog.text}"


@pytest.mark.sample
async def test_a_list_that_was_closed_behind_our_back(postgres_url: str) -> None:
    """Somebody has dropped the schema: that is an error of ours, for every method."""
    async with open_list(postgres_url) as watch:
        with psycopg.connect(postgres_url) as connection:
            connection.execute("DROP SCHEMA smilejobs CASCADE")
        for call in (
            watch.add(jobs(1)),
            listed(watch),
            watch.counts(),
            watch.retry(),
            watch.prune(older_than=1),
            watch.store.buckets(),
            watch.store.reserve_permits(1, 1.0),
            watch.store.pause("why"),
        ):
            with pytest.raises(WatchListError, match="SQLSTATE 42P01"):
                await call
