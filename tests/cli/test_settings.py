"""What the commands make of the environment: proxies that cannot be used, and texts that speak of it."""

import sys
from pathlib import Path

import pytest
from anyio.from_thread import start_blocking_portal
from typer.main import get_command

from smilejobs.cli.app import app
from smilejobs.cli.options import CREDENTIALS_HELP
from smilejobs.sandbox import Sandbox
from tests.helpers.commands import CLIENT_COMMANDS, Command, command_alone
from tests.helpers.patience import free_port

__all__ = ["command_alone"]


@pytest.mark.parametrize("arguments", CLIENT_COMMANDS, ids=lambda arguments: arguments[0])
@pytest.mark.parametrize(
    ("proxy", "words"),
    [("foo://proxy.test:1", "the proxy of the environment"), ("socks5://proxy.test:1", "pip install httpx[socks]")],
)
def test_a_proxy_that_cannot_be_used(
    command_alone: Command, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], proxy: str, words: str
) -> None:
    """It is said in one line before anything is asked, with what to do."""
    monkeypatch.setitem(sys.modules, "socksio", None)
    Path("in.csv").write_text("user_id,job_id\n")
    answer = command_alone(*arguments, HTTPS_PROXY=proxy)
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith("smilejobs: ")
    assert answer.err.count("\n") == 1
    assert words in answer.err


def test_the_clock_of_loopback_is_read_without_a_proxy(command_alone: Command) -> None:
    """A proxy's loopback is another one; nobody listens there, and nothing depends on it."""
    with (
        start_blocking_portal("asyncio") as portal,
        portal.wrap_async_context_manager(Sandbox().serve()) as base_url,
        pytest.MonkeyPatch.context() as patch,
    ):
        asked = []

        def skewed(date: str) -> None:
            asked.append(date)
            raise ValueError

        patch.setattr("smilejobs.cli.doctor.parsedate_to_datetime", skewed)
        nobody = f"http://127.0.0.1:{free_port()}"
        answer = command_alone(
            "doctor", SMILE_BASE_URL=base_url, SMILE_ENVIRONMENT="", HTTP_PROXY=nobody, http_proxy=nobody
        )
    assert answer.code == 0
    assert len(asked) == 1


@pytest.mark.parametrize("name", ["status", "wait", "batch", "images"])
def test_the_help_says_who_asks(name: str) -> None:
    """In words that are the same everywhere, and a paragraph is one line until the terminal breaks it."""
    commands = get_command(app).commands  # type: ignore[attr-defined]  # it is a group
    example, rest = commands[name].epilog.split("\n\n")
    assert example.startswith("Example: smilejobs ")
    assert rest.startswith(f"{CREDENTIALS_HELP} Exit codes: 0 ")
    assert "\n" not in rest


def test_the_pictures_of_a_job_take_the_same_names(command_alone: Command) -> None:
    """USER and JOB, as everywhere."""
    for name in ("status", "wait", "images"):
        usage = command_alone(name, "--help").out
        assert "The user_id of the job." in usage
        assert "The job_id of the job." in usage
