"""``smilejobs verify-callback``: verify the signature of a stored callback."""

import os
from typing import Annotated

import typer

from smilejobs.callbacks import CallbackVerifier
from smilejobs.cli.display import console
from smilejobs.cli.exits import ExitCode, exit_on
from smilejobs.clock import utcnow
from smilejobs.errors import CallbackError
from smilejobs.settings import credentials_from

EPILOG = (
    "Example: smilejobs verify-callback body.json\n\n"
    "Credentials are read from SMILE_PARTNER_ID and SMILE_API_KEY. "
    "Exit codes: 0 verified, 2 usage, 4 not verified."
)


def verify_callback(
    source: Annotated[
        typer.FileBinaryRead,
        typer.Argument(metavar="FILE", help="The body of the request, unchanged; - for standard input."),
    ],
) -> None:
    """Verify the signature of a callback.

    Prints what the signature proves, and what it does not prove.
    """
    with exit_on((OSError, ValueError), ExitCode.USAGE):
        credentials = credentials_from(os.environ)
        verifier = CallbackVerifier(credentials, max_age=None)
        body = source.read(verifier.max_bytes + 1)
    with exit_on(CallbackError, ExitCode.ERROR):
        callback = verifier.verify(body)
    signed_at = callback.timestamp
    age = "" if signed_at is None else f", {(utcnow() - signed_at).total_seconds():.0f} s ago"
    lines = (
        f"verified      the signature of its timestamp, by the key of partner {credentials.partner_id}",
        "not verified  all the rest: the signature covers neither job nor result, so one signed timestamp is enough",
        "              to forge any callback",
        f"  signed at   {'a time that cannot be read' if signed_at is None else signed_at.isoformat()}{age}",
        "              (the age was not verified; a service refuses callbacks that are older than its max_age)",
        f"  job         {callback.ref.tag} (SmileJobID {callback.result.smile_job_id or 'none'})",
        f"  says        {callback.result.result_code or 'no code'} {callback.result.result_text or ''}".rstrip(),
        "To know the result, ask the API: smilejobs status USER JOB",
    )
    console().print("\n".join(lines))
