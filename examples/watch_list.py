"""Waiting that survives restarts: a service adds jobs, a worker polls them, and somebody deals with the outcomes.

python watch_list.py sqlite:///jobs.db add user-1 job-1
python watch_list.py sqlite:///jobs.db work
python watch_list.py sqlite:///jobs.db follow cursor.txt
"""

import asyncio
import sys
from datetime import timedelta

import anyio

import smilejobs
from smilejobs.durable import WatchList, Worker


async def add(url: str, user_id: str, job_id: str) -> None:
    async with WatchList.open(url) as watch:
        await watch.add([smilejobs.JobRef(user_id, job_id)], until="final", deadline=timedelta(days=7))
        print(await watch.counts())


async def work(url: str) -> None:
    async with smilejobs.Client.from_env() as client, WatchList.open(url) as watch:
        await Worker(client, watch).run()


async def follow(url: str, notes: anyio.Path) -> None:
    cursor = await notes.read_text() if await notes.exists() else None
    async with WatchList.open(url) as watch:
        async for outcome in watch.outcomes(after=cursor, follow=True):
            print(outcome.ref.job_id, outcome.state, outcome.verdict, flush=True)
            await notes.write_text(outcome.cursor)  # only now: an outcome that was not processed is yielded again


async def pass_on(watch: WatchList, callback: smilejobs.Callback) -> None:
    await watch.notify(callback)


if __name__ == "__main__":
    url, command, *rest = sys.argv[1:]
    if command == "add":
        asyncio.run(add(url, *rest))
    elif command == "work":
        asyncio.run(work(url))
    else:
        asyncio.run(follow(url, anyio.Path(*rest)))
