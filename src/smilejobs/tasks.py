"""A task beside a block of the caller's code."""

from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import anyio


@asynccontextmanager
async def beside(work: Callable[[], Coroutine[Any, Any, None]], stop: Callable[[], None]) -> AsyncGenerator[None, None]:
    """Run *work* in a task while the block runs.

    An error of the block comes out bare, in no group, and also where the block is being cancelled.

    Args:
        work: What to run.
        stop: Called at the end of the block: it ends *work*, by a scope of its own. Cancelling the task group instead
            would throw an error into the caller's frames too, after which Python 3.11 no longer traces them.
    """
    error: BaseException | None = None
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(work)
            try:
                yield
            except anyio.get_cancelled_exc_class():
                raise
            except BaseException as of_the_block:  # noqa: BLE001  # raised below, where no group wraps it
                error = of_the_block
            finally:
                stop()
    except anyio.get_cancelled_exc_class():
        if error is None:
            raise
    if error is not None:
        raise error
