"""A batch that is killed a hundred times, at random moments, and resumed each time."""

import csv
import json
import os
import random
import subprocess
import sys
from collections.abc import Generator, Mapping
from pathlib import Path

import pytest
from anyio.from_thread import start_blocking_portal
from attrs import define, field

from smilejobs.sandbox import Sandbox

KILLS = 100
ROWS = 600
NOTE = 'two\r\nlines, "quoted"\n'


@define
class Batch:
    """An input, its results, and what must be in them."""

    source: Path
    results: Path
    environment: Mapping[str, str]
    kills: int = 0
    kept: dict[int, str] = field(factory=dict[int, str])

    def start(self) -> "subprocess.Popen[bytes]":
        options = ["--out", str(self.results), "--resume", "--rate", "300", "--timeout", "0.3s", "--quiet"]
        command = [sys.executable, "-c", "import smilejobs.cli; smilejobs.cli.main()", "batch", str(self.source)]
        return subprocess.Popen([*command, *options], env={**os.environ, **self.environment})

    def rows(self) -> list[Mapping[str, object]]:
        """The whole rows of the results file; what a kill has left behind the last one is not among them."""
        if not self.results.exists():
            return []
        data = self.results.read_bytes()
        if self.results.suffix == ".jsonl":
            return [json.loads(line) for line in data[: data.rfind(b"\n") + 1].splitlines()]
        whole = 0
        for at in (at for at, byte in enumerate(data) if byte == ord("\n")):
            if data[at - 1 : at] == b"\r" and data.count(b'"', whole, at) % 2 == 0:
                whole = at + 1
        return [*csv.DictReader(data[:whole].decode().splitlines(keepends=True))]

    def check(self) -> None:
        """No row is there twice, and none that had a final outcome is gone or another."""
        rows = self.rows()
        found = {int(str(row["index"])): str(row["outcome"]) for row in rows}
        assert len(found) == len(rows)
        assert self.kept.items() <= found.items()
        self.kept = {index: outcome for index, outcome in found.items() if outcome in ("complete", "refused")}

    def check_all(self, outcomes: Mapping[int, str]) -> None:
        """Every row has exactly one outcome, the right one, and what it brought along."""
        rows = self.rows()
        assert {int(str(row["index"])): row["outcome"] for row in rows} == outcomes
        assert len(rows) == len(outcomes)
        for row in rows:
            assert row["job_id"] == f"job-{row['index']}"
            assert row["note"] == NOTE


@pytest.fixture(scope="module")
def environment() -> Generator[Mapping[str, str], None, None]:
    sandbox = Sandbox()
    for index in range(ROWS):
        if index % 40 == 0:
            sandbox.submit("user", f"job-{index}", machine=36_000)
        elif index % 41 == 0:
            sandbox.submit("user", f"job-{index}", refusal="2307")
        else:
            sandbox.submit("user", f"job-{index}", machine=0)
    with start_blocking_portal("asyncio") as portal, portal.wrap_async_context_manager(sandbox.serve()) as base_url:
        yield {
            "SMILE_PARTNER_ID": "085",
            "SMILE_API_KEY": "sandbox-key",
            "SMILE_BASE_URL": base_url,
            "SMILE_ENVIRONMENT": "",
        }


def expected(index: int) -> str:
    if index % 40 == 0:
        return "pending"
    return "refused" if index % 41 == 0 else "complete"


def write_input(path: Path) -> None:
    with path.open("w", newline="") as file:
        if path.suffix == ".csv":
            csv.writer(file).writerow(["user_id", "job_id", "note"])
            csv.writer(file).writerows(["user", f"job-{index}", NOTE] for index in range(ROWS))
        else:
            rows = ({"user_id": "user", "job_id": f"job-{index}", "note": NOTE} for index in range(ROWS))
            file.writelines(f"{json.dumps(row)}\n" for row in rows)


def test_a_hundred_kills(tmp_path: Path, environment: Mapping[str, str]) -> None:
    """Nothing that was written is lost, and in the end every row of the input has exactly one outcome."""
    draw = random.Random()
    kills = batches = 0
    while kills < KILLS:
        suffix = ".csv" if batches % 2 else ".jsonl"
        source = tmp_path / f"in-{batches}{suffix}"
        write_input(source)
        batch = Batch(source, tmp_path / f"out-{batches}{suffix}", environment)
        batches += 1
        while True:
            process = batch.start()
            try:
                code = process.wait(draw.uniform(0.1, 2.5))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                kills += 1
                batch.check()
            else:
                assert code == 4
                break
        batch.check()
        batch.check_all({index: expected(index) for index in range(ROWS)})
    assert batches > 1
