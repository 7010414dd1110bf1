"""Links that live for 2 s, while 500 pictures wait for them."""

import os
from pathlib import Path

import anyio
import pytest

from smilejobs import Client
from smilejobs.sandbox import Sandbox

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def test_every_picture_is_saved_while_links_die(tmp_path: Path) -> None:
    """Many jobs, few connections, and a consumer who takes his time: one more poll for a job at most."""
    sandbox = Sandbox(link_lifetime=2, picture_bytes=200_000)
    refs = [sandbox.submit("user", f"job-{index}", machine=0) for index in range(500)]
    async with (
        sandbox.serve() as base_url,
        Client(partner_id="085", api_key="sandbox-key", base_url=base_url, max_connections=20) as client,
        client.save_images_many(refs, tmp_path) as outcomes,
    ):
        async for outcome in outcomes:
            assert outcome.error is None
            await anyio.sleep(0.02)
    polls = [sandbox.polls(ref) for ref in refs]
    assert sum(1 for _ in os.scandir(tmp_path)) == 500
    assert max(polls) <= 2
    assert sum(polls) <= 550
