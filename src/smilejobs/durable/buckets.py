"""The buckets whose jobs one worker polls."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from contextlib import contextmanager

import anyio

from smilejobs.durable.rows import Pending, key_of
from smilejobs.model.jobs import JobRef


class Buckets:
    """The buckets that a worker holds or has just released, and the jobs of each that it polls.

    A bucket is held while the worker has a lease on it. A released bucket is polled for some time: mostly the lease
    comes back, and no row has to be read again.
    """

    def __init__(self) -> None:
        self._leases: Counter[int] = Counter()  # a lease may come back before the block of the last one has ended
        self._released: dict[int, float] = {}
        self._jobs: defaultdict[int, dict[JobRef, int]] = defaultdict(dict)

    @property
    def held(self) -> AbstractSet[int]:
        """The buckets that are held."""
        return self._leases.keys()

    def is_polled(self, bucket: int) -> bool:
        """Return whether a bucket is held, or was released a short time ago."""
        return bucket in self._leases or bucket in self._released

    @contextmanager
    def holding(self, bucket: int) -> Iterator[None]:
        """Hold a bucket while the block runs."""
        self._leases[bucket] += 1
        self._released.pop(bucket, None)
        try:
            yield
        finally:
            self._leases[bucket] -= 1
            if not self._leases[bucket]:
                del self._leases[bucket]
                self._released[bucket] = anyio.current_time()

    def sums(self, bucket: int) -> tuple[int, int]:
        """Return how many jobs of a bucket are known, and the sum of the numbers of their rows."""
        numbers = self._jobs[bucket].values()
        return len(numbers), sum(numbers)

    def add(self, row: Pending) -> None:
        """Note that a job is polled."""
        self._jobs[row.bucket][row.ref] = row.seq

    def remove(self, ref: JobRef) -> None:
        """Note that a job has ended."""
        self._jobs[key_of(ref)[0]].pop(ref, None)

    def forget(self, seconds: float) -> list[JobRef]:
        """Forget the buckets that were released more than so many seconds ago; return their jobs."""
        last = anyio.current_time() - seconds
        forgotten = [bucket for bucket, at in self._released.items() if at < last]
        for bucket in forgotten:
            del self._released[bucket]
        return [ref for bucket in forgotten for ref in self._jobs.pop(bucket, ())]
