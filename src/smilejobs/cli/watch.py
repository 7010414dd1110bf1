"""``smilejobs watch``: what is put into a watch list, and what comes out of it."""

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
from smilejobs.cli import stopping
from smilejobs.cli.display import printable
from smilejobs.cli.exits import ExitCode, exit_on
from smilejobs.cli.options import ListURL, Until, duration, open_input
from smilejobs.errors import WatchListError
from smilejobs.model.jobs import JobRef

if TYPE_CHECKING:
    from smilejobs.durable import Counts, WatchList
    from smilejobs.durable.signs import Health

app = typer.Typer(no_args_is_help=True, help="Put jobs into a watch list, and see what has become of them.")

_GROUP = 1000
"""Jobs that are read at once: to ask a thread takes longer than to read one."""

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
    until: Annotated[Until, typer.Option(help="Whether a provisional result ends the wait.")] = Until.COMPLETE,
    deadline: Annotated[
        str, typer.Option(metavar="DURATION", help="From now until a job expires: 90s, 10m, 2h, 7d; none for never.")
    ] = "7d",
) -> None:
    """Add the jobs of a file; those that are in the list already stay as they are.

    They are stored in groups of some thousands, the last of them at the end of the input. After an error, add the file
    again.
    """
    with exit_on(KeyboardInterrupt, ExitCode.INTERRUPTED), exit_on((OSError, ValueError), ExitCode.USAGE):
        within = None if deadline == "none" else duration(deadline, "--deadline")
        with ExitStack() as closing:
            jobs = _Jobs(source, Rows(closing.enter_context(open_input(source)), source))
            files = closing.pop_all()

    async def work(watch: "WatchList") -> ExitCode:
        added = await watch.add(_by_thread(jobs), until=until.value, deadline=within)
        bad = f", {jobs.bad:,} bad" if jobs.bad else ""
        typer.echo(f"{added.new:,} new, {added.known:,} known{bad}")
        if added.different:
            count = f"{len(added.different):,} of the known ones"
            typer.echo(f"{count} were added with another --until or --deadline: the first stands", err=True)
        if jobs.others:
            typer.echo("columns other than user_id, job_id and submitted_at are ignored", err=True)
        return ExitCode.ERROR if jobs.bad else ExitCode.COMPLETE

    with files, exit_on(OSError, ExitCode.ERROR):
        _run(url, work, new=True)


async def _by_thread(jobs: Iterable[JobRef]) -> AsyncGenerator[JobRef, None]:
    """Yield jobs that a thread reads: Ctrl-C waits for no pipe."""
    left = iter(jobs)
    while group := await to_thread.run_sync(list, islice(left, _GROUP), abandon_on_cancel=True):
        for ref in group:
            yield ref


@define
class _Jobs:
    """The jobs of a file, to be iterated over once; what is wrong with a bad row is said.

    Attributes:
        bad: How many rows name no job that could be stored.
        others: Whether rows have other columns.
    """

    name: str
    rows: Rows
    bad: int = field(init=False, default=0)
    others: bool = field(init=False, default=False)

    def __iter__(self) -> Iterator[JobRef]:
        from smilejobs.durable.watchlist import check

        for row in self.rows:
            if isinstance(row, BadRow):
                self._complain(row.line, row.reason)
                continue
            self.others = self.others or bool(row.carried)
            try:
                check(row.ref)
            except ValueError as error:
                self._complain(row.line, str(error))
            else:
                yield row.ref

    def _complain(self, line: int, reason: str) -> None:
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
    limit: Annotated[int | None, typer.Option(min=1, help="Print so many at most.", show_default="all")] = None,
    as_json: _JSON_LINES = False,
) -> None:
    """Print the jobs that are waited for, those that were added first before the others.

    In columns, separated by tabs: when the job was added, when it expires, until when it is waited for (complete or
    final), user_id, job_id.
    """

    async def work(watch: "WatchList") -> ExitCode:
        count = 0
        async for job in watch.pending():
            if count == limit:
                break
            count += 1
            known = {**_ids(job.ref), "until": job.until, "added_at": job.added_at, "expires_at": job.expires_at}
            columns = ("added_at", "expires_at", "until", "user_id", "job_id")
            typer.echo(_json(known) if as_json else _columns(known, *columns))
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
        typer.Option(metavar="CURSOR", help="The cursor of the last outcome you have.", show_default="from the first"),
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Wait for more, until Ctrl-C.")] = False,
    raw: Annotated[
        bool, typer.Option("--raw", help="With --json: add the answers that the worker kept, with personal data.")
    ] = False,
    as_json: _JSON_LINES = False,
) -> None:
    """Print how jobs have ended, in the order of their completion.

    In columns, separated by tabs: the cursor, when the job ended, its state (complete, failed or expired), the verdict,
    user_id, job_id, and what was said about it last. --json prints all that is known.
    """
    with exit_on(ValueError, ExitCode.USAGE):
        if raw and not as_json:
            raise ValueError("--raw needs --json")

    async def work(watch: "WatchList") -> ExitCode:
        async for outcome in watch.outcomes(after=after, follow=follow):
            known = asdict(outcome, recurse=False)
            known = {"cursor": known.pop("cursor"), **_ids(known.pop("ref")), **known}
            answer = known.pop("raw")
            if as_json:
                typer.echo(_json({**known, "raw": answer} if raw else known))
            else:
                known["said"] = outcome.error_text or outcome.result_text or outcome.code
                typer.echo(_columns(known, "cursor", "ended_at", "state", "verdict", "user_id", "job_id", "said"))
        return ExitCode.COMPLETE

    _run(url, work)


@app.command(
    epilog="Example: smilejobs watch paused sqlite:///jobs.db\n\n"
    "It serves as a health check, and reads a few rows. Exit codes: 0 the database can be used, polling is not paused, "
    "the API answers, and a worker is at work or no job has been pending for long; 2 usage; 4 one of these is not so; "
    "130 interrupted."
)
def paused(url: ListURL, *, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Print whether polling is paused, the API does not answer, or no worker is at work, and since when."""

    async def work(watch: "WatchList") -> ExitCode:
        health = await watch.store.health()
        if as_json:
            typer.echo(_json(asdict(health)))
        else:
            typer.echo(printable(f"polling is paused: {health.paused}" if health.paused else "polling is not paused"))
            if health.outage is not None:
                since = "" if health.outage_since is None else f" since {_text(health.outage_since)}"
                typer.echo(printable(f"no good answer of the API{since}: {health.outage}"))
            if health.stalled is not None:
                typer.echo(printable(health.stalled))
        return _health_code(health)

    _run(url, work)


def _health_code(found: "Counts | Health") -> ExitCode:
    is_good = found.paused is None and found.outage is None and found.stalled is None
    return ExitCode.COMPLETE if is_good else ExitCode.ERROR


@app.command(
    epilog="Example: smilejobs watch counts sqlite:///jobs.db --json\n\n"
    "It reads the whole list. Exit codes: 0 all is well, 2 usage, 4 as for smilejobs watch paused, 130 interrupted."
)
def counts(url: ListURL, *, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Print how many jobs are pending and how many have ended how, and what `watch paused` prints."""

    async def work(watch: "WatchList") -> ExitCode:
        found = await watch.counts()
        if as_json:
            typer.echo(_json(asdict(found)))
        else:
            for name, value in asdict(found).items():
                if value is not None:
                    shown = f"{value:,}" if isinstance(value, int) else printable(_text(value))
                    typer.echo(f"{name.replace('_', ' '):<12} {shown}")
        return _health_code(found)

    _run(url, work)


@app.command(epilog=f"Example: smilejobs watch retry sqlite:///jobs.db\n\n{_EXIT_CODES}, 130 interrupted.")
def retry(url: ListURL) -> None:
    """Wait again for the jobs that have failed, with their whole deadline; their outcomes are withdrawn."""

    async def work(watch: "WatchList") -> ExitCode:
        typer.echo(f"{await watch.retry():,} failed jobs are pending again")
        return ExitCode.COMPLETE

    _run(url, work)


@app.command(
    epilog=f"Example: smilejobs watch prune sqlite:///jobs.db --older-than 30d\n\n{_EXIT_CODES}, 130 interrupted."
)
def prune(
    url: ListURL,
    *,
    older_than: Annotated[
        str, typer.Option(metavar="DURATION", help="How long ago the jobs have ended: 90s, 10m, 2h, 30d.")
    ],
) -> None:
    """Delete jobs that ended long ago, with their outcomes; added again, they would be new ones."""
    with exit_on(ValueError, ExitCode.USAGE):
        age = duration(older_than, "--older-than")

    async def work(watch: "WatchList") -> ExitCode:
        typer.echo(f"{await watch.prune(older_than=age):,} jobs are deleted")
        return ExitCode.COMPLETE

    _run(url, work)


def _run(url: str, work: Callable[["WatchList"], Awaitable[ExitCode]], *, new: bool = False) -> NoReturn:
    """Do something with a watch list, and exit.

    Args:
        url: The watch list.
        work: What to do; returns the exit code.
        new: Whether the list may be a new one. To look into one that is not there is a slip of the pen.
    """
    with exit_on((ImportError, ValueError), ExitCode.USAGE):
        from smilejobs.durable import WatchList
        from smilejobs.durable.database import parse

        opening = WatchList.open(url)
        parsed = parse(url)
        if not new and parsed.get_backend_name() == "sqlite" and not Path(parsed.database or "").exists():
            raise ValueError(f"there is no watch list {parsed.database!r}: smilejobs watch add makes one")

    async def run() -> ExitCode:
        async with opening as watch:
            return await work(watch)

    with (
        exit_on(KeyboardInterrupt, ExitCode.INTERRUPTED),
        exit_on(ValueError, ExitCode.USAGE),
        exit_on(WatchListError, ExitCode.ERROR),
    ):
        raise typer.Exit(stopping.run(run))


def _ids(ref: JobRef) -> dict[str, object]:
    return {"user_id": ref.user_id, "job_id": ref.job_id, "submitted_at": ref.submitted_at}


def _json(values: Mapping[str, object]) -> str:
    return json.dumps(values, default=datetime.isoformat)


def _columns(values: Mapping[str, object], *names: str) -> str:
    return "\t".join("-" if values[name] is None else printable(_text(values[name])) for name in names)


def _text(value: object) -> str:
    return value.isoformat(timespec="seconds") if isinstance(value, datetime) else str(value)
