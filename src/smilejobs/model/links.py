"""Links to images, and when each of them expires.

A link is a bearer secret: the link alone is enough to fetch the picture. It never appears in a repr.
"""

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qsl, urlsplit

from attrs import Factory, field, frozen

MAX_LINK_CHARACTERS = 8192
"""The maximum length of a link that is parsed or followed: `urlsplit` caches its arguments."""

_SIGV4_DATE = re.compile(r"[0-9]{8}T[0-9]{6}Z", re.ASCII)
_MAX_SIGV4_LIFETIME_SECONDS = 604_800


@frozen(kw_only=True)
class ImageLink:
    """A link to one image.

    Attributes:
        url: The link, a secret. The API may also send a placeholder that is not a URL. A link of more than 8,192
            characters is not followed.
        expires_at: When the link expires, in UTC, read from its query: AWS Signature Version 4 (``X-Amz-Date`` plus
            ``X-Amz-Expires`` seconds) or Version 2 (``Expires``), names in any case. It is an upper bound: a link that
            was signed with temporary credentials may expire earlier. None if the query does not say, although the link
            may expire.
    """

    url: str = field(repr=False)
    expires_at: datetime | None = field(
        init=False, default=Factory(lambda link: _read_expiry(link.url), takes_self=True)
    )

    def expired(self, at: datetime) -> bool | None:
        """Return whether the link is expired at the instant *at* (timezone-aware); None if *expires_at* is None.

        Raises:
            ValueError: *at* is naive.
        """
        if at.tzinfo is None:
            raise ValueError("at must be timezone-aware")
        return None if self.expires_at is None else at >= self.expires_at


@frozen(kw_only=True, repr=False)
class ImageLinks(Mapping[str, ImageLink]):
    """The links of one answer, by the vendor's name for the picture: ``links["selfie_image"]``.

    Attributes:
        error: The error text that the API sent instead of links, or besides them; None if there is none.
    """

    _links: Mapping[str, ImageLink] = field(factory=dict[str, ImageLink], alias="links")
    error: str | None = None

    @property
    def selfie_image(self) -> ImageLink | None:
        """The link to the selfie, the only picture that the vendor's page documents."""
        return self._links.get("selfie_image")

    def __getitem__(self, name: str) -> ImageLink:
        return self._links[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._links)

    def __len__(self) -> int:
        return len(self._links)

    def __repr__(self) -> str:
        return f"<ImageLinks: {len(self)} link{'' if len(self) == 1 else 's'}{', error' if self.error else ''}>"


def _read_expiry(url: str) -> datetime | None:
    """Return the expiry of a pre-signed link; None if it is missing, duplicated, malformed or too long."""
    if len(url) > MAX_LINK_CHARACTERS:
        return None
    try:
        pairs = [
            (name.lower(), value)
            for name, value in parse_qsl(urlsplit(url).query, keep_blank_values=True, max_num_fields=100)
        ]
        query = dict(pairs)
        if len(query) < len(pairs):
            return None
        if "x-amz-date" in query:
            if not _SIGV4_DATE.fullmatch(query["x-amz-date"]):
                return None
            signed_at = datetime.fromisoformat(query["x-amz-date"])
            lifetime = _parse_digits(query["x-amz-expires"])
            return signed_at + timedelta(seconds=lifetime) if 1 <= lifetime <= _MAX_SIGV4_LIFETIME_SECONDS else None
        if {"awsaccesskeyid", "signature", "expires"} <= query.keys():
            return datetime.fromtimestamp(_parse_digits(query["expires"]), UTC)
    except (KeyError, ValueError, OverflowError, OSError):
        pass
    return None


def _parse_digits(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise ValueError
    return int(text)
