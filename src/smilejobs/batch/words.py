"""Counts with nouns, and times and shares with units."""


def number_of(count: int, noun: str) -> str:
    """Return a count with its noun, whose plural ends in s unless the count is 1."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def format_time(seconds: float) -> str:
    """Return a time in its largest unit, with a no-break space before the unit."""
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.3g}\u00a0{unit}"
    return f"{seconds:.3g}\u00a0s"


def format_share(share: float) -> str:
    """Return a share in whole per cent, with a no-break space before the unit."""
    return f"{100 * share:.0f}\u00a0%"
