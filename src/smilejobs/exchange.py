"""One poll: limiter, rate, sign, send, read, verify. It never retries and never sleeps between polls."""

import logging
from collections.abc import Callable
from datetime import datetime

import anyio
import anyio.lowlevel

from smilejobs.errors import SmileJobsError
from smilejobs.model.codes import describe
from smilejobs.model.jobs import JobRef, JobStatus
from smilejobs.settings import Credentials
from smilejobs.transport import Transport
from smilejobs.wire.protocol import encode_request, read_answer

logger = logging.getLogger("smilejobs")
logger.addHandler(logging.NullHandler())


class Exchange:
    """The one way to ask the API.

    Args:
        transport: Sends the bytes.
        credentials: Sign the request and verify the answer.
        now: The wall clock, aware.
        max_connections: How many requests may be under way at once.
        rate: How many may begin in one second, evenly spread; None for no limit.
    """

    def __init__(
        self,
        transport: Transport,
        credentials: Credentials,
        *,
        now: Callable[[], datetime],
        max_connections: int,
        rate: float | None,
    ) -> None:
        self._transport = transport
        self._credentials = credentials
        self._now = now
        self._limiter = anyio.Semaphore(max_connections, fast_acquire=True)
        self._interval = 0.0 if rate is None else 1 / rate
        self._next_slot = 0.0
        self._event_loop: object = None
        self._closed = False

    async def poll(self, ref: JobRef, *, image_links: bool, history: bool) -> JobStatus:
        """Ask once about one job.

        Raises:
            SmileJobsError: One of its kinds, see `smilejobs.errors`.
            RuntimeError: The client is closed, or belongs to another event loop.
        """
        self._check_usable()
        async with self._limiter:
            await self._turn()
            body = encode_request(ref, self._credentials, self._now(), image_links=image_links, history=history)
            try:
                answer = await self._transport.post(body)
                status = read_answer(
                    ref,
                    self._credentials,
                    self._now(),
                    http_status=answer.http_status,
                    headers=answer.headers,
                    body=answer.body,
                )
            except SmileJobsError as error:
                error.ref = ref
                logger.debug("job %s: poll failed: %s", ref.tag, type(error).__name__)
                raise
        if logger.isEnabledFor(logging.DEBUG):
            logger.debug("job %s: polled: %s", ref.tag, describe(status.code))
        return status

    async def aclose(self) -> None:
        """Refuse all further polls and close the pool, if it is our own."""
        self._closed = True
        await self._transport.aclose()

    async def _turn(self) -> None:
        """Wait for a slot of the rate. Slots are handed out in order, so there are no bursts."""
        if self._interval:
            now = anyio.current_time()
            slot = max(now, self._next_slot)
            self._next_slot = slot + self._interval
            if slot > now:
                await anyio.sleep(slot - now)

    def _check_usable(self) -> None:
        if self._closed:
            raise RuntimeError("this smilejobs client is closed; open a new one")
        loop = anyio.lowlevel.current_token()
        if self._event_loop is None:
            self._event_loop = loop
        elif self._event_loop != loop:
            raise RuntimeError(
                "this smilejobs client was first used in another event loop; open one client per event loop"
            )
