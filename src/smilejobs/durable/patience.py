"""A database that cannot be reached is waited for."""

import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, wait_random_exponential

from smilejobs.errors import WatchListError
from smilejobs.events import logger

Result = TypeVar("Result")


async def until_it_works(work: Callable[[], Awaitable[Result]]) -> Result:
    """Do something with the database, again and again until it can be reached.

    Raises:
        WatchListError: Waiting does not help.
    """
    retrying = AsyncRetrying(
        retry=retry_if_exception(lambda error: isinstance(error, WatchListError) and error.transient),
        wait=wait_random_exponential(multiplier=0.1, max=2),
        sleep=anyio.sleep,
        before_sleep=_say,
        reraise=True,
    )

    async def once() -> Result:  # tenacity awaits what it knows for a coroutine function, which a lambda is not
        return await work()

    return await retrying(once)


def _say(state: RetryCallState) -> None:
    error = state.outcome and state.outcome.exception()
    # An outage is worth one line.
    logger.log(logging.WARNING if state.attempt_number == 1 else logging.DEBUG, "trying again: %s", error)
