"""The check that an error holds no secret that a crash reporter can copy.

Reporters such as Sentry copy the local variables of every frame of a traceback, of the error and of all errors behind
it. What an error text leaves out may still be there.
"""

import traceback
from collections.abc import Iterator
from pathlib import Path

import smilejobs

TESTS = Path(__file__).parent.parent
STAND_INS = (TESTS, Path(smilejobs.__file__).parent / "testing")
"""Frames of these files hold values of the tests and are not searched."""


def assert_keeps_secrets(error: BaseException, *secrets: str | bytes) -> None:
    """Fail if one of *secrets* can be reached from *error*.

    It checks the text, the arguments and the attributes of the error, the local variables of all frames of its
    traceback except those of tests and of `smilejobs.testing`, and the same for its ``__cause__``, its ``__context__``
    (also where ``from None`` hides it), the members of a group and the errors among its attributes.

    Args:
        error: The error that was caught.
        secrets: What must not be found, for example an API key, a signature, a body, an id; bytes as their text. It is
            looked for as it is written here, so without quotes, backslashes and letters beyond ASCII.

    Raises:
        AssertionError: A secret is found; the text names the places, and not the secret.
    """
    words = [secret.decode() if isinstance(secret, bytes) else secret for secret in secrets]
    assert all(words), "an empty text is everywhere"
    found = [place for place, shown in reachable(error) if any(word in shown for word in words)]
    assert not found, f"reachable from {type(error).__name__}: {', '.join(found)}"


def reachable(error: BaseException) -> Iterator[tuple[str, str]]:
    """Yield the places that can be reached from an error, each with its repr."""
    left, seen = [error], set[int]()
    while left:
        problem = left.pop()
        if id(problem) in seen:
            continue
        seen.add(id(problem))
        name = type(problem).__name__
        yield name, f"{problem} {problem!r} {problem.args!r}"
        attributes = vars(problem) | ({"doc": problem.doc} if hasattr(problem, "doc") else {})
        for attribute, value in attributes.items():
            yield f"{name}.{attribute}", shown(value)
        for frame, line in traceback.walk_tb(problem.__traceback__):
            path = Path(frame.f_code.co_filename)
            if any(path.is_relative_to(place) for place in STAND_INS):
                continue
            for variable, value in frame.f_locals.items():
                yield f"{name} at {path.name}:{line} {frame.f_code.co_name}, {variable}", shown(value)
        further = (problem.__cause__, problem.__context__, *vars(problem).values())
        left += [other for other in further if isinstance(other, BaseException)]
        if isinstance(problem, BaseExceptionGroup):
            left += problem.exceptions


def shown(value: object) -> str:
    """Return the repr of a value; nothing if that fails, as for an object that was not initialized."""
    try:
        return repr(value)
    except Exception:  # noqa: BLE001  # any
        return ""
