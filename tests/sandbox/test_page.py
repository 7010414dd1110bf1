"""The page of the sandbox, the JSON, the buttons that end a review, and the requests that may use them."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smilejobs import JobRef, Verdict
from smilejobs.sandbox import Sandbox, Stage
from smilejobs.sandbox.asgi import InProcess
from smilejobs.testing import EPOCH, virtual_now

pytestmark = pytest.mark.anyio

ROOT = "http://localhost"


@pytest.fixture
def sandbox() -> Sandbox:
    return Sandbox(now=virtual_now)


async def get(sandbox: Sandbox, path: str = "/", **headers: str) -> httpx.Response:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=sandbox.app)) as http_client:
        return await http_client.get(ROOT + path, headers=headers)


FORM = b"smile_job_id=0000000001&outcome=rejected"


async def end(sandbox: Sandbox, content: bytes = FORM, headers: Mapping[str, str] | None = None) -> int:
    """Press the button, and return the HTTP status."""
    async with InProcess(sandbox.app).stream(
        "POST",
        f"{ROOT}/sandbox/review",
        content=content,
        headers={"content-type": "application/x-www-form-urlencoded", **(headers or {})},
        auth=None,
        follow_redirects=False,
        timeout=None,
    ) as answer:
        assert answer.headers.get("location") == ("/" if answer.status_code == 303 else None)
        return answer.status_code


async def test_the_page_lists_the_jobs(sandbox: Sandbox) -> None:
    """The latest first, each with its state, and a button only where a person has something to end."""
    assert "No jobs yet." in (await get(sandbox)).text
    sandbox.submit("user-1", "final", machine=0)
    sandbox.submit("user-1", "rejected", machine=0, outcome="rejected", job_type=6)
    sandbox.submit("user-1", "review", machine=0, review="open")
    sandbox.submit("user-1", "running", machine=60)
    sandbox.submit("user-1", "no-zip", upload=None)
    sandbox.submit("user-1", "disabled", refusal="2307")
    async with sandbox.client() as client:
        await client.job_status("user-1", "final")
    page = (await get(sandbox)).text
    rows = [re.sub("<[^>]+>", "|", row) for row in re.findall("<tr>.*?</tr>", page)[1:]]
    assert len(rows) == 6
    for row, name, state in zip(
        reversed(rows),
        ["final", "rejected", "review", "running", "no-zip", "disabled"],
        ["1210 Enroll User", "0811 Unable to Verify", "under review", "running", "no zip", "refused with 2307"],
        strict=True,
    ):
        assert f"|{name}|" in row
        assert f"|{state}" in row
        assert ("Approve" in row) is (name == "review")
    assert "|1|" in rows[-1]
    assert page.count("<form") == 1


async def test_the_page_lists_all_jobs(sandbox: Sandbox) -> None:
    """However many there are; and so does the JSON."""
    for number in range(201):
        sandbox.submit("user-1", f"job-{number}")
    page = (await get(sandbox)).text
    assert "201 jobs. As JSON:" in page
    assert page.count("<tr>") == 202
    assert ">job-0<" in page
    assert len((await get(sandbox, "/sandbox/jobs")).json()) == 201


async def test_the_jobs_as_json(sandbox: Sandbox) -> None:
    """Ids, product, stage and times."""
    sandbox.submit("user-1", "job-1", machine=10, review="open", job_type=6)
    await anyio.sleep(10)
    (job,) = (await get(sandbox, "/sandbox/jobs")).json()
    assert job == {
        "smile_job_id": "0000000001",
        "user_id": "user-1",
        "job_id": "job-1",
        "job_type": 6,
        "stage": "under review",
        "result_code": "0810",
        "refusal": None,
        "polls": 0,
        "submitted_at": "2026-01-01T00:00:00+00:00",
        "uploaded_at": "2026-01-01T00:00:00+00:00",
        "complete_at": "2026-01-01T00:00:10+00:00",
        "final_at": None,
    }


@pytest.mark.parametrize(("outcome", "verdict"), [("approved", Verdict.APPROVED), ("rejected", Verdict.REJECTED)])
async def test_the_button_ends_a_review(sandbox: Sandbox, outcome: str, verdict: Verdict) -> None:
    """A wait for the final outcome gets the one that was chosen; a second press is refused."""
    sandbox.submit("user-1", "job-1", machine=1, review=3600)
    async with sandbox.client() as client, anyio.create_task_group() as tasks:

        async def press() -> None:
            await anyio.sleep(100)
            form = f"smile_job_id=0000000001&outcome={outcome}".encode()
            assert await end(sandbox, form) == 303
            assert await end(sandbox, form) == 409

        tasks.start_soon(press)
        status = await client.wait("user-1", "job-1", until="final", timeout=300)
    assert status.verdict is verdict


@pytest.mark.parametrize(
    ("content", "http_status"),
    [
        (b"", 400),
        (b"smile_job_id=0000000009&outcome=approved", 400),
        (b"smile_job_id=0000000001", 400),
        (b"smile_job_id=0000000001&outcome=0814", 400),
        (b"smile_job_id=0000000001&outcome=approved&outcome=rejected", 400),
        (b"smile_job_id=0000000002&outcome=approved", 409),
        (b"smile_job_id=0000000001&smile_job_id=nothing", 400),
        (b"outcome=approved&outcome=rejected", 400),
        (b"\xff", 400),
        (b"a&" * 3000, 413),
        (b"&".join([b"a=1"] * 9), 400),
    ],
)
async def test_a_form_that_is_wrong_ends_nothing(sandbox: Sandbox, content: bytes, http_status: int) -> None:
    """It is refused in words, and the review goes on."""
    ref = sandbox.submit("user-1", "job-1", machine=0, review="open")
    sandbox.submit("user-1", "job-2", machine=60, review="open")
    assert await end(sandbox, content) == http_status
    assert sandbox.jobs[ref].stage(virtual_now()) is Stage.UNDER_REVIEW


@pytest.mark.parametrize(
    ("headers", "http_status"),
    [
        ({}, 303),
        ({"origin": "http://localhost"}, 303),
        ({"origin": "http://localhost", "sec-fetch-site": "same-origin"}, 303),
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://localhost:8080"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site", "origin": "http://localhost"}, 403),
        ({"host": "evil.example"}, 403),
        ({"host": "evil.example", "origin": "http://evil.example", "sec-fetch-site": "same-origin"}, 403),
    ],
)
async def test_only_its_own_page_ends_a_review(sandbox: Sandbox, headers: dict[str, str], http_status: int) -> None:
    """No page from elsewhere does, nor one whose name points at this machine."""
    sandbox.submit("user-1", "job-1", machine=0, review="open")
    assert await end(sandbox, headers=headers) == http_status


@pytest.mark.parametrize(
    ("host", "http_status"),
    [
        ("localhost:8787", 200),
        ("127.0.0.1:8787", 200),
        ("127.9.9.9", 200),
        ("[::1]:8787", 200),
        ("LOCALHOST", 200),
        ("evil.example", 403),
        ("localhost.evil.example", 403),
        ("[::1].evil.example", 403),
        ("evil@localhost", 403),
        ("192.168.0.7", 403),
        ("", 403),
        ("[", 403),
        ("user@evil.example", 403),
    ],
)
@pytest.mark.parametrize("path", ["/", "/sandbox/jobs"])
async def test_only_names_of_this_machine_are_answered(
    sandbox: Sandbox, path: str, host: str, http_status: int
) -> None:
    """A page that has made its own name point to this machine could read the ids else."""
    sandbox.submit("user-amber", "job-basalt")
    answer = await get(sandbox, path, host=host)
    assert answer.status_code == http_status
    assert ("basalt" in answer.text) is (http_status == 200)


async def test_pages_may_do_nothing(sandbox: Sandbox) -> None:
    """No scripts, no frames, nothing from elsewhere, nothing kept; the button still sends where it comes from."""
    answer = await get(sandbox)
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["referrer-policy"] == "same-origin"
    assert "<script" not in answer.text


@given(user_id=st.text(min_size=1).filter(str.strip), job_id=st.text("<>&\"'ab", min_size=1))
def test_names_are_escaped(user_id: str, job_id: str) -> None:
    """Any ids are shown as text."""
    sandbox = Sandbox(now=lambda: EPOCH)
    try:
        sandbox.submit(user_id, job_id)
    except ValueError:
        return
    page = anyio.run(get, sandbox).text
    cells: list[Any] = re.findall(r'<td data-label="(?:Job|User)">([^<>]*)</td>', page)
    assert len(cells) == 2
    assert '"' not in "".join(cells)


async def test_a_path_that_there_is_not_is_the_gateways(sandbox: Sandbox) -> None:
    """As that before the real API says it; and so our client says that its URL is wrong."""
    answer = await get(sandbox, "/v1/nothing")
    assert (answer.status_code, answer.json()) == (403, {"message": "Missing Authentication Token"})


async def test_polls_of_a_job_that_there_is_not(sandbox: Sandbox) -> None:
    """They are counted, and are no job on the page."""
    async with sandbox.client() as client:
        with pytest.raises(Exception, match="2304"):
            await client.job_status("user-1", "job-1")
    assert sandbox.polls(JobRef("user-1", "job-1")) == 1
    assert (await get(sandbox, "/sandbox/jobs")).json() == []


async def test_a_review_that_cannot_be_kept_goes_on(tmp_path: Path) -> None:
    """The page says so, and the button still works when the state can be written again."""
    state, away = tmp_path / "sandbox.state", tmp_path / "away"
    sandbox = Sandbox(now=virtual_now, state=state)
    ref = sandbox.submit("user-1", "job-1", machine=0, review="open")
    state.rename(away)
    state.mkdir()
    assert await end(sandbox) == 503
    assert sandbox.jobs[ref].stage(EPOCH) is Stage.UNDER_REVIEW
    state.rmdir()
    away.rename(state)
    assert await end(sandbox) == 303
