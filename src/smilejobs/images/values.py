"""Pictures as values: their names and formats, and the results for callers."""

import re
from hashlib import sha256
from pathlib import Path

from attrs import field, frozen

from smilejobs.errors import SmileJobsError
from smilejobs.model.jobs import JobRef
from smilejobs.outcomes import Outcome

_PLAIN = re.compile(r"[a-z0-9_]{1,40}")


def shown(name: str) -> str:
    """Return the vendor's name of a picture for texts and file names; a hash, if it is not a short lower-case word."""
    if _PLAIN.fullmatch(name):
        return name
    return f"image-{sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:16]}"


@frozen(kw_only=True)
class Image:
    """A picture.

    Attributes:
        name: The vendor's name for it, such as "selfie_image".
        content_type: The format, by the first bytes: "image/jpeg", "image/png", "image/webp" or "image/heic".
        data: The picture.
        ref: The job that it belongs to.
    """

    name: str = field(repr=shown)
    content_type: str
    data: bytes = field(repr=False)
    ref: JobRef


@frozen(kw_only=True)
class SavedImages:
    """The result of saving the pictures of one job of many.

    Attributes:
        outcome: The outcome of the wait, as `Client.wait_many` yields it.
        paths: The files that were written.
        error: The error of the wait, or of pictures that are missing; None if all are saved.
    """

    outcome: Outcome
    paths: tuple[Path, ...] = ()
    error: SmileJobsError | None = None

    @property
    def index(self) -> int:
        """The position of the job in the input, from 0."""
        return self.outcome.index

    @property
    def ref(self) -> JobRef:
        """The job, as the input named it."""
        return self.outcome.ref


@frozen(kw_only=True)
class Format:
    """An image format: its Content-Type, its file suffix and its first bytes."""

    content_type: str
    suffix: str
    magic: re.Pattern[bytes]


FORMATS = (
    Format(content_type="image/jpeg", suffix=".jpg", magic=re.compile(rb"\xff\xd8\xff")),
    Format(content_type="image/png", suffix=".png", magic=re.compile(rb"\x89PNG\r\n\x1a\n")),
    Format(content_type="image/webp", suffix=".webp", magic=re.compile(rb"RIFF.{4}WEBP", re.DOTALL)),
    Format(
        content_type="image/heic",
        suffix=".heic",
        magic=re.compile(rb".{4}ftyp(hei[cmsx]|hev[cmsx]|mif1|msf1)", re.DOTALL),
    ),
)
MAGIC_BYTES = 12
"""The number of bytes from which a format can be detected."""

CONTENT_TYPES = {
    *(each.content_type for each in FORMATS),
    "image/jpg",
    "image/heif",
    # S3 sends these for an object that was stored without a type. Then the first bytes alone decide.
    "application/octet-stream",
    "binary/octet-stream",
}
