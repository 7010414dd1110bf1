"""Retries while the database is unavailable, with one line in the log per outage."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio
from tenacity import AsyncRetrying, retry_if_exception, wait_random_exponential

from smilejobs.errors import WatchListError
from smilejobs.events import logger

Result = TypeVar("Result")


class Retries:
    """The retries of all users of one database. All of them share one outage, which is logged once."""

    def __init__(self) -> None:
        self._failing: set[object] = set()

    async def while_unavailable(
        self, work: Callable[[], Awaitable[Result]], *, lost: WatchListError | None = None
    ) -> Result:
        """Call *work*, again and again while the database is unavailable; return its result.

        Args:
            work: Uses the database.
            lost: The error for which *work* must be done again, if that is so.

        Raises:
            WatchListError: Waiting does not help.
        """
        call = object()
        if lost is not None:
            self._note(call, lost)
        retrying = AsyncRetrying(
            retry=retry_if_exception(lambda error: isinstance(error, WatchListError) and error.transient),
            wait=wait_random_exponential(multiplier=0.1, max=2),
            sleep=anyio.sleep,
            before_sleep=lambda state: self._note(call, None if state.outcome is None else state.outcome.exception()),
            reraise=True,
        )

        async def once() -> Result:  # tenacity awaits the result of coroutine functions, which a lambda is not
            return await work()

        try:
            result: Result = await retrying(once)
        except BaseException:
            self._failing.discard(call)  # it has ended, but the database does not work again
            raise
        if call in self._failing:
            self._failing.remove(call)
            if not self._failing:
                logger.warning("the database of the watch list works again")
        return result

    def _note(self, call: object, error: BaseException | None) -> None:
        if self._failing:
            logger.debug("trying again: %s", error)
        else:
            logger.warning("trying again until the database works: %s", error)
        self._failing.add(call)
