"""Charts with lines, as SVG: they follow the theme of the page, and a screen reader reads a sentence for each."""

from collections.abc import Callable, Sequence
from html import escape
from itertools import pairwise

from attrs import frozen

_WIDTH, _HEIGHT = 400, 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 20, 10, 42
_MIN_TICK_DISTANCE = 0.15
"""Of the length of the axis, so that the labels of ticks do not overlap."""

STYLES = ("solid", "dashed")
"""The styles of lines, which differ in colour and in dashes."""


@frozen
class Axis:
    """An axis of a chart.

    Attributes:
        label: What it shows, with the unit.
        high: The value at its end, more than *low*.
        ticks: Values and their labels; those outside, and those too near to the one before, are left out.
        scale: Makes distances of values visible, for example `math.log`; increasing.
    """

    label: str
    low: float
    high: float
    ticks: Sequence[tuple[float, str]]
    scale: Callable[[float], float] = float

    def place(self, value: float) -> float:
        """Return where a value is, from 0 to 1; beyond the ends, it is at the end."""
        start = self.scale(self.low)
        end = self.scale(self.high)
        return (self.scale(min(max(value, self.low), self.high)) - start) / (end - start)

    def places(self) -> list[tuple[float, str]]:
        """Return the places and the labels of the ticks."""
        shown: list[tuple[float, str]] = []
        for value, label in self.ticks:
            place = self.place(value)
            if self.low <= value <= self.high and (not shown or place - shown[-1][0] >= _MIN_TICK_DISTANCE):
                shown.append((place, label))
        return shown


@frozen
class Line:
    """A line of a chart.

    Attributes:
        name: Its name in the legend; empty for a chart with one line alone.
        points: Pairs of x and y.
        style: One of `STYLES`.
        is_stepped: Whether y stays the same up to the next x.
        is_dotted: Whether each point is marked.
    """

    name: str
    points: Sequence[tuple[float, float]]
    style: str = STYLES[0]
    is_stepped: bool = False
    is_dotted: bool = False


def render_chart(sentence: str, x: Axis, y: Axis, lines: Sequence[Line]) -> str:
    """Return a figure with a chart and its legend; *sentence* says what it shows, as caption and to a screen reader."""
    parts = [
        *(
            f'<path class="grid" d="M{_x(place)} {_y(0)}V{_y(1)}"/>{_text(_x(place), _HEIGHT - 24, label)}'
            for place, label in x.places()
        ),
        *(
            f'<path class="grid" d="M{_x(0)} {_y(place)}H{_x(1)}"/>{_text(_LEFT - 5, _y(place) + 4, label, "end")}'
            for place, label in y.places()
        ),
        _text(_x(0.5), _HEIGHT - 6, x.label),
        *(_draw(line, x, y) for line in lines),
    ]
    names = [line for line in lines if line.name]
    legend = "".join(f'<li><i class="{line.style}"></i>{escape(line.name)}</li>' for line in names)
    return (
        f'<figure><figcaption>{escape(sentence)}</figcaption><p class="axis" aria-hidden="true">{escape(y.label)}</p>'
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(sentence)}">{"".join(parts)}</svg>'
        f"{f'<ul>{legend}</ul>' if names else ''}</figure>"
    )


def _draw(line: Line, x: Axis, y: Axis) -> str:
    points = [(_x(x.place(first)), _y(y.place(second))) for first, second in line.points]
    path = "M" + "L".join(f"{across} {down}" for across, down in points)
    if line.is_stepped:
        path = f"M{points[0][0]} {points[0][1]}" + "".join(f"H{right}V{down}" for _, (right, down) in pairwise(points))
    dots = "".join(f'<circle cx="{across}" cy="{down}" r="2.2"/>' for across, down in points) if line.is_dotted else ""
    return f'<g class="{line.style}"><path d="{path}"/>{dots}</g>'


def _x(place: float) -> float:
    return round(_LEFT + place * (_WIDTH - _LEFT - _RIGHT), 1)


def _y(place: float) -> float:
    return round(_HEIGHT - _BOTTOM - place * (_HEIGHT - _TOP - _BOTTOM), 1)


def _text(across: float, down: float, text: str, anchor: str = "middle") -> str:
    return f'<text x="{across}" y="{down}" text-anchor="{anchor}">{escape(text)}</text>'


CHART_CSS = """
:root { --solid: #1f6feb; --dashed: #b35900; }
@media (prefers-color-scheme: dark) { :root { --solid: #6ea8ff; --dashed: #f0a35e; } }
figure { margin: 0 0 .8rem; }
figcaption { color: var(--soft); margin-bottom: .4rem; }
figure .axis { margin: 0; font-size: .85rem; }
svg { display: block; width: 100%; max-width: 36rem; height: auto; }
svg text { fill: var(--soft); font-size: 13px; }
svg path { fill: none; stroke-width: 1.8; }
svg .grid { stroke: var(--line); stroke-width: 1; }
.solid path { stroke: var(--solid); }
.solid circle { fill: var(--solid); }
.dashed path { stroke: var(--dashed); stroke-dasharray: 6 3; }
.dashed circle { fill: var(--dashed); }
figure ul { display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; list-style: none; margin: .3rem 0 0; padding: 0; }
figure li { display: flex; align-items: center; gap: .4rem; }
figure i { width: 2rem; border-top: 3px solid var(--solid); forced-color-adjust: none; print-color-adjust: exact; }
figure i.dashed { border-top: 3px dashed var(--dashed); }
"""
