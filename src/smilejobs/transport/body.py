"""The body of an answer: bounded, inflated and read the same way over every carrier."""

import zlib
from collections.abc import Collection

import anyio.lowlevel

from smilejobs.transport.carrier import Response

PIECE_BYTES = 65_536
"""The most bytes that one step of inflating brings."""

STEPS_WITHOUT_A_CHECKPOINT = 8
"""After so many pieces the event loop runs: a body that never pauses must not hold up deadlines and cancellations."""

_GZIP = 16 + zlib.MAX_WBITS


class UnreadableBodyError(Exception):
    """The body cannot be read, for a reason that is not the carrier's.

    Attributes:
        oversized: Whether it is too large.
        broke_off: Whether another answer may be whole.
    """

    def __init__(self, words: str, *, oversized: bool = False, broke_off: bool = False) -> None:
        super().__init__(words)
        self.oversized = oversized
        self.broke_off = broke_off


class Body:
    """The body of an answer, piece by piece.

    Bytes are counted before they are inflated and afterwards.

    Args:
        response: The answer.
        max_bytes: The most bytes, as they come and when they are inflated.
        encodings: The encodings that were asked for; None to return the bytes as they come, even if the head
            names one.

    Attributes:
        is_whole: Whether it has been read to its end.

    Raises:
        UnreadableBodyError: It is compressed in another way.
    """

    def __init__(self, response: Response, max_bytes: int, encodings: Collection[str] | None) -> None:
        self._response = response
        self._max_bytes = max_bytes
        self._received = 0
        self._inflated = 0
        self._steps = 0
        self._left = b""
        self.is_whole = False
        self._gzip = None
        if encodings is not None:
            encoding = response.headers.get("content-encoding", "").strip().lower()
            if encoding not in ("", "identity", *encodings):
                raise UnreadableBodyError("it is compressed in a way that was not asked for")
            self._gzip = zlib.decompressobj(_GZIP) if encoding == "gzip" else None

    async def read(self) -> bytes:
        """Return the next piece, nothing at the end.

        Raises:
            UnreadableBodyError: It is too large, or not what its head says.
        """
        while True:
            self._steps += 1
            if self._steps % STEPS_WITHOUT_A_CHECKPOINT == 0:
                await anyio.lowlevel.checkpoint()
            if self._left:
                piece = self._inflate(self._left)
            else:
                piece = await self._response.read()
                if not piece:
                    self._check_end()
                    self.is_whole = True
                    return b""
                self._received += len(piece)
                self._check_size(self._received)
                if self._gzip is not None:
                    piece = self._inflate(piece)
            if piece:
                return piece

    async def whole(self) -> bytes:
        """Return all of it.

        Raises:
            UnreadableBodyError: It is too large, or not what its head says.
        """
        pieces: list[bytes] = []
        while piece := await self.read():
            pieces.append(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _inflate(self, data: bytes) -> bytes:
        assert self._gzip is not None, "only compressed bytes are left over"
        if self._gzip.eof:
            raise UnreadableBodyError("there is more after the end of its gzip data", broke_off=True)
        try:
            piece = self._gzip.decompress(data, PIECE_BYTES)
        except zlib.error:
            raise UnreadableBodyError("it is not the gzip data that its head promises", broke_off=True) from None
        self._left = self._gzip.unconsumed_tail or self._gzip.unused_data
        self._inflated += len(piece)
        self._check_size(self._inflated)
        return piece

    def _check_size(self, size: int) -> None:
        if size > self._max_bytes:
            raise UnreadableBodyError(f"it is larger than {self._max_bytes} bytes", oversized=True)

    def _check_end(self) -> None:
        if self._gzip is not None and self._received and not self._gzip.eof:
            raise UnreadableBodyError("its gzip data has no end", broke_off=True)
