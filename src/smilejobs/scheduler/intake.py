"""The input of a batch: jobs from an iterable, read only as there is room for them."""

from contextlib import aclosing

from smilejobs.outcomes import JobRefs, each, job_ref
from smilejobs.polling.rules import Terms
from smilejobs.scheduler.scheduler import Scheduler


class Intake:
    """Adds the jobs of an iterable to a scheduler.

    Args:
        scheduler: Polls them.
        refs: The jobs.
        terms: What the caller wants for each of them.
        max_pending: How many jobs may be pending at once.

    Attributes:
        count: How many jobs have been read.
    """

    def __init__(self, scheduler: Scheduler, refs: JobRefs, terms: Terms, *, max_pending: int) -> None:
        self._scheduler = scheduler
        self._refs = refs
        self._terms = terms
        self._max_pending = max_pending
        self.count = 0

    async def read(self) -> None:
        """Read all jobs, waiting for room before each.

        Raises:
            TypeError: An item is neither a ref nor a pair.
            ValueError: An id is empty.
            Exception: Reading the input raised it.
        """
        async with aclosing(each(self._refs)) as items:
            async for item in items:
                ref = job_ref(item, self.count)
                self.count += 1
                self._scheduler.add(ref, self._terms)
                await self._scheduler.wait_for_room(self._max_pending)
