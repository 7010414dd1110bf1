"""Wait for one job: the ten lines that a service needs."""

import asyncio
import sys

import smilejobs


async def verify(user_id: str, job_id: str) -> bool:
    async with smilejobs.Client.from_env() as client:
        try:
            status = await client.wait(user_id, job_id, timeout=120)
        except smilejobs.WaitTimeoutError as error:
            print(f"not yet, ask again later: {error}")
            return False
    print(f"{status.verdict}: {status.result and status.result.result_text}")
    return status.verdict is smilejobs.Verdict.APPROVED


if __name__ == "__main__":
    asyncio.run(verify(*sys.argv[1:3]))
