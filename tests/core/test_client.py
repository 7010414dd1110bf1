"""The client's own life: its arguments, its environment, its end, and a direct `job_status`."""

import asyncio
import gzip
import pickle
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from itertools import pairwise
from typing import Any

import anyio
import httpx
import httpx2
import pytest

import smilejobs
from smilejobs import Client, JobRef, Verdict
from smilejobs.testing import (
    EPOCH,
    Reply,
    Script,
    Step,
    complete,
    cut,
    html,
    no_zip,
    not_found,
    pending,
    rate_limited,
    refused,
)
from smilejobs.transport.over_client import LocalResponse

KEY = "key-of-nobody"
BROKEN_OFF = Reply(body=gzip.compress(b"{}")[:-4], http_status=404, headers={"content-encoding": "gzip"})


def arguments(**changes: object) -> dict[str, Any]:
    return {"partner_id": "085", "api_key": KEY, "environment": "sandbox", **changes}


@pytest.mark.parametrize(
    ("changes", "error", "named"),
    [
        ({"partner_id": 85}, TypeError, "partner_id.*leading zeros"),
        ({"partner_id": ""}, ValueError, "partner_id"),
        ({"api_key": b"key"}, TypeError, "api_key"),
        ({"api_key": ""}, ValueError, "api_key"),
        ({"api_key": "key\n"}, ValueError, "api_key.*white space"),
        ({"environment": None}, ValueError, "environment"),
        ({"environment": "staging"}, ValueError, "environment"),
        ({"base_url": "https://example.org/v1"}, ValueError, "exactly one"),
        ({"environment": None, "base_url": "https://example.org"}, ValueError, "/v1"),
        ({"environment": None, "base_url": "http://example.org/v1"}, ValueError, "insecure_http"),
        ({"environment": None, "base_url": "ftp://example.org/v1"}, ValueError, "https"),
        ({"environment": None, "base_url": "https://[::1/v1"}, ValueError, "base_url"),
        ({"environment": None, "base_url": 7}, TypeError, "base_url"),
        ({"max_connections": 0}, ValueError, "max_connections"),
        ({"max_connections": 1.5}, TypeError, "max_connections"),
        ({"attempts": 0}, ValueError, "attempts"),
        ({"attempts": True}, TypeError, "attempts"),
        ({"max_response_bytes": -1}, ValueError, "max_response_bytes"),
        ({"rate": 0}, ValueError, "rate"),
        ({"rate": float("nan")}, ValueError, "rate"),
        ({"rate": "fast"}, TypeError, "rate"),
        ({"environment": None, "base_url": "https://999.1.1.1/v1"}, ValueError, "base_url"),
        ({"environment": None, "base_url": "http://[::1].example.org/v1"}, ValueError, "base_url"),
        ({"environment": None, "base_url": "https://example.org\n/v1"}, ValueError, "base_url"),
        ({"now": None}, TypeError, "now"),
        ({"http_client": httpx2.Client()}, TypeError, "http_client"),
        ({"http_client": httpx.AsyncClient}, TypeError, "http_client"),
        ({"http_client": httpx.Client()}, TypeError, "http_client.*AsyncClient"),
        ({"http_client": "https://example.org"}, TypeError, "http_client"),
        ({"request_timeout": 0}, ValueError, "request_timeout"),
        ({"request_timeout": None}, TypeError, "request_timeout"),
    ],
)
def test_arguments_that_can_never_be_right(changes: dict[str, object], error: type[Exception], named: str) -> None:
    """They are refused at once, by a plain error that names the argument and never shows the key."""
    with pytest.raises(error, match=named) as caught:
        Client(**arguments(**changes))
    assert KEY not in str(caught.value)
    assert not isinstance(caught.value, smilejobs.SmileJobsError)


@pytest.mark.parametrize(
    ("base_url", "insecure_http"),
    [
        ("http://127.0.0.1:8787/v1", False),
        ("http://localhost/v1/", False),
        ("http://[::1]:80/v1", False),
        ("https://proxy.example.org/smile/v1", False),
        ("http://smile-sandbox:8787/v1", True),
    ],
)
def test_urls_that_are_fine(base_url: str, insecure_http: bool) -> None:
    """Https anywhere, http on loopback, http elsewhere only if it is asked for."""
    client = Client(**arguments(environment=None, base_url=base_url, insecure_http=insecure_http))
    assert repr(client) == f"<smilejobs.Client for {base_url.rstrip('/')}>"


@pytest.mark.parametrize(
    ("environment", "host"), [("sandbox", "testapi.smileidentity.com"), ("production", "api.smileidentity.com")]
)
def test_environments_have_hosts(environment: str, host: str) -> None:
    """The two hosts are the vendor's; a repr shows which, and nothing of the credentials."""
    text = repr(Client(**arguments(environment=environment)))
    assert text == f"<smilejobs.Client for https://{host}/v1>"


@pytest.fixture
def no_variables(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in ("SMILE_PARTNER_ID", "SMILE_API_KEY", "SMILE_ENVIRONMENT", "SMILE_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def test_from_env_reads_the_environment(no_variables: pytest.MonkeyPatch) -> None:
    """Partner, key and environment come from the variables, the rest is given."""
    no_variables.setenv("SMILE_PARTNER_ID", "085")
    no_variables.setenv("SMILE_API_KEY", KEY)
    no_variables.setenv("SMILE_ENVIRONMENT", "production")
    assert "//api.smileidentity.com" in repr(Client.from_env(max_connections=5))
    no_variables.setenv("SMILE_ENVIRONMENT", "")
    no_variables.setenv("SMILE_BASE_URL", "http://127.0.0.1:1/v1")
    assert "127.0.0.1:1" in repr(Client.from_env())
    no_variables.setenv("SMILE_BASE_URL", "http://example.org/v1")
    with pytest.raises(ValueError, match="base_url"):
        Client.from_env()


def test_from_env_names_what_is_missing(no_variables: pytest.MonkeyPatch) -> None:
    """Each missing variable is named with its argument."""
    with pytest.raises(ValueError, match="SMILE_PARTNER_ID") as caught:
        Client.from_env()
    for word in ("partner_id", "SMILE_API_KEY", "api_key", "SMILE_ENVIRONMENT", "environment", "SMILE_BASE_URL"):
        assert word in str(caught.value)
    no_variables.setenv("SMILE_PARTNER_ID", "085")
    no_variables.setenv("SMILE_API_KEY", KEY)
    with pytest.raises(ValueError, match=r"SMILE_ENVIRONMENT \(the argument environment\)") as caught:
        Client.from_env()
    assert "SMILE_API_KEY" not in str(caught.value)


def test_from_env_names_the_variables_of_what_cannot_be_right(no_variables: pytest.MonkeyPatch) -> None:
    """A key with a line break, both environment and URL: the usual mistakes of a container's configuration."""
    no_variables.setenv("SMILE_PARTNER_ID", "085")
    no_variables.setenv("SMILE_API_KEY", f"{KEY}\n")
    no_variables.setenv("SMILE_ENVIRONMENT", "sandbox")
    with pytest.raises(ValueError, match=r"white space.*SMILE_API_KEY") as caught:
        Client.from_env()
    assert KEY not in str(caught.value)
    no_variables.setenv("SMILE_API_KEY", KEY)
    no_variables.setenv("SMILE_BASE_URL", "http://sandbox:8787/v1")
    with pytest.raises(ValueError, match=r"exactly one.*SMILE_ENVIRONMENT, SMILE_BASE_URL"):
        Client.from_env()
    no_variables.delenv("SMILE_ENVIRONMENT")
    assert "sandbox:8787" in repr(Client.from_env(insecure_http=True))


@pytest.mark.anyio
@pytest.mark.parametrize("flags", [{"image_links": None}, {"history": "false"}, {"history": 1}])
async def test_flags_are_booleans(flags: dict[str, Any]) -> None:
    """Anything else is a TypeError that names it, before any request."""
    async with Script({}).client() as client:
        for call in (client.job_status, client.wait):
            with pytest.raises(TypeError, match=next(iter(flags))):
                await call("user-1", "job-1", **flags)
        with pytest.raises(TypeError, match=next(iter(flags))):
            client.watch("user-1", "job-1", **flags)


@pytest.mark.anyio
async def test_a_clock_without_a_time_zone_signs_nothing() -> None:
    """It would sign another instant than it means; the text names the argument."""
    async with Script({"job-1": []}).client(now=lambda: EPOCH.replace(tzinfo=None)) as client:
        with pytest.raises(ValueError, match="now must return a timezone-aware datetime"):
            await client.job_status("user-1", "job-1")


@pytest.mark.anyio
async def test_closing_refuses_what_waits_for_its_turn() -> None:
    """One request is under way and may end; those that wait for the connection are not sent any more."""
    script = Script({"job-1": [complete(delay=5)], "job-2": []})
    errors: list[str] = []

    async def refused_later() -> None:
        try:
            await client.job_status("user-1", "job-2")
        except RuntimeError as error:
            errors.append(str(error))

    async with script.client(max_connections=1) as client, anyio.create_task_group() as tasks:
        tasks.start_soon(client.job_status, "user-1", "job-1")
        await anyio.sleep(1)
        tasks.start_soon(refused_later)
        await anyio.sleep(1)
        await client.aclose()
    assert len(errors) == 1
    assert "closed" in errors[0]


@pytest.mark.anyio
async def test_a_closed_client_says_so_before_the_first_sleep() -> None:
    """Not when the first poll is due."""
    async with Script({}).client() as client:
        await client.aclose()
        with pytest.raises(RuntimeError, match="closed"):
            await client.wait("user-1", "job-1", first_after=100)
        with pytest.raises(RuntimeError, match="closed"):
            await anext(aiter(client.watch("user-1", "job-1", first_after=100)))
    assert anyio.current_time() == pytest.approx(0)


@pytest.mark.anyio
async def test_polls_that_are_cancelled_take_no_turn() -> None:
    """Sixty polls that never happened do not keep the next one waiting for a minute."""
    script = Script({"job-1": [complete(), complete()]})
    async with script.client(rate=1) as client:
        await client.job_status("user-1", "job-1")
        for _ in range(60):
            with anyio.move_on_after(0.01):
                await client.job_status("user-1", "job-2")
        await client.job_status("user-1", "job-1")
    assert script.polls["job-1"][1].at == pytest.approx(1)


@pytest.mark.anyio
async def test_a_client_works_without_a_with_block_and_closes_twice() -> None:
    """aclose() may be called again; using the client afterwards is a clear error."""
    script = Script({"job-1": [complete()]})
    client = Client(**arguments(api_key="sandbox-key"), http_client=script)
    assert (await client.job_status("user-1", "job-1")).job_complete
    await client.aclose()
    await client.aclose()
    with pytest.raises(RuntimeError, match="^this smilejobs client is closed; open a new one$"):
        await client.job_status("user-1", "job-1")
    with pytest.raises(RuntimeError, match="closed"):
        await client.wait("user-1", "job-1")


@pytest.mark.anyio
async def test_a_client_may_be_entered_and_left_in_different_tasks() -> None:
    """It holds no task group and no scope, so notebooks and frameworks may do as they please."""
    script = Script({"job-1": [complete()]})
    client = Client(**arguments(api_key="sandbox-key"), http_client=script)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(client.__aenter__)
    assert (await client.wait("user-1", "job-1")).job_complete
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(client.__aexit__, None, None, None)
    with pytest.raises(RuntimeError, match="closed"):
        await client.job_status("user-1", "job-1")


def test_a_client_belongs_to_one_event_loop() -> None:
    """A second loop is told so, instead of hanging on the connections of the first."""
    script = Script({"job-1": [complete()]})
    client = Client(**arguments(api_key="sandbox-key"), http_client=script)
    asyncio.run(client.job_status("user-1", "job-1"))
    text = "^this smilejobs client was first used in another event loop; open one client per event loop$"
    with pytest.raises(RuntimeError, match=text):
        asyncio.run(client.job_status("user-1", "job-1"))
    with pytest.raises(RuntimeError, match=text):
        asyncio.run(client.aclose())


def test_a_client_may_be_made_under_one_event_loop_and_used_under_another() -> None:
    """It belongs to the one that uses it first, of whatever kind."""

    async def make() -> Client:
        return Client(**arguments(api_key="sandbox-key"), http_client=Script({"job-1": [complete()]}))

    client = anyio.run(make)
    status = anyio.run(partial(client.job_status, "user-1", "job-1"), backend="trio")
    assert status.job_complete


@pytest.mark.anyio
@pytest.mark.parametrize("step", [html(), cut(), rate_limited(), refused("2301"), BROKEN_OFF])
async def test_job_status_tries_again_what_may_pass(step: Reply | Exception) -> None:
    """Three attempts in all, with a backoff in between."""
    script = Script({"job-1": [step, step, complete()], "job-2": [step, step, step]})
    async with script.client() as client:
        assert (await client.job_status("user-1", "job-1")).job_complete
        with pytest.raises(smilejobs.SmileJobsError) as caught:
            await client.job_status("user-1", "job-2")
    assert caught.value.transient
    first, second, third = (poll.at for poll in script.polls["job-1"])
    assert 0.5 <= second - first <= 1
    assert 0.5 <= third - second <= 2


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("step", "error"),
    [
        (refused("2305"), smilejobs.CredentialsError),
        (not_found(), smilejobs.JobNotFoundError),
        (refused("2303"), smilejobs.BadRequestError),
        (Reply(body={"job_complete": True, "signature": "forged"}), smilejobs.SignatureError),
    ],
)
async def test_job_status_does_not_try_again_what_will_not_pass(
    step: Reply, error: type[smilejobs.SmileJobsError]
) -> None:
    """One attempt, and the error names the job by its tag."""
    async with Script({"job-1": [step]}).client() as client:
        with pytest.raises(error, match=JobRef("user-1", "job-1").tag) as caught:
            await client.job_status("user-1", "job-1")
    assert not caught.value.transient
    assert "user-1" not in str(caught.value)


class NoSocket:
    def get_extra_info(self, _: str) -> None:
        return None


class KeptResponse(LocalResponse):
    extensions = {"http_version": b"HTTP/1.1", "network_stream": NoSocket()}  # noqa: RUF012  # nothing changes it


class KeptConnections(Script):
    """Answers over connections that the client keeps, as `httpx.AsyncClient` does."""

    def __init__(self, steps: Mapping[str, Sequence[Step]]) -> None:
        super().__init__(steps)
        self.is_fresh: list[bool] = []

    @asynccontextmanager
    async def stream(
        self, method: str, url: str, *, content: bytes, **options: Any
    ) -> AsyncGenerator[LocalResponse, None]:
        self.is_fresh.append(options["headers"].get("Connection") == "close")
        async with super().stream(method, url, content=content, **options) as response:
            yield KeptResponse(response.status_code, response.headers, response.body)


@pytest.mark.anyio
async def test_what_must_not_be_believed_is_asked_once_more_on_a_fresh_connection() -> None:
    """It may have been the answer to another request on a connection that was kept; the poll counts two requests."""
    forged = Reply(body={"job_complete": True, "signature": "forged"})
    script = KeptConnections({"job-1": [forged, complete()], "job-2": [forged, forged]})
    events: list[smilejobs.Event] = []
    async with script.client(hooks=[events.append]) as client:
        assert (await client.job_status("user-1", "job-1")).job_complete
        with pytest.raises(smilejobs.SignatureError):
            await client.job_status("user-1", "job-2")
    assert script.is_fresh == [False, True] * 2
    polls = [event for event in events if isinstance(event, (smilejobs.PollFinished, smilejobs.PollFailed))]
    assert [poll.requests for poll in polls] == [2, 2]


@pytest.mark.anyio
async def test_what_is_sent_over_a_connection_that_was_closed_is_sent_once_more() -> None:
    """The poll counts two requests."""
    closed = httpx.RemoteProtocolError("Server disconnected without sending a response.")
    script = KeptConnections({"job-1": [pending(), closed, complete()]})
    events: list[smilejobs.Event] = []
    async with script.client(hooks=[events.append]) as client:
        assert [(await client.job_status("user-1", "job-1")).job_complete for _ in range(2)] == [False, True]
    assert script.is_fresh == [False, False, True]
    assert [event.requests for event in events if isinstance(event, smilejobs.PollFinished)] == [1, 2]


@pytest.mark.anyio
async def test_job_status_rests_as_long_as_it_is_asked_to_but_not_for_minutes() -> None:
    """A Retry-After of up to 30 s is kept; a longer one is the caller's to keep."""
    script = Script({"job-1": [rate_limited(20), complete()], "job-2": [rate_limited(31)]})
    async with script.client() as client:
        await client.job_status("user-1", "job-1")
        assert [poll.at for poll in script.polls["job-1"]] == pytest.approx([0, 20])
        with pytest.raises(smilejobs.RateLimitedError) as caught:
            await client.job_status("user-1", "job-2")
    assert caught.value.retry_after == 31


@pytest.mark.anyio
async def test_job_status_returns_what_is_pending() -> None:
    """Running, or registered without images: no verdict, no error."""
    async with Script({"job-1": [pending(), no_zip()]}).client() as client:
        running = await client.job_status("user-1", "job-1")
        empty = await client.job_status("user-1", "job-1")
    assert (running.verdict, running.is_final, running.message) == (None, False, None)
    assert (empty.verdict, empty.code, empty.message) == (None, "2314", "No zip uploaded yet")


@pytest.mark.anyio
async def test_a_request_that_takes_too_long_is_a_request_error() -> None:
    """request_timeout is for one exchange; its error is transient."""
    async with Script({"job-1": [pending(delay=60)] * 2}).client(request_timeout=10, attempts=2) as client:
        with pytest.raises(smilejobs.RequestError, match="10 s") as caught:
            await client.job_status("user-1", "job-1")
    assert caught.value.transient
    assert 20 < anyio.current_time() < 22


@pytest.mark.anyio
async def test_polls_begin_evenly_and_without_bursts() -> None:
    """With rate=10 the polls of many tasks begin 0.1 s apart, also after a pause."""
    script = Script({f"job-{n}": [complete()] for n in range(30)})
    async with script.client(rate=10) as client:
        for batch in range(2):
            async with anyio.create_task_group() as tasks:
                for n in range(15):
                    tasks.start_soon(client.job_status, "user-1", f"job-{15 * batch + n}")
            await anyio.sleep(60)
    starts = sorted(poll.at for polls in script.polls.values() for poll in polls)
    gaps = [later - earlier for earlier, later in pairwise(starts)]
    assert min(gaps) >= 0.1 - 1e-9
    assert sorted(gaps)[-2] == pytest.approx(0.1)


@pytest.mark.anyio
async def test_no_more_requests_at_once_than_connections() -> None:
    """The limit is held around requests: with two connections, six answers of 10 s take 30 s."""
    script = Script({f"job-{n}": [complete(delay=10)] for n in range(6)})
    async with script.client(max_connections=2, rate=None) as client, anyio.create_task_group() as tasks:
        for job_id in script.polls:
            tasks.start_soon(client.job_status, "user-1", job_id)
    assert anyio.current_time() == pytest.approx(30)


@pytest.mark.anyio
async def test_the_limit_is_not_held_while_a_waiter_sleeps() -> None:
    """One connection serves many waits, each of which sleeps most of the time."""
    script = Script({f"job-{n}": [pending()] * 3 + [complete()] for n in range(20)})
    async with script.client(max_connections=1, rate=None) as client, anyio.create_task_group() as tasks:
        for job_id in script.polls:
            tasks.start_soon(client.wait, "user-1", job_id)
    assert anyio.current_time() < 5


@pytest.mark.anyio
async def test_raise_for_verdict_is_there_for_those_who_want_it() -> None:
    """It does nothing for an approval and raises for everything else, with the answer at hand."""
    async with Script({"job-1": [pending(), complete("0811"), complete()]}).client() as client:
        for words in ("still pending", "rejected"):
            status = await client.job_status("user-1", "job-1")
            with pytest.raises(smilejobs.NotApprovedError, match=words) as caught:
                status.raise_for_verdict()
            assert caught.value.status is status
            assert pickle.loads(pickle.dumps(caught.value)).status == status
        approved = await client.job_status("user-1", "job-1")
        approved.raise_for_verdict()
    assert approved.verdict is Verdict.APPROVED
