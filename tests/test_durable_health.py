"""``smilejobs watch paused``: what asks for the health of a watch list, however long the list is."""

import sys
from collections.abc import Callable

import anyio
import psycopg
import pytest

import smilejobs.cli
from smilejobs.durable import WatchList
from watching import jobs

Ask = Callable[[str], tuple[object, str, str]]


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Ask:
    """Run the command; return its exit code, what it printed, and its errors."""

    def run(url: str) -> tuple[object, str, str]:
        monkeypatch.setattr(sys, "argv", ["/usr/bin/smilejobs", "watch", "paused", url])
        with pytest.raises(SystemExit) as exited:
            smilejobs.cli.main()
        printed = capsys.readouterr()
        return exited.value.code, printed.out, printed.err

    return run


async def pause(url: str, why: str | None) -> None:
    async with WatchList.open(url) as watch:
        await watch.add(jobs(3))
        await watch.store.pause(why)


def test_a_pause_is_an_error(database_url: str, ask: Ask) -> None:
    """With its reason, and until it is over."""
    anyio.run(pause, database_url, None)
    assert ask(database_url) == (0, "polling is not paused\n", "")
    anyio.run(pause, database_url, "the key is wrong")
    assert ask(database_url) == (4, "polling is paused: the key is wrong\n", "")
    anyio.run(pause, database_url, None)
    assert ask(database_url)[0] == 0


def test_neither_jobs_are_read_nor_storing_waited_for(postgres_url: str, ask: Ask) -> None:
    """One row is read, which nobody has to finish writing first."""
    anyio.run(pause, postgres_url, None)
    with psycopg.connect(postgres_url, options="-c search_path=smilejobs") as connection:
        connection.execute("LOCK TABLE watch IN ACCESS EXCLUSIVE MODE")
        connection.execute("UPDATE about SET places = places + 1")
        assert ask(postgres_url) == (0, "polling is not paused\n", "")


def test_a_list_that_is_not_there(ask: Ask) -> None:
    """It is no healthy one."""
    code, out, error = ask("sqlite:///missing/jobs.db")
    assert (code, out) == (2, "")
    assert "there is no watch list 'missing/jobs.db'" in error
