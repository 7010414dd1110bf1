"""Where the links of pictures may lead."""

import re
from urllib.parse import urlsplit

import httpx
import pytest
from hypothesis import given, strategies

from smilejobs import IMAGE_HOSTS, Client
from smilejobs.images import Hosts
from smilejobs.model.links import ImageLink


def problem(link: str) -> str | None:
    """Return what the default hosts say."""
    return Hosts(IMAGE_HOSTS, loopback=False).problem(link)


@pytest.mark.parametrize(
    "host",
    [
        "smile-results-prod.s3.us-west-2.amazonaws.com",
        "smile-fr-results.s3.us-west-2.amazonaws.com",
        "SMILE-results.S3.amazonaws.com",
        "smile-results.s3-us-west-2.amazonaws.com",
        "smile-results.s3.dualstack.eu-west-1.amazonaws.com",
        "smile-results.s3-accelerate.amazonaws.com",
        "smile-results.s3.us-west-2.amazonaws.com:443",
    ],
)
def test_the_buckets_of_the_vendor_are_allowed(host: str) -> None:
    """In every spelling of S3's that names the bucket in the host."""
    assert problem(f"https://{host}/a/b.jpg?X-Amz-Signature=1") is None


HOSTILE = {
    "http://smile-a.s3.us-west-2.amazonaws.com/": "not https",
    "ftp://smile-a.s3.us-west-2.amazonaws.com/": "absolute https",
    "https://s3.us-west-2.amazonaws.com/smile-a/": "not among",
    "https://evil.s3.us-west-2.amazonaws.com/": "not among",
    "https://evil.smile-a.s3.us-west-2.amazonaws.com/": "not among",
    "https://smile-a.evil.example.s3.us-west-2.amazonaws.com/": "not among",
    "https://smile-a.s3.us-west-2.amazonaws.com./": "not among",
    "https://smile-a.s3.us-west-2.amazonaws.com.evil.example/": "not among",
    "https://smile-a.s3.us-west-2.amazonaws.comevil/": "not among",
    "https://smile-a.s3.us-west-2.amazonaws.com:80/": "port other than 443",
    "https://smile-a.s3.us-west-2.amazonaws.com:99999/": "not a URL",
    "https://u@smile-a.s3.us-west-2.amazonaws.com/": "user name",
    "https://evil.example\\@smile-a.s3.us-west-2.amazonaws.com/": "user name",
    "https://evil.example\\.smile-a.s3.us-west-2.amazonaws.com/": "not a URL",
    "https://smile-a.s3.us-west-2.amazonaws.com/#@evil.example": "fragment",
    "https://evil.example%2f.smile-a.s3.amazonaws.com/": "not a URL",
    "https://smil\u0435-a.s3.us-west-2.amazonaws.com/": "absolute https",
    "https://127.0.0.1/": "this machine",
    "https://localhost/": "this machine",
    "https://[::1]/": "this machine",
    "https://127.1/": "IP address",
    "https://0x7f.0.0.1/": "IP address",
    "https://0x7f000001/": "IP address",
    "https://2130706433/": "IP address",
    "https://017700000001/": "IP address",
    "https://10.0.0.1/": "IP address",
    "https://10.0.0.1./": "IP address",
    "https://169.254.169.254/": "IP address",
    "https://[fe80::1]/": "IP address",
    "https://[::ffff:10.0.0.1]/": "IP address",
    "https://smile-a.s3.us-west-2.amazonaws.com/" + "a" * 9000: "characters",
    "": "absolute https",
    "image_link": "absolute https",
    "//smile-a.s3.us-west-2.amazonaws.com/": "absolute https",
    "https:///smile-a": "absolute https",
    "https://smile-a.s3.us-west-2.amazonaws.com/a b": "absolute https",
    "https://smile-a.s3.us-west-2.amazonaws.com/\r\nHost: evil": "absolute https",
}


@pytest.mark.parametrize("link", HOSTILE)
def test_hostile_links(link: str) -> None:
    """Each is refused, in words that do not quote it."""
    words = problem(link)
    assert words is not None
    assert words.startswith("the link ")
    assert HOSTILE[link] in words
    assert "evil" not in words


def test_a_link_may_be_as_long_as_it_is_read() -> None:
    """One of 8,192 characters may be followed, a longer one may not."""
    link = "https://smile-a.s3.amazonaws.com/"
    longest = link + "a" * (8192 - len(link))
    assert problem(longest) is None
    assert problem(longest + "a") == "the link has more than 8192 characters"


@pytest.mark.parametrize("link", ["http://127.0.0.1:8787/a", "https://localhost:1/a", "http://[::1]:9/a"])
def test_loopback_in_tests(link: str) -> None:
    """Where the API is on loopback its links may be, and only there; other addresses are no better for it."""
    hosts = Hosts((), loopback=True)
    assert hosts.problem(link) is None
    assert hosts.problem("https://127.1/a") is not None
    assert hosts.problem("http://10.0.0.1/a") is not None
    assert hosts.problem("http://a.example/a") is not None


def test_hosts_can_be_chosen() -> None:
    """A star is a part of one label; addresses are never hosts."""
    hosts = Hosts(["Pictures.example.org", "*.cdn.example"], loopback=False)
    assert hosts.problem("https://pictures.example.org/a") is None
    assert hosts.problem("https://eu-1.cdn.example/a") is None
    assert hosts.problem("https://a.eu-1.cdn.example/a") is not None
    assert hosts.problem("https://smile-a.s3.us-west-2.amazonaws.com/") is not None
    for wrong in (
        "*",
        "localhost",
        "10.0.0.1",
        "1.0x7f",
        "https://a.example",
        "a.example:80",
        "a.example/b",
        "",
        "é.eu",
    ):
        with pytest.raises(ValueError) as caught:
            Hosts([wrong], loopback=False)
        assert str(caught.value) == (
            f"image_hosts: {wrong!r} is not the name of a host, such as 'pictures.example.org'"
        )
    with pytest.raises(TypeError, match="^image_hosts must be names of hosts, in a list"):
        Hosts("a.example", loopback=False)
    with pytest.raises(TypeError, match="^image_hosts must be names of hosts, not int$"):
        Hosts([5], loopback=False)  # type: ignore[list-item]  # what mypy refuses, users without it pass
    with pytest.raises(ValueError, match="image_hosts"):
        Client(partner_id="085", api_key="k", environment="sandbox", image_hosts=["10.0.0.1"])


def test_few_hosts_are_remembered() -> None:
    """However many hosts links name, memory does not grow with them."""
    hosts = Hosts(IMAGE_HOSTS, loopback=False)
    for index in range(1000):
        assert hosts.problem(f"https://smile-{index}.s3.amazonaws.com/a") is None
    assert hosts._problem_at.cache_info().currsize < 1000  # noqa: SLF001  # there is no other way to see memory


PARTS = strategies.sampled_from(
    [
        *("https", "http", "://", "//", "@", ":", "#", "?", "/", "\\", "%2e", "[", "]", ".", "\t", " ", "é", "*"),
        *("smile-a", ".s3.", "us-west-2", ".amazonaws.com", "evil.example", "localhost", "443", "80"),
        *("::1", "127.0.0.1", "0x7f", "1"),
    ]
)
LINKS = strategies.one_of(
    strategies.text(),
    strategies.lists(PARTS).map("".join),
    strategies.lists(PARTS).map(lambda parts: "https://smile-a.s3.us-west-2.amazonaws.com" + "".join(parts)),
    strategies.lists(PARTS).map(lambda parts: "https://" + "".join(parts) + ".s3.us-west-2.amazonaws.com/"),
)


@given(link=LINKS, loopback=strategies.booleans())
def test_whatever_passes_leads_where_it_may(link: str, loopback: bool) -> None:
    """As the libraries that follow the link read it; and nothing is raised, whatever it is."""
    hosts = Hosts(IMAGE_HOSTS, loopback=loopback)
    ImageLink(url=link)
    if hosts.problem(link) is not None:
        return
    for parts in (urlsplit(link), httpx.URL(link)):
        host = parts.host if isinstance(parts, httpx.URL) else parts.hostname
        assert host is not None
        if loopback and (host == "localhost" or host.startswith("127.") or host == "::1"):
            continue
        assert parts.scheme == "https"
        assert parts.port in (None, 443)
        assert re.fullmatch(r"smile-[a-z0-9_-]*\.s3[a-z0-9._-]*\.amazonaws\.com", host)
