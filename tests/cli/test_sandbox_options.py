"""The options of ``smilejobs sandbox`` that change faults and durations."""

import pytest

from smilejobs.cli.sandbox import change_faults, read_lognormal
from smilejobs.sandbox import FAULT_PROFILES, Lognormal

NO_FAULTS = FAULT_PROFILES["none"]


def test_faults_are_changed_by_texts() -> None:
    """Those that are named; the others stay."""
    assert change_faults(NO_FAULTS, {}) is NO_FAULTS
    flaky = change_faults(
        FAULT_PROFILES["flaky"], {"latency": "0.5:0.8", "cuts": "0.2", "rate": "50", "variant_names": ""}
    )
    assert (flaky.latency, flaky.cuts, flaky.rate, flaky.variant_names) == (Lognormal(0.5, 0.8), 0.2, 50.0, ())
    assert flaky.too_many == FAULT_PROFILES["flaky"].too_many
    changes = {"rate": "none", "retry_after": "none", "variant_names": "code_as_int,history", "latency": "1"}
    more = change_faults(flaky, changes)
    assert (more.rate, more.retry_after, more.variant_names) == (None, None, ("code_as_int", "history"))
    assert more.latency == Lognormal(1.0)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("wind", "1", "there is no fault wind; there are: latency"),
        ("cuts", "often", "cuts must be a number"),
        ("cuts", "none", "cuts must be a number"),
        ("cuts", "2", "cuts must be a share"),
        ("latency", "fast", "latency must be a median in seconds, or MEDIAN:SPREAD"),
        ("latency", "1:", "latency must be a median"),
        ("variant_names", "in_red", "in_red"),
    ],
)
def test_texts_that_are_wrong(name: str, text: str, said: str) -> None:
    """The text of the error names the fault."""
    with pytest.raises(ValueError, match=said):
        change_faults(NO_FAULTS, {name: text})


def test_a_duration_has_a_median_and_perhaps_a_spread() -> None:
    """In seconds."""
    assert read_lognormal("2:0.6", "--machine") == Lognormal(2, 0.6)
    assert read_lognormal("2", "--machine") == Lognormal(2)
