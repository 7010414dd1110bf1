"""Bodies that are read piece by piece, over stand-ins, under the virtual clock."""

import gzip
import zlib
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, pairwise, repeat

import anyio
import anyio.lowlevel
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smilejobs.transport.body import PIECE_BYTES, Body, UnreadableBodyError

pytestmark = pytest.mark.anyio


class Response:
    """An answer that is there already."""

    status = 200

    def __init__(self, pieces: Iterable[bytes], encoding: str = "") -> None:
        self.headers: Mapping[str, str] = {"content-encoding": encoding}
        self._pieces: Iterator[bytes] = iter(pieces)

    async def read(self) -> bytes:
        return next(self._pieces, b"")

    async def aclose(self, *, keep: bool) -> None:
        raise NotImplementedError


@pytest.mark.parametrize("encoding", ["", "gzip"])
async def test_a_body_that_never_pauses_can_be_cancelled(encoding: str) -> None:
    """Its bytes are always there, and yet other tasks run."""
    packer = zlib.compressobj(wbits=31)
    start = packer.compress(b"") + packer.flush(zlib.Z_SYNC_FLUSH)
    pieces = chain([start], repeat(b"\0\0\0\xff\xff")) if encoding else repeat(b"x")
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(Body(Response(pieces, encoding), 2**60, ("gzip",)).whole)
            await anyio.lowlevel.checkpoint()
            scope.cancel()
    assert scope.cancelled_caught


async def test_what_comes_is_counted_though_nothing_is_in_it() -> None:
    """Gzip data without any content are bounded too."""
    packer = zlib.compressobj(wbits=31)
    start = packer.compress(b"") + packer.flush(zlib.Z_SYNC_FLUSH)
    body = Body(Response(chain([start], repeat(b"\0\0\0\xff\xff" * 100)), "gzip"), 10_000, ("gzip",))
    with pytest.raises(UnreadableBodyError, match="larger than 10000 bytes") as caught:
        await body.whole()
    assert caught.value.oversized
    assert not body.is_whole


async def test_a_bomb_is_inflated_no_further_than_the_limit() -> None:
    """Piece by piece, the last one no larger than a piece."""
    body = Body(Response([gzip.compress(bytes(2**26))], "gzip"), 2**20, ("gzip",))
    size = 0
    while size < 2**20:
        piece = await body.read()
        assert len(piece) <= PIECE_BYTES
        size += len(piece)
    assert size == 2**20
    with pytest.raises(UnreadableBodyError, match="larger"):
        await body.read()


@given(data=st.binary(max_size=300_000), cuts=st.lists(st.integers(0, 300_000), max_size=5))
async def test_whatever_was_compressed_is_inflated(data: bytes, cuts: list[int]) -> None:
    """However it is cut into pieces."""
    packed = gzip.compress(data)
    edges = sorted({0, len(packed), *(cut for cut in cuts if cut < len(packed))})
    pieces = [packed[start:end] for start, end in pairwise(edges)]
    body = Body(Response(pieces, "gzip"), 400_000, ("gzip",))
    assert await body.whole() == data
    assert body.is_whole


async def test_a_body_of_nothing_needs_no_gzip() -> None:
    """As after HTTP 204."""
    assert await Body(Response([], "gzip"), 10, ("gzip",)).whole() == b""


async def test_bytes_as_they_come() -> None:
    """Of pictures, nothing is inflated."""
    assert await Body(Response([b"a", b"b"], "gzip"), 10, None).whole() == b"ab"
