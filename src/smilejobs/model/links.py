"""Links to images, and the instant at which each of them dies.

A link is a bearer secret to a face: whoever has it sees the picture. It never appears in a repr.
"""

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qsl, urlsplit

from attrs import Factory, field, frozen

MOST_LINK_CHARACTERS = 8192
"""Links that are longer are not followed, and not read: `urlsplit` keeps what it has read in a cache."""

_SIGV4_DATE = re.compile(r"[0-9]{8}T[0-9]{6}Z", re.ASCII)
_SIGV4_LONGEST = 604_800


@frozen(kw_only=True)
class ImageLink:
    """A link to one image.

    Attributes:
        url: The link, a secret. The API may also put a placeholder here that is no URL at all. A link of more than
            8,192 characters is not followed.
        expires_at: When the link stops working, in UTC, read from the link's own query: AWS Signature Version 4
            (``X-Amz-Date`` plus ``X-Amz-Expires`` seconds) or Version 2 (``Expires``), names in any case. It is an
            upper bound: a link that was signed with temporary credentials may die earlier. None if the link does not
            say (which does not mean that it lives for ever).
    """

    url: str = field(repr=False)
    expires_at: datetime | None = field(init=False, default=Factory(lambda link: _expiry(link.url), takes_self=True))

    def expired(self, at: datetime) -> bool | None:
        """Say whether the link is dead at the instant *at* (timezone-aware); None if the link does not tell.

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
        error: What the API wrote instead of links, or beside them, if it could not make them.
    """

    _links: Mapping[str, ImageLink] = field(factory=dict[str, ImageLink], alias="links")
    error: str | None = None

    @property
    def selfie_image(self) -> ImageLink | None:
        """The selfie, the one picture that the vendor's page documents."""
        return self._links.get("selfie_image")

    def __getitem__(self, name: str) -> ImageLink:
        return self._links[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._links)

    def __len__(self) -> int:
        return len(self._links)

    def __repr__(self) -> str:
        return f"<ImageLinks: {len(self)} link{'' if len(self) == 1 else 's'}{', error' if self.error else ''}>"


def _expiry(url: str) -> datetime | None:
    """Read the expiry of a pre-signed link; None for what is missing, doubled, garbage or too long."""
    if len(url) > MOST_LINK_CHARACTERS:
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
            lifetime = _digits(query["x-amz-expires"])
            return signed_at + timedelta(seconds=lifetime) if 1 <= lifetime <= _SIGV4_LONGEST else None
        if {"awsaccesskeyid", "signature", "expires"} <= query.keys():
            return datetime.fromtimestamp(_digits(query["expires"]), UTC)
    except (KeyError, ValueError, OverflowError, OSError):
        pass
    return None


def _digits(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise ValueError
    return int(text)
