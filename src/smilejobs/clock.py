"""The wall clock: the default of every argument ``now``, and the check of a caller's ``now``."""

from collections.abc import Callable
from datetime import UTC, datetime


def utcnow() -> datetime:
    """Return the current instant of the system clock; the default of every argument ``now``."""
    return datetime.now(UTC)


def require_aware(now: Callable[[], datetime]) -> Callable[[], datetime]:
    """Return a function that calls *now* and checks that it returns an aware datetime.

    Raises:
        TypeError: *now* is not a function.
        ValueError: Raised by the returned function if *now* returns anything but an aware datetime.
    """
    if not callable(now):
        raise TypeError("now must be a function that returns a timezone-aware datetime")
    if now is utcnow:
        return now

    def call() -> datetime:
        at = now()
        if not isinstance(at, datetime) or at.utcoffset() is None:
            raise ValueError("now must return a timezone-aware datetime")
        return at

    return call
