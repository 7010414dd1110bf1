"""Go on waiting when the API key is replaced: open a client with the new key, and keep the age of the job."""

from collections.abc import Callable
from datetime import datetime

import anyio

import smilejobs

PAUSES_SECONDS = (5, 30, 60, 300)
"""How long to wait for the secret store to have the new key, after each refusal."""


async def wait_across_rotation(
    open_client: Callable[[], smilejobs.Client], user_id: str, job_id: str, submitted_at: datetime
) -> smilejobs.JobStatus:
    """Wait for a job. `open_client` reads the key from where it is kept, each time that it is called."""
    for pause in PAUSES_SECONDS:
        try:
            async with open_client() as client:
                return await client.wait(user_id, job_id, submitted_at=submitted_at, timeout=3600)
        except smilejobs.CredentialsError:
            await anyio.sleep(pause)
    async with open_client() as client:
        return await client.wait(user_id, job_id, submitted_at=submitted_at, timeout=3600)
