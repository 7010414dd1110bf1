"""Results that tasks produce and one consumer iterates over."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Generic, Self, TypeVar

from smilejobs.notifications import Signal

_T = TypeVar("_T")


class Results(Generic[_T]):
    """Results in the order in which they were put, then an error or the end; to be iterated over once.

    Args:
        limit: How many results may wait for the consumer; it is up to the tasks to stop when `is_full`.
        on_room: Called when the consumer has taken a result and there is room for another.
    """

    def __init__(self, limit: int, on_room: Callable[[], None]) -> None:
        self._limit = limit
        self._on_room = on_room
        self._waiting: deque[_T] = deque()
        self._rest: Iterator[_T] = iter(())
        self._error: Exception | None = None
        self._has_ended = False
        self._has_failed = False
        self._changed = Signal()

    @property
    def is_full(self) -> bool:
        """Whether as many results wait for the consumer as may."""
        return len(self._waiting) >= self._limit

    def put(self, result: _T) -> None:
        """Add a result."""
        self._waiting.append(result)
        self._changed.set()

    def end(self, error: Exception | None = None, rest: Iterable[_T] = ()) -> None:
        """End the iteration after the results that are there, unless it was ended before; its first error counts.

        Args:
            error: What the iteration raises then.
            rest: More results, before the error; they are made when they are taken.
        """
        if not self._has_ended:
            self._has_ended = True
            self._rest = iter(rest)
            self._changed.set()
        if error is not None and not self._has_failed:
            self._has_failed = True
            self._error = error

    @contextmanager
    def ending(self) -> Iterator[None]:
        """End the iteration when the block ends, with the error that has ended it."""
        try:
            yield
        except Exception as error:  # noqa: BLE001  # raised by the iteration
            self.end(error)
        finally:
            self.end()

    async def take(self) -> _T | None:
        """Return the next result as soon as there is one, and None at the end; `raise_error` tells why it has come."""
        while not self._waiting:
            for result in self._rest:
                return result
            if self._has_ended:
                return None
            await self._changed.wait()
        result = self._waiting.popleft()
        if not self.is_full:
            self._on_room()
        return result

    def raise_error(self) -> None:
        """Raise the error that has ended the iteration, if there is one, once."""
        error, self._error = self._error, None
        if error is not None:
            raise error

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> _T:
        result = await self.take()
        if result is None:
            self.raise_error()
            raise StopAsyncIteration
        return result
