"""What the waits of results files say about paces: in words, in tables, and as values."""

from collections.abc import Iterator, Mapping, Sequence

from attrs import frozen

from smilejobs.batch.waits import Results
from smilejobs.batch.words import format_share, format_time, number_of
from smilejobs.polling.comparison import MIN_COMPLETE_JOBS, Comparison, Cost
from smilejobs.polling.pace import Pace

_FEW_JOBS = 50
_SMALL_CHANGE = 0.02
_QUANTILES = (("median", 0.5), ("p90", 0.9), ("p99", 0.99))

DURATION_COLUMNS = ("share of the jobs", "took at most")
COST_COLUMNS = ("pace", "polls", "late: mean", "late: 99\u00a0%")


@frozen
class Findings:
    """What was found.

    Attributes:
        results: The rows.
        comparison: The paces on their jobs.
    """

    results: Results
    comparison: Comparison

    @classmethod
    def of(cls, results: Results) -> "Findings":
        """Compare paces on the jobs of the rows.

        Raises:
            ValueError: Too few of them say how long a job took.
        """
        complete = results.waits.complete
        if complete < MIN_COMPLETE_JOBS:
            found = f"{number_of(complete, 'job')} of {number_of(results.rows, 'row')}"
            why = "".join(f"; {number_of(count, 'row')}: {what}" for what, count in _iterate_unused(results))
            raise ValueError(
                f"too few complete jobs of known duration: {found}; at least {MIN_COMPLETE_JOBS} are needed{why}"
            )
        return cls(results, results.waits.compare())

    @property
    def setting(self) -> str:
        """The setting by hand, as arguments of a wait."""
        pace = self.comparison.pace
        changed = [f"{name}={getattr(pace, name):g}" for name in ("fraction", "max") if _is_changed(pace, name)]
        return f"Pace({', '.join(changed)}), first_after={self.comparison.first_after:g}"

    def durations(self) -> Sequence[tuple[str, str]]:
        """Return the rows of the table of durations, for `DURATION_COLUMNS`."""
        known = [(format_share(share), self.comparison.durations.quantile(share)) for _, share in _QUANTILES]
        return [(share, "not known" if value is None else format_time(value)) for share, value in known]

    def costs(self) -> Sequence[tuple[str, str, str, str]]:
        """Return the rows of the table of costs, for `COST_COLUMNS`."""
        return [
            (name, f"{cost.polls:.1f}", format_time(cost.mean_lateness), format_time(cost.lateness_of(0.99)))
            for name, cost in (
                ("Pace()", self.comparison.default),
                ("learned", self.comparison.learned),
                (self.setting, self.comparison.by_hand),
            )
        ]

    def summary(self) -> str:
        """Return sentences about the number of jobs, and whether they say enough."""
        waits = self.results.waits
        sentences = [
            f"{number_of(self.results.rows, 'row')}: {waits.complete:,} complete, {waits.pending:,} pending at the end."
        ]
        if waits.complete < _FEW_JOBS:
            sentences.append(f"Fewer than {_FEW_JOBS} complete jobs: the figures are rough, and Pace() is as good.")
        if waits.at_once > waits.complete / 2:
            sentences.append(
                f"The first answer was complete for {waits.at_once:,} of them, so the figures mean little: begin the "
                "batch soon after the jobs are submitted."
            )
        return " ".join(sentences)

    def advice(self) -> Iterator[str]:
        """Yield sentences about what the paces cost."""
        default, learned, by_hand = self.comparison.default, self.comparison.learned, self.comparison.by_hand
        yield f"The learned pace: {_compare(learned, default)}."
        yield f"By hand, {self.setting}: {_compare(by_hand, default)}."
        yield (
            "Without first_after, the first poll of each job comes at the age of 0 and finds nothing; first_after "
            "saves it with a learned pace as well."
        )

    def exactness(self) -> Iterator[str]:
        """Yield sentences about how exact the figures are."""
        results, waits = self.results, self.results.waits
        half, most = (format_time(waits.exactness(share)) for share in (0.5, 0.9))
        yield (
            f"A duration is known only to lie between two polls: to within {half} for half of the jobs, {most} for "
            "nine of ten. The distribution is estimated from these intervals, in steps of 4\u00a0% of the age, and the "
            "costs are simulated: each pace is made from one half of the jobs, and waits for the other half from their "
            "submission."
        )
        unknown = 1 - self.comparison.durations.complete[-1]
        if unknown > 0:
            longest = format_time(self.comparison.durations.ages[-1])
            yield (
                f"An estimated {unknown:.1%} of the jobs took longer than {longest}, the longest time after which one "
                "was seen complete; the costs are those of the others.".replace("%", "\u00a0%", 1)
            )
        if results.of_unknown_age:
            yield (
                f"{number_of(results.of_unknown_age, 'row')} without submitted_at: the ages count from the first poll, "
                "and jobs that were submitted earlier took longer."
            )
        for what, count in _iterate_unused(results):
            yield f"{number_of(count, 'row')} not used: {what}."

    def as_dict(self) -> Mapping[str, object]:
        """Return all facts as values of JSON; times in seconds, None where not known."""
        results, comparison = self.results, self.comparison
        pace = comparison.pace
        setting = {"first_after": comparison.first_after, "fraction": pace.fraction, "max": pace.max}
        return {
            "rows": results.rows,
            "complete": results.waits.complete,
            "pending": results.waits.pending,
            "of_unknown_age": results.of_unknown_age,
            "complete_at_first_answer": results.waits.at_once,
            "not_used": {
                "ended_otherwise": results.ended_otherwise,
                "complete_at_once": results.complete_at_once,
                "without_answer": results.without_answer,
                "without_ages": results.without_ages,
            },
            "durations": {name: _round(comparison.durations.quantile(share)) for name, share in _QUANTILES},
            "known_to_within": {name: _round(results.waits.exactness(share)) for name, share in _QUANTILES},
            "longer_than_all_seen": round(1 - comparison.durations.complete[-1], 4),
            "costs": {
                "default": _describe_cost(comparison.default),
                "learned": _describe_cost(comparison.learned),
                "by_hand": {**setting, **_describe_cost(comparison.by_hand)},
            },
        }


def _iterate_unused(results: Results) -> Iterator[tuple[str, int]]:
    counts = {
        "refused, failed or invalid": results.ended_otherwise,
        "the first answer was complete, and without submitted_at the age is unknown": results.complete_at_once,
        "pending without an answer": results.without_answer,
        "without ages, from an earlier release": results.without_ages,
    }
    return ((what, count) for what, count in counts.items() if count)


def _is_changed(pace: Pace, name: str) -> bool:
    return bool(getattr(pace, name) != getattr(Pace(), name))


def _compare(cost: Cost, default: Cost) -> str:
    polls = _describe_change(cost.polls / default.polls, "fewer polls", "more polls", "as many polls")
    late = _describe_change(
        cost.mean_lateness / default.mean_lateness, "less mean lateness", "more mean lateness", "the same mean lateness"
    )
    return f"{polls} than Pace(), {late}".replace("as many polls than", "as many polls as")


def _describe_change(ratio: float, less: str, more: str, same: str) -> str:
    if abs(ratio - 1) < _SMALL_CHANGE:
        return same
    return f"{abs(ratio - 1) * 100:.0f}\u00a0% {less if ratio < 1 else more}"


def _describe_cost(cost: Cost) -> Mapping[str, float]:
    return {
        "polls": round(cost.polls, 2),
        "mean_lateness": round(cost.mean_lateness, 3),
        "p99_lateness": round(cost.lateness_of(0.99), 3),
    }


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
