"""What the frameworks have in common: from the body of a callback to the status of its answer."""

import logging
from collections.abc import AsyncIterable, Awaitable, Callable, Mapping
from types import MappingProxyType

import anyio

from smilejobs.callbacks import CallbackVerifier
from smilejobs.client import Client
from smilejobs.durations import Duration, seconds
from smilejobs.errors import CallbackError
from smilejobs.model.callback import Callback
from smilejobs.model.jobs import JobRef

logger = logging.getLogger("smilejobs")

HTTP_STATUSES: Mapping[str, int] = MappingProxyType(
    {
        "oversized": 413,
        "malformed": 400,
        "unsigned": 401,
        "undated": 401,
        "stale": 401,
        "future": 401,
        "slow": 408,
        "compressed": 415,
    }
)
"""By `CallbackError.reason`, and by what is refused before there is a body to verify.

All failures of authentication have one status, so that the sender of a forgery cannot tell which check failed.
"""

HEADERS: Mapping[int, Mapping[str, str]] = MappingProxyType(
    {
        408: {"Connection": "close"},
        413: {"Connection": "close"},
        415: {"Connection": "close", "Accept-Encoding": "identity"},
    }
)
"""By HTTP status, the headers of its answer: a connection is closed where the rest of a body may be on the way."""

BODY_TIMEOUT_SECONDS = 20.0
"""The default time limit for a body: enough for the largest at 640 kbit/s."""

OnCallback = Callable[[Callback], Awaitable[None]]
"""What else is to be done with a callback."""


class Receiver:
    """Takes callbacks, for the routes of all frameworks.

    Args:
        verifier: Tells callbacks of the vendor from other requests.
        on_callback: What else is to be done with a callback.
        body_timeout: Seconds (or a timedelta) for the body.
        breaks: The exception with which the framework reports a body that breaks off or cannot be read.

    Raises:
        TypeError: *verifier* is none, or *body_timeout* has the wrong type.
        ValueError: *body_timeout* can never be right.
    """

    def __init__(
        self,
        verifier: CallbackVerifier,
        on_callback: OnCallback | None,
        body_timeout: Duration,
        breaks: type[Exception],
    ) -> None:
        if not isinstance(verifier, CallbackVerifier):
            raise TypeError(f"verifier must be a CallbackVerifier(credentials), not {type(verifier).__name__}")
        self._verifier = verifier
        self._on_callback = on_callback
        self._body_timeout = seconds(body_timeout, "body_timeout", zero=False)
        self._breaks = breaks

    async def receive(self, pieces: AsyncIterable[bytes], coding: str | None, client: Client) -> int:
        """Read and verify a callback, notify the waits for its job, and return the HTTP status of an answer.

        A duplicate is a repetition by the vendor: it is taken like the first.

        Args:
            pieces: The body as it comes.
            coding: The header ``Content-Encoding``.
            client: Whose waits are notified.

        Raises:
            Exception: Whatever *on_callback* raises.
        """
        if coding is not None and coding.strip().lower() not in ("", "identity"):
            return _refuse("compressed", "its body has a Content-Encoding")
        # Crash reporters copy variables, so no frame that an error can leave has the body in one.
        bodies: list[bytes] = []
        try:
            with anyio.fail_after(self._body_timeout):
                bodies.append(await self._read(pieces))
        except TimeoutError:
            return _refuse("slow", f"its body took longer than {self._body_timeout:g} s")
        except self._breaks:
            return HTTP_STATUSES["malformed"]
        try:
            callback = self._verifier.verify(bodies.pop())
        except CallbackError as error:
            return _refuse(error.reason, str(error), error.ref)
        logger.debug(
            "job %s: callback%s",
            callback.ref.tag,
            ", a duplicate" if callback.duplicate else "",
            extra={"event_name": "CallbackTaken", "tag": callback.ref.tag, "duplicate": callback.duplicate},
        )
        client.notify(callback)
        if self._on_callback is not None:
            await self._on_callback(callback)
        return 200

    async def _read(self, pieces: AsyncIterable[bytes]) -> bytes:
        """Return a body; of one that is too large, one byte more than the verifier takes, which it will refuse.

        The length that its headers announce is not used: the sender can write any number.
        """
        body = bytearray()
        async for piece in pieces:
            body += piece[: self._verifier.max_bytes + 1 - len(body)]
            if len(body) > self._verifier.max_bytes:
                break
        return bytes(body)


def _refuse(reason: str, why: str, ref: JobRef | None = None) -> int:
    """Log a refusal and return its HTTP status."""
    http_status = HTTP_STATUSES[reason]
    fields = {"event_name": "CallbackRefused", "reason": reason, "http_status": http_status}
    logger.warning("callback refused: %s", why, extra=fields if ref is None else {**fields, "tag": ref.tag})
    return http_status
