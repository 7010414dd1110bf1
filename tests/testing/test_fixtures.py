"""The pytest fixtures: what they provide, and with which plugins they work."""

import subprocess
import sys

import anyio
import pytest

import smilejobs
from smilejobs.sandbox import FaultProfile, Sandbox
from smilejobs.testing import EPOCH

pytest_plugins = ["smilejobs.testing.fixtures"]
pytestmark = pytest.mark.anyio


async def test_a_client_asks_the_sandbox_of_its_test(smile_sandbox: Sandbox, smile_client: smilejobs.Client) -> None:
    """Under the same virtual clock: an hour of review takes no time."""
    smile_sandbox.submit("user-1", "job-1", machine=1, review=3600)
    status = await smile_client.wait("user-1", "job-1", until="final", timeout=7200)
    assert status.verdict is smilejobs.Verdict.APPROVED
    assert anyio.current_time() >= 3601
    assert status.timestamp is not None
    assert (status.timestamp - EPOCH).total_seconds() >= 3601


async def test_each_test_has_a_sandbox_of_its_own(smile_sandbox: Sandbox) -> None:
    """No job of the test before is left."""
    assert not smile_sandbox.jobs


@pytest.mark.parametrize("smile_faults", [FaultProfile(too_many=1)])
async def test_the_faults_can_be_chosen(smile_sandbox: Sandbox, smile_client: smilejobs.Client) -> None:
    """By a parameter, or a fixture of one's own."""
    smile_sandbox.submit("user-1", "job-1", machine=0)
    with pytest.raises(smilejobs.RateLimitedError):
        await smile_client.job_status("user-1", "job-1")


def test_the_package_itself_needs_neither_pytest_nor_the_sandbox() -> None:
    """They are imported only with the fixtures."""
    code = "import sys; sys.modules['pytest'] = sys.modules['starlette'] = None; import smilejobs.testing"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
