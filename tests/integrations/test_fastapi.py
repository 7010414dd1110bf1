"""The integration with FastAPI: the life of the client, callbacks, and waits that end with their HTTP client."""

import asyncio
import importlib
import json
import logging
import subprocess
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from attrs import define, field, fields
from fastapi import FastAPI, Request, WebSocket
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError
from starlette.middleware.base import BaseHTTPMiddleware

from smilejobs import Callback, CallbackError, CallbackVerifier, Client, JobResult, JobStatus, SmileJobsError, Verdict
from smilejobs.integrations.callbacks import HTTP_STATUSES
from smilejobs.integrations.fastapi import (
    ClientGoneError,
    JobResultModel,
    JobStatusModel,
    PersonalJobResultModel,
    PersonalJobStatusModel,
    SmileClient,
    callback_router,
    client_of,
    get_client,
    lifespan,
    while_connected,
)
from smilejobs.testing import Script, complete, pending, virtual_now
from smilejobs.wire.signature import format_timestamp, sign
from tests.helpers import bodies
from tests.helpers.leaks import assert_keeps_secrets
from tests.helpers.services import CREDENTIALS, MAX_BYTES, REF, REFUSALS, SECRETS, Refusal, callback, pieces
from tests.helpers.strategies import answers, json_values, unhurried

Message = dict[str, Any]


def new_client(**options: Any) -> Client:
    return Client(partner_id="085", api_key="sandbox-key", base_url="http://localhost:1/v1", **options)


@define(repr=False)
class Asker:
    """An HTTP client in the place of a server: sends a body in pieces, and goes when it is told to.

    Attributes:
        ends: How often the server says that the body has ended.
        received: How many pieces the app has asked for.
    """

    pieces: Iterable[bytes] = ()
    stays: bool = True
    ends: int = 1
    gone: anyio.Event = field(factory=anyio.Event)
    received: int = 0
    http_status: int | None = None
    headers: dict[str, str] = field(factory=dict)
    body: bytes = b""
    _messages: Iterator[Message] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._messages = self._say()

    def _say(self) -> Iterator[Message]:
        for piece in self.pieces:
            self.received += 1
            yield {"type": "http.request", "body": piece, "more_body": True}
        for _ in range(self.ends if self.stays else 0):
            yield {"type": "http.request", "body": b"", "more_body": False}

    async def receive(self) -> Message:
        await anyio.lowlevel.checkpoint()
        for message in self._messages:
            return message
        if self.stays:
            await self.gone.wait()
        return {"type": "http.disconnect"}

    async def ask(
        self, app: Callable[..., Awaitable[None]], path: str = "/", method: str = "POST", headers: Any = ()
    ) -> "Asker":
        """Send one request, and return when the app has answered."""

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                self.http_status = message["status"]
                self.headers = {name.decode(): value.decode() for name, value in message["headers"]}
            elif message["type"] == "http.response.body":
                self.body += message.get("body", b"")

        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "query_string": b"",
            "headers": list(headers),
            "state": {},
        }
        await app(scope, self.receive, send)
        return self


def request_of(asker: Asker) -> Request:
    """Return the request of an asker."""
    return Request({"type": "http", "method": "GET", "path": "/", "headers": []}, asker.receive)


def verifier(**options: Any) -> CallbackVerifier:
    return CallbackVerifier(CREDENTIALS, **{"now": virtual_now, "max_bytes": MAX_BYTES, **options})


@asynccontextmanager
async def service(script: Script, **options: Any) -> AsyncGenerator[tuple[FastAPI, Client], None]:
    """Run an app with a callback route; yield it and its client, which polls the script."""
    app = FastAPI(lifespan=lifespan(lambda: new_client(http_client=script, now=virtual_now)))
    app.include_router(callback_router(verifier(), **options))
    async with app.router.lifespan_context(app):
        yield app, get_client(app)


async def call_back(app: FastAPI, *pieces: bytes) -> Asker:
    return await Asker(pieces).ask(app, "/smile-callback")


# The life of the client


def test_an_app_has_a_client_while_it_runs() -> None:
    """Each startup opens a client, each shutdown closes it."""
    app = FastAPI(lifespan=lifespan(new_client))
    with TestClient(app) as http:
        first = get_client(app)
        assert get_client(http) is first
    with TestClient(app):
        assert get_client(app) is not first
    with pytest.raises(RuntimeError, match="closed"):
        asyncio.run(first.job_status("user-1", "job-1"))
    with pytest.raises(RuntimeError, match="lifespan"):
        get_client(app)


def test_routes_and_websockets_get_the_client_by_its_type() -> None:
    """Each app has its own client, if there are several in one process."""
    apps = [FastAPI(lifespan=lifespan(new_client)) for _ in range(2)]
    for app in apps:

        @app.get("/")
        async def route(client: SmileClient) -> int:
            return id(client)

        @app.websocket("/ws")
        async def talk(socket: WebSocket, client: SmileClient) -> None:
            await socket.accept()
            await socket.send_json(id(client))

    with TestClient(apps[0]) as first, TestClient(apps[1], backend="trio") as second:
        for http in (first, second):
            assert http.get("/").json() == id(get_client(http))
            with http.websocket_connect("/ws") as talk_to:
                assert talk_to.receive_json() == id(get_client(http))
        assert get_client(first) is not get_client(second)


def test_a_mounted_app_uses_the_client_of_the_outer_one() -> None:
    """FastAPI runs no lifespan of a mounted app. If one runs all the same, its own routes prefer its client."""
    inner, outer = FastAPI(lifespan=lifespan(new_client)), FastAPI(lifespan=lifespan(new_client))
    outer.mount("/inner", inner)

    @inner.get("/")
    @outer.get("/")
    async def route(client: SmileClient) -> int:
        return id(client)

    with TestClient(outer) as http:
        assert http.get("/").json() == http.get("/inner/").json() == id(get_client(outer))
        with TestClient(inner):
            assert http.get("/").json() != http.get("/inner/").json() == id(get_client(inner))


def test_an_inner_lifespan_runs_while_the_client_is_open() -> None:
    """It can use the client, and requests have its state."""
    seen: list[object] = []

    @asynccontextmanager
    async def inner(app: FastAPI) -> AsyncGenerator[dict[str, str], None]:
        seen.append(get_client(app))
        yield {"tasks": "state of mine"}
        seen.append(get_client(app))

    app = FastAPI(lifespan=lifespan(new_client, inner=inner))

    @app.get("/")
    async def route(request: Request, client: SmileClient) -> str:
        seen.append(client)
        return str(request.state.tasks)

    with TestClient(app) as http:
        assert http.get("/").json() == "state of mine"
    assert len(seen) == 3
    assert len(set(map(id, seen))) == 1


def test_an_inner_lifespan_need_not_yield_anything() -> None:
    """A lifespan may have no state."""

    @asynccontextmanager
    async def inner(app: FastAPI) -> AsyncGenerator[None, None]:
        yield

    with TestClient(FastAPI(lifespan=lifespan(new_client, inner=inner))) as http:
        assert isinstance(get_client(http), Client)


def test_an_app_that_does_not_start_has_no_client() -> None:
    """The error of the inner lifespan is raised, and the client is closed."""
    seen: list[Client] = []

    @asynccontextmanager
    async def inner(app: FastAPI) -> AsyncGenerator[None, None]:
        seen.append(get_client(app))
        raise ZeroDivisionError
        yield

    app = FastAPI(lifespan=lifespan(new_client, inner=inner))
    with pytest.raises(ZeroDivisionError), TestClient(app):
        pass
    with pytest.raises(RuntimeError, match="no smilejobs client"):
        get_client(app)
    with pytest.raises(RuntimeError, match="closed"):
        asyncio.run(seen[0].job_status("user-1", "job-1"))


def test_without_the_lifespan_a_route_says_what_is_missing() -> None:
    """The lifespan was forgotten, or did not run: a TestClient runs it in its ``with`` block."""

    async def route(client: SmileClient) -> None: ...

    for app in (FastAPI(), FastAPI(lifespan=lifespan(new_client))):
        app.get("/")(route)
        with pytest.raises(RuntimeError, match=r"FastAPI\(lifespan=.*with TestClient"):
            TestClient(app).get("/")


def test_a_test_may_put_another_client_in_its_place() -> None:
    """With the dependency overrides of FastAPI."""
    app, other = FastAPI(), new_client()

    @app.get("/")
    async def route(client: SmileClient) -> bool:
        return client is other

    app.dependency_overrides[client_of] = lambda: other
    assert TestClient(app).get("/").json() is True


@pytest.mark.parametrize("wrong", [None, 5, "app", FastAPI(), FastAPI, TestClient(FastAPI())])
def test_what_has_no_client_has_none(wrong: Any) -> None:
    """An app that does not run, or an object that is no app."""
    with pytest.raises(RuntimeError, match="no smilejobs client"):
        get_client(wrong)


def test_a_client_in_the_place_of_a_function_is_refused() -> None:
    """It would be closed at the first shutdown, and belong to the first event loop."""
    client: Any = new_client()
    with pytest.raises(TypeError, match="open_client must be a function"):
        lifespan(client)
    with pytest.raises(TypeError, match="inner must be a lifespan"):
        lifespan(new_client, inner=client)


def test_by_default_the_client_is_that_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing variable ends the startup, and the error names it."""
    with monkeypatch.context() as environment:
        for name, value in {"PARTNER_ID": "085", "API_KEY": "key", "ENVIRONMENT": "sandbox"}.items():
            environment.setenv(f"SMILE_{name}", value)
        with TestClient(FastAPI(lifespan=lifespan())) as http:
            assert "testapi" in repr(get_client(http))
    monkeypatch.delenv("SMILE_API_KEY", raising=False)
    with pytest.raises(ValueError, match="SMILE_API_KEY"), TestClient(FastAPI(lifespan=lifespan())):
        pass


def test_without_the_extra_the_import_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the extra."""
    monkeypatch.setitem(sys.modules, "fastapi", None)
    monkeypatch.delitem(sys.modules, "smilejobs.integrations.fastapi")
    with pytest.raises(ImportError, match=r"pip install 'smilejobs\[fastapi\]'"):
        importlib.import_module("smilejobs.integrations.fastapi")


# Callbacks


@pytest.mark.anyio
async def test_a_callback_notifies_a_wait() -> None:
    """The answer is an empty 200; the wait polls, and has its result long before its pace would poll."""
    script = Script({REF.job_id: [pending(), complete()]})
    async with service(script) as (app, client), anyio.create_task_group() as tasks:

        @tasks.start_soon
        async def wait() -> None:
            status = await client.wait(REF.user_id, REF.job_id, pace=lambda age, polls: 250.0)
            assert status.verdict is Verdict.APPROVED

        await anyio.sleep(10)
        asker = await call_back(app, callback(virtual_now()))
    assert (asker.http_status, asker.body) == (200, b"")
    first, second = script.polls[REF.job_id]
    assert 10 <= second.at - first.at < 11


@pytest.mark.anyio
async def test_a_duplicate_is_taken_like_the_first() -> None:
    """The vendor repeats a callback because the first answer was lost: it notifies as well."""
    script = Script({REF.job_id: [pending(), pending(), complete()]})
    seen: list[bool] = []

    async def on_callback(news: Callback) -> None:
        seen.append(news.duplicate)

    async with service(script, on_callback=on_callback) as (app, client), anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: client.wait(REF.user_id, REF.job_id, pace=lambda age, polls: 250.0))
        body = callback(virtual_now())
        for _ in range(2):
            await anyio.sleep(10)
            assert (await call_back(app, body)).http_status == 200
    assert seen == [False, True]
    assert len(script.polls[REF.job_id]) == 3


@pytest.mark.anyio
@pytest.mark.parametrize("refusal", REFUSALS.values(), ids=list(REFUSALS))
async def test_a_refused_callback_notifies_no_wait(refusal: Refusal, caplog: pytest.LogCaptureFixture) -> None:
    """The status says why, the body is empty, and the log holds neither ids nor secrets."""
    caplog.set_level(logging.DEBUG)
    script = Script({REF.job_id: [pending(), complete()]})
    async with service(script, on_callback=lambda news: pytest.fail("refused")) as (app, client):
        body = refusal.body(virtual_now())
        with pytest.raises(CallbackError) as caught:
            verifier().verify(body)
        assert caught.value.reason == refusal.reason
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: client.wait(REF.user_id, REF.job_id, pace=lambda age, polls: 250.0))
            await anyio.sleep(10)
            asker = await call_back(app, body)
    assert (asker.http_status, asker.body) == (refusal.http_status, b"")
    first, second = script.polls[REF.job_id]
    assert second.at - first.at >= 250
    assert "callback refused" in caplog.text
    assert not [secret for secret in SECRETS if secret in caplog.text]


@pytest.mark.anyio
async def test_records_about_callbacks_have_fields(caplog: pytest.LogCaptureFixture) -> None:
    """Records have the outcome, and the tag of the job if it is known."""
    caplog.set_level(logging.DEBUG, "smilejobs")
    body, gzip = callback(virtual_now()), [(b"content-encoding", b"gzip")]
    async with service(Script({})) as (app, _):
        for each in (body, body, REFUSALS["unsigned"].body(virtual_now()), REFUSALS["stale"].body(virtual_now())):
            await call_back(app, each)
        await Asker([body]).ask(app, "/smile-callback", headers=gzip)
    names = ("event_name", "tag", "duplicate", "reason", "http_status")
    fields = [{name: vars(record)[name] for name in names if name in vars(record)} for record in caplog.records]
    assert [each for each in fields if each["event_name"] != "Notified"] == [
        {"event_name": "CallbackTaken", "tag": REF.tag, "duplicate": False},
        {"event_name": "CallbackTaken", "tag": REF.tag, "duplicate": True},
        {"event_name": "CallbackRefused", "reason": "unsigned", "http_status": 401},
        {"event_name": "CallbackRefused", "reason": "stale", "http_status": 401, "tag": REF.tag},
        {"event_name": "CallbackRefused", "reason": "compressed", "http_status": 415},
    ]


def test_every_reason_has_a_status() -> None:
    """The table holds exactly the reasons of the verifier and the two refusals before it."""
    before = {"slow": 408, "compressed": 415}
    assert {reason: refusal.http_status for reason, refusal in REFUSALS.items()} | before == HTTP_STATUSES


@pytest.mark.anyio
async def test_of_what_is_too_large_no_more_is_read() -> None:
    """Reading ends with the first byte beyond the limit, whatever Content-Length says."""
    endless = (b"x" * 100 for _ in range(10**9))
    async with service(Script({})) as (app, _):
        asker = await Asker(endless).ask(app, "/smile-callback", headers=[(b"content-length", b"5")])
    assert asker.http_status == 413
    assert asker.headers["connection"] == "close"
    assert asker.received == MAX_BYTES // 100 + 1


@pytest.mark.anyio
async def test_a_body_has_a_time_limit(caplog: pytest.LogCaptureFixture) -> None:
    """A body that is slow, or never ends, is answered with 408 after 20 s, and the connection is closed."""

    def slow() -> Iterator[bytes]:
        yield callback(virtual_now())[:100]

    async with service(Script({}), on_callback=lambda news: pytest.fail("slow")) as (app, _):
        began = anyio.current_time()
        asker = await Asker(slow(), ends=0).ask(app, "/smile-callback")
        assert anyio.current_time() - began == pytest.approx(20)
    assert (asker.http_status, asker.body, asker.headers["connection"]) == (408, b"", "close")
    assert [record.getMessage() for record in caplog.records] == ["callback refused: its body took longer than 20 s"]


@pytest.mark.anyio
async def test_the_time_limit_can_be_chosen_and_ends_with_the_body() -> None:
    """on_callback may take longer."""

    async def on_callback(news: Callback) -> None:
        await anyio.sleep(60)

    async with service(Script({}), on_callback=on_callback, body_timeout=3) as (app, _):
        assert (await call_back(app, callback(virtual_now()))).http_status == 200
        began = anyio.current_time()
        asker = await Asker([b"{"], ends=0).ask(app, "/smile-callback")
        assert asker.http_status == 408
        assert anyio.current_time() - began == pytest.approx(3)


@pytest.mark.anyio
@pytest.mark.parametrize("coding", [b"gzip", b"GZIP", b" deflate", b"br", b"identity, gzip", b"what"])
async def test_a_compressed_body_is_refused_unread(coding: bytes) -> None:
    """With 415 and the accepted encoding: a small body can expand to a large one."""
    async with service(Script({})) as (app, _):
        asker = await Asker([callback(virtual_now())]).ask(
            app, "/smile-callback", headers=[(b"content-encoding", coding)]
        )
    assert (asker.http_status, asker.body, asker.received) == (415, b"", 0)
    assert (asker.headers["accept-encoding"], asker.headers["connection"]) == ("identity", "close")


@pytest.mark.anyio
@pytest.mark.parametrize("coding", [b"", b"identity", b"Identity "])
async def test_a_body_that_is_not_compressed_may_say_so(coding: bytes) -> None:
    """With the name of HTTP for no encoding."""
    async with service(Script({})) as (app, _):
        asker = await Asker([callback(virtual_now())]).ask(
            app, "/smile-callback", headers=[(b"content-encoding", coding)]
        )
    assert asker.http_status == 200


@pytest.mark.anyio
async def test_an_error_of_the_route_keeps_the_body_out_of_reach() -> None:
    """Neither an error of on_callback nor an error of the verifier's clock holds it."""

    async def fail(news: Callback) -> None:
        raise ZeroDivisionError

    secrets = (*SECRETS, sign(CREDENTIALS, format_timestamp(virtual_now())), "ResultCode")
    async with service(Script({}), on_callback=fail) as (app, _):
        with pytest.raises(ZeroDivisionError) as caught:
            await call_back(app, callback(virtual_now()))
        assert_keeps_secrets(caught.value, *secrets)
        app.router.routes.clear()
        app.include_router(callback_router(verifier(now=lambda: virtual_now().replace(tzinfo=None))))
        with pytest.raises(ValueError, match="aware") as naive:
            await call_back(app, callback(virtual_now()))
        assert_keeps_secrets(naive.value, *secrets)


@pytest.mark.anyio
async def test_a_callback_may_be_as_large_as_the_verifier_takes() -> None:
    """A body of exactly the limit is accepted."""
    rest = MAX_BYTES - len(callback(virtual_now(), Address=""))
    async with service(Script({})) as (app, _):
        for length, http_status in ((rest, 200), (rest + 1, 413)):
            body = callback(virtual_now(), Address="x" * length)
            assert (await call_back(app, body)).http_status == http_status


@pytest.mark.anyio
async def test_a_callback_that_breaks_off_is_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """The answer is not delivered; no error is logged, and no wait is notified."""
    async with service(Script({}), on_callback=lambda news: pytest.fail("broken")) as (app, _):
        asker = await Asker([callback(virtual_now())], stays=False).ask(app, "/smile-callback")
    assert asker.http_status == 400
    assert not caplog.records


@pytest.mark.anyio
async def test_what_else_is_done_may_fail() -> None:
    """An error of on_callback is a 500, so the vendor repeats the callback; the waits were notified before."""

    async def fail(news: Callback) -> None:
        raise ZeroDivisionError

    script = Script({REF.job_id: [pending(), complete()]})
    async with service(script, on_callback=fail) as (app, client), anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: client.wait(REF.user_id, REF.job_id, pace=lambda age, polls: 250.0))
        await anyio.sleep(10)
        with pytest.raises(ZeroDivisionError):
            await call_back(app, callback(virtual_now()))


def test_callbacks_come_where_they_are_told_to_and_nowhere_else() -> None:
    """The path can be chosen, other methods are refused, and the schema does not show the route."""
    app = FastAPI(lifespan=lifespan(new_client))
    app.include_router(callback_router(verifier(max_age=None), path="/hook"), prefix="/smile")
    with TestClient(app) as http:
        assert http.post("/smile/hook", content=callback(bodies.NOW)).status_code == 200
        assert http.get("/smile/hook").status_code == 405
    assert app.openapi()["paths"] == {}


def test_without_a_verifier_there_is_no_router() -> None:
    """Credentials are not a verifier."""
    wrong: Any = CREDENTIALS
    with pytest.raises(TypeError, match="CallbackVerifier"):
        callback_router(wrong)


@pytest.mark.parametrize(
    ("body_timeout", "error"), [(0, ValueError), (-1, ValueError), (float("inf"), ValueError), ("5", TypeError)]
)
def test_a_time_limit_that_can_never_be_right_is_refused_at_once(body_timeout: Any, error: type[Exception]) -> None:
    """The error names the argument."""
    with pytest.raises(error, match="^body_timeout must"):
        callback_router(verifier(), body_timeout=body_timeout)


DEAF = new_client()
"""A client without waits."""
FLAT = json.loads(callback(bodies.NOW, credentials=bodies.CREDENTIALS))


@unhurried
@given(
    st.binary(max_size=MAX_BYTES * 2)
    | json_values.map(lambda value: json.dumps(value).encode())
    | answers({"flat": FLAT, **bodies.SAMPLES}),
    st.lists(st.integers(0, 500), max_size=8),
    st.booleans(),
)
def test_any_request_is_accepted_or_refused(body: bytes, cuts: list[int], stays: bool) -> None:
    """Any bytes, any JSON, any replaced value, in pieces of any size: 200, 400, 401 or 413."""

    async def ask() -> Asker:
        app = FastAPI()
        app.include_router(
            callback_router(CallbackVerifier(bodies.CREDENTIALS, max_bytes=MAX_BYTES, now=lambda: bodies.NOW))
        )
        app.dependency_overrides[client_of] = lambda: DEAF
        return await Asker(pieces(body, cuts), stays).ask(app, "/smile-callback")

    asker = anyio.run(ask)
    assert asker.http_status in (200, 400, 401, 413)
    assert asker.body == b""


# Waits that end with their HTTP client


@pytest.mark.anyio
async def test_a_result_is_returned() -> None:
    """The result of the wait is unchanged, and no task is left."""

    async def work() -> str:
        await anyio.sleep(5)
        return "result"

    assert await while_connected(request_of(Asker()), work()) == "result"


@pytest.mark.anyio
async def test_a_wait_ends_when_its_http_client_goes() -> None:
    """It is cancelled, and the route gets an error that FastAPI handles."""
    ended: list[str] = []
    asker = Asker()

    async def work() -> None:
        try:
            await anyio.sleep(100)
        finally:
            ended.append("cancelled")

    async with anyio.create_task_group() as tasks:

        @tasks.start_soon
        async def leave() -> None:
            await anyio.sleep(5)
            asker.gone.set()

        with pytest.raises(ClientGoneError) as caught:
            await while_connected(request_of(asker), work())
    assert ended == ["cancelled"]
    assert caught.value.status_code == 499
    assert anyio.current_time() < 100


@pytest.mark.anyio
async def test_a_client_that_has_gone_before_ends_a_wait_at_once() -> None:
    """The body never ended, but the disconnection is noticed."""
    with pytest.raises(ClientGoneError):
        await while_connected(request_of(Asker(stays=False)), anyio.sleep(100))


@pytest.mark.anyio
@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt, SystemExit, SmileJobsError("no")])
async def test_errors_come_out_bare(error: Any) -> None:
    """Not in a group, also those that are no `Exception`."""

    async def fail() -> None:
        await anyio.lowlevel.checkpoint()
        raise error

    with pytest.raises(error if isinstance(error, type) else type(error)):
        await while_connected(request_of(Asker()), fail())


@pytest.mark.anyio
async def test_a_broken_server_comes_out_bare_too() -> None:
    """A request from which nothing can be received raises the error of the server."""
    request = Request({"type": "http", "method": "GET", "path": "/", "headers": []})
    with pytest.raises(RuntimeError, match="Receive channel"):
        await while_connected(request, anyio.sleep(100))


@pytest.mark.anyio
async def test_a_result_at_the_last_moment_is_kept() -> None:
    """A wait that has a result when it is cancelled returns it."""
    asker = Asker()

    async def work() -> str:
        try:
            await anyio.sleep(100)
        except anyio.get_cancelled_exc_class():
            return "result"
        pytest.fail("not cancelled")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(anyio.sleep, 0)
        asker.gone.set()
        with anyio.CancelScope():
            assert await while_connected(request_of(asker), work()) == "result"


@pytest.mark.anyio
async def test_it_can_be_cancelled_itself() -> None:
    """By a scope around it, or by the shutdown of the server."""
    with anyio.move_on_after(5) as scope:
        await while_connected(request_of(Asker()), anyio.sleep(100))
    assert scope.cancelled_caught


@pytest.mark.anyio
async def test_a_body_that_was_read_before_stays_readable() -> None:
    """Whole or in pieces; a server that repeats the end of the body does not count as a disconnection."""
    request = request_of(Asker([b"a", b"b"]))
    assert await request.body() == b"ab"
    await while_connected(request, anyio.sleep(1))
    assert await request.body() == b"ab"

    asker = Asker([b"a", b"b"], ends=2)
    request = request_of(asker)
    assert b"".join([piece async for piece in request.stream()]) == b"ab"
    await while_connected(request, anyio.sleep(1))
    asker.gone.set()
    with pytest.raises(ClientGoneError):
        await while_connected(request, anyio.sleep(100))


@pytest.mark.anyio
async def test_a_body_that_was_not_read_is_thrown_away() -> None:
    """It does not accumulate, and a later attempt to read it raises an error."""
    asker = Asker(b"x" * 1000 for _ in range(1000))
    request = request_of(asker)
    await while_connected(request, anyio.sleep(1))
    assert asker.received == 1000
    with pytest.raises(RuntimeError, match="Stream consumed"):
        await request.body()


@pytest.mark.anyio
@pytest.mark.parametrize("in_middleware", [False, True])
async def test_an_app_takes_it_quietly(in_middleware: bool, caplog: pytest.LogCaptureFixture) -> None:
    """The status in the access log is 499; no error is logged, with and without middleware."""
    script = Script({REF.job_id: [pending()]})
    async with service(script) as (app, _):

        @app.get("/result")
        async def result(request: Request, client: SmileClient) -> JobStatusModel:
            work = client.wait(REF.user_id, REF.job_id, timeout=None, pace=lambda age, polls: 250.0)
            return JobStatusModel.of(await while_connected(request, work))

        if in_middleware:

            async def dispatch(request: Request, call_next: Any) -> Any:
                return await call_next(request)

            app.add_middleware(BaseHTTPMiddleware, dispatch=dispatch)
        asker = Asker()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(asker.ask, app, "/result", "GET")
            await anyio.sleep(5)
            asker.gone.set()
    assert asker.http_status == 499
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(script.polls[REF.job_id]) == 1


# Answers as models


def test_a_model_says_what_as_dict_says() -> None:
    """For each key, with and without personal data and links."""
    personal = {vendor: f"the {ours}" for ours, vendor in bodies.PERSONAL.items()}
    links = {"selfie_image": bodies.sigv4_url()}
    status = bodies.read(
        bodies.signed(
            bodies.complete(
                result=bodies.result(**personal),
                history=bodies.other_jobs(),
                image_links=links,
                kyc_receipt="https://portal.example/receipt",
            )
        )
    )
    for model, options in (
        (JobStatusModel.of(status), {}),
        (PersonalJobStatusModel.of(status), {"personal": True}),
        (JobStatusModel.of(status, links=True), {"links": True}),
    ):
        said: Any = json.loads(model.model_dump_json())
        expected: Any = status.as_dict(**options)
        assert list(said) == list(expected)
        assert said["verdict"] == expected["verdict"] == "approved"
        ours, theirs = ([each["result"], *each["history"]] for each in (said, expected))
        for result in theirs:
            result["partner_params"].pop("extra", None)
        assert ours == theirs
        link = said["image_links"]["selfie_image"]
        assert link["url"] == (bodies.sigv4_url() if "links" in options else None)
        assert said["receipt"]["url"] == ("https://portal.example/receipt" if "links" in options else None)
    assert "the full_name" not in JobStatusModel.of(status).model_dump_json()
    assert "the full_name" in PersonalJobStatusModel.of(status).model_dump_json()


def test_the_personal_fields_are_those_of_the_result() -> None:
    """A new field of `JobResult` must be added to the model."""
    names = {attribute.name for attribute in fields(JobResult)} - {"raw"}
    assert PersonalJobResultModel.model_fields.keys() == names
    assert JobResultModel.model_fields.keys() == names - bodies.PERSONAL.keys()


def test_a_route_sends_no_more_than_its_type_says() -> None:
    """Also if the route returns more; the schema shows the same fields."""
    app = FastAPI()
    status = bodies.read(bodies.signed(bodies.complete(result=bodies.result(FullName="Ada Fiction"))))

    @app.get("/")
    async def discreet() -> JobStatusModel:
        return PersonalJobStatusModel.of(status)

    @app.get("/personal")
    async def personal() -> PersonalJobStatusModel:
        return PersonalJobStatusModel.of(status)

    http = TestClient(app)
    assert "full_name" not in http.get("/").json()["result"]
    assert http.get("/personal").json()["result"]["full_name"] == "Ada Fiction"
    schemas = app.openapi()["components"]["schemas"]
    assert schemas["Verdict"]["enum"] == [verdict.value for verdict in Verdict]
    assert "full_name" not in schemas["JobResultModel"]["properties"]
    assert "full_name" in schemas["PersonalJobResultModel"]["properties"]


LINKED = bodies.read(
    bodies.signed(
        bodies.complete(
            result=bodies.result(**{vendor: f"the {ours}" for ours, vendor in bodies.PERSONAL.items()}),
            history=bodies.other_jobs(),
            image_links={"selfie_image": bodies.sigv4_url()},
        )
    )
)


@pytest.mark.parametrize("separate", [True, False])
def test_a_route_may_return_the_answer_itself(separate: bool) -> None:
    """``-> JobStatus`` and ``-> JobResult``, also in lists and unions: as `as_dict`, with the schema of the models."""
    app = FastAPI(separate_input_output_schemas=separate)

    @app.get("/status")
    async def status() -> JobStatus:
        return LINKED

    @app.get("/maybe")
    def maybe() -> JobStatus | None:
        return LINKED

    @app.get("/list")
    async def many() -> list[JobStatus]:
        return [LINKED]

    @app.get("/result")
    async def result() -> JobResult | None:
        return LINKED.result

    http = TestClient(app)
    expected = json.loads(JobStatusModel.of(LINKED).model_dump_json())
    assert http.get("/status").json() == http.get("/maybe").json() == expected
    assert http.get("/list").json() == [expected]
    assert http.get("/result").json() == expected["result"]
    for path in ("/status", "/maybe", "/list", "/result"):
        text = http.get(path).text
        assert "the full_name" not in text
        assert "X-Amz" not in text
    paths = app.openapi()["paths"]
    schema = paths["/status"]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    assert schema == {"$ref": "#/components/schemas/JobStatusModel"}


def test_an_answer_may_be_a_field_of_a_model() -> None:
    """It is serialized as in a route, and cannot be read from JSON."""

    class Customer(BaseModel):
        status: JobStatus
        result: JobResult | None = None

    customer = Customer(status=LINKED, result=LINKED.result)
    assert customer.status is LINKED
    written = customer.model_dump_json()
    assert json.loads(written)["status"]["verdict"] == "approved"
    assert "the full_name" not in written + repr(customer)
    for text in (written, "{}", '{"status": 5}'):
        with pytest.raises(ValidationError):
            Customer.model_validate_json(text)
    with pytest.raises(ValidationError, match="comes from the API and cannot be read from JSON"):
        Customer.model_validate_json(written)
    with pytest.raises(ValidationError):
        Customer.model_validate({"status": LINKED.as_dict()})


def test_pydantic_is_not_imported_by_the_library_itself() -> None:
    """It is imported only when pydantic asks for the schema of an answer."""
    program = "import smilejobs, sys; print([name for name in sys.modules if 'pydantic' in name])"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


def test_what_is_no_text_in_utf8_is_made_one() -> None:
    """JSON may hold half surrogate pairs, which pydantic refuses; the answer is sent all the same."""
    half = "half \ud800"
    body = bodies.complete(
        result=bodies.result(ResultText=half, FullName=half, Actions={half: half}), image_links={half: half}
    )
    model = PersonalJobStatusModel.of(bodies.read(bodies.signed(body)), links=True)
    said = json.loads(model.model_dump_json())
    assert (
        said["result"]["result_text"] == said["result"]["full_name"] == said["result"]["actions"]["half ?"] == "half ?"
    )
    assert said["image_links"]["half ?"]["url"] == "half ?"


@unhurried
@given(answers())
def test_every_answer_that_can_be_read_can_be_sent_on(body: bytes) -> None:
    """With half surrogate pairs, very large numbers and unusual years, the result is JSON of the right shape."""
    try:
        status = bodies.read(body)
    except SmileJobsError:
        return
    for model in (JobStatusModel, PersonalJobStatusModel):
        text = model.of(status, links=True).model_dump_json()
        assert model.model_validate_json(text).user_id == status.user_id
