"""The recipes that need nothing beyond the library; `tests/heavy/test_recipes.py` has those with a framework."""

import importlib
import json
import logging
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType

import anyio
import anyio.from_thread
import pytest

from smilejobs import NotApprovedError, Verdict
from smilejobs.errors import CredentialsError
from smilejobs.sandbox import Sandbox
from smilejobs.testing import Script, complete, pending, refused

FOLDER = Path(__file__).parent.parent.parent / "examples" / "recipes"


@pytest.fixture
def recipe(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], ModuleType]]:
    """Import a recipe by its name, for one test."""
    monkeypatch.syspath_prepend(FOLDER)
    yield importlib.import_module
    for path in FOLDER.glob("*.py"):
        sys.modules.pop(path.stem, None)


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    """Return a sandbox that serves over HTTP in a thread, and is named by the environment variables."""
    sandbox = Sandbox()
    with (
        anyio.from_thread.start_blocking_portal() as portal,
        portal.wrap_async_context_manager(sandbox.serve()) as base_url,
    ):
        monkeypatch.setenv("SMILE_PARTNER_ID", "085")
        monkeypatch.setenv("SMILE_API_KEY", "sandbox-key")
        monkeypatch.setenv("SMILE_BASE_URL", base_url)
        monkeypatch.delenv("SMILE_ENVIRONMENT", raising=False)
        yield sandbox


def test_code_that_is_not_async_waits(recipe: Callable[[str], ModuleType], served: Sandbox) -> None:
    """Every call uses the one client of the process; after closing, the next call opens another."""
    sync_client = recipe("sync_client")
    served.submit("user-1", "job-1", machine=0.0)
    client = sync_client.sync_client()
    assert client is sync_client.sync_client()
    assert client.wait("user-1", "job-1", timeout=60).verdict is Verdict.APPROVED
    sync_client.close_sync_client()
    assert sync_client.sync_client() is not client
    sync_client.close_sync_client()


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_task_group_waits_for_all(recipe: Callable[[str], ModuleType]) -> None:
    """All jobs approved, or not all."""
    verify_all = recipe("task_group").verify_all
    for code, approved in (("0810", True), ("0811", False)):
        script = Script({"job-1": [pending(), complete("0810")], "job-2": [complete(code)]})
        async with script.client() as client:
            assert await verify_all(client, "user-1", ["job-1", "job-2"]) is approved


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_the_pictures_of_an_answer_are_saved(
    served: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The links of the answer that ended the wait are used."""
    monkeypatch.syspath_prepend(FOLDER.parent)
    served.submit("user-1", "job-1", machine=0.0)
    await importlib.import_module("images").save_when_complete("user-1", "job-1", tmp_path)
    files = [path async for path in anyio.Path(tmp_path).iterdir()]
    assert capsys.readouterr().out == f"approved {len(files)}\n"
    assert files


@pytest.mark.anyio
async def test_a_new_key_continues_the_wait(recipe: Callable[[str], ModuleType]) -> None:
    """The refused key costs a pause; the wait goes on with a client that has the new key."""
    script = Script({"job-1": [pending(), refused("2405"), complete("0810")]})
    wait = recipe("rotating_key").wait_across_rotation
    status = await wait(script.client, "user-1", "job-1", datetime.now(UTC))
    assert status.verdict is Verdict.APPROVED


@pytest.mark.anyio
async def test_a_key_that_stays_wrong_is_an_error(recipe: Callable[[str], ModuleType]) -> None:
    """After the last pause the error of the API is raised."""
    script = Script({"job-1": [refused("2405")] * 20})
    with pytest.raises(CredentialsError):
        await recipe("rotating_key").wait_across_rotation(script.client, "user-1", "job-1", datetime.now(UTC))


@pytest.mark.anyio
async def test_the_log_is_json(recipe: Callable[[str], ModuleType]) -> None:
    """Each line is one object with the fields of its event, and without ids."""
    lines: list[str] = []
    handler = logging.Handler()
    handler.setFormatter(recipe("json_logs").JSONFormatter())
    handler.emit = lambda record: lines.append(handler.format(record))  # type: ignore[method-assign]  # a stand-in
    logger = logging.getLogger("smilejobs")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        async with Script({"job-1": [complete("0811")]}).client() as client:
            status = await client.wait("user-1", "job-1")
        try:
            status.raise_for_verdict()
        except NotApprovedError:
            logger.exception("not approved")
    finally:
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)
    ended, failed = map(json.loads, lines)
    assert (ended["event_name"], ended["verdict"], ended["polls"]) == ("WaitEnded", "rejected", 1)
    assert "NotApprovedError" in failed["traceback"]
    assert "user-1" not in "".join(lines)


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_client_of_ones_own_has_its_own_authorities(
    recipe: Callable[[str], ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server whose certificate only this client trusts is polled, without a proxy."""
    sandbox = Sandbox()
    sandbox.submit("user-1", "job-1", machine=0.0, upload=0.0)
    authority = tmp_path / "ca.pem"
    async with sandbox.serve(tls=True) as base_url:
        authority.write_bytes(sandbox.ca_pem)
        monkeypatch.setenv("SMILE_PARTNER_ID", "085")
        monkeypatch.setenv("SMILE_API_KEY", "sandbox-key")
        monkeypatch.setenv("SMILE_BASE_URL", base_url)
        monkeypatch.delenv("SMILE_ENVIRONMENT", raising=False)
        status = await recipe("own_http_client").job_status(str(authority), None, "user-1", "job-1")
    assert status.code == "2302"
