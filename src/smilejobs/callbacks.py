"""Tell callbacks of the vendor from other requests.

Smile ID POSTs the result of a job to a URL of yours: one flat JSON object with the signature in it, up to 1.5 MB,
maybe several times, maybe a provisional result first. Source: the vendor's FAQ about callbacks, and one that was seen.
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
"""Seconds by which the vendor's clock may be ahead of ours."""

_MAX_PAIRS = 100_000
"""Pairs of timestamp and signature that are kept, some 20 MB."""


class CallbackVerifierOptions(TypedDict, total=False):
    """The arguments of `CallbackVerifier` that `CallbackVerifier.from_env` takes."""

    max_age: Duration | None
    max_bytes: int
    now: Callable[[], datetime]


class CallbackVerifier:
    """Reads callbacks, and refuses those that do not come from the vendor or come too late.

    A callback that passes proves little: its sender knows one valid pair of timestamp and signature of this partner,
    not older than *max_age*. The signature covers neither body nor job, and every request to the API and every answer
    holds such a pair, so the rest of the callback may be forged. A callback is a hint to poll; the answer of the API
    decides.

    Nothing of the body is structured before its signature has been verified.

    A pair that comes again is no reason to refuse: the vendor repeats a callback that was not answered with a 2xx, and
    two jobs that end in the same millisecond have the same pair. The callback is marked as `Callback.duplicate`,
    whatever its body. For that, pairs are kept until they are older than *max_age*, the latest 100,000 at most, in this
    process only.

    One verifier serves any number of tasks and threads.

    Args:
        credentials: The partner, and the signature key of the environment that the callbacks come from.
        max_age: Seconds (or a timedelta) after which a callback is refused; None to leave its timestamp unread, for
            example for callbacks that were stored. A callback's clock may be up to a minute ahead. The vendor repeats a
            callback with its old timestamp and does not say for how long; three days cover an outage over a weekend.
            Longer costs little: a callback that is replayed causes one poll, and no result.
        max_bytes: The most bytes of a body. A handler should stop reading there. The vendor's FAQ says that callbacks
            have up to 1.5 MB.
        now: The wall clock, as a function that returns an aware datetime.

    Attributes:
        max_bytes: As given.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument can never be right; the text names it.
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
            del credentials  # may be the key itself, and no frame of a traceback may hold it
            raise TypeError(f"credentials must be Credentials(partner_id, api_key), not {kind}")
        positive(max_bytes, "max_bytes")
        self.max_bytes = max_bytes
        self._credentials = credentials
        self._max_age = None if max_age is None else seconds(max_age, "max_age", zero=False)
        self._now = require_aware(now)
        self._pairs: OrderedDict[bytes, float] = OrderedDict()
        """By the hash of a signature, which stands for its timestamp: when it is too old. Those seen last are last."""
        self._lock = Lock()

    @classmethod
    def from_env(cls, **options: Unpack[CallbackVerifierOptions]) -> Self:
        """Return a verifier for the partner that ``SMILE_PARTNER_ID`` and ``SMILE_API_KEY`` name.

        Args:
            options: The other arguments of `CallbackVerifier`.

        Raises:
            TypeError: An argument has the wrong type.
            ValueError: A variable is missing, or it or an argument can never be right; the text names it.
        """
        return cls(credentials_from(os.environ), **options)

    def verify(self, body: bytes) -> Callback:
        """Return what a callback says.

        The body may also have the shape of an answer of the API, which the vendor's examples of 2019 give it.

        Args:
            body: The body of the request as it came: bytes, not what a framework has parsed.

        Raises:
            TypeError: *body* is not bytes.
            CallbackError: It must not be believed, or cannot be read; ``reason`` says which.
        """
        read = self._read(body)
        # What reports crashes copies the variables of every frame of a traceback. This frame is left without the body,
        # and those that hold the signature have ended when something is raised.
        del body
        if isinstance(read, Exception):
            raise read
        callback, pair = read
        now = self._now().timestamp()
        until = math.inf if self._max_age is None else _last_moment(callback, now, self._max_age)
        return evolve(callback, duplicate=self._seen_before(pair, until, now))

    def _read(self, body: bytes) -> tuple[Callback, bytes] | CallbackError | TypeError:
        """Return what a callback says and what stands for its pair, or why it is refused."""
        if not isinstance(body, bytes):
            return TypeError(f"body must be the body of the request as bytes, not {type(body).__name__}")
        if len(body) > self.max_bytes:
            return CallbackError(f"the callback is larger than {self.max_bytes} bytes", reason="oversized")
        try:
            data = decode_object(body)
            signature = data.get("signature")
            if not verify(self._credentials, data.get("timestamp"), signature):
                return CallbackError(
                    "the callback's signature does not verify: it does not come from Smile ID, or this API key is not "
                    "the one of the environment that it comes from",
                    reason="unsigned",
                )
            return decode_callback(data), sha256(str(signature).encode()).digest()
        except UnreadableError as error:
            return CallbackError(f"the callback cannot be read: {error}", reason="malformed")

    def _seen_before(self, pair: bytes, until: float, now: float) -> bool:
        with self._lock:
            duplicate = pair in self._pairs
            self._pairs[pair] = until
            self._pairs.move_to_end(pair)
            while len(self._pairs) > _MAX_PAIRS or next(iter(self._pairs.values())) < now:
                self._pairs.popitem(last=False)
            return duplicate


def _last_moment(callback: Callback, now: float, max_age: float) -> float:
    """Return the moment after which the callback is too old.

    Raises:
        CallbackError: It is past, or the callback is not from the past at all.
    """
    if callback.timestamp is None:
        raise CallbackError(
            "the callback's timestamp names no instant, so its age cannot be known", reason="undated", ref=callback.ref
        )
    made = callback.timestamp.timestamp()
    if made > now + _MAX_CLOCK_SKEW_SECONDS:
        raise CallbackError(
            f"the callback is dated {made - now:.0f} s from now: check this machine's clock",
            reason="future",
            ref=callback.ref,
        )
    if made + max_age < now:
        raise CallbackError(
            f"the callback is {now - made:.0f} s old, and max_age is {max_age:.10g} s", reason="stale", ref=callback.ref
        )
    return made + max_age
