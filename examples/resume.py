"""Wait for a job for some seconds, and resume the wait in the next run: ``resume.py SECONDS FILE [USER JOB]``."""

import asyncio
import json
import sys
from datetime import UTC, datetime
from pathlib import Path

import smilejobs


async def resume(timeout: float, user_id: str, job_id: str, submitted_at: str) -> bool:
    # With its time of submission, a job keeps its age, and so its pace, from one run to the next.
    at = datetime.fromisoformat(submitted_at)
    async with smilejobs.Client.from_env() as client:
        try:
            status = await client.wait(user_id, job_id, timeout=timeout, submitted_at=at)
        except smilejobs.WaitTimeoutError as error:
            print(f"{error}\nThe last answer: {error.last}")
            return False
    print(status.verdict)
    return True


if __name__ == "__main__":
    timeout, file = float(sys.argv[1]), Path(sys.argv[2])
    if len(sys.argv) > 3:
        file.write_text(json.dumps([*sys.argv[3:5], datetime.now(UTC).isoformat()]))
    if asyncio.run(resume(timeout, *json.loads(file.read_text()))):
        file.unlink()
