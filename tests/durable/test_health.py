"""``smilejobs watch paused``: what asks for the health of a watch list, however long the list is."""

import json
import re
import sys
from collections.abc import Callable
from datetime import timedelta

import anyio
import psycopg
import pytest

import smilejobs.cli
from smilejobs.clock import utcnow
from smilejobs.durable import WatchList
from smilejobs.durable.named_leases import OUTAGE, SWEEPER, WORKER
from tests.helpers.watching import jobs, open_list

Ask = Callable[..., tuple[object, str, str]]


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Ask:
    """Run the command; return its exit code, what it printed, and its errors."""

    def run(url: str, *options: str) -> tuple[object, str, str]:
        monkeypatch.setattr(sys, "argv", ["/usr/bin/smilejobs", "watch", "paused", url, *options])
        with pytest.raises(SystemExit) as exited:
            smilejobs.cli.main()
        printed = capsys.readouterr()
        return exited.value.code, printed.out, printed.err

    return run


async def pause(url: str, why: str | None) -> None:
    async with open_list(url) as watch:
        await watch.add(jobs(3))
        await watch.store.pause(why)


async def at_work(url: str) -> None:
    """Leave the signs of a worker."""
    async with open_list(url) as watch:
        for name in (f"{WORKER}a", SWEEPER):
            await watch.store.leases.acquire(name, "a", 600.0)


async def out(url: str, text: str | None) -> None:
    """Leave the note of an outage, or take it away."""
    async with open_list(url) as watch:
        if text is None:
            await watch.store.leases.release("a", OUTAGE)
        else:
            await watch.store.leases.acquire(OUTAGE, "a", 600.0, text)


def test_an_outage_is_an_error(database_url: str, ask: Ask) -> None:
    """With its reason and since when, without control characters, until it is over."""
    anyio.run(at_work, database_url)
    anyio.run(out, database_url, "RequestError: TLS\x1b[2J")
    code, printed, error = ask(database_url)
    assert (code, error) == (4, "")
    assert re.fullmatch(
        r"polling is not paused\nno good answer from the API since 20\S+\+00:00: RequestError: TLS\?\[2J\n", printed
    )
    code, printed, _ = ask(database_url, "--json")
    assert code == 4
    found = json.loads(printed)
    assert (found["paused"], found["outage"], found["stalled"]) == (None, "RequestError: TLS\x1b[2J", None)
    assert found["outage_since"].startswith("20")
    anyio.run(out, database_url, None)
    assert ask(database_url) == (0, "polling is not paused\n", "")


async def add_old(url: str) -> None:
    async with WatchList.open(url, now=lambda: utcnow() - timedelta(hours=1)) as watch:
        await watch.add(jobs(3))


def test_a_list_without_workers_is_an_error(database_url: str, ask: Ask) -> None:
    """Once its jobs have been pending for a while."""
    anyio.run(add_old, database_url)
    code, printed, error = ask(database_url)
    assert (code, error) == (4, "")
    assert printed == (
        "polling is not paused\njobs are pending, but no worker is at work, and none has been yet: start a worker, or "
        "see the log of those that run\n"
    )
    anyio.run(at_work, database_url)
    assert ask(database_url) == (0, "polling is not paused\n", "")


def test_a_pause_prints_no_control_characters(database_url: str, ask: Ask) -> None:
    """Whoever wrote them into the database."""
    anyio.run(pause, database_url, "the key\x1b]0;title\x07\nis wrong")
    assert ask(database_url) == (4, "polling is paused: the key?]0;title??is wrong\n", "")


@pytest.mark.sample
def test_a_pause_is_an_error(database_url: str, ask: Ask) -> None:
    """With its reason, and until it is over."""
    anyio.run(at_work, database_url)
    anyio.run(pause, database_url, None)
    assert ask(database_url) == (0, "polling is not paused\n", "")
    anyio.run(pause, database_url, "the key is wrong")
    assert ask(database_url) == (4, "polling is paused: the key is wrong\n", "")
    anyio.run(pause, database_url, None)
    assert ask(database_url)[0] == 0


def test_neither_jobs_are_read_nor_storing_waited_for(postgres_url: str, ask: Ask) -> None:
    """Where workers are at work, a few rows are read, which nobody has to finish writing first."""
    anyio.run(pause, postgres_url, None)
    anyio.run(at_work, postgres_url)
    with psycopg.connect(postgres_url, options="-c search_path=smilejobs") as connection:
        connection.execute("LOCK TABLE watch IN ACCESS EXCLUSIVE MODE")
        connection.execute("UPDATE about SET places = places + 1")
        assert ask(postgres_url) == (0, "polling is not paused\n", "")


def test_a_list_that_is_not_there(ask: Ask) -> None:
    """It is no healthy one."""
    code, out, error = ask("sqlite:///missing/jobs.db")
    assert (code, out) == (2, "")
    assert "there is no watch list 'missing/jobs.db'" in error
