"""The services of the examples, on real servers, with the sandbox; and both callback routes with hostile requests."""

import asyncio
import contextlib
import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

import anyio
import anyio.from_thread
import httpx
import psycopg
import pytest
from aiohttp import web
from attrs import define, field
from fastapi import FastAPI
from hypothesis import given
from hypothesis import strategies as st

from smilejobs import CallbackVerifier, Client, JobRef
from smilejobs.integrations import aiohttp as for_aiohttp
from smilejobs.integrations import fastapi as for_fastapi
from smilejobs.sandbox import Sandbox
from tests.helpers import bodies
from tests.helpers.patience import free_port, until
from tests.helpers.services import MAX_BYTES, by_aiohttp, by_uvicorn, callback, pieces
from tests.helpers.strategies import answers, json_values, unhurried

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
PERSONAL = {"FullName": "Ada Fiction", "IDNumber": "12345678901"}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def environment(base_url: str, **more: str) -> dict[str, str]:
    """Return the environment variables of a service that polls a sandbox."""
    rest = {name: value for name, value in os.environ.items() if not name.startswith("SMILE_")}
    return {**rest, "SMILE_PARTNER_ID": "085", "SMILE_API_KEY": "sandbox-key", "SMILE_BASE_URL": base_url, **more}


@contextmanager
def process(command: list[str], log: Path | None = None, user: str | None = None, **more: Any) -> Iterator[None]:
    """Run a program while the block runs, and stop it as a supervisor does."""
    with contextlib.nullcontext(subprocess.DEVNULL) if log is None else log.open("wb") as output:
        running = subprocess.Popen(command, stdout=output, stderr=output, user=user, **more)
        try:
            yield
            running.send_signal(signal.SIGTERM)
            assert running.wait(60) in (0, -signal.SIGTERM)
        finally:
            running.kill()
            running.wait()


PATIENT = """
import runpy, sys
from smilejobs import Pace

Pace.relaxed = lambda: Pace(min=1000, max=1000)
runpy.run_path(sys.argv[1], run_name="__main__")
"""
"""Runs an example with a pace so slow that a wait polls twice: when it begins, and when its time is nearly over."""


@asynccontextmanager
async def started(example: str, base_url: str, log: Path, **more: str) -> AsyncGenerator[httpx.AsyncClient, None]:
    """Run a service in a process of its own while the block runs."""
    port = free_port()
    command = [sys.executable, "-W", "error", "-c", PATIENT, str(EXAMPLES / example)]

    def is_listening() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as service:
        with process(command, log, env=environment(base_url, PORT=str(port), **more)):
            await until(is_listening)
            yield service


@pytest.mark.anyio
@pytest.mark.parametrize("example", ["fastapi_service.py", "aiohttp_service.py"])
async def test_a_service_starts_tells_is_called_back_and_has_the_result(example: str, tmp_path: Path) -> None:
    """Both services have the same routes. Their logs are JSON and hold no personal data, ids or secrets."""
    sandbox, log = Sandbox(), tmp_path / "log"
    async with sandbox.serve() as base_url, started(example, base_url, log) as service:
        assert (await service.get("/health")).json() == "ok"
        hook = f"{service.base_url}/smile-callback"
        job = sandbox.submit("user-amber", "job-basalt", upload=None, machine=0, callback_url=hook, details=PERSONAL)
        path = f"/jobs/{job.user_id}/{job.job_id}"
        assert (await service.post(path)).status_code == 202

        progress = await service.get(path)
        assert (progress.status_code, progress.json()["verdict"], progress.json()["code"]) == (200, None, "2314")
        asking = asyncio.create_task(service.get(f"{path}/result"))
        await until(lambda: sandbox.polls(job) == 3)

        sandbox.receive(job)
        async with asyncio.timeout(20):  # by polling it would take 25 s
            result = await asking
        assert (result.status_code, result.json()["verdict"], result.json()["is_final"]) == (200, "approved", True)
        assert PERSONAL["FullName"] not in result.text

        assert (await service.get("/jobs/user-amber/other")).status_code == 404
        assert (await service.get("/jobs/%20/other/result")).status_code == 422
        assert (await service.post("/smile-callback", content=b"{}")).status_code == 401
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    outcome = [line["text"] for line in lines if line["logger"] == "service"]
    assert outcome == [f"outcome: <JobStatus {job.tag}: approved, code=2302, smile_job_id=0000000001>"]
    assert not [secret for secret in (*PERSONAL.values(), *job_ids(job), "sandbox-key") if secret in log.read_text()]


def job_ids(job: JobRef) -> tuple[str, str]:
    return job.user_id, job.job_id


@pytest.mark.anyio
async def test_a_wait_goes_on_in_another_run(tmp_path: Path) -> None:
    """The file holds the job and its age; it is deleted after the result."""
    sandbox, file = Sandbox(), tmp_path / "job.json"
    job = sandbox.submit("user-1", "job-1", upload=None, machine=0)

    async def run(*arguments: str) -> str:
        command = [sys.executable, "-W", "error", str(EXAMPLES / "resume.py"), *arguments]
        done = await anyio.run_process(command, env=environment(base_url), stderr=subprocess.STDOUT)
        return done.stdout.decode()

    async with sandbox.serve() as base_url:
        for patience in ("1", "10", "60"):  # a slow machine may need more than a second for the first answer
            printed = await run(patience, str(file), "user-1", "job-1")
            assert f"The wait of {patience} s is over, but the job is not" in printed
            if "there was no answer yet" not in printed:
                break
        assert printed.endswith(f"The last answer: <JobStatus {job.tag}: pending, code=2314, smile_job_id=None>\n")
        assert file.exists()
        sandbox.receive(job)
        assert await run("60", str(file)) == "approved\n"
    assert not file.exists()


# Several processes


def postgres_programs() -> dict[str, str]:
    """Return the folder with the programs of a Postgres server, if there is one."""
    folders = [str(folder) for folder in sorted(Path("/usr/lib/postgresql").glob("*/bin"))]
    path = os.pathsep.join([*os.environ.get("PATH", "").split(os.pathsep), *folders])
    found = {name: shutil.which(name, path=path) for name in ("initdb", "postgres")}
    return {name: program for name, program in found.items() if program is not None}


@contextmanager
def postgres() -> Iterator[str]:
    """Run a Postgres server while the block runs; yield its connection string."""
    programs = postgres_programs()
    user = "nobody" if os.geteuid() == 0 else None  # Postgres refuses to run as root
    with tempfile.TemporaryDirectory() as folder:
        if user is not None:
            shutil.chown(folder, user)
        data = f"{folder}/data"
        make = [programs["initdb"], "-D", data, "-A", "trust", "-U", "postgres", "--no-sync", "--no-locale"]
        subprocess.run(make, check=True, capture_output=True, cwd=folder, user=user)
        serve = [programs["postgres"], "-D", data, "-k", folder, "-c", "listen_addresses=", "-c", "fsync=off"]
        with process(serve, cwd=folder, user=user):
            yield f"host={folder} user=postgres dbname=postgres"


def is_up(database: str) -> bool:
    with contextlib.suppress(psycopg.OperationalError), psycopg.connect(database):
        return True
    return False


def listeners(database: str) -> int:
    """Return the number of processes that listen."""
    with psycopg.connect(database) as connection:
        found = connection.execute("SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'").fetchone()
    assert found is not None
    return int(found[0])


@pytest.mark.anyio
@pytest.mark.skipif(len(postgres_programs()) < 2, reason="no Postgres server is installed (initdb, postgres)")
async def test_a_callback_to_one_process_wakes_a_wait_in_another(tmp_path: Path) -> None:
    """Through Postgres; without it, both would poll only after minutes."""
    sandbox = Sandbox()
    with postgres() as database:
        await until(lambda: is_up(database))
        async with (
            sandbox.serve() as base_url,
            started("fanout_postgres.py", base_url, tmp_path / "1", DATABASE_URL=database) as first,
            started("fanout_postgres.py", base_url, tmp_path / "2", DATABASE_URL=database) as second,
        ):
            await until(lambda: listeners(database) == 2)
            hook = f"{first.base_url}/smile-callback"
            job = sandbox.submit("user-1", "job-1", upload=None, machine=0, callback_url=hook)
            asking = [asyncio.create_task(service.get("/jobs/user-1/job-1/result")) for service in (first, second)]
            await until(lambda: sandbox.polls(job) == 2)
            sandbox.receive(job)
            async with asyncio.timeout(60):  # by polling it would take 300 s
                answers = await asyncio.gather(*asking)
            assert [answer.json()["verdict"] for answer in answers] == ["approved", "approved"]
    assert (tmp_path / "1").read_text() == (tmp_path / "2").read_text() == ""


# The whole service


def load(example: str) -> ModuleType:
    """Import an example as a module."""
    spec = importlib.util.spec_from_file_location(example, EXAMPLES / f"{example}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def open_sockets() -> int:
    """Return the number of open sockets of this process."""
    count = 0
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            count += entry.readlink().name.startswith("socket:")
    return count


@define
class Crowd:
    """Many clients of a service, each of which asks for a result until it is there.

    Attributes:
        root: The service.
    """

    http: httpx.AsyncClient
    root: str
    asking: dict[JobRef, asyncio.Task[dict[str, Any]]] = field(factory=dict)

    def ask(self, jobs: list[JobRef]) -> None:
        self.asking |= {job: asyncio.create_task(self._result(job)) for job in jobs}

    async def answered(self, jobs: list[JobRef]) -> None:
        """Wait until these requests have their results, and check them."""
        for job in jobs:
            result = await self.asking[job]
            assert (result["job_id"], result["verdict"]) == (job.job_id, "approved")

    async def _result(self, job: JobRef) -> dict[str, Any]:
        while True:
            try:
                answer = await self.http.get(f"{self.root}/jobs/{job.user_id}/{job.job_id}/result")
            except httpx.ConnectError:  # the service is away; no other error is expected of it
                await asyncio.sleep(0.1)
                continue
            assert answer.status_code in (200, 202), answer.text
            if answer.status_code == 200:
                found: dict[str, Any] = answer.json()
                return found


@pytest.mark.anyio
@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="sockets are counted by way of /proc")
async def test_two_hundred_requests_a_shutdown_and_a_restart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of the clients disconnect, and their waits end. The others are answered, some after a restart."""
    tasks, sockets = asyncio.all_tasks(), open_sockets()
    service = load("fastapi_service")
    monkeypatch.setattr(service, "PATIENCE", 600.0)
    sandbox, port = Sandbox(), free_port()
    root = f"http://127.0.0.1:{port}"
    hook = f"{root}/smile-callback"
    jobs = [sandbox.submit("user", f"job-{n}", upload=None, machine=0, callback_url=hook) for n in range(225)]
    leaving, early, late, last = jobs[:100], jobs[100:150], jobs[150:200], jobs[200:]

    def end(some: list[JobRef]) -> None:
        for job in some:
            sandbox.receive(job)

    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    async with sandbox.serve() as base_url, httpx.AsyncClient(limits=limits, timeout=None) as http:
        monkeypatch.setattr(os, "environ", environment(base_url))
        crowd = Crowd(http, root)
        async with by_uvicorn(service.create_app(), port) as serving:
            crowd.ask([*leaving, *early, *late])
            await until(lambda: all(map(sandbox.polls, crowd.asking)) and serving.under_way() == 200)
            for job in leaving:
                crowd.asking[job].cancel()
            await until(lambda: serving.under_way() == 100)
            polls = [sandbox.polls(job) for job in leaving]

            end(early)
            await crowd.answered(early)
            # A shorter time limit for these, so that the shutdown, which waits for them, ends sooner.
            monkeypatch.setattr(service, "PATIENCE", 4.0)
            crowd.ask(last)
            await until(lambda: all(map(sandbox.polls, last)))
            asyncio.get_running_loop().call_later(0.3, end, late)
        # The server no longer accepted callbacks. Open requests were answered, with or without a result.
        assert serving.under_way() == 0
        assert not any(crowd.asking[job].done() for job in last)

        async with by_uvicorn(service.create_app(), port) as serving:
            await until(lambda: serving.under_way() >= len(last))
            end(last)
            await crowd.answered([*late, *last])
        assert all(crowd.asking[job].cancelled() for job in leaving)
        assert [sandbox.polls(job) for job in leaving] == polls
    # The garbage collector may have removed objects of earlier tests by now.
    await until(lambda: asyncio.all_tasks() == tasks and open_sockets() <= sockets)


# Any request


@contextmanager
def callback_route(framework: str, **options: Any) -> Iterator[int]:
    """Run a callback route behind a real server, in a thread of its own, without waits."""
    verifier = CallbackVerifier(bodies.CREDENTIALS, max_bytes=MAX_BYTES, now=lambda: bodies.NOW)

    def client() -> Client:
        return Client(partner_id="085", api_key="key", base_url="http://localhost:1/v1")

    with anyio.from_thread.start_blocking_portal() as portal:
        if framework == "fastapi":
            app = FastAPI(lifespan=for_fastapi.lifespan(client))
            app.include_router(for_fastapi.callback_router(verifier, **options))
            with portal.wrap_async_context_manager(by_uvicorn(app)) as serving:
                yield port_of(serving.root)
        else:
            application = web.Application()
            application.cleanup_ctx.append(for_aiohttp.cleanup_ctx(client))
            handler = for_aiohttp.callback_handler(verifier, **options)
            application.router.add_post("/smile-callback", handler)
            with portal.wrap_async_context_manager(by_aiohttp(application)) as root:
                yield port_of(root)


@pytest.fixture(scope="module", params=["fastapi", "aiohttp"])
def callback_port(request: pytest.FixtureRequest) -> Iterator[int]:
    """Return the port of a callback route."""
    with callback_route(request.param) as port:
        yield port


@pytest.fixture(params=["fastapi", "aiohttp"])
def slow_port(request: pytest.FixtureRequest) -> Iterator[int]:
    """Return the port of a callback route with a short time limit for a body."""
    with callback_route(request.param, body_timeout=0.1) as port:
        yield port


def port_of(root: str) -> int:
    port = urlsplit(root).port
    assert port is not None
    return port


FLAT = json.loads(callback(bodies.NOW, credentials=bodies.CREDENTIALS))


@unhurried
@given(
    body=st.binary(max_size=2 * MAX_BYTES)
    | json_values.map(lambda value: json.dumps(value).encode())
    | answers({"flat": FLAT, **bodies.SAMPLES}),
    cuts=st.none() | st.lists(st.integers(0, 500), max_size=8),
)
def test_any_posted_bytes_are_accepted_or_refused(callback_port: int, body: bytes, cuts: list[int] | None) -> None:
    """Any bytes, any JSON, anything in the place of anything, with a length or in chunks: 2xx or 4xx, and no body.

    The connection is closed on a body that is too large, so a client that is still sending it may not see the answer.
    """
    connection = HTTPConnection("127.0.0.1", callback_port, timeout=60)
    cut_off = contextlib.suppress(ConnectionError) if len(body) > MAX_BYTES else contextlib.nullcontext()
    with contextlib.closing(connection), cut_off:
        if cuts is None:
            connection.request("POST", "/smile-callback", body)
        else:
            chunked = {"Transfer-Encoding": "chunked"}
            connection.request("POST", "/smile-callback", iter(pieces(body, cuts)), chunked, encode_chunked=True)
        answer = connection.getresponse()
        assert answer.status in (200, 400, 401, 413)
        assert answer.read() == b""


def test_a_slow_body_does_not_hold_its_connection(slow_port: int) -> None:
    """On both servers it ends with 408, and the connection is closed."""
    connections = [socket.create_connection(("127.0.0.1", slow_port), timeout=60) for _ in range(20)]
    for connection in connections:
        connection.sendall(b"POST /smile-callback HTTP/1.1\r\nHost: x\r\nContent-Length: 500\r\n\r\n{")
    for connection in connections:
        with connection:
            answer = connection.recv(65_536)
            assert answer.startswith(b"HTTP/1.1 408 ")
            assert b"\r\nconnection: close\r\n" in answer.lower()
