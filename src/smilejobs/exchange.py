"""One poll: connection, permit, sign, send, read, verify. It never retries and never sleeps between polls.

A poll gets its connection before its permit of the rate: permits that are given out before a connection is free would
be used all at once when connections become free.
"""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime
from functools import partial
from threading import get_ident
from typing import Protocol

import anyio
import anyio.lowlevel
from attrs import define

from smilejobs.errors import SmileJobsError, UntrustedError
from smilejobs.events import Hooks, PollFailed, PollFinished
from smilejobs.model.jobs import Include, JobRef, JobStatus
from smilejobs.settings import Credentials
from smilejobs.transport import Answer, Transport
from smilejobs.transport.environment import is_asyncio
from smilejobs.wire.protocol import comes_from_the_api, encode_request, read_answer


class Permits(Protocol):
    """Gives out permits: no poll begins without one."""

    async def take(self) -> None:
        """Wait for a permit. It is taken when the wait is over: a poll that is cancelled before takes none."""


class RateLimiter:
    """The permits of one client.

    Args:
        per_second: The number of permits per second, evenly spread; None for no limit.
    """

    def __init__(self, per_second: float | None) -> None:
        self._interval = 0.0 if per_second is None else 1 / per_second
        self._next = 0.0
        self._lock: anyio.Lock | None = None

    async def take(self) -> None:
        """Wait for a permit."""
        if not self._interval:
            return
        if self._lock is None:  # not made outside the event loop: anyio wraps such a lock
            self._lock = anyio.Lock(fast_acquire=True)
        async with self._lock:
            now = anyio.current_time()
            if self._next > now:
                await anyio.sleep_until(self._next)
            self._next = max(now, self._next) + self._interval


@define(eq=False)
class _Requests:
    """The number of requests of one poll."""

    number: int = 0

    def add_one(self) -> None:
        self.number += 1


class Exchange:
    """Polls the API about one job at a time.

    Args:
        transport: Sends the bytes.
        credentials: Sign the request and verify the answer.
        emit: Called with events.
        now: The wall clock; returns an aware datetime.
        max_connections: The maximum number of requests under way at once.
        rate: The maximum number of polls that begin in one second, evenly spread; None for no limit.

    Attributes:
        api_has_answered: Whether the API has ever answered a poll: its URL and its certificate are right then.
        emit: As above.
        longest_poll: The limit for a poll in seconds, from when it has a connection and a permit.
        rate: As above.
        time: The clock of the event loop, in seconds.
        permits: Gives out the permits of that rate. Workers that share a rate replace it.
    """

    def __init__(
        self,
        transport: Transport,
        credentials: Credentials,
        *,
        emit: Hooks,
        now: Callable[[], datetime],
        max_connections: int,
        rate: float | None,
    ) -> None:
        self._transport = transport
        self.longest_poll = transport.request_timeout
        self.api_has_answered = False
        self._credentials = credentials
        self.emit = emit
        self._now = now
        self._max_connections = max_connections
        self.rate = rate
        self.time: Callable[[], float] = anyio.current_time
        self.permits: Permits = RateLimiter(rate)
        self._event_loop: object = None
        self._closed = False

    async def poll(self, ref: JobRef, include: Include, *, wait: object | None = None) -> JobStatus:
        """Poll one job once.

        Args:
            ref: The job.
            include: What to ask for besides its state.
            wait: An object that identifies the wait in the events of the poll.

        Raises:
            SmileJobsError: One of its kinds, see `smilejobs.errors`.
            RuntimeError: The client is closed, or belongs to another event loop.
        """
        self.check_usable()
        due = self.time()
        await self.acquire()
        try:
            began = self.time()
            return await self.poll_acquired(ref, include, wait=wait, began=began, late=began - due)
        finally:
            self.release()

    async def acquire(self) -> None:
        """Wait for a free connection and a permit; the caller can choose the job to poll after that.

        `check_usable` must have been called in this event loop.

        Raises:
            RuntimeError: The client is closed.
        """
        try:
            self._limiter.acquire_nowait()  # does not look for a cancellation, which takes longer than all the rest
        except anyio.WouldBlock:
            await self._limiter.acquire()
        try:
            await self.permits.take()
            self._check_open()
        except BaseException:
            self._limiter.release()
            raise

    def release(self) -> None:
        """Release the connection."""
        self._limiter.release()

    async def poll_acquired(
        self, ref: JobRef, include: Include, *, wait: object | None, began: float, late: float
    ) -> JobStatus:
        """Poll one job, between `acquire` and `release`.

        After an answer that cannot be trusted, the poll is repeated once, on a fresh connection.

        Args:
            ref: The job.
            include: What to ask for besides its state.
            wait: An object that identifies the wait in the events of the poll.
            began: The instant at which the poll begins, now.
            late: The seconds since it was due.

        Raises:
            SmileJobsError: One of its kinds, see `smilejobs.errors`.
        """
        sent = _Requests()
        try:
            status = await self._ask(ref, include, began + self.longest_poll, sent)
        except SmileJobsError as error:
            error.ref = ref
            self.api_has_answered |= comes_from_the_api(error)
            seconds = self.time() - began
            self.emit(PollFailed(ref=ref, wait=wait, error=error, seconds=seconds, late=late, requests=sent.number))
            raise
        self.api_has_answered = True
        seconds = self.time() - began
        self.emit(PollFinished(ref=ref, wait=wait, status=status, seconds=seconds, late=late, requests=sent.number))
        return status

    async def _ask(self, ref: JobRef, include: Include, deadline: float, sent: "_Requests") -> JobStatus:
        try:
            return await self._post(ref, include, deadline, sent, fresh=False)
        except UntrustedError:
            if not self._transport.has_connections:
                raise
        # It may have been the answer to another request on that connection, which is closed now.
        return await self._post(ref, include, deadline, sent, fresh=True)

    def _post(
        self, ref: JobRef, include: Include, deadline: float, sent: "_Requests", *, fresh: bool
    ) -> Awaitable[JobStatus]:
        sent.add_one()
        # The body is no local variable: crash reporters copy those of each frame, and it is signed.
        return self._transport.post(
            encode_request(ref, self._credentials, self._now(), include),
            partial(self._read, ref, include),
            deadline=deadline,
            fresh=fresh,
            on_resend=sent.add_one,
        )

    def _read(self, ref: JobRef, include: Include, answer: Answer) -> JobStatus:
        return read_answer(
            ref,
            self._credentials,
            self._now(),
            include=include,
            http_status=answer.http_status,
            headers=answer.headers,
            body=answer.body,
            problem=answer.problem,
            broke_off=answer.broke_off,
        )

    def check_usable(self) -> None:
        """Raise RuntimeError unless a poll may begin; the first call binds the client to its event loop.

        Raises:
            RuntimeError: The client is closed, or belongs to another event loop.
        """
        self._check_open()
        if self._event_loop is None:
            self._event_loop = _running_loop()
            self._thread = get_ident()
            if is_asyncio():  # anyio looks for the event loop each time that it is asked for the time
                self.time = asyncio.get_running_loop().time
            self._limiter = anyio.Semaphore(self._max_connections, fast_acquire=True)
        self._check_event_loop()

    def check_thread(self) -> None:
        """Raise RuntimeError unless the calling thread is that of the event loop.

        Raises:
            RuntimeError: It is another thread.
        """
        if self._event_loop is not None and self._thread != get_ident():
            raise RuntimeError(
                "this smilejobs client lives in another thread: there, anyio.from_thread.run_sync or "
                "loop.call_soon_threadsafe call a function in its event loop"
            )

    async def aclose(self) -> None:
        """Refuse all further polls and close the pool, if it is our own.

        Raises:
            RuntimeError: The client belongs to another event loop.
        """
        self._closed = True
        self._check_event_loop()
        await self._transport.aclose()

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError("this smilejobs client is closed; open a new one")

    def _check_event_loop(self) -> None:
        if self._event_loop is not None and self._event_loop != _running_loop():
            raise RuntimeError(
                "this smilejobs client was first used in another event loop; open one client per event loop"
            )


def _running_loop() -> object:
    """Return what identifies the event loop; on asyncio the loop itself, which anyio takes longer to find."""
    return asyncio.get_running_loop() if is_asyncio() else anyio.lowlevel.current_token()
