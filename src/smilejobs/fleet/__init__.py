"""Many jobs: one heap, few workers, the same rules as for one job.

A pending job is an entry in an agenda, ordered by the instant at which it is due; no task waits for it. One worker at a
time stands at its head until something is due and it may be sent, then takes it, and the next one stands there. The
fleet's clock stands still while the consumer has more outcomes than it takes: nothing is polled then, and no job's
timeout runs. It stands still, too, while the throttle keeps all polls back, or those of jobs that are due.
"""

from smilejobs.fleet.base import MAX_FAILURES
from smilejobs.fleet.fleet import Fleet

__all__ = ["MAX_FAILURES", "Fleet"]
