"""``smilejobs doctor`` and ``verify-callback``, and what all commands have in common."""

import json
import socket
from collections.abc import Callable, Generator, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from smilejobs import (
    BadResponseError,
    Credentials,
    GatewayError,
    JobNotFoundError,
    SmileJobsError,
    WrongJobError,
    __version__,
)
from smilejobs.client import Client
from smilejobs.wire.signature import format_timestamp, sign
from tests.helpers.commands import Answer, Command

CREDENTIALS = Credentials("085", "sandbox-key")


Serve = Callable[..., str]


@pytest.fixture
def serve() -> Generator[Serve, None, None]:
    """Start a server that answers as it is told, and return its URL."""
    servers: list[HTTPServer] = []

    def start(
        body: bytes,
        *,
        http_status: int = 200,
        get_status: int = 403,
        headers: Mapping[str, str] | None = None,
        requests: list[str] | None = None,
    ) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.answer(get_status, b"")

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                self.answer(http_status, body)

            def answer(self, status: int, body: bytes) -> None:
                if requests is not None:
                    requests.append(f"{self.command} {self.path}")
                self.send_response_only(status)
                for name, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class has that name for it
                pass

        server = HTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        return f"http://127.0.0.1:{server.server_port}/v1"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def body(**more: object) -> bytes:
    timestamp = format_timestamp(datetime(2026, 3, 2, 10, 20, 30, tzinfo=UTC))
    return json.dumps({"timestamp": timestamp, "signature": sign(CREDENTIALS, timestamp), **more}).encode()


NOT_FOUND = body(code="2304", error="no such job")


def test_all_is_well(command: Command, base_url: str) -> None:
    """The signature is accepted, and a job that does not exist is not found."""
    answer = command("doctor")
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.splitlines() == [
        f"ok     variables  partner 085 at {base_url}",
        "-      clock      the server does not send its time",
        "ok     API        accepts the signature; the job does not exist, as expected",
    ]


def test_variables_that_are_missing(command: Command) -> None:
    """They are named, in one line."""
    answer = command("doctor", SMILE_API_KEY="", SMILE_BASE_URL="")
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith("smilejobs: not set in the environment: SMILE_API_KEY")
    assert answer.err.count("\n") == 1


def test_the_environment_has_a_url(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is shown, so that nobody asks the wrong one."""
    alter(monkeypatch, JobNotFoundError("none"))
    answer = command("doctor", SMILE_BASE_URL="", SMILE_ENVIRONMENT="sandbox")
    assert "partner 085 at https://testapi.smileidentity.com/v1\n" in answer.out


def test_a_wrong_key(command: Command) -> None:
    """What to check is said, without the key."""
    answer = command("doctor", SMILE_API_KEY="another-key")
    assert answer.code == 4
    assert "WRONG  API        the API answered 2305: invalid signature" in answer.out
    assert "sandbox and production have different ones" in answer.out
    assert "another-key" not in answer.out


def test_nobody_is_there(command: Command) -> None:
    """There is no way to the API."""
    answer = command("doctor", SMILE_BASE_URL="http://127.0.0.1:9/v1")
    assert answer.code == 4
    assert "-      clock      not compared with the server's: no answer: Connection refused" in answer.out
    assert "does not send its time" not in answer.out
    assert "WRONG  API        no answer" in answer.out
    assert "check the URL, the network, the proxy" in answer.out


def test_a_server_that_is_too_slow_to_tell_its_time(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """That is no answer, and is said so."""
    monkeypatch.setattr("smilejobs.cli.doctor._TIMEOUT_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        answer = command("doctor", SMILE_BASE_URL=f"http://127.0.0.1:{port}/v1")
    assert answer.code == 4
    assert "-      clock      not compared with the server's: no answer within 0.2 s" in answer.out


PAGES = [
    (b"<html>", 200, "a gateway, a proxy, a firewall or a maintenance page"),
    (b"<html>", 502, "a gateway, a proxy, a firewall or a maintenance page"),
    (b"<html>", 403, "a gateway, a proxy, a firewall or a maintenance page"),
    (b'{"message": "Forbidden"}', 403, "a gateway, a proxy, a firewall or a maintenance page"),
    (b"<html>sign in", 401, "a gateway, a proxy, a firewall or a maintenance page"),
    (b'{"message": "Too Many Requests"}', 429, "a gateway, a proxy, a firewall or a maintenance page"),
    (b"{}", 503, "a gateway, a proxy, a firewall or a maintenance page"),
    (b"default backend - 404", 404, "The URL is probably wrong"),
    (b'{"message": "Missing Authentication Token"}', 403, "The URL is probably wrong"),
    (b"", 302, "The URL is probably wrong"),
    (b"", 405, "The URL is probably wrong"),
]


@pytest.mark.parametrize(("page", "http_status", "words"), PAGES)
def test_something_else_is_there(command: Command, serve: Serve, page: bytes, http_status: int, words: str) -> None:
    """A wrong URL is told from a gateway that answers in the API's place."""
    answer = command("doctor", SMILE_BASE_URL=serve(page, http_status=http_status))
    assert answer.code == 4
    assert f"HTTP {http_status}" in answer.out
    others = {words for _, _, words in PAGES}
    assert {other for other in others if other in answer.out.splitlines()[-1]} == {words}


@pytest.mark.parametrize(
    "error", [GatewayError("HTTP 404", wrong_url=True), GatewayError("HTTP 403"), BadResponseError("HTML")]
)
def test_the_url_of_an_environment_is_right(
    command: Command, monkeypatch: pytest.MonkeyPatch, error: SmileJobsError
) -> None:
    """Whatever answers there, it is the network that is to be looked at."""
    alter(monkeypatch, error)
    answer = command("doctor", SMILE_BASE_URL="", SMILE_ENVIRONMENT="sandbox")
    assert answer.code == 4
    assert answer.out.splitlines()[-1].startswith("The URL is right, but the answer is not from the API")


def test_an_answer_about_another_job(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own text says it all."""
    alter(monkeypatch, WrongJobError("the answer speaks of another job"))
    answer = command("doctor", SMILE_BASE_URL="", SMILE_ENVIRONMENT="sandbox")
    assert answer.code == 4
    assert answer.out.splitlines()[-1] == "WRONG  API        the answer speaks of another job"


def alter(monkeypatch: pytest.MonkeyPatch, error: SmileJobsError) -> None:
    """Let polls fail so, without a network."""

    async def job_status(self: Client, user_id: str, job_id: str) -> None:
        raise error

    async def fetch_date(url: str) -> None:
        pass

    monkeypatch.setattr(Client, "job_status", job_status)
    monkeypatch.setattr("smilejobs.cli.doctor._fetch_date", fetch_date)


def test_redirects_are_not_followed(command: Command, serve: Serve) -> None:
    """Nothing is asked of anybody but the server that the settings name, and its clock is the one that counts."""
    elsewhere: list[str] = []
    asked: list[str] = []
    location = serve(b"", requests=elsewhere, headers={"Date": "Mon, 02 Mar 2026 10:20:30 GMT"})
    headers = {"Location": location, "Date": format_datetime(datetime.now(UTC), usegmt=True)}
    url = serve(b"", http_status=302, get_status=302, headers=headers, requests=asked)
    answer = command("doctor", SMILE_BASE_URL=url)
    assert answer.code == 4
    assert "ok     clock" in answer.out
    assert asked == ["GET /v1", "POST /v1/job_status"]
    assert elsewhere == []


@pytest.mark.parametrize("variable", ["SMILE_PARTNER_ID", "SMILE_API_KEY"])
@pytest.mark.parametrize(
    ("value", "words"),
    [
        ('"085"', "begins or ends with a quotation mark"),
        ("'085'", "begins or ends with a quotation mark"),
        ("085 ", "holds white space or an invisible character (U+0020)"),
        ("\ufeff085", "holds white space or an invisible character (U+FEFF)"),
        ("0\u200b85", "holds white space or an invisible character (U+200B)"),
    ],
)
def test_credentials_as_a_file_has_them(command: Command, variable: str, value: str, words: str) -> None:
    """Before anything is asked, it is said which variable has what around its value, in one line without the value."""
    answer = command("doctor", **{variable: value})
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith(f"smilejobs: {variable.removeprefix('SMILE_').lower()} {words}")
    assert "085" not in answer.err
    assert answer.err.count("\n") == 1


def test_an_answer_that_is_not_signed(command: Command, serve: Serve) -> None:
    """The key may be another one's."""
    url = serve(json.dumps({"job_complete": True, "code": "2302"}).encode())
    answer = command("doctor", SMILE_BASE_URL=url)
    assert answer.code == 4
    assert "not signed with this API key" in answer.out


def test_a_pending_answer_that_is_not_signed(command: Command, serve: Serve) -> None:
    """A wait goes on after it; but it shows neither that the key is right nor that this is the API."""
    answer = command("doctor", SMILE_BASE_URL=serve(b'{"job_complete": false}'))
    assert answer.code == 4
    assert "WRONG  API        the answer has no signature" in answer.out


def test_an_answer_all_the_same(command: Command, serve: Serve) -> None:
    """A server that knows the job after all has shown that it knows the key."""
    answer = command("doctor", SMILE_BASE_URL=serve(body(job_complete=False, code="2302")))
    assert answer.code == 0
    assert "ok     API        the answer is signed with this key" in answer.out


@pytest.mark.parametrize("get_status", [200, 403])
@pytest.mark.parametrize(
    ("ahead", "words"),
    [
        (0, "ok     clock      within 1 s of the server's"),
        (312, "WRONG  clock      this machine's clock is 312 s ahead of the server's"),
        (-4000, "WRONG  clock      this machine's clock is 4000 s behind the server's"),
    ],
)
def test_the_clock(  # noqa: PLR0917  # pytest passes fixtures and parameters by name
    command: Command, serve: Serve, monkeypatch: pytest.MonkeyPatch, get_status: int, ahead: int, words: str
) -> None:
    """It is compared with the server's, whatever status that has."""
    now = datetime(2026, 3, 2, 10, 20, 30, tzinfo=UTC)
    monkeypatch.setattr("smilejobs.cli.doctor.utcnow", lambda: now + timedelta(seconds=ahead))
    headers = {"Date": format_datetime(now, usegmt=True)}
    url = serve(NOT_FOUND, http_status=400, get_status=get_status, headers=headers)
    answer = command("doctor", SMILE_BASE_URL=url)
    assert answer.code == (4 if ahead else 0)
    assert words in answer.out


@pytest.mark.parametrize(
    "date", ["yesterday", "Mon, 02 Mar 2026 10:20:30 -0000", "Mon, 02 Mar 2026 10:20:30 +99999999999999999", "1" * 5000]
)
def test_a_server_that_does_not_know_the_time(command: Command, serve: Serve, date: str) -> None:
    """Then nothing is known of the clock, and nothing claimed."""
    answer = command("doctor", SMILE_BASE_URL=serve(NOT_FOUND, http_status=400, headers={"Date": date}))
    assert answer.code == 0
    assert "-      clock      the server does not send its time\n" in answer.out


# --- Callbacks


def callback(**more: object) -> bytes:
    params = {"user_id": "user-secret", "job_id": "job-secret", "job_type": 1}
    return body(**{"PartnerParams": params, "SmileJobID": "0000000042", "ResultCode": "0810", **more})


@pytest.mark.parametrize("source", ["body.json", "-"])
def test_a_callback_that_verifies(command: Command, tmp_path: Path, source: str) -> None:
    """It is said what is proved and what is not, and no id."""
    data = callback(ResultText="Document\x1b[1m Verified")
    (tmp_path / "body.json").write_bytes(data)
    answer = command("verify-callback", str(tmp_path / source) if source != "-" else "-", stdin=data)
    assert (answer.code, answer.err) == (0, "")
    assert "verified      the signature of its timestamp, by the key of partner 085\n" in answer.out
    assert "not verified  all the rest: the signature covers neither job nor result" in answer.out
    assert "signed at   2026-03-02T10:20:30+00:00, " in answer.out
    assert "(SmileJobID 0000000042)\n" in answer.out
    assert "says        0810 Document?[1m Verified\n" in answer.out
    assert "smilejobs status USER JOB" in answer.out
    assert "secret" not in answer.out


def test_a_callback_that_says_little(command: Command) -> None:
    """What is not there is not made up."""
    data = json.dumps({"timestamp": "once", "signature": sign(CREDENTIALS, "once"), "PartnerParams": PARAMS}).encode()
    answer = command("verify-callback", "-", stdin=data)
    assert answer.code == 0
    assert "signed at   a time that cannot be read\n" in answer.out
    assert "(SmileJobID none)\n" in answer.out
    assert "says        no code\n" in answer.out


PARAMS = {"user_id": "u", "job_id": "j"}


@pytest.mark.parametrize(
    ("data", "words"),
    [(b"{}", "does not verify"), (b"<xml>", "cannot be read"), (b" " * (4 * 1024 * 1024 + 1), "larger than")],
)
def test_a_callback_that_does_not_verify(command: Command, data: bytes, words: str) -> None:
    """It is said why, in one line."""
    answer = command("verify-callback", "-", stdin=data)
    assert (answer.code, answer.out) == (4, "")
    assert words in answer.err
    assert answer.err.count("\n") == 1


def test_no_such_callback(command: Command) -> None:
    """A file that is not there is wrong usage."""
    answer = command("verify-callback", "nowhere.json")
    assert (answer.code, answer.out) == (2, "")
    assert "nowhere.json" in answer.err


# --- All commands


def test_the_version(command: Command) -> None:
    """It is printed, and nothing else is done."""
    assert command("--version") == Answer(0, f"smilejobs {__version__}\n", "")


def test_debug_shows_where_an_error_comes_from(command: Command) -> None:
    """Only for the command that it is given to."""
    assert "Traceback" in command("--debug", "verify-callback", "-", stdin=b"{}").err
    assert "Traceback" not in command("verify-callback", "-", stdin=b"{}").err
    assert "CredentialsError" in command("--debug", "doctor", SMILE_API_KEY="wrong").err


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(command: Command, monkeypatch: pytest.MonkeyPatch, shell: str) -> None:
    """There is a script for each shell, and it completes the names of the commands."""
    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")
    script = command("--show-completion", shell)
    assert script.code == 0
    assert f"_SMILEJOBS_COMPLETE=complete_{shell}" in script.out
    words = {
        "COMP_WORDS": "smilejobs ver",
        "COMP_CWORD": "1",
        "_TYPER_COMPLETE_ARGS": "smilejobs ver",
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }
    assert "verify-callback" in command(_SMILEJOBS_COMPLETE=f"complete_{shell}", **words).out
