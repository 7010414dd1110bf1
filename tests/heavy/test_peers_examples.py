"""The example that submits with the vendor's client, against the sandbox. Run by ``nox -s peers``."""

import os
import subprocess
import sys
from pathlib import Path

import anyio
import pytest

from smilejobs.sandbox import Sandbox
from tests.heavy.peers import SELFIE, pictures

EXAMPLE = Path(__file__).parent.parent.parent / "examples" / "submit_and_wait.py"


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_submitted_there_waited_for_here(tmp_path: Path) -> None:
    """The vendor's client submits the job, and the wait ends with its verdict."""
    selfie = pictures(tmp_path / "images")[SELFIE]
    sandbox = Sandbox()
    async with sandbox.serve() as base_url:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("SMILE_")}
        environment |= {"SMILE_PARTNER_ID": "085", "SMILE_API_KEY": "sandbox-key", "SMILE_BASE_URL": base_url}
        environment["SMILE_CALLBACK_URL"] = "http://127.0.0.1:9/callback"
        command = [sys.executable, str(EXAMPLE), "user-1", "job-1", str(selfie)]
        ran = await anyio.run_process(command, env=environment, check=False, stderr=subprocess.STDOUT)
    assert ran.stdout.decode() == "approved: Enroll User\n"
