"""Which waits want news of which job: a notification ends their sleep, and they poll."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from weakref import WeakValueDictionary

import anyio

from smilejobs.model.jobs import JobRef


class Signal:
    """Wakes the tasks that wait for it at that moment. It is set in the event loop, also outside any task."""

    _event: anyio.Event | None = None

    def set(self) -> None:
        """Wake the tasks that wait."""
        if self._event is not None:
            self._event.set()
            self._event = None

    async def wait(self) -> None:
        """Wait until it is set."""
        if self._event is None:
            self._event = anyio.Event()
        await self._event.wait()


class Subscription(Signal):
    """Is set when there may be news of one job.

    Attributes:
        count: How many notifications there were, for a task that was not waiting when one came.
    """

    count = 0

    def set(self) -> None:
        """Count the notification, and wake the tasks that wait."""
        self.count += 1
        super().set()


class Notifications:
    """Passes notifications on to the waits of one client."""

    def __init__(self) -> None:
        # A subscription lives as long as the waits that hold it: a watch may be dropped half-way.
        self._subscriptions: WeakValueDictionary[JobRef, Subscription] = WeakValueDictionary()
        self._listeners: list[Callable[[JobRef], None]] = []

    def subscribe(self, ref: JobRef) -> Subscription:
        """Return the subscription to news of a job; all waits for that job share it."""
        return self._subscriptions.setdefault(ref, Subscription())

    @contextmanager
    def listen(self, listener: Callable[[JobRef], None]) -> Iterator[None]:
        """Call *listener* for every job that is notified while the block runs."""
        self._listeners.append(listener)
        try:
            yield
        finally:
            self._listeners.remove(listener)

    def notify(self, ref: JobRef) -> None:
        """Wake all waits for a job."""
        subscription = self._subscriptions.get(ref)
        if subscription is not None:
            subscription.set()
        for listener in self._listeners:
            listener(ref)
