"""The vendor's own JavaScript client against the sandbox, which it must not tell from the real one.

Run by ``nox -s peers``. The client insists on https, so the sandbox makes its own certificate.
"""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from subprocess import CalledProcessError
from typing import Any

import anyio
import pytest

from smilejobs.sandbox import Sandbox
from tests.heavy.peers import JOBS, check_answer, check_submitted, pictures

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(not (shutil.which("node") and shutil.which("npm")), reason="node and npm are not installed"),
]

PACKAGE = "smile-identity-core@3.2.1"
SCRIPT = Path(__file__).with_name("peer.js")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def node(folder: Path, asked: Mapping[str, object], authority: Path) -> list[dict[str, Any]]:
    """Run the script in *folder*, where the client is installed, and return what it prints."""
    command = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(folder), PACKAGE]
    await anyio.run_process(command, cwd=folder)
    environment = {
        **os.environ,
        "NODE_PATH": str(folder / "node_modules"),
        "NODE_EXTRA_CA_CERTS": str(authority),
    }
    try:
        ran = await anyio.run_process(["node", str(SCRIPT)], input=json.dumps(asked).encode(), env=environment)
    except CalledProcessError as error:
        pytest.fail(error.stderr.decode())
    answers: list[dict[str, Any]] = json.loads(ran.stdout)
    return answers


async def test_the_javascript_client_submits_and_polls(tmp_path: Path) -> None:
    """Every product that has images: submitted with them, polled by both of its pollers, each with its outcome."""
    sandbox = Sandbox()
    files = pictures(tmp_path / "images")
    authority = tmp_path / "authority.pem"
    jobs = [
        (
            {**job.partner_params, "job_type": str(job.job_type)},
            [{"image_type_id": kind, "image": str(files[kind])} for kind in job.kinds],
            job.id_info,
            {"return_job_status": True, "return_images": True, "return_history": True},
        )
        for job in JOBS
    ]
    with anyio.fail_after(300):
        async with sandbox.serve(tls=True) as base_url:
            authority.write_bytes(sandbox.ca_pem)
            asked = {
                "url": base_url.replace("127.0.0.1", "localhost"),
                "partner_id": "085",
                "api_key": "sandbox-key",
                "callback_url": "",
                "jobs": jobs,
            }
            answers = await node(tmp_path, asked, authority)
    assert len(answers) == len(JOBS)
    for job, answer in zip(JOBS, answers, strict=True):
        check_answer(job, answer["submitted"], with_links=True)
        check_answer(job, answer["polled"], with_links=False)
        check_submitted(sandbox, job)
