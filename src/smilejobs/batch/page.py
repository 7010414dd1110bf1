"""One page of HTML with tables and bars: it needs no network and no script, and its style follows the reader's theme.

A bar is a cell of a table, beside its number: a screen reader reads the number and skips the bar.
"""

from collections.abc import Iterable, Mapping, Sequence
from html import escape

from attrs import frozen

_SECTION = """<section><h2>{title}</h2>{above}<div class="wide" role="group" aria-label="{title}" tabindex="0">
{table}
</div></section>"""
_TEXT_SECTION = "<section><h2>{title}</h2><ul>{items}</ul></section>"
_EMPTY_SECTION = "<section><h2>{title}</h2><p>None.</p></section>"


@frozen
class Bar:
    """A cell that shows a count as a number and as a bar, in one of the `COLOURS`."""

    count: int
    colour: str = "bar"


def render_page(title: str, summary: str, sections: Iterable[str], css: str = "") -> str:
    """Return the page: a heading, a sentence below it, and sections of `render_section` and `render_sentences`."""
    return _PAGE.format(title=escape(title), summary=escape(summary), sections="\n".join(sections), css=_CSS + css)


def render_sentences(title: str, sentences: Iterable[str]) -> str:
    """Return a section with a list of sentences. All text is escaped."""
    items = "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences)
    return _TEXT_SECTION.format(title=escape(title), items=items)


def render_section(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]], *, above: str = "") -> str:
    """Return a section with a table, which scrolls by itself where it is wider than the page.

    All text is escaped.

    Args:
        title: The heading of the section.
        columns: The headings of the columns.
        rows: The cells: each a `Bar`, or an object that is shown as text; the first one of a row is its heading.
        above: HTML between the heading and the table, such as a chart.
    """
    if not rows:
        return _EMPTY_SECTION.format(title=escape(title))
    largest = max((cell.count for row in rows for cell in row if isinstance(cell, Bar)), default=0)
    head = "".join(f'<th scope="col">{escape(column)}</th>' for column in columns)
    body = "\n".join(_render_row(row, largest) for row in rows)
    table = f"<table><thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table>"
    return _SECTION.format(title=escape(title), above=above, table=table)


def _render_row(row: Sequence[object], largest: int) -> str:
    heading, *cells = row
    rest = "".join(
        _render_bar(cell, largest) if isinstance(cell, Bar) else f"<td>{escape(str(cell))}</td>" for cell in cells
    )
    return f'<tr><th scope="row">{escape(str(heading))}</th>{rest}</tr>'


def _render_bar(bar: Bar, largest: int) -> str:
    share = bar.count / largest
    drawn = f'<i class="{bar.colour}" style="--share:{share:.4f}"></i>' if bar.count else ""
    return f'<td class="chart"><div>{drawn}{bar.count:,}</div></td>'


COLOURS: Mapping[str, tuple[str, str]] = {
    "bar": ("#4a7fc1", "#6ea0e0"),
    "approved": ("#2c8a4b", "#4cb872"),
    "provisional": ("#b17f00", "#e0b03c"),
    "rejected": ("#c8413b", "#ee6c66"),
    "error": ("#c8413b", "#ee6c66"),
    "unknown": ("#8b5cc9", "#b18bea"),
    "pending": ("#6b7785", "#93a0ae"),
    "refused": ("#a8322d", "#e07d78"),
    "failed": ("#d2691e", "#f09a58"),
    "invalid": ("#8a6d5c", "#c2a28f"),
}
"""By the name of a bar's colour: its value in the light theme and in the dark one."""

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{title}</title>
<style>{css}</style>
</head>
<body>
<main>
<h1>{title}</h1>
<p>{summary}</p>
<div class="sections">
{sections}
</div>
</main>
</body>
</html>
"""

_CSS = """
:root { --page: #fff; --panel: #f5f6f8; --text: #1b1f24; --soft: #59636e; --line: #d5dae0; }
@media (prefers-color-scheme: dark) {
  :root { --page: #14171b; --panel: #1e2329; --text: #e4e7eb; --soft: #9aa5b1; --line: #39424c; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1100px; padding: 1rem; background: var(--page); color: var(--text);
  font: 15px/1.45 system-ui, sans-serif; }
h1 { font-size: 1.5rem; margin: 0; }
h2 { font-size: 1.05rem; margin: 0 0 .6rem; }
p { color: var(--soft); margin: .2rem 0 1rem; }
section p { margin: 0; }
section ul { margin: 0; padding-left: 1.2rem; }
.sections { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); }
section { min-width: 0; padding: .9rem; background: var(--panel); border-radius: 8px; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .6rem .3rem 0; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line);
  font-weight: 400; }
thead th { color: var(--soft); }
tr:last-child > * { border-bottom: 0; }
thead tr:last-child > * { border-bottom: 1px solid var(--line); }
.chart { width: 50%; min-width: 8.5rem; }
.chart div { display: flex; align-items: center; gap: .4rem; }
.chart i { flex: none; height: .9rem; min-width: 2px; width: calc((100% - 5rem) * var(--share)); border-radius: 2px;
  forced-color-adjust: none; print-color-adjust: exact; }
""" + "".join(
    f".{name} {{ background: {light}; }}\n@media (prefers-color-scheme: dark) {{ .{name} {{ background: {dark}; }} }}\n"
    for name, (light, dark) in COLOURS.items()
)
