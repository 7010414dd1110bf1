"""Print answers, as text for people or as JSON."""

import json
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from types import MappingProxyType
from typing import Any

import anyio
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from smilejobs.model.codes import Verdict
from smilejobs.model.jobs import JobResult, JobStatus
from smilejobs.model.tables import word
from smilejobs.tasks import beside

_REDRAW_INTERVAL_SECONDS = 0.125

STYLES: Mapping[str, str] = MappingProxyType(
    {
        Verdict.APPROVED.value: "green",
        Verdict.PROVISIONAL.value: "yellow",
        Verdict.REJECTED.value: "red",
        Verdict.ERROR.value: "red",
        Verdict.UNKNOWN.value: "magenta",
        "pending": "yellow",
        "refused": "red",
        "failed": "red",
        "invalid": "red",
    }
)
"""The style of a verdict, or of another outcome of a row."""


def console(*, stderr: bool = False) -> Console:
    """Return a console that prints text as it is, without markup, emoji, or line breaks of its own."""
    return _Console(stderr=stderr, markup=False, emoji=False, highlight=False, soft_wrap=True)


class _Console(Console):
    def print(self, *objects: object, **options: Any) -> None:
        """Print; of the control characters of a text, only ends of lines reach the terminal."""
        super().print(
            *("\n".join(map(printable, each.split("\n"))) if isinstance(each, str) else each for each in objects),
            **options,
        )

    def on_broken_pipe(self) -> None:
        """Re-raise the BrokenPipeError; rich would exit with 1, which means "complete, not approved"."""
        raise  # noqa: PLE0704  # rich calls this in its except block


@asynccontextmanager
async def live_table(console: Console, draw: Callable[[], Table]) -> AsyncGenerator[None, None]:
    """Show a table in a terminal while the block runs, and redraw it in the event loop; elsewhere show nothing."""
    if not console.is_terminal:
        yield
        return
    drawing = anyio.CancelScope()

    async def redraw() -> None:
        with drawing:
            while True:
                live.update(draw(), refresh=True)
                await anyio.sleep(_REDRAW_INTERVAL_SECONDS)

    with Live(console=console, auto_refresh=False) as live:
        async with beside(redraw, drawing.cancel):
            yield
        live.update(draw(), refresh=True)


def show(status: JobStatus, *, as_json: bool, links: bool) -> None:
    """Print an answer to standard output, as text or as JSON; with *links*, the URLs of pictures, which are secrets."""
    out = console()
    if as_json:
        out.print(json.dumps(status.as_dict(links=links), indent=2))
        return
    verdict = word(status.verdict)
    finality = "" if status.is_final or not status.job_complete else ", not final yet"
    out.print(Text(verdict, style=STYLES.get(verdict, "")) + finality)
    for name, value in _iterate_details(status, links=links):
        out.print(f"  {printable(name):<12}  {printable(value)}")


def _iterate_details(status: JobStatus, *, links: bool) -> Iterator[tuple[str, str]]:
    if status.code is not None:
        yield "code", status.code
    if status.message is not None:
        yield "message", status.message
    if status.result is not None:
        yield "result", _describe_result(status.result)
        yield "SmileJobID", status.result.smile_job_id or "none"
        if status.result.confidence_value is not None:
            yield "confidence", f"{status.result.confidence_value:g}"
    for entry in status.history:
        yield "history", f"{entry.smile_job_id or 'no SmileJobID'}: {_describe_result(entry)}"
    if status.image_links is not None and links:
        for name, link in status.image_links.items():
            yield name, link.url
        if status.image_links.error is not None:
            yield "image links", status.image_links.error


def _describe_result(result: JobResult) -> str:
    return " ".join(filter(None, (result.result_code, result.result_text))) or "without a code"


def format_clock(seconds: float) -> str:
    """Return seconds as minutes and seconds, or hours, minutes and seconds: 1:05, 1:01:05."""
    minutes, rest = divmod(max(round(seconds), 0), 60)  # negative if the input has grown since it was counted
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def printable(text: str) -> str:
    """Return text with each control character replaced by a question mark.

    For all text from the API, a file, a command line or the environment.
    """
    return "".join(letter if letter.isprintable() else "?" for letter in text)
