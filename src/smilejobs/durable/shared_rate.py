"""One rate for all workers of a watch list: the database gives out permits, in chunks."""

from functools import partial

import anyio

from smilejobs.durable.store import PERMIT_CHUNK_SECONDS, Store
from smilejobs.events import logger

_LATE_SECONDS = 0.05
"""The age at which an unused permit expires; permits must not add up to a burst."""


class SharedRate:
    """The permits of one worker, see `smilejobs.exchange.Permits`. No two workers have the same.

    A worker reserves few at a time while it uses few, so that the others do not wait for permits that expire. The rate
    is that of all workers together, per second.
    """

    def __init__(self, store: Store, rate: float) -> None:
        self._store = store
        self._interval = 1 / rate
        self._max_chunk = max(1, round(rate * PERMIT_CHUNK_SECONDS))
        self._lock = anyio.Lock()
        self._next = 0.0
        self._left = 0
        self._chunk = 1
        self._used = 0

    async def take(self) -> None:
        """Wait for a permit."""
        async with self._lock:
            while not self._has_one(anyio.current_time()):
                await self._reserve()
            if self._next > anyio.current_time():
                await anyio.sleep_until(self._next)
            self._next += self._interval
            self._left -= 1
            self._used += 1

    def _has_one(self, now: float) -> bool:
        late = self._next + _LATE_SECONDS - now
        expired = min(self._left, max(0, -int(late // self._interval)))
        self._next += expired * self._interval
        self._left -= expired
        return self._left > 0

    async def _reserve(self) -> None:
        self._chunk = min(2 * self._chunk, self._max_chunk) if self._used == self._chunk else max(1, self._used)
        first, ahead = await self._store.retry(partial(self._store.reserve_permits, self._chunk, self._interval))
        if ahead is not None:
            logger.warning(
                "the clock of the database was set back, or was ahead for a moment: the next poll would have begun in "
                "%.0f s; the rate of all workers counts from now",
                ahead,
            )
        self._next = max(first, anyio.current_time())  # the answer may have taken longer than a permit lasts
        self._left = self._chunk
        self._used = 0
