"""The images that the sandbox serves: PNG files that show no person."""

import struct
import zlib
from functools import cache
from hashlib import sha256, shake_256

_SIDE = 64
_CHUNK_OVERHEAD = 12
"""Bytes of a chunk besides its data: length, type and checksum."""


def make_png(name: str, size: int | None = None) -> bytes:
    """Return a PNG of 64 by 64 pixels: a disc in two colours that depend on *name*, so that mix-ups are noticed.

    Args:
        name: The name of the image.
        size: The size in bytes, at least `min_padded_size()`; None for no padding. The padding is random data in an
            ancillary chunk, which decoders skip.
    """
    chunks = [_chunk(b"PLTE", sha256(name.encode()).digest()[:6]), _chunk(b"IDAT", _pixels()), _chunk(b"IEND", b"")]
    head = b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", struct.pack(">IIBBBBB", _SIDE, _SIDE, 8, 3, 0, 0, 0))
    if size is not None:
        padding = size - len(head) - sum(map(len, chunks)) - _CHUNK_OVERHEAD
        chunks.insert(0, _chunk(b"noIs", shake_256(name.encode()).digest(padding)))
    return head + b"".join(chunks)


@cache
def min_padded_size() -> int:
    """Return the smallest *size* that `make_png` accepts, in bytes."""
    return len(make_png("")) + _CHUNK_OVERHEAD


@cache
def _pixels() -> bytes:
    rows = (bytes(_is_in_disc(x, y) for x in range(_SIDE)) for y in range(_SIDE))
    return zlib.compress(b"".join(b"\0" + row for row in rows))


def _is_in_disc(x: int, y: int) -> bool:
    middle = (_SIDE - 1) / 2
    return (x - middle) ** 2 + (y - middle) ** 2 < (_SIDE * 3 / 8) ** 2


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
