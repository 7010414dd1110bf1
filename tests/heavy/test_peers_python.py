"""The vendor's own Python client against the sandbox, which it must not tell from the real one.

Run by ``nox -s peers``.
"""

import json
from functools import partial
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import anyio
import pytest
from anyio.to_thread import run_sync
from smile_id_core import ServerError, Signature, Utilities, WebApi

from smilejobs import JobRef
from smilejobs.sandbox import Sandbox
from tests.heavy.peers import JOBS, PeerJob, check_answer, check_submitted, pictures
from tests.helpers.servers import http, serve

# It gives all images that are text the same name in its zip.
pytestmark = [pytest.mark.anyio, pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")]

LOCAL = "http://127.0.0.1:9/callback"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def submit(
    job: PeerJob, base_url: str, folder: Path, *, callback_url: str = "", poll: bool = True, key: str = "sandbox-key"
) -> Any:
    """Submit one job as the vendor's documentation shows it; half of the images as files, half as text."""
    client = WebApi("085", callback_url, key, base_url)
    files = pictures(Path(mkdtemp(dir=folder)) / "images")
    images = [
        {"image_type_id": kind, "file_name": str(files[kind])}
        if index % 2
        else {"image_type_id": {0: 2, 1: 3, 4: 6, 5: 7}[kind], "image": "iVBORw0KGgo="}
        for index, kind in enumerate(job.kinds)
    ]
    options = {"return_job_status": poll, "return_history": True, "return_images": True, "use_enrolled_image": False}
    return client.submit_job(dict(job.partner_params), images, dict(job.id_info), options)


async def test_the_python_client_submits_and_polls(tmp_path: Path) -> None:
    """Every product that has images: submitted with them, and polled until it has its outcome."""
    sandbox = Sandbox()
    answers: dict[JobRef, Any] = {}

    async def one(job: PeerJob, base_url: str) -> None:
        answers[job.ref] = await run_sync(partial(submit, job, base_url, tmp_path))

    with anyio.fail_after(120):
        async with sandbox.serve() as base_url, anyio.create_task_group() as tasks:
            for job in JOBS:
                tasks.start_soon(one, job, base_url)
    for job in JOBS:
        check_answer(job, answers[job.ref], with_links=True)
        check_submitted(sandbox, job)


async def test_the_python_client_polls_by_itself(tmp_path: Path) -> None:
    """Submitted without waiting; asked about later, with and without what may be asked for."""
    sandbox = Sandbox()
    job = JOBS[0]
    utilities = Utilities("085", "sandbox-key", "")
    with anyio.fail_after(60):
        async with sandbox.serve() as base_url:
            utilities.url = base_url
            submitted = await run_sync(partial(submit, job, base_url, tmp_path, poll=False, callback_url=LOCAL))
            assert submitted == {"success": True, "smile_job_id": sandbox.jobs[job.ref].smile_job_id}
            everything = {"return_job_status": True, "return_history": True, "return_images": True}
            ask = partial(utilities.get_job_status, dict(job.partner_params))
            while not (await run_sync(ask, None))["job_complete"]:  # noqa: ASYNC110  # it polls, as clients do
                await anyio.sleep(0.2)
            check_answer(job, await run_sync(ask, None), with_links=False)
            check_answer(job, await run_sync(ask, everything), with_links=True)


async def test_what_is_refused_is_an_error_of_the_clients(tmp_path: Path) -> None:
    """A job that exists, and a key that is not the partner's: the client reads the body, and says what is in it."""
    sandbox = Sandbox()
    with anyio.fail_after(60):
        async with sandbox.serve() as base_url:
            await run_sync(partial(submit, JOBS[0], base_url, tmp_path, poll=False, callback_url=LOCAL))
            with pytest.raises(ServerError) as refused:
                await run_sync(partial(submit, JOBS[0], base_url, tmp_path, poll=False, callback_url=LOCAL))
            assert "'code': '2215'" in refused.value.message
            with pytest.raises(ServerError) as refused:
                await run_sync(partial(submit, JOBS[1], base_url, tmp_path, key="another-key"))
            assert "'code': '2205'" in refused.value.message


async def test_the_vendors_class_confirms_callbacks(tmp_path: Path) -> None:
    """Each callback of a job that the client has submitted is signed, flat, and about that job."""
    bodies: list[dict[str, Any]] = []
    all_here = anyio.Event()

    async def take(stream: Any, body: bytes) -> None:
        bodies.append(json.loads(body))
        if len(bodies) == len(JOBS):
            all_here.set()
        await stream.send(http(b"{}"))

    theirs = Signature("085", "sandbox-key")
    sandbox = Sandbox()
    with anyio.fail_after(120):
        async with serve(take) as receiver, sandbox.serve() as base_url, anyio.create_task_group() as tasks:
            url = f"http://127.0.0.1:{receiver.port}/callback"
            for job in JOBS:
                tasks.start_soon(run_sync, partial(submit, job, base_url, tmp_path, poll=False, callback_url=url))
            await all_here.wait()
    for body in bodies:
        assert theirs.confirm_signature(body["timestamp"], body["signature"])
        assert not body.keys() & {"job_complete", "job_success", "code", "history", "image_links", "result"}
        assert body["ImageLinks"]["selfie_image"].startswith(base_url.removesuffix("v1"))
    codes = {body["PartnerParams"]["job_id"]: body["ResultCode"] for body in bodies}
    assert codes == {job.ref.job_id: job.result_code for job in JOBS}
