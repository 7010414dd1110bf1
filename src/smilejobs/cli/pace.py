"""``smilejobs pace``: reads results of batches, and says which pace fits their jobs."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from textwrap import wrap
from typing import Annotated

import typer

from smilejobs.batch.findings import COST_COLUMNS, DURATION_COLUMNS, Findings
from smilejobs.batch.pace_page import write_pace_page
from smilejobs.batch.waits import Results
from smilejobs.cli.display import console, printable
from smilejobs.cli.exits import ExitCode, exit_on
from smilejobs.cli.options import open_input, require_folder
from smilejobs.polling.learned_pace import LearnedPace

EPILOG = (
    "Example: smilejobs pace results.csv --save pace.json --report pace.html\n\n"
    "Exit codes: 0 printed, 2 usage or files that cannot be used, 4 a file cannot be written."
)


def pace(
    files: Annotated[
        list[str],
        typer.Argument(metavar="FILE...", help="Results of smilejobs batch, CSV or JSON Lines; - for standard input."),
    ],
    *,
    save: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Save the learned pace in this file, for --pace and --learn.")
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(metavar="FILE", dir_okay=False, writable=True, help="Write a page of HTML with charts."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Say how long the jobs of batches took, and which pace fits them.

    Compares the default pace, a learned pace and the best settings by hand: the polls per job, and how late results
    are seen. Nothing is polled, and no credentials are needed.
    """
    with exit_on((ValueError, OSError), ExitCode.USAGE):
        _check_files(files, save, report)
        results = Results()
        for name in files:
            with open_input(name) as stream:
                results.read(stream, "standard input" if name == "-" else name)
        findings = Findings.of(results)
    if as_json:
        typer.echo(json.dumps(findings.as_dict(), indent=2))
    else:
        out = console()
        for line in _format(findings, min(out.width, 100)):
            out.print(line.replace("\u00a0", " "))
    with exit_on(OSError, ExitCode.ERROR):
        if save is not None:
            findings.comparison.learned_pace.save(save)
            _tell(f"the learned pace: {save}")
        if report is not None:
            write_pace_page(findings, report)
            _tell(f"the report: {report}")


def _check_files(files: Sequence[str], save: Path | None, report: Path | None) -> None:
    """Raise an error if a file is named twice, or one that is to be written cannot be, or is of another kind."""
    paths = [*(Path(name) for name in files), *(path for path in (save, report) if path is not None)]
    if len({path.resolve() for path in paths}) < len(paths):
        raise ValueError("the results, --save and --report must be different files")
    for name, path in (("--save", save), ("--report", report)):
        if path is not None:
            require_folder(path, name)
    if save is not None and save.exists():
        try:
            LearnedPace.load(save)
        except ValueError as error:
            raise ValueError(f"--save would replace another file: {save}: {error}") from None


def _format(findings: Findings, width: int) -> Iterator[str]:
    yield from wrap(findings.summary(), width)
    yield ""
    yield from _format_table(DURATION_COLUMNS, findings.durations())
    yield ""
    yield from _format_table(COST_COLUMNS, findings.costs())
    for sentences in (findings.advice(), findings.exactness()):
        yield ""
        for sentence in sentences:
            yield from wrap(f"- {sentence}", width, subsequent_indent="  ", break_on_hyphens=False)


def _format_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(len(row[place]) for row in (columns, *rows)) for place in range(len(columns))]
    for first, *others in (columns, *rows):
        cells = (cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))
        yield "  ".join((first.ljust(widths[0]), *cells))


def _tell(text: str) -> None:
    typer.echo(printable(text), err=True)
