"""Durations as callers write them."""

from datetime import timedelta
from decimal import Decimal
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from smilejobs.durations import positive, seconds
from tests.helpers.strategies import unhurried


@pytest.mark.parametrize(
    ("value", "expected"), [(0, 0.0), (2, 2.0), (0.25, 0.25), (timedelta(minutes=2), 120.0), (timedelta(0), 0.0)]
)
def test_numbers_are_seconds_and_timedeltas_are_converted(value: float | timedelta, expected: float) -> None:
    """A number is taken as seconds, a timedelta as what it is, and a float comes out."""
    converted = seconds(value, "timeout")
    assert (type(converted), converted) == (float, expected)


@pytest.mark.parametrize("value", [True, False, "5", None, Decimal(5), 5j, [5]])
def test_what_is_neither_number_nor_timedelta_is_a_type_error(value: Any) -> None:
    """Other types, a bool among them, are refused with the name of the argument and of the type."""
    for check in (seconds, positive):
        with pytest.raises(TypeError, match=rf"^some_name must be .*{type(value).__name__}"):
            check(value, "some_name")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 10**400, -1, -1e-9])
def test_durations_that_cannot_be_are_value_errors(value: float) -> None:
    """What is not a number, infinite or negative is refused with the name of the argument."""
    for check in (seconds, positive):
        with pytest.raises(ValueError, match="^some_name must"):
            check(value, "some_name")


def test_a_negative_timedelta_is_refused() -> None:
    """A timedelta is held to the same rule as a number."""
    with pytest.raises(ValueError, match="^grace must not be negative"):
        seconds(timedelta(seconds=-1), "grace")


@pytest.mark.parametrize("value", [0, 0.0, timedelta(0)])
def test_zero_can_be_forbidden(value: float | timedelta) -> None:
    """Where zero makes no sense it is refused."""
    with pytest.raises(ValueError, match="^timeout must be more than 0"):
        seconds(value, "timeout", zero=False)


@pytest.mark.parametrize("value", [0, 0.0])
def test_a_positive_number_is_not_zero(value: float) -> None:
    """A number that must be positive is not zero."""
    with pytest.raises(ValueError, match="^rate must be a finite number above 0"):
        positive(value, "rate")


@unhurried
@given(st.floats(min_value=0, allow_infinity=False, exclude_min=True))
def test_every_finite_number_above_zero_is_itself(value: float) -> None:
    """Nothing is rounded on the way."""
    assert seconds(value, "x", zero=False) == positive(value, "x") == value
