"""``smilejobs worker``: poll the jobs of a watch list until it is stopped."""

import asyncio
import logging
import os
import signal
import threading
from collections.abc import Callable, Generator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, contextmanager, nullcontext, suppress
from functools import partial
from typing import TYPE_CHECKING, Annotated

import anyio
import typer
from attrs import define
from rich.console import Console

from smilejobs.cli.display import console, printable
from smilejobs.cli.exits import ExitCode, exit_on, trace
from smilejobs.cli.options import CREDENTIALS_HELP, ListURL, parse_duration, read_base_url
from smilejobs.cli.paces import PaceFile, read_pace
from smilejobs.client import Client
from smilejobs.errors import WatchListError
from smilejobs.events import Event, PollFailed, PollFinished, PollScheduled, log_event
from smilejobs.polling.learned_pace import LearnedPace
from smilejobs.tasks import beside

if TYPE_CHECKING:
    from smilejobs.durable import WatchList

EPILOG = (
    "Example: smilejobs worker sqlite:///jobs.db\n\n"
    f"{CREDENTIALS_HELP} "
    "Warnings go to standard error. SIGTERM and Ctrl-C stop the worker: it stores all outcomes, and releases its jobs "
    "to other workers. Exit codes: 0 stopped by SIGTERM, 2 usage, 4 the database cannot be used, or already has a "
    "worker, 130 Ctrl-C."
)

_STOP_TIMEOUT_SECONDS = 9.0
"""From SIGTERM to the end of the process, also if the database hangs."""

_STATUS_INTERVAL_SECONDS = 5.0
"""Between two updates of the status line of a terminal."""


def worker(
    url: ListURL,
    *,
    rate: Annotated[
        float, typer.Option(help="The most polls per second; on PostgreSQL, of all workers together.")
    ] = 100.0,
    concurrency: Annotated[int, typer.Option(min=1, help="The most polls at the same time.")] = 100,
    pace: PaceFile = None,
    learn: Annotated[
        bool,
        typer.Option(
            "--learn",
            help="Learn how long jobs take, and poll accordingly, together with all workers that have this option: the "
            "watch list keeps what is learned. A list about which nothing has been learned begins with --pace.",
        ),
    ] = False,
    keep_raw: Annotated[bool, typer.Option("--keep-raw", help="Store whole answers, with personal data.")] = False,
    wait: Annotated[
        str,
        typer.Option(
            metavar="DURATION",
            help="How long to wait for the database at the start: 30s, 10m, 0 for not at all; none for no limit.",
        ),
    ] = "none",
) -> None:
    """Poll the jobs of a watch list until it is stopped.

    SQLite allows one worker, PostgreSQL any number on any hosts; give each one the same --rate. A worker may be killed
    at any time: another one polls its jobs again.
    """
    out = console(stderr=True)
    polls = _Polls()
    with exit_on((ImportError, OSError, ValueError), ExitCode.USAGE):
        from smilejobs.durable import WatchList, Worker
        from smilejobs.durable.urls import without_secrets
        from smilejobs.durable.worker import DEFAULT_PACE

        WatchList.open(url)  # raises for a wrong URL
        learned = read_pace(pace) or (LearnedPace(base=DEFAULT_PACE) if learn else None)
        patience = _patience(wait)
        client = Client.from_env(max_connections=concurrency, rate=rate, hooks=(_log, polls))

    async def work() -> None:
        showing = anyio.CancelScope()
        async with client, AsyncExitStack() as stack:
            watch = await _open(partial(WatchList.open, url), stack, patience)
            out.print(
                f"polling the jobs of {without_secrets(url)} at {read_base_url()}, at most {rate:g} polls/s; "
                "SIGTERM or Ctrl-C stops it"
            )
            show = partial(_show, watch, polls, out, showing)
            async with beside(show, showing.cancel) if out.is_terminal and not out.is_dumb_terminal else nullcontext():
                await Worker(client, watch, pace=learned, learn=learn, keep_raw=keep_raw).run()

    end = _End(out)

    async def run() -> None:
        with anyio.CancelScope() as working, end.on_sigterm(working.cancel):
            await work()

    with exit_on(WatchListError, ExitCode.ERROR), _warnings(out):
        # The default event loop of Windows cannot be used with psycopg; elsewhere, this one is the default.
        anyio.run(run, backend_options={"loop_factory": asyncio.SelectorEventLoop})
    end.is_clean = True


def _patience(wait: str) -> float | None:
    """Return how many seconds to wait for the database; None for no limit.

    Raises:
        ValueError: The text is not a duration.
    """
    text = wait.strip()
    return None if text == "none" else 0.0 if text == "0" else parse_duration(text, "--wait")


async def _open(
    opening: "Callable[[], AbstractAsyncContextManager[WatchList]]", stack: AsyncExitStack, patience: float | None
) -> "WatchList":
    """Open a watch list, and wait for its database.

    Raises:
        WatchListError: The database cannot be used, or was unavailable for too long.
    """
    from smilejobs.durable.retrying import Retries

    last: WatchListError | None = None

    async def attempt() -> "WatchList":
        nonlocal last
        try:
            return await stack.enter_async_context(opening())
        except WatchListError as error:
            last = error
            raise

    with anyio.move_on_after(patience) if patience else nullcontext():
        return await (Retries().while_unavailable(attempt) if patience != 0 else attempt())
    raise last or WatchListError("the database of the watch list did not answer in time", transient=True)


def _log(event: Event) -> None:
    """Log an event, except failed polls: the worker warns once of an outage."""
    if not isinstance(event, PollScheduled):
        log_event(event)


@define
class _End:
    """Ends the process in time after SIGTERM, even if the event loop, a thread or the interpreter hangs.

    Attributes:
        out: The console for the message.
        is_clean: Whether all outcomes are stored.
    """

    out: Console
    is_clean: bool = False

    @contextmanager
    def on_sigterm(self, stop: Callable[[], None]) -> Generator[None, None, None]:
        """Call *stop* in the event loop at SIGTERM, while the block runs."""
        loop = asyncio.get_running_loop()

        def stopped() -> None:
            stop()
            timer = threading.Timer(_STOP_TIMEOUT_SECONDS, self._leave)
            timer.daemon = True
            timer.start()

        try:
            loop.add_signal_handler(signal.SIGTERM, stopped)
        except NotImplementedError:  # the event loop of Windows has no handlers of signals
            before = signal.signal(signal.SIGTERM, lambda *_: loop.call_soon_threadsafe(stopped))
            try:
                yield
            finally:
                signal.signal(signal.SIGTERM, before)
        else:
            yield

    def _leave(self) -> None:
        if not self.is_clean:
            self.out.print("smilejobs: the database does not answer; what could not be stored will be polled again")
        os._exit(0 if self.is_clean else ExitCode.ERROR)


@define
class _Polls:
    """A hook that counts polls."""

    count: int = 0

    def __call__(self, event: Event) -> None:
        self.count += isinstance(event, (PollFinished, PollFailed))


async def _show(watch: "WatchList", polls: _Polls, out: Console, showing: anyio.CancelScope) -> None:
    """Show the number of pending jobs and the speed, until *showing* is cancelled."""
    with showing, out.status("counting jobs") as status:
        while True:
            before = polls.count
            await anyio.sleep(_STATUS_INTERVAL_SECONDS)
            with suppress(WatchListError):  # the worker reports it
                pending = (await watch.counts()).pending
                speed = (polls.count - before) / _STATUS_INTERVAL_SECONDS
                status.update(f"{pending:,} pending, {speed:.0f} polls/s here")


class _Lines(logging.Handler):
    """Prints a line for each log record to a console, with the traceback if ``--debug`` is set."""

    def __init__(self, out: Console) -> None:
        super().__init__(logging.WARNING)
        self._out = out

    def emit(self, record: logging.LogRecord) -> None:
        self._out.print(printable(f"{record.levelname} {' '.join(record.getMessage().split())}"))
        if record.exc_info and record.exc_info[1]:
            trace(record.exc_info[1])


@contextmanager
def _warnings(out: Console) -> Generator[None, None, None]:
    """Print the warnings of this library and of those that it uses, while the block runs."""
    handler = _Lines(out)
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
