"""``smilejobs watch`` and ``smilejobs worker``, against a sandbox behind a real socket."""

import asyncio
import io
import itertools
import json
import logging
import os
import re
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import AsyncExitStack, asynccontextmanager, closing, contextmanager
from datetime import datetime
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import anyio
import pytest
from filelock import FileLock
from rich.console import Console

from smilejobs import LearnedPace, Pace
from smilejobs.cli import watch as watch_module
from smilejobs.cli import worker as worker_module
from smilejobs.cli.exits import set_debug
from smilejobs.durable import Counts, WatchList, Worker
from smilejobs.errors import WatchListError
from smilejobs.sandbox import Sandbox
from tests.helpers.commands import ENVIRONMENT, Answer, Command, wait_until

URL = "sqlite:///jobs.db"
NOWHERE = "http://127.0.0.1:9/v1"
"""Where no server listens."""

JOBS = "user_id,job_id\nuser-1,approved\nuser-1,rejected\n"
NAMES = ("add", "list", "outcomes", "paused", "counts", "retry", "prune")


@pytest.fixture(scope="module")
def sandbox() -> Sandbox:
    sandbox = Sandbox()
    sandbox.submit("user-1", "approved", machine=0)
    sandbox.submit("user-1", "rejected", machine=0, outcome="rejected", job_type=6)
    sandbox.submit("user-1", "running", machine=3600)
    sandbox.submit("user-1", "disabled", refusal="2307")
    return sandbox


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Never end the process of a worker that is slow to stop: it is the process of the tests."""
    monkeypatch.setattr(worker_module, "_STOP_TIMEOUT_SECONDS", 1e6)


def rows(sql: str) -> list[Any]:
    """What is in the list of SQLite, read beside everybody else."""
    if not Path("jobs.db").exists():
        return []
    with closing(sqlite3.connect("jobs.db", timeout=30)) as connection, connection:
        return connection.execute(sql).fetchall()


def json_lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def work(command: Command, until: Callable[[], object], *options: str, by: int = signal.SIGTERM, **env: str) -> Answer:
    """Be a worker until a condition holds."""
    over = threading.Event()

    def stop() -> None:
        try:
            wait_until(lambda: bool(until()) or over.is_set())
        finally:
            if not over.is_set():  # a worker that has ended by itself would leave the signal to the tests
                os.kill(os.getpid(), by)

    thread = threading.Thread(target=stop)
    thread.start()
    try:
        return command("worker", URL, *options, **env)
    finally:
        over.set()
        thread.join()


def ended(count: int) -> bool:
    return len(rows("SELECT 1 FROM watch WHERE state > 0")) == count


# --- Adding


def test_a_file_is_added(command: Command) -> None:
    """Bad rows are told with file and line and do not stop the rest; other columns are ignored, which is said."""
    Path("in.csv").write_text(
        "user_id,job_id,note,submitted_at\nuser-1,a,x,\n,b,x,\nuser-1,c,x,yesterday\nuser-1,d,x,0001-01-01T00:00Z\n"
        "user-1,e,x,2026-03-02T10:20:30Z\n"
    )
    answer = command("watch", "add", URL, "in.csv")
    assert (answer.code, answer.out) == (4, "2 new, 0 known, 3 bad\n")
    assert answer.err.splitlines() == [
        "in.csv:3: user_id must not be empty",
        "in.csv:4: submitted_at must be an instant with its time zone, for example 2026-03-02T10:20:30Z",
        "in.csv:5: submitted_at must be in the years 2 to 9998",
        "columns other than user_id, job_id and submitted_at are ignored",
    ]
    assert {job["job_id"] for job in json_lines(command("watch", "list", URL, "--json").out)} == {"a", "e"}


def test_json_lines_from_standard_input(command: Command) -> None:
    """As for a batch; an id that no database can hold is a bad row."""
    text = '{"user_id": "user-1", "job_id": "a"}\n{"user_id": "user-1", "job_id": "\\u0000"}\n'
    answer = command("watch", "add", URL, "-", stdin=text)
    assert answer == Answer(
        4, "1 new, 0 known, 1 bad\n", "-:2: job_id has a blank or an invisible character (U+0000) in its middle\n"
    )


def test_adding_again(command: Command) -> None:
    """It changes nothing; who asks for other terms is told which ones stand."""
    assert command("watch", "add", URL, "-", stdin=JOBS) == Answer(0, "2 new, 0 known\n", "")
    before = rows("SELECT * FROM watch")
    assert command("watch", "add", URL, "-", "--deadline", "7d", stdin=JOBS) == Answer(0, "0 new, 2 known\n", "")
    for terms in (("--until", "final"), ("--deadline", "none"), ("--deadline", "8d")):
        answer = command("watch", "add", URL, "-", *terms, stdin=JOBS)
        told = "2 known jobs keep another --until or --deadline from before\n"
        assert answer == Answer(0, "0 new, 2 known\n", told)
    assert rows("SELECT * FROM watch") == before


def test_an_input_that_cannot_be_read_to_its_end(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said in one line."""

    class Disk(io.RawIOBase):
        def readable(self) -> bool:
            return True

        def readinto(self, buffer: Any) -> int:
            if not texts:
                raise OSError("the disk is broken")
            text = texts.pop()
            buffer[: len(text)] = text
            return len(text)

    texts = [JOBS.encode()]
    monkeypatch.setattr(watch_module, "open_input", lambda source: io.TextIOWrapper(io.BufferedReader(Disk())))
    assert command("watch", "add", URL, "in.csv") == Answer(4, "", "smilejobs: the disk is broken\n")


# --- Looking


def test_what_is_pending(command: Command) -> None:
    """Those added first come first, in columns or as JSON Lines, of which another list can be made."""
    first = '{"user_id": "user-0", "job_id": "a", "submitted_at": "2026-03-02T10:20:30.500000+00:00"}\n'
    command("watch", "add", URL, "-", "--until", "final", "--deadline", "none", stdin=first)
    command("watch", "add", URL, "-", "--deadline", "99999999d", stdin=JOBS)
    columns = [line.split("\t") for line in command("watch", "list", URL).out.splitlines()]
    assert columns[0][1:] == ["-", "final", "user-0", "a"]
    assert sorted(line[1:] for line in columns[1:]) == [
        ["9998-12-31T00:00:00+00:00", "complete", "user-1", "approved"],
        ["9998-12-31T00:00:00+00:00", "complete", "user-1", "rejected"],
    ]
    assert re.fullmatch(r"20..-..-..T..:..:..\+00:00", columns[0][0])
    assert [line.split("\t") for line in command("watch", "list", URL, "--limit", "2").out.splitlines()] == columns[:2]
    told = command("watch", "list", URL, "--json").out
    assert json_lines(told)[0] == {
        "user_id": "user-0",
        "job_id": "a",
        "submitted_at": "2026-03-02T10:20:30.500000+00:00",
        "until": "final",
        "added_at": json_lines(told)[0]["added_at"],
        "expires_at": None,
    }
    assert command("watch", "add", "sqlite:///other.db", "-", stdin=told).out == "3 new, 0 known\n"
    again = json_lines(command("watch", "list", "sqlite:///other.db", "--json").out)
    names = ("user_id", "job_id", "submitted_at")
    assert sorted(map(itemgetter(*names), again)) == sorted(map(itemgetter(*names), json_lines(told)))


def test_control_characters_of_an_id_are_not_shown(command: Command) -> None:
    """A program may have added such a job; a terminal would obey them."""

    async def add() -> None:
        async with WatchList.open(URL) as watch:
            await watch.add([("user\t1", "a\x1b[2J")])

    anyio.run(add)
    assert command("watch", "list", URL).out.rstrip("\n").split("\t")[-2:] == ["user?1", "a?[2J"]


def test_from_adding_to_the_outcome(command: Command) -> None:
    """A worker polls until a SIGTERM, which is no error; outcomes come in order, from a cursor on, not raw."""
    command("watch", "add", URL, "-", stdin=f"{JOBS}user-1,running\nuser-1,disabled\n")
    answer = work(command, partial(ended, 3), "--keep-raw", "--rate", "500", "--concurrency", "5")
    assert (answer.code, answer.out) == (0, "")
    assert re.fullmatch(
        r"polling the jobs of sqlite:///jobs.db at http://\S+, at most 500 polls/s; SIGTERM or Ctrl-C stops it\n",
        answer.err,
    )
    told = command("watch", "outcomes", URL, "--json")
    found = {outcome["job_id"]: outcome for outcome in json_lines(told.out)}
    assert (told.code, told.err, set(found)) == (0, "", {"approved", "rejected", "disabled"})
    assert [found["approved"][name] for name in ("state", "verdict", "is_final")] == ["complete", "approved", True]
    assert [found["disabled"][name] for name in ("state", "verdict", "code")] == ["failed", None, "2307"]
    assert all("raw" not in outcome and outcome["cursor"] for outcome in found.values())
    with_raw = json_lines(command("watch", "outcomes", URL, "--json", "--raw").out)
    assert {outcome["job_id"]: bool(outcome["raw"]) for outcome in with_raw} == {
        "approved": True,
        "rejected": True,
        "disabled": False,
    }
    lines = [line.split("\t") for line in command("watch", "outcomes", URL).out.splitlines()]
    assert [line[0] for line in lines] == [outcome["cursor"] for outcome in found.values()]
    columns = {line[5]: [*line[2:5], line[6]] for line in lines}
    assert columns["approved"] == ["complete", "approved", "user-1", "Enroll User"]
    assert columns["disabled"][:3] == ["failed", "-", "user-1"]
    assert columns["disabled"][3].startswith("the API answered 2307")
    rest = command("watch", "outcomes", URL, "--after", lines[0][0]).out.splitlines()
    assert [line.split("\t") for line in rest] == lines[1:]


def test_counts(command: Command) -> None:
    """For people and for scripts."""
    command("watch", "add", URL, "-", stdin=JOBS)
    answer = command("watch", "counts", URL)
    oldest = answer.out.rpartition(" ")[2].strip()
    assert answer == Answer(
        0, f"pending      2\ncomplete     0\nfailed       0\nexpired      0\noldest       {oldest}\n", ""
    )
    found = json.loads(command("watch", "counts", URL, "--json").out)
    assert found["oldest"].startswith(oldest.removesuffix("+00:00"))
    good = dict.fromkeys(("paused", "outage", "outage_since", "stalled", "learned"))
    assert found == {"pending": 2, "complete": 0, "failed": 0, "expired": 0, "oldest": found["oldest"], **good}


SUBMITTED = "user_id,job_id,submitted_at\nuser-1,approved,2026-01-01T00:00:00Z\nuser-1,rejected,2026-01-01T00:00:00Z\n"


def test_a_worker_learns(command: Command) -> None:
    """How many jobs are remembered, and from how many it was learned, is in the counts, without ids."""
    command("watch", "add", URL, "-", stdin=SUBMITTED)
    assert work(command, partial(ended, 2), "--learn").code == 0
    learned = json.loads(command("watch", "counts", URL, "--json").out)["learned"]
    at = datetime.fromisoformat(learned["updated_at"])
    assert learned == {"remembered": 2, "jobs": 2, "reviews": 0, "since": ANY, "updated_at": ANY}
    told = f"learned      remembers 2, from 2 jobs and 0 reviews, last stored {at.isoformat(timespec='seconds')}\n"
    assert command("watch", "counts", URL).out.endswith(told)
    rows("UPDATE learned_pace SET pace = '{', updated_at = NULL")
    told = "learned      what is stored cannot be read by this version, from 2 jobs and 0 reviews\n"
    assert command("watch", "counts", URL).out.endswith(told)


def saved_pace(base: Pace | None = None) -> None:
    """Write a pace that has seen ten jobs."""
    pace = LearnedPace(base=base)
    for _ in range(10):
        pace.observe(pending_at=1, complete_at=2)
    pace.save("pace.json")


def test_a_worker_polls_at_a_pace_that_was_learned_before(command: Command) -> None:
    """It stays as it is, and the list learns nothing."""
    saved_pace()
    text = Path("pace.json").read_text()
    command("watch", "add", URL, "-", stdin=SUBMITTED)
    assert work(command, partial(ended, 2), "--pace", "pace.json").code == 0
    assert Path("pace.json").read_text() == text
    assert json.loads(command("watch", "counts", URL, "--json").out)["learned"] is None


def test_a_list_begins_to_learn_with_a_pace_that_was_learned_before(command: Command) -> None:
    """If nothing has been learned about it; otherwise it goes on from what it knows, with the base of the file."""
    saved_pace(Pace(max=600))
    command("watch", "add", URL, "-", stdin=SUBMITTED)
    assert work(command, partial(ended, 2), "--pace", "pace.json", "--learn").code == 0
    learned = json.loads(command("watch", "counts", URL, "--json").out)["learned"]
    assert (learned["remembered"], learned["jobs"]) == (12, 2)
    ((pace,),) = rows("SELECT pace FROM learned_pace")
    assert LearnedPace.from_json(pace).base == Pace(max=600)
    rows("UPDATE watch SET state = 0, place = NULL")
    answer = work(command, partial(ended, 2), "--learn")
    assert "WARNING the learned pace of the watch list has the base Pace(min=1.0, max=600.0, " in answer.err
    learned = json.loads(command("watch", "counts", URL, "--json").out)["learned"]
    assert (learned["remembered"], learned["jobs"]) == (14, 4)
    ((pace,),) = rows("SELECT pace FROM learned_pace")
    assert LearnedPace.from_json(pace).base == Pace(max=3600)


def test_wrong_credentials_pause_the_list(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker says so where its user sees it, and whoever asks for the health of the list gets an error."""
    monkeypatch.setattr("smilejobs.durable.Worker", partial(Worker, heartbeat=0.3))
    command("watch", "add", URL, "-", stdin=JOBS)
    answer = work(command, lambda: rows("SELECT 1 FROM about WHERE paused IS NOT NULL"), SMILE_API_KEY="wrong")
    assert answer.code == 0
    assert "\nERROR the API refuses the credentials, so the whole watch list is paused: the API answered" in answer.err
    assert "Traceback" not in answer.err
    healthy = command("watch", "counts", URL)
    assert healthy.code == 4
    assert healthy.out.startswith("paused       the API answered 2305")
    assert command("watch", "counts", URL, "--json").code == 4
    work(command, partial(ended, 2))
    assert command("watch", "counts", URL).code == 0


def test_retrying_and_pruning(command: Command) -> None:
    """What has failed is opened again; what has ended long ago goes, and nothing else."""
    command("watch", "add", URL, "-", stdin=f"{JOBS}user-1,disabled\n")
    work(command, partial(ended, 3))
    assert command("watch", "retry", URL) == Answer(0, "reopened 1 failed job\n", "")
    assert rows("SELECT job_id FROM watch WHERE state = 0") == [("disabled",)]
    assert command("watch", "prune", URL, "--older-than", "1h") == Answer(0, "deleted 0 jobs\n", "")
    rows("UPDATE watch SET ended_at = ended_at - 7200 WHERE job_id = 'approved'")
    assert command("watch", "prune", URL, "--older-than", "1h") == Answer(0, "deleted 1 job\n", "")
    assert {job_id for (job_id,) in rows("SELECT job_id FROM watch")} == {"rejected", "disabled"}


# --- The worker


def test_ctrl_c(command: Command) -> None:
    """It stops the worker as SIGTERM does, with the exit code of all commands."""
    command("watch", "add", URL, "-", stdin=JOBS)
    answer = work(command, partial(ended, 2), by=signal.SIGINT)
    assert answer.code == 130
    assert answer.err.endswith("stops it\n")


def test_a_second_worker(command: Command) -> None:
    """On SQLite it is refused in one line."""
    with FileLock("jobs.db-worker"):
        answer = command("worker", URL)
    assert answer.code == 4
    assert answer.err.splitlines()[1:] == [
        "smilejobs: another worker polls this watch list; on SQLite there can be one, on PostgreSQL as many as you like"
    ]


def test_on_a_terminal_it_shows_how_the_list_stands(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Now and then; while the database does not answer, what was shown last stays."""
    shown = io.StringIO()
    terminal = Console(file=shown, force_terminal=True, width=200, _environ={"TERM": "xterm"})
    monkeypatch.setattr(worker_module, "console", lambda *, stderr: terminal)
    monkeypatch.setattr(worker_module, "_STATUS_INTERVAL_SECONDS", 0.05)
    asked = []
    counts = WatchList.counts

    async def sometimes(self: WatchList) -> Counts:
        asked.append(1)
        if len(asked) == 1:
            raise WatchListError("the database is away")
        return await counts(self)

    monkeypatch.setattr(WatchList, "counts", sometimes)
    command("watch", "add", URL, "-", stdin="user_id,job_id\nuser-1,running\n")
    answer = work(command, lambda: "polls/s here" in shown.getvalue())
    assert answer == Answer(0, "", "")
    assert re.search(r"1 pending, \d+ polls/s here", shown.getvalue())


def test_a_worker_that_cannot_stop_is_ended(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """A database that hangs does not keep it beyond the time of a stop."""
    codes = []
    stopping = []
    given_up = threading.Event()

    def leave(code: int) -> None:
        codes.append(code)
        given_up.set()

    async def hang(self: Worker) -> None:
        try:
            stopping.append(1)
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(given_up.wait)

    monkeypatch.setattr(Worker, "run", hang)
    monkeypatch.setattr(worker_module, "_STOP_TIMEOUT_SECONDS", 0.05)
    monkeypatch.setattr(os, "_exit", leave)
    answer = work(command, lambda: stopping)
    assert codes == [4]
    assert answer.err.endswith(
        "\nsmilejobs: the database does not answer; what could not be stored will be polled again\n"
    )


def test_the_end_of_the_interpreter_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that hangs after all is stored keeps the process no longer either; that is no error."""
    codes: list[int] = []
    monkeypatch.setattr(os, "_exit", codes.append)
    shown = io.StringIO()
    end = worker_module._End(Console(file=shown))  # noqa: SLF001  # no test may end its own process
    end.is_clean = True
    end._leave()  # noqa: SLF001  # otherwise called by a timer, which ends this process
    assert (codes, shown.getvalue()) == ([0], "")


class WindowsLoop(asyncio.SelectorEventLoop):
    """An event loop without signal handlers, as that of Windows is."""

    def add_signal_handler(self, sig: int, callback: Callable[..., object], *args: object) -> None:
        raise NotImplementedError


def test_a_worker_on_windows(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """It starts, stops at SIGTERM, and leaves the handler as it was."""
    command("watch", "add", URL, "-", stdin=JOBS)
    monkeypatch.setattr(asyncio, "SelectorEventLoop", WindowsLoop)
    before = signal.getsignal(signal.SIGTERM)
    answer = work(command, partial(ended, 2))
    assert answer.code == 0
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("wait", ["0", "200ms", "0.2s"])
def test_a_worker_waits_for_its_database_at_the_start(command: Command, wait: str) -> None:
    """For as long as it is told; then it ends with what is wrong, in one line."""
    answer = command("worker", "postgresql://user:s3cret@127.0.0.1:9/jobs", "--wait", wait)
    if wait == "200ms":
        assert (answer.code, answer.out) == (2, "")
        assert answer.err.startswith("smilejobs: --wait must be a number and a unit")
        return
    lines = answer.err.splitlines()
    assert (answer.code, answer.out) == (4, "")
    assert "s3cret" not in answer.err
    assert lines[-1].startswith("smilejobs: the database of the watch list cannot be reached or used now")
    assert [line[:41] for line in lines[:-1]] == ([] if wait == "0" else ["WARNING trying again until the database w"])


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_database_that_comes_back_is_opened(tmp_path: Path) -> None:
    """The worker goes on as if it had been there; one that says nothing is given up as well."""
    attempts = []

    @asynccontextmanager
    async def opening() -> AsyncGenerator[WatchList, None]:
        attempts.append(1)
        if len(attempts) < 3:
            raise WatchListError("away", transient=True)
        async with WatchList.open(f"sqlite:///{tmp_path / 'jobs.db'}") as watch:
            yield watch

    @asynccontextmanager
    async def hanging() -> AsyncGenerator[WatchList, None]:
        await anyio.sleep_forever()
        yield watch

    async with AsyncExitStack() as stack:
        watch = await worker_module._open(opening, stack, None)  # noqa: SLF001  # no command can be run in between
        assert (await watch.counts()).pending == 0
        with pytest.raises(WatchListError, match="did not answer in time"):
            await worker_module._open(hanging, stack, 0.01)  # noqa: SLF001  # as above
    assert len(attempts) == 3


def test_an_outage_is_no_flood(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """One warning of the worker, and no line for each poll that failed."""
    monkeypatch.setattr("smilejobs.durable.Worker", partial(Worker, heartbeat=0.3))
    command("watch", "add", URL, "-", stdin=JOBS)
    answer = work(command, lambda: rows("SELECT 1 FROM leases WHERE name = 'outage'"), SMILE_BASE_URL=NOWHERE)
    assert answer.code == 0
    assert answer.err.count("\nWARNING no good answer of the API for ") == 1
    assert "poll 1 failed" not in answer.err
    assert rows(f"SELECT 1 FROM leases WHERE expires_at > {time.time()}") == []


def test_warnings_are_lines(capsys: pytest.CaptureFixture[str]) -> None:
    """Those of other libraries too, each in one line; where they come from is shown with --debug."""
    out = Console(stderr=True, soft_wrap=True)
    log = logging.getLogger("procrastinate.worker")
    try:
        with worker_module._warnings(out):  # noqa: SLF001  # no library can be made to warn in every way
            log.info("not told")
            log.warning("an error:\n  %s", "database\x1b[2J", exc_info=KeyError("cause"))
            set_debug(is_on=True)
            log.error("again", exc_info=KeyError("cause"))
            log.error("nothing more", exc_info=(None, None, None))
    finally:
        set_debug(is_on=False)
    log.debug("not told either")
    assert (
        capsys.readouterr().err
        == "WARNING an error: database?[2J\nERROR again\nKeyError: 'cause'\nERROR nothing more\n"
    )


# --- What cannot be


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("add", "mysql://host/jobs", "in.csv"), "a watch list is stored in SQLite or PostgreSQL, not in 'mysql'"),
        (("add", "jobs.db", "in.csv"), "this is not the URL of a database: write sqlite:///jobs.db"),
        (("add", URL, "missing.csv"), "No such file or directory: 'missing.csv'"),
        (("add", URL, "bad.csv"), "bad.csv: no column is named user_id or job_id in its first line"),
        (("add", URL, "in.csv", "--deadline", "soon"), "--deadline must be a number and a unit, for example 90s"),
        (("add", URL, "in.csv", "--deadline", "0"), "--deadline must be more than 0"),
        (("list", URL), "there is no watch list 'jobs.db': create it with smilejobs watch add"),
        (("outcomes", URL), "there is no watch list 'jobs.db'"),
        (("outcomes", URL, "--raw"), "--raw needs --json"),
        (("counts", "sqlite://"), "a watch list in memory survives nothing"),
        (("prune", URL, "--older-than", "long"), "--older-than must be a number and a unit"),
    ],
)
def test_wrong_usage(command: Command, arguments: tuple[str, ...], words: str) -> None:
    """It is said in one line, and nothing is made."""
    Path("in.csv").write_text(JOBS)
    Path("bad.csv").write_text("name\n")
    answer = command("watch", *arguments)
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith("smilejobs: ")
    assert words in answer.err
    assert answer.err.count("\n") == 1
    assert not Path("jobs.db").exists()


@pytest.mark.parametrize(
    ("environment", "options", "words"),
    [
        ({"SMILE_API_KEY": ""}, (), "SMILE_API_KEY"),
        ({}, ("--rate", "0"), "rate must be a finite number above 0"),
        ({}, ("--pace", "none.json"), "No such file or directory: 'none.json'"),
        ({}, ("--pace", "/dev/null", "--learn"), "--pace: /dev/null: not a learned pace"),
    ],
)
def test_wrong_usage_of_the_worker(
    command: Command, environment: dict[str, str], options: tuple[str, ...], words: str
) -> None:
    """It is said in one line, and nothing is made."""
    answer = command("worker", URL, *options, **environment)
    assert (answer.code, answer.out, answer.err.count("\n")) == (2, "", 1)
    assert words in answer.err
    assert not Path("jobs.db").exists()


def test_the_cursor_of_another_list(command: Command) -> None:
    """It is refused, whatever it looks like."""
    command("watch", "add", URL, "-", stdin=JOBS)
    for cursor, words in (("00000000-1", "this cursor is of another watch list"), ("7", "after must be the cursor")):
        answer = command("watch", "outcomes", URL, "--after", cursor)
        assert (answer.code, answer.out, answer.err.count("\n")) == (2, "", 1)
        assert words in answer.err


@pytest.mark.parametrize("name", ["add", "counts", "worker"])
def test_a_database_that_is_down(command: Command, name: str) -> None:
    """It is one line, without the password."""
    words = ("worker", "--wait", "0") if name == "worker" else ("watch", name)
    source = ("-",) if name == "add" else ()
    answer = command(*words, "postgresql://user:s3cret@127.0.0.1:9/jobs", *source, stdin=JOBS)
    assert (answer.code, answer.out, answer.err.count("\n")) == (4, "", 1)
    assert "the database of the watch list cannot be reached" in answer.err
    assert "s3cret" not in answer.err


@pytest.mark.parametrize("words", [("watch", "counts", URL), ("worker", URL)])
def test_a_list_of_a_newer_version(command: Command, words: tuple[str, ...]) -> None:
    """It is left alone."""
    command("watch", "add", URL, "-", stdin=JOBS)
    rows("UPDATE about SET version = 99")
    answer = command(*words)
    assert (answer.code, answer.out, answer.err.count("\n")) == (4, "", 1)
    assert "upgrade smilejobs here too" in answer.err


@pytest.mark.parametrize("missing", ["aiosqlite", "procrastinate"])
@pytest.mark.parametrize("words", [("watch", "counts", URL), ("worker", URL)])
def test_without_the_extra(
    command: Command, words: tuple[str, ...], missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is said what to install."""
    for module in [module for module in sys.modules if module.startswith("smilejobs.durable")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, missing, None)
    answer = command(*words)
    assert (answer.code, answer.out, answer.err.count("\n")) == (2, "", 1)
    assert answer.err.endswith("pip install 'smilejobs[durable]'\n")


def test_the_help(command: Command) -> None:
    """Every command has an example, and tells its exit codes."""
    shown = command("--help").out
    assert " watch " in shown
    assert " worker " in shown
    for words in (("worker",), *(("watch", name) for name in NAMES)):
        shown = " ".join(command(*words, "--help", COLUMNS="200").out.split())
        assert f"Example: smilejobs {' '.join(words)} sqlite:///jobs.db" in shown
        assert "Exit codes: 0 " in shown
    shown = command("watch", "--help").out
    assert all(f" {name} " in shown for name in NAMES)


# --- As processes


@pytest.fixture
def environment(base_url: str) -> dict[str, str]:
    return {**os.environ, **ENVIRONMENT, "SMILE_BASE_URL": base_url}


@contextmanager
def process(*arguments: str, environment: dict[str, str], cwd: Path) -> Generator["subprocess.Popen[str]", None, None]:
    """A command, while the block runs."""
    command = [sys.executable, "-c", "import smilejobs.cli; smilejobs.cli.main()", *arguments]
    with subprocess.Popen(
        command, cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as started:
        try:
            yield started
        finally:
            started.kill()  # nothing happens if it has ended


@pytest.mark.slow
def test_from_end_to_end(command: Command, environment: dict[str, str], tmp_path: Path) -> None:
    """Outcomes are followed while a worker makes them, a second worker is refused, and each stops when it is told."""
    Path("in.csv").write_text(JOBS)
    start = partial(process, environment=environment, cwd=tmp_path)
    assert command("watch", "add", URL, "in.csv") == Answer(0, "2 new, 0 known\n", "")
    with start("watch", "outcomes", URL, "--follow", "--json") as following, start("worker", URL) as working:
        assert following.stdout is not None
        found = [json.loads(following.stdout.readline()) for _ in range(2)]
        refused = command("worker", URL)
        command("watch", "add", URL, "-", stdin="user_id,job_id\nuser-1,disabled\n")
        late = json.loads(following.stdout.readline())
        following.send_signal(signal.SIGINT)
        assert following.communicate(timeout=300) == ("", "")
        working.send_signal(signal.SIGTERM)
        out, err = working.communicate(timeout=300)
    assert {outcome["verdict"] for outcome in found} == {"approved", "rejected"}
    assert late["state"] == "failed"
    assert refused.code == 4
    assert (following.returncode, working.returncode, out, err.count("\n")) == (130, 0, "", 1)  # 4 if it had to give up


@pytest.mark.sample
def test_on_postgres(command: Command, environment: dict[str, str], postgres_url: str, tmp_path: Path) -> None:
    """Two workers at once; what they say does not hold the password."""
    password = postgres_url.split(":")[2].partition("@")[0]
    assert command("watch", "add", postgres_url, "-", stdin=JOBS).out == "2 new, 0 known\n"
    start = partial(process, environment=environment, cwd=tmp_path)
    with start("worker", postgres_url) as first, start("worker", postgres_url) as second:
        assert first.stderr is not None
        assert second.stderr is not None
        told = [worker.stderr.readline() for worker in (first, second) if worker.stderr]
        wait_until(lambda: json.loads(command("watch", "counts", postgres_url, "--json").out)["complete"] == 2)
        for worker in (first, second):
            worker.send_signal(signal.SIGTERM)
        rest = [worker.communicate(timeout=300) for worker in (first, second)]
    assert [first.returncode, second.returncode] == [0, 0]
    for line in told:
        assert line.startswith("polling the jobs of postgresql://")
    for out, err in rest:
        assert out == ""
        assert all(line.startswith("WARNING ") for line in err.splitlines())  # a slow machine looks like an outage
    assert password not in "".join([*told, *itertools.chain.from_iterable(rest)])
    verdicts = {outcome["verdict"] for outcome in json_lines(command("watch", "outcomes", postgres_url, "--json").out)}
    assert verdicts == {"approved", "rejected"}
