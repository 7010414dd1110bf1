"""What several commands take."""

import enum
import re
import sys
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, TextIO

import typer

from smilejobs.batch.rows import ENCODING, ERRORS
from smilejobs.durations import seconds

_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}


ListURL = Annotated[
    str,
    typer.Argument(
        metavar="URL",
        help="Where the watch list is: sqlite:///jobs.db, or postgresql://user@host/database with its password in "
        "PGPASSWORD.",
    ),
]


class Until(enum.StrEnum):
    """What to wait for."""

    COMPLETE = "complete"
    FINAL = "final"


def duration(text: str, name: str) -> float:
    """Return a duration in seconds.

    Args:
        text: A number and a unit: s, m, h or d; a number alone is seconds.
        name: What the user calls it; it opens the error text.

    Raises:
        ValueError: It is no duration, or not more than 0.
    """
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([smhd]?)", text.strip())
    if found is None:
        raise ValueError(f"{name} must be a number and a unit, for example 90s, 10m, 2h or 1d")
    return seconds(float(found[1]) * _UNITS[found[2]], name, zero=False)


def open_input(source: str) -> TextIO:
    """Open a file of jobs, for `Rows`.

    Args:
        source: Its path; - for standard input.

    Raises:
        OSError: It cannot be opened.
    """
    if source == "-":
        return TextIOWrapper(sys.stdin.buffer, ENCODING, ERRORS, newline="")
    return Path(source).open(encoding=ENCODING, errors=ERRORS, newline="")
