"""How a team tests its own code against a whole Smile ID, in the process of the test; see docs/testing.md."""

from collections.abc import Sequence

import anyio
import httpx
import pytest

import smilejobs
from smilejobs.sandbox import FaultProfile, Sandbox
from smilejobs.testing import virtual_clock, virtual_now

pytest_plugins = ["smilejobs.testing.fixtures"]


async def onboard(client: smilejobs.Client, user_id: str, job_id: str) -> Sequence[str]:
    """The code under test: what the customer is told, step by step."""
    told = []
    async for status in client.watch(user_id, job_id, until="final", timeout=86_400):
        if status.verdict is smilejobs.Verdict.PROVISIONAL:
            told.append("a person has a look")
        elif status.is_final:
            told.append("welcome" if status.verdict is smilejobs.Verdict.APPROVED else "sorry")
    return told


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, object]]:
    return virtual_clock("asyncio")


@pytest.mark.anyio
async def test_a_human_review_of_an_hour(smile_sandbox: Sandbox, smile_client: smilejobs.Client) -> None:
    smile_sandbox.submit("user-1", "job-1", machine=5, review=3600, outcome="rejected")
    assert await onboard(smile_client, "user-1", "job-1") == ["a person has a look", "sorry"]


@pytest.mark.anyio
@pytest.mark.parametrize("smile_faults", ["flaky", FaultProfile(rate=2, cuts=0.3)])
async def test_a_failed_poll_is_not_the_customers_fault(smile_sandbox: Sandbox, smile_client: smilejobs.Client) -> None:
    smile_sandbox.submit("user-1", "job-1")
    assert await onboard(smile_client, "user-1", "job-1") == ["welcome"]


@pytest.mark.anyio
async def test_a_person_decides_during_the_test(smile_sandbox: Sandbox, smile_client: smilejobs.Client) -> None:
    ref = smile_sandbox.submit("user-1", "job-1", review="open")
    async with anyio.create_task_group() as tasks:

        async def decide() -> None:
            await anyio.sleep(600)
            smile_sandbox.review(ref, "approved")

        tasks.start_soon(decide)
        assert await onboard(smile_client, "user-1", "job-1") == ["a person has a look", "welcome"]


@pytest.mark.anyio
async def test_links_expire() -> None:
    async with (
        Sandbox(link_lifetime=900, now=virtual_now) as sandbox,
        sandbox.client() as client,
        httpx.AsyncClient(transport=httpx.ASGITransport(app=sandbox.app)) as browser,
    ):
        sandbox.submit("user-1", "job-1", machine=0)
        status = await client.job_status("user-1", "job-1", image_links=True)
        assert status.image_links is not None
        selfie = status.image_links["selfie_image"]
        assert (await browser.get(selfie.url)).status_code == 200
        await anyio.sleep(900)
        assert (await browser.get(selfie.url)).status_code == 403
