"""Open files that can hold personal data: only their owner may read them, from the first byte on."""

import os
from pathlib import Path
from secrets import token_hex

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
_MAX_NAME_CHARACTERS = 50
"""Of up to four bytes each, which a temporary file takes from a name: most systems allow 255 bytes."""


def open_private(path: str | os.PathLike[str], flags: int) -> int:
    """Open a file, with mode 0600 if it is new; an opener for `open`.

    Args:
        path: The file.
        flags: As for `os.open`.

    Returns:
        The descriptor.

    Raises:
        OSError: The file cannot be opened.
    """
    return os.open(path, flags, 0o600)


def temporary_path(folder: Path, name: str) -> Path:
    """Return the path of a hidden file that does not exist: its name has a random part.

    Args:
        folder: The folder.
        name: The beginning of the name.
    """
    return folder / f".{name[:_MAX_NAME_CHARACTERS]}-{token_hex(8)}.part"


def create_private(path: str | os.PathLike[str], flags: int = 0) -> int:
    """Create a file with mode 0600, and return its descriptor; an opener for `open`.

    A link with that name is neither followed nor replaced.

    Args:
        path: The file.
        flags: Further flags, as for `os.open`.

    Raises:
        FileExistsError: The name exists.
        OSError: The file cannot be created.
    """
    return os.open(path, flags | _NEW, 0o600)
