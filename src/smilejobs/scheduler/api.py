"""What the polls of a scheduler say about the API as a whole."""

import math
from collections.abc import Callable

from smilejobs.errors import ApiError, CredentialsError, SmileJobsError
from smilejobs.events import Event, Throttled
from smilejobs.model.jobs import JobStatus
from smilejobs.polling.throttle import Throttle
from smilejobs.wire.protocol import accepts_credentials


class ApiState:
    """The throttle, the failures in a row, and whether the credentials are refused.

    Args:
        emit: Called with events.
        on_throttle: Called with each answer that throttles the scheduler.

    Attributes:
        throttle: Says when the next poll may begin.
        failures: How many polls in a row have failed. A poll counts if it began after the failure before it was known.
        is_refused: Whether the API has refused the credentials of a job, and not accepted them since.
    """

    def __init__(self, emit: Callable[[Event], None], on_throttle: Callable[[SmileJobsError], None] | None) -> None:
        self._emit = emit
        self._on_throttle = on_throttle
        self._failed_at = -math.inf
        self.throttle = Throttle()
        self.failures = 0
        self.is_refused = False

    def observe(self, observation: JobStatus | SmileJobsError, *, began: float, now: float) -> bool:
        """Take note of what a poll has brought; return whether it throttles.

        Args:
            observation: The answer, or the failure.
            began: When the poll began.
            now: When it ended.
        """
        if isinstance(observation, JobStatus):
            self.throttle.end(observation, began=began, now=now)
            self.is_refused = False
            self.failures = 0
            return False
        throttles = self.throttled(observation, began=began, now=now)
        if accepts_credentials(observation):
            self.is_refused = False
        if _is_about_the_job(observation):
            self.failures = 0
        elif began >= self._failed_at:
            self.failures += 1
            self._failed_at = now
        if throttles and self._on_throttle is not None:
            self._on_throttle(observation)
        return throttles

    def throttled(self, error: SmileJobsError, *, began: float, now: float) -> bool:
        """Apply the failure of a poll to the throttle alone; return whether it throttles."""
        throttles = self.throttle.end(error, began=began, now=now)
        if throttles:
            pause = self.throttle.ready_at() - now
            self._emit(Throttled(pause=pause, polls_per_second=self.throttle.limit(now)))
        return throttles


def _is_about_the_job(error: SmileJobsError) -> bool:
    """Return whether the API has answered about the job: it refuses it for good."""
    is_permanent = isinstance(error, ApiError) and error.code is not None and not error.transient
    return is_permanent and not isinstance(error, CredentialsError)
