"""The wall clock: the system's and the caller's."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from smilejobs.clock import require_aware, utcnow


def test_the_system_clock_is_read_in_utc() -> None:
    """Its instants are aware and do not go backwards."""
    before = utcnow()
    assert before.tzinfo is UTC
    assert timedelta(0) <= utcnow() - before < timedelta(hours=1)


def test_an_aware_clock_is_passed_on() -> None:
    """Each call returns the next value of the caller's clock."""
    instants = iter([datetime(2026, 3, 4, tzinfo=UTC), datetime(2026, 3, 5, tzinfo=UTC)])
    now = require_aware(lambda: next(instants))
    assert [now().day, now().day] == [4, 5]


@pytest.mark.parametrize("at", [datetime(2026, 3, 4), None, 1_772_600_767.0, "2026-03-04T05:06:07Z"])
def test_a_clock_without_a_zone_is_refused_when_it_is_read(at: Any) -> None:
    """A naive datetime, or another type, is a ValueError that names the argument."""
    now = require_aware(lambda: at)
    with pytest.raises(ValueError, match="^now must return a timezone-aware datetime"):
        now()


def test_a_clock_is_a_function() -> None:
    """A datetime in its place is a TypeError at once."""
    with pytest.raises(TypeError, match="^now must be a function"):
        require_aware(datetime(2026, 3, 4, tzinfo=UTC))  # type: ignore[arg-type]  # an instant is what it must refuse


def test_the_default_clock_is_read_as_it_is() -> None:
    """Its instants are known to be aware, so it is read without a check."""
    assert require_aware(utcnow) is utcnow
