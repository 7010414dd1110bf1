"""How a team tests its own code over real HTTP, against a sandbox in a thread of its own; see docs/testing.md."""

from collections.abc import Iterator

import anyio.from_thread
import pytest

import smilejobs
from smilejobs.sandbox import Sandbox


@pytest.fixture
def sandbox_url() -> Iterator[str]:
    serving = Sandbox().serve()
    with anyio.from_thread.start_blocking_portal() as portal, portal.wrap_async_context_manager(serving) as base_url:
        yield base_url


@pytest.mark.anyio
async def test_an_unknown_job_is_not_found(sandbox_url: str) -> None:
    async with smilejobs.Client(partner_id="085", api_key="sandbox-key", base_url=sandbox_url) as client:
        with pytest.raises(smilejobs.JobNotFoundError):
            await client.job_status("user-1", "job-1")
