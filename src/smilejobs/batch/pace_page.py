"""What paces cost on the jobs of a batch, as one page of HTML with charts."""

import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import pairwise
from os import PathLike

from smilejobs.batch.chart import CHART_CSS, STYLES, Axis, Line, render_chart
from smilejobs.batch.findings import COST_COLUMNS, DURATION_COLUMNS, Findings
from smilejobs.batch.page import render_page, render_section, render_sentences
from smilejobs.batch.words import format_share, format_time
from smilejobs.files import open_private
from smilejobs.polling.comparison import Setting
from smilejobs.polling.pace import Pace

_MINUTE, _HOUR, _DAY = 60, 3600, 86_400
_TICKS_SECONDS = (
    *(0, 0.1, 0.2, 0.5, 1, 2, 3, 5, 10, 15, 20, 30, 45),
    *(count * _MINUTE for count in (1, 1.5, 2, 3, 5, 10, 15, 20, 30, 45)),
    *(count * _HOUR for count in (1, 1.5, 2, 3, 6, 12)),
    *(count * _DAY for count in (1, 2, 5, 10, 20, 30, 60)),
)
_TIME_TICKS = [(float(value), format_time(value)) for value in _TICKS_SECONDS]
_RATE_TICKS = [(10.0**power, f"{10.0 ** (power + 2):g}\u00a0%") for power in range(-8, 3)]
_SHARE_TICKS = [(share, format_share(share)) for share in (0, 0.25, 0.5, 0.75, 1)]
_SHOWN_SHARE = 0.99
"""Of the jobs: the longest ones would take most of the space, and little is known of them."""
_LEAST_RATE = 1e-4
"""Of the largest one."""
_POINTS = 80
_MOST_POINTS = 500


def render_pace_page(findings: Findings) -> str:
    """Return the page; it holds no personal data."""
    return render_page("A pace for these jobs", findings.summary(), _render_sections(findings), CHART_CSS)


def write_pace_page(findings: Findings, path: str | PathLike[str]) -> None:
    """Write the page to a file, and replace one that exists; a new file can be read by its owner alone.

    Raises:
        OSError: The file cannot be written.
    """
    with open(path, "w", encoding="utf-8", opener=open_private) as file:
        file.write(render_pace_page(findings))


def _render_sections(findings: Findings) -> Iterator[str]:
    yield render_section("How long the jobs took", DURATION_COLUMNS, findings.durations())
    yield render_section("What paces cost", COST_COLUMNS, findings.costs())
    yield render_sentences("What to do", findings.advice())
    yield render_sentences("How exact this is", findings.exactness())
    durations = findings.comparison.durations
    longest = durations.quantile(min(_SHOWN_SHARE, durations.complete[-1])) or durations.ages[-1]
    ages = Axis("age of the job", 0.0, longest, _TIME_TICKS, math.log1p)
    yield _render_hazard(findings, ages)
    yield _render_schedules(findings, ages)
    yield _render_lateness(findings)


def _render_hazard(findings: Findings, ages: Axis) -> str:
    steps = [step for step in findings.comparison.durations.steps() if step.start < ages.high]
    most = max(step.rate for step in steps)
    least = max(min(step.rate for step in steps), most * _LEAST_RATE)
    low, high = (10.0 ** rounded(math.log10(rate)) for rounded, rate in ((math.floor, least), (math.ceil, most * 1.01)))
    line = Line("", [(steps[0].start, steps[0].rate), *((step.end, step.rate) for step in steps)], is_stepped=True)
    peak = max(steps, key=lambda step: step.rate)
    chart = render_chart(
        "At which age jobs become complete: of the pending jobs, the largest share per second "
        f"({100 * peak.rate:.2g}\u00a0%) at ages of {format_time(peak.start)} to {format_time(peak.end)}.",
        ages,
        Axis("share of the pending jobs per second (hazard)", low, high, _RATE_TICKS, math.log10),
        [line],
    )
    rows = [
        (
            f"{format_time(start)} to {format_time(end)}",
            f"{100 * (_share_at(findings, end) - _share_at(findings, start)):.1f} %",
        )
        for start, end in pairwise([*_shown_ages(ages), ages.high])
    ]
    return render_section("When jobs become complete", ("age of the job", "share of all jobs"), rows, above=chart)


def _render_schedules(findings: Findings, ages: Axis) -> str:
    schedules = [Setting(pace).schedule(ages.high) for pace in (Pace(), findings.comparison.learned_pace)]
    delays = [[(age, following - age) for age, following in pairwise(schedule)] for schedule in schedules]
    all_delays = [delay for each in delays for _, delay in each]
    counts = [len(schedule) for schedule in schedules]
    chart = render_chart(
        f"When a job of {format_time(ages.high)} is polled: {counts[0]} times by Pace(), {counts[1]} times by the "
        "learned pace. Each point is a poll; its height is the delay before the next one.",
        ages,
        Axis("delay before the next poll", min(all_delays) / 1.2, max(all_delays) * 1.2, _TIME_TICKS[1:], math.log),
        [
            Line(name, points[:: 1 + len(points) // _MOST_POINTS], style, is_dotted=True)
            for name, points, style in zip(("Pace()", "learned"), delays, STYLES, strict=True)
        ],
    )
    rows = [(format_time(age), *(_delay_at(schedule, age) for schedule in schedules)) for age in _shown_ages(ages)]
    return render_section("When to poll", ("age of the job", "delay of Pace()", "learned"), rows, above=chart)


def _render_lateness(findings: Findings) -> str:
    costs = (findings.comparison.default, findings.comparison.learned)
    latest = max(cost.lateness_of(0.99) for cost in costs)
    shares = [place / _POINTS for place in range(_POINTS + 1)]
    chart = render_chart(
        f"How late results are seen: half of them within {format_time(costs[0].lateness_of(0.5))} by Pace() and within "
        f"{format_time(costs[1].lateness_of(0.5))} by the learned pace.",
        Axis("late by at most", 0.0, latest, _TIME_TICKS, math.log1p),
        Axis("share of the results", 0.0, 1.0, _SHARE_TICKS),
        [
            Line(name, [(cost.lateness_of(share), share) for share in shares], style)
            for name, cost, style in zip(("Pace()", "learned"), costs, STYLES, strict=True)
        ],
    )
    rows = [
        (format_share(share), *(format_time(cost.lateness_of(share)) for cost in costs))
        for share in (0.25, 0.5, 0.75, 0.9, 0.99)
    ]
    columns = ("share of the results", "late by at most: Pace()", "learned")
    return render_section("How late results are seen", columns, rows, above=chart)


def _shown_ages(ages: Axis) -> list[float]:
    """Return some ages, which are the rows of a table."""
    return [
        value
        for value in (0, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800, _HOUR, 3 * _HOUR, _DAY)
        if value < ages.high
    ]


def _share_at(findings: Findings, age: float) -> float:
    """Return the share of all jobs that is complete at an age."""
    durations = findings.comparison.durations
    place = min(bisect_right(durations.ages, age), len(durations.ages) - 1)
    start, end = durations.ages[place - 1 : place + 1]
    before, after = durations.complete[place - 1 : place + 1]
    return before + (after - before) * (age - start) / (end - start)


def _delay_at(schedule: Sequence[float], age: float) -> str:
    """Return the delay between the polls around an age."""
    place = bisect_right(schedule, age)
    return format_time(schedule[place] - schedule[place - 1])
