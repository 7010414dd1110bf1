"""The delays between polls and after failures."""

from datetime import timedelta
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from smilejobs import Pace
from smilejobs.polling.pace import Backoff
from tests.helpers.strategies import unhurried

ages = st.floats(0, 1e9)


@pytest.mark.parametrize(
    ("age", "delay"), [(0, 1.0), (5, 1.0), (10, 1.5), (60, 9.0), (399, 59.85), (400, 60.0), (86_400, 60.0)]
)
def test_the_delay_is_a_share_of_the_age_within_bounds(age: float, delay: float) -> None:
    """By default 15 % of the age, at least 1 s and at most 60 s."""
    assert Pace(jitter=0)(age, 1) == pytest.approx(delay)


@unhurried
@given(
    age=ages,
    polls=st.integers(0, 10_000),
    low=st.floats(0.01, 100),
    times=st.floats(1, 100),
    fraction=st.floats(0.001, 5),
    jitter=st.floats(0, 0.999),
)
def test_the_delay_keeps_its_bounds(
    *, age: float, polls: int, low: float, times: float, fraction: float, jitter: float
) -> None:
    """At any age, the delay is the fraction of the age within min and max, plus or minus the jitter."""
    pace = Pace(min=low, max=low * times, fraction=fraction, jitter=jitter)
    middle = min(max(fraction * age, low), low * times)
    assert middle * (1 - jitter) * (1 - 1e-9) <= pace(age, polls) <= middle * (1 + jitter) * (1 + 1e-9)


def test_a_relaxed_pace_polls_rarely() -> None:
    """After some 5 s, then ever more rarely, at least once in five minutes; with the usual jitter."""
    assert Pace.relaxed() == Pace(min=5, max=300, fraction=0.5)


def test_waiters_do_not_march_in_step() -> None:
    """Jitter makes delays differ, in both directions."""
    delays = {Pace()(100, 1) for _ in range(200)}
    assert len(delays) > 100
    assert min(delays) < 14.5
    assert max(delays) > 15.5


def test_durations_may_be_timedeltas() -> None:
    """The bounds are seconds or timedeltas, with the same result."""
    assert Pace(min=timedelta(seconds=2), max=timedelta(minutes=1)) == Pace(min=2, max=60)
    assert Backoff(min=timedelta(seconds=2), max=timedelta(minutes=1)) == Backoff(min=2, max=60)


@pytest.mark.parametrize(
    ("given_", "error", "text"),
    [
        ({"min": 0}, ValueError, "^min must be more than 0"),
        ({"min": -1}, ValueError, "^min must"),
        ({"min": "1"}, TypeError, "^min must"),
        ({"max": 0}, ValueError, "^max must be more than 0"),
        ({"max": float("nan")}, ValueError, "^max must"),
        ({"max": float("inf")}, ValueError, "^max must"),
        ({"max": None}, TypeError, "^max must"),
        ({"min": 2, "max": 1}, ValueError, "^max must not be less than min"),
        ({"min": 61}, ValueError, "^max must not be less than min"),
    ],
)
@pytest.mark.parametrize("curve", [Pace, Backoff])
def test_bounds_that_can_never_be_right_are_refused(
    curve: type[Any], given_: dict[str, Any], error: type[Exception], text: str
) -> None:
    """The text names the argument."""
    with pytest.raises(error, match=text):
        curve(**given_)


@pytest.mark.parametrize(
    ("given_", "error", "text"),
    [
        ({"fraction": 0}, ValueError, "fraction must be a finite number above 0"),
        ({"fraction": -0.1}, ValueError, "fraction must be a finite number above 0"),
        ({"fraction": float("nan")}, ValueError, "fraction must be a finite number above 0"),
        ({"fraction": True}, TypeError, "fraction must be a number, not bool"),
        ({"fraction": timedelta(seconds=1)}, TypeError, "fraction must be a number, not timedelta"),
        ({"jitter": -0.1}, ValueError, "jitter must be at least 0 and less than 1"),
        ({"jitter": 1}, ValueError, "jitter must be at least 0 and less than 1"),
        ({"jitter": float("nan")}, ValueError, "jitter must be at least 0 and less than 1"),
        ({"jitter": "0.1"}, TypeError, "jitter must be a number, not str"),
        ({"jitter": True}, TypeError, "jitter must be a number, not bool"),
        ({"jitter": None}, TypeError, "jitter must be a number, not NoneType"),
    ],
)
def test_shares_that_can_never_be_right_are_refused(given_: dict[str, Any], error: type[Exception], text: str) -> None:
    """A fraction is a number above 0, a jitter a number from 0 to below 1; the text names argument and type."""
    with pytest.raises(error, match=f"^{text}$"):
        Pace(**given_)


def test_a_pace_is_a_value() -> None:
    """It is equal to a pace with the same values, has a repr with them, takes keywords and cannot be changed."""
    assert Pace() == Pace(min=1.0, max=60.0, fraction=0.15, jitter=0.1)
    assert repr(Pace()) == "Pace(min=1.0, max=60.0, fraction=0.15, jitter=0.1)"
    with pytest.raises(AttributeError):
        Pace().min = 5.0  # type: ignore[misc]  # a pace is frozen: that is what is tested
    with pytest.raises(TypeError):
        Pace(1.0)  # type: ignore[call-arg]  # it takes keywords only


@pytest.mark.parametrize("curve", [Backoff(), Backoff(min=2, max=5), Backoff(min=3, max=3)])
@pytest.mark.parametrize("failures", [1, 2, 3, 7, 20, 60, 10_000])
def test_backoff_grows_to_its_bounds(curve: Backoff, failures: int) -> None:
    """The delay is random between min and min doubled with each failure, at most max."""
    top = min(curve.max, curve.min * 2.0 ** min(failures, 100))
    delays = [curve(failures) for _ in range(300)]
    assert curve.min <= min(delays)
    assert max(delays) <= top
    assert max(delays) - min(delays) >= 0.9 * (top - curve.min)


def test_backoff_has_these_defaults() -> None:
    """Half a second to half a minute."""
    assert Backoff() == Backoff(min=0.5, max=30.0)
