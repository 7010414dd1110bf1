"""``smilejobs doctor``: why nothing works, in words."""

import os
import uuid
from datetime import datetime
from email.utils import parsedate_to_datetime

import anyio
import typer

from smilejobs.cli.display import console
from smilejobs.cli.exits import ExitCode, exit_on, trace
from smilejobs.cli.options import CANNOT_ASK
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
    "Nothing is changed, and no job of yours is asked for. Exit codes: 0 all is well, 2 the environment variables are "
    "wrong, 4 the API does not answer as it should."
)

_TIMEOUT_SECONDS = 10.0
_MAX_SKEW_SECONDS = 60.0
"""The vendor documents no limit; a clock that is this wrong is worth a word."""


def doctor() -> None:
    """Say what is wrong with the settings, or that all is well.

    Checks the environment variables, asks the API for a job that does not exist, and compares the clocks.
    """
    out = console()
    with exit_on(CANNOT_ASK, ExitCode.USAGE):
        arguments = arguments_from(os.environ)
        client = Client.from_env(request_timeout=_TIMEOUT_SECONDS, attempts=1)
    url = arguments.get("base_url") or HOSTS[str(arguments.get("environment"))]
    out.print(f"ok     variables  partner {arguments['partner_id']} asks {url}")

    async def examine() -> bool:
        clock, clock_is_right = await _examine_clock(url)
        out.print(clock)
        async with client:
            try:
                status = await client.job_status("smilejobs-doctor", str(uuid.uuid4()))
            except JobNotFoundError:
                out.print("ok     API        it accepts the signature, and knows no such job, as it should")
                return clock_is_right
            except SmileJobsError as error:
                trace(error)
                out.print(f"WRONG  API        {error}")
                advice = _advise(error, url)
                if advice is not None:
                    out.print(advice)
                return False
        if not status.raw:  # which only an answer has that verifies
            out.print("WRONG  API        it answers without a signature: what answers may not be Smile ID")
            return False
        out.print("ok     API        it answers, and its answer is signed with this key")
        return clock_is_right

    with exit_on(KeyboardInterrupt, ExitCode.INTERRUPTED):
        raise typer.Exit(ExitCode.COMPLETE if anyio.run(examine) else ExitCode.ERROR)


def _advise(error: SmileJobsError, url: str) -> str | None:
    """Return what to do about a failed poll, where its text does not say enough."""
    if isinstance(error, SignatureError):
        return (
            "The answer is not signed with this API key: the key may be that of another partner or environment, or "
            "what answers is not Smile ID."
        )
    if isinstance(error, RequestError):
        return "There is no way to the API: check the URL, the network, a proxy (HTTPS_PROXY) and certificates."
    if isinstance(error, UntrustedError) or comes_from_the_api(error):
        return None
    if url in HOSTS.values():
        return (
            "The URL is right, but what answers there does not speak like the API: look for a proxy, a firewall or a "
            "login page between this machine and Smile ID."
        )
    if isinstance(error, GatewayError) and error.wrong_url:
        return (
            "The URL is probably wrong: SMILE_BASE_URL is that of the API without /job_status, for example "
            f"{HOSTS['sandbox']}. If it has worked before, something else answers in the API's place now."
        )
    return (
        "What answers there does not speak like the API. That may be a gateway, a proxy, a firewall or a maintenance "
        "page in front of it, which passes; or the URL (SMILE_BASE_URL) is another server's."
    )


async def _examine_clock(url: str) -> tuple[str, bool]:
    """Return what to say about the clock of this machine, and whether it is right as far as that is known."""
    try:
        date = await _fetch_date(url)
    except RequestError as error:
        return f"-      clock      not compared with the server's: {error}", True
    if date is None:
        return "-      clock      the server does not tell its time", True
    skew = (utcnow() - date).total_seconds()
    if abs(skew) <= _MAX_SKEW_SECONDS:
        return f"ok     clock      within {max(abs(skew), 1):.0f} s of the server's", True
    way = f"{abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'}"
    return f"WRONG  clock      this machine's is {way} the server's: signatures are dated, so set it", False


async def _fetch_date(url: str) -> datetime | None:
    """Return the server's time; None if it does not tell it.

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
