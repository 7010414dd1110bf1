"""One rate for all workers of a watch list: the database gives out the turns, in chunks."""

import anyio

from smilejobs.durable.patience import Patience
from smilejobs.durable.store import Store
from smilejobs.events import logger

_CHUNK = 0.1
"""Seconds for which a worker takes turns ahead, at most: so long a brake of the others may take to reach it."""

_LATE = 0.05
"""Seconds after which a turn is lost: turns that were not used must not add up to a burst."""


class SharedTurns:
    """The turns of one worker, see `smilejobs.exchange.Permits`. No two workers have the same.

    A worker takes few at a time while it uses few, so that the others do not wait for turns that nobody uses.

    Args:
        store: Gives out the turns.
        rate: Of all workers together, per second.
        patience: Waits for the database.
    """

    def __init__(self, store: Store, rate: float, patience: Patience) -> None:
        self._store = store
        self._patience = patience
        self._interval = 1 / rate
        self._most = max(1, round(rate * _CHUNK))
        self._lock = anyio.Lock()
        self._next = 0.0
        self._left = 0
        self._chunk = 1
        self._used = 0

    async def take(self) -> None:
        """Wait for a turn."""
        async with self._lock:
            while not self._has_one(anyio.current_time()):
                await self._take_more()
            if self._next > anyio.current_time():
                await anyio.sleep_until(self._next)
            self._next += self._interval
            self._left -= 1
            self._used += 1

    def _has_one(self, now: float) -> bool:
        lost = min(self._left, max(0, -int((self._next + _LATE - now) // self._interval)))
        self._next += lost * self._interval
        self._left -= lost
        return self._left > 0

    async def _take_more(self) -> None:
        self._chunk = min(2 * self._chunk, self._most) if self._used == self._chunk else max(1, self._used)
        first, ahead = await self._patience.until_it_works(
            lambda: self._store.turns(self._chunk, self._interval, _CHUNK)
        )
        if ahead is not None:
            logger.warning(
                "the clock of the database was set back, or was ahead for a moment: the next poll would have begun in "
                "%.0f s; the rate of all workers counts from now",
                ahead,
            )
        self._next = max(first, anyio.current_time())  # the way here may have taken longer than a turn is good for
        self._left = self._chunk
        self._used = 0
