"""What was learned, as JSON and back; nothing that does not fit is taken in."""

import json
import math
from collections.abc import Mapping
from typing import Any

from smilejobs.polling.hazard import BINS, Counts
from smilejobs.polling.learning import Learner
from smilejobs.polling.pace import Pace

_KIND = "smilejobs learned pace"
_VERSION = 1
_LARGEST = 1e9
"""Nothing in a file is larger: weights, prices, ages of polls."""


class OtherVersionError(ValueError):
    """Another release has written the text, in a form of its own."""


def dump(base: Pace, lateness: float | None, complete: Learner, final: Learner) -> dict[str, object]:
    """Return all parts of a learned pace as what JSON knows."""
    return {
        "kind": _KIND,
        "version": _VERSION,
        "base": {"min": base.min, "max": base.max, "fraction": base.fraction, "jitter": base.jitter},
        "lateness": lateness,
        "complete": _dump_learner(complete),
        "final": _dump_learner(final),
    }


def load(text: str) -> tuple[Pace, float | None, Learner, Learner]:
    """Return the parts that `dump` was given.

    Raises:
        OtherVersionError: The text is in another format.
        ValueError: The text is not JSON, or not what `dump` returns.
    """
    try:
        data = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not a learned pace: the JSON cannot be read ({error})") from None
    if not isinstance(data, dict) or data.get("kind") != _KIND:
        raise ValueError(f"not a learned pace: expected an object with kind {_KIND!r}")
    if data.get("version") != _VERSION:
        raise OtherVersionError(
            f"a learned pace in format {data.get('version')!r}; this version of smilejobs reads format {_VERSION}"
        )
    try:
        base = Pace(**{name: _number(data["base"], name) for name in ("min", "max", "fraction", "jitter")})
        lateness = None if data["lateness"] is None else _number(data, "lateness", least=1e-9)
        complete, final = (_load_learner(base, lateness, data[phase]) for phase in ("complete", "final"))
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"not a whole learned pace: {type(error).__name__}: {error}") from None
    return base, lateness, complete, final


def _dump_learner(learner: Learner) -> dict[str, object]:
    counts = learner.counts
    return {
        "intervals": [[*divmod(key, BINS + 1), weight] for key, weight in counts.intervals.items()],
        "censored": [[edge, weight] for edge, weight in counts.censored.items()],
        "weight": counts.weight,
        "masses": counts.masses,
        "price": learner.price,
        "until_plan": learner.until_plan,
        "plans": learner.plans,
        "drift": learner.drift,
        "drift_of_variance": learner.drift_of_variance,
        "targets": learner.targets,
    }


def _load_learner(base: Pace, lateness: float | None, data: Mapping[str, Any]) -> Learner:
    counts = Counts(weight=_number(data, "weight", least=1.0))
    for first, last, weight in data["intervals"]:
        if not 0 <= _integer(first) < _integer(last) <= BINS:
            raise ValueError(f"no interval from {first!r} to {last!r}")
        counts.intervals[first * (BINS + 1) + last] = _checked(weight, 1e-9)
        counts.end = max(counts.end, last)
    for edge, weight in data["censored"]:
        if not 0 <= _integer(edge) <= BINS:
            raise ValueError(f"no edge {edge!r}")
        counts.censored[edge] = _checked(weight, 1e-9)
        counts.end = max(counts.end, edge)
    counts.masses = [_checked(mass, 0.0) for mass in data["masses"]]
    targets = [_checked(target, 0.0) for target in data["targets"]]
    count = len(counts.masses)
    if count > BINS or sum(counts.masses) > 1 + 1e-6 or len(targets) not in ({0, count + 1} if count else {0}):
        raise ValueError("masses and targets do not fit each other")
    return Learner(
        base=base,
        lateness=lateness,
        counts=counts,
        price=_number(data, "price", least=1e-12),
        until_plan=_integer(data["until_plan"]),
        plans=_integer(data["plans"]),
        drift=_number(data, "drift", least=-1.0),
        drift_of_variance=_number(data, "drift_of_variance", least=-1.0),
        targets=targets,
    )


def _number(data: Mapping[str, Any], name: str, *, least: float = 0.0) -> float:
    return _checked(data[name], least)


def _checked(value: object, least: float) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise TypeError(f"expected a number, not {type(value).__name__}")
    if not (math.isfinite(value) and least <= value <= _LARGEST):
        raise ValueError(f"the number {value!r} is out of range")
    return float(value)


def _integer(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _LARGEST:
        raise TypeError(f"expected a whole number, not {value!r}")
    return value


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")
