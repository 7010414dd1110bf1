"""The shell commands, run in this process."""

import io
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest
from anyio.from_thread import start_blocking_portal
from attrs import frozen

import smilejobs.cli
from smilejobs.sandbox import Sandbox

ENVIRONMENT = {"SMILE_PARTNER_ID": "085", "SMILE_API_KEY": "sandbox-key", "SMILE_ENVIRONMENT": "", "SMILE_BASE_URL": ""}


@frozen
class Answer:
    """What a command ended with."""

    code: object
    out: str
    err: str


Command = Callable[..., Answer]


def make_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], **defaults: str) -> Command:
    """Return a function that runs a command in this process.

    Args:
        monkeypatch: It sets the arguments, the environment and the standard input.
        capsys: It captures what the command prints.
        defaults: Variables of the environment, beside `ENVIRONMENT`; a call may set others.
    """

    def run(*arguments: str, stdin: str | bytes | IO[str] = b"", **environment: str) -> Answer:
        monkeypatch.setattr(sys, "argv", ["/usr/bin/smilejobs", *arguments])
        if isinstance(stdin, str):
            stdin = stdin.encode()
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)) if isinstance(stdin, bytes) else stdin)
        for name, value in {**ENVIRONMENT, **defaults, **environment}.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(SystemExit) as exited:
            smilejobs.cli.main()
        printed = capsys.readouterr()
        return Answer(exited.value.code, printed.out, printed.err)

    return run


@contextmanager
def serve_in_thread(sandbox: Sandbox) -> Iterator[str]:
    """Serve the sandbox from another thread, and yield its URL."""
    with start_blocking_portal("asyncio") as portal, portal.wrap_async_context_manager(sandbox.serve()) as base_url:
        yield base_url


TIMEOUTS = ("0.3s", "3s", "30s")
"""For waits that are to time out, but after an answer: nearly always there is one within the first."""


def timed_out(wait: Callable[[str], Answer]) -> Answer:
    """Wait so long that there was an answer."""
    for timeout in TIMEOUTS:
        answer = wait(timeout)
        if "answer yet" not in answer.err:
            break
    return answer


def wait_until(condition: Callable[[], bool]) -> None:
    """Return as soon as the condition holds, or after two minutes, which is long on a slow machine too."""
    give_up = time.monotonic() + 120
    while not condition() and time.monotonic() < give_up:
        time.sleep(0.02)


def interrupt_when(condition: Callable[[], bool], number: int = signal.SIGINT) -> threading.Thread:
    """Press Ctrl-C, or send another signal, as soon as the condition holds."""

    def watch() -> None:
        wait_until(condition)
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=watch)
    thread.start()
    return thread


PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


@pytest.fixture
def command_alone(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Command:
    monkeypatch.chdir(tmp_path)
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)

    return make_command(monkeypatch, capsys, SMILE_ENVIRONMENT="sandbox")


CLIENT_COMMANDS = (
    ("doctor",),
    ("status", "user-1", "job-1"),
    ("wait", "user-1", "job-1"),
    ("images", "user-1", "job-1", "--out", "."),
    ("batch", "in.csv", "--out", "out.csv"),
)
