"""Links to pictures, and when they expire."""

import copy
import pickle
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import given

from smilejobs import ImageLink, ImageLinks
from smilejobs.model.links import MAX_LINK_CHARACTERS
from tests.helpers.bodies import sigv4_url
from tests.helpers.strategies import link_urls, unhurried

SIGNED = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
V2 = "https://bucket.example/a.jpg?AWSAccessKeyId=AKIAFICTION&Signature=fiction%3D&Expires=1772600767"
V4 = "https://bucket.example/a.jpg?X-Amz-Date=20260304T050607Z&X-Amz-Expires="


def expiry(url: str) -> datetime | None:
    return ImageLink(url=url).expires_at


@pytest.mark.parametrize("lifetime", [1, 900, 604_800])
def test_a_version_4_link_lives_from_its_date_for_its_expires(lifetime: int) -> None:
    """The expiry is the date of the signature plus the seconds, an aware instant in UTC."""
    at = expiry(sigv4_url(expires=str(lifetime)))
    assert at == SIGNED + timedelta(seconds=lifetime)
    assert at.tzinfo is UTC


def test_a_version_2_link_lives_until_its_expires() -> None:
    """The expiry is a number of seconds since the epoch."""
    assert expiry(V2) == datetime.fromtimestamp(1772600767, UTC)


@pytest.mark.parametrize("change", [str.lower, str.upper])
@pytest.mark.parametrize("name", ["X-Amz-Date", "X-Amz-Expires", "X-Amz-Signature"])
def test_names_of_a_version_4_link_may_have_any_case(name: str, change: type[str]) -> None:
    """One name in another case changes nothing."""
    assert expiry(sigv4_url().replace(name, change(name))) == SIGNED + timedelta(seconds=900)


def test_names_of_a_version_2_link_may_have_any_case() -> None:
    """Lower case and upper case are read alike."""
    query = "AWSAccessKeyId=A&Signature=s&Expires=1772600767"
    for names in (query.lower(), query.upper()):
        assert expiry(f"https://bucket.example/a.jpg?{names}") == datetime.fromtimestamp(1772600767, UTC)


@pytest.mark.parametrize(
    "url",
    [
        *("", "image_link", "https://bucket.example/a.jpg", "https://[::1", "https://bucket.example/?" + "a=1&" * 101),
        *(V4 + lifetime for lifetime in ("", "0", "604801", "-1", "+900", "900.0", "9_0", "٩٠٠", " 900", "9" * 5000)),
        V4 + "900&X-Amz-Expires=900",
        V4 + "900&x-amz-expires=60",
        V4 + "900&X-Amz-Expires=",
        V4 + "900&X-AMZ-DATE=20260304T050607Z",
        "https://bucket.example/a.jpg?X-Amz-Date=20260304T050607Z",
        "https://bucket.example/a.jpg?X-Amz-Expires=900",
        *(V2 + more for more in ("x", "&Expires=1", "&expires=1772600767", "&Signature=", "9" * 30, "9" * 5000)),
        *(V2.replace("1772600767", value) for value in ("", "-1", "1.5", "1e9", "Wed, 04 Mar 2026 05:07:07 GMT")),
        "https://bucket.example/a.jpg?Expires=1772600767",
        "https://bucket.example/a.jpg?Expires=1772600767&Signature=s",
        "https://bucket.example/a.jpg?Expires=1772600767&AWSAccessKeyId=A",
    ],
    ids=lambda url: ascii(url[-60:]).replace("\\", "/"),
)
def test_what_is_missing_doubled_or_garbage_leaves_the_expiry_unknown(url: str) -> None:
    """The expiry is None, and no error is raised."""
    assert expiry(url) is None


@pytest.mark.parametrize(("parameters", "is_read"), [(100, True), (101, False)])
def test_a_link_with_too_many_parameters_is_not_parsed(parameters: int, is_read: bool) -> None:
    """A hundred are read; the work for a link is bounded."""
    more = {f"name{number}": "" for number in range(parameters - 8)}
    assert (expiry(sigv4_url(**more)) is not None) is is_read


@pytest.mark.parametrize(
    "signed",
    [
        *("", "2026-03-04T05:06:07Z", "20260304T050607", "20260230T050607Z", "1772600767", "99991231T235959Z"),
        *("2026034T050607Z", "202634T567Z", "\u0662\u0660\u0662\u06660304T050607Z"),
    ],
)
def test_a_date_of_another_shape_leaves_the_expiry_unknown(signed: str) -> None:
    """The date of a version 4 link is eight digits, T, six digits, Z, and an instant of the calendar; else None."""
    assert expiry(sigv4_url(signed=signed)) is None


@unhurried
@given(link_urls)
def test_any_text_has_a_known_or_an_unknown_expiry(url: str) -> None:
    """No link raises an error."""
    at = expiry(url)
    assert at is None or at.utcoffset() == timedelta(0)


def test_a_link_that_is_too_long_is_not_read() -> None:
    """A link of more than 8,192 characters has no known expiry, and does not stay in the cache of `urlsplit`."""
    longest = sigv4_url(more="x" * (MAX_LINK_CHARACTERS - len(sigv4_url(more=""))))
    assert expiry(longest) == SIGNED + timedelta(seconds=900)
    cached: Any = urlsplit
    cached.cache_clear()
    assert expiry(longest + "x") is None
    assert cached.cache_info().currsize == 0


def test_a_link_is_dead_from_its_expiry_on() -> None:
    """At the instant itself it is expired, one microsecond before it is not, in any zone."""
    link = ImageLink(url=sigv4_url())
    dies = SIGNED + timedelta(seconds=900)
    assert link.expired(dies) is True
    assert link.expired(dies - timedelta(microseconds=1)) is False
    assert link.expired(dies.astimezone(timezone(timedelta(hours=3)))) is True


def test_a_link_that_does_not_tell_is_neither_dead_nor_alive() -> None:
    """The answer is None if the expiry is unknown."""
    assert ImageLink(url="image_link").expired(SIGNED) is None


@pytest.mark.parametrize("url", [sigv4_url(), "image_link"])
def test_a_clock_without_a_zone_is_refused(url: str) -> None:
    """A naive instant is a ValueError that names the argument, even if the expiry is unknown."""
    with pytest.raises(ValueError, match="^at must be timezone-aware"):
        ImageLink(url=url).expired(SIGNED.replace(tzinfo=None))


def test_links_are_a_mapping_by_the_vendors_names() -> None:
    """Links are found by name, counted and iterated over; the selfie has an attribute of its own."""
    selfie, card = ImageLink(url=sigv4_url()), ImageLink(url="image_link")
    links = ImageLinks(links={"selfie_image": selfie, "id_card_image": card})
    assert dict(links) == {"selfie_image": selfie, "id_card_image": card}
    assert (len(links), links["id_card_image"], links.get("liveness_1")) == (2, card, None)
    assert links.selfie_image is selfie
    assert links.error is None
    with pytest.raises(KeyError):
        links["liveness_1"]


def test_no_links_are_false_and_may_have_an_error() -> None:
    """An empty mapping may say why it is empty."""
    links = ImageLinks(error="no links today")
    assert not links
    assert (links.selfie_image, links.error) == (None, "no links today")


def test_links_are_secret() -> None:
    """Neither the URL nor the vendor's error text is in a repr."""
    link = ImageLink(url=sigv4_url())
    shown = repr(link) + repr(ImageLinks(links={"selfie_image": link}, error="words")) + repr(ImageLinks())
    assert "bucket.example" not in shown
    assert "words" not in shown
    assert repr(ImageLinks(links={"a": link})) == "<ImageLinks: 1 link>"
    assert repr(ImageLinks(links={"a": link, "b": link}, error="words")) == "<ImageLinks: 2 links, error>"
    assert repr(ImageLinks()) == "<ImageLinks: 0 links>"


def test_links_are_values() -> None:
    """They are equal if their content is equal, survive copying and pickling, and cannot be changed."""
    links = ImageLinks(links={"selfie_image": ImageLink(url=sigv4_url())}, error="x")
    assert copy.deepcopy(links) == links
    assert pickle.loads(pickle.dumps(links)) == links
    assert links != ImageLinks(links=dict(links))
    with pytest.raises(AttributeError):
        links.error = None  # type: ignore[misc]  # links are frozen: that is what is tested
    with pytest.raises(AttributeError):
        links["selfie_image"].url = ""  # type: ignore[misc]  # links are frozen: that is what is tested
