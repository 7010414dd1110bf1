"""What the frameworks have in common: from the body of a callback to the status of its answer."""

import logging
from collections.abc import AsyncIterable, Awaitable, Callable, Mapping
from types import MappingProxyType

from smilejobs.callbacks import CallbackVerifier
from smilejobs.client import Client
from smilejobs.errors import CallbackError
from smilejobs.model.callback import Callback

logger = logging.getLogger("smilejobs")

HTTP_STATUSES: Mapping[str, int] = MappingProxyType(
    {
        "oversized": 413,
        "malformed": 400,
        "unsigned": 401,
        "undated": 401,
        "stale": 401,
        "future": 401,
    }
)
"""By `CallbackError.reason`. Among those that may not come in, a stranger learns nothing of how close he was."""

BROKEN_OFF = HTTP_STATUSES["malformed"]
"""The status of a body that never ended, or that HTTP itself cannot read."""

OnCallback = Callable[[Callback], Awaitable[None]]
"""What else is to be done with a callback."""


def check(verifier: object) -> None:
    """Do nothing if *verifier* is one.

    Raises:
        TypeError: It is not.
    """
    if not isinstance(verifier, CallbackVerifier):
        raise TypeError(f"verifier must be a CallbackVerifier(credentials), not {type(verifier).__name__}")


async def read(pieces: AsyncIterable[bytes], verifier: CallbackVerifier) -> bytes:
    """Return a body; of one that is too large, one byte more than the verifier takes, which is for it to refuse.

    Args:
        pieces: The body as it comes. What its headers say about its length is not asked: anybody can write it.
        verifier: Knows how large it may be.
    """
    body = bytearray()
    async for piece in pieces:
        body += piece[: verifier.max_bytes + 1 - len(body)]
        if len(body) > verifier.max_bytes:
            break
    return bytes(body)


async def take(body: bytes, verifier: CallbackVerifier, client: Client, on_callback: OnCallback | None) -> int:
    """Verify a callback and wake who waits for its job; return the HTTP status for an answer without a body.

    A duplicate is the vendor asking again: it is taken like the first.

    Raises:
        Exception: Whatever *on_callback* raises.
    """
    try:
        callback = verifier.verify(body)
    except CallbackError as error:
        logger.warning("callback refused: %s", error)
        return HTTP_STATUSES[error.reason]
    logger.debug("job %s: called back%s", callback.ref.tag, ", again" if callback.duplicate else "")
    client.notify(callback)
    if on_callback is not None:
        await on_callback(callback)
    return 200
