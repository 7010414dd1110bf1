"""What callbacks are worth: polls per job and lateness with them, against polling alone on the same sandbox.

::

    python benchmarks/notify.py

The sandbox is served on a socket of loopback, and a small receiver on another one. Jobs come evenly, 20 a second, and
take 2 s in the median; each is waited for by a `Client.wait` from its submission. Where callbacks are on, the sandbox
POSTs each result, signed, to the receiver at the instant at which it is there; the receiver verifies it and calls
`Client.notify`, and the wait that it wakes polls. Three ways to wait, one after the other, with the same jobs:

- polling alone, with the default pace;
- callbacks, with ``Pace.relaxed()``: one poll at the beginning, one when the callback comes;
- callbacks, with ``first_after`` as well, so that the callback causes the first poll.

*Lateness* is the time from the instant of the result to that at which `Client.wait` returns. A *round trip* is what a
poll takes in the same run, in the median. Loopback has no distance, so the sandbox adds one: 50 ms to the answer of a
poll, and half of that to a callback, which goes one way. All three parties share one process, so the time that each of
them computes is part of the lateness; with ``--distance 0`` it is nearly all of it, and says nothing about callbacks.

The exit code is 1 if a bar is missed: 2.2 polls per job with ``Pace.relaxed()``, 1.2 with ``first_after``, and with
both a median lateness of two round trips.
"""

import argparse
import asyncio
import random
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from statistics import fmean, median, quantiles

from attrs import define, field, frozen
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, Router

import smilejobs
from smilejobs.clock import utcnow
from smilejobs.sandbox import Delivery, FaultProfile, Lognormal, Sandbox
from smilejobs.sandbox.server import serve

CREDENTIALS = smilejobs.Credentials("085", "sandbox-key")
DURATION = Lognormal(2.0, 0.5)
PER_SECOND = 20
ROUND_TRIPS_BAR = 2.0


@frozen
class Way:
    """One way to wait.

    Attributes:
        bar: The most polls per job; None for no bar at all.
    """

    name: str
    pace: smilejobs.Pace
    first_after: float = 0.0
    bar: float | None = None


WAYS = (
    Way("polling alone", smilejobs.Pace()),
    Way("callbacks, relaxed", smilejobs.Pace.relaxed(), bar=2.2),
    Way("callbacks, first_after=10", smilejobs.Pace.relaxed(), first_after=10.0, bar=1.2),
)


@define
class Seen:
    """What was measured, in seconds."""

    polls: list[int] = field(factory=list)
    lateness: list[float] = field(factory=list)
    round_trips: list[float] = field(factory=list)

    def take(self, event: smilejobs.Event) -> None:
        """Be a hook."""
        if isinstance(event, smilejobs.PollFinished):
            self.round_trips.append(event.seconds)
        elif isinstance(event, smilejobs.WaitEnded):
            self.polls.append(event.polls)


def main() -> int:
    """Measure, print, and say by the exit code whether the bars hold."""
    parser = argparse.ArgumentParser(description="Polls per job and lateness, with callbacks and without.")
    parser.add_argument("--jobs", type=int, default=300, help="jobs for each way, at least 50 (default: 300)")
    parser.add_argument("--distance", type=float, default=0.05, help="seconds, there and back (default: 0.05)")
    options = parser.parse_args()
    jobs = max(options.jobs, 50)
    print(f"{jobs} jobs each, {PER_SECOND} a second, {DURATION.median:.0f} s in the median; lateness in milliseconds\n")
    row("", "polls/job", "bar", "round trip", "median", "90 %", "trips", "bar")
    met = [report(way, asyncio.run(measure(way, jobs, options.distance))) for way in WAYS]
    return 0 if all(met) else 1


def report(way: Way, seen: Seen) -> bool:
    """Print a line, and return whether the bars hold."""
    polls, late, trip = fmean(seen.polls), median(seen.lateness), median(seen.round_trips)
    bars = (None, None) if way.bar is None else (way.bar, ROUND_TRIPS_BAR)
    row(
        way.name,
        f"{polls:.2f}",
        verdict(polls, bars[0]),
        *(f"{seconds * 1e3:.1f}" for seconds in (trip, late, quantiles(seen.lateness, n=10)[-1])),
        f"{late / trip:.2f}",
        verdict(late / trip, bars[1]),
    )
    return way.bar is None or (polls <= way.bar and late <= ROUND_TRIPS_BAR * trip)


async def measure(way: Way, jobs: int, distance: float) -> Seen:
    """Wait for so many jobs."""
    far = FaultProfile(latency=distance)
    sandbox = Sandbox(faults=far, delivery=Delivery(delay=distance / 2))
    seen, chance = Seen(), random.Random(1)

    async def one(ref: smilejobs.JobRef) -> None:
        status = await client.wait(ref.user_id, ref.job_id, pace=way.pace, first_after=way.first_after)
        at = utcnow()
        final_at = sandbox.jobs[ref].final_at
        assert status.is_final
        assert final_at is not None
        seen.lateness.append((at - final_at).total_seconds())

    async with (
        sandbox.serve() as base_url,
        smilejobs.Client(
            partner_id=CREDENTIALS.partner_id,
            api_key=CREDENTIALS.api_key,
            base_url=base_url,
            rate=None,
            hooks=[seen.take],
        ) as client,
        receiver(client) as url,
        asyncio.TaskGroup() as waiting,
    ):
        for number in range(jobs):
            ref = sandbox.submit(
                "user-1",
                f"job-{number}",
                machine=DURATION.draw(chance),
                callback_url=None if way.bar is None else url,
            )
            waiting.create_task(one(ref))
            await asyncio.sleep(1 / PER_SECOND)
    assert len(seen.polls) == len(seen.lateness) == jobs
    return seen


@asynccontextmanager
async def receiver(client: smilejobs.Client) -> AsyncIterator[str]:
    """Take callbacks while the block runs; yield where."""
    verifier = smilejobs.CallbackVerifier(CREDENTIALS)

    async def take(request: Request) -> Response:
        client.notify(verifier.verify(await request.body()))
        return Response()

    async with serve(Router(routes=[Route("/callback", take, methods=["POST"])]), "127.0.0.1", 0) as root:
        yield f"{root}/callback"


def verdict(value: float, bar: float | None) -> str:
    """The bar, and whether it holds."""
    return "-" if bar is None else f"{bar:.1f} {'met' if value <= bar else 'MISSED'}"


def row(name: str, *cells: str) -> None:
    """Print one line of a table."""
    print(f"{name:<28}" + "".join(f"{cell:>12}" for cell in cells), flush=True)


if __name__ == "__main__":
    sys.exit(main())
