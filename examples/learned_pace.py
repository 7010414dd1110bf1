"""Wait for the jobs of a file at a pace that learns how long jobs take, from one run to the next.

::

    python examples/learned_pace.py jobs.txt pace.json

The file has a line ``user_id job_id`` for each job.
"""

import asyncio
import sys
from pathlib import Path

import smilejobs


async def wait_for_all(refs: list[smilejobs.JobRef], pace: smilejobs.LearnedPace) -> None:
    """Wait for all jobs; each of them teaches the pace."""
    async with smilejobs.Client.from_env(pace=pace) as client, client.wait_many(refs) as outcomes:
        async for outcome in outcomes:
            print(outcome.ref.job_id, outcome.error or "complete")


def main(jobs: str, saved: str) -> None:
    """Go on from what earlier runs have learned, and save what this one learns."""
    pairs = [line.split(" ") for line in Path(jobs).read_text("utf-8").splitlines()]
    refs = [smilejobs.JobRef(user_id, job_id) for user_id, job_id in pairs]
    pace = smilejobs.LearnedPace.load(saved) if Path(saved).exists() else smilejobs.LearnedPace()
    asyncio.run(wait_for_all(refs, pace))
    pace.save(saved)


if __name__ == "__main__":
    main(*sys.argv[1:])
