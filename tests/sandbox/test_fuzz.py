"""The sandbox answers any request in the vendor's words."""

import asyncio
import json
from collections.abc import Generator, MutableMapping
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smilejobs import STATUS_CODES, Credentials
from smilejobs.sandbox import Sandbox
from smilejobs.testing import EPOCH
from smilejobs.wire.signature import format_timestamp, sign
from tests.helpers.strategies import json_values, unhurried

TIMESTAMP = format_timestamp(EPOCH)
RIGHT = {
    "partner_id": "085",
    "timestamp": TIMESTAMP,
    "signature": sign(Credentials("085", "sandbox-key"), TIMESTAMP),
    "user_id": "user-1",
    "job_id": "job-1",
    "image_links": True,
    "history": True,
}


@pytest.fixture(scope="module")
def runner() -> Generator[asyncio.Runner, None, None]:
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="module")
def sandbox() -> Sandbox:
    sandbox = Sandbox(now=lambda: EPOCH, max_skew=60)
    sandbox.submit("user-1", "job-1", machine=0)
    return sandbox


@pytest.fixture(scope="module")
def http_client(sandbox: Sandbox) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=sandbox.app), base_url="https://sandbox.test")


def check_answer(runner: asyncio.Runner, http_client: httpx.AsyncClient, body: bytes) -> None:
    answer = runner.run(http_client.post("/v1/job_status", content=body))
    assert answer.status_code in (200, 400)
    assert answer.json()["code"] in STATUS_CODES


@unhurried
@given(body=st.binary())
def test_any_bytes(runner: asyncio.Runner, http_client: httpx.AsyncClient, body: bytes) -> None:
    """Bytes that are no request get a code of the vendor's, and never a 500."""
    check_answer(runner, http_client, body)


@unhurried
@given(value=json_values)
def test_any_json(runner: asyncio.Runner, http_client: httpx.AsyncClient, value: object) -> None:
    """So does JSON that is no request."""
    check_answer(runner, http_client, json.dumps(value).encode())


@unhurried
@given(changes=st.dictionaries(st.sampled_from(sorted(RIGHT)), json_values))
def test_any_json_in_a_request(
    runner: asyncio.Runner, http_client: httpx.AsyncClient, changes: dict[str, object]
) -> None:
    """So does a good request in which some values are any JSON at all."""
    check_answer(runner, http_client, json.dumps({**RIGHT, **changes}).encode())


PATHS = [
    "/",
    "/v1/job_status",
    "/v1/upload",
    "/sandbox/jobs",
    "/sandbox/review",
    "/images/0000000001/x.png",
    "/videos/x",
]
HEADERS = ["host", "origin", "sec-fetch-site", "accept-encoding", "content-type", "content-encoding", "content-length"]


@unhurried
@given(
    method=st.sampled_from(["GET", "POST", "PUT", "HEAD", "DELETE", "BREW"]),
    path=st.sampled_from(PATHS) | st.text().map("/".__add__),
    query=st.binary(max_size=50),
    headers=st.dictionaries(st.sampled_from(HEADERS), st.binary(max_size=30)),
    body=st.binary(),
)
def test_any_request_at_all(
    runner: asyncio.Runner,
    sandbox: Sandbox,
    *,
    method: str,
    path: str,
    query: bytes,
    headers: dict[str, bytes],
    body: bytes,
) -> None:
    """Any method, path, query and headers get an answer, none of them a 5xx, and nothing raises."""
    statuses = []

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: MutableMapping[str, Any]) -> None:
        statuses.extend([message["status"]] if "status" in message else [])

    scope = {
        "type": "http",
        "method": method,
        "scheme": "http",
        "path": path,
        "root_path": "",
        "query_string": query,
        "headers": [(name.encode(), value) for name, value in headers.items()],
    }

    async def ask() -> None:
        await sandbox.app(scope, receive, send)

    runner.run(ask())
    (http_status,) = statuses
    assert 200 <= http_status < 500
