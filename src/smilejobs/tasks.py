"""Tasks whose errors are raised as they are, in no exception group."""

import asyncio
import math
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from functools import partial
from types import TracebackType
from typing import Any, TypeVar

import anyio

_T = TypeVar("_T")
_CANCELLED_BY_ITSELF = "a task was cancelled by itself, although nothing had cancelled it"


async def run_bare(
    *works: Callable[[], Awaitable[_T]], background: Sequence[Callable[[], Awaitable[object]]] = ()
) -> list[_T]:
    """Run each of *works* in a task of its own until all have ended; return their results in the order of completion.

    The first error cancels the rest and is raised as it is, in no exception group. If all works return a result all the
    same, the results count.

    Args:
        works: What to run.
        background: What else to run, until the works have ended; its results are dropped.

    Raises:
        RuntimeError: One of them raised a cancellation although nothing had cancelled it.
    """
    results: list[_T] = []
    errors: list[BaseException] = []

    async def run(work: Callable[[], Awaitable[_T]]) -> None:
        results.append(await work())
        if background and len(results) == len(works):
            tasks.cancel_scope.cancel()

    async with anyio.create_task_group() as tasks:
        for work in works:
            tasks.start_soon(_collect_error, partial(run, work), errors, tasks.cancel_scope)
        for other in background:
            tasks.start_soon(_collect_error, other, errors, tasks.cancel_scope)
    for error in errors:
        if len(results) < len(works) or not isinstance(error, Exception):
            raise error
    return results


async def _collect_error(
    work: Callable[[], Awaitable[object]], errors: list[BaseException], scope: anyio.CancelScope
) -> None:
    """Await *work*; if it raises, add the error to *errors* and cancel *scope*."""
    try:
        await work()
    except anyio.get_cancelled_exc_class():
        if anyio.current_effective_deadline() > -math.inf:
            # A task group takes that for an end like any other.
            errors.append(RuntimeError(_CANCELLED_BY_ITSELF))
            scope.cancel()
        raise
    except (Exception, KeyboardInterrupt, SystemExit) as error:  # noqa: BLE001  # raised by `run_bare`, in no group
        errors.append(error)
        scope.cancel()


async def run_apart(work: Coroutine[Any, Any, _T], scope: anyio.CancelScope) -> _T:
    """Await *work* in a task of asyncio of its own; where this task is cancelled, cancel *scope* and await its end.

    That protects what *work* awaits: `asyncio.Task.cancel`, `asyncio.timeout` and the like cancel once, at each await,
    and anyio's shields do not stop them. httpcore then forgets connections, each of which takes a place in its pool for
    ever. A bare task costs a tenth of a task group.

    Args:
        work: What to await.
        scope: A scope that *work* enters.

    Raises:
        RuntimeError: *work* raised a cancellation although nothing had cancelled it.
        BaseException: Any other error of *work*, or the cancellation of this task.
    """
    task = asyncio.get_running_loop().create_task(work)
    try:
        await asyncio.wait((task,))
    except asyncio.CancelledError as error:
        scope.cancel()
        raise await _end_of(task, error) from None
    try:
        return task.result()
    except asyncio.CancelledError:
        raise RuntimeError(_CANCELLED_BY_ITSELF) from None
    finally:
        del task  # it holds the error, whose traceback holds this frame


async def _end_of(task: asyncio.Task[Any], cancellation: asyncio.CancelledError) -> asyncio.CancelledError:
    """Wait for the end of a task whose scope is cancelled; return the last cancellation of this one."""
    with anyio.CancelScope(shield=True):  # what still comes is not anyio's, and so counts more
        while not task.done():
            try:
                await asyncio.wait((task,))
            except asyncio.CancelledError as another:
                cancellation = another
    if not task.cancelled():
        task.exception()  # asyncio logs one that is not looked at
    return cancellation


def beside(
    work: Callable[[], Coroutine[Any, Any, None]], stop: Callable[[], None]
) -> AbstractAsyncContextManager[None]:
    """Return a context manager that runs *work* in a task while the block runs.

    An error of the block is raised as it is, in no exception group, and also where the block is being cancelled.

    Args:
        work: What to run; it must not raise.
        stop: Called at the end of the block: it ends *work*, by a scope of its own. Cancelling the task group instead
            would throw an error into the caller's frames too, after which Python 3.11 no longer traces them.
    """
    return _Beside(work, stop)


class _Beside(AbstractAsyncContextManager[None]):
    def __init__(self, work: Callable[[], Coroutine[Any, Any, None]], stop: Callable[[], None]) -> None:
        self._work = work
        self._stop = stop

    async def __aenter__(self) -> None:
        self._tasks = anyio.create_task_group()
        await self._tasks.__aenter__()
        self._tasks.start_soon(self._work)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        self._stop()
        cancelled = anyio.get_cancelled_exc_class()
        if error is None or isinstance(error, cancelled):
            return await self._tasks.__aexit__(kind, error, traceback)
        with suppress(cancelled):  # the error of the block comes first
            await self._tasks.__aexit__(None, None, None)
        return None
