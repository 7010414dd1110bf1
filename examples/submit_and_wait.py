"""Submit a job with the vendor's client, wait for its result with smilejobs: submit_and_wait.py USER JOB SELFIE.

The vendor's client is `smile-id-core`. Both go to the same server: the one of SMILE_ENVIRONMENT, or of SMILE_BASE_URL,
such as a running sandbox.
"""

import asyncio
import os
import sys
from datetime import UTC, datetime

from smile_id_core import WebApi

import smilejobs


def vendor_client() -> WebApi:
    server = os.environ.get("SMILE_BASE_URL") or {"sandbox": 0, "production": 1}[os.environ["SMILE_ENVIRONMENT"]]
    callback_url = os.environ["SMILE_CALLBACK_URL"]  # the vendor's client needs one, or it would poll by itself
    return WebApi(os.environ["SMILE_PARTNER_ID"], callback_url, os.environ["SMILE_API_KEY"], server)


async def verify(client: smilejobs.Client, user_id: str, job_id: str, selfie: str) -> smilejobs.JobStatus:
    await asyncio.to_thread(
        vendor_client().submit_job,
        {"user_id": user_id, "job_id": job_id, "job_type": 4},  # SmartSelfie registration
        [{"image_type_id": 0, "file_name": selfie}],
        {},
        {"return_job_status": False},
    )
    return await client.wait(user_id, job_id, submitted_at=datetime.now(UTC), timeout=120)


async def main(user_id: str, job_id: str, selfie: str) -> None:
    async with smilejobs.Client.from_env() as client:
        status = await verify(client, user_id, job_id, selfie)
    print(f"{status.verdict}: {status.result and status.result.result_text}")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:4]))
