"""``smilejobs demo``: waits for 24 jobs of all kinds at once, over HTTP, and checks how each wait ends."""

import statistics
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime

import anyio
from attrs import define, frozen
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from smilejobs.cli.display import STYLES, live_table
from smilejobs.client import Client
from smilejobs.clock import utcnow
from smilejobs.errors import JobNotFoundError, SmileJobsError, WaitTimeoutError
from smilejobs.model.codes import NO_ZIP
from smilejobs.model.jobs import JobRef
from smilejobs.model.tables import word
from smilejobs.sandbox import Sandbox

_USER = "demo-user"
_NO_ZIP = "no zip"
_NOT_FOUND = "not found"


@frozen(kw_only=True)
class Plan:
    """One job of the demo: the arguments of `Sandbox.submit`, if it is submitted, and the timeout of the wait."""

    job_id: str
    is_submitted: bool = True
    has_zip: bool = True
    refusal: str | None = None
    job_type: int = 1
    machine: float = 1.0
    review: float | None = None
    outcome: str = "approved"
    timeout: float = 30.0

    @property
    def expected(self) -> str:
        """The expected end of the wait."""
        if not self.is_submitted:
            return _NOT_FOUND
        if not self.has_zip:
            return _NO_ZIP
        return self.outcome if self.refusal is None else f"failed {self.refusal}"


PLANS = (
    Plan(job_id="quick-1", job_type=1, machine=0.4),
    Plan(job_id="quick-2", job_type=2, machine=0.8),
    Plan(job_id="quick-3", job_type=4, machine=1.2),
    Plan(job_id="quick-4", job_type=5, machine=1.6),
    Plan(job_id="quick-5", job_type=6, machine=2.0),
    Plan(job_id="quick-6", job_type=7, machine=2.4),
    Plan(job_id="slow-1", job_type=11, machine=5.5),
    Plan(job_id="slow-2", job_type=4, machine=7.0),
    Plan(job_id="slow-3", job_type=6, machine=8.5),
    Plan(job_id="slow-4", job_type=1, machine=10.0),
    Plan(job_id="review-1", job_type=1, machine=1.5, review=3.5),
    Plan(job_id="review-2", job_type=6, machine=2.0, review=5.0),
    Plan(job_id="review-3", job_type=6, machine=2.5, review=6.5, outcome="rejected"),
    Plan(job_id="review-4", job_type=4, machine=3.0, review=8.0),
    Plan(job_id="rejected-1", job_type=1, machine=1.0, outcome="rejected"),
    Plan(job_id="rejected-2", job_type=2, machine=1.8, outcome="rejected"),
    Plan(job_id="rejected-3", job_type=5, machine=2.6, outcome="rejected"),
    Plan(job_id="disabled-1", job_type=2, refusal="2307"),
    Plan(job_id="error-1", job_type=5, machine=1.4, outcome="error"),
    Plan(job_id="error-2", job_type=2, machine=2.8, outcome="error"),
    Plan(job_id="no-zip-1", has_zip=False, timeout=5.0),
    Plan(job_id="no-zip-2", has_zip=False, timeout=7.0),
    Plan(job_id="unknown-1", is_submitted=False, timeout=5.0),
    Plan(job_id="unknown-2", is_submitted=False, timeout=7.0),
)


@define(kw_only=True)
class _Row:
    """One job, and the end of its wait, which came so many seconds (*late*) after the final result in the sandbox."""

    plan: Plan
    ref: JobRef
    outcome: str | None = None
    late: float | None = None


async def run(console: Console, plans: Sequence[Plan] = PLANS) -> bool:
    """Submit jobs to a sandbox, wait for all of them, and return whether every wait ended as expected.

    A terminal gets a live table, anything else a line for each job. The number of *plans* is even, because the table
    has two halves.
    """
    sandbox = Sandbox(now=utcnow)
    async with (
        sandbox.serve() as base_url,
        Client(partner_id="085", api_key="sandbox-key", base_url=base_url, now=utcnow) as client,
    ):
        console.print(f"Waiting for {len(plans)} jobs at once, on a sandbox at {base_url}\n")
        show = Show(console, sandbox, client, utcnow, plans)
        await show.wait()
        selfies, folder = await _save_selfies(client, show.approved())
    console.print()
    console.print(f"Selfies of approved jobs: {selfies}, in {folder}")
    for line in show.summary():
        console.print(line)
    return show.is_as_expected()


class Show:
    """Submits jobs to a sandbox, waits for them, and shows the progress; all by the clock *now*."""

    def __init__(
        self,
        console: Console,
        sandbox: Sandbox,
        client: Client,
        now: Callable[[], datetime],
        plans: Sequence[Plan],
    ) -> None:
        self._console = console
        self._sandbox = sandbox
        self._client = client
        self._now = now
        self._rows = [_Row(plan=plan, ref=_submit(sandbox, plan)) for plan in plans]
        self._elapsed = 0.0

    async def wait(self) -> None:
        """Wait for all jobs, and show the progress."""
        started = anyio.current_time()
        async with live_table(self._console, self._table), anyio.create_task_group() as tasks:
            for row in self._rows:
                tasks.start_soon(self._wait, row)
        self._elapsed = anyio.current_time() - started

    def approved(self) -> list[JobRef]:
        """Return the jobs that were approved."""
        return [row.ref for row in self._rows if row.outcome == "approved"]

    def is_as_expected(self) -> bool:
        """Return whether every wait ended as expected."""
        return all(row.outcome == row.plan.expected for row in self._rows)

    def summary(self) -> Iterator[str]:
        """Yield the lines of the summary."""
        rows = self._rows
        polls = sum(self._sandbox.polls(row.ref) for row in rows)
        as_expected = sum(row.outcome == row.plan.expected for row in rows)
        late = [row.late for row in rows if row.late is not None]
        jobs = f"{as_expected} of {len(rows)} jobs"
        yield f"{jobs} ended as expected, after {self._elapsed:.1f} s and {polls} polls."
        if late:
            yield (
                f"Results were seen {statistics.median(late):.2f} s after they were ready (median), "
                f"{max(late):.2f} s at the latest."
            )
        for row in rows:
            if row.outcome != row.plan.expected:
                yield f"{row.plan.job_id} ended as {row.outcome!r}; expected was {row.plan.expected!r}."

    async def _wait(self, row: _Row) -> None:
        """Wait for a job, knowing only its ids; the sandbox tells only how late the result was seen."""
        ref = row.ref
        try:
            status = await self._client.wait(
                ref.user_id,
                ref.job_id,
                timeout=row.plan.timeout,
                until="final",
                submitted_at=ref.submitted_at,
            )
        except WaitTimeoutError as error:
            row.outcome = _read_timeout(error)
        except SmileJobsError as error:
            row.outcome = f"failed {error.code}"
        else:
            row.outcome = word(status.verdict)
            job = self._sandbox.jobs[ref]
            row.late = None if job.final_at is None else (self._now() - job.final_at).total_seconds()
        if not self._console.is_terminal:
            polls = self._sandbox.polls(ref)
            self._console.print(f"{row.plan.job_id}: {row.outcome}, polls: {polls}, late: {_late(row)}")

    def _table(self) -> Table:
        """Return two halves side by side: 24 lines and a heading do not fit in a terminal of 24 lines."""
        table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=0)
        for side in ("left", "right"):
            if side == "right":
                table.add_column(width=2)
            table.add_column("job", min_width=10)
            table.add_column("outcome", min_width=12)
            table.add_column("polls", justify="right")
            table.add_column("late", justify="right", min_width=6)
        half = len(self._rows) // 2
        for left, right in zip(self._rows[:half], self._rows[half:], strict=True):
            table.add_row(*self._cells(left), "", *self._cells(right))
        return table

    def _cells(self, row: _Row) -> Iterator[str | Text]:
        yield row.plan.job_id
        if row.outcome is not None:
            yield Text(row.outcome, style=STYLES.get(row.outcome, "cyan"))
        else:  # the state in the sandbox, which the wait does not know yet
            job = self._sandbox.jobs.get(row.ref)
            yield Text("not submitted" if job is None else job.stage(self._now()).value, style="dim")
        yield str(self._sandbox.polls(row.ref))
        yield _late(row)


def _submit(sandbox: Sandbox, plan: Plan) -> JobRef:
    if not plan.is_submitted:
        return JobRef(_USER, plan.job_id)
    return sandbox.submit(
        _USER,
        plan.job_id,
        outcome=plan.outcome,
        job_type=plan.job_type,
        upload=0.0 if plan.has_zip else None,
        machine=plan.machine,
        review=plan.review,
        refusal=plan.refusal,
    )


async def _save_selfies(client: Client, approved: Sequence[JobRef]) -> tuple[int, str]:
    """Save the selfies to a new folder with mode 0700; return how many there are, and the folder."""
    folder = await anyio.mkdtemp(prefix="smilejobs-demo-")
    saved = [
        path
        for ref in approved
        for path in await client.save_images(ref.user_id, ref.job_id, folder, names=["selfie_image"])
    ]
    return len(saved), folder


def _read_timeout(error: WaitTimeoutError) -> str:
    if isinstance(error.last_error, JobNotFoundError):
        return _NOT_FOUND
    return _NO_ZIP if error.last is not None and error.last.code == NO_ZIP else "timed out"


def _late(row: _Row) -> str:
    return "-" if row.late is None else f"{row.late:.2f} s"
