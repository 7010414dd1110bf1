"""Save the pictures of jobs before their links expire: ``python images.py FOLDER USER_ID JOB_ID [JOB_ID ...]``."""

import asyncio
import sys
from pathlib import Path

import smilejobs


async def show(user_id: str, job_id: str) -> None:
    async with smilejobs.Client.from_env() as client:
        async for image in client.images(user_id, job_id, names=["selfie_image"]):
            print(image.name, image.content_type, len(image.data) > 0)


async def save_when_complete(user_id: str, job_id: str, folder: Path) -> None:
    async with smilejobs.Client.from_env() as client:
        status = await client.wait(user_id, job_id, image_links=True)
        print(status.verdict, len(await client.save_images(status, folder)))


async def save(pairs: list[tuple[str, str]], folder: Path) -> None:
    async with (
        smilejobs.Client.from_env() as client,
        client.save_images_many(pairs, folder) as outcomes,
    ):
        async for outcome in outcomes:
            print(outcome.index, len(outcome.paths), outcome.error or "all saved")


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit("usage: python images.py FOLDER USER_ID JOB_ID [JOB_ID ...]")
    target = Path(sys.argv[1])
    target.mkdir(exist_ok=True)
    ids = [(sys.argv[2], job_id) for job_id in sys.argv[3:]]
    asyncio.run(show(*ids[0]))
    asyncio.run(save_when_complete(*ids[0], target))
    asyncio.run(save(ids[1:], target))
