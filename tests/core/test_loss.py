"""Random loss, rate limits and overload: what `Client.wait_many` makes of them, under the virtual clock.

One hundred polls per second are wanted, and an answer takes 20 ms. These are the bars of `benchmarks/fleet.py`, over a
shorter time, with one seed, and on asyncio alone: what is measured is the throttle.
"""

import copy
import math
import random
from collections import Counter
from collections.abc import Callable

import anyio
import pytest

from smilejobs import JobRef, JobStatus, Pace, RateLimitedError, RequestError, SmileJobsError
from smilejobs.model.jobs import Include
from smilejobs.testing import Script, virtual_clock

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", [virtual_clock("asyncio")])]

SECONDS = 40
PENDING = JobStatus(user_id="user", job_id="job", code="2302")
LOST = RequestError("lost")
LIMITED = RateLimitedError("limited", http_status=429)


async def polls_per_second(
    monkeypatch: pytest.MonkeyPatch, is_answered: Callable[[float], bool], error: SmileJobsError
) -> dict[bool, float]:
    """The answered and the failed polls per second of a batch."""
    counts = Counter[bool]()

    async def poll(ref: JobRef, include: Include, **_: object) -> JobStatus:
        answered = is_answered(anyio.current_time())
        await anyio.sleep(0.02)
        counts[answered] += 1
        if answered:
            return PENDING
        raise copy.copy(error)

    refs = [JobRef("user-1", f"job-{index}") for index in range(200)]
    async with Script({}).client() as client:
        monkeypatch.setattr(client.engine.exchange, "poll_acquired", poll)
        with anyio.move_on_after(SECONDS):
            async with client.wait_many(refs, timeout=None, pace=Pace(min=1, max=1)) as outcomes:
                async for _ in outcomes:
                    pass
    return {answered: counts[answered] / SECONDS for answered in (True, False)}


@pytest.mark.parametrize(("share", "least"), [(0.05, 90), (0.1, 80), (0.2, 50), (0.4, 15)])
async def test_random_loss_is_no_overload(monkeypatch: pytest.MonkeyPatch, share: float, least: float) -> None:
    """A batch keeps most of its speed although a share of its polls is lost at any speed."""
    draw = random.Random(0)
    random.seed(0)
    speeds = await polls_per_second(monkeypatch, lambda now: draw.random() >= share, LOST)
    assert sum(speeds.values()) >= least


async def test_an_api_that_limits_the_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch stays just below the limit: few polls are refused, and most of the rate is used."""
    free_at = -1.0

    def is_allowed(now: float) -> bool:
        nonlocal free_at
        if now < free_at:
            return False
        free_at = max(free_at, now - 1 / 40) + 1 / 40
        return True

    random.seed(0)
    speeds = await polls_per_second(monkeypatch, is_allowed, LIMITED)
    assert speeds[False] <= 0.1 * sum(speeds.values())
    assert speeds[True] >= 28


async def test_a_server_that_collapses_is_relieved(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that answers nothing above a speed gets fewer polls, which it answers."""
    speed, at = 0.0, 0.0

    def is_answered(now: float) -> bool:
        nonlocal speed, at
        speed, at = speed * math.exp(at - now) + 1, now
        return speed <= 60

    random.seed(0)
    speeds = await polls_per_second(monkeypatch, is_answered, LOST)
    assert speeds[True] >= 20
    assert speeds[False] <= 5
