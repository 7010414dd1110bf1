"""A batch as one page of HTML: how the jobs ended, how long they took, and what went wrong."""

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from heapq import heappush, heappushpop
from html import escape
from itertools import pairwise
from os import PathLike
from typing import TypeVar

from attrs import define, field

from smilejobs.batch.charts import Bar, bars, check_library
from smilejobs.batch.records import WORDS, Ending, Record, record_of
from smilejobs.batch.words import number_of
from smilejobs.files import open_private
from smilejobs.model.codes import RESULT_CODES, Verdict, describe, display_number
from smilejobs.model.jobs import JobRef
from smilejobs.outcomes import Outcome

_Kind = TypeVar("_Kind")

_SLOWEST = 10
_KINDS = 40
"""How many different codes and errors are told apart: they come from outside, and their number has no bound."""
_OTHER = "other"

_SECONDS = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21_600, 86_400)
_POLLS = (2, 3, 4, 5, 6, 9, 13, 21, 51, 101)
"""Where the bars of the histograms begin, after the first."""


@define
class _Histogram:
    """Counts by intervals: each one begins at an edge, the first at 0, and ends before the next."""

    edges: Sequence[int]
    counts: list[int] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.counts = [0] * (len(self.edges) + 1)

    def add(self, value: float) -> None:
        self.counts[bisect_right(self.edges, value)] += 1

    def rows(self, labels: Sequence[str]) -> list[Bar]:
        """Return the bars from the first one that is not empty to the last."""
        filled = [position for position, count in enumerate(self.counts) if count]
        shown = range(filled[0], filled[-1] + 1) if filled else ()
        return [Bar(labels[position], self.counts[position]) for position in shown]


class Report:
    """What there is to say about a batch, on one page that opens from disk: no network, no script, no personal data.

    Jobs are named by their position in the input, by `JobRef.tag` and by the SmileJobID. What is kept does not grow
    with the number of outcomes.

    Args:
        settings: What the run was told, by name; it is shown at the end of the page.

    Raises:
        ImportError: The extra ``report`` is not installed.
    """

    def __init__(self, settings: Mapping[str, object] | None = None) -> None:
        check_library()
        self._settings = dict(settings or {})
        self._words: Counter[str] = Counter()
        self._result_codes: Counter[str] = Counter()
        self._errors: Counter[tuple[str, str, str]] = Counter()
        self._times = _Histogram(_SECONDS)
        self._polls = _Histogram(_POLLS)
        self._slowest: list[tuple[float, int, Record]] = []
        """Of those that took as long, the first to come stay."""
        self._timed = 0

    def add(self, outcome: Outcome) -> None:
        """Count an outcome.

        Args:
            outcome: As `Client.wait_many` gives it.
        """
        self.add_record(record_of(outcome))

    def add_record(self, record: Record) -> None:
        """Count a row of a results file.

        Args:
            record: What is told of one job.
        """
        complete = record.outcome is Ending.COMPLETE
        self._words[record.word] += 1
        if complete:
            _count(
                self._result_codes, "none" if record.result_code is None else display_number(record.result_code), _OTHER
            )
        else:
            kind = (record.outcome.value, record.error or "", record.code or "")
            _count(self._errors, kind, (_OTHER, "", ""))
        if record.images_error is not None:
            _count(self._errors, (record.outcome.value, f"ImageError: {record.images_error}", ""), (_OTHER, "", ""))
        if record.polls:
            self._polls.add(record.polls)
        if record.seconds is None:
            return
        if complete:
            self._times.add(record.seconds)
        self._timed += 1
        entry = (record.seconds, -self._timed, record)
        if len(self._slowest) < _SLOWEST:
            heappush(self._slowest, entry)
        else:
            heappushpop(self._slowest, entry)

    def html(self) -> str:
        """Return the page."""
        return _PAGE.format(css=_CSS, body="\n".join(self._body()))

    def write(self, path: str | PathLike[str]) -> None:
        """Write the page to a file, which is replaced; a new one can be read by its owner alone.

        Args:
            path: Where to.

        Raises:
            OSError: It cannot be written.
        """
        with open(path, "w", encoding="utf-8", errors="backslashreplace", opener=open_private) as file:
            file.write(self.html())

    def _body(self) -> Iterator[str]:
        total = self._words.total()
        complete = self._complete()
        yield "<h1>Smile ID jobs</h1>"
        yield f'<p class="lead">{number_of(total, "row")}, {complete:,} complete.</p>'
        if total:
            yield '<div class="tiles">'
            yield from (
                f'<div class="tile {word}"><b>{self._words[word]:,}</b><span>{word}</span></div>'
                for word in WORDS
                if self._words[word]
            )
            yield "</div>"
        yield "<main>"
        yield from self._sections()
        yield "</main>"

    def _complete(self) -> int:
        return sum(self._words[verdict.value] for verdict in Verdict)

    def _sections(self) -> Iterator[str]:
        outcomes = [Bar(word, self._words[word], f"var(--{word})") for word in WORDS if self._words[word]]
        yield _section("Outcomes", _chart("outcomes", "Rows by outcome", outcomes))
        yield _section("Result codes", self._code_chart() if self._result_codes else _NONE)
        yield _section(
            "Time to completion",
            _chart("times", "Complete jobs by seconds from the first poll", self._times.rows(_intervals())),
        )
        yield _section("Polls per job", _chart("polls", "Jobs by number of polls", self._polls.rows(_poll_labels())))
        yield _section("Errors", self._error_table())
        yield _section("Slowest", self._slowest_table())
        if self._settings:
            yield _section("Settings", _table(("name", "value"), self._settings.items()))

    def _code_chart(self) -> str:
        codes = self._result_codes.most_common()
        chart = bars("codes", "Complete jobs by result code", [Bar(code, count) for code, count in codes])
        return chart + _table(
            ("code", "meaning", "jobs"), ((code, _meaning(code), f"{count:,}") for code, count in codes)
        )

    def _error_table(self) -> str:
        rows = [
            (f"{count:,}", outcome, error, describe(code) if code else "")
            for (outcome, error, code), count in self._errors.most_common()
        ]
        return _table(("rows", "outcome", "error", "code"), rows)

    def _slowest_table(self) -> str:
        rows = [
            (
                f"{record.index:,}",
                _span(seconds).replace(" ", "\u00a0"),
                "" if record.polls is None else f"{record.polls:,}",
                record.word,
                "" if record.smile_job_id is None else display_number(record.smile_job_id),
                JobRef(record.user_id, record.job_id).tag if record.user_id and record.job_id else "",
            )
            for seconds, _, record in sorted(self._slowest, reverse=True)
        ]
        return _table(("index", "time", "polls", "outcome", "SmileJobID", "job"), rows)


def _count(counter: Counter[_Kind], kind: _Kind, other: _Kind) -> None:
    counter[kind if kind in counter or len(counter) < _KINDS else other] += 1


def _meaning(code: str) -> str:
    row = RESULT_CODES.get(code)
    return "" if row is None else f"{row.text} ({row.verdict.value})"


def _intervals() -> list[str]:
    ends = [_span(edge) for edge in _SECONDS]
    between = [f"{low} to {high}" for low, high in pairwise(ends)]
    return [f"under {ends[0]}", *between, f"{ends[-1]} or more"]


def _poll_labels() -> list[str]:
    between = [str(low) if high == low + 1 else f"{low} to {high - 1}" for low, high in pairwise((1, *_POLLS))]
    return [*between, f"{_POLLS[-1]} or more"]


def _span(seconds: float) -> str:
    """Return seconds as a person says them."""
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"


def _section(title: str, content: str) -> str:
    return f"<section><h2>{title}</h2>{content}</section>"


def _chart(name: str, title: str, rows: Sequence[Bar]) -> str:
    return bars(name, title, rows) if rows else _NONE


def _table(names: Sequence[str], rows: Iterable[Iterable[object]]) -> str:
    """Return a table; it scrolls by itself where it is wider than the page."""
    body = "".join(f"<tr>{''.join(f'<td>{escape(str(cell))}</td>' for cell in row)}</tr>" for row in rows)
    if not body:
        return _NONE
    head = "".join(f"<th>{name}</th>" for name in names)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


_NONE = "<p>None.</p>"

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>Smile ID jobs</title>
<style>{css}</style>
</head>
<body>
{body}
</body>
</html>
"""

_CSS = """
:root { --page: #fff; --panel: #f5f6f8; --text: #1b1f24; --soft: #59636e; --line: #d5dae0; --bar: #4a7fc1;
  --approved: #2c8a4b; --provisional: #c08a00; --rejected: #c8413b; --error: #c8413b; --unknown: #8b5cc9;
  --pending: #6b7785; --refused: #a8322d; --failed: #d2691e; --invalid: #8a6d5c; }
@media (prefers-color-scheme: dark) {
  :root { --page: #14171b; --panel: #1e2329; --text: #e4e7eb; --soft: #9aa5b1; --line: #39424c; --bar: #6ea0e0;
    --approved: #4cb872; --provisional: #e0b03c; --rejected: #ee6c66; --error: #ee6c66; --unknown: #b18bea;
    --pending: #93a0ae; --refused: #e07d78; --failed: #f09a58; --invalid: #c2a28f; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1100px; padding: 1rem; background: var(--page); color: var(--text);
  font: 15px/1.45 system-ui, sans-serif; }
h1 { font-size: 1.5rem; margin: 0; }
h2 { font-size: 1.05rem; margin: 0 0 .6rem; }
.lead { color: var(--soft); margin: .2rem 0 1rem; }
.tiles { display: flex; flex-wrap: wrap; gap: .5rem; margin-bottom: 1rem; }
.tile { flex: 1 1 6.5rem; padding: .5rem .75rem; background: var(--panel); border-radius: 8px;
  border-left: 4px solid var(--bar); }
.tile b { display: block; font-size: 1.3rem; font-variant-numeric: tabular-nums; }
.tile span { color: var(--soft); }
main { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); }
section { min-width: 0; padding: .9rem; background: var(--panel); border-radius: 8px; }
section p { color: var(--soft); margin: 0; }
svg { display: block; width: 100%; height: auto; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .6rem .3rem 0; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }
th { color: var(--soft); font-weight: 500; }
tr:last-child td { border-bottom: 0; }
""" + "".join(f".tile.{name} {{ border-color: var(--{name}); }}\n" for name in WORDS)
