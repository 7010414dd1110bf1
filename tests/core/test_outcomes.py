"""What goes into collections of jobs: refs and pairs, from iterables of either kind."""

from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from typing import Any

import anyio
import pytest

from smilejobs import JobRef
from smilejobs.outcomes import each, job_ref
from tests.helpers.leaks import assert_keeps_secrets

pytestmark = pytest.mark.anyio

PAIRS = [("user-1", f"job-{index}") for index in range(3)]


class Numbers:
    """An async iterable that is no generator, and cannot be closed."""

    def __init__(self) -> None:
        self.items = iter(PAIRS)

    def __aiter__(self) -> "Numbers":
        return self

    async def __anext__(self) -> tuple[str, str]:
        await anyio.lowlevel.checkpoint()
        for item in self.items:
            return item
        raise StopAsyncIteration


async def later(closed: list[str]) -> AsyncIterator[tuple[str, str]]:
    try:
        for pair in PAIRS:
            await anyio.sleep(1)
            yield pair
    finally:
        closed.append("async")


def now(closed: list[str]) -> Iterator[tuple[str, str]]:
    try:
        yield from PAIRS
    finally:
        closed.append("plain")


@pytest.mark.parametrize("make", [list, iter, tuple, dict.fromkeys])
async def test_any_iterable(make: Any) -> None:
    """Lists, iterators, keys."""
    assert [item async for item in each(make(PAIRS))] == PAIRS


async def test_any_async_iterable() -> None:
    """Generators and others."""
    assert [item async for item in each(Numbers())] == PAIRS
    assert [item async for item in each(later([]))] == PAIRS


@pytest.mark.parametrize(("make", "name"), [(later, "async"), (now, "plain")])
async def test_a_generator_is_closed_with_it(make: Any, name: str) -> None:
    """At once, wherever the reader stops; and by an error of its own."""
    closed: list[str] = []
    async with aclosing(each(make(closed))) as items:
        async for item in items:
            assert item == PAIRS[0]
            break
        assert closed == []
    assert closed == [name]


async def test_an_error_of_the_input_comes_out_as_it_is() -> None:
    """Nothing is made of it."""

    async def fails() -> AsyncIterator[tuple[str, str]]:
        yield PAIRS[0]
        raise OSError("the input")

    seen = []
    items = each(fails())
    seen.append(await anext(items))
    with pytest.raises(OSError, match="the input"):
        await anext(items)
    assert seen == PAIRS[:1]


@pytest.mark.parametrize("item", [JobRef("user-1", "job-1"), ("user-1", "job-1"), ["user-1", "job-1"]])
def test_a_pair_is_a_ref(item: Any) -> None:
    """A list will do, as JSON has no tuples."""
    assert job_ref(item, 0) == JobRef("user-1", "job-1")


@pytest.mark.parametrize(
    ("item", "kind", "text"),
    [
        ("ab", TypeError, r"refs\[7\] must be a JobRef or a pair \(user_id, job_id\), not str"),
        (("secret-user",), TypeError, r"refs\[7\] must be a JobRef or a pair"),
        (("secret-user", "secret-job", "x"), TypeError, r"refs\[7\] must be a JobRef or a pair"),
        (None, TypeError, "not NoneType"),
        (("secret-user", 5), TypeError, r"refs\[7\]: job_id must be a string, not int"),
        (("secret-user", ""), ValueError, r"refs\[7\]: job_id must not be empty"),
        (("secret-user", "\udfff"), ValueError, r"refs\[7\]: job_id holds half a surrogate pair"),
    ],
)
def test_what_is_no_job_is_named_by_its_place(item: Any, kind: type[Exception], text: str) -> None:
    """Not by its ids."""
    with pytest.raises(kind, match=text) as caught:
        job_ref(item, 7)
    assert_keeps_secrets(caught.value, "secret")
