"""The wall clock: the default of every ``now``, and the check of those that callers bring."""

from collections.abc import Callable
from datetime import UTC, datetime


def utcnow() -> datetime:
    """Return the instant by the system clock: the default of every ``now`` of this library."""
    return datetime.now(UTC)


def require_aware(now: Callable[[], datetime]) -> Callable[[], datetime]:
    """Return *now* with a check of what it returns.

    Raises:
        TypeError: *now* is not a function.
        ValueError: Raised by the function that is returned, if *now* returns anything but an aware datetime.
    """
    if not callable(now):
        raise TypeError("now must be a function that returns a timezone-aware datetime")

    def checked() -> datetime:
        at = now()
        if not isinstance(at, datetime) or at.utcoffset() is None:
            raise ValueError("now must return a timezone-aware datetime")
        return at

    return checked
