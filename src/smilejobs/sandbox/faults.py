"""Fault profiles: what goes wrong with polls and images on purpose, and how often.

A fault of polls is a share in `FaultProfile`. One that changes the content of an answer is a method of that name in
`variants.Draft`; `http/status.py` carries out the others. Faults of images are in `http/images.py`.
"""

import random
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal

from attrs import Attribute, field, frozen

from smilejobs.durations import Duration, positive, seconds
from smilejobs.sandbox.distributions import Lognormal, to_seconds
from smilejobs.sandbox.variants import FAULTS, VARIANTS

FaultProfileName = Literal["none", "flaky", "storm"]

_REPLACEMENTS = ("too_many", "system_errors", "error_pages", "cuts")
"""Faults that take the place of an answer: at most one of them happens."""
_UNTRUSTED = ("wrong_jobs", "replays", "reflections", "forgeries")
"""Faults that make a readable answer untrustworthy: at most one of them happens."""
_INDEPENDENT = ("slow_bodies", "gzip", *(name for name in FAULTS if name not in _UNTRUSTED))
"""Faults that happen beside others."""


def _check_share(_: object, attribute: "Attribute[float]", value: float) -> None:
    if seconds(value, attribute.name) > 1:
        raise ValueError(f"{attribute.name} must be a share, from 0 to 1")


def _check_names(_: object, attribute: "Attribute[tuple[str, ...]]", value: tuple[str, ...]) -> None:
    unknown = sorted(set(value) - set(VARIANTS))
    if unknown:
        raise ValueError(f"{attribute.name} has no {', '.join(unknown)}; there are: {', '.join(VARIANTS)}")


def _to_latency(value: Duration | Lognormal) -> Lognormal:
    return value if isinstance(value, Lognormal) else Lognormal(to_seconds(value, "latency"))


def _to_rate(value: float | None) -> float | None:
    return None if value is None else positive(value, "rate")


def _to_retry_after(value: Duration | None) -> float | None:
    return None if value is None else to_seconds(value, "retry_after")


def _to_slow(value: Duration) -> float:
    return to_seconds(value, "slow")


def share() -> float:
    """Return a field for a probability, from 0 to 1; 0 by default."""
    return field(default=0.0, validator=_check_share)


@frozen(kw_only=True)
class FaultProfile:
    """The faults of polls and images. Without arguments there are none.

    A *share* is a probability, from 0 to 1, drawn anew for each poll (or link, or image).

    Args:
        latency: Seconds (a timedelta, a `Lognormal`) until an answer begins.
        rate: Polls per second, as a token bucket that holds the tokens of one second; polls above it are answered with
            429. None for no limit. All jobs with an equal profile share the bucket.
        retry_after: Seconds in the ``Retry-After`` of a 429 or 503, rounded up; None for no such header.
        retry_after_dates: The share of these headers that are an HTTP date.
        too_many: The share of 429 answers at any rate.
        system_errors: The share of 5xx answers with JSON, the API's own (code 2301) or a gateway's.
        error_pages: The share of 502, 503 and 504 answers with an HTML page.
        cuts: The share of connections that break, before the head of the answer or in its body.
        slow_bodies: The share of bodies that arrive in small pieces.
        slow: Seconds (a timedelta) that such a body, or a slow image, takes.
        gzip: The share of bodies that are compressed, if the client accepts that.
        variants: The share with which each variant in *variant_names* is applied. A variant does not change the
            meaning of an answer.
        variant_names: Names of `smilejobs.sandbox.variants.VARIANTS`; all by default.
        bare_results: The share of complete answers without what a verdict needs.
        wrong_jobs: The share of answers that name another job, with a valid signature.
        replays: The share of answers that are old ones, up to a minute, with a valid signature.
        reflections: The share of answers with the signature of the request itself, which verifies.
        forgeries: The share of answers with a wrong signature, or none.
        huge_bodies: The share of results with an image of 1.5 MB in them.
        link_errors: The share of ``image_links`` that hold an error instead.
        slow_pictures: The share of images that arrive in small pieces.
        cut_pictures: The share of images that end too early.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument is out of range; the text names it.
    """

    latency: Lognormal = field(default=Lognormal(0.0), converter=_to_latency)
    rate: float | None = field(default=None, converter=_to_rate)
    retry_after: float | None = field(default=2.0, converter=_to_retry_after)
    retry_after_dates: float = share()
    too_many: float = share()
    system_errors: float = share()
    error_pages: float = share()
    cuts: float = share()
    slow_bodies: float = share()
    slow: float = field(default=5.0, converter=_to_slow)
    gzip: float = share()
    variants: float = share()
    variant_names: tuple[str, ...] = field(default=VARIANTS, converter=tuple[str, ...], validator=_check_names)
    bare_results: float = share()
    wrong_jobs: float = share()
    replays: float = share()
    reflections: float = share()
    forgeries: float = share()
    huge_bodies: float = share()
    link_errors: float = share()
    slow_pictures: float = share()
    cut_pictures: float = share()

    def __attrs_post_init__(self) -> None:
        for names in (_REPLACEMENTS, _UNTRUSTED):
            if sum(getattr(self, name) for name in names) > 1:
                raise ValueError(f"{', '.join(names)} exclude each other: together they must be at most 1")


@frozen(kw_only=True)
class PollFaults:
    """The names of the faults and the variants of one poll, and the seconds until its answer begins."""

    latency: float = 0.0
    names: frozenset[str] = frozenset()


def draw_faults(profile: FaultProfile, rng: random.Random) -> PollFaults:
    """Draw the faults of one poll."""
    latency = profile.latency.draw(rng)
    names = {_draw_one(profile, exclusive, rng) for exclusive in (_REPLACEMENTS, _UNTRUSTED)}
    names.update(name for name in profile.variant_names if rng.random() < profile.variants)
    names.update(name for name in _INDEPENDENT if rng.random() < getattr(profile, name))
    return PollFaults(latency=latency, names=frozenset(filter(None, names)))


def _draw_one(profile: FaultProfile, names: tuple[str, ...], rng: random.Random) -> str | None:
    drawn = rng.random()
    for name in names:
        drawn -= getattr(profile, name)
        if drawn < 0:
            return name
    return None


_FLAKY_AND_STORM: Mapping[str, tuple[object, object]] = {
    "latency": (Lognormal(0.15, 0.6), Lognormal(0.5, 1.0)),
    "retry_after": (1.0, 2.0),
    "retry_after_dates": (0.3, 0.5),
    "too_many": (0.03, 0.1),
    "system_errors": (0.02, 0.07),
    "error_pages": (0.02, 0.07),
    "cuts": (0.02, 0.07),
    "slow_bodies": (0.01, 0.05),
    "slow": (2.0, 10.0),
    "gzip": (0.5, 0.5),
    "variants": (0.1, 0.25),
    "bare_results": (0.0, 0.03),
    "wrong_jobs": (0.0, 0.01),
    "replays": (0.0, 0.02),
    "reflections": (0.0, 0.01),
    "forgeries": (0.0, 0.01),
    "huge_bodies": (0.0, 0.005),
    "link_errors": (0.05, 0.2),
    "slow_pictures": (0.05, 0.2),
    "cut_pictures": (0.02, 0.1),
}


def _make_preset(index: int) -> FaultProfile:
    values: dict[str, Any] = {name: pair[index] for name, pair in _FLAKY_AND_STORM.items()}
    return FaultProfile(**values)


FAULT_PROFILES: Mapping[FaultProfileName, FaultProfile] = MappingProxyType(
    {"none": FaultProfile(), "flaky": _make_preset(0), "storm": _make_preset(1)}
)
"""The presets. With ``flaky``, every wait of a correct client ends with the right result. With ``storm``, some answers
must not be trusted, so some waits end with an `UntrustedError`."""


def find_profile(value: FaultProfileName | FaultProfile) -> FaultProfile:
    """Return a fault profile, or the preset of that name; raise TypeError or ValueError for anything else."""
    if isinstance(value, FaultProfile):
        return value
    if not isinstance(value, str):
        raise TypeError(f"faults must be the name of a preset or a FaultProfile, not {type(value).__name__}")
    if value not in FAULT_PROFILES:
        raise ValueError(f"faults must be one of {', '.join(FAULT_PROFILES)}, or a FaultProfile")
    return FAULT_PROFILES[value]
