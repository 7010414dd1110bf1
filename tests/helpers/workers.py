"""Workers of a watch list, each in a process of its own, for tests and benchmarks that kill them.

Run as a script it is such a worker; a SIGTERM stops it as `smilejobs worker` stops.
"""

import asyncio
import json
import logging
import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from typing import Self

from attrs import asdict, define, field

from smilejobs import Client
from smilejobs.durable import WatchList, Worker


@define
class Workers:
    """Workers of one list; those that still run when the ``with`` block ends are killed.

    Args:
        url: The watch list.
        base_url: Of the API. The worker that is started as the n-th, from 0, asks at ``/n/v1``, by which a server can
            tell them apart.
        partner_id: The credentials.
        api_key: The credentials.
        rate: Of all workers together; None for no limit.
        pace: Seconds between the polls of a job; None for the worker's own pace.
        lease_duration: In seconds.
        heartbeat: In seconds.
    """

    url: str
    base_url: str
    partner_id: str = field(kw_only=True)
    api_key: str = field(kw_only=True)
    rate: float | None = field(default=None, kw_only=True)
    pace: float | None = field(default=None, kw_only=True)
    lease_duration: float = field(default=60.0, kw_only=True)
    heartbeat: float = field(default=5.0, kw_only=True)
    processes: list["subprocess.Popen[bytes]"] = field(init=False, factory=list)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for index in range(len(self.processes)):
            self.kill(index)

    def start(self, count: int = 1) -> None:
        """Start so many more."""
        for _ in range(count):
            options = asdict(self, filter=lambda attribute, _: attribute.init)
            options["base_url"] = f"{self.base_url.removesuffix('/v1')}/{len(self.processes)}/v1"
            command = [sys.executable, __file__, json.dumps(options)]
            self.processes.append(subprocess.Popen(command, stdin=subprocess.PIPE))

    def kill(self, index: int) -> None:
        """Kill one by SIGKILL, and see it gone; nothing happens if it has ended."""
        process = self.processes[index]
        process.kill()
        process.wait()
        assert process.stdin is not None
        process.stdin.close()

    def running(self) -> list[int]:
        """Which are there."""
        return [index for index, process in enumerate(self.processes) if process.poll() is None]


async def work(
    *,
    url: str,
    base_url: str,
    partner_id: str,
    api_key: str,
    rate: float | None,
    pace: float | None,
    lease_duration: float,
    heartbeat: float,
) -> None:
    """Be a worker until a SIGTERM comes."""
    working = asyncio.current_task()
    assert working is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, working.cancel)
    async with (
        Client(partner_id=partner_id, api_key=api_key, base_url=base_url, rate=rate) as client,
        WatchList.open(url) as watch,
    ):
        await Worker(
            client,
            watch,
            pace=None if pace is None else lambda age, polls: pace,
            lease_duration=lease_duration,
            heartbeat=heartbeat,
        ).run()


def end_with_parent() -> None:
    """Die when nobody holds the other end of the standard input any more."""
    os.read(0, 1)
    os._exit(1)


if __name__ == "__main__":
    logging.disable()  # those whose database is restarted complain; what ends a worker is shown all the same
    threading.Thread(target=end_with_parent, daemon=True).start()
    with suppress(asyncio.CancelledError):
        asyncio.run(work(**json.loads(sys.argv[1])))
