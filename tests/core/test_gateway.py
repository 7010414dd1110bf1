"""Answers without a code of the API: of gateways, proxies, firewalls, login and maintenance pages, under a wait."""

import itertools
import json
import ssl
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import httpx
import hypothesis.strategies as st
import pytest
from hypothesis import assume, example, given

from smilejobs import (
    STATUS_CODES,
    Client,
    CredentialsError,
    GatewayError,
    JobStatus,
    Outcome,
    RequestError,
    SmileJobsError,
    TooManyFailuresError,
    WaitTimeoutError,
)
from smilejobs.batch.journal import Journal, is_settled
from smilejobs.batch.records import Ending, classify_error
from smilejobs.batch.rows import Row
from smilejobs.batch.run import Run
from smilejobs.clock import utcnow
from smilejobs.durable import WatchList
from smilejobs.model.jobs import Include
from smilejobs.polling.rules import GiveUp, PollState, Sleep, Terms, begin, step
from smilejobs.testing import Reply, Script, complete, not_found, pending, refused
from smilejobs.testing.script import Step
from smilejobs.wire.protocol import read_answer
from tests.helpers.bodies import CREDENTIALS, NOW, REF, encode, read
from tests.helpers.strategies import json_values, texts, unhurried
from tests.helpers.watching import listed, until_ended, working

pytestmark = pytest.mark.anyio


def answer(http_status: int, content_type: str | None = None, body: bytes = b"", **headers: str) -> Reply:
    """Return an answer of something other than the API."""
    if content_type is not None:
        headers["content-type"] = content_type
    return Reply(body=body, http_status=http_status, headers=headers)


JSON = "application/json"
LIKE_A_WRONG_URL = {
    "ingress 404": answer(404, "text/plain", b"default backend - 404"),
    "JSON 404": answer(404, JSON, b'{"message": "Not Found"}'),
    "no token 403": answer(403, JSON, b'{"message": "Missing Authentication Token"}'),
    "405": answer(405, "text/html", b"<html><h1>Not Allowed</h1></html>"),
    "maintenance 302": answer(302, location="https://maintenance.example/"),
    "captive portal 307": answer(307, location="https://portal.example/login?u=user-1"),
}
LIKE_NO_WRONG_URL = {
    "firewall 403": answer(403, JSON, b'{"message": "Forbidden"}'),
    "HTML 403": answer(403, "text/html", b"<html>Request blocked</html>"),
    "HTML 400": answer(400, "text/html", b"<html><h1>400 Bad Request</h1></html>"),
    "407": answer(407, "text/html", b"<html>proxy</html>"),
    "413": answer(413, "text/html", b"<html>413</html>"),
    "421": answer(421),
    "425": answer(425),
    "499": answer(499),
    "an unknown code": answer(400, JSON, b'{"error": "Quota of the gateway", "code": "9999"}'),
    "an unknown code 404": answer(404, JSON, b'{"error": "no route", "code": "404"}'),
    "an error with 200": answer(200, JSON, b'{"error": "session expired"}'),
    "Wi-Fi page 200": answer(200, "text/html", b"<html>welcome to the Wi-Fi</html>"),
}
UNAUTHORIZED = {
    "login page 401": answer(401, "text/html", b"<html>sign in</html>"),
    "authorizer 401": answer(401, JSON, b'{"message": "Unauthorized"}'),
}
UNTRUSTED = ssl.SSLCertVerificationError("certificate has expired")
ALL: dict[str, Step] = {**LIKE_A_WRONG_URL, **LIKE_NO_WRONG_URL, **UNAUTHORIZED, "an expired certificate": UNTRUSTED}


async def everything(outcomes: AsyncIterator[Outcome]) -> list[Outcome]:
    return [outcome async for outcome in outcomes]


# One job


@pytest.mark.parametrize("name", ALL)
async def test_a_wait_that_was_answered_goes_on(name: str) -> None:
    """After an answer of the API it backs off, as after a lost connection, and ends with the result."""
    script = Script({"job-1": [pending(), ALL[name], ALL[name], complete()]})
    async with script.client() as client:
        assert (await client.wait("user-1", "job-1")).job_complete
    delays = [b.at - a.at for a, b in itertools.pairwise(script.polls["job-1"])]
    assert all(0.5 <= delay <= 2.0 for delay in delays[1:])


@pytest.mark.parametrize("name", ALL)
async def test_a_watch_that_was_answered_goes_on(name: str) -> None:
    """It yields nothing while something else answers."""
    script = Script({"job-1": [pending(), ALL[name], complete()]})
    async with script.client() as client:
        seen = [status.job_complete async for status in client.watch("user-1", "job-1")]
    assert seen == [False, True]


@pytest.mark.parametrize("first", [pending(), not_found(), refused("2307"), refused("2205"), refused("2301")])
async def test_any_answer_of_the_api_to_this_client_proves_the_url(first: Reply) -> None:
    """An answer about another job and a refusal count too, for the life of the client."""
    script = Script({"job-0": [first], "job-1": [LIKE_A_WRONG_URL["ingress 404"], UNTRUSTED, complete()]})
    async with script.client(attempts=1) as client:
        try:
            await client.job_status("user-1", "job-0")
        except SmileJobsError as error:
            assert error.code is not None  # noqa: PT017  # one of the five is no error
        assert (await client.wait("user-1", "job-1")).job_complete


@pytest.mark.parametrize("name", LIKE_NO_WRONG_URL | LIKE_A_WRONG_URL | UNAUTHORIZED)
async def test_answers_of_others_prove_nothing(name: str) -> None:
    """The URL may still be wrong after any of them."""
    script = Script({"job-0": [ALL[name]], "job-1": [LIKE_A_WRONG_URL["ingress 404"]]})
    async with script.client(attempts=1) as client:
        with pytest.raises(SmileJobsError):
            await client.job_status("user-1", "job-0")
        with pytest.raises(GatewayError, match="base_url") as caught:
            await client.wait("user-1", "job-1")
    assert caught.value.wrong_url


@pytest.mark.parametrize(
    ("name", "kind", "text"),
    [
        *((name, GatewayError, "base_url, which must end in /v1") for name in LIKE_A_WRONG_URL),
        *((name, CredentialsError, "API key") for name in UNAUTHORIZED),
        ("an expired certificate", RequestError, "certificate"),
    ],
)
async def test_wrong_settings_end_the_first_wait_at_once(name: str, kind: type[SmileJobsError], text: str) -> None:
    """After one poll, with what to check: without any answer of the API, waiting is not likely to help."""
    script = Script({"job-1": [ALL[name]]})
    async with script.client() as client:
        with pytest.raises(kind, match=text) as caught:
            await client.wait("user-1", "job-1")
    assert not caught.value.transient


@pytest.mark.parametrize("name", LIKE_NO_WRONG_URL)
async def test_what_does_not_look_like_a_wrong_url_is_sat_out_from_the_first_poll_on(name: str) -> None:
    """A firewall or a proxy may fail at the beginning as well."""
    script = Script({"job-1": [ALL[name], complete()]})
    async with script.client() as client:
        assert (await client.wait("user-1", "job-1")).job_complete


async def test_too_many_such_answers_end_the_wait_and_are_described() -> None:
    """The error describes the last answer and says that the job may be fine."""
    script = Script({"job-1": [pending(), *[LIKE_A_WRONG_URL["ingress 404"]] * 20]})
    async with script.client() as client:
        with pytest.raises(TooManyFailuresError) as caught:
            await client.wait("user-1", "job-1", timeout=None)
    assert isinstance(caught.value.last_error, GatewayError)
    assert "GatewayError: HTTP 404, text/plain, no code of the API: it is not JSON" in str(caught.value)
    assert "default backend" not in str(caught.value)


async def test_a_timeout_describes_the_last_failure() -> None:
    """With the class of the error."""
    script = Script({"job-1": itertools.chain([pending()], itertools.repeat(LIKE_NO_WRONG_URL["firewall 403"]))})
    async with script.client() as client:
        with pytest.raises(WaitTimeoutError, match="still running.*GatewayError: HTTP 403, application/json, no code"):
            await client.wait("user-1", "job-1", timeout=30)


@pytest.mark.parametrize("name", LIKE_A_WRONG_URL | LIKE_NO_WRONG_URL)
async def test_a_direct_call_says_it_at_once(name: str) -> None:
    """It does not retry, whatever was answered before, unless the page came with 200."""
    polls = 3 if name.startswith("Wi-Fi") else 1
    script = Script({"job-0": [pending()], "job-1": [ALL[name]] * polls})
    async with script.client() as client:
        await client.job_status("user-1", "job-0")
        with pytest.raises(SmileJobsError) as caught:
            await client.job_status("user-1", "job-1")
    assert isinstance(caught.value, GatewayError) is (polls == 1)
    assert f"HTTP {caught.value.http_status}" in str(caught.value)
    assert "user-1" not in str(caught.value)


# Many jobs


@pytest.mark.parametrize("name", ALL)
async def test_a_batch_sits_out_what_is_not_the_api(name: str) -> None:
    """Once one of its jobs was answered, the other jobs continue as well."""
    script = Script(
        {
            "job-0": [complete()],
            **{f"job-{index}": [ALL[name], pending(), ALL[name], complete()] for index in range(1, 5)},
        }
    )
    refs = [("user-1", f"job-{index}") for index in range(5)]
    async with script.client() as client, client.wait_many(refs, concurrency=1, timeout=None) as outcomes:
        ended = await everything(outcomes)
    assert [outcome.error for outcome in ended] == [None] * 5


@pytest.mark.parametrize("name", [*LIKE_A_WRONG_URL, "an expired certificate"])
async def test_a_row_that_ended_at_a_wrong_url_is_failed_and_asked_again(name: str, tmp_path: Path) -> None:
    """The API did not refuse the job: `--resume` polls it again, and gets its result."""
    path = tmp_path / "results.jsonl"
    rows = [Row(index=0, line=2, ref=REF, carried={})]
    for step_, outcome in ((ALL[name], "failed"), (complete(), "complete")):
        journal = Journal(
            path,
            columns=(),
            extra=(),
            resume=path.exists(),
            keep=partial(is_settled, until="complete", images=False),
            on_record=lambda record: None,
        )
        async with Script({REF.job_id: [step_]}).client() as client:
            with journal:
                await _run(client, journal).wait(rows, blocking=False)
        assert json.loads(path.read_text().splitlines()[-1])["outcome"] == outcome


def _run(client: Client, journal: Journal) -> Run:
    return Run(
        client=client,
        journal=journal,
        timeout=60,
        until="complete",
        history=False,
        personal=False,
        save_images=None,
        on_record=lambda record: None,
        on_bad_row=lambda row: None,
        on_progress=lambda progress: None,
    )


# A watch list


class TestWatchList:
    """In real time, because a database has its own clock."""

    @pytest.fixture
    def anyio_backend(self) -> str:
        return "asyncio"

    async def test_no_outage_fails_a_job(self, tmp_path: Path) -> None:
        """Not even an outage before the API has ever answered: each job gets its outcome afterwards."""
        outages: dict[str, Step] = {
            **{name: each for name, each in ALL.items() if name not in UNAUTHORIZED},
            "proxy": httpx.ProxyError("407 Proxy Authentication Required"),
        }
        url = f"sqlite:///{tmp_path / 'jobs.db'}"
        # One job after the other: if all polls fail, a worker throttles itself to spare the API.
        fine = {f"fine {name}": [complete()] for name in outages}
        script = Script({**{name: [each, complete()] for name, each in outages.items()}, **fine}, now=utcnow)
        async with WatchList.open(url) as watch:
            await watch.add(("user-1", name) for pair in zip(outages, fine, strict=True) for name in pair)
            async with working(script, url):
                await until_ended(watch)
            assert (await watch.counts()).paused is None
            states = {outcome.ref.job_id: outcome.state for outcome in await listed(watch)}
        assert states == dict.fromkeys([*outages, *fine], "complete")

    async def test_a_login_page_fails_no_job(self, tmp_path: Path) -> None:
        """Once the API has answered, a login page says nothing about the credentials."""
        url = f"sqlite:///{tmp_path / 'jobs.db'}"
        script = Script({name: [pending(), each, complete()] for name, each in UNAUTHORIZED.items()}, now=utcnow)
        async with WatchList.open(url) as watch:
            await watch.add(("user-1", name) for name in UNAUTHORIZED)
            async with working(script, url):
                await until_ended(watch)
            assert {outcome.state for outcome in await listed(watch)} == {"complete"}


# Any answer at all

http_statuses = st.integers(100, 599) | st.sampled_from([200, 302, 400, 401, 403, 404, 405, 408, 429, 503])
bodies = (
    st.binary()
    | st.sampled_from([b"", b"<html>", b"Not Found", b'{"message": "Missing Authentication Token"}'])
    | json_values.map(encode)
    | st.dictionaries(st.sampled_from(["code", "error", "message", "result", "signature"]), json_values).map(encode)
)
content_types = st.none() | st.sampled_from(["text/html", "text/plain", "application/json; charset=utf-8"]) | texts


def speaks(body: bytes, http_status: int) -> bool:
    """Return whether a body has a known code, or is a status."""
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        return False
    if not isinstance(data, dict):
        return False
    return str(data.get("code")) in STATUS_CODES or (http_status // 100 == 2 and "job_complete" in data)


@unhurried
@given(http_statuses, bodies, content_types)
@example(401, b"<html>", None)
@example(400, b'{"code": "9999", "job_complete": true, "result": {"ResultCode": "0810"}}', "application/json")
def test_no_answer_without_a_code_decides_about_a_job(http_status: int, body: bytes, content_type: str | None) -> None:
    """It is never a status and never a refusal; a wait that was answered once ends only by its own limits."""
    assume(not speaks(body, http_status))
    headers = {} if content_type is None else {"content-type": content_type}
    with pytest.raises(SmileJobsError) as caught:
        read_answer(REF, CREDENTIALS, NOW, include=Include(), http_status=http_status, headers=headers, body=body)
    error = caught.value
    assert classify_error(error) is Ending.FAILED
    state = PollState(ref=REF, terms=Terms(timeout=None))
    assert isinstance(_poll(state, read({"job_complete": False})), Sleep)
    for _ in range(19):
        assert isinstance(_poll(state, error), Sleep)
    decision = _poll(state, error)
    assert isinstance(decision, GiveUp)
    assert isinstance(decision.error, TooManyFailuresError)
    assert classify_error(decision.error) is Ending.FAILED


def _poll(state: PollState, observation: JobStatus | SmileJobsError) -> object:
    assert begin(state, 0.0) is None
    return step(state, observation, 0.0, api_has_answered=True)
