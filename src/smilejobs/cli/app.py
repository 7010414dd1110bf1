"""The commands: what each one takes, and the exit code that it ends with."""

import shlex
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Annotated, NoReturn, cast

import anyio
import typer

from smilejobs.cli import batch, callback, doctor, images, watch, worker
from smilejobs.cli.display import console, show
from smilejobs.cli.exits import ExitCode, complain, exit_on, show_tracebacks
from smilejobs.cli.options import CANNOT_ASK, WHO_ASKS, JobID, Until, UserID, client_and_ref, duration
from smilejobs.cli.stopping import run
from smilejobs.cli.waiting import WaitView
from smilejobs.client import Client
from smilejobs.errors import SmileJobsError, WaitTimeoutError
from smilejobs.model.codes import Verdict
from smilejobs.model.jobs import JobRef, JobStatus
from smilejobs.version import __version__

_EPILOG = f"{WHO_ASKS} Exit codes: 0 approved, 1 complete but not approved, 2 usage, 3 pending, 4 error."
_SHOWN_JOBS = 8

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # the others keep the line ends of docstrings in the middle of paragraphs
    help="Ask for the results of Smile ID jobs, and wait for them.",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"smilejobs {__version__}")
        raise typer.Exit


@app.callback()
def options(
    *,
    debug: Annotated[bool, typer.Option("--debug", help="Show where an error comes from.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Take the options of all commands."""
    show_tracebacks(wanted=debug)


_JSON = Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")]


@app.command(epilog=f"Example: smilejobs status user-1 job-1 --json\n\n{_EPILOG}")
def status(
    user_id: UserID,
    job_id: JobID,
    *,
    as_json: _JSON = False,
    image_links: Annotated[bool, typer.Option("--image-links", help="Print links to the pictures: secrets!")] = False,
    history: Annotated[bool, typer.Option("--history", help="Print all results of this user.")] = False,
) -> None:
    """Ask once how a job is doing."""
    with exit_on(CANNOT_ASK, ExitCode.USAGE):
        client, ref = client_and_ref(user_id, job_id)
    ask = partial(client.job_status, ref.user_id, ref.job_id, image_links=image_links, history=history)
    _run(client, ask, as_json=as_json, links=image_links)


@app.command(epilog=f"Example: smilejobs wait user-1 job-1 --timeout 10m --until final\n\n{_EPILOG}")
def wait(
    user_id: UserID,
    job_id: JobID,
    *,
    timeout: Annotated[
        str, typer.Option(metavar="DURATION", help="For the whole wait: 90s, 10m, 2h, 1d, or seconds.")
    ] = "5m",
    until: Annotated[Until, typer.Option(help="Whether a provisional result ends the wait.")] = Until.COMPLETE,
    submitted_at: Annotated[
        str | None,
        typer.Option(
            metavar="INSTANT",
            help="When the job was submitted, for example 2026-03-02T10:20:30Z: the pace fits its age.",
        ),
    ] = None,
    as_json: _JSON = False,
) -> None:
    """Wait until a job is complete, or final."""
    with exit_on(CANNOT_ASK, ExitCode.USAGE):
        patience = duration(timeout, "--timeout")
        view = WaitView(patience)
        client, ref = client_and_ref(user_id, job_id, submitted_at=submitted_at, hooks=[view])

    async def ask() -> JobStatus:
        err = console(stderr=True)
        with err.status(view) if err.is_terminal else nullcontext():
            return await client.wait(
                ref.user_id, ref.job_id, submitted_at=ref.submitted_at, timeout=patience, until=until.value
            )

    _run(client, ask, as_json=as_json, links=False)


@app.command(epilog="Example: smilejobs tag user-1 job-1\n\nExit codes: 0 printed, 2 usage.")
def tag(user_id: UserID, job_id: JobID) -> None:
    """Print the tag that stands for a job in logs and error texts."""
    with exit_on(ValueError, ExitCode.USAGE):
        typer.echo(JobRef(user_id, job_id).tag)


app.command(epilog=batch.EPILOG)(batch.batch)
app.command(epilog=images.EPILOG)(images.images)
app.add_typer(watch.app, name="watch")
app.command(epilog=worker.EPILOG)(worker.worker)
app.command(epilog=callback.EPILOG)(callback.verify_callback)
app.command(epilog=doctor.EPILOG)(doctor.doctor)


@app.command(
    epilog="Example: smilejobs sandbox --weather rainy --state jobs.db\n\n"
    "It is no place for real data. The knobs are those of smilejobs.sandbox.Weather, a share or seconds."
)
def sandbox(
    *,
    host: Annotated[str, typer.Option(help="The address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port to listen at; 0 for any that is free.")] = 8787,
    partner_id: Annotated[str, typer.Option(help="Whose jobs these are.")] = "085",
    api_key: Annotated[str, typer.Option(help="The key of the signatures.")] = "sandbox-key",
    weather: Annotated[str, typer.Option(help="calm, rainy or storm.")] = "calm",
    knob: Annotated[list[str] | None, typer.Option(metavar="NAME=VALUE", help="Turn a knob of the weather.")] = None,
    seed: Annotated[int, typer.Option(help="Draws all that is left to chance.")] = 0,
    machine: Annotated[str, typer.Option(metavar="MEDIAN[:SPREAD]", help="Seconds that the machine takes.")] = "2:0.6",
    review: Annotated[
        str, typer.Option(metavar="MEDIAN[:SPREAD]", help='Seconds that a human review takes, or "open".')
    ] = "600:1",
    max_skew: Annotated[
        str | None,
        typer.Option(metavar="DURATION", help="By how much a request's timestamp may be wrong.", show_default="any"),
    ] = None,
    state: Annotated[Path | None, typer.Option(help="Keep the jobs in this file; a restart goes on.")] = None,
    tls: Annotated[Path | None, typer.Option(help="Serve https; write its CA certificate to this file.")] = None,
    allow_callbacks_to: Annotated[list[str] | None, typer.Option(metavar="HOST", help="Beyond this machine.")] = None,
) -> None:
    """Be the API on this machine, with a few jobs; no place for real data."""
    with exit_on(ImportError, ExitCode.USAGE):
        from smilejobs.sandbox import Sandbox
        from smilejobs.sandbox.callbacks import DELIVERIES
        from smilejobs.sandbox.weather import WeatherName, read_lasting, turned, weather_from
    name = cast("WeatherName", weather)  # weather_from checks it
    with exit_on(ValueError, ExitCode.USAGE), exit_on(ImportError, ExitCode.USAGE), exit_on(OSError, ExitCode.ERROR):
        api = Sandbox(
            partner_id=partner_id,
            api_key=api_key,
            seed=seed,
            weather=turned(weather_from(name), dict(_knob(text) for text in knob or ())),
            machine=read_lasting(machine, "--machine"),
            review="open" if review == "open" else read_lasting(review, "--review"),
            max_skew=None if max_skew is None else duration(max_skew, "--max-skew"),
            state=state,
            delivery=DELIVERIES.get(name),
            allow_callbacks_to=allow_callbacks_to or (),
        )
        if tls is not None:
            tls.write_bytes(api.ca_pem)

    async def serve() -> None:
        async with api.serve(host=host, port=port, tls=tls is not None) as base_url:
            samples = [] if api.jobs else ["  smilejobs wait user-1 review --until final"]
            if samples:
                api.submit("user-1", "quick")
                api.submit("user-1", "slow", machine=60.0)
                api.submit("user-1", "review", review=90.0)
                api.submit("user-1", "person", review="open")
                api.submit("user-2", "rejected", job_type=6, outcome="rejected")
                api.submit("user-2", "no-zip", upload=None)
            variables = {"BASE_URL": base_url, "PARTNER_ID": partner_id, "API_KEY": api_key}
            refs = list(api.jobs)[:_SHOWN_JOBS]
            lines = (
                f"The sandbox listens at {base_url}, until Ctrl-C. It is no place for real data.",
                f"Its jobs, and a button that ends a human review: {base_url.removesuffix('v1')}",
                "In another terminal:",
                "",
                *(f"  export SMILE_{name}={shlex.quote(value)}" for name, value in variables.items()),
                *([] if tls is None else [f"  export SSL_CERT_FILE={shlex.quote(str(tls.absolute()))}"]),
                *(f"  smilejobs status {shlex.quote(ref.user_id)} {shlex.quote(ref.job_id)}" for ref in refs),
                *samples,
            )
            console().print("\n".join(lines))
            await anyio.sleep_forever()

    with exit_on(KeyboardInterrupt, 0), exit_on(ValueError, ExitCode.USAGE), exit_on(OSError, ExitCode.ERROR):
        run(serve)


def _knob(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError("--knob must be NAME=VALUE, for example --knob too_many=0.1")
    return name, value


@app.command(epilog="Example: smilejobs demo\n\nExit codes: 0 if every job ended as it was meant to, else 4.")
def demo() -> None:
    """Watch 24 jobs of all kinds being waited for, in 15 seconds."""
    with exit_on(ImportError, ExitCode.USAGE):
        from smilejobs.cli.demo import run as run_demo
    with exit_on(KeyboardInterrupt, ExitCode.INTERRUPTED):
        raise typer.Exit(ExitCode.COMPLETE if run(partial(run_demo, console())) else ExitCode.ERROR)


def _run(client: Client, ask: Callable[[], Awaitable[JobStatus]], *, as_json: bool, links: bool) -> NoReturn:
    """Print what *ask* brings, and exit with the code that it stands for."""

    async def report() -> ExitCode:
        try:
            async with client:
                answer = await ask()
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

    with exit_on(KeyboardInterrupt, ExitCode.INTERRUPTED):
        raise typer.Exit(run(report))


def _exit_code(answer: JobStatus) -> ExitCode:
    if answer.verdict is None:
        return ExitCode.PENDING
    return ExitCode.APPROVED if answer.verdict is Verdict.APPROVED else ExitCode.NOT_APPROVED
