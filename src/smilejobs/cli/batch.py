"""``smilejobs batch``: a file of jobs in, a file of outcomes out."""

import json
import os
import shlex
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack
from errno import ENOENT
from functools import partial
from os import strerror
from pathlib import Path
from typing import Annotated

import typer
from attrs import define, field
from filelock import FileLock, Timeout

from smilejobs.batch.extra import extra_columns
from smilejobs.batch.journal import Journal, ResultsLostError, check_suffix, settles
from smilejobs.batch.records import Ending, Record
from smilejobs.batch.report import Report
from smilejobs.batch.rows import Rows, count_rows
from smilejobs.batch.run import Run
from smilejobs.batch.words import number_of
from smilejobs.cli.display import console, printable
from smilejobs.cli.exits import ExitCode, complain, exit_on
from smilejobs.cli.options import CANNOT_ASK, WHO_ASKS, Until, api_url, duration, open_input
from smilejobs.cli.progress import Tally, view
from smilejobs.cli.stopping import run
from smilejobs.client import Client
from smilejobs.clock import utcnow
from smilejobs.errors import SmileJobsError
from smilejobs.version import __version__

EPILOG = (
    f"Example: smilejobs batch pending.csv --out results.csv --report report.html\n\n{WHO_ASKS} "
    "Exit codes: 0 all complete, 2 usage, 3 some pending, 4 some errors, 130 interrupted."
)

_WRONG = (*CANNOT_ASK, OSError, TypeError)
"""What can be wrong before the first poll."""


def batch(
    source: Annotated[
        str,
        typer.Argument(
            metavar="INPUT",
            help="CSV or JSON Lines with user_id, job_id and, if known, submitted_at; - for standard input. "
            "Other columns are carried along.",
        ),
    ],
    *,
    out: Annotated[Path, typer.Option(help="The results: .csv, or .jsonl for JSON Lines.")],
    resume: Annotated[bool, typer.Option("--resume", help="Go on with results that exist.")] = False,
    concurrency: Annotated[int, typer.Option(min=1, help="Polls under way at once.")] = 100,
    rate: Annotated[float, typer.Option(help="Polls per second, at most.")] = 100.0,
    timeout: Annotated[
        str, typer.Option(metavar="DURATION", help="For each job: 90s, 10m, 2h, 1d, or seconds.")
    ] = "10m",
    deadline: Annotated[
        str | None, typer.Option(metavar="DURATION", help="For the whole batch; what is pending then stays pending.")
    ] = None,
    until: Annotated[Until, typer.Option(help="Whether a provisional result ends the wait.")] = Until.COMPLETE,
    history: Annotated[bool, typer.Option("--history", help="Add the history of each user.")] = False,
    personal: Annotated[bool, typer.Option("--personal", help="Add personal data, without pictures.")] = False,
    save_images: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            exists=True,
            file_okay=False,
            writable=True,
            help="Save the pictures of each job in this folder, as soon as the job is complete.",
        ),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(metavar="FILE", dir_okay=False, writable=True, help="Write a page of HTML about the batch."),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Say nothing but what went wrong.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Wait for all jobs of a file, and write how each one ended.

    A row is written as soon as its job ends. However the command ends, --resume goes on with the rows that have no
    final outcome: pending ones, failed ones, bad ones, those whose pictures may come yet, and those never asked for.
    """
    with exit_on(KeyboardInterrupt, ExitCode.INTERRUPTED), exit_on(_WRONG, ExitCode.USAGE):
        check_suffix(out)
        _check_files(source, out, report)
        is_settled = partial(settles, until=until.value, images=save_images is not None)
        patience = duration(timeout, "--timeout")
        limit = None if deadline is None else duration(deadline, "--deadline")
        client = Client.from_env(max_connections=concurrency, rate=rate)
        settings = {
            "input": source,
            "results": out,
            "API": api_url(),
            "concurrency": concurrency,
            "polls per second": f"{rate:g}, at most",
            "timeout": timeout,
            "deadline": deadline or "none",
            "until": until.value,
            "history": history,
            "personal": personal,
            "pictures": "not saved" if save_images is None else save_images,
            "resumed": resume,
            "started": utcnow().isoformat(" ", "seconds"),
            "version": __version__,
        }
        books = _Books(
            tally=Tally(name=source, total=_count(source)),
            report=None if report is None else Report(settings),
            is_settled=is_settled,
        )
        with ExitStack() as closing:
            rows = Rows(closing.enter_context(open_input(source)), source)
            closing.enter_context(_alone(out))
            journal = Journal(
                out,
                columns=rows.columns,
                extra=extra_columns(history=history, personal=personal),
                resume=resume,
                is_settled=is_settled,
                on_record=books.add,
            )
            files = closing.pop_all()
        books.tally.earlier = books.tally.ended

    async def work() -> None:
        with view(console(stderr=True), books.tally, quiet=quiet) as shown:
            async with client:
                asking = Run(
                    client=client,
                    journal=journal,
                    timeout=patience,
                    deadline=limit,
                    until=until.value,
                    history=history,
                    personal=personal,
                    save_images=save_images,
                    on_record=books.add,
                    on_bad_row=shown.on_bad_row,
                    on_progress=shown.on_progress,
                )
                await asking.ask(rows, slow=books.tally.total is None)
                books.is_read = asking.is_read

    code = _run(work, files, journal)
    raise typer.Exit(
        _finish(books, code, out=out, save_images=save_images, report=report, quiet=quiet, as_json=as_json)
    )


def _run(work: Callable[[], Awaitable[None]], files: ExitStack, journal: Journal) -> ExitCode | ResultsLostError | None:
    """Do the work, close the files, and return what it was stopped by; None if it came to its end."""
    try:
        with files, journal:
            run(work)
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except ResultsLostError as error:
        complain(error)
        return error
    except (SmileJobsError, OSError, ValueError) as error:
        complain(error)
        return ExitCode.ERROR
    return None


def _finish(
    books: "_Books",
    stopped_by: ExitCode | ResultsLostError | None,
    *,
    out: Path,
    save_images: Path | None,
    report: Path | None,
    quiet: bool,
    as_json: bool,
) -> ExitCode:
    """Write the report, say how it went and how to go on, and return the exit code."""
    written = _written(books.report, report)
    if isinstance(stopped_by, ResultsLostError):
        return ExitCode.ERROR
    is_missing = written is not report
    is_unfinished = books.unsettled or is_missing or stopped_by is not None or not books.is_read
    again = _again() if is_unfinished else None
    if as_json:
        typer.echo(json.dumps(books.summary(out, save_images, written, again), indent=2))
    elif not quiet:
        for line in books.lines(out, save_images, written):
            typer.echo(printable(line))
    if again is not None and (not quiet or stopped_by is ExitCode.INTERRUPTED):
        typer.echo(printable(f"{'' if stopped_by is None else 'stopped; '}to go on: {again}"), err=True)
    if stopped_by is not None:
        return stopped_by
    return ExitCode.ERROR if is_missing else books.exit_code()


@define(kw_only=True)
class _Books:
    """What is kept of all rows, those of earlier runs among them.

    Attributes:
        tally: How many ended how.
        report: The page about them, if one is wanted.
        is_settled: Whether a row would not be asked for again.
        unsettled: How many would be.
        images: How many pictures are saved.
        without_images: Of how many jobs not all pictures are.
        is_read: Whether all rows were read; a deadline may come first.
    """

    tally: Tally
    report: Report | None
    is_settled: Callable[[Record], bool]
    unsettled: int = field(init=False, default=0)
    images: int = field(init=False, default=0)
    without_images: int = field(init=False, default=0)
    is_read: bool = field(init=False, default=True)

    def add(self, record: Record) -> None:
        self.tally.add(record)
        if self.report is not None:
            self.report.add_record(record)
        self.unsettled += not self.is_settled(record)
        self.images += record.images or 0
        self.without_images += record.images_error is not None

    def exit_code(self) -> ExitCode:
        words = self.tally.words
        if words[Ending.REFUSED] or words[Ending.FAILED] or words[Ending.INVALID] or self.without_images:
            return ExitCode.ERROR
        return ExitCode.PENDING if words[Ending.PENDING] or not self.is_read else ExitCode.COMPLETE

    def summary(
        self, out: Path, save_images: Path | None, report: Path | None, again: str | None
    ) -> Mapping[str, object]:
        """Return what there is to say at the end, for a script."""
        images = {"folder": str(save_images), "saved": self.images, "jobs_without_all": self.without_images}
        return {
            "rows": self.tally.ended,
            "outcomes": dict(self.tally.counts()),
            "results": str(out),
            "images": None if save_images is None else images,
            "report": None if report is None else str(report),
            "resume": again,
        }

    def lines(self, out: Path, save_images: Path | None, report: Path | None) -> Iterator[str]:
        """Return what there is to say at the end, for people."""
        tally = self.tally
        words = ", ".join(f"{count:,} {word}" for word, count in tally.counts()) or "nothing"
        yield f"{tally.rows()} in {out}: {words}"
        if save_images is not None:
            without = f"; not all pictures of {number_of(self.without_images, 'job')}" if self.without_images else ""
            yield f"{number_of(self.images, 'picture')} in {save_images}{without}"
        if report is not None:
            yield f"the report: {report}"


def _check_files(source: str, out: Path, report: Path | None) -> None:
    """Do nothing if the input, the results and the report each have a place of their own.

    Raises:
        ValueError: One would replace another, or the folder of the report is not there, or not to be written to.
    """
    places = [path.resolve() for path in (Path(source), out, report) if path is not None]
    if len(set(places)) < len(places):
        raise ValueError("the input, --out and --report must be different files: one would replace another")
    if report is None or report.exists():
        return
    if not (report.parent.is_dir() and os.access(report.parent, os.W_OK)):
        raise ValueError(f"--report: there is no folder {report.parent}, or nothing can be written there")


def _written(report: Report | None, path: Path | None) -> Path | None:
    """Write the report; return where it is, if it is."""
    if report is None or path is None:
        return None
    try:
        report.write(path)
    except OSError as error:
        complain(error)
        return None
    return path


def _alone(out: Path) -> AbstractContextManager[object]:
    """Return what keeps other runs away from a results file until it is left, or this process is killed.

    It locks a file of its own, for that of the results is put in place anew. It stays: to remove it would let two in.

    Raises:
        OSError: There is no such folder, or nothing can be written there.
        ValueError: Another run has it.
    """
    path = out.resolve()
    if not path.parent.is_dir():
        raise FileNotFoundError(ENOENT, strerror(ENOENT), str(out))
    try:
        return FileLock(path.with_name(f".{path.name}.lock")).acquire(blocking=False)
    except Timeout:
        raise ValueError(f"{out} is being written by another run: wait for its end, or choose another file") from None


def _count(source: str) -> int | None:
    """Return how many rows the input has; None if it can be read but once."""
    if source == "-" or not Path(source).is_file():
        return None
    with open_input(source) as stream:
        return count_rows(stream, source)


def _again() -> str:
    """Return the command that goes on with this one."""
    resume = [] if "--resume" in sys.argv else ["--resume"]
    return shlex.join(["smilejobs", *sys.argv[1:], *resume])
