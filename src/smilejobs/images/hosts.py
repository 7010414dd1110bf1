"""The hosts to which links may lead."""

import re
from collections.abc import Iterable
from functools import lru_cache
from urllib.parse import SplitResult

from smilejobs.model.links import MAX_LINK_CHARACTERS
from smilejobs.settings import is_loopback, split_url

IMAGE_HOSTS: tuple[str, ...] = (
    "smile-*.s3.amazonaws.com",
    "smile-*.s3.*.amazonaws.com",
    "smile-*.s3-*.amazonaws.com",
    "smile-*.s3.dualstack.*.amazonaws.com",
)
"""The default hosts of pictures: the vendor's buckets at Amazon S3, by all its names. A ``*`` is any part of a label.

Source: ``smile-results-prod.s3.us-west-2.amazonaws.com``, the one host that was seen in real links.
"""


class Hosts:
    """The hosts to which links may lead.

    Args:
        patterns: Names of hosts; a ``*`` is any part of a label.
        loopback: Whether this machine is allowed too, over plain http and on any port: for tests.

    Raises:
        TypeError: A pattern is not a string.
        ValueError: A pattern is not the name of a host, with two labels at least.
    """

    _NAME = re.compile(r"[a-z0-9*_-]+(\.[a-z0-9*_-]+)+")
    _NUMBER = re.compile(r"([0-9]+|0x[0-9a-f]*)\.?")

    def __init__(self, patterns: Iterable[str], *, loopback: bool) -> None:
        if isinstance(patterns, str):
            raise TypeError("image_hosts must be names of hosts, in a list or the like")
        self._loopback = loopback
        self._problem_at = lru_cache(maxsize=64)(self._find_problem)
        self._patterns: list[re.Pattern[str]] = []
        for pattern in patterns:
            if not isinstance(pattern, str):
                raise TypeError(f"image_hosts must be names of hosts, not {type(pattern).__name__}")
            name = pattern.lower()
            if not self._NAME.fullmatch(name) or self._is_number(name):
                raise ValueError(f"image_hosts: {pattern!r} is not the name of a host, such as 'pictures.example.org'")
            self._patterns.append(re.compile(re.escape(name).replace(r"\*", "[a-z0-9_-]*")))

    def problem(self, url: str) -> str | None:
        """Return why a link must not be followed, without quoting it; None if it may be followed."""
        if len(url) > MAX_LINK_CHARACTERS:
            return f"the link has more than {MAX_LINK_CHARACTERS} characters"
        try:
            parts = split_url(url, "the link")
        except ValueError as error:
            return str(error)
        return self._problem_at(parts.scheme, parts.netloc)

    def _find_problem(self, scheme: str, netloc: str) -> str | None:
        parts = SplitResult(scheme, netloc, "", "", "")
        host = str(parts.hostname)
        if is_loopback(host):
            return None if self._loopback else "the link leads to this machine"
        wrong = {
            "the link is not https": parts.scheme != "https",
            "the link leads to an IP address": parts.netloc.startswith("[") or self._is_number(host),
            "the link leads to a port other than 443": parts.port not in (None, 443),
            "the link leads to a host that is not among image_hosts": not any(
                pattern.fullmatch(host) for pattern in self._patterns
            ),
        }
        return next((words for words, is_so in wrong.items() if is_so), None)

    def _is_number(self, host: str) -> bool:
        """Return whether *host* is an IPv4 address in any form: "127.1", "0x7f000001". Source: the URL standard."""
        return self._NUMBER.fullmatch(host.rstrip(".").rpartition(".")[2]) is not None
