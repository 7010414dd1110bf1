"""``smilejobs sandbox``: serves the sandbox until it is interrupted."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import anyio
import typer

from smilejobs.cli.display import console
from smilejobs.cli.exits import ExitCode, exit_on
from smilejobs.cli.options import parse_duration
from smilejobs.cli.stopping import run_until_stopped

if TYPE_CHECKING:
    from smilejobs.sandbox import FaultProfile, Lognormal
    from smilejobs.sandbox.faults import FaultProfileName

EPILOG = (
    "Example: smilejobs sandbox --faults flaky --state jobs.db\n\n"
    "Do not use real data. The faults are the arguments of smilejobs.sandbox.FaultProfile: shares from 0 to 1, or "
    "seconds."
)
_MAX_EXAMPLES = 8


def sandbox(
    *,
    host: Annotated[str, typer.Option(help="The address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port to listen at; 0 for any that is free.")] = 8787,
    partner_id: Annotated[str, typer.Option(help="The partner id of all jobs.")] = "085",
    api_key: Annotated[str, typer.Option(help="The key of the signatures.")] = "sandbox-key",
    faults: Annotated[str, typer.Option(help="The fault profile: none, flaky or storm.")] = "none",
    fault: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="Change one fault of the profile.")
    ] = None,
    seed: Annotated[int, typer.Option(help="The seed of all random draws.")] = 0,
    machine: Annotated[str, typer.Option(metavar="MEDIAN[:SPREAD]", help="Seconds that the machine takes.")] = "2:0.6",
    review: Annotated[
        str, typer.Option(metavar="MEDIAN[:SPREAD]", help='Seconds that a human review takes, or "open".')
    ] = "600:1",
    max_skew: Annotated[
        str | None,
        typer.Option(metavar="DURATION", help="By how much a request's timestamp may be wrong.", show_default="any"),
    ] = None,
    state: Annotated[Path | None, typer.Option(help="Keep the jobs in this file; a restart goes on with them.")] = None,
    tls: Annotated[Path | None, typer.Option(help="Serve https; write its CA certificate to this file.")] = None,
    allow_callbacks_to: Annotated[
        list[str] | None, typer.Option(metavar="HOST", help="A host beyond this machine that may get callbacks.")
    ] = None,
) -> None:
    """Serve the API on this machine, with a few jobs. Do not use real data."""
    with exit_on(ImportError, ExitCode.USAGE):
        from smilejobs.sandbox import Sandbox
        from smilejobs.sandbox.callbacks import DELIVERIES
        from smilejobs.sandbox.faults import find_profile
    preset = cast("FaultProfileName", faults)  # find_profile checks it
    with exit_on(ValueError, ExitCode.USAGE), exit_on(ImportError, ExitCode.USAGE), exit_on(OSError, ExitCode.ERROR):
        api = Sandbox(
            partner_id=partner_id,
            api_key=api_key,
            seed=seed,
            faults=change_faults(find_profile(preset), dict(_split(text) for text in fault or ())),
            machine=read_lognormal(machine, "--machine"),
            review="open" if review == "open" else read_lognormal(review, "--review"),
            max_skew=None if max_skew is None else parse_duration(max_skew, "--max-skew"),
            state=state,
            delivery=DELIVERIES.get(preset),
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
            refs = list(api.jobs)[:_MAX_EXAMPLES]
            lines = (
                f"The sandbox listens at {base_url}, until Ctrl-C. Do not use real data.",
                f"Its jobs, and buttons that end human reviews: {base_url.removesuffix('v1')}",
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
        run_until_stopped(serve)


def change_faults(profile: "FaultProfile", faults: Mapping[str, str]) -> "FaultProfile":
    """Return *profile* with other values of some faults.

    A value is a number; for ``latency`` a median and a spread, "0.5:0.8"; for ``rate`` and ``retry_after`` also "none";
    for ``variant_names`` some names, "code_as_int,wordy_booleans".

    Raises:
        ValueError: There is no such fault, or its value is wrong; the text names it.
    """
    from attrs import evolve, fields

    names = [each.name for each in fields(type(profile))]
    values: dict[str, Any] = {}
    for name, text in faults.items():
        if name not in names:
            raise ValueError(f"there is no fault {name}; there are: {', '.join(names)}")
        values[name] = _read_fault(name, text)
    return evolve(profile, **values) if values else profile


def read_lognormal(text: str, name: str) -> "Lognormal":
    """Return the distribution that a text describes: a median in seconds, or a median and a spread, as "2:0.6".

    Raises:
        ValueError: The text is neither; the error begins with *name*.
    """
    from smilejobs.sandbox import Lognormal

    median, colon, spread = text.partition(":")
    try:
        return Lognormal(_read_number(median, name), _read_number(spread, name) if colon else 0.0)
    except ValueError as error:
        raise ValueError(f"{name} must be a median in seconds, or MEDIAN:SPREAD: {error}") from None


def _split(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError("--fault must be NAME=VALUE, for example --fault too_many=0.1")
    return name, value


def _read_fault(name: str, text: str) -> object:
    if name == "variant_names":
        return tuple(text.split(",")) if text else ()
    if name in ("rate", "retry_after") and text == "none":
        return None
    return read_lognormal(text, name) if name == "latency" else _read_number(text, name)


def _read_number(text: str, name: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{name} must be a number") from None
