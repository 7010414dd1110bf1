"""A picture of nobody."""

import struct
import zlib
from functools import cache
from hashlib import sha256, shake_256

_SIZE = 64
_OVERHEAD = 12
"""Bytes of a chunk besides its data."""


def picture(name: str, size: int | None = None) -> bytes:
    """Return a PNG, 64 by 64: a disc, in two colours that depend on *name*, so that no two are mixed up unnoticed.

    Args:
        name: Which picture.
        size: How many bytes it has; None for as few as it can. What is missing is filled up with noise, in a chunk
            that readers of pictures pass over.
    """
    chunks = [_chunk(b"PLTE", sha256(name.encode()).digest()[:6]), _chunk(b"IDAT", _pixels()), _chunk(b"IEND", b"")]
    head = b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", struct.pack(">IIBBBBB", _SIZE, _SIZE, 8, 3, 0, 0, 0))
    if size is not None:
        missing = size - len(head) - sum(map(len, chunks)) - _OVERHEAD
        chunks.insert(0, _chunk(b"noIs", shake_256(name.encode()).digest(missing)))
    return head + b"".join(chunks)


@cache
def smallest_with_noise() -> int:
    """Return the fewest bytes that a picture of a given size can have."""
    return len(picture("")) + _OVERHEAD


@cache
def _pixels() -> bytes:
    rows = (bytes(_in_disc(x, y) for x in range(_SIZE)) for y in range(_SIZE))
    return zlib.compress(b"".join(b"\0" + row for row in rows))


def _in_disc(x: int, y: int) -> bool:
    middle = (_SIZE - 1) / 2
    return (x - middle) ** 2 + (y - middle) ** 2 < (_SIZE * 3 / 8) ** 2


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
