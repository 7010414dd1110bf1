"""``smilejobs batch``: wait for the jobs of a file, and write a file of outcomes."""

import json
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from attrs import define, field
from filelock import FileLock, Timeout

from smilejobs.batch.extra import extra_columns
from smilejobs.batch.journal import Journal, ResultsLostError, is_settled, validate_suffix
from smilejobs.batch.records import Ending, RowRecord
from smilejobs.batch.report import Report
from smilejobs.batch.rows import Rows, count_rows
from smilejobs.batch.run import Run
from smilejobs.batch.words import number_of
from smilejobs.cli.display import console, printable
from smilejobs.cli.exits import ExitCode, complain, exit_on
from smilejobs.cli.options import (
    CLIENT_ERRORS,
    CREDENTIALS_HELP,
    WaitUntil,
    open_input,
    parse_duration,
    read_base_url,
    require_folder,
)
from smilejobs.cli.paces import LearnFile, PaceFile, read_pace
from smilejobs.cli.progress import Tally, View
from smilejobs.cli.stopping import run_until_stopped
from smilejobs.client import Client
from smilejobs.clock import utcnow
from smilejobs.errors import SmileJobsError
from smilejobs.polling.learned_pace import LearnedPace
from smilejobs.version import __version__

EPILOG = (
    f"Example: smilejobs batch pending.csv --out results.csv --report report.html\n\n{CREDENTIALS_HELP} "
    "Exit codes: 0 all complete, 2 usage, 3 some pending, 4 some errors, 130 interrupted."
)

_USAGE_ERRORS = (*CLIENT_ERRORS, OSError, TypeError)
"""Errors before the first poll: a wrong option, variable or file."""


def batch(
    context: typer.Context,
    source: Annotated[
        str,
        typer.Argument(
            metavar="INPUT",
            help="CSV or JSON Lines with user_id, job_id and, if known, submitted_at; - for standard input. "
            "Other columns are carried along.",
        ),
    ],
    *,
    out: Annotated[Path, typer.Option(help="The results file: .csv, or .jsonl for JSON Lines.")],
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a results file that exists.")] = False,
    concurrency: Annotated[int, typer.Option(min=1, help="The most polls at the same time.")] = 100,
    rate: Annotated[float, typer.Option(help="The most polls per second.")] = 100.0,
    timeout: Annotated[
        str, typer.Option(metavar="DURATION", help="For each job: 90s, 10m, 2h, 1d, or seconds.")
    ] = "10m",
    deadline: Annotated[
        str | None, typer.Option(metavar="DURATION", help="For the whole batch; pending jobs are written as pending.")
    ] = None,
    until: WaitUntil = "complete",
    history: Annotated[bool, typer.Option("--history", help="Add the history of each user.")] = False,
    personal: Annotated[bool, typer.Option("--personal", help="Add personal data, without pictures.")] = False,
    save_images: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            exists=True,
            file_okay=False,
            writable=True,
            help="Save the pictures of each job in this folder as soon as the job is complete.",
        ),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(metavar="FILE", dir_okay=False, writable=True, help="Write a page of HTML about the batch."),
    ] = None,
    pace: PaceFile = None,
    learn: LearnFile = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print nothing but errors.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Wait for all jobs of a file, and write their outcomes.

    A row is written as soon as its job ends. If the command is stopped, --resume goes on: it polls jobs that are
    pending, failed or not polled yet, rows that were invalid, and jobs whose missing pictures may still be saved.
    """
    with ExitStack() as files:
        with exit_on(_USAGE_ERRORS, ExitCode.USAGE):
            validate_suffix(out)
            _check_files(source, out, report, learn)
            learned = read_pace(pace, learn)
            timeout_seconds = parse_duration(timeout, "--timeout")
            deadline_seconds = None if deadline is None else parse_duration(deadline, "--deadline")
            client = Client.from_env(max_connections=concurrency, rate=rate, pace=learned)
            output = _Output(
                path=out,
                images_folder=save_images,
                report_path=report,
                report=Report(_describe_settings(context.params)),
                learn_path=learn,
                pace=learned,
                tally=Tally(name=source, total=_count_rows(source)),
                is_settled=partial(is_settled, until=until, images=save_images is not None),
                quiet=quiet,
                as_json=as_json,
            )
            view = View(console(stderr=True), output.tally, quiet=quiet)
            rows = Rows(files.enter_context(open_input(source)), source)
            files.enter_context(_lock(out))
            run = Run(
                client=client,
                journal=Journal(
                    out,
                    columns=rows.columns,
                    extra=extra_columns(history=history, personal=personal),
                    resume=resume,
                    keep=output.is_settled,
                    on_record=output.add,
                ),
                timeout=timeout_seconds,
                deadline=deadline_seconds,
                until=until,
                history=history,
                personal=personal,
                save_images=save_images,
                on_record=output.add,
                on_bad_row=view.on_bad_row,
                on_progress=view.on_progress,
            )
            output.tally.earlier = output.tally.ended
        raise typer.Exit(_run(run, rows, view, output))


def _run(run: Run, rows: Rows, view: View, output: "_Output") -> ExitCode:
    """Run the batch, close the results, write the report, print the summary, and return the exit code."""

    async def wait() -> None:
        with view:
            async with run.client:
                await run.wait(rows, blocking=output.tally.total is None)

    code: ExitCode | None = None
    try:
        with run.journal:
            run_until_stopped(wait)
    except KeyboardInterrupt:
        code = ExitCode.INTERRUPTED
    except ResultsLostError as error:
        complain(error)
        output.write_report()
        return ExitCode.ERROR
    except (SmileJobsError, OSError, ValueError) as error:
        complain(error)
        code = ExitCode.ERROR
    return output.finish(code, is_read=run.is_read)


@define(kw_only=True)
class _Output:
    """The output of the command: counts of all rows, those of earlier runs too; the report; the summary.

    Attributes:
        path: The results file; the paths of the other files are None if they are not wanted.
        is_settled: Returns whether a row will not be polled again.
        unsettled: The number of rows that will be polled again.
        images: The number of saved pictures.
        without_images: The number of complete jobs that lack pictures.
    """

    path: Path
    images_folder: Path | None
    report_path: Path | None
    report: Report
    learn_path: Path | None
    pace: LearnedPace | None
    tally: Tally
    is_settled: Callable[[RowRecord], bool]
    quiet: bool
    as_json: bool
    unsettled: int = field(init=False, default=0)
    images: int = field(init=False, default=0)
    without_images: int = field(init=False, default=0)

    def add(self, record: RowRecord) -> None:
        """Count a row."""
        self.tally.add(record)
        if self.report_path is not None:
            self.report.add_record(record)
        self.unsettled += not self.is_settled(record)
        self.images += record.images or 0
        self.without_images += record.images_error is not None

    def write_report(self) -> Path | None:
        """Write the report, if one is wanted; return its path if it was written."""
        is_written = self.report_path is not None and _write(self.report_path, self.report.write)
        return self.report_path if is_written else None

    def finish(self, code: ExitCode | None, *, is_read: bool) -> ExitCode:
        """Write the report, save the pace, print the summary and how to resume the batch, and return the exit code.

        Args:
            code: The exit code of a batch that was stopped; None if all rows ended, or the deadline came.
            is_read: Whether all rows of the input were read.
        """
        report = self.write_report()
        is_missing = report is not self.report_path
        if self.learn_path is not None and self.pace is not None:
            is_missing |= not _write(self.learn_path, self.pace.save)
        is_unfinished = self.unsettled or is_missing or code is not None or not is_read
        resume = _format_resume_command() if is_unfinished else None
        if self.as_json:
            typer.echo(json.dumps(self._summarize(report, resume), indent=2))
        elif not self.quiet:
            for line in self._format_summary(report):
                typer.echo(printable(line))
        if resume is not None and (not self.quiet or code is ExitCode.INTERRUPTED):
            typer.echo(printable(f"{'' if code is None else 'stopped; '}to go on: {resume}"), err=True)
        if code is not None:
            return code
        words = self.tally.words
        if is_missing or words[Ending.REFUSED] or words[Ending.FAILED] or words[Ending.INVALID] or self.without_images:
            return ExitCode.ERROR
        return ExitCode.PENDING if words[Ending.PENDING] or not is_read else ExitCode.COMPLETE

    def _summarize(self, report: Path | None, resume: str | None) -> Mapping[str, object]:
        images = {"folder": str(self.images_folder), "saved": self.images, "jobs_without_all": self.without_images}
        return {
            "rows": self.tally.ended,
            "outcomes": dict(self.tally.counts()),
            "results": str(self.path),
            "images": None if self.images_folder is None else images,
            "report": None if report is None else str(report),
            "resume": resume,
        }

    def _format_summary(self, report: Path | None) -> Iterator[str]:
        counts = ", ".join(f"{count:,} {word}" for word, count in self.tally.counts()) or "nothing"
        yield f"{self.tally.format_rows()} in {self.path}: {counts}"
        if self.images_folder is not None:
            without = (
                f"; pictures of {number_of(self.without_images, 'job')} are missing" if self.without_images else ""
            )
            yield f"{number_of(self.images, 'picture')} in {self.images_folder}{without}"
        if report is not None:
            yield f"the report: {report}"


def _write(path: Path, write: Callable[[Path], None]) -> bool:
    """Write a file; print the error and return False if that fails."""
    try:
        write(path)
    except OSError as error:
        complain(error)
        return False
    return True


def _describe_settings(options: Mapping[str, object]) -> Mapping[str, object]:
    """Return the settings for the report, by name: the options that matter for the results, and the API."""
    settings = {
        name.replace("_", " "): {True: "yes", False: "no"}[value] if isinstance(value, bool) else value or "none"
        for name, value in options.items()
        if name not in ("quiet", "as_json")
    }
    started = utcnow().isoformat(" ", "seconds")
    return {**settings, "API": read_base_url(), "started": started, "version": __version__}


def _check_files(source: str, out: Path, report: Path | None, learn: Path | None) -> None:
    """Raise ValueError if two of the files are the same one, or a folder cannot be written."""
    paths = [path.resolve() for path in (Path(source), out, report, learn) if path is not None]
    if len(set(paths)) < len(paths):
        raise ValueError("the input, --out, --report and --learn must be different files: one would replace another")
    require_folder(out, "--out")
    if report is not None and not report.exists():
        require_folder(report, "--report")


def _lock(out: Path) -> AbstractContextManager[object]:
    """Lock a results file against other runs, until the returned context is left or this process ends.

    The lock is on a file beside the results file, because the results file is replaced on resuming. It is never
    removed: a run that waits for the removed file and a run that makes a new one would both have a lock.

    Raises:
        ValueError: Another run has the lock.
    """
    path = out.resolve()
    try:
        return FileLock(path.with_name(f".{path.name}.lock")).acquire(blocking=False)
    except Timeout:
        raise ValueError(f"{out} is being written by another run: wait for its end, or choose another file") from None


def _count_rows(source: str) -> int | None:
    """Return the number of rows of the input; None if it is a pipe, which can be read only once."""
    if source == "-" or not Path(source).is_file():
        return None
    with open_input(source) as stream:
        return count_rows(stream, source)


def _format_resume_command() -> str:
    """Return the command that goes on with this one."""
    resume = [] if "--resume" in sys.argv else ["--resume"]
    return shlex.join(["smilejobs", *sys.argv[1:], *resume])
