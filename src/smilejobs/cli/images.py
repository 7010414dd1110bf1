"""The command ``images``: the pictures of one job, as files."""

from pathlib import Path
from typing import Annotated

import anyio
import typer

from smilejobs.cli.display import console
from smilejobs.cli.exits import ExitCode, complain, exit_on
from smilejobs.client import Client
from smilejobs.errors import ImageError, SmileJobsError
from smilejobs.model.jobs import JobRef

EPILOG = """Example: smilejobs images user-1 job-1 --out pictures

Who asks is read from SMILE_PARTNER_ID, SMILE_API_KEY and SMILE_ENVIRONMENT (or SMILE_BASE_URL). Exit codes: 0 all
pictures are saved, 2 usage, 3 the job is not complete and has none yet, 4 error; what could be saved is."""


def images(
    user_id: Annotated[str, typer.Argument(metavar="USER", help="The user_id of the job.")],
    job_id: Annotated[str, typer.Argument(metavar="JOB", help="The job_id of the job.")],
    *,
    out: Annotated[
        Path,
        typer.Option("--out", metavar="DIR", exists=True, file_okay=False, writable=True, help="The folder for them."),
    ],
) -> None:
    """Save the pictures of a job, and print the names of the files."""
    with exit_on(ValueError, ExitCode.USAGE):
        client, ref = Client.from_env(), JobRef(user_id, job_id)
    with exit_on(KeyboardInterrupt, ExitCode.INTERRUPTED):
        raise typer.Exit(anyio.run(_save, client, ref, out))


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
