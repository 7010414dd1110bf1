"""``smilejobs worker``: polls what is in a watch list, until it is stopped."""

import asyncio
import logging
import os
import signal
from collections.abc import Generator
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from typing import TYPE_CHECKING, Annotated

import anyio
import typer
from attrs import define
from rich.console import Console

from smilejobs.cli.display import console
from smilejobs.cli.exits import ExitCode, exit_on, trace
from smilejobs.cli.options import ListURL
from smilejobs.client import Client
from smilejobs.errors import WatchListError
from smilejobs.events import Event, PollFailed, PollFinished, log_event
from smilejobs.tasks import beside

if TYPE_CHECKING:
    from smilejobs.durable import WatchList

EPILOG = (
    "Example: smilejobs worker sqlite:///jobs.db\n\n"
    "Who asks is read from SMILE_PARTNER_ID, SMILE_API_KEY and SMILE_ENVIRONMENT (or SMILE_BASE_URL). "
    "Warnings go to standard error. SIGTERM and Ctrl-C stop it: it stores what it knows, and hands its jobs to the "
    "other workers. Exit codes: 0 stopped by SIGTERM, 2 usage, 4 the database cannot be used, or has a worker "
    "already, 130 Ctrl-C."
)

_STOPPED_WITHIN = 9.0
"""Seconds from SIGTERM, which a database that hangs would make longer."""

_TOLD_EVERY = 5.0
"""Seconds between two looks at how the list stands, on a terminal."""


def worker(
    url: ListURL,
    *,
    rate: Annotated[float, typer.Option(help="Polls per second, at most; on PostgreSQL, of all workers.")] = 100.0,
    concurrency: Annotated[int, typer.Option(min=1, help="Polls under way at once.")] = 100,
    keep_raw: Annotated[
        bool, typer.Option("--keep-raw", help="Store the answers as they come, with personal data.")
    ] = False,
) -> None:
    """Poll the jobs of a watch list, until it is stopped.

    On SQLite there can be one worker, on PostgreSQL as many as you like, on as many hosts; give each the same --rate.
    A worker may be killed at any moment: whoever goes on polls its jobs again.
    """
    out = console(stderr=True)
    polls = _Polls()
    with exit_on((ImportError, ValueError), ExitCode.USAGE):
        from smilejobs.durable import WatchList, Worker
        from smilejobs.durable.database import without_secrets

        opening = WatchList.open(url)
        client = Client.from_env(max_connections=concurrency, rate=rate, hooks=(log_event, polls))

    async def work() -> None:
        showing = anyio.CancelScope()
        async with client, opening as watch:
            out.print(f"{client!r} polls {without_secrets(url)}, {rate:g} polls/s at most; SIGTERM or Ctrl-C stops it")
            show = partial(_show, watch, polls, out, showing)
            async with beside(show, showing.cancel) if out.is_terminal and not out.is_dumb_terminal else nullcontext():
                await Worker(client, watch, keep_raw=keep_raw).run()

    async def run() -> None:
        with anyio.CancelScope() as working:
            loop = asyncio.get_running_loop()

            def stop() -> None:
                working.cancel()
                loop.call_later(_STOPPED_WITHIN, _give_up, out)

            loop.add_signal_handler(signal.SIGTERM, stop)
            await work()

    with exit_on(KeyboardInterrupt, ExitCode.INTERRUPTED), exit_on(WatchListError, ExitCode.ERROR), _warnings(out):
        anyio.run(run)


@define
class _Polls:
    """A hook that counts."""

    count: int = 0

    def __call__(self, event: Event) -> None:
        self.count += isinstance(event, (PollFinished, PollFailed))


async def _show(watch: "WatchList", polls: _Polls, out: Console, showing: anyio.CancelScope) -> None:
    """Show how the list stands, until *showing* is cancelled."""
    with showing, out.status("looking") as shown:
        while True:
            before = polls.count
            await anyio.sleep(_TOLD_EVERY)
            with suppress(WatchListError):  # the worker says so
                pending = (await watch.counts()).pending
                shown.update(f"{pending:,} pending, {(polls.count - before) / _TOLD_EVERY:.0f} polls/s here")


class _Lines(logging.Handler):
    """Writes a line for each record, beside what a console shows; where it comes from is shown with ``--debug``."""

    def __init__(self, out: Console) -> None:
        super().__init__(logging.WARNING)
        self._out = out

    def emit(self, record: logging.LogRecord) -> None:
        self._out.print(f"{record.levelname} {' '.join(record.getMessage().split())}")
        if record.exc_info and record.exc_info[1]:
            trace(record.exc_info[1])


@contextmanager
def _warnings(out: Console) -> Generator[None, None, None]:
    """Write what this library and those below it warn of, while the block runs."""
    handler = _Lines(out)
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)


def _give_up(out: Console) -> None:
    out.print("smilejobs: the database does not answer; what could not be stored will be polled again")
    os._exit(ExitCode.ERROR)
