"""The check for what a crash reporter can copy finds a secret in every place."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.leaks import assert_keeps_secrets, reachable

SECRET = "api/key+marker="
# The frames of this file do not count, so the code that raises is compiled under another name.
CODE = """
def in_a_variable():
    body = b'{"signature": "' + secret.encode() + b'"}'
    raise ValueError

def in_the_text():
    raise ValueError(secret)

def in_an_attribute():
    error = ValueError()
    error.answer = {"signature": secret}
    raise error

def behind_it():
    try:
        in_a_variable()
    except ValueError:
        raise KeyError("x") from None

def as_its_cause():
    raise KeyError("x") from ValueError(secret)

def in_the_document():
    json.loads("[" + json.dumps(secret))

def in_a_group():
    raise ExceptionGroup("several", [ValueError(secret)])

def in_an_error_that_it_carries():
    error = ValueError()
    error.last_error = KeyError(secret)
    raise error

def nowhere():
    error = ValueError("refused")
    error.__cause__ = error
    raise error
"""
NAMES: dict[str, Any] = {"secret": SECRET, "json": json}
exec(compile(CODE, str(Path(__file__).parent.parent.parent / "elsewhere.py"), "exec"), NAMES)
RAISERS: dict[str, Callable[[], None]] = {name: value for name, value in NAMES.items() if callable(value)}


@pytest.mark.parametrize("name", sorted(RAISERS.keys() - {"nowhere"}))
def test_a_secret_is_found_wherever_it_is(name: str) -> None:
    """In variables, texts and attributes of the error and of its chain; the failure does not repeat it."""
    with pytest.raises(Exception) as caught:
        RAISERS[name]()
    with pytest.raises(AssertionError, match="^reachable from") as failure:
        assert_keeps_secrets(caught.value, SECRET)
    assert "marker" not in str(failure.value)


def test_what_is_nowhere_is_not_found() -> None:
    """A test's own frame is not searched, and a cyclic chain ends."""
    body = SECRET.encode()
    with pytest.raises(ValueError, match="refused") as caught:
        RAISERS["nowhere"]()
    assert_keeps_secrets(caught.value, SECRET, body)
    assert dict(reachable(caught.value))["ValueError"] == "refused ValueError('refused') ('refused',)"
