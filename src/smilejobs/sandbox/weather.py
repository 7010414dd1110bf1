"""The weather: what polls and pictures have to live with, apart from the truth.

A `Weather` says how often each thing happens; `Plan` is what happens to one poll, drawn by the dice of that poll.
"""

import random
from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

from attrs import Attribute, asdict, field, frozen

from smilejobs.durations import Duration, positive, seconds
from smilejobs.sandbox.dice import Lognormal, lasting, within_reason
from smilejobs.sandbox.spelling import RESPELLINGS

WeatherName = Literal["calm", "rainy", "storm"]


def _share(_: object, attribute: "Attribute[float]", value: float) -> None:
    if seconds(value, attribute.name) > 1:
        raise ValueError(f"{attribute.name} must be a share, from 0 to 1")


def _lasting(value: Duration | Lognormal) -> Lognormal:
    return lasting(value, "latency")


def _rate(value: float | None) -> float | None:
    return None if value is None else positive(value, "rate")


def _retry_after(value: Duration | None) -> float | None:
    return None if value is None else within_reason(value, "retry_after")


def _slow(value: Duration) -> float:
    return within_reason(value, "slow")


def _known(_: object, attribute: "Attribute[tuple[str, ...]]", value: tuple[str, ...]) -> None:
    unknown = sorted(set(value) - RESPELLINGS.keys())
    if unknown:
        raise ValueError(f"{attribute.name} has no {', '.join(unknown)}; there are: {', '.join(RESPELLINGS)}")


def share() -> float:
    """A field that is a share of all polls (or links, or pictures), from 0 to 1."""
    return field(default=0.0, validator=_share)


@frozen(kw_only=True)
class Weather:
    """What polls have to live with. Everything is off by default.

    A *share* is a probability, from 0 to 1, for each poll anew.

    Args:
        latency: Seconds (a timedelta, a `Lognormal`) until an answer begins.
        rate: Polls per second, as a token bucket that holds those of one second; those above are answered 429. None
            for any number. All jobs under the same weather share the bucket.
        retry_after: Seconds that the ``Retry-After`` of a 429 or 503 names, rounded up; None for no such header.
        retry_after_dates: The share of these headers that are an HTTP date.
        too_many: The share of 429, whatever the rate.
        system_errors: The share of 5xx with JSON, the API's own (code 2301) or a gateway's.
        error_pages: The share of 502, 503 and 504 with a page of HTML.
        cuts: The share of connections that break, before the head of the answer or in the middle of its body.
        slow_bodies: The share of bodies that come in drips.
        slow: Seconds (a timedelta) that such a body, or a slow picture, takes.
        gzip: The share of bodies that are compressed, of those that may be.
        respelled: The share with which each of the *respellings* is used. What they say stays the same.
        respellings: Names of `RESPELLINGS`, all by default.
        bare_results: The share of complete answers that lack what a verdict needs.
        wrong_jobs: The share of answers that speak of another job, with a right signature.
        replays: The share of answers that are old ones, whole, up to a minute old.
        reflections: The share of answers with the signature of the request itself, which verifies.
        forgeries: The share of answers with a wrong signature, or none.
        huge_bodies: The share of results with 1.5 MB of picture in them.
        link_errors: The share of ``image_links`` that hold an error instead.
        slow_pictures: The share of pictures that come in drips.
        cut_pictures: The share of pictures that end too early.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument can never be right; the text names it.
    """

    latency: Lognormal = field(default=Lognormal(0.0), converter=_lasting)
    rate: float | None = field(default=None, converter=_rate)
    retry_after: float | None = field(default=2.0, converter=_retry_after)
    retry_after_dates: float = share()
    too_many: float = share()
    system_errors: float = share()
    error_pages: float = share()
    cuts: float = share()
    slow_bodies: float = share()
    slow: float = field(default=5.0, converter=_slow)
    gzip: float = share()
    respelled: float = share()
    respellings: tuple[str, ...] = field(default=tuple(RESPELLINGS), converter=tuple[str, ...], validator=_known)
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
        for names in (_INSTEAD, _UNTRUE):
            if sum(getattr(self, name) for name in names) > 1:
                raise ValueError(f"{', '.join(names)} exclude each other: together they must be at most 1")


_INSTEAD = ("too_many", "system_errors", "error_pages", "cuts")
"""What comes instead of an answer: at most one of them."""

_UNTRUE = ("wrong_jobs", "replays", "reflections", "forgeries")
"""What is wrong with an answer that reads well: at most one of them."""


@frozen(kw_only=True)
class Plan:
    """What happens to one poll.

    Attributes:
        latency: Seconds until the answer begins.
        instead: The knob of what comes instead of an answer, such as "cuts"; None if an answer comes.
        untrue: The knob of what is wrong with the answer, such as "forgeries"; None if nothing is.
        respellings: How the answer is spelled, by name.
        is_bare: Whether a result lacks what a verdict needs.
        is_huge: Whether a result has a picture in it.
        has_link_error: Whether there is an error instead of links.
        is_slow: Whether the body comes in drips.
        is_gzipped: Whether the body is compressed, if the client allows it.
    """

    latency: float = 0.0
    instead: str | None = None
    untrue: str | None = None
    respellings: tuple[str, ...] = ()
    is_bare: bool = False
    is_huge: bool = False
    has_link_error: bool = False
    is_slow: bool = False
    is_gzipped: bool = False


def plan(weather: Weather, chance: random.Random) -> Plan:
    """Draw what happens to one poll."""
    return Plan(
        latency=weather.latency.draw(chance),
        instead=_one_of(weather, _INSTEAD, chance),
        untrue=_one_of(weather, _UNTRUE, chance),
        respellings=tuple(name for name in weather.respellings if chance.random() < weather.respelled),
        is_bare=chance.random() < weather.bare_results,
        is_huge=chance.random() < weather.huge_bodies,
        has_link_error=chance.random() < weather.link_errors,
        is_slow=chance.random() < weather.slow_bodies,
        is_gzipped=chance.random() < weather.gzip,
    )


def _one_of(weather: Weather, names: tuple[str, ...], chance: random.Random) -> str | None:
    drawn = chance.random()
    for name in names:
        drawn -= getattr(weather, name)
        if drawn < 0:
            return name
    return None


CALM = Weather()

WEATHERS: Mapping[WeatherName, Weather] = MappingProxyType(
    {
        "calm": CALM,
        "rainy": Weather(
            latency=Lognormal(0.15, 0.6),
            retry_after=1.0,
            retry_after_dates=0.3,
            too_many=0.03,
            system_errors=0.02,
            error_pages=0.02,
            cuts=0.02,
            slow_bodies=0.01,
            slow=2.0,
            gzip=0.5,
            respelled=0.1,
            link_errors=0.05,
            slow_pictures=0.05,
            cut_pictures=0.02,
        ),
        "storm": Weather(
            latency=Lognormal(0.5, 1.0),
            retry_after=2.0,
            retry_after_dates=0.5,
            too_many=0.1,
            system_errors=0.07,
            error_pages=0.07,
            cuts=0.07,
            slow_bodies=0.05,
            slow=10.0,
            gzip=0.5,
            respelled=0.25,
            bare_results=0.03,
            wrong_jobs=0.01,
            replays=0.02,
            reflections=0.01,
            forgeries=0.01,
            huge_bodies=0.005,
            link_errors=0.2,
            slow_pictures=0.2,
            cut_pictures=0.1,
        ),
    }
)
"""``calm`` does nothing odd. ``rainy`` is a bad day that a good client gets through: every job ends as it should.
``storm`` has answers too that must not be believed, so that some waits end with an `UntrustedError`."""


def weather_from(value: WeatherName | Weather) -> Weather:
    """Return *value*, a weather or the name of one, as a weather.

    Raises:
        TypeError: It is neither.
        ValueError: There is no weather of that name.
    """
    if isinstance(value, Weather):
        return value
    if not isinstance(value, str):
        raise TypeError(f"weather must be a name or a Weather, not {type(value).__name__}")
    if value not in WEATHERS:
        raise ValueError(f"weather must be one of {', '.join(WEATHERS)}, or a Weather")
    return WEATHERS[value]


def turned(weather: Weather, knobs: Mapping[str, str]) -> Weather:
    """Return *weather* with some knobs turned: texts by name, as a command line or a file has them.

    A text is a number; for ``latency``, a median and a spread, "0.5:0.8"; for ``rate`` and ``retry_after`` also
    "none"; for ``respellings`` some names, "code_as_int,wordy_booleans".

    Raises:
        ValueError: There is no such knob, or the text makes no sense there; the text names the knob.
    """
    if not knobs:
        return weather
    given: dict[str, object] = asdict(weather, recurse=False)
    for name, text in knobs.items():
        if name not in given:
            raise ValueError(f"there is no knob {name}; there are: {', '.join(given)}")
        given[name] = _read(name, text)
    return Weather(**given)  # type: ignore[arg-type]  # each value has been read for its own knob


def _read(name: str, text: str) -> object:
    if name == "respellings":
        return tuple(text.split(",")) if text else ()
    if name in ("rate", "retry_after") and text == "none":
        return None
    return read_lasting(text, name) if name == "latency" else _read_number(text, name)


def read_lasting(text: str, name: str) -> Lognormal:
    """Return the distribution that a text names: a median in seconds, or a median and a spread, as "2:0.6".

    Raises:
        ValueError: It names none; the text begins with *name*.
    """
    median, colon, spread = text.partition(":")
    try:
        return Lognormal(_read_number(median, name), _read_number(spread, name) if colon else 0.0)
    except ValueError as error:
        raise ValueError(f"{name} must be a median in seconds, or MEDIAN:SPREAD: {error}") from None


def _read_number(text: str, name: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{name} must be a number") from None
