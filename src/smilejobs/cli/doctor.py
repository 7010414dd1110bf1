"""``smilejobs doctor``: check the settings, and explain what is wrong."""

import os
import uuid
from datetime import datetime
from email.utils import parsedate_to_datetime

import anyio
import typer

from smilejobs.cli.display import console
from smilejobs.cli.exits import ExitCode, exit_on, trace
from smilejobs.cli.options import CLIENT_ERRORS, read_base_url
from smilejobs.client import Client
from smilejobs.clock import utcnow
from smilejobs.errors import (
    GatewayError,
    JobNotFoundError,
    RequestError,
    SignatureError,
    SmileJobsError,
    UntrustedError,
)
from smilejobs.settings import HOSTS, arguments_from
from smilejobs.transport import Fetcher
from smilejobs.wire.protocol import comes_from_the_api

EPILOG = (
    "Example: SMILE_ENVIRONMENT=sandbox smilejobs doctor\n\n"
    "Nothing is changed, and none of your jobs is polled. Exit codes: 0 all is well, 2 the environment variables are "
    "wrong, 4 the API does not answer as it should."
)

_TIMEOUT_SECONDS = 10.0
_MAX_SKEW_SECONDS = 60.0
"""The vendor documents no limit for the skew of a timestamp."""


def doctor() -> None:
    """Check the settings, and explain what is wrong.

    Checks the environment variables, polls a job that does not exist, and compares the clock with the server's.
    """
    out = console()
    with exit_on(CLIENT_ERRORS, ExitCode.USAGE):
        arguments = arguments_from(os.environ)
        client = Client.from_env(request_timeout=_TIMEOUT_SECONDS, attempts=1)
        url = read_base_url()
    out.print(f"ok     variables  partner {arguments['partner_id']} at {url}")

    async def examine() -> bool:
        clock, clock_is_right = await _examine_clock(url)
        out.print(clock)
        async with client:
            try:
                status = await client.job_status("smilejobs-doctor", str(uuid.uuid4()))
            except JobNotFoundError:
                out.print("ok     API        accepts the signature; the job does not exist, as expected")
                return clock_is_right
            except SmileJobsError as error:
                trace(error)
                out.print(f"WRONG  API        {error}")
                advice = _advise(error, url)
                if advice is not None:
                    out.print(advice)
                return False
        if not status.raw:  # only a verified answer has it
            out.print("WRONG  API        the answer has no signature: the server may not be Smile ID")
            return False
        out.print("ok     API        the answer is signed with this key")
        return clock_is_right

    raise typer.Exit(ExitCode.COMPLETE if anyio.run(examine) else ExitCode.ERROR)


def _advise(error: SmileJobsError, url: str) -> str | None:
    """Return advice on a failed poll; None if the text of the error is enough."""
    if isinstance(error, SignatureError):
        return (
            "The answer is not signed with this API key: the key may belong to another partner or environment, or the "
            "server is not Smile ID."
        )
    if isinstance(error, RequestError):
        return "The API cannot be reached: check the URL, the network, the proxy (HTTPS_PROXY) and the certificates."
    if isinstance(error, UntrustedError) or comes_from_the_api(error):
        return None
    if url in HOSTS.values():
        return (
            "The URL is right, but the answer is not from the API: look for a proxy, a firewall or a login page "
            "between this machine and Smile ID."
        )
    if isinstance(error, GatewayError) and error.wrong_url:
        return (
            "The URL is probably wrong: SMILE_BASE_URL must be the URL of the API without /job_status, for example "
            f"{HOSTS['sandbox']}. If it worked before, another server answers in place of the API now."
        )
    return (
        "The answer is not from the API. It may be from a gateway, a proxy, a firewall or a maintenance page in front "
        "of the API, and pass; or the URL (SMILE_BASE_URL) belongs to another server."
    )


async def _examine_clock(url: str) -> tuple[str, bool]:
    """Return a line about the clock of this machine, and False if the clock is wrong."""
    try:
        date = await _fetch_date(url)
    except RequestError as error:
        return f"-      clock      not compared with the server's: {error}", True
    if date is None:
        return "-      clock      the server does not send its time", True
    skew = (utcnow() - date).total_seconds()
    if abs(skew) <= _MAX_SKEW_SECONDS:
        return f"ok     clock      within {max(abs(skew), 1):.0f} s of the server's", True
    way = f"{abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'}"
    return f"WRONG  clock      this machine's clock is {way} the server's: set it, because signatures are dated", False


async def _fetch_date(url: str) -> datetime | None:
    """Return the server's time; None if the server does not send it.

    Raises:
        RequestError: The server did not answer.
    """
    # A Fetcher uses the proxies and certificates that a poll uses, and follows no redirects.
    fetcher = Fetcher(max_connections=1, timeout=_TIMEOUT_SECONDS)
    try:
        with anyio.fail_after(fetcher.timeout):
            async with fetcher.get(url, max_bytes=0) as answer:
                date = answer.headers.get("date", "")
    except TimeoutError:
        raise RequestError(f"no answer within {fetcher.timeout:.10g} s") from None
    finally:
        await fetcher.aclose()
    try:
        server_now = parsedate_to_datetime(date)
    except (ValueError, OverflowError):
        return None
    return server_now if server_now.tzinfo is not None else None
