"""`Worker` and credentials that the API refuses: always, now and then, or to somebody else."""

import itertools
import logging
from collections.abc import Iterator

import pytest

from smilejobs import JobRef
from smilejobs.clock import utcnow
from smilejobs.testing import Reply, Script, complete, cut, html, not_found, pending, rate_limited, refused
from smilejobs.testing.script import Step
from tests.helpers.patience import until
from tests.helpers.watching import Gate, jobs, listed, open_list, polled, polls, scripted, until_ended, working

pytestmark = pytest.mark.anyio

ID = "ada-lovelace-1815"
"""An id that is looked for where none may be."""

KEY = "sandbox-key"
"""That of every script."""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def heartbeat(url: str) -> float:
    """One that is short; on PostgreSQL, workers must be able to keep it on a machine that is slow."""
    return 0.1 if url.startswith("sqlite") else 2.0


async def asked(script: Script, times: int) -> None:
    """Wait until credentials have been tried so many times more."""
    tried = script.polls["credentials"]
    before = len(tried)
    await until(lambda: len(tried) >= before + times)


async def test_wrong_credentials_pause_the_list(database_url: str, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing fails, and it says why; when they are right, everything goes on by itself."""
    caplog.set_level(logging.INFO)
    refs = [JobRef(f"user-{ID}", ref.job_id) for ref in jobs(30)]
    gate = Gate(wrong=True)
    script = scripted(refs, gate)
    async with open_list(database_url) as watch:
        await watch.add(refs)

        async def paused() -> bool:
            return (await watch.counts()).paused is not None

        async with working(script, database_url, heartbeat=heartbeat(database_url)):
            await until(paused)
            count = len(polls(script))
            assert len(script.polls["credentials"]) >= 3
            counts = await watch.counts()
            assert (counts.pending, counts.failed) == (30, 0)
            assert counts.paused is not None
            assert "partner" in counts.paused
            await asked(script, 2)
            assert len(polls(script)) == count
            gate.wrong = False
            await until_ended(watch)
            assert (await watch.counts()).complete == 30
            assert not await paused()
    assert "whole watch list is paused" in caplog.text
    assert "the watch list goes on" in caplog.text
    assert not any(secret in f"{caplog.text} {counts!r}" for secret in (ID, KEY))


@pytest.mark.parametrize("code", ["2305", "2205", "2405", "2220", None])
async def test_why_the_list_is_paused_quotes_nothing(sqlite_url: str, code: str | None) -> None:
    """Whatever the API's own words quote: the reason stays in the list, for everybody to see."""
    words = f"{ID} {KEY} Ada Lovelace 085 https://pictures/?signature=abc"
    steps = itertools.repeat(Reply(body={"error": words, "message": words, "code": code}, http_status=401))
    ref = JobRef(f"user-{ID}", f"job-{ID}")
    script = Script({ref.job_id: steps, "credentials": steps}, now=utcnow)
    async with open_list(sqlite_url) as watch:
        await watch.add([ref])
        async with working(script, sqlite_url, heartbeat=0.1):
            await until(watch.store.paused)
        why = (await watch.counts()).paused
    assert why is not None
    assert why.startswith("HTTP 401, no content type, no code of the API" if code is None else "the API answered")
    assert "check that the API key is the one of this environment" in why
    assert not any(word in why for word in (*words.split(), ID))


async def test_one_refusal_of_the_credentials_is_none(sqlite_url: str) -> None:
    """The job is not to blame: it is asked about again, and does not fail."""
    script = scripted(jobs(1, "other"), job_0=[refused("2205"), complete()])
    async with open_list(sqlite_url) as watch:
        await watch.add(jobs(1))
        async with working(script, sqlite_url):
            await until_ended(watch)
        assert [outcome.state for outcome in await listed(watch)] == ["complete"]


@pytest.mark.parametrize("answers", [[not_found()], [refused("2205"), cut(), not_found()]])
async def test_who_is_refused_now_and_then_pauses_nobody(
    database_url: str, answers: list[Step], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One of the API's servers may be wrong: who is accepted by another goes on, and says so; nothing fails."""
    refs = jobs(6)

    def steps() -> Iterator[Step]:
        while True:
            yield complete() if script.polls["credentials"] else refused("2205")

    jobs_of_list = {ref.job_id: steps() for ref in refs}
    script = Script({"credentials": itertools.cycle(answers), **jobs_of_list}, now=utcnow)
    reasons: list[str | None] = []
    async with open_list(database_url) as watch:
        await watch.add(refs)
        async with working(script, database_url, heartbeat=heartbeat(database_url)) as work:

            async def pause(why: str | None) -> None:
                reasons.append(why)

            monkeypatch.setattr(work.watch.store, "pause", pause)
            await until_ended(watch)
        assert {outcome.state for outcome in await listed(watch)} == {"complete"}
    assert reasons == []
    assert "accepts the credentials, and refused them a moment ago: the API answered 2205" in caplog.text
    assert len(script.polls["credentials"]) % len(answers) == 0


@pytest.mark.parametrize("trouble", [cut(), html(), rate_limited()])
async def test_a_pause_outlasts_an_outage(sqlite_url: str, trouble: Step) -> None:
    """An API that cannot be reached has accepted nothing."""
    steps: list[Step] = [trouble, trouble, refused("2205")]
    script = scripted(jobs(1), credentials=itertools.chain(steps, itertools.repeat(not_found())))
    async with open_list(sqlite_url) as watch:
        await watch.add(jobs(1))
        await watch.store.pause("the key is wrong")
        async with working(script, sqlite_url, heartbeat=0.02):
            await until_ended(watch)
    assert len(script.polls["credentials"]) == 4


async def test_any_answer_accepts_the_credentials(sqlite_url: str) -> None:
    """Also one about the job that should not exist."""
    script = scripted(jobs(1), credentials=[pending()])
    async with open_list(sqlite_url) as watch:
        await watch.add(jobs(1))
        await watch.store.pause("the key is wrong")
        async with working(script, sqlite_url):
            await until_ended(watch)


async def test_a_pause_by_another_worker_is_noticed(postgres_url: str) -> None:
    """Nobody polls any more, until somebody's credentials are accepted."""
    refs = jobs(10)
    gate, nobody = Gate(open=False), Gate(wrong=True)
    script = scripted(refs, gate, credentials=nobody.steps(not_found()))
    async with open_list(postgres_url) as watch:
        await watch.add(refs)
        async with working(script, postgres_url, heartbeat=heartbeat(postgres_url)):
            for ref in refs:
                await polled(script, ref)
            await watch.store.pause("the key was withdrawn")
            await until(lambda: script.polls["credentials"])
            count = len(polls(script))
            await asked(script, 1)
            assert len(polls(script)) == count
            nobody.wrong, gate.open = False, True
            await until_ended(watch)


async def test_a_pause_by_somebody_who_was_mistaken(database_url: str) -> None:
    """A worker stops, finds its credentials accepted, and goes on."""
    gate = Gate(open=False)
    script = scripted(jobs(1), gate)
    async with open_list(database_url) as watch:
        await watch.add(jobs(1))

        async def goes_on() -> bool:
            return await watch.store.paused() is None

        async with working(script, database_url):
            await polled(script, jobs(1)[0])
            await watch.store.pause("the key of another worker is wrong")
            await until(goes_on)
            gate.open = True
            await until_ended(watch)
    assert len(script.polls["credentials"]) == 1


async def test_who_was_refused_must_be_accepted_first(sqlite_url: str) -> None:
    """Whoever else ends the pause: or two workers with different keys would pause and go on in turns."""
    gate = Gate(wrong=True)
    script = scripted(jobs(1), gate)
    async with open_list(sqlite_url) as watch:
        await watch.add(jobs(1))

        async def paused() -> bool:
            return await watch.store.paused() is not None

        async with working(script, sqlite_url, heartbeat=0.05):
            await until(paused)
            count = len(polls(script))
            await watch.store.pause(None)
            await asked(script, 3)
            assert not await paused()
            assert len(polls(script)) == count
            gate.wrong = False
            await until_ended(watch)
