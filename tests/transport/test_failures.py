"""The words for what went wrong: those of the cause, and nothing that a server wrote."""

import errno
import ssl

import httpx
import pytest

from smilejobs.transport.failures import CLOSED, is_closed_without_answer, no_answer


def caused(error: Exception, cause: Exception) -> Exception:
    """An error with its cause."""
    error.__cause__ = cause
    return error


UNREACHABLE = OSError(errno.EHOSTUNREACH, "Connect call failed ('203.0.113.9', 443)")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (httpx.ProxyError("Proxy Server could not connect: Jane."), "the proxy could not connect to the server"),
        (httpx.ConnectError("All attempts failed"), CLOSED),
        (UnicodeEncodeError("ascii", "Jane", 0, 1, "Jane"), "the HTTP client raised UnicodeEncodeError"),
        (caused(httpx.ConnectError("Jane"), UNREACHABLE), "No route to host"),
        (
            caused(httpx.ConnectError("Jane"), caused(OSError("failed"), ExceptionGroup("Jane", [UNREACHABLE]))),
            "No route to host",
        ),
        (caused(httpx.ConnectError("Jane"), ssl.SSLError(1, "[SSL: Jane]")), CLOSED),
    ],
)
def test_the_words_of_the_cause(error: Exception, words: str) -> None:
    """The cause is searched among all that led to the error, the members of groups too."""
    assert str(no_answer(error)) == f"no answer: {words}"


def test_a_cycle_of_causes_ends() -> None:
    """Libraries raise errors again from each other."""
    first, second = httpx.ReadError("a"), httpx.ReadError("b")
    first.__cause__, second.__cause__ = second, first
    assert str(no_answer(first)) == f"no answer: {CLOSED}"
    assert is_closed_without_answer(first)
