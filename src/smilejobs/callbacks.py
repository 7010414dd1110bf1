"""Verify callbacks of the vendor.

Smile ID POSTs the result of a job to a URL of yours: one flat JSON object that holds the signature, up to 1.5 MB. The
callback of a job may come several times, and may have a provisional result first. Source: the vendor's FAQ about
callbacks, and a recorded callback.
"""

import math
import os
from collections import OrderedDict
from collections.abc import Callable
from datetime import datetime, timedelta
from hashlib import sha256
from threading import Lock
from typing import Self, TypedDict, Unpack

from attrs import evolve

from smilejobs.clock import require_aware, utcnow
from smilejobs.durations import Duration, positive, seconds
from smilejobs.errors import CallbackError
from smilejobs.model.callback import Callback
from smilejobs.settings import Credentials, credentials_from
from smilejobs.wire.codec import UnreadableError, decode_object
from smilejobs.wire.signature import verify
from smilejobs.wire.structure import decode_callback

_MAX_CLOCK_SKEW_SECONDS = 60.0
"""The maximum by which the vendor's clock may be ahead of this machine's clock."""

_MAX_PAIRS = 100_000
"""The maximum number of pairs of timestamp and signature in memory, about 20 MB."""


class CallbackVerifierOptions(TypedDict, total=False):
    """The keyword arguments of `CallbackVerifier` that `CallbackVerifier.from_env` accepts."""

    max_age: Duration | None
    max_bytes: int
    now: Callable[[], datetime]


class CallbackVerifier:
    """Reads callbacks, and refuses those that do not come from the vendor or are too old.

    A valid callback proves only that its sender knows one valid pair of timestamp and signature of this partner, not
    older than *max_age*. The signature covers neither the body nor the job, and every request and every answer of the
    API holds such a pair. Therefore the rest of the callback may be forged: it is a hint to poll, and the answer of the
    API decides.

    The body is structured only after its signature is verified.

    A callback with a known pair is accepted and marked as `Callback.duplicate`: the vendor repeats a callback that was
    not answered with a 2xx, and two jobs that end in the same millisecond have the same pair. Pairs are remembered
    until they are older than *max_age*, at most the latest 100,000, in this process only.

    One verifier serves any number of tasks and threads.

    Args:
        credentials: The partner id, and the API key of the environment that the callbacks come from.
        max_age: The age in seconds (or as a timedelta) beyond which a callback is refused; None to ignore its
            timestamp, for example for stored callbacks. A timestamp may be up to a minute in the future. The vendor
            repeats a callback with its original timestamp and does not document for how long; three days cover an
            outage over a weekend. A longer age costs little: a replayed callback causes one poll, and no result.
        max_bytes: The maximum size of a body in bytes. A handler should stop reading there. The vendor's FAQ says that
            callbacks have up to 1.5 MB.
        now: The wall clock, as a function that returns an aware datetime.

    Attributes:
        max_bytes: The maximum size of a body in bytes.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument is invalid; the text names it.
    """

    def __init__(
        self,
        credentials: Credentials,
        *,
        max_age: Duration | None = timedelta(days=3),
        max_bytes: int = 1_600_000,
        now: Callable[[], datetime] = utcnow,
    ) -> None:
        if not isinstance(credentials, Credentials):
            kind = type(credentials).__name__
            del credentials  # it may be the API key itself, which no frame of a traceback may hold
            raise TypeError(f"credentials must be Credentials(partner_id, api_key), not {kind}")
        positive(max_bytes, "max_bytes")
        self.max_bytes = max_bytes
        self._credentials = credentials
        self._max_age = None if max_age is None else seconds(max_age, "max_age", zero=False)
        self._now = require_aware(now)
        self._pairs: OrderedDict[bytes, float] = OrderedDict()
        """The instant at which each pair becomes too old, by the hash of its signature; the latest pairs come last."""
        self._lock = Lock()

    @classmethod
    def from_env(cls, **options: Unpack[CallbackVerifierOptions]) -> Self:
        """Return a verifier with the credentials from ``SMILE_PARTNER_ID`` and ``SMILE_API_KEY``.

        Args:
            options: The other arguments of `CallbackVerifier`.

        Raises:
            TypeError: An argument has the wrong type.
            ValueError: A variable is missing or invalid, or an argument is invalid; the text names it.
        """
        return cls(credentials_from(os.environ), **options)

    def verify(self, body: bytes) -> Callback:
        """Verify a callback and return it.

        The body may also have the shape of an answer of the API, as in the vendor's examples of 2019.

        Args:
            body: The raw body of the request: bytes, before a framework has parsed it.

        Raises:
            TypeError: *body* is not bytes.
            CallbackError: The callback must not be trusted, or cannot be read; ``reason`` says which.
        """
        read = self._read(body)
        # Crash reporters copy the variables of every frame of a traceback. So this frame drops the body, and the frames
        # that hold the signature have returned before an error is raised.
        del body
        if isinstance(read, Exception):
            raise read
        callback, pair = read
        now = self._now().timestamp()
        until = math.inf if self._max_age is None else _check_age(callback, now, self._max_age)
        return evolve(callback, duplicate=self._remember(pair, until, now))

    def _read(self, body: bytes) -> tuple[Callback, bytes] | CallbackError | TypeError:
        """Return the callback and the hash of its signature, or the error with which it is refused."""
        if not isinstance(body, bytes):
            return TypeError(f"body must be the body of the request as bytes, not {type(body).__name__}")
        if len(body) > self.max_bytes:
            return CallbackError(f"the callback is larger than {self.max_bytes} bytes", reason="oversized")
        try:
            data = decode_object(body)
            signature = data.get("signature")
            if not verify(self._credentials, data.get("timestamp"), signature):
                return CallbackError(
                    "the callback's signature does not verify: it does not come from Smile ID, or it comes from "
                    "another environment than the API key",
                    reason="unsigned",
                )
            return decode_callback(data), sha256(str(signature).encode()).digest()
        except UnreadableError as error:
            return CallbackError(f"the callback cannot be read: {error}", reason="malformed")

    def _remember(self, pair: bytes, until: float, now: float) -> bool:
        """Remember a pair until the instant *until*; return whether it was known already."""
        with self._lock:
            duplicate = pair in self._pairs
            self._pairs[pair] = until
            self._pairs.move_to_end(pair)
            while len(self._pairs) > _MAX_PAIRS or next(iter(self._pairs.values())) < now:
                self._pairs.popitem(last=False)
            return duplicate


def _check_age(callback: Callback, now: float, max_age: float) -> float:
    """Return the instant at which the callback becomes too old, in seconds since the epoch.

    Raises:
        CallbackError: That instant has passed, the callback is from the future, or it has no readable timestamp.
    """
    if callback.timestamp is None:
        raise CallbackError(
            "the callback's timestamp cannot be read, so its age is unknown", reason="undated", ref=callback.ref
        )
    made = callback.timestamp.timestamp()
    if made > now + _MAX_CLOCK_SKEW_SECONDS:
        raise CallbackError(
            f"the callback's timestamp is {made - now:.0f} s in the future: check this machine's clock",
            reason="future",
            ref=callback.ref,
        )
    if made + max_age < now:
        raise CallbackError(
            f"the callback is {now - made:.0f} s old, and max_age is {max_age:.10g} s", reason="stale", ref=callback.ref
        )
    return made + max_age
