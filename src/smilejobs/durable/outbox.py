"""The outcomes that a worker knows and that are not stored yet."""

import json
from collections.abc import Callable
from datetime import datetime
from functools import partial
from itertools import islice

import anyio
from attrs import define, field

from smilejobs.durable.rows import Ending
from smilejobs.durable.schema import COMPLETE, EXPIRED, FAILED
from smilejobs.durable.store import Store
from smilejobs.errors import WaitTimeoutError
from smilejobs.model.jobs import JobRef
from smilejobs.notifications import Signal
from smilejobs.outcomes import Outcome, record_values

_DELAY_SECONDS = 0.05
"""For which outcomes are gathered before they are stored: a transaction costs more than a poll."""


@define(kw_only=True, eq=False, repr=False)
class Outbox:
    """Stores outcomes in groups, in the order in which they came; with *keep_raw*, also answers as they came."""

    store: Store
    now: Callable[[], datetime]
    keep_raw: bool
    _endings: dict[JobRef, Ending] = field(init=False, factory=dict)
    _filled: Signal = field(init=False, factory=Signal)
    _emptied: Signal = field(init=False, factory=Signal)

    @property
    def is_full(self) -> bool:
        """Whether outcomes pile up, because the database does not take them."""
        return len(self._endings) >= self.store.tuning.unstored_outcomes

    def __contains__(self, ref: JobRef) -> bool:
        return ref in self._endings

    async def put(self, outcome: Outcome) -> None:
        """Take an outcome, and wait until there is room for another."""
        self._endings[outcome.ref] = ending_of(outcome, keep_raw=self.keep_raw)
        self._filled.set()
        while self.is_full:
            await self._emptied.wait()

    async def run(self) -> None:
        """Store what comes, until cancelled."""
        while True:
            while not self._endings:
                await self._filled.wait()
            await anyio.sleep(_DELAY_SECONDS)
            await self._store_group()

    async def store_all(self) -> None:
        """Store all that is there."""
        while self._endings:
            await self._store_group()

    async def _store_group(self) -> None:
        group = list(islice(self._endings.values(), self.store.tuning.store_rows))
        now = self.now().timestamp()
        await self.store.retry(partial(self.store.end, group, now))
        for ending in group:
            del self._endings[ending.ref]
        self._emptied.set()


def ending_of(outcome: Outcome, *, keep_raw: bool) -> Ending:
    """Return what is stored of an outcome; with the answer as it came only if *keep_raw* is true."""
    known = {name: value for name, value in record_values(outcome).items() if value is not None}
    raw, state = None, FAILED
    if outcome.status is not None:
        state = COMPLETE
        raw = json.dumps(dict(outcome.status.raw)) if keep_raw else None
    elif isinstance(outcome.error, WaitTimeoutError):
        state = EXPIRED
        del known["error"], known["error_text"]
    return Ending(outcome.ref, state, json.dumps(known), raw)
