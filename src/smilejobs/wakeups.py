"""Who waits for which job: a notification ends the sleep of those, and they poll."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from weakref import WeakValueDictionary

import anyio

from smilejobs.model.jobs import JobRef


class Signal:
    """Wakes those who wait for it at that moment. It is set in the event loop, also outside any task."""

    _event: anyio.Event | None = None

    def set(self) -> None:
        """Wake them."""
        if self._event is not None:
            self._event.set()
            self._event = None

    async def wait(self) -> None:
        """Wait until it is set."""
        if self._event is None:
            self._event = anyio.Event()
        await self._event.wait()


class Bell(Signal):
    """Rings for one job.

    Attributes:
        rings: How often it has rung, for those who were busy.
    """

    rings = 0

    def set(self) -> None:
        """Wake them."""
        self.rings += 1
        super().set()


class Wakeups:
    """The waits of one client."""

    def __init__(self) -> None:
        # A bell lives as long as somebody who waits for its job: a watch may be dropped half-way.
        self._bells: WeakValueDictionary[JobRef, Bell] = WeakValueDictionary()
        self._fleets: list[Callable[[JobRef], None]] = []

    def bell(self, ref: JobRef) -> Bell:
        """Return the bell that rings for a job."""
        return self._bells.setdefault(ref, Bell())

    @contextmanager
    def listening(self, wake: Callable[[JobRef], None]) -> Iterator[None]:
        """Call *wake* for every job that is notified while the block runs."""
        self._fleets.append(wake)
        try:
            yield
        finally:
            self._fleets.remove(wake)

    def notify(self, ref: JobRef) -> None:
        """Wake all that wait for a job."""
        bell = self._bells.get(ref)
        if bell is not None:
            bell.set()
        for wake in self._fleets:
            wake(ref)
