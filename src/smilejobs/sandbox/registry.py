"""The jobs of a sandbox: how each one is made, found and changed."""

import json
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Literal

from attrs import evolve

from smilejobs.durations import Duration
from smilejobs.model.codes import NO_ZIP, STATUS_CODES, SUCCESS
from smilejobs.model.jobs import JobRef
from smilejobs.sandbox.callbacks import Callbacks
from smilejobs.sandbox.dice import Lognormal, dice, lasting
from smilejobs.sandbox.jobs import Job
from smilejobs.sandbox.products import result_code_for
from smilejobs.sandbox.state import State
from smilejobs.sandbox.uploads import Registration
from smilejobs.sandbox.zips import Finding

Review = Duration | Lognormal | Literal["open"] | bool | None
"""How long a human review takes: a duration, or a distribution of durations; "open" until a person ends it; True for
as long as such reviews take in this sandbox; None or False for no review."""


class Registry:
    """The one place where jobs are made and changed: it keeps them, and has their callbacks sent.

    Args:
        jobs: The jobs, by name.
        numbered: The jobs, by the number that the sandbox gave them.
        seed: Draws how long the machine and reviews take.
        machine: Seconds from the arrival of a job's images to the machine's result, where nobody says.
        review: How long a human review takes, where nobody says.
        callbacks: What is told of each job, new or changed.
        state: Where jobs outlive a restart; None for nowhere.
        now: The wall clock.
    """

    def __init__(
        self,
        jobs: dict[JobRef, Job],
        numbered: dict[str, Job],
        *,
        seed: int,
        machine: Lognormal,
        review: Lognormal | Literal["open"],
        callbacks: Callbacks,
        state: State | None,
        now: Callable[[], datetime],
    ) -> None:
        self._jobs = jobs
        self._numbered = numbered
        self._seed = seed
        self._machine = machine
        self._review: Lognormal | Literal["open"] = review
        self._callbacks = callbacks
        self._state = state
        self._now = now

    def made(
        self,
        ref: JobRef,
        *,
        outcome: str,
        job_type: int,
        machine: Duration | Lognormal | None,
        review: Review,
        refusal: str | None,
        partner_params: Mapping[str, object] | None,
        details: Mapping[str, object] | None,
        callback_url: str | None,
        root: str | None = None,
    ) -> Job:
        """Return a new job, whose images are not in, and which is not kept yet.

        Args:
            ref: Its name, and when it was submitted.
            outcome: As all that follows, see `smilejobs.sandbox.Sandbox.submit`.
            job_type: The product.
            machine: How long the machine takes.
            review: How long a human review takes.
            refusal: The status code of every poll.
            partner_params: Further parameters.
            details: Further keys of the results.
            callback_url: Where the results are sent.
            root: The scheme and the host at which the client has found the sandbox; None for those of the next one.

        Raises:
            TypeError: An argument has the wrong type.
            ValueError: An argument can never be right, or there is such a job already.
        """
        if ref in self._jobs:
            raise ValueError("there is a job with these ids already")
        if refusal is not None and (refusal not in STATUS_CODES or refusal in (SUCCESS, NO_ZIP)):
            raise ValueError(f"refusal must be a status code of smilejobs.STATUS_CODES, and not {SUCCESS} or {NO_ZIP}")
        chance = dice(self._seed, "job", ref.user_id, ref.job_id)
        worked = (self._machine if machine is None else lasting(machine, "machine")).draw(chance)
        return Job(
            ref=ref,
            smile_job_id=f"{len(self._jobs) + 1:010d}",
            job_type=job_type,
            result_code=result_code_for(outcome, job_type),
            refusal=refusal,
            machine=timedelta(seconds=worked),
            review=self._reviewed(review, ref),
            partner_params=_json_object(partner_params, "partner_params"),
            details=_json_object(details, "details"),
            callback_url=callback_url,
            root=root,
        )

    def register(self, registration: Registration, root: str) -> Job:
        """Keep a job that came over HTTP, whose zip is to come.

        Args:
            registration: The job.
            root: The scheme and the host at which the client has found the sandbox.

        Raises:
            OSError: The state cannot be written.
        """
        ref = registration.ref
        job = self.made(
            JobRef(ref.user_id, ref.job_id, self._now()),
            outcome="approved",
            job_type=registration.job_type,
            machine=None,
            review=None,
            refusal=None,
            partner_params=registration.partner_params,
            details=None,
            callback_url=registration.callback_url,
            root=root,
        )
        self.keep(job)
        return job

    def receive(self, job: Job, finding: Finding) -> None:
        """Start a job, whose zip is there now.

        Args:
            job: The job.
            finding: What its zip makes of it.

        Raises:
            OSError: The state cannot be written.
        """
        self.keep(
            evolve(
                job,
                uploaded_at=self._now(),
                result_code=result_code_for(finding.outcome, job.job_type),
                review=self._reviewed(finding.review, job.ref),
                details={"Source": finding.source, **finding.details},
            )
        )

    def known(self, ref: JobRef) -> Job:
        """Return the job of that name.

        Raises:
            ValueError: There is none.
        """
        job = self._jobs.get(ref)
        if job is None:
            raise ValueError("there is no such job")
        return job

    def keep(self, job: Job) -> None:
        """Take in a job that is new, or has changed.

        Raises:
            OSError: The state cannot be written.
        """
        if self._state is not None:
            self._state.save(job)
        self._put(job)

    def restore(self, state: State) -> None:
        """Take in the jobs that an earlier sandbox has kept.

        Raises:
            OSError: They cannot be read.
        """
        for job in state.load():
            self._put(job, since=self._now())

    def _put(self, job: Job, *, since: datetime | None = None) -> None:
        self._jobs[job.ref] = self._numbered[job.smile_job_id] = job
        self._callbacks.schedule(job.ref, since=since)

    def _reviewed(self, review: Review, ref: JobRef) -> timedelta | None:
        """Return how long a review of that job takes; None until a person ends it."""
        if review is None or review is False:
            return timedelta()
        taking = self._review if review is True else review if review == "open" else lasting(review, "review")
        if not isinstance(taking, Lognormal):
            return None
        return timedelta(seconds=taking.draw(dice(self._seed, "review", ref.user_id, ref.job_id)))


def _json_object(value: Mapping[str, object] | None, name: str) -> dict[str, object]:
    """Return a copy that can be sent, and that nobody else can change."""
    try:
        copy: object = json.loads(json.dumps({} if value is None else dict(value), allow_nan=False))
    except (TypeError, ValueError, RecursionError):
        raise ValueError(f"{name} must be a mapping that can be written as JSON") from None
    assert isinstance(copy, dict)
    return copy
