"""``smilejobs doctor``: why nothing works, in words."""

import os
import uuid
from email.utils import parsedate_to_datetime
from http.client import HTTPException
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import ProxyHandler, Request, build_opener

import anyio
import typer
from anyio import to_thread

from smilejobs.cli.display import console
from smilejobs.cli.exits import ExitCode, exit_on, trace
from smilejobs.cli.options import CANNOT_ASK
from smilejobs.client import Client
from smilejobs.clock import utcnow
from smilejobs.errors import (
    BadResponseError,
    JobNotFoundError,
    RequestError,
    SignatureError,
    SmileJobsError,
)
from smilejobs.settings import HOSTS, arguments_from, is_loopback

EPILOG = (
    "Example: SMILE_ENVIRONMENT=sandbox smilejobs doctor\n\n"
    "Nothing is changed, and no job of yours is asked for. Exit codes: 0 all is well, 2 the environment variables are "
    "wrong, 4 the API does not answer as it should."
)

_PATIENCE = 10.0
_MOST_SKEW = 60.0
"""Seconds. The vendor documents no limit; a clock that is this wrong is worth a word."""

_ADVICE: tuple[tuple[type[SmileJobsError], str], ...] = (
    (
        SignatureError,
        "The answer is not signed with this API key: the key may be another one's, or what answers is not Smile ID.",
    ),
    (RequestError, "There is no way to the API: check the URL, the network, a proxy (HTTPS_PROXY) and certificates."),
    (BadResponseError, "What answers there does not speak like the API: check the URL, and what is in between."),
)


def doctor() -> None:
    """Say what is wrong with the settings, or that all is well.

    Checks the environment variables, asks the API for a job that does not exist, and compares the clocks.
    """
    out = console()
    with exit_on(CANNOT_ASK, ExitCode.USAGE):
        arguments = arguments_from(os.environ)
        client = Client.from_env(request_timeout=_PATIENCE, attempts=1)
    url = arguments.get("base_url") or HOSTS[str(arguments.get("environment"))]
    out.print(f"ok     variables  partner {arguments['partner_id']} asks {url}")

    async def examine() -> bool:
        well = True
        skew = await to_thread.run_sync(_skew, url)
        if skew is None:
            out.print("-      clock      the server does not tell its time")
        elif abs(skew) > _MOST_SKEW:
            well = False
            way = f"{abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'}"
            out.print(f"WRONG  clock      this machine's is {way} the server's: signatures are dated, so set it")
        else:
            out.print(f"ok     clock      within {max(abs(skew), 1):.0f} s of the server's")
        async with client:
            try:
                await client.job_status("smilejobs-doctor", str(uuid.uuid4()))
            except JobNotFoundError:
                out.print("ok     API        it accepts the signature, and knows no such job, as it should")
            except SmileJobsError as error:
                trace(error)
                out.print(f"WRONG  API        {error}")
                for advice in (advice for kind, advice in _ADVICE if isinstance(error, kind)):
                    out.print(advice)
                well = False
            else:
                out.print("ok     API        it answers, and its answer is signed with this key")
        return well

    with exit_on(KeyboardInterrupt, ExitCode.INTERRUPTED):
        raise typer.Exit(ExitCode.COMPLETE if anyio.run(examine) else ExitCode.ERROR)


def _skew(url: str) -> float | None:
    """Return the seconds by which this machine's clock is ahead of the server's; None if that cannot be known."""
    # A proxy's loopback is another one. For all other hosts, the environment may name a proxy.
    opener = build_opener(*([ProxyHandler({})] if is_loopback(urlsplit(url).hostname or "") else []))
    try:
        with opener.open(Request(url, method="HEAD"), timeout=_PATIENCE) as response:  # noqa: S310  # it has been checked: https, or loopback
            date = response.headers.get("Date")
    except HTTPError as error:
        with error:
            date = error.headers.get("Date")
    except (OSError, HTTPException):
        return None
    try:
        return (utcnow() - parsedate_to_datetime(date or "")).total_seconds()
    except (TypeError, ValueError):
        return None
