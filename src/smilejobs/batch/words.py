"""Counts in words."""


def number_of(count: int, noun: str) -> str:
    """Return a count with its noun, in the plural unless the count is 1.

    Args:
        count: How many.
        noun: In the singular; its plural ends in s.
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
