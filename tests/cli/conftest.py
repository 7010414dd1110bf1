"""The shell commands of this folder, against the sandbox of the test module."""

from collections.abc import Generator
from pathlib import Path

import pytest

from smilejobs.sandbox import Sandbox
from tests.helpers.commands import Command, make_command, serve_in_thread


@pytest.fixture(scope="module")
def sandbox() -> Sandbox:
    return Sandbox()


@pytest.fixture(scope="module")
def base_url(sandbox: Sandbox) -> Generator[str, None, None]:
    with serve_in_thread(sandbox) as base_url:
        yield base_url


@pytest.fixture
def command(
    base_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Command:
    monkeypatch.chdir(tmp_path)
    return make_command(monkeypatch, capsys, SMILE_BASE_URL=base_url)
