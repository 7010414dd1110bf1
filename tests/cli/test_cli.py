"""The shell commands, against a sandbox behind a real socket."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

import smilejobs.cli
from smilejobs import JobResult, JobStatus
from smilejobs.cli.display import show
from smilejobs.model.links import ImageLinks
from smilejobs.sandbox import FAULT_PROFILES, Lognormal, Sandbox
from smilejobs.sandbox.callbacks import DELIVERIES
from tests.helpers.commands import Answer, Command, interrupt_when, timed_out
from tests.helpers.patience import free_port


@pytest.fixture(scope="module")
def sandbox() -> Sandbox:
    sandbox = Sandbox()
    sandbox.submit("user-1", "approved", machine=0)
    sandbox.submit("user-1", "rejected", machine=0, outcome="rejected", job_type=6)
    sandbox.submit("user-1", "review", machine=0, review=3600)
    sandbox.submit("user-1", "running", machine=3600)
    sandbox.submit("user-1", "no-zip", upload=None)
    sandbox.submit("user-1", "disabled", refusal="2307")
    return sandbox


@pytest.mark.parametrize("name", ["status", "wait"])
@pytest.mark.parametrize(
    ("job_id", "code", "words"),
    [
        ("approved", 0, ["approved\n", "1210 Enroll User", "0000000001", "confidence    99\n"]),
        ("rejected", 1, ["rejected\n", "0811 Unable to Verify Document", "0000000002"]),
        ("review", 1, ["provisional, not final yet\n", "0814 Provisional Enroll - Under Review"]),
    ],
)
def test_a_complete_job(command: Command, name: str, job_id: str, code: int, words: list[str]) -> None:
    """It is shown in a few lines, and the exit code says whether it is approved."""
    answer = command(name, "user-1", job_id)
    assert (answer.code, answer.err) == (code, "")
    for word in words:
        assert word in answer.out


@pytest.mark.parametrize(
    ("job_id", "words"), [("running", ["pending", "2302"]), ("no-zip", ["pending", "2314", "No zip uploaded yet"])]
)
def test_the_status_of_a_pending_job(command: Command, job_id: str, words: list[str]) -> None:
    """It is no error, and has an exit code of its own."""
    answer = command("status", "user-1", job_id)
    assert (answer.code, answer.err) == (3, "")
    for word in words:
        assert word in answer.out


@pytest.mark.parametrize(
    ("job_id", "until", "out", "err"),
    [
        ("running", "complete", "pending", "the job is still running"),
        ("no-zip", "complete", "pending", "the job has no images yet"),
        ("review", "final", "provisional", "under review"),
        ("never-submitted", "complete", None, "the API knows no such job yet"),
    ],
)
def test_a_wait_that_times_out(command: Command, job_id: str, until: str, out: str | None, err: str) -> None:
    """It says in one line why, shows the last answer if there was one, and ends as pending."""
    answer = timed_out(lambda timeout: command("wait", "user-1", job_id, "--timeout", timeout, "--until", until))
    assert answer.code == 3
    assert answer.err.startswith("smilejobs: ")
    assert err in answer.err
    assert answer.err.count("\n") == 1
    assert answer.out.startswith(out) if out else not answer.out


def test_the_timeout_of_a_wait_has_a_unit(command: Command) -> None:
    """As everywhere in the shell."""
    assert command("wait", "user-1", "approved", "--timeout", "1.5m").code == 0


@pytest.mark.parametrize("name", ["status", "wait"])
def test_json_is_the_status_as_a_dict(command: Command, name: str) -> None:
    """Nothing else is on standard output."""
    answer = command(name, "user-1", "approved", "--json")
    status = json.loads(answer.out)
    assert (answer.code, answer.err) == (0, "")
    assert status["verdict"] == "approved"
    assert status["result"]["result_code"] == "1210"
    assert status.keys() == JobStatus(user_id="u", job_id="j").as_dict().keys()


def test_the_pictures_of_a_job(command: Command, tmp_path: Path) -> None:
    """The files are named, one a line; asked again, they are left as they are, and each is complained of."""
    answer = command("images", "user-1", "approved", "--out", str(tmp_path))
    assert (answer.code, answer.err) == (0, "")
    paths = answer.out.splitlines()
    assert paths
    assert all(Path(path).read_bytes().startswith(b"\x89PNG") for path in paths)
    answer = command("images", "user-1", "approved", "--out", str(tmp_path))
    assert (answer.code, answer.out, len(answer.err.splitlines())) == (4, "", len(paths))
    assert "the file exists already" in answer.err


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["running"], 3, "the job is not complete"),
        (["disabled"], 4, "2307"),
        ([" "], 2, "job_id must not be empty"),
        (["approved", "--out", "no-such-folder"], 2, "no-such-folder"),
    ],
)
def test_no_pictures(command: Command, tmp_path: Path, arguments: list[str], code: int, words: str) -> None:
    """The exit code and one line say why."""
    answer = command("images", "user-1", "--out", str(tmp_path), *arguments)
    assert (answer.code, answer.out) == (code, "")
    assert words in answer.err
    assert not list(tmp_path.iterdir())


def test_json_of_a_wait_that_times_out_is_the_last_answer(command: Command) -> None:
    """Whoever reads it sees the same shape as always."""
    answer = timed_out(lambda timeout: command("wait", "user-1", "running", "--timeout", timeout, "--json"))
    assert answer.code == 3
    assert json.loads(answer.out)["job_complete"] is False


def test_the_history_and_the_links_are_shown_on_request(command: Command, base_url: str) -> None:
    """A link is one line however long it is, for it is there to be copied."""
    answer = command("status", "user-1", "rejected", "--history", "--image-links", COLUMNS="40")
    assert "history       0000000001: 1210 Enroll User\n" in answer.out
    assert "history       0000000003: 0814 Provisional" in answer.out
    root = base_url.removesuffix("/v1")
    assert re.search(rf"^  selfie_image  {root}/images/\S+&X-Amz-Signature=[0-9a-f]{{64}}$", answer.out, re.MULTILINE)
    as_json = json.loads(command("status", "user-1", "rejected", "--image-links", "--json").out)
    assert as_json["image_links"]["selfie_image"]["url"].startswith(root)


@pytest.mark.parametrize(
    ("arguments", "environment", "words"),
    [
        (("status", "user-1", "never-submitted"), {}, "2304"),
        (("status", "user-1", "disabled"), {}, "2307"),
        (("wait", "user-1", "disabled"), {}, "2307"),
        (("status", "user-1", "approved"), {"SMILE_API_KEY": "key-of-nobody"}, "2305"),
        (("sandbox", "--host", "host.invalid"), {}, "host.invalid"),
        (("sandbox", "--state", "/missing/file"), {}, "/missing/file cannot be used"),
    ],
)
def test_an_error_is_one_line(
    command: Command, arguments: tuple[str, ...], environment: Mapping[str, str], words: str
) -> None:
    """On standard error, without a traceback, ids or keys."""
    answer = command(*arguments, **environment)
    assert (answer.code, answer.out) == (4, "")
    assert answer.err.startswith("smilejobs: ")
    assert answer.err.count("\n") == 1
    assert words in answer.err
    for secret in ("user-1", "key-of-nobody", "sandbox-key"):
        assert secret not in answer.err


@pytest.mark.parametrize(
    ("arguments", "environment", "words"),
    [
        (("status", "user-1", "approved"), {"SMILE_API_KEY": ""}, "SMILE_API_KEY"),
        (("wait", "user-1", "approved"), {"SMILE_BASE_URL": ""}, "SMILE_ENVIRONMENT"),
        (("wait", "user-1", "approved"), {"SMILE_BASE_URL": "http://api.test/v1"}, "base_url must be https"),
        (("status", "", "approved"), {}, "user_id must not be empty"),
        (("wait", "user-1", "approved", "--timeout", "0"), {}, "--timeout must be more than 0"),
        (("wait", "user-1", "approved", "--timeout", "nan"), {}, "--timeout must be a number and a unit"),
        (("wait", "user-1", "approved", "--until", "never"), {}, "--until"),
        (("status", "user-1"), {}, "JOB"),
        (("sandbox", "--port", "65536"), {}, "--port"),
        (("sandbox", "--partner-id", ""), {}, "partner_id must not be empty"),
        (("sandbox", "--faults", "sunny"), {}, "faults must be one of none, flaky, storm"),
        (("sandbox", "--fault", "cuts"), {}, "--fault must be NAME=VALUE"),
        (("sandbox", "--fault", "cuts=2"), {}, "cuts must be a share"),
        (("sandbox", "--max-skew", "little"), {}, "--max-skew must be a number and a unit"),
        (("sandbox", "--machine", "fast"), {}, "--machine must be a median"),
        (("sandbox", "--review", "never"), {}, "--review must be a median"),
    ],
)
def test_wrong_usage(command: Command, arguments: tuple[str, ...], environment: Mapping[str, str], words: str) -> None:
    """It is told before any request, with exit code 2."""
    answer = command(*arguments, **environment)
    assert (answer.code, answer.out) == (2, "")
    assert words in answer.err


def test_what_comes_from_outside_does_not_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """Control characters are shown as question marks, brackets as they are."""
    show(JobStatus(user_id="u", job_id="j", message="[bold]\x1b]0;title\x07\n:smile:"), as_json=False, links=False)
    assert capsys.readouterr().out == "pending\n  message       [bold]?]0;title??:smile:\n"


def test_a_result_that_says_little(capsys: pytest.CaptureFixture[str]) -> None:
    """What is missing is said to be, and an error in the place of links is shown."""
    status = JobStatus(
        user_id="u",
        job_id="j",
        job_complete=True,
        result=JobResult(),
        history=(JobResult(result_code="1210"),),
        image_links=ImageLinks(error="no pictures"),
    )
    show(status, as_json=False, links=True)
    assert capsys.readouterr().out.splitlines() == [
        "unknown",
        "  result        without a code",
        "  SmileJobID    none",
        "  history       no SmileJobID: 1210",
        "  image links   no pictures",
    ]


def test_ctrl_c_ends_a_wait(command: Command, sandbox: Sandbox) -> None:
    """With the exit code that shells use, and without a word."""
    ref = sandbox.submit("user-2", "interrupted", machine=3600)
    thread = interrupt_when(lambda: sandbox.polls(ref) > 0)
    assert command("wait", "user-2", "interrupted") == Answer(130, "", "")
    thread.join()


def is_listening(port: int) -> bool:
    """Say whether somebody is there, who has also understood that nobody wanted anything."""
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", port)) != 0:
            return False
        probe.shutdown(socket.SHUT_WR)
        return probe.recv(1) == b""


def test_the_sandbox_command_is_the_api_until_ctrl_c(command: Command) -> None:
    """It prints what to type, and the jobs that it names are there."""
    port = free_port()
    thread = interrupt_when(lambda: is_listening(port))
    answer = command("sandbox", "--port", str(port), "--api-key", "it's-a-key")
    thread.join()
    assert (answer.code, answer.err) == (0, "")
    assert f"The sandbox listens at http://127.0.0.1:{port}/v1, until Ctrl-C. Do not use real data." in answer.out
    assert f"export SMILE_BASE_URL=http://127.0.0.1:{port}/v1\n" in answer.out
    assert """export SMILE_API_KEY='it'"'"'s-a-key'\n""" in answer.out
    assert "smilejobs wait user-1 review --until final\n" in answer.out


def test_the_sandbox_command_passes_its_options_on(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each option becomes an argument of the sandbox; a restart finds its jobs, and submits none of its own."""
    port = free_port()
    made = []

    class Spied(Sandbox):
        def __init__(self, **options: Any) -> None:
            made.append(options)
            super().__init__(**options)

    monkeypatch.setattr("smilejobs.sandbox.Sandbox", Spied)
    state, pem = tmp_path / "state", tmp_path / "ca.pem"
    Sandbox(state=state).submit("user-1", "kept")
    options = {
        "--port": port,
        "--faults": "flaky",
        "--seed": 7,
        "--machine": "3",
        "--review": "open",
        "--max-skew": "1m",
        "--state": state,
        "--tls": pem,
        "--allow-callbacks-to": "callbacks",
    }
    arguments = [str(word) for option in options.items() for word in option]
    faults = ["--fault", "latency=0.5:0.8", "--fault", "cuts=0"]
    thread = interrupt_when(lambda: is_listening(port))
    answer = command("sandbox", *arguments, *faults)
    thread.join()
    assert (answer.code, answer.err) == (0, "")
    assert made == [
        {
            "partner_id": "085",
            "api_key": "sandbox-key",
            "seed": 7,
            "faults": evolve(FAULT_PROFILES["flaky"], latency=Lognormal(0.5, 0.8), cuts=0.0),
            "machine": Lognormal(3),
            "review": "open",
            "max_skew": 60,
            "state": state,
            "delivery": DELIVERIES["flaky"],
            "allow_callbacks_to": ["callbacks"],
        }
    ]
    assert f"  export SMILE_BASE_URL=https://127.0.0.1:{port}/v1\n" in answer.out
    assert f"  export SSL_CERT_FILE={pem}\n" in answer.out
    assert pem.read_bytes().startswith(b"-----BEGIN CERTIFICATE-----")
    assert "smilejobs status user-1 kept\n" in answer.out
    assert "user-2" not in answer.out
    assert "wait" not in answer.out


@pytest.mark.slow
def test_a_newcomer_can_ask_the_sandbox_command() -> None:
    """In processes of their own, as in two terminals, with warnings as errors."""
    python = [sys.executable, "-W", "error", "-c", "from smilejobs.cli import main; main()"]
    with subprocess.Popen(
        [*python, "sandbox", "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    ) as server:
        assert server.stdout is not None
        assert server.stderr is not None
        lines = iter(server.stdout.readline, "")
        exports = dict(
            line.split("export ", 1)[1].strip().split("=", 1)
            for line in lines_until(lines, "--until final")
            if "export" in line
        )
        done = subprocess.run(
            [*python, "status", "user-2", "no-zip"],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, **exports},
        )
        server.send_signal(signal.SIGINT)
        assert server.wait(60) == 0
        assert server.stderr.read() == ""
    assert (done.returncode, done.stderr) == (3, "")
    assert "No zip uploaded yet" in done.stdout


def lines_until(lines: Iterator[str], last: str) -> Iterator[str]:
    for line in lines:
        yield line
        if last in line:
            return


@pytest.mark.parametrize("missing", ["filelock", "rich", "typer"])
def test_without_the_extra_the_command_says_what_to_install(
    missing: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The entry point itself needs nothing but the base install."""
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(SystemExit) as exited:
        smilejobs.cli.main()
    assert exited.value.code == 2
    assert capsys.readouterr().err.endswith("pip install 'smilejobs[cli]'\n")


@pytest.mark.parametrize("name", ["sandbox", "demo"])
def test_without_the_sandbox_its_commands_say_what_to_install(
    name: str, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other commands do without it."""
    for module in [module for module in sys.modules if module.startswith("smilejobs.sandbox")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.delitem(sys.modules, "smilejobs.cli.demo", raising=False)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    answer = command(name)
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.endswith("pip install 'smilejobs[sandbox]'\n")


def test_the_help_names_the_commands(command: Command) -> None:
    """And those for a job tell their exit codes, and where the credentials come from."""
    answer = command("--help")
    assert (answer.code, answer.err) == (0, "")
    for name in ("status", "wait", "sandbox", "demo"):
        assert f" {name} " in answer.out
    for name in ("status", "wait"):
        shown = command(name, "--help").out
        assert "3 pending" in shown
        assert "SMILE_API_KEY" in shown
