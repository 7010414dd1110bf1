"""The Retry-After header."""

from datetime import datetime, timedelta

import hypothesis.strategies as st
import pytest
from hypothesis import given

from smilejobs.wire.retry_after import parse_retry_after
from tests.helpers.bodies import NOW
from tests.helpers.strategies import http_dates, retry_after_values, unhurried

DAY = 86_400.0


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("0", 0.0),
        ("120", 120.0),
        ("  7 ", 7.0),
        ("1.5", 1.5),
        ("007", 7.0),
        ("60, 60", 60.0),
        ("60,60", 60.0),
        ("60, 120 ,7", 120.0),
        ("1.5, 1", 1.5),
        ("Wed, 04 Mar 2026 05:07:07 GMT, Wed, 04 Mar 2026 05:07:07 GMT", 59.11),
        ("Wed, 04 Mar 2026 05:07:07 GMT", 59.11),
        ("Wednesday, 04-Mar-26 05:07:07 GMT", 59.11),
        ("Wed Mar  4 05:07:07 2026", 59.11),
        ("Wed, 04 Mar 2026 06:07:07 +0100", 59.11),
        ("Wed, 04 Mar 2026 05:06:07 GMT", 0.0),
        ("Tue, 03 Mar 2026 05:06:07 GMT", 0.0),
    ],
)
def test_seconds_and_dates_are_read(value: str, expected: float) -> None:
    """Seconds, of several the largest; a date in each format of HTTP, also twice, as the seconds until then."""
    assert parse_retry_after(value, NOW) == pytest.approx(expected)


@pytest.mark.parametrize(
    "value",
    [
        *(
            None,
            "",
            " ",
            "soon",
            "-5",
            "+5",
            "1e9",
            "0x10",
            "5 s",
            "nan",
            "inf",
            "-inf",
            "٣",
            "½",
            "1_000",
            ",",
            "60,",
            "60, soon",
            "60, Wed, 04 Mar 2026 05:07:07 GMT",
            ".5",
        ),
        *(
            "Wed, 99 Mar 2026 05:07:07 GMT",
            "Wed, 04 Foo 2026 05:07:07 GMT",
            "Wed, 04 Mar 2026 25:61:61 GMT",
            "\0",
            "()",
        ),
        *("Wed, 04 Mar 2026 05:07:07 +9999", "Wed, 04 Mar 99999999999999 05:07:07 GMT", "\ud800"),
    ],
)
def test_garbage_says_nothing(value: str | None) -> None:
    """Any other text gives None, and no error is raised."""
    assert parse_retry_after(value, NOW) is None


@unhurried
@given(st.integers(0, 10**12 - 1), st.sampled_from(["", " ", "\t"]))
def test_whole_seconds_are_exact(number: int, space: str) -> None:
    """Whole seconds are read exactly, with any white space around them."""
    assert parse_retry_after(f"{space}{number}{space}", NOW) == number


@unhurried
@given(st.lists(st.integers(0, 10**12 - 1), min_size=1, max_size=5), st.sampled_from([",", ", ", " ,\t"]))
def test_of_several_headers_the_longest_wait_counts(numbers: list[int], between: str) -> None:
    """A header that was sent several times arrives as one value, separated by commas."""
    assert parse_retry_after(between.join(map(str, numbers)), NOW) == max(numbers)


@unhurried
@given(http_dates)
def test_dates_are_read_from_both_sides(pair: tuple[str, datetime]) -> None:
    """A date gives the time until then, or zero if it has passed."""
    text, at = pair
    assert parse_retry_after(text, NOW) == max(0.0, (at - NOW).total_seconds())
    assert parse_retry_after(text, at - timedelta(days=1)) == DAY
    assert parse_retry_after(text, at + timedelta(seconds=1)) == 0.0


@unhurried
@given(retry_after_values)
def test_any_text_gives_no_hint_or_a_number_of_seconds(value: str) -> None:
    """No header raises an error, and no hint is negative, infinite or not a number."""
    hint = parse_retry_after(value, NOW)
    assert hint is None or 0.0 <= hint < float("inf")
