"""The part of the callback routes that all frameworks share: from the body of a callback to an HTTP status."""

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
"""HTTP statuses by `CallbackError.reason`; "slow" and "compressed" are refused before there is a body to verify.

All authentication failures map to 401, so that a forger cannot tell which check failed.
"""

HEADERS: Mapping[int, Mapping[str, str]] = MappingProxyType(
    {
        408: {"Connection": "close"},
        413: {"Connection": "close"},
        415: {"Connection": "close", "Accept-Encoding": "identity"},
    }
)
"""The response headers by HTTP status; the connection is closed if the rest of the body may still arrive."""

BODY_TIMEOUT_SECONDS = 20.0
"""The default time limit for a body: enough for the largest body at 640 kbit/s."""

OnCallback = Callable[[Callback], Awaitable[None]]
"""A coroutine function that is called with each callback."""


class Receiver:
    """Receives callbacks for the routes of all frameworks.

    The functions that return the routes describe the arguments, except *body_error*: the exception that the framework
    raises for a body that breaks off or cannot be read.
    """

    def __init__(
        self,
        verifier: CallbackVerifier,
        on_callback: OnCallback | None,
        body_timeout: Duration,
        body_error: type[Exception],
    ) -> None:
        if not isinstance(verifier, CallbackVerifier):
            raise TypeError(f"verifier must be a CallbackVerifier(credentials), not {type(verifier).__name__}")
        self._verifier = verifier
        self._on_callback = on_callback
        self._body_timeout = seconds(body_timeout, "body_timeout", zero=False)
        self._body_error = body_error

    async def receive(self, pieces: AsyncIterable[bytes], coding: str | None, client: Client) -> int:
        """Read and verify a callback, notify the waits for its job, and return the HTTP status of the response.

        A duplicate is a repetition by the vendor; it is processed like the first callback.

        Args:
            pieces: The body in pieces, as it arrives.
            coding: The ``Content-Encoding`` header; None if there is none.
            client: The client that is notified.

        Raises:
            Exception: An exception of *on_callback*, unchanged.
        """
        if coding is not None and coding.strip().lower() not in ("", "identity"):
            return _refuse("compressed", "its body has a Content-Encoding")
        # Crash reporters copy the variables of frames, so the body is in no variable when an error can be raised.
        bodies: list[bytes] = []
        try:
            with anyio.fail_after(self._body_timeout):
                bodies.append(await self._read(pieces))
        except TimeoutError:
            return _refuse("slow", f"its body took longer than {self._body_timeout:g} s")
        except self._body_error:
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
        """Return the body; of a body that is too large, one byte more than the verifier allows, so that it is refused.

        The ``Content-Length`` header is not used, because the sender can write any number.
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
