"""Read the ``Retry-After`` header (RFC 9110, section 10.2.3): seconds or an HTTP date."""

import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

_SECONDS = re.compile(r"[0-9]{1,12}(\.[0-9]{1,12})?", re.ASCII)


def parse_retry_after(value: str | None, now: datetime) -> float | None:
    """Return the seconds from *now* for which the header asks to wait, at least 0; None if it cannot be read.

    The standard allows whole seconds; fractions are read as well. A header that was sent several times arrives as one
    value, separated by commas: of several numbers the largest counts, of several dates the first.

    Args:
        value: The value of the header; None if the answer has none.
        now: The instant of the answer (aware), for a date.
    """
    if value is None:
        return None
    numbers = [part.strip() for part in value.split(",")]
    if all(map(_SECONDS.fullmatch, numbers)):
        return max(map(float, numbers))
    try:
        at = parsedate_to_datetime(value)
        if at.tzinfo is None:
            at = at.replace(tzinfo=UTC)
        return max(0.0, (at - now).total_seconds())
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
