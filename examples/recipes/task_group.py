"""Wait for several jobs of one customer at once; if one of them cannot be waited for, the others stop too."""

import asyncio
from collections.abc import Iterable

import smilejobs


async def verify_all(client: smilejobs.Client, user_id: str, job_ids: Iterable[str]) -> bool:
    async with asyncio.TaskGroup() as tasks:
        waits = [tasks.create_task(client.wait(user_id, job_id, timeout=120)) for job_id in job_ids]
    return all(wait.result().verdict is smilejobs.Verdict.APPROVED for wait in waits)
