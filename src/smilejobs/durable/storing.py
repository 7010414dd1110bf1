"""The outcomes that a worker knows and that are not stored yet."""

from collections.abc import Callable
from datetime import datetime
from functools import partial
from itertools import islice

import anyio

from smilejobs.durable.patience import Patience
from smilejobs.durable.rows import Ending
from smilejobs.durable.store import Store
from smilejobs.model.jobs import JobRef
from smilejobs.notifications import Signal

_GATHER_SECONDS = 0.05
"""For how long outcomes are gathered before they are stored: a transaction costs more than a poll."""

_GROUP = 500
"""Outcomes that are stored in one transaction."""

_MOST = 2000
"""Outcomes that may wait to be stored; beyond that, polling waits too."""


class Outbox:
    """Stores outcomes in groups, in the order in which they came.

    Args:
        store: The watch list.
        now: The wall clock, aware.
        patience: Waits for the database.
    """

    def __init__(self, store: Store, now: Callable[[], datetime], patience: Patience) -> None:
        self._store = store
        self._now = now
        self._patience = patience
        self._endings: dict[JobRef, Ending] = {}
        self._news = Signal()
        self._room = Signal()

    @property
    def is_full(self) -> bool:
        """Whether outcomes pile up, because the database does not take them."""
        return len(self._endings) >= _MOST

    def __contains__(self, ref: JobRef) -> bool:
        return ref in self._endings

    async def put(self, ending: Ending) -> None:
        """Take an outcome, and wait until there is room for another."""
        self._endings[ending.ref] = ending
        self._news.set()
        while self.is_full:
            await self._room.wait()

    async def run(self) -> None:
        """Store what comes, until cancelled."""
        while True:
            while not self._endings:
                await self._news.wait()
            await anyio.sleep(_GATHER_SECONDS)
            await self._store_group()

    async def store_all(self) -> None:
        """Store all that is there."""
        while self._endings:
            await self._store_group()

    async def _store_group(self) -> None:
        group = list(islice(self._endings.values(), _GROUP))
        now = self._now().timestamp()
        await self._patience.until_it_works(partial(self._store.end, group, now))
        for ending in group:
            del self._endings[ending.ref]
        self._room.set()
