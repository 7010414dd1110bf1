"""How a team tests its own code that waits for jobs; see docs/testing.md."""

import itertools

import pytest

import smilejobs
from smilejobs.testing import Script, complete, html, no_zip, not_found, pending, virtual_clock


async def may_open_account(client: smilejobs.Client, user_id: str, job_id: str) -> bool:
    """The code under test."""
    try:
        status = await client.wait(user_id, job_id, timeout=600)
    except smilejobs.WaitTimeoutError:
        return False
    return status.verdict is smilejobs.Verdict.APPROVED


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, object]]:
    return virtual_clock(request.param)


@pytest.mark.anyio
async def test_an_approved_customer_gets_an_account() -> None:
    script = Script({"job-1": [not_found(), no_zip(), html(502), *[pending()] * 10, complete("0810")]})
    async with script.client() as client:
        assert await may_open_account(client, "user-1", "job-1")


@pytest.mark.anyio
async def test_a_rejected_customer_gets_none() -> None:
    async with Script({"job-1": [complete("0811")]}).client() as client:
        assert not await may_open_account(client, "user-1", "job-1")


@pytest.mark.anyio
async def test_ten_minutes_of_silence_are_no_approval() -> None:
    async with Script({"job-1": itertools.repeat(pending())}).client() as client:
        assert not await may_open_account(client, "user-1", "job-1")
