"""Small tables in HTML, for notebooks.

A notebook is kept and passed on with what its cells have shown. So nothing goes into these tables but numbers of the
API, our own words and `JobRef.tag`: no ids, no links, nothing that says something about a person.
"""

from collections.abc import Iterable, Mapping
from html import escape
from types import MappingProxyType

from smilejobs.model.codes import Verdict

Cell = Verdict | str | None
"""A text; or a verdict, which is None while the job is pending."""

BADGES: Mapping[Verdict | None, tuple[str, str]] = MappingProxyType(
    {
        Verdict.APPROVED: ("\N{CHECK MARK}", "#1a7f37"),
        Verdict.PROVISIONAL: ("~", "#8a5d00"),
        Verdict.REJECTED: ("\N{BALLOT X}", "#c4232c"),
        Verdict.ERROR: ("!", "#a63d00"),
        Verdict.UNKNOWN: ("?", "#6e40c9"),
        None: ("\N{HORIZONTAL ELLIPSIS}", "#57606a"),
    }
)
"""The sign of each verdict, and the ground on which it stands in white: the theme of the notebook does not matter."""

_LEFT = 'style="text-align:left"'


def word(verdict: Verdict | None) -> str:
    """Return the word for a verdict; None is that of a pending job."""
    return "pending" if verdict is None else verdict.value


def table(caption: str, rows: Iterable[tuple[Cell, Cell]]) -> str:
    """Return a table with a heading at the head of each row.

    Args:
        caption: What it is about.
        rows: The heading and the content of each row; texts are escaped here.
    """
    body = "".join(
        f'<tr><th scope="row" {_LEFT}>{_cell(heading)}</th><td {_LEFT}>{_cell(content)}</td></tr>'
        for heading, content in rows
    )
    return f"<table><caption {_LEFT}>{escape(caption)}</caption><tbody>{body}</tbody></table>"


def _cell(cell: Cell) -> str:
    if cell is not None and not isinstance(cell, Verdict):
        return escape(cell)
    sign, ground = BADGES[cell]
    return (
        f'<span style="background-color:{ground};color:#fff;padding:1px 6px;border-radius:4px;white-space:nowrap">'
        f"{sign} {word(cell)}</span>"
    )
