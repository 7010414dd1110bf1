"""How a service on FastAPI is tested against the sandbox, without a socket; see docs/testing.md."""

from collections.abc import AsyncGenerator

import httpx
import pytest
from fastapi import FastAPI

import smilejobs
from smilejobs.integrations.fastapi import SmileClient, client_of, lifespan
from smilejobs.sandbox import Sandbox
from smilejobs.testing import virtual_clock

pytest_plugins = ["smilejobs.testing.fixtures"]

app = FastAPI(lifespan=lifespan())


@app.get("/customers/{user_id}/{job_id}")
async def customer(user_id: str, job_id: str, client: SmileClient) -> str:
    """The code under test."""
    try:
        status = await client.wait(user_id, job_id, timeout=25)
    except smilejobs.WaitTimeoutError:
        return "ask again"
    return "welcome" if status.verdict is smilejobs.Verdict.APPROVED else "sorry"


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, object]]:
    return virtual_clock("asyncio")


@pytest.fixture
async def browser(smile_client: smilejobs.Client) -> AsyncGenerator[httpx.AsyncClient, None]:
    app.dependency_overrides[client_of] = lambda: smile_client
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://service") as client:
        yield client
    app.dependency_overrides.clear()


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("machine", "outcome", "told"),
    [(3, "approved", "welcome"), (3, "rejected", "sorry"), (60, "approved", "ask again")],
)
async def test_a_customer_is_told(
    smile_sandbox: Sandbox, browser: httpx.AsyncClient, machine: float, outcome: str, told: str
) -> None:
    smile_sandbox.submit("user-1", "job-1", machine=machine, outcome=outcome)
    assert (await browser.get("/customers/user-1/job-1")).json() == told
