"""Measure the cost of ``smilejobs batch`` over ``wait_many``, and whether its memory grows with the input.

::

    python benchmarks/batch_command.py [cpu|memory ...]

- **cpu**: 20,000 jobs of two polls, from a cheap server in a process of its own: CPU time of the command (a process,
  CSV in and JSON Lines out, with a report) over that of a process that iterates over `Client.wait_many` for the same
  jobs and writes nothing. Five rounds, alternating; the median of the ratios.
- **memory**: the same run as the command's, over a transport that answers from memory, of 1,000 and of 200,000 rows:
  peak resident memory, each in a process of its own.

The exit code is 1 if a bar is missed.
"""

import argparse
import asyncio
import json
import os
import resource
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import smilejobs
from server import API_KEY, PARTNER_ID, TIMESTAMP, server, signature
from smilejobs.batch.journal import Journal
from smilejobs.batch.report import Report
from smilejobs.batch.rows import ENCODING, ERRORS, Rows
from smilejobs.batch.run import Run


def main() -> int:
    """Measure, print, and return 1 if a bar is missed."""
    parser = argparse.ArgumentParser(description="What the batch command costs.")
    parser.add_argument("which", nargs="*", choices=["cpu", "memory", []], help="all by default")
    parser.add_argument("--bare", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--peak", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.bare is not None:
        asyncio.run(bare(options.bare))
        return 0
    if options.peak is not None:
        print(asyncio.run(peak(options.peak)))
        return 0
    measures = {"cpu": cpu, "memory": memory}
    return 0 if sum(not measures[name]() for name in options.which or measures) == 0 else 1


def line(name: str, value: str, bar: str, *, met: bool) -> bool:
    """Print one line of the table."""
    print(f"{name:<58}{value:>18}   {bar} {'met' if met else 'MISSED'}", flush=True)
    return met


def write_input(path: Path, count: int) -> None:
    """Write a CSV file of so many jobs."""
    with path.open("w") as file:
        file.write("user_id,job_id,note\n")
        file.writelines(f"user-{index},job-{index},row {index}\n" for index in range(count))


async def bare(count: int) -> None:
    """Wait for the jobs, and write nothing."""
    refs = [smilejobs.JobRef(f"user-{index}", f"job-{index}") for index in range(count)]
    async with smilejobs.Client.from_env(rate=100_000.0) as client, client.wait_many(refs) as outcomes:
        done = [outcome.status is not None async for outcome in outcomes]
    assert done == [True] * count


def cpu(count: int = 20_000, rounds: int = 5) -> bool:
    """CPU time of the command over that of bare `wait_many`."""
    ratios = []
    with TemporaryDirectory() as folder:
        source = Path(folder, "in.csv")
        write_input(source, count)
        start = [sys.executable, "-c", "import smilejobs.cli; smilejobs.cli.main()", "batch", str(source)]
        for number in range(rounds):
            results = Path(folder, f"{number}.jsonl")
            end = ["--out", str(results), "--rate", "100000", "--report", str(Path(folder, f"{number}.html"))]
            command = spent([*start, *end])
            assert len(results.read_bytes().splitlines()) == count
            alone = spent([sys.executable, __file__, "--bare", str(count)])
            print(f"  round {number + 1}: the command {command:.2f} s, wait_many {alone:.2f} s", flush=True)
            ratios.append(command / alone)
    ratio = median(ratios)
    return line(
        f"CPU of the command over wait_many, {count:,} rows", f"ratio {ratio:.2f}", "<= 1.15", met=ratio <= 1.15
    )


def spent(command: list[str]) -> float:
    """Run a command against a new server, to which no job is known, and return its CPU time in seconds."""
    with server(polls=2) as base_url:
        environment = {"SMILE_BASE_URL": base_url, "SMILE_PARTNER_ID": PARTNER_ID, "SMILE_API_KEY": API_KEY}
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(
            command, check=True, env={**os.environ, **environment}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


class Answer:
    """A response from memory."""

    status_code = 200
    headers: Mapping[str, str] = {}

    def __init__(self, body: bytes) -> None:
        self._body = body

    async def aiter_raw(self) -> AsyncIterator[bytes]:
        yield self._body


class FromMemory:
    """A transport that answers from memory: the job is complete."""

    def __init__(self) -> None:
        self._signed = {"timestamp": TIMESTAMP, "signature": signature(TIMESTAMP)}

    @asynccontextmanager
    async def stream(self, method: str, url: str, *, content: bytes, **options: object) -> AsyncIterator[Answer]:
        asked = json.loads(content)
        params = {"user_id": asked["user_id"], "job_id": asked["job_id"], "job_type": 1}
        result = {"ResultCode": "0810", "SmileJobID": "1", "PartnerParams": params}
        answer = {"job_complete": True, "job_success": True, "code": "2302", "result": result}
        yield Answer(json.dumps(self._signed | answer).encode())


async def peak(count: int) -> int:
    """Return the peak of resident memory, in bytes, of a batch of so many rows."""
    with TemporaryDirectory() as folder:
        source = Path(folder, "in.csv")
        write_input(source, count)
        report = Report()
        with source.open(encoding=ENCODING, errors=ERRORS, newline="") as stream:  # noqa: ASYNC230  # the command reads so, too
            rows = Rows(stream)
            with Journal(
                Path(folder, "out.csv"),
                columns=rows.columns,
                extra=(),
                resume=False,
                keep=lambda record: True,
                on_record=report.add_record,
            ) as journal:
                async with smilejobs.Client(
                    partner_id=PARTNER_ID, api_key=API_KEY, environment="sandbox", http_client=FromMemory(), rate=None
                ) as client:
                    await Run(
                        client=client,
                        journal=journal,
                        timeout=60,
                        until="complete",
                        history=False,
                        personal=False,
                        save_images=None,
                        on_record=report.add_record,
                        on_bad_row=print,
                        on_progress=lambda progress: None,
                    ).wait(rows, blocking=False)
        report.write(Path(folder, "report.html"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def memory(few: int = 1000, many: int = 200_000) -> bool:
    """Peak memory with a small and with a large input."""
    small, large = (
        int(subprocess.check_output([sys.executable, __file__, "--peak", str(count)])) for count in (few, many)
    )
    name = f"memory, {few:,} rows {small / 2**20:.1f} MiB, {many:,} rows {large / 2**20:.1f} MiB"
    return line(name, f"ratio {large / small:.2f}", "<= 1.20", met=large <= 1.2 * small)


if __name__ == "__main__":
    sys.exit(main())
