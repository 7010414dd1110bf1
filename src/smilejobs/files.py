"""Files that can hold personal data: their owner alone may read them, from their first byte on."""

import os
from pathlib import Path
from secrets import token_hex

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
_LONGEST_NAME = 50
"""Characters, of four bytes at most, that a temporary file takes of another's name: most systems allow 255 bytes."""


def open_private(path: str | os.PathLike[str], flags: int) -> int:
    """Open a file, with mode 0600 if it is a new one; an opener for `open`.

    Args:
        path: Where it is.
        flags: As for `os.open`.

    Returns:
        The descriptor.

    Raises:
        OSError: It cannot be opened.
    """
    return os.open(path, flags, 0o600)


def temporary_path(folder: Path, name: str) -> Path:
    """Return the path of a hidden file that does not exist: its name ends in a random word.

    Args:
        folder: Where it is.
        name: What it begins with.
    """
    return folder / f".{name[:_LONGEST_NAME]}-{token_hex(8)}.part"


def create_private(path: str | os.PathLike[str], flags: int = 0) -> int:
    """Create a file that is not there, with mode 0600, and return its descriptor; an opener for `open`.

    A link of that name is neither followed nor replaced.

    Args:
        path: Where it is to be.
        flags: Further ones, as for `os.open`.

    Raises:
        FileExistsError: There is something of that name.
        OSError: It cannot be created.
    """
    return os.open(path, flags | _NEW, 0o600)
