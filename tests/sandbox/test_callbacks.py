"""The callbacks of the sandbox: when they come, how often, in which order, and what is in them."""

import json
import logging
import re
import ssl
import tracemalloc
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
import trustme
from attrs import define, evolve, field, fields
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, Router

from smilejobs import CallbackError, CallbackVerifier, Credentials, JobRef, Verdict
from smilejobs.clock import utcnow
from smilejobs.sandbox import Sandbox
from smilejobs.sandbox.callbacks import DELIVERIES, Callbacks, Delivery
from smilejobs.sandbox.distributions import Lognormal
from smilejobs.sandbox.jobs import Job
from smilejobs.sandbox.registry import Registry
from smilejobs.testing import EPOCH, virtual_now
from tests.helpers.patience import free_port, until
from tests.helpers.servers import Server, http, serve

pytestmark = pytest.mark.anyio

CREDENTIALS = Credentials("085", "sandbox-key")
URL = "http://localhost/callback"
DELIVERY = {field.name for field in fields(Delivery)}
LINKS = {"selfie_image": "https://sandbox.test/selfie"}


@define
class Receiver:
    """A receiver of callbacks: their times, their bodies, and the statuses of its answers, in turn."""

    statuses: list[int] = field(factory=list)
    delay: float = 0.0
    bodies: list[bytes] = field(factory=list)
    times: list[float] = field(factory=list)
    under_way: int = 0
    most_under_way: int = 0

    async def take(self, request: Request) -> Response:
        self.bodies.append(await request.body())
        self.times.append(anyio.current_time())
        assert request.headers["content-type"] == "application/json"
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        await anyio.sleep(self.delay)
        self.under_way -= 1
        return Response(status_code=self.statuses.pop(0) if self.statuses else 204)

    @property
    def seen(self) -> list[dict[str, Any]]:
        return [json.loads(body) for body in self.bodies]

    @property
    def codes(self) -> list[str]:
        return [body["ResultCode"] for body in self.seen]

    @asynccontextmanager
    async def client(self) -> AsyncGenerator[httpx.AsyncClient, None]:
        router = Router(routes=[Route("/callback", self.take, methods=["POST"])])
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=router)) as http_client:
            yield http_client


def job(number: int = 1, *, at: float = 0.0, machine: float = 10.0, review: float | None = 0.0, **more: Any) -> Job:
    """A job whose images came at *at*, in seconds of the virtual clock."""
    job_type = more.pop("job_type", 6)
    return Job(
        ref=JobRef("user-1", f"job-{number}"),
        smile_job_id=f"{number:010d}",
        job_type=job_type,
        result_code="0810",
        uploaded_at=EPOCH + timedelta(seconds=at),
        machine=timedelta(seconds=machine),
        review=None if review is None else timedelta(seconds=review),
        callback_url=URL,
        **more,
    )


def registry_of(*jobs: Job, now: Callable[[], datetime] = virtual_now, seed: int = 0) -> Registry:
    registry = Registry(credentials=CREDENTIALS, now=now, seed=seed)
    for job in jobs:
        registry.save(job)
    return registry


def callbacks_of(
    registry: Registry, http_client: httpx.AsyncClient | None = None, *, allow_to: Sequence[str] = (), **faults: Any
) -> Callbacks:
    """Callbacks of these jobs; a change of a job schedules it."""
    callbacks = Callbacks(
        registry,
        delivery=Delivery(**{name: faults.pop(name) for name in DELIVERY & faults.keys()}),
        links=lambda job, at: LINKS,
        allow_to=allow_to,
        http_client=http_client,
        **faults,
    )
    registry.on_change = callbacks.schedule
    return callbacks


async def delivered(
    receiver: Receiver, jobs: Sequence[Job], *, lasting: float = 1000.0, seed: int = 0, **delivery: Any
) -> Receiver:
    """What *receiver* has seen of these jobs after a while."""
    registry = registry_of(seed=seed)
    async with receiver.client() as http_client, callbacks_of(registry, http_client, **delivery).running():
        for one in jobs:
            registry.save(one)
        await anyio.sleep(lasting)
    return receiver


async def test_the_result_is_sent_when_it_is_there() -> None:
    """Flat, signed at that instant, with links to the images; nothing of an answer's own is in it."""
    receiver = await delivered(Receiver(), [job()])
    assert receiver.times == [10.0]
    (body,) = receiver.seen
    expected = job().milestones()[0][1]
    assert {key: body[key] for key in expected} == expected
    assert body.keys() - expected == {"ImageLinks", "timestamp", "signature"}
    assert body["ImageLinks"] == LINKS
    verified = CallbackVerifier(CREDENTIALS, now=lambda: EPOCH + timedelta(seconds=10)).verify(receiver.bodies[0])
    assert verified.ref == JobRef("user-1", "job-1")


async def test_the_provisional_result_comes_first() -> None:
    """Each at its instant."""
    receiver = await delivered(Receiver(), [job(review=60)])
    assert receiver.codes == ["0814", "0810"]
    assert [body["IsFinalResult"] for body in receiver.seen] == ["false", "true"]
    assert receiver.times == [10.0, 70.0]


async def test_who_names_no_url_gets_nothing() -> None:
    """A job without one, and one whose images never come."""
    quiet = evolve(job(1), callback_url=None)
    stuck = evolve(job(2), uploaded_at=None)
    receiver = await delivered(Receiver(), [quiet, stuck])
    assert not receiver.bodies


async def test_what_is_not_taken_is_sent_again_later_each_time() -> None:
    """The same bytes, until a 2xx or for the last time."""
    receiver = await delivered(Receiver(statuses=[500, 302, 404, 200]), [job()])
    assert receiver.times == [10.0, 12.0, 16.0, 24.0]
    assert len(set(receiver.bodies)) == 1
    receiver = await delivered(Receiver(statuses=[500] * 99), [job()], attempts=8)
    assert [later - earlier for earlier, later in zip(receiver.times, receiver.times[1:], strict=False)] == [
        *(2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0)
    ]


async def test_a_callback_that_is_not_accepted_is_logged_by_its_tag(caplog: pytest.LogCaptureFixture) -> None:
    """What was wrong, and neither ids nor the URL; it is a warning."""
    with caplog.at_level(logging.DEBUG, "smilejobs"):
        await delivered(Receiver(statuses=[503] * 9), [job()])
    (record,) = [record for record in caplog.records if record.name.startswith("smilejobs")]
    tag = JobRef("user-1", "job-1").tag
    assert record.getMessage() == f"a callback of job {tag} was not accepted, attempts: 5; HTTP 503"
    assert record.levelno == logging.WARNING


async def test_a_slow_receiver_is_given_up() -> None:
    """After the timeout the callback counts as not taken."""
    receiver = await delivered(Receiver(delay=100), [job()], attempts=2, timeout=5, retry_delay=1)
    assert receiver.times == [10.0, 16.0]


async def test_jobs_do_not_wait_for_each_other() -> None:
    """A slow receiver has many callbacks at once, but no more than there are connections."""
    receiver = await delivered(Receiver(delay=5), [job(number) for number in range(150)])
    assert len(receiver.bodies) == 150
    assert receiver.most_under_way == 100
    assert set(receiver.times) == {10.0, 15.0}


async def test_duplicates_on_request() -> None:
    """A share of the callbacks comes twice, byte for byte."""
    receiver = await delivered(Receiver(), [job()], duplicates=1.0)
    assert len(receiver.bodies) == 2
    assert len(set(receiver.bodies)) == 1
    some = await delivered(Receiver(), [job(number) for number in range(100)], duplicates=0.3)
    assert 110 < len(some.bodies) < 160
    untaken = await delivered(Receiver(statuses=[500] * 5), [job()], duplicates=1.0)
    assert len(untaken.bodies) == 5


async def test_delays_on_request() -> None:
    """They come late, their timestamp says when they should have."""
    receiver = await delivered(Receiver(), [job()], delay=Lognormal(30.0))
    assert receiver.times == [40.0]
    assert receiver.seen[0]["timestamp"] == "2026-01-01T00:00:10.000Z"


async def test_reordering_on_request() -> None:
    """The provisional result comes after the final one, with the older timestamp."""
    receiver = await delivered(Receiver(), [job(review=60)], reordered=1.0)
    assert receiver.codes == ["0810", "0814"]
    assert receiver.times == [70.0, 71.0]
    assert receiver.seen[0]["timestamp"] > receiver.seen[1]["timestamp"]


async def test_forgeries_on_request() -> None:
    """One with a wrong signature, then the callback, then one that verifies and lies: the doorbell is no verdict."""
    receiver = await delivered(Receiver(statuses=[500]), [job()], forgeries=1.0)
    assert receiver.codes == ["0811", "0810", "0811"]
    wrong, right, replayed = receiver.bodies
    verifier = CallbackVerifier(CREDENTIALS, now=lambda: EPOCH + timedelta(seconds=10))
    with pytest.raises(CallbackError):
        verifier.verify(wrong)
    assert not verifier.verify(right).duplicate
    assert verifier.verify(replayed).duplicate
    assert (await delivered(Receiver(), [evolve(job(), result_code="0811")], forgeries=1.0)).codes[0] == "0810"
    assert (await delivered(Receiver(), [job(review=None)], forgeries=1.0)).codes == ["0811", "0814", "0811"]


async def test_the_same_seed_sends_the_same_bytes() -> None:
    """All that goes wrong, goes wrong again in the same way; another seed has another way."""
    jobs = [job(number, review=number % 3) for number in range(30)]
    chaos: dict[str, Any] = {"duplicates": 0.5, "reordered": 0.5, "forgeries": 0.5, "delay": Lognormal(3.0, 1.0)}
    seen = []
    for seed in (1, 1, 2):
        started = anyio.current_time()
        later = [evolve(one, uploaded_at=EPOCH + timedelta(seconds=started)) for one in jobs]
        receiver = await delivered(Receiver(), later, seed=seed, **chaos)
        # What comes at the same instant comes in any order: trio shuffles its tasks.
        times = [round(at - started, 6) for at in receiver.times]
        bodies = [sha256(_timeless(body)).hexdigest() for body in receiver.seen]
        seen.append(sorted(zip(times, bodies, strict=True)))
    assert len(seen[0]) > 60
    assert seen[0] == seen[1] != seen[2]


async def test_a_timetable_that_changes_is_followed() -> None:
    """A zip that arrives, a review that is ended: what was planned is dropped, what was sent is not sent again."""
    receiver, registry = Receiver(), registry_of()
    async with receiver.client() as http_client:
        callbacks = callbacks_of(registry, http_client)
        async with callbacks.running():
            waiting = evolve(job(), uploaded_at=None, review=None)
            registry.save(waiting)
            await anyio.sleep(100)
            uploaded = evolve(waiting, uploaded_at=virtual_now())
            registry.save(uploaded)
            registry.save(uploaded)
            await anyio.sleep(100)
            assert receiver.times == [110.0]
            registry.save(evolve(uploaded, reviewed_at=virtual_now()))
            await anyio.sleep(100)
            later = evolve(job(2, review=1000), uploaded_at=virtual_now())
            registry.save(later)
            await anyio.sleep(20)
            registry.save(evolve(later, reviewed_at=virtual_now()))
            await anyio.sleep(2000)
    assert receiver.times == [110.0, 200.0, 310.0, 320.0]
    assert receiver.codes == ["0814", "0810"] * 2


async def test_a_review_that_ends_with_the_machine_is_heard_of() -> None:
    """The final result replaces the provisional one of the same instant, which was sent before."""
    receiver, registry = Receiver(), registry_of()
    async with receiver.client() as http_client:
        callbacks = callbacks_of(registry, http_client)
        registry.save(job(review=None))
        async with callbacks.running():
            await anyio.sleep(10.001)
            assert receiver.codes == ["0814"]
            registry.save(evolve(job(review=None), reviewed_at=EPOCH + timedelta(seconds=10)))
            await anyio.sleep(1)
    assert receiver.codes == ["0814", "0810"]


async def test_a_provisional_callback_that_is_to_come_late_waits_for_the_final_one() -> None:
    """As long as the time of the final one is not known, it does not come."""
    receiver, registry = Receiver(), registry_of()
    async with receiver.client() as http_client:
        callbacks = callbacks_of(registry, http_client, reordered=1.0)
        registry.save(job(review=None))
        async with callbacks.running():
            await anyio.sleep(100)
            assert not receiver.bodies
            registry.save(evolve(job(review=None), reviewed_at=virtual_now()))
            await anyio.sleep(100)
    assert receiver.codes == ["0810", "0814"]


async def test_what_a_former_run_has_sent_is_not_sent_again() -> None:
    """Of the jobs that a file has kept, what was due before the start counts as sent."""
    receiver = Receiver()
    jobs = (job(1), job(2, review=60), job(3, machine=50))
    await anyio.sleep(20)
    async with receiver.client() as http_client, callbacks_of(registry_of(*jobs), http_client).running():
        await anyio.sleep(100)
    assert [(body["SmileJobID"][-1], body["ResultCode"]) for body in receiver.seen] == [("3", "0810"), ("2", "0810")]


async def test_the_end_of_the_block_ends_the_deliveries() -> None:
    """What is under way is cut off, what is due later does not come; and it may begin anew."""
    receiver = Receiver(delay=50)
    registry = registry_of()
    async with receiver.client() as http_client:
        callbacks = callbacks_of(registry, http_client)
        for one in (job(1), job(2, at=100)):
            registry.save(one)
        async with callbacks.running():
            await anyio.sleep(20)
        await anyio.sleep(1000)
        assert receiver.times == [10.0]
        async with callbacks.running():
            await anyio.sleep(1)
    assert receiver.times == [10.0, 1020.0]


async def test_errors_of_the_block_come_out_bare() -> None:
    """No group wraps them, and the deliveries have ended."""
    callbacks = callbacks_of(registry_of())
    with pytest.raises(LookupError, match="mine"):
        async with callbacks.running():
            raise LookupError("mine")


async def test_a_block_within_a_block_changes_nothing() -> None:
    """Each callback is delivered once, and deliveries go on until the outer one ends."""
    receiver = Receiver()
    registry = registry_of()
    async with receiver.client() as http_client:
        callbacks = callbacks_of(registry, http_client)
        for one in (job(1), job(2, at=100)):
            registry.save(one)
        async with callbacks.running():
            async with callbacks.running():
                await anyio.sleep(50)
            await anyio.sleep(100)
    assert receiver.times == [10.0, 110.0]


async def test_cancelling_ends_it() -> None:
    """A cancelled block is one that ends."""
    with anyio.move_on_after(1) as scope:
        async with callbacks_of(registry_of()).running():
            await anyio.sleep_forever()
    assert scope.cancelled_caught


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost/callback",
        "http://LOCALHOST:8000/callback?job=1",
        "https://127.0.0.1/",
        "http://127.8.9.10",
        "http://[::1]:80/x",
        "http://service:8000/callback",
        "https://hooks.example.com/callback",
    ],
)
def test_where_callbacks_may_go(url: str) -> None:
    """To this machine, and to the hosts that are named."""
    callbacks_of(registry_of(), allow_to=["service", "Hooks.Example.com"]).check(url)


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com/callback",
        "http://localhost.example.com/",
        "http://localhost@example.com/",
        "http://example.com#localhost",
        "http://example.com\\@localhost/",
        "http://169.254.169.254/latest/meta-data",
        "http://0.0.0.0/",
        "http://[::1].example.com/",
        "http://2130706433/",
        "http://127.1/",
        "file:///etc/passwd",
        "localhost/callback",
        "http://[::1/",
        "",
    ],
)
def test_where_callbacks_may_not_go(url: str) -> None:
    """Anywhere else, however it is written; the text says how to allow it, or that it is no URL."""
    with pytest.raises(ValueError, match="callback_url"):
        callbacks_of(registry_of()).check(url)


def test_the_hosts_are_a_collection() -> None:
    """One string would be taken letter by letter."""
    with pytest.raises(TypeError, match="collection of host names"):
        callbacks_of(registry_of(), allow_to="host")


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (partial(Delivery, delay=-1), ValueError, "delay"),
        (partial(Delivery, duplicates=1.1), ValueError, "duplicates"),
        (lambda: Delivery(reordered="often"), TypeError, "reordered"),  # type: ignore[arg-type]  # what mypy refuses, users without it pass
        (partial(Delivery, forgeries=-0.1), ValueError, "forgeries"),
    ],
)
def test_deliveries_that_are_out_of_range(make: Callable[[], object], error: type[Exception], match: str) -> None:
    """The text names the argument."""
    with pytest.raises(error, match=match):
        make()


def test_each_preset_has_its_delivery() -> None:
    """That of no faults is the default."""
    assert set(DELIVERIES) == {"none", "flaky", "storm"}
    assert DELIVERIES["none"] == Delivery()


async def test_the_whole_way_in_one_process() -> None:
    """A sandbox, an application that takes its callbacks, and a client that polls when the doorbell rings."""
    receiver = Receiver(statuses=[500])
    async with (
        receiver.client() as http_client,
        Sandbox(now=virtual_now, callback_client=http_client) as sandbox,
        sandbox.client() as client,
    ):
        ref = sandbox.submit("user-1", "job-1", machine=10, review=3600, callback_url=URL)
        await anyio.sleep(11)
        assert receiver.codes == ["0814"]
        assert (await client.job_status(*_ids(ref))).verdict is Verdict.PROVISIONAL
        await anyio.sleep(3600)
        assert receiver.codes == ["0814", "0814", "1210"]
        assert (await client.job_status(*_ids(ref))).verdict is Verdict.APPROVED
    assert receiver.seen[-1]["ImageLinks"]["selfie_image"].startswith("https://localhost/images/")


async def test_a_url_beyond_this_machine_is_refused_at_the_submission() -> None:
    """Unless it is allowed; there is no job then."""
    sandbox = Sandbox(now=virtual_now)
    with pytest.raises(ValueError, match="allow_callbacks_to="):
        sandbox.submit("user-1", "job-1", callback_url="https://example.com/callback")
    assert not sandbox.jobs
    allowing = Sandbox(now=virtual_now, allow_callbacks_to={"example.com"})
    allowing.submit("user-1", "job-1", callback_url="https://example.com/callback")


async def test_after_a_restart_no_more_is_allowed_than_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A callback that a former run would have sent elsewhere is not sent; the sandbox goes on."""
    state = tmp_path / "sandbox.state"
    former = Sandbox(now=virtual_now, state=state, allow_callbacks_to={"example.com"})
    former.submit("user-1", "job-1", machine=10, callback_url="https://example.com/callback")
    receiver = Receiver()
    async with receiver.client() as http_client, Sandbox(now=virtual_now, state=state, callback_client=http_client):
        await anyio.sleep(20)
    assert not receiver.seen
    assert "callbacks to 'example.com' are not sent: callback_url must be on this machine" in caplog.text


class TestOverSockets:
    """With a pool of its own: a real receiver, which may be gone, or not be trusted."""

    @pytest.fixture(params=["asyncio", "trio"])
    def anyio_backend(self, request: pytest.FixtureRequest) -> str:
        return str(request.param)

    @staticmethod
    async def deliver(*urls: str, condition: Callable[[], bool], **delivery: Any) -> Callbacks:
        """Deliver one callback to each URL, until the condition holds."""
        registry = registry_of(now=utcnow)
        callbacks = callbacks_of(registry, **{"retry_delay": 0.01, **delivery})
        for number, url in enumerate(urls):
            registry.save(evolve(job(number, machine=0.0), uploaded_at=utcnow(), callback_url=url))
        async with callbacks.running():
            await until(condition)
        return callbacks

    async def test_many_urls(self) -> None:
        """Each gets its callbacks, over connections that are closed afterwards."""
        seen = []

        async def take(stream: Any, body: bytes) -> None:
            seen.append(json.loads(body)["SmileJobID"])
            await stream.send(http(b""))

        async with serve(take) as server:
            urls = [f"http://127.0.0.1:{server.port}/{number}?job={number}" for number in range(11)]
            await self.deliver(*urls, *urls, condition=lambda: len(seen) == 2 * len(urls))
            await until(lambda: not server.open)
            assert min(server.heads).lower().startswith(b"post /0?job=0 http/1.1\r\nhost: 127.0.0.1:")
        assert len(set(seen)) == 2 * len(urls)

    async def test_a_receiver_that_does_not_listen(self, caplog: pytest.LogCaptureFixture) -> None:
        """A connection that is refused is tried again, and given up."""
        await self.deliver(f"http://127.0.0.1:{free_port()}/", condition=lambda: bool(caplog.records), attempts=2)
        assert "was not accepted, attempts: 2; no answer: Connection refused" in caplog.text

    @pytest.mark.parametrize(
        ("first", "then"),
        [
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"400\r\n" + b"x" * 1024 + b"\r\n"),
            (b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", b"x" * 1024),
            (b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 1024),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", b""),
            (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"no size"),
        ],
    )
    async def test_an_answer_that_never_ends(self, first: bytes, then: bytes, caplog: pytest.LogCaptureFixture) -> None:
        """Its status counts; no more than a limit is read, and the connection is closed soon."""
        taken = 0

        async def take(stream: Any, body: bytes) -> None:
            nonlocal taken
            taken += 1
            await stream.send(first)
            while then:
                await stream.send(then)
            await stream.receive()

        async with serve(take) as server:
            await self.deliver(f"http://127.0.0.1:{server.port}/", condition=lambda: taken > 0 and not server.open)
        assert taken == 1
        assert not caplog.records

    @pytest.mark.parametrize(
        ("answer", "why"),
        [
            (b"HTTP/1.1 100 Continue\r\n\r\n" * 1000, "no answer within 1 s"),
            (
                b"SSH-2.0-receiver\r\n\r\n",
                "no answer: what the server sent is not valid HTTP, or its head is too large",
            ),
            (b"HTTP/1.1 200 OK\r\n" + b"X-100: x\r\n" * 1000, "no answer: what the server sent is not valid HTTP"),
            (b"HTTP/1.1 200 OK\r\nX-More: ", "no answer within 1 s"),
            (None, "no answer: the server closed the connection"),
            (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "HTTP 404"),
        ],
    )
    async def test_no_status(self, answer: bytes | None, why: str, caplog: pytest.LogCaptureFixture) -> None:
        """The log says what came in its place, also where it never ends."""

        async def take(stream: Any, body: bytes) -> None:
            if answer is None:
                await stream.aclose()
                return
            await stream.send(answer)
            while b"100" in answer:
                await stream.send(answer)
            await stream.receive()

        async with serve(take) as server:
            url = f"http://127.0.0.1:{server.port}/"
            timeout = 1 if "1 s" in why else 60
            await self.deliver(url, condition=lambda: bool(caplog.records), attempts=1, timeout=timeout)
        assert f"was not accepted, attempts: 1; {why}" in caplog.text

    async def test_a_host_that_has_no_address(self, caplog: pytest.LogCaptureFixture) -> None:
        """The log says what the resolver says."""
        registry = registry_of(now=utcnow)
        callbacks = callbacks_of(registry, allow_to=["receiver.invalid"], attempts=1)
        url = "https://receiver.invalid/callback"
        registry.save(evolve(job(machine=0.0), uploaded_at=utcnow(), callback_url=url))
        async with callbacks.running():
            await until(lambda: bool(caplog.records))
        assert re.search("attempts: 1; no answer: .*([Nn]ame|not known|resol|No address)", caplog.text)

    async def test_many_https_urls_take_no_memory(self) -> None:
        """Three hundred of them, none of which has been sent to yet."""
        urls = [f"https://localhost:{number}/" for number in range(1, 301)]
        jobs = [evolve(job(number), uploaded_at=utcnow(), callback_url=url) for number, url in enumerate(urls)]
        callbacks = callbacks_of(registry_of(*jobs))
        tracemalloc.start()
        for one in jobs:
            callbacks.schedule(one)
        assert tracemalloc.get_traced_memory()[0] < 1024 * 1024
        tracemalloc.stop()

    async def test_a_receiver_over_https(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """It is trusted if `SSL_CERT_FILE` names its authority, which is read once."""
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority = trustme.CA()
        authority.issue_cert("localhost").configure_cert(tls)
        authority.cert_pem.write_to_path(str(tmp_path / "authority.pem"))
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
        seen = []

        async def take(stream: Any, body: bytes) -> None:
            seen.append(json.loads(body)["SmileJobID"])
            await stream.send(http(b"{}"))

        async with serve(take, tls) as server:
            await self.deliver(server.url("https"), server.url("https"), condition=lambda: len(seen) == 2)
        assert len(set(seen)) == 2

    async def test_a_certificate_that_is_not_trusted(self, caplog: pytest.LogCaptureFixture) -> None:
        """The callback is not sent; the log says what is wrong with the certificate."""
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        trustme.CA().issue_cert("localhost").configure_cert(tls)
        server: Server
        async with serve(_never, tls) as server:
            await self.deliver(server.url("https"), condition=lambda: bool(caplog.records), attempts=1)
            assert not server.requests
        assert "certificate is not trusted (unable to get local issuer certificate)" in caplog.text


async def test_any_error_of_a_client_ends_one_attempt(caplog: pytest.LogCaptureFixture) -> None:
    """Its own errors and any other; the next attempt comes all the same."""
    errors = [httpx.ConnectError("refused"), UnicodeEncodeError("utf-8", "x", 0, 1, "no"), KeyError("secret")]

    async def refuse(request: httpx.Request) -> httpx.Response:
        raise errors.pop(0)

    async with httpx.AsyncClient(transport=httpx.MockTransport(refuse)) as http_client:
        registry = registry_of()
        callbacks = callbacks_of(registry, http_client, attempts=3)
        registry.save(job())
        async with callbacks.running():
            await anyio.sleep(100)
    assert "attempts: 3; no answer: the HTTP client raised KeyError" in caplog.text
    assert "secret" not in caplog.text


def _ids(ref: JobRef) -> tuple[str, str]:
    return ref.user_id, ref.job_id


def _timeless(body: dict[str, Any]) -> bytes:
    return json.dumps({key: value for key, value in body.items() if key not in ("timestamp", "signature")}).encode()


async def _never(stream: Any, body: bytes) -> None:
    pytest.fail("nothing should come here")
