"""The jobs of a sandbox, and what all its routes share."""

import random
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Literal

from attrs import define, field

from smilejobs.durations import Duration
from smilejobs.model.jobs import JobRef
from smilejobs.sandbox.distributions import Distribution, Lognormal, as_distribution, make_rng
from smilejobs.sandbox.faults import FAULT_PROFILES, FaultProfile
from smilejobs.sandbox.jobs import Job
from smilejobs.sandbox.state import RequestKey, State
from smilejobs.settings import Credentials

Review = Duration | Distribution | Literal["open"] | bool | None
"""How long a human review takes: a duration or a distribution; "open" until it is ended by hand; True for the default
of the sandbox; None or False for no review."""

MACHINE = Lognormal(2.0, 0.6)
REVIEW = Lognormal(600.0, 1.0)


@define(kw_only=True, repr=False)  # its counts hold ids
class Registry:
    """The jobs by their ids and by their numbers, the counts of requests, and the settings that all routes share.

    *on_change* is called with each job that is new or has changed.
    """

    credentials: Credentials
    now: Callable[[], datetime]
    seed: int = 0
    faults: FaultProfile = FAULT_PROFILES["none"]
    machine: Distribution = MACHINE
    review: Distribution | Literal["open"] = REVIEW
    max_skew: timedelta | None = None
    state: State | None = None
    on_change: Callable[[Job], None] = lambda job: None
    jobs: dict[JobRef, Job] = field(init=False, factory=dict)
    numbered: dict[str, Job] = field(init=False, factory=dict)
    counts: Counter[RequestKey] = field(init=False, factory=Counter)

    def __attrs_post_init__(self) -> None:
        if self.state is not None:
            jobs, counts = self.state.load()
            self.counts.update(counts)
            for job in jobs:
                self.jobs[job.ref] = self.numbered[job.smile_job_id] = job

    def next_number(self) -> str:
        """Return the number of the next job."""
        return f"{len(self.jobs) + 1:010d}"

    def save(self, job: Job) -> None:
        """Keep a job that is new or has changed. Raise StateError, and change nothing, if it cannot be written."""
        if self.state is not None:
            self.state.save_job(job, is_new=job.ref not in self.jobs)
        self.jobs[job.ref] = self.numbered[job.smile_job_id] = job
        self.on_change(job)

    def find(self, ref: JobRef) -> Job:
        """Return the job with these ids, or raise ValueError."""
        job = self.jobs.get(ref)
        if job is None:
            raise ValueError("there is no such job")
        return job

    def count(self, *key: str) -> int:
        """Count one more request of a kind, and return how many there were; raise StateError as `save` does."""
        number = self.counts[key] + 1
        if self.state is not None:
            self.state.save_count(key, number)
        self.counts[key] = number
        return number

    def polls(self, ref: JobRef) -> int:
        """Return how often a job was polled, whether it exists or not."""
        return self.counts["poll", ref.user_id, ref.job_id]

    def faults_of(self, job: Job | None) -> FaultProfile:
        """Return the fault profile of a job, or of one that does not exist."""
        return self.faults if job is None or job.faults is None else job.faults

    def rng(self, *purpose: object) -> random.Random:
        """Return the random generator for one purpose."""
        return make_rng(self.seed, *purpose)

    def draw_machine(self, ref: JobRef, machine: Duration | Distribution | None = None) -> timedelta:
        """Return how long the machine takes for a job; None stands for the default of the sandbox."""
        distribution = self.machine if machine is None else as_distribution(machine, "machine")
        return timedelta(seconds=distribution.draw(self.rng("job", ref.user_id, ref.job_id)))

    def draw_review(self, ref: JobRef, review: Review) -> timedelta | None:
        """Return how long the review of a job takes; zero for no review, None for one that is ended by hand."""
        if review is None or review is False:
            return timedelta()
        wanted = self.review if review is True else review
        if wanted == "open":
            return None
        distribution = as_distribution(wanted, "review")
        return timedelta(seconds=distribution.draw(self.rng("review", ref.user_id, ref.job_id)))
