"""Many jobs: one heap, few pollers, the same rules as for one job.

A pending job is an entry of a heap, ordered by the instant at which it is due; no task waits for it. One of the pollers
at a time waits until the first job is due and may be polled, takes it out of the heap, and lets the next poller wait.

- `scheduler.Scheduler` polls; a worker of a watch list uses it directly.
- `many.ManyJobs` feeds it from an iterable (`intake`) and reports its progress: `Client.wait_many`.

The scheduler's clock is stopped while the consumer does not take the outcomes: nothing is polled then, and no job's
timeout runs. It is also stopped while the throttle keeps back all polls, or those of jobs that are due.
"""

from smilejobs.scheduler.many import ManyJobs
from smilejobs.scheduler.scheduler import Scheduler

__all__ = ["ManyJobs", "Scheduler"]
