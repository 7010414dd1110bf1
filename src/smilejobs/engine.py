"""What a client and a worker of a watch list share."""

from collections.abc import Callable
from datetime import datetime

from attrs import frozen

from smilejobs.exchange import Exchange
from smilejobs.notifications import Notifications


@frozen(kw_only=True, eq=False, repr=False)
class Engine:
    """What every kind of waiting uses.

    Attributes:
        exchange: Polls one job once.
        notifications: Passes on news of jobs.
        now: The wall clock; returns an aware datetime.
        max_connections: How many requests may be under way at once.
        attempts: How often a call that does not wait polls, in all, when failures are transient.
    """

    exchange: Exchange
    notifications: Notifications
    now: Callable[[], datetime]
    max_connections: int
    attempts: int

    def concurrency(self, wanted: int | None) -> int:
        """Return how many polls of a batch or a worker may be under way at once.

        Args:
            wanted: A number, or None for ``max_connections``.

        Raises:
            TypeError: It is not a whole number.
            ValueError: It is less than 1, or more than ``max_connections``.
        """
        if wanted is None:
            return self.max_connections
        if count(wanted, "concurrency") > self.max_connections:
            raise ValueError("concurrency must not be more than the client's max_connections")
        return wanted


def count(value: int, name: str) -> int:
    """Return *value*, a whole number of at least 1.

    Raises:
        TypeError: It is not a whole number.
        ValueError: It is less than 1.
    """
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} must be a whole number, not {type(value).__name__}")
    if value < 1:
        raise ValueError(f"{name} must be at least 1")
    return value
