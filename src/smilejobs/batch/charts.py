"""Bars as SVG, drawn by pygal, which the extra ``report`` brings.

pygal is pure Python, small, kept since 2012, and writes SVG whose colours are CSS: the page's own variables decide
them, and dark mode needs no second drawing. It is not typed, and adds a script for its tooltips; both end here.
"""

import sys
from collections.abc import Sequence
from xml.etree.ElementTree import Comment, tostring

from attrs import frozen

_ROW = 28
_WIDTH = 380
"""In the SVG's own units: the letters, of 13, have 10 pixels on a small phone and 15 on half of a desktop's page."""
_ROOM = 1.25
"""The longest bar leaves room for its number."""


@frozen
class Bar:
    """One bar.

    Attributes:
        label: What is counted.
        value: How many.
        colour: CSS.
    """

    label: str
    value: int
    colour: str = "var(--bar)"


def check_library() -> None:
    """Do nothing if charts can be drawn.

    Raises:
        ImportError: The extra ``report`` is not installed.
    """
    try:
        import pygal
    except ImportError:
        raise ImportError("the report needs pygal: pip install 'smilejobs[report]'") from None
    # It hooks itself into all imports, for charts in modules of their own, with a hook that Python warns of.
    sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, pygal.PluginImportFixer)]


def bars(name: str, title: str, rows: Sequence[Bar]) -> str:
    """Return horizontal bars, the first one on top, as an ``svg`` element without scripts.

    Its colours are the CSS variables ``--text``, ``--line`` and those of the bars.

    Args:
        name: Tells its CSS from that of others on the page.
        title: What it shows, for those who cannot see it.
        rows: The bars.

    Raises:
        ImportError: The extra ``report`` is not installed.
    """
    check_library()
    from pygal import HorizontalBar
    from pygal.etree import etree
    from pygal.style import Style

    etree.to_etree()
    chart = HorizontalBar(
        style=Style(
            background="transparent",
            plot_background="transparent",
            foreground="var(--text)",
            foreground_strong="var(--text)",
            foreground_subtle="var(--line)",
            colors=("var(--bar)",),
            value_colors=("var(--text)",),
            font_family="inherit",
            label_font_size=13,
            value_font_size=13,
            opacity="1",
            transition="0s",
        ),
        js=(),
        title=None,
        show_legend=False,
        show_x_labels=False,
        show_x_guides=False,
        print_values=True,
        print_values_position="top",
        range=(0, max(row.value for row in rows) * _ROOM),
        formatter=lambda value: f"{value:,}",
        width=_WIDTH,
        height=_ROW * len(rows) + 16,
        margin=4,
        margin_left=12,
        spacing=0,
        truncate_label=-1,
    )
    chart.uuid = name
    chart.x_labels = [row.label for row in reversed(rows)]
    chart.add("", [{"value": row.value, "color": row.colour} for row in reversed(rows)])
    root = chart.render_tree()
    root.set("role", "img")
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag is Comment or child.tag in ("script", "desc"):
                parent.remove(child)
            elif child.tag == "title":
                child.text = title
            elif child.get("class") == "value":
                child.set("text-anchor", "start")
    return tostring(root, encoding="unicode")
