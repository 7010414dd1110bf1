"""Show every change on the way to the final outcome, human review included."""

import asyncio
import sys
from datetime import timedelta

import smilejobs


async def follow(user_id: str, job_id: str) -> None:
    async with smilejobs.Client.from_env() as client:
        async for status in client.watch(user_id, job_id, until="final", timeout=timedelta(hours=6)):
            print(status.code, status.verdict, "final" if status.is_final else "to be continued")


if __name__ == "__main__":
    asyncio.run(follow(*sys.argv[1:3]))
