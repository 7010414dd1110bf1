"""Watch lists and their workers under test: an API by script, in real time, since a database keeps its own."""

import asyncio
import itertools
import json
from collections.abc import AsyncGenerator, Iterable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import psycopg
from attrs import define

from smilejobs import Client, Hook, JobRef, Pace, log_event
from smilejobs.clock import utcnow
from smilejobs.durable import WatchList, WatchOutcome, Worker
from smilejobs.durable.database import connection_options
from smilejobs.durable.reading import Unreadable
from smilejobs.durable.rows import Ending, Pending
from smilejobs.durable.schema import COMPLETE
from smilejobs.durable.tuning import Tuning
from smilejobs.testing import Poll, Script, complete, not_found, pending, refused
from smilejobs.testing.script import Step
from tests.helpers.patience import until

QUICK = Pace(min=0.05, max=0.05, jitter=0)
HEARTBEAT = 10.0
"""Seconds without a sign of life: a busy machine may let nobody do anything for a few of them."""

LEASE_DURATION = 2.0

PATIENT = Tuning(quick_transaction_seconds=60.0, connect_seconds=60, ping_seconds=30.0, liveness_heartbeats=100)
"""For a machine that is slow: no statement is given up, and a sign of life lasts."""

START = datetime(2026, 11, 23, 12, tzinfo=UTC)


def readable(rows: Iterable[Pending | Unreadable]) -> list[Pending]:
    """Return the rows, all of which can be read."""
    found = list(rows)
    pending_rows = [row for row in found if isinstance(row, Pending)]
    assert len(pending_rows) == len(found)
    return pending_rows


class Clock:
    """A wall clock that is put forward by hand."""

    def __init__(self) -> None:
        self.at = START

    def __call__(self) -> datetime:
        return self.at


def jobs(count: int, prefix: str = "job") -> list[JobRef]:
    return [JobRef("user-1", f"{prefix}-{index}") for index in range(count)]


def ending(ref: JobRef, state: int = COMPLETE, raw: dict[str, object] | None = None, **known: object) -> Ending:
    return Ending(ref, state, json.dumps(known), None if raw is None else json.dumps(raw))


async def execute(url: str, query: str, **arguments: object) -> list[tuple[Any, ...]]:
    """Do something in a database on PostgreSQL behind everybody's back; return the rows."""
    async with await psycopg.AsyncConnection.connect(url, **connection_options(PATIENT)) as connection:
        cursor = await connection.execute(query.encode(), arguments)
        return await cursor.fetchall() if cursor.description else []


async def listed(watch: WatchList, **options: Any) -> list[WatchOutcome]:
    return [outcome async for outcome in watch.outcomes(**options)]


@define
class Gate:
    """What an API by script goes by: while *wrong*, it knows nobody; while not *open*, every job is running."""

    open: bool = True
    wrong: bool = False

    def steps(self, last: Step | None = None) -> Iterator[Step]:
        """Answer for one job, for as long as anybody asks."""
        while True:
            if self.wrong:
                yield refused("2205")
            else:
                yield (last or complete()) if self.open else pending()


def scripted(refs: Iterable[JobRef], gate: Gate | None = None, **steps: Iterable[Step]) -> Script:
    """An API that knows some jobs, of which each is complete at once or when the gate opens, and nobody's."""
    gate = gate or Gate()
    by_job = {ref.job_id: gate.steps() for ref in refs}
    named = {name.replace("_", "-"): each for name, each in steps.items()}
    return Script({"credentials": gate.steps(not_found()), **by_job, **named}, now=utcnow)


def polls(script: Script) -> list[Poll]:
    """What was asked about jobs, in order."""
    of_jobs = [each for job_id, each in script.polls.items() if job_id != "credentials"]
    return sorted(itertools.chain.from_iterable(of_jobs), key=lambda poll: poll.at)


def open_list(url: str, **options: Any) -> AbstractAsyncContextManager[WatchList]:
    """Open a watch list that does not take a slow machine for a database that is away."""
    return WatchList.open(url, **{"tuning": PATIENT, **options})


@define
class Work:
    """A worker that runs."""

    watch: WatchList
    client: Client
    task: "asyncio.Task[None]"


@asynccontextmanager
async def working(
    script: Script,
    url: str,
    rate: float | None = None,
    hooks: Iterable[Hook] = (log_event,),
    tuning: Tuning = PATIENT,
    **options: Any,
) -> AsyncGenerator[Work, None]:
    """A worker of its own, with a connection to the watch list of its own, while the block runs."""
    async with script.client(rate=rate, hooks=hooks) as client, open_list(url, tuning=tuning) as watch:
        task = asyncio.create_task(worker(client, watch, **options).run())
        try:
            yield Work(watch, client, task)
        finally:
            task.cancel()
            await asyncio.wait([task])
        assert task.cancelled() or task.exception() is None, task.exception()


def worker(client: Client, watch: WatchList, **options: Any) -> Worker:
    return Worker(client, watch, **{"pace": QUICK, "lease_duration": LEASE_DURATION, "heartbeat": HEARTBEAT, **options})


async def polled(script: Script, ref: JobRef, times: int = 1) -> None:
    """Wait until a job has been asked about."""
    await until(lambda: len(script.polls[ref.job_id]) >= times)


async def until_ended(watch: WatchList) -> None:
    async def nothing_is_pending() -> bool:
        return (await watch.counts()).pending == 0

    await until(nothing_is_pending)
