"""``smilejobs images``: save the pictures of one job."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from smilejobs.cli.display import console
from smilejobs.cli.exits import ExitCode, complain, exit_on
from smilejobs.cli.options import CLIENT_ERRORS, CREDENTIALS_HELP, JobID, UserID, make_client_and_ref
from smilejobs.cli.stopping import run_until_stopped
from smilejobs.client import Client
from smilejobs.errors import ImageError, SmileJobsError
from smilejobs.model.jobs import JobRef

EPILOG = (
    f"Example: smilejobs images user-1 job-1 --out pictures\n\n{CREDENTIALS_HELP} "
    "Exit codes: 0 all pictures are saved, 2 usage, 3 the job is not complete and has none yet, 4 error (the pictures "
    "without an error are saved), 130 interrupted."
)


def images(
    user_id: UserID,
    job_id: JobID,
    *,
    out: Annotated[
        Path,
        typer.Option(
            "--out", metavar="DIR", exists=True, file_okay=False, writable=True, help="The folder for the files."
        ),
    ],
) -> None:
    """Save the pictures of a job, and print their paths."""
    with exit_on(CLIENT_ERRORS, ExitCode.USAGE):
        client, ref = make_client_and_ref(user_id, job_id)
    raise typer.Exit(run_until_stopped(partial(_save, client, ref, out)))


async def _save(client: Client, ref: JobRef, folder: Path) -> ExitCode:
    code = ExitCode.COMPLETE
    paths: tuple[Path, ...] = ()
    try:
        async with client:
            paths = tuple(await client.save_images(ref.user_id, ref.job_id, folder))
    except ImageError as error:
        paths = error.saved
        for each in (error, *error.others):
            complain(each)
        code = ExitCode.PENDING if error.reason == "pending" else ExitCode.ERROR
    except SmileJobsError as error:
        complain(error)
        code = ExitCode.ERROR
    for path in paths:
        console().print(str(path))
    return code
