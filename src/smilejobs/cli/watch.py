"""``smilejobs watch``: add jobs to a watch list, and read it."""

import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from anyio import to_thread
from attrs import asdict, define, field

from smilejobs.batch.rows import BadRow, Rows
from smilejobs.batch.words import number_of
from smilejobs.cli.display import printable
from smilejobs.cli.exits import ExitCode, exit_on
from smilejobs.cli.options import ListURL, WaitUntil, open_input, parse_duration
from smilejobs.cli.stopping import run_until_stopped
from smilejobs.errors import WatchListError
from smilejobs.model.jobs import JobRef

if TYPE_CHECKING:
    from smilejobs.durable import Learned, WatchList
    from smilejobs.durable.rows import Health

app = typer.Typer(no_args_is_help=True, help="Add jobs to a watch list, and print their outcomes.")

_GROUP_JOBS = 1000
"""The number of jobs that a thread reads at once: starting a thread takes longer than reading a job."""

_EXIT_CODES = "Exit codes: 0 done, 2 usage, 4 the database cannot be used"
_JSON_LINES = Annotated[bool, typer.Option("--json", help="Print JSON Lines.")]


@app.command(
    epilog="Example: smilejobs watch add sqlite:///jobs.db pending.csv --until final --deadline 7d\n\n"
    f"{_EXIT_CODES}, or some rows are bad, 130 interrupted."
)
def add(
    url: ListURL,
    source: Annotated[
        str,
        typer.Argument(
            metavar="INPUT",
            help="CSV or JSON Lines with user_id, job_id and, if known, submitted_at; - for standard input. "
            "Other columns are ignored.",
        ),
    ],
    *,
    until: WaitUntil = "complete",
    deadline: Annotated[
        str, typer.Option(metavar="DURATION", help="From now until a job expires: 90s, 10m, 2h, 7d; none for never.")
    ] = "7d",
) -> None:
    """Add the jobs of a file to a watch list.

    Jobs that are already in the list do not change. Jobs are stored in groups of some thousands, the last group at the
    end of the input. After an error, add the file again.
    """
    with exit_on((OSError, ValueError), ExitCode.USAGE):
        within = None if deadline == "none" else parse_duration(deadline, "--deadline")
        with ExitStack() as stack:
            jobs = _Jobs(source, Rows(stack.enter_context(open_input(source)), source))
            files = stack.pop_all()

    async def work(watch: "WatchList") -> ExitCode:
        added = await watch.add(_read_in_thread(jobs), until=until, deadline=within)
        bad = f", {jobs.bad:,} bad" if jobs.bad else ""
        typer.echo(f"{added.new:,} new, {added.known:,} known{bad}")
        if added.different:
            typer.echo(
                f"{number_of(len(added.different), 'known job')} keep another --until or --deadline from before",
                err=True,
            )
        if jobs.has_more_columns:
            typer.echo("columns other than user_id, job_id and submitted_at are ignored", err=True)
        return ExitCode.ERROR if jobs.bad else ExitCode.COMPLETE

    with files, exit_on(OSError, ExitCode.ERROR):
        _run(url, work, new=True)


async def _read_in_thread(jobs: Iterable[JobRef]) -> AsyncGenerator[JobRef, None]:
    """Yield jobs that a thread reads, so that Ctrl-C does not wait for a pipe."""
    left = iter(jobs)
    while group := await to_thread.run_sync(list, islice(left, _GROUP_JOBS), abandon_on_cancel=True):
        for ref in group:
            yield ref


@define
class _Jobs:
    """The jobs of a file, to be iterated over once; the reason of each bad row is printed.

    Attributes:
        bad: The number of rows that name no job that can be stored.
        has_more_columns: Whether rows have columns other than those of a job.
    """

    name: str
    rows: Rows
    bad: int = field(init=False, default=0)
    has_more_columns: bool = field(init=False, default=False)

    def __iter__(self) -> Iterator[JobRef]:
        from smilejobs.durable.watchlist import problem_of

        for row in self.rows:
            if isinstance(row, BadRow):
                self._report_bad(row.line, row.reason)
                continue
            self.has_more_columns = self.has_more_columns or bool(row.carried)
            problem = problem_of(row.ref)
            if problem is None:
                yield row.ref
            else:
                self._report_bad(row.line, problem)

    def _report_bad(self, line: int, reason: str) -> None:
        self.bad += 1
        typer.echo(printable(f"{self.name}:{line}: {reason}"), err=True)


@app.command(
    "list",
    epilog="Example: smilejobs watch list sqlite:///jobs.db --limit 20\n\n"
    f"{_EXIT_CODES}, 130 interrupted. What --json prints is an input of smilejobs watch add.",
)
def list_pending(
    url: ListURL,
    *,
    limit: Annotated[int | None, typer.Option(min=1, help="The most jobs to print.", show_default="all")] = None,
    as_json: _JSON_LINES = False,
) -> None:
    """Print the pending jobs, in the order in which they were added.

    In columns, separated by tabs: when the job was added, when it expires, what it is waited for (complete or final),
    user_id, job_id.
    """

    async def work(watch: "WatchList") -> ExitCode:
        count = 0
        async for job in watch.pending():
            if count == limit:
                break
            count += 1
            values = {
                **_describe_ref(job.ref),
                "until": job.until,
                "added_at": job.added_at,
                "expires_at": job.expires_at,
            }
            columns = ("added_at", "expires_at", "until", "user_id", "job_id")
            typer.echo(_format_json(values) if as_json else _format_columns(values, columns))
        return ExitCode.COMPLETE

    _run(url, work)


@app.command(
    epilog="Example: smilejobs watch outcomes sqlite:///jobs.db --json --after 5d41402a-100\n\n"
    f"{_EXIT_CODES}, 130 interrupted."
)
def outcomes(
    url: ListURL,
    *,
    after: Annotated[
        str | None,
        typer.Option(metavar="CURSOR", help="Print the outcomes after this one.", show_default="from the first"),
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Wait for more outcomes, until Ctrl-C.")] = False,
    raw: Annotated[
        bool,
        typer.Option(
            "--raw", help="With --json: add the answers that smilejobs worker --keep-raw stored, with personal data."
        ),
    ] = False,
    as_json: _JSON_LINES = False,
) -> None:
    """Print the outcomes of jobs, in order of completion.

    In columns, separated by tabs: the cursor, when the job ended, its state (complete, failed or expired), the verdict,
    user_id, job_id, and the last text about it. --json prints all attributes.
    """
    with exit_on(ValueError, ExitCode.USAGE):
        if raw and not as_json:
            raise ValueError("--raw needs --json")

    async def work(watch: "WatchList") -> ExitCode:
        async for outcome in watch.outcomes(after=after, follow=follow):
            values = asdict(outcome, recurse=False)
            values = {"cursor": values.pop("cursor"), **_describe_ref(values.pop("ref")), **values}
            answer = values.pop("raw")
            if as_json:
                typer.echo(_format_json({**values, "raw": answer} if raw else values))
            else:
                values["text"] = outcome.error_text or outcome.result_text or outcome.code
                columns = ("cursor", "ended_at", "state", "verdict", "user_id", "job_id", "text")
                typer.echo(_format_columns(values, columns))
        return ExitCode.COMPLETE

    _run(url, work)


@app.command(
    epilog="Example: smilejobs watch paused sqlite:///jobs.db\n\n"
    "Use it as a health check: it reads a few rows. Exit codes: 0 the database can be used, polling is not paused, the "
    "API answers, and a worker is running or no job has been pending for long; 2 usage; 4 otherwise; 130 interrupted."
)
def paused(url: ListURL, *, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Print whether polling works, and if not, since when.

    Polling does not work while it is paused, because the credentials are wrong, while the API does not answer, or while
    no worker is running.
    """

    async def work(watch: "WatchList") -> ExitCode:
        health = await watch.store.health()
        if as_json:
            typer.echo(_format_json(asdict(health)))
        else:
            typer.echo(printable(f"polling is paused: {health.paused}" if health.paused else "polling is not paused"))
            if health.outage is not None:
                since = "" if health.outage_since is None else f" since {_format_value(health.outage_since)}"
                typer.echo(printable(f"no good answer from the API{since}: {health.outage}"))
            if health.stalled is not None:
                typer.echo(printable(health.stalled))
        return _get_health_code(health)

    _run(url, work)


def _describe_learned(learned: "Learned") -> str:
    if learned.remembered is None:
        remembered = "what is stored cannot be read by this version"
    else:
        remembered = f"remembers {learned.remembered:,}"
    at = "" if learned.updated_at is None else f", last stored {_format_value(learned.updated_at)}"
    return f"{remembered}, from {number_of(learned.jobs, 'job')} and {number_of(learned.reviews, 'review')}{at}"


def _get_health_code(found: "Health") -> ExitCode:
    is_good = found.paused is None and found.outage is None and found.stalled is None
    return ExitCode.COMPLETE if is_good else ExitCode.ERROR


@app.command(
    epilog="Example: smilejobs watch counts sqlite:///jobs.db --json\n\n"
    "It reads the whole list. Exit codes: 0 all is well, 2 usage, 4 as for smilejobs watch paused, 130 interrupted."
)
def counts(url: ListURL, *, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Print the number of jobs by state.

    Also prints what smilejobs watch paused prints.
    """

    async def work(watch: "WatchList") -> ExitCode:
        found = await watch.counts()
        if as_json:
            typer.echo(_format_json(asdict(found)))
        else:
            for name, value in asdict(found, recurse=False).items():
                if name == "learned" and value is not None:
                    typer.echo(f"{name:<12} {_describe_learned(value)}")
                elif value is not None:
                    text = f"{value:,}" if isinstance(value, int) else printable(_format_value(value))
                    typer.echo(f"{name.replace('_', ' '):<12} {text}")
        return _get_health_code(found)

    _run(url, work)


@app.command(epilog=f"Example: smilejobs watch retry sqlite:///jobs.db\n\n{_EXIT_CODES}, 130 interrupted.")
def retry(url: ListURL) -> None:
    """Wait again for the failed jobs.

    Their outcomes are removed, and their deadlines begin anew.
    """

    async def work(watch: "WatchList") -> ExitCode:
        typer.echo(f"reopened {number_of(await watch.retry(), 'failed job')}")
        return ExitCode.COMPLETE

    _run(url, work)


@app.command(
    epilog=f"Example: smilejobs watch prune sqlite:///jobs.db --older-than 30d\n\n{_EXIT_CODES}, 130 interrupted."
)
def prune(
    url: ListURL,
    *,
    older_than: Annotated[
        str, typer.Option(metavar="DURATION", help="How long ago the jobs ended: 90s, 10m, 2h, 30d.")
    ],
) -> None:
    """Delete jobs that ended long ago, and their outcomes.

    If such a job is added again, it is a new job.
    """
    with exit_on(ValueError, ExitCode.USAGE):
        age = parse_duration(older_than, "--older-than")

    async def work(watch: "WatchList") -> ExitCode:
        typer.echo(f"deleted {number_of(await watch.prune(older_than=age), 'job')}")
        return ExitCode.COMPLETE

    _run(url, work)


def _run(url: str, work: Callable[["WatchList"], Awaitable[ExitCode]], *, new: bool = False) -> NoReturn:
    """Open a watch list, which may be *new*, call *work* with it, and exit with the exit code that it returns."""
    with exit_on((ImportError, ValueError), ExitCode.USAGE):
        from smilejobs.durable import WatchList
        from smilejobs.durable.urls import parse

        opening = WatchList.open(url)
        parsed = parse(url)
        if not new and parsed.get_backend_name() == "sqlite" and not Path(parsed.database or "").exists():
            raise ValueError(f"there is no watch list {parsed.database!r}: create it with smilejobs watch add")

    async def run() -> ExitCode:
        async with opening as watch:
            return await work(watch)

    with exit_on(ValueError, ExitCode.USAGE), exit_on(WatchListError, ExitCode.ERROR):
        raise typer.Exit(run_until_stopped(run))


def _describe_ref(ref: JobRef) -> dict[str, object]:
    return {"user_id": ref.user_id, "job_id": ref.job_id, "submitted_at": ref.submitted_at}


def _format_json(values: Mapping[str, object]) -> str:
    return json.dumps(values, default=datetime.isoformat)


def _format_columns(values: Mapping[str, object], names: Iterable[str]) -> str:
    return "\t".join("-" if values[name] is None else printable(_format_value(values[name])) for name in names)


def _format_value(value: object) -> str:
    return value.isoformat(timespec="seconds") if isinstance(value, datetime) else str(value)
