"""A batch as one page of HTML: how the jobs ended, how long they took, and what went wrong."""

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from heapq import heappush, heappushpop
from itertools import pairwise
from os import PathLike
from typing import TypeVar

from attrs import define, field

from smilejobs.batch.page import Bar, render_page, render_section
from smilejobs.batch.records import WORDS, Ending, RowRecord, make_record
from smilejobs.batch.words import format_time, number_of
from smilejobs.files import open_private
from smilejobs.model.codes import RESULT_CODES, Verdict, describe, display_number
from smilejobs.model.jobs import JobRef
from smilejobs.outcomes import Outcome

_Key = TypeVar("_Key")

_SLOWEST_JOBS = 10
_LARGEST_COUNTER = 40
"""How many codes and errors are counted each by itself: they come from outside, and their number has no bound."""
_OTHER = "other"

_EDGES_SECONDS = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21_600, 86_400)
_EDGES_POLLS = (2, 3, 4, 5, 6, 9, 13, 21, 51, 101)


@define
class _Histogram:
    """Counts values by interval: each interval begins at an edge, the first one at 0, and ends before the next edge."""

    edges: Sequence[int]
    labels: Sequence[str]
    counts: list[int] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.counts = [0] * len(self.labels)

    def add(self, value: float) -> None:
        self.counts[bisect_right(self.edges, value)] += 1

    def rows(self) -> Sequence[tuple[str, Bar]]:
        """Return the intervals from the first one that is not empty to the last."""
        filled = [position for position, count in enumerate(self.counts) if count]
        positions = range(filled[0], filled[-1] + 1) if filled else ()
        return [(self.labels[position], Bar(self.counts[position])) for position in positions]


class Report:
    """A page about a batch that opens from disk: it needs no network and no script, and holds no personal data.

    Jobs are named by their position in the input, by `JobRef.tag` and by the SmileJobID. The memory that a report takes
    does not grow with the number of outcomes.

    Args:
        settings: The settings of the run, by name; they are shown at the end of the page.
    """

    def __init__(self, settings: Mapping[str, object] | None = None) -> None:
        self._settings = dict(settings or {})
        self._words: Counter[str] = Counter()
        self._result_codes: Counter[str] = Counter()
        self._errors: Counter[tuple[str, str, str]] = Counter()
        self._times = _Histogram(_EDGES_SECONDS, _label_times())
        self._polls = _Histogram(_EDGES_POLLS, _label_polls())
        self._slowest: list[tuple[float, int, RowRecord]] = []
        """A heap: seconds, the negative of `_timed` (of jobs that took as long, the first ones stay), the row."""
        self._timed = 0

    def add(self, outcome: Outcome) -> None:
        """Count an outcome, as `Client.wait_many` yields it."""
        self.add_record(make_record(outcome))

    def add_record(self, record: RowRecord) -> None:
        """Count a row of a results file."""
        is_complete = record.outcome is Ending.COMPLETE
        self._words[record.word] += 1
        if is_complete:
            code = "none" if record.result_code is None else display_number(record.result_code)
            _count(self._result_codes, code, _OTHER)
        else:
            error = (record.outcome.value, record.error or "", record.code or "")
            _count(self._errors, error, (_OTHER, "", ""))
        if record.images_error is not None:
            _count(self._errors, (record.outcome.value, f"ImageError: {record.images_error}", ""), (_OTHER, "", ""))
        if record.polls:
            self._polls.add(record.polls)
        if record.seconds is None:
            return
        if is_complete:
            self._times.add(record.seconds)
        self._timed += 1
        entry = (record.seconds, -self._timed, record)
        if len(self._slowest) < _SLOWEST_JOBS:
            heappush(self._slowest, entry)
        else:
            heappushpop(self._slowest, entry)

    def html(self) -> str:
        """Return the page."""
        complete = sum(self._words[verdict.value] for verdict in Verdict)
        summary = f"{number_of(self._words.total(), 'row')}, {complete:,} complete."
        return render_page("Smile ID jobs", summary, self._sections())

    def write(self, path: str | PathLike[str]) -> None:
        """Write the page to a file, and replace one that exists; a new file can be read by its owner alone.

        Args:
            path: The file.

        Raises:
            OSError: The file cannot be written.
        """
        with open(path, "w", encoding="utf-8", errors="backslashreplace", opener=open_private) as file:
            file.write(self.html())

    def _sections(self) -> Iterator[str]:
        outcomes = [(word, Bar(self._words[word], word)) for word in WORDS if self._words[word]]
        yield render_section("Outcomes", ("outcome", "rows"), outcomes)
        codes = [(code, _describe_result(code), Bar(count)) for code, count in self._result_codes.most_common()]
        yield render_section("Result codes", ("code", "meaning", "jobs"), codes)
        yield render_section("Time to completion", ("from the first poll", "jobs"), self._times.rows())
        yield render_section("Polls per job", ("polls", "jobs"), self._polls.rows())
        errors = [
            (outcome, f"{count:,}", error, describe(code) if code else "")
            for (outcome, error, code), count in self._errors.most_common()
        ]
        yield render_section("Errors", ("outcome", "rows", "error", "code"), errors)
        slowest = [
            (
                f"{record.index:,}",
                format_time(seconds),
                "" if record.polls is None else f"{record.polls:,}",
                record.word,
                "" if record.smile_job_id is None else display_number(record.smile_job_id),
                JobRef(record.user_id, record.job_id).tag if record.user_id and record.job_id else "",
            )
            for seconds, _, record in sorted(self._slowest, reverse=True)
        ]
        yield render_section("Slowest", ("index", "time", "polls", "outcome", "SmileJobID", "job"), slowest)
        if self._settings:
            yield render_section("Settings", ("name", "value"), list(self._settings.items()))


def _count(counter: Counter[_Key], key: _Key, other: _Key) -> None:
    counter[key if key in counter or len(counter) < _LARGEST_COUNTER else other] += 1


def _describe_result(code: str) -> str:
    row = RESULT_CODES.get(code)
    return "" if row is None else f"{row.text} ({row.verdict.value})"


def _label_times() -> list[str]:
    ends = [format_time(edge) for edge in _EDGES_SECONDS]
    between = [f"{low} to {high}" for low, high in pairwise(ends)]
    return [f"under {ends[0]}", *between, f"{ends[-1]} or more"]


def _label_polls() -> list[str]:
    between = [str(low) if high == low + 1 else f"{low} to {high - 1}" for low, high in pairwise((1, *_EDGES_POLLS))]
    return [*between, f"{_EDGES_POLLS[-1]} or more"]
