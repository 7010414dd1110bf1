"""Wait for every job of a CSV file, and write the verdicts: python batch_check.py pending.csv results.csv."""

import asyncio
import sys
from collections.abc import Callable, Iterator
from csv import DictReader, writer
from datetime import datetime
from pathlib import Path

import smilejobs


def jobs(source: Path) -> Iterator[smilejobs.JobRef]:
    with source.open(newline="") as file:
        for row in DictReader(file):
            yield smilejobs.JobRef(row["user_id"], row["job_id"], datetime.fromisoformat(row["submitted_at"]))


def show(progress: smilejobs.Progress) -> None:
    print(f"{progress.done} done, {progress.failed} failed, {progress.pending} pending")


async def check(source: Path, report: Callable[[smilejobs.Outcome], None]) -> None:
    async with (
        smilejobs.Client.from_env() as client,
        client.wait_many(jobs(source), timeout=120, on_progress=show) as outcomes,
    ):
        async for outcome in outcomes:
            report(outcome)


def main(source: Path, target: Path) -> None:
    with target.open("w", newline="") as file:
        rows = writer(file)

        def write(outcome: smilejobs.Outcome) -> None:
            ending = type(outcome.error).__name__ if outcome.status is None else outcome.status.verdict
            rows.writerow([outcome.ref.user_id, outcome.ref.job_id, ending])

        asyncio.run(check(source, write))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:3]))
