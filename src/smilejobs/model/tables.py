"""Small tables in HTML, for notebooks.

A notebook is stored and shared with the output of its cells. Therefore these tables hold only codes of the API, texts
of this library and `JobRef.tag`: no ids, no links and no personal data.
"""

from collections.abc import Iterable, Mapping
from html import escape
from types import MappingProxyType

from smilejobs.model.codes import Verdict

Cell = Verdict | str | None
"""A text, or a verdict; None stands for a pending job."""

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
"""The symbol of each verdict, and its background colour; the text is white in every theme of a notebook."""

_LEFT = 'style="text-align:left"'


def word(verdict: Verdict | None) -> str:
    """Return the word for a verdict; "pending" for None."""
    return "pending" if verdict is None else verdict.value


def table(caption: str, rows: Iterable[tuple[Cell, Cell]]) -> str:
    """Return a table in HTML in which each row begins with a heading.

    Args:
        caption: The caption of the table.
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
    symbol, background = BADGES[cell]
    return (
        f'<span style="background-color:{background};color:#fff;padding:1px 6px;border-radius:4px;white-space:nowrap">'
        f"{symbol} {word(cell)}</span>"
    )
