"""The options ``--pace`` and ``--learn``: a pace that was learned before, and the file in which learning goes on."""

from pathlib import Path
from typing import Annotated

import typer

from smilejobs.polling.learned_pace import LearnedPace

PaceFile = Annotated[
    Path | None,
    typer.Option("--pace", metavar="FILE", help="Poll at the pace that was learned in this file; it stays as it is."),
]
LearnFile = Annotated[
    Path | None,
    typer.Option(
        "--learn",
        metavar="FILE",
        help="Learn how long jobs take, poll accordingly, and save that in this file for the next run.",
    ),
]


def read_pace(pace: Path | None, learn: Path | None = None) -> LearnedPace | None:
    """Return the pace of the two options, None without them. The file of *learn* need not exist yet.

    Raises:
        OSError: A file cannot be read, or *learn* is in a folder that does not exist.
        ValueError: A file holds no learned pace, or both are given.
    """
    if pace is not None and learn is not None:
        raise ValueError("--pace and --learn exclude each other: --learn uses what is in its file already")
    path = pace or learn
    if path is None:
        return None
    if path is learn and not path.exists():
        path.resolve().parent.stat()
        return LearnedPace()
    try:
        return LearnedPace.load(path)
    except ValueError as error:
        raise ValueError(f"{'--pace' if path is pace else '--learn'}: {path}: {error}") from None
