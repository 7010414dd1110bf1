"""Connections to PostgreSQL that fall silent without being cut, as behind a firewall that has forgotten them."""

from urllib.parse import urlsplit

import anyio
import psycopg
import pytest
from sqlalchemy import text

from smilejobs.durable import WatchList
from smilejobs.durable.database import open_database
from smilejobs.durable.tuning import DEFAULTS, Tuning
from smilejobs.durable.urls import parse
from smilejobs.errors import WatchListError
from tests.helpers.patience import until
from tests.helpers.watching import jobs
from tests.helpers.wire import wire

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def test_all_pooled_connections_are_replaced_after_one_time_limit(postgres_url: str) -> None:
    """A service that adds a job now and then waits a few seconds, once, and not a minute for each connection."""
    parts = urlsplit(postgres_url)
    async with wire(postgres_url) as between:
        netloc = f"{parts.username}:{parts.password}@127.0.0.1:{between.port}"
        async with WatchList.open(parts._replace(netloc=netloc).geturl()) as watch:

            async def all_at_once() -> None:
                async with anyio.create_task_group() as tasks:
                    for number in range(3):
                        tasks.start_soon(watch.add, jobs(1, f"{number}"))

            await all_at_once()
            between.forget()
            failures = 0

            async def works() -> bool:
                nonlocal failures
                try:
                    await watch.store.paused()
                except WatchListError:
                    failures += 1
                    return False
                return True

            with anyio.fail_after(4 * DEFAULTS.quick_transaction_seconds):
                await until(works)
            assert failures <= 1
            with anyio.fail_after(4 * DEFAULTS.quick_transaction_seconds):
                await all_at_once()


async def test_one_silent_connection_replaces_all_that_are_pooled(postgres_url: str) -> None:
    """They may be as silent as the one that has not answered in time."""
    backend = text("SELECT pg_backend_pid()")
    async with open_database(parse(postgres_url), DEFAULTS) as database:
        async with database.reading() as one, database.reading() as other:
            before = [(await each.execute(backend)).scalar_one() for each in (other, one)]
        # The pool gives out the one first that came back first.
        with psycopg.connect(postgres_url, autocommit=True) as session:
            session.execute("SELECT pg_terminate_backend(%s)", before[:1])
            here = "SELECT 1 FROM pg_stat_activity WHERE pid = %s"
            await until(lambda: not session.execute(here, before[:1]).fetchall())
        async with database.reading() as one, database.reading() as other:
            after = [(await each.execute(backend)).scalar_one() for each in (one, other)]
        assert not {*before} & {*after}


async def test_a_connection_that_was_given_up_is_not_used_again(postgres_url: str) -> None:
    """What did not answer in time is replaced."""
    backend = text("SELECT pg_backend_pid()")
    async with open_database(parse(postgres_url), Tuning(quick_transaction_seconds=1.0)) as database:
        [(before,)] = await database.read(backend)
        with pytest.raises(WatchListError, match="cannot be reached"):
            await database.read(text("SELECT pg_sleep(600)"), quick=True)
        assert (await database.read(backend))[0][0] != before
