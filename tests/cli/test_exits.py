"""How commands end: a crash has never the exit code of a verdict, and SIGTERM stops a command as Ctrl-C does."""

import asyncio
import os
import runpy
import signal
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from functools import partial
from importlib import import_module
from pathlib import Path

import anyio
import pytest
import typer

from smilejobs import JobRef
from smilejobs.cli.display import console
from smilejobs.cli.exits import ExitCode, complain, describe, run_commands, set_debug
from smilejobs.cli.stopping import exit_on_signals, run_until_stopped, stop_on_sigterm
from smilejobs.sandbox import Sandbox
from tests.helpers.commands import ENVIRONMENT, Command, interrupt_when, wait_until

SHELL = [sys.executable, "-m", "smilejobs"]
DEAF = [
    sys.executable,
    "-c",
    "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); from smilejobs.cli import main; main()",
]
"""As a shell starts what it runs in the background: with Ctrl-C ignored."""
LONG = 120
"""Seconds, on a slow machine too."""

unix = pytest.mark.skipif(os.name == "nt", reason="signals and devices of Unix")


@pytest.fixture(scope="module")
def sandbox() -> Sandbox:
    sandbox = Sandbox()
    sandbox.submit("user-1", "approved", machine=0)
    sandbox.submit("user-1", "rejected", machine=0, outcome="rejected", job_type=6)
    sandbox.submit("user-1", "running", machine=3600)
    return sandbox


def environment(base_url: str, **more: str) -> dict[str, str]:
    return {**os.environ, **ENVIRONMENT, "SMILE_BASE_URL": base_url, **more}


# --- Exit codes


def ended(error: BaseException, *, debug: bool = False) -> object:
    """The exit code of a command that raises an error."""

    def commands() -> None:
        set_debug(is_on=debug)
        raise error

    with pytest.raises(SystemExit) as exited:
        run_commands(commands)
    return exited.value.code


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (RuntimeError("no\x1b[2J"), 4, "smilejobs: unexpected RuntimeError: no?[2J; smilejobs --debug shows where"),
        (OSError(28, "No space left on device"), 4, "smilejobs: standard output cannot be written: No space left"),
        (OSError(13, "Permission denied", "ca.pem"), 4, "smilejobs: Permission denied: 'ca.pem'\n"),
        (KeyboardInterrupt(), 130, ""),
        (SystemExit(2), 2, ""),
        (SystemExit(1), 4, ""),
        (SystemExit(), 0, ""),
    ],
)
def test_whatever_a_command_raises(
    error: BaseException, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is one line, and its exit code is not that of a verdict."""
    assert ended(error) == code
    err = capsys.readouterr().err
    assert err.startswith(said)
    assert err.count("\n") == bool(said)


def test_a_command_that_returns_is_done() -> None:
    """Its exit code is 0."""
    with pytest.raises(SystemExit) as exited:
        run_commands(lambda: None)
    assert exited.value.code == 0


def test_a_reader_that_leaves_ends_typer_with_the_code_of_a_verdict(capsys: pytest.CaptureFixture[str]) -> None:
    """That is no verdict; what comes as `typer.Exit` is one."""

    def commands(error: Exception) -> None:
        try:
            raise error
        except Exception:  # noqa: BLE001  # as typer does
            sys.exit(1)

    for error, code in ((BrokenPipeError(32, "Broken pipe"), 4), (typer.Abort(), 4), (typer.Exit(1), 1)):
        with pytest.raises(SystemExit) as exited:
            run_commands(lambda error=error: commands(error))  # type: ignore[misc]  # mypy cannot infer a lambda with a default
        assert exited.value.code == code
    assert capsys.readouterr().err == "smilejobs: standard output cannot be written: Broken pipe\n"


def test_the_traceback_is_shown_on_request(capsys: pytest.CaptureFixture[str]) -> None:
    """Of expected errors and of others."""
    set_debug(is_on=True)
    try:
        complain(OSError(2, "No such file", "x"))
        for error in (ZeroDivisionError("no"), OSError(28, "No space left on device")):
            assert ended(error, debug=True) == 4
    finally:
        set_debug(is_on=False)
    err = capsys.readouterr().err
    assert err.count("Traceback") == 2
    assert err.count("\nsmilejobs: ") == 3


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (OSError(98, "Address already in use"), "Address already in use"),
        (FileNotFoundError(2, "No such file or directory", "a"), "No such file or directory: 'a'"),
        (OSError("plain"), "plain"),
        (ValueError("wrong"), "wrong"),
    ],
)
def test_an_error_of_the_system_is_told_in_words(error: Exception, text: str) -> None:
    """Its number is for programs."""
    assert describe(error) == text


@unix
@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("status", "user-1", "approved"), 4),
        (("status", "user-1", "rejected", "--json"), 4),
        (("tag", "user-1", "job-1"), 4),
        (("--help",), 4),
        (("status", "user-1", "nobody"), 4),
        (("status", "user-1"), 2),
    ],
)
@pytest.mark.slow
def test_a_full_disk_and_a_reader_that_leaves(base_url: str, arguments: tuple[str, ...], code: int) -> None:
    """What cannot be written is one line on standard error, and never the exit code of a verdict."""
    for why in ("No space left on device", "Broken pipe"):
        with ExitStack() as closing:
            if why == "Broken pipe":
                reading, writing = os.pipe()
                os.close(reading)
                closing.callback(os.close, writing)
                out: int = writing
            else:
                out = closing.enter_context(Path("/dev/full").open("w")).fileno()
            done = subprocess.run(
                [*SHELL, *arguments],
                stdout=out,
                stderr=subprocess.PIPE,
                text=True,
                check=False,
                env=environment(base_url),
            )
        assert done.returncode == code
        assert "Traceback" not in done.stderr
        assert "Exception" not in done.stderr
        if "nobody" not in arguments and code == 4:
            assert done.stderr == f"smilejobs: standard output cannot be written: {why}\n"


@unix
def test_streams_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """What is left in them is dropped; a stream that is closed has nothing to write."""
    for name in ("stdout", "stderr"):
        with monkeypatch.context() as patch, Path("/dev/full").open("w") as full:
            patch.setattr(sys, name, full)
            with pytest.raises(SystemExit) as exited:
                run_commands(partial(full.write, "left"))
            assert exited.value.code == (4 if name == "stdout" else 0)
    assert capsys.readouterr().err == "smilejobs: standard output cannot be written: No space left on device\n"
    monkeypatch.setattr(sys, "stdout", None)
    with pytest.raises(SystemExit) as exited:
        run_commands(lambda: None)
    assert exited.value.code == 0


@unix
@pytest.mark.slow
def test_standard_error_that_cannot_be_written(base_url: str) -> None:
    """The exit code says what it would have said."""
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*SHELL, "status", "user-1", "nobody"], stderr=full, check=False, env=environment(base_url)
        )
    assert done.returncode == 4


@unix
@pytest.mark.slow
def test_a_wait_shows_its_progress_on_terminals_only(base_url: str) -> None:
    """A standard error that cannot be written costs no verdict."""
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*SHELL, "wait", "user-1", "approved"],
            stdout=subprocess.PIPE,
            stderr=full,
            text=True,
            check=False,
            env=environment(base_url),
        )
    assert done.returncode == 0
    assert "approved" in done.stdout


def test_a_console_hands_a_broken_pipe_on() -> None:
    """By itself, rich would exit with the code of a verdict."""
    error = BrokenPipeError(32, "Broken pipe")

    def print_into_a_broken_pipe() -> None:
        try:
            raise error
        except BrokenPipeError:
            console().on_broken_pipe()

    with pytest.raises(BrokenPipeError) as raised:
        print_into_a_broken_pipe()
    assert raised.value is error


def test_the_package_is_the_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """``python -m smilejobs`` is ``smilejobs``; importing the module runs nothing."""
    monkeypatch.delitem(sys.modules, "smilejobs.__main__", raising=False)
    monkeypatch.setattr(sys, "argv", ["smilejobs", "tag", "user-1", "job-1"])
    with pytest.raises(SystemExit) as exited:
        runpy.run_module("smilejobs", run_name="__main__")
    import_module("smilejobs.__main__")
    assert (exited.value.code, capsys.readouterr().out) == (0, f"{JobRef('user-1', 'job-1').tag}\n")


TICK = """
from smilejobs.cli.display import console
from smilejobs.cli.exits import run_commands

def commands():
    console().print("\\u2713")
    console(stderr=True).print("\\u2713")

run_commands(commands)
"""


@pytest.mark.slow
def test_text_that_the_terminal_cannot_encode() -> None:
    """It is escaped, and the exit code stays."""
    for encoding, shown in (("ascii", "\\u2713"), ("utf-8", "\u2713")):
        done = subprocess.run(
            [sys.executable, "-c", TICK],
            capture_output=True,
            check=False,
            env={**os.environ, "PYTHONIOENCODING": encoding},
        )
        printed = [each.decode("utf-8").rstrip() for each in (done.stdout, done.stderr)]
        assert (done.returncode, printed) == (0, [shown, shown])


# --- SIGTERM


@unix
@pytest.mark.parametrize("ignored", [False, True], ids=["", "no Ctrl-C"])
@pytest.mark.slow
@pytest.mark.sample
def test_sigterm_stops_a_wait(base_url: str, sandbox: Sandbox, ignored: bool) -> None:
    """As Ctrl-C does, also where a shell has started it in the background, where Ctrl-C is ignored."""
    ref = sandbox.submit("user-1", f"terminated-{ignored}", machine=3600)
    with subprocess.Popen(
        [*(DEAF if ignored else SHELL), "wait", ref.user_id, ref.job_id],
        stderr=subprocess.PIPE,
        text=True,
        env=environment(base_url),
    ) as process:
        wait_until(lambda: sandbox.polls(ref) > 0)
        process.terminate()
        assert process.wait(LONG) == 130
        assert process.stderr is not None
        assert process.stderr.read() == ""


@unix
@pytest.mark.slow
def test_sigterm_stops_a_batch(base_url: str, tmp_path: Path) -> None:
    """What is pending is written as such, and it is said how to go on."""
    out = tmp_path / "out.csv"
    (tmp_path / "in.csv").write_text("user_id,job_id\nuser-1,approved\nuser-1,running\n")
    with subprocess.Popen(
        [*SHELL, "batch", "in.csv", "--out", "out.csv"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env=environment(base_url),
    ) as process:
        wait_until(lambda: out.exists() and b"approved" in out.read_bytes())
        process.terminate()
        assert process.wait(LONG) == 130
        assert process.stderr is not None
        said = process.stderr.read()
    assert "stopped; to go on: smilejobs batch in.csv --out out.csv --resume\n" in said
    assert "Traceback" not in said
    assert sorted(line.split(b",")[5] for line in out.read_bytes().splitlines()[1:]) == [b"complete", b"pending"]


IMPORTING = """
import os, signal, sys

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "smilejobs.cli.app":
            os.kill(os.getpid(), int(sys.argv[1]))

sys.meta_path.insert(0, Finder())
from smilejobs.cli import main
main()
"""


@unix
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.slow
def test_a_signal_while_the_command_is_imported(number: int, code: int) -> None:
    """It ends the process at once and without a traceback, by a handler, which process 1 of a container needs."""
    done = subprocess.run(
        [sys.executable, "-c", IMPORTING, str(int(number))], capture_output=True, text=True, check=False, timeout=LONG
    )
    assert (done.returncode, done.stdout, done.stderr) == (code, "", "")


@unix
def test_signals_that_are_ignored_or_handled_stay_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the default handlers are replaced, and Ctrl-C has its default one again once the command runs."""
    codes: list[int] = []
    monkeypatch.setattr(os, "_exit", codes.append)  # it would end the tests
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        for theirs in (signal.SIG_IGN, print):
            for number in before:
                signal.signal(number, theirs)
            exit_on_signals()
            assert [signal.getsignal(number) for number in before] == [theirs, theirs]
        signal.signal(signal.SIGINT, signal.default_int_handler)
        exit_on_signals()
        signal.raise_signal(signal.SIGINT)
        assert codes == [130]
        stop_on_sigterm()
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@unix
@pytest.mark.slow
@pytest.mark.sample
def test_sigterm_in_this_process(command: Command, sandbox: Sandbox) -> None:
    """The event loop cancels what it runs."""
    ref = JobRef("user-1", "running")
    polls = sandbox.polls(ref)
    thread = interrupt_when(lambda: sandbox.polls(ref) > polls, signal.SIGTERM)
    assert command("wait", "user-1", "running").code == 130
    thread.join()


@unix
@pytest.mark.slow
@pytest.mark.sample
def test_sigterm_where_it_or_ctrl_c_is_ignored() -> None:
    """What is ignored stays ignored; an ignored Ctrl-C does not keep SIGTERM from stopping the command."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        stop_on_sigterm()
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        stop_on_sigterm()
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.raise_signal(signal.SIGTERM)
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_IGN)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            signal.signal(number, handler)


@unix
def test_a_signal_finds_no_event_loop_asleep() -> None:
    """Another thread may get it, and the loop have nothing else to wake up for."""
    is_over = threading.Event()
    late: list[bool] = []

    async def work() -> None:
        loop = asyncio.get_running_loop()

        def interrupt() -> None:
            time.sleep(0.2)  # then the loop sleeps; if the machine is slow and it does not yet, this test shows less
            signal.pthread_kill(threading.get_ident(), signal.SIGINT)
            if not is_over.wait(LONG):
                late.append(True)
                loop.call_soon_threadsafe(lambda: None)

        threading.Thread(target=interrupt).start()
        await anyio.Event().wait()

    with pytest.raises(KeyboardInterrupt):
        run_until_stopped(work)
    is_over.set()
    assert not late
    assert signal.set_wakeup_fd(-1) == -1


def test_what_ran_is_returned() -> None:
    """As it came."""

    async def work() -> str:
        return "done"

    assert run_until_stopped(work) == "done"


def test_the_exit_code_of_a_verdict_is_of_a_verdict_alone() -> None:
    """No other code has its number."""
    assert [code.name for code in ExitCode if code == 1] == ["NOT_APPROVED"]
