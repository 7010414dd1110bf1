"""One rate for all workers: chunks of permits, from a store by script, under the virtual clock."""

from itertools import pairwise
from typing import Any

import anyio
import pytest
from attrs import define, field

from smilejobs.durable.retrying import Retries
from smilejobs.durable.shared_rate import SharedRate
from smilejobs.durable.tuning import DEFAULTS
from smilejobs.errors import WatchListError
from smilejobs.testing import virtual_clock

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, object]]:
    """The watch list is for asyncio; no socket is open here."""
    return virtual_clock("asyncio")


@define
class Clerk:
    """Gives out permits as the database does, and notes the requests."""

    tuning = DEFAULTS

    next: float = 0.0
    chunks: list[int] = field(factory=list)
    delay: float = 0.0
    failures: int = 0
    lasting: bool = False
    ahead: float | None = None
    retry: Any = field(init=False, factory=lambda: Retries().while_unavailable)

    async def reserve_permits(self, count: int, interval: float) -> tuple[float, float | None]:
        await anyio.sleep(self.delay)
        if self.failures:
            self.failures -= 1
            raise WatchListError("away", transient=not self.lasting)
        now = anyio.current_time()
        first = max(self.next, now - 0.02)
        self.next = first + count * interval
        self.chunks.append(count)
        return first, self.ahead

    def shared(self, rate: float) -> SharedRate:
        return SharedRate(self, rate)  # type: ignore[arg-type]  # it uses nothing else of a store


async def use(permits: SharedRate, at: list[float], until: float, pause: float = 0.0) -> None:
    while anyio.current_time() < until:
        await permits.take()
        at.append(anyio.current_time())
        await anyio.sleep(pause)


def most(at: list[float], within: float = 1.0) -> int:
    """The most permits within any so many seconds."""
    return max(sum(first <= each < first + within for each in at) for first in at)


@pytest.mark.parametrize("workers", [1, 2, 3, 10])
@pytest.mark.parametrize("rate", [3.0, 50.0, 200.0])
async def test_workers_together_keep_the_rate(workers: int, rate: float) -> None:
    """Never more than a tenth above it in any second, and no less than nine tenths of it on average."""
    clerk = Clerk(delay=0.002)
    at: list[float] = []
    async with anyio.create_task_group() as tasks:
        for _ in range(workers):
            permits = clerk.shared(rate)
            for _ in range(20):
                tasks.start_soon(use, permits, at, 10.0)
        await anyio.sleep(10)
        tasks.cancel_scope.cancel()
    at.sort()
    assert most(at) <= max(rate * 1.1, rate + 1)
    assert len(at) >= 0.9 * rate * 10


async def test_one_that_is_slow_does_not_hold_up_the_others() -> None:
    """It takes few permits at a time, so what it leaves is little."""
    clerk = Clerk()
    busy: list[float] = []
    slow: list[float] = []
    async with anyio.create_task_group() as tasks:
        permits = clerk.shared(100)
        for _ in range(20):
            tasks.start_soon(use, permits, busy, 10.0)
        tasks.start_soon(use, clerk.shared(100), slow, 10.0, 0.5)
        await anyio.sleep(10)
        tasks.cancel_scope.cancel()
    assert len(slow) >= 15
    assert len(busy) >= 900


async def test_a_busy_worker_asks_the_database_rarely() -> None:
    """Ten times a second at most, however high the rate."""
    clerk = Clerk()
    at: list[float] = []
    async with anyio.create_task_group() as tasks:
        permits = clerk.shared(1000)
        for _ in range(20):
            tasks.start_soon(use, permits, at, 5.0)
        await anyio.sleep(5)
        tasks.cancel_scope.cancel()
    assert len(clerk.chunks) <= 5 * 10 + 10
    assert max(clerk.chunks) == 100
    assert clerk.chunks[0] <= 2


async def test_unused_permits_expire() -> None:
    """A worker that has slept does not catch up by a burst."""
    clerk = Clerk()
    permits = clerk.shared(100)
    at: list[float] = []
    await use(permits, at, 1.0)
    await anyio.sleep(0.06)
    late = anyio.current_time()
    after: list[float] = []
    await use(permits, after, late + 1)
    assert sum(each < late + 0.005 for each in after) <= 8
    assert most(at + after) <= 110
    await anyio.sleep(3600)
    again = anyio.current_time()
    rested: list[float] = []
    await use(permits, rested, again + 1)
    assert most(rested, 0.1) <= 13
    assert most(rested) <= 110


async def test_permits_are_evenly_spread() -> None:
    """One after the other, an interval apart."""
    permits = Clerk().shared(20)
    at: list[float] = []
    await use(permits, at, 3.0)
    gaps = [later - earlier for earlier, later in pairwise(at)]
    assert gaps[2:] == pytest.approx([0.05] * (len(gaps) - 2))


async def test_the_database_is_waited_for() -> None:
    """There are no permits while it is away, and no burst when it is back."""
    clerk = Clerk(failures=4)
    permits = clerk.shared(50)
    at: list[float] = []
    await use(permits, at, 3.0)
    assert clerk.failures == 0
    assert most(at) <= 55


async def test_a_database_that_refuses_ends_it() -> None:
    """Waiting would not help."""
    permits = Clerk(failures=1, lasting=True).shared(50)
    with pytest.raises(WatchListError, match="away"):
        await permits.take()
    await permits.take()


async def test_a_cancelled_task_takes_no_permit() -> None:
    """The next one has it."""
    clerk = Clerk()
    permits = clerk.shared(1)
    await permits.take()
    with anyio.move_on_after(0.5) as scope:
        await permits.take()
    assert scope.cancelled_caught
    began = anyio.current_time()
    await permits.take()
    assert anyio.current_time() - began <= 0.52
    assert sum(clerk.chunks) <= 3


async def test_a_clock_that_was_set_back_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """With the time for which all polling would have stopped."""
    await Clerk(ahead=3600.0).shared(1).take()
    assert "the clock of the database was set back" in caplog.text
    assert "would have begun in 3600 s" in caplog.text
