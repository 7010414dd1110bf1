"""The command line: the commands, their options and their exit codes."""

from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from functools import partial
from typing import Annotated, NoReturn

import typer

from smilejobs.cli import batch, callback, doctor, images, pace, sandbox, watch, worker
from smilejobs.cli.display import console, show
from smilejobs.cli.exits import ExitCode, complain, exit_on, set_debug
from smilejobs.cli.options import (
    CLIENT_ERRORS,
    CREDENTIALS_HELP,
    JobID,
    UserID,
    WaitUntil,
    make_client_and_ref,
    parse_duration,
)
from smilejobs.cli.paces import PaceFile, read_pace
from smilejobs.cli.stopping import run_until_stopped
from smilejobs.cli.waiting import WaitView
from smilejobs.client import Client
from smilejobs.errors import SmileJobsError, WaitTimeoutError
from smilejobs.model.codes import Verdict
from smilejobs.model.jobs import JobRef, JobStatus
from smilejobs.version import __version__

_EPILOG = (
    f"{CREDENTIALS_HELP} Exit codes: 0 approved, 1 complete but not approved, 2 usage, 3 pending, 4 error, "
    "130 interrupted."
)

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # the other modes keep the line ends of docstrings
    help="Wait for Smile ID jobs, and get their results.",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"smilejobs {__version__}")
        raise typer.Exit


@app.callback()
def options(
    *,
    debug: Annotated[bool, typer.Option("--debug", help="Print the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Take the options of all commands."""
    set_debug(is_on=debug)


_JSON = Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")]


@app.command(epilog=f"Example: smilejobs status user-1 job-1 --json\n\n{_EPILOG}")
def status(
    user_id: UserID,
    job_id: JobID,
    *,
    as_json: _JSON = False,
    image_links: Annotated[
        bool, typer.Option("--image-links", help="Print links to the pictures, which are secrets.")
    ] = False,
    history: Annotated[bool, typer.Option("--history", help="Print all results of the user.")] = False,
) -> None:
    """Poll a job once, and print its status."""
    with exit_on(CLIENT_ERRORS, ExitCode.USAGE):
        client, ref = make_client_and_ref(user_id, job_id)
    poll = partial(client.job_status, ref.user_id, ref.job_id, image_links=image_links, history=history)
    _run(client, poll, as_json=as_json, links=image_links)


@app.command(epilog=f"Example: smilejobs wait user-1 job-1 --timeout 10m --until final\n\n{_EPILOG}")
def wait(
    user_id: UserID,
    job_id: JobID,
    *,
    timeout: Annotated[
        str, typer.Option(metavar="DURATION", help="For the whole wait: 90s, 10m, 2h, 1d, or seconds.")
    ] = "5m",
    until: WaitUntil = "complete",
    submitted_at: Annotated[
        str | None,
        typer.Option(
            metavar="INSTANT",
            help="When the job was submitted, for example 2026-03-02T10:20:30Z; old jobs are polled less often.",
        ),
    ] = None,
    pace: PaceFile = None,
    as_json: _JSON = False,
) -> None:
    """Wait until a job is complete, or final."""
    with exit_on((*CLIENT_ERRORS, OSError), ExitCode.USAGE):
        timeout_seconds = parse_duration(timeout, "--timeout")
        learned = read_pace(pace)
        view = WaitView(timeout_seconds)
        client, ref = make_client_and_ref(user_id, job_id, submitted_at=submitted_at, hooks=[view])

    async def wait_for_job() -> JobStatus:
        err = console(stderr=True)
        with err.status(view) if err.is_terminal else nullcontext():
            return await client.wait(
                ref.user_id,
                ref.job_id,
                submitted_at=ref.submitted_at,
                timeout=timeout_seconds,
                until=until,
                pace=learned,
            )

    _run(client, wait_for_job, as_json=as_json, links=False)


@app.command(epilog="Example: smilejobs tag user-1 job-1\n\nExit codes: 0 printed, 2 usage.")
def tag(user_id: UserID, job_id: JobID) -> None:
    """Print the tag that names a job in logs and reports."""
    with exit_on(ValueError, ExitCode.USAGE):
        typer.echo(JobRef(user_id, job_id).tag)


app.command(epilog=batch.EPILOG)(batch.batch)
app.command(epilog=pace.EPILOG)(pace.pace)
app.command(epilog=images.EPILOG)(images.images)
app.add_typer(watch.app, name="watch")
app.command(epilog=worker.EPILOG)(worker.worker)
app.command(epilog=callback.EPILOG)(callback.verify_callback)
app.command(epilog=doctor.EPILOG)(doctor.doctor)
app.command(epilog=sandbox.EPILOG)(sandbox.sandbox)


@app.command(epilog="Example: smilejobs demo --learn\n\nExit codes: 0 if every wait ended as expected, else 4.")
def demo(
    *, learn: Annotated[bool, typer.Option("--learn", help="Show how a pace learns, in 30 seconds.")] = False
) -> None:
    """Show how 24 jobs are waited for, in 15 seconds."""
    with exit_on(ImportError, ExitCode.USAGE):
        from smilejobs.cli.demo import run as run_demo
        from smilejobs.cli.demo_learn import run as run_learning
    show_demo = partial(run_learning if learn else run_demo, console())
    raise typer.Exit(ExitCode.COMPLETE if run_until_stopped(show_demo) else ExitCode.ERROR)


def _run(client: Client, poll: Callable[[], Awaitable[JobStatus]], *, as_json: bool, links: bool) -> NoReturn:
    """Print the answer of *poll*, and exit with its exit code."""

    async def report() -> ExitCode:
        try:
            async with client:
                answer = await poll()
        except WaitTimeoutError as error:
            if error.last is not None:
                show(error.last, as_json=as_json, links=links)
            complain(error)
            return ExitCode.PENDING
        except SmileJobsError as error:
            complain(error)
            return ExitCode.ERROR
        show(answer, as_json=as_json, links=links)
        return _exit_code(answer)

    raise typer.Exit(run_until_stopped(report))


def _exit_code(answer: JobStatus) -> ExitCode:
    if answer.verdict is None:
        return ExitCode.PENDING
    return ExitCode.APPROVED if answer.verdict is Verdict.APPROVED else ExitCode.NOT_APPROVED
