"""Callbacks: the results of a job, POSTed to the partner at the instants at which they are there.

A callback is flat: the result, with ``timestamp``, ``signature`` and ``ImageLinks`` in it. The provisional result comes
first, then the final one. What is not answered with a 2xx is sent again, a few times, later each time, so that even in
good weather a callback may come late, twice, or after its successor. Sources: the vendor's page about callbacks, and
one callback that was seen.
"""

import heapq
import json
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from functools import cached_property, partial
from types import MappingProxyType
from urllib.parse import urlsplit

import anyio
from anyio.abc import TaskGroup
from attrs import Attribute, field, frozen

from smilejobs.durations import Duration, seconds
from smilejobs.model.jobs import JobRef
from smilejobs.sandbox.dice import Lognormal, dice, lasting
from smilejobs.sandbox.jobs import Job
from smilejobs.sandbox.posting import NoStatusError, status_of_post
from smilejobs.sandbox.products import has_succeeded, result_code_for
from smilejobs.sandbox.state import logger
from smilejobs.sandbox.weather import WeatherName, share
from smilejobs.settings import Credentials, is_loopback, split_url
from smilejobs.tasks import beside
from smilejobs.transport import HTTPClient
from smilejobs.wire.signature import format_timestamp, sign

_CONNECTIONS = 100
_LONGEST_URL = 8192
_LONGEST_HOST = 100
_MOST_WARNINGS = 100
_LONGEST_RETRY = 60.0
_OVERTAKEN_BY = timedelta(seconds=1)
_HEADERS = {"content-type": "application/json"}
_FORGED_KEY = "not-the-key-of-the-partner"


def _attempts(_: object, attribute: "Attribute[int]", value: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{attribute.name} must be a whole number, not {type(value).__name__}")
    if value < 1:
        raise ValueError(f"{attribute.name} must be at least 1")


def _positive(_: object, attribute: "Attribute[float]", value: float) -> None:
    seconds(value, attribute.name, zero=False)


def _delay(value: Duration | Lognormal) -> Lognormal:
    return lasting(value, "delay")


@frozen(kw_only=True)
class Delivery:
    """How callbacks are delivered, and what goes wrong on the way. Nothing goes wrong by default.

    A *share* is a probability, from 0 to 1, for each callback.

    Args:
        attempts: How often a callback is sent in all until it is answered with a 2xx. The vendor's later API is said
            to send it five times.
        retry_delay: Seconds (or a timedelta) until it is sent again; twice as long after each attempt, at most 60 s.
        timeout: Seconds (or a timedelta) for one attempt.
        delay: Seconds (a timedelta, a `Lognormal`) by which a callback is late. Its timestamp is not.
        duplicates: The share of callbacks that are sent again though they were answered with a 2xx.
        reordered: The share of provisional callbacks that come after the final one.
        forgeries: The share of callbacks with two forgeries at their side, which claim the opposite outcome: before it
            one with a wrong signature, after it one with the timestamp and signature of the callback itself.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument can never be right; the text names it.
    """

    attempts: int = field(default=5, validator=_attempts)
    retry_delay: Duration = field(default=2.0, validator=_positive)
    timeout: Duration = field(default=10.0, validator=_positive)
    delay: Lognormal = field(default=Lognormal(0.0), converter=_delay)
    duplicates: float = share()
    reordered: float = share()
    forgeries: float = share()


DELIVERIES: Mapping[WeatherName, Delivery] = MappingProxyType(
    {
        "calm": Delivery(),
        "rainy": Delivery(delay=Lognormal(1.0, 1.0), duplicates=0.1, reordered=0.05),
        "storm": Delivery(delay=Lognormal(5.0, 1.5), duplicates=0.3, reordered=0.3, forgeries=0.1),
    }
)
"""What each weather does to callbacks."""

ImageLinks = Callable[[Job, datetime], Mapping[str, str]]
"""Makes the links to the images of a job, signed at an instant."""


@frozen(order=True)
class _Due:
    """A callback that is to be sent: when, which one, and the number of the timetable that says so."""

    at: datetime
    smile_job_id: str
    is_final: bool
    version: int = field(order=False)
    ref: JobRef = field(order=False)


class Callbacks:
    """Delivers the callbacks of a sandbox.

    Args:
        jobs: The jobs, by name.
        credentials: Whose signature the callbacks carry.
        seed: Draws what goes wrong.
        now: The wall clock.
        delivery: How they are delivered.
        links: Makes the links to images.
        allow_to: The hosts beyond this machine to which callbacks may be sent.
        http_client: A client to send them with; it is used as it is and never closed.

    Raises:
        TypeError: *allow_to* is a string.
    """

    def __init__(
        self,
        jobs: Mapping[JobRef, Job],
        credentials: Credentials,
        *,
        seed: int,
        now: Callable[[], datetime],
        delivery: Delivery,
        links: ImageLinks,
        allow_to: Collection[str] = (),
        http_client: HTTPClient | None = None,
    ) -> None:
        if isinstance(allow_to, str):
            raise TypeError("allow_callbacks_to must be a collection of host names, not one string")
        self._jobs = jobs
        self._credentials = credentials
        self._seed = seed
        self._now = now
        self._delivery = delivery
        self._links = links
        self._allowed = frozenset(host.lower() for host in allow_to)
        self._post = partial(status_of_post, trust=self._trust) if http_client is None else _over(http_client)
        self._timeout = seconds(delivery.timeout, "timeout")
        self._refused: set[str] = set()
        """The hosts to which callbacks are not sent, as far as the log has named them."""
        self._timetable: list[_Due] = []
        self._versions: dict[JobRef, int] = {}
        self._sent: set[tuple[JobRef, bool]] = set()
        """The callbacks that are on their way or have been taken: of which job, and whether it is the final one."""
        self._changed = anyio.Event()
        self._is_running = False

    def check(self, url: str) -> None:
        """Raise ValueError unless callbacks may be sent to *url*.

        A client that submits a job could otherwise have the sandbox POST to any address that it reaches.

        Raises:
            TypeError: It is no string.
            ValueError: They may not, or it is no URL.
        """
        if isinstance(url, str) and len(url) > _LONGEST_URL:
            raise ValueError(f"callback_url must be at most {_LONGEST_URL} characters long")
        host = str(split_url(url, "callback_url").hostname)
        if not is_loopback(host) and host not in self._allowed:
            raise ValueError(
                "callback_url must be on this machine, at localhost or 127.0.0.1: the sandbox posts to no other host, "
                "unless allow_callbacks_to= names it"
            )

    def schedule(self, ref: JobRef, *, since: datetime | None = None) -> None:
        """Plan the callbacks of a job that is new, or whose timetable has changed.

        Callbacks to a URL that is not allowed are dropped, with one warning for each host.

        Args:
            ref: Its name.
            since: Count what was due before that instant as sent: for jobs of a former run.
        """
        job = self._jobs[ref]
        if job.callback_url is None or not self._may_send(job.callback_url):
            return
        version = self._versions[ref] = self._versions.get(ref, 0) + 1
        milestones = job.milestones()
        for at, _ in milestones:
            is_final = at == job.final_at
            if since is not None and at < since:
                self._sent.add((ref, is_final))
            if (ref, is_final) in self._sent:
                continue
            due = at
            if not is_final and self._happens(job, "reordered", is_final=False):
                if len(milestones) == 1:
                    continue  # nobody knows yet when the final one comes, which it is to follow
                due = milestones[-1][0] + _OVERTAKEN_BY
            late = self._delivery.delay.draw(dice(self._seed, "callback", "delay", job.smile_job_id, is_final))
            heapq.heappush(
                self._timetable, _Due(due + timedelta(seconds=late), job.smile_job_id, is_final, version, ref)
            )
        self._changed.set()

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None, None]:
        """Deliver while the block runs; what is due after it is not delivered.

        Errors of the block come out bare, not in a group. A block within a block changes nothing.
        """
        if self._is_running:
            yield
            return
        self._is_running = True
        scope = anyio.CancelScope()
        try:
            async with beside(partial(self._run, scope), scope.cancel):
                yield
        finally:
            self._is_running = False

    async def _run(self, scope: anyio.CancelScope) -> None:
        limiter = anyio.CapacityLimiter(_CONNECTIONS)
        with scope:
            async with anyio.create_task_group() as tasks:
                while True:
                    self._changed = anyio.Event()
                    self._start_due(tasks, limiter)
                    left = (self._timetable[0].at - self._now()).total_seconds() if self._timetable else None
                    with anyio.move_on_after(left):
                        await self._changed.wait()

    def _start_due(self, tasks: TaskGroup, limiter: anyio.CapacityLimiter) -> None:
        while self._timetable and self._timetable[0].at <= self._now():
            due = heapq.heappop(self._timetable)
            if due.version == self._versions[due.ref]:
                self._sent.add((due.ref, due.is_final))
                tasks.start_soon(self._deliver, self._jobs[due.ref], due.is_final, limiter)

    async def _deliver(self, job: Job, is_final: bool, limiter: anyio.CapacityLimiter) -> None:
        """Send one callback until it is taken, and what comes with it."""
        at, result = next(milestone for milestone in job.milestones() if (milestone[0] == job.final_at) == is_final)
        timestamp = format_timestamp(at)
        proof = {"timestamp": timestamp, "signature": sign(self._credentials, timestamp)}
        body = _encoded({**result, "ImageLinks": dict(self._links(job, at)), **proof})
        send = partial(self._send, str(job.callback_url), limiter)
        is_forged = self._happens(job, "forgeries", is_final=is_final)
        claim = _opposite(job, result, is_final=is_final)
        if is_forged:
            forger = Credentials(self._credentials.partner_id, _FORGED_KEY)
            await send(_encoded({**claim, "timestamp": timestamp, "signature": sign(forger, timestamp)}))
        if await self._is_taken(job, send, body) and self._happens(job, "duplicates", is_final=is_final):
            await send(body)
        if is_forged:
            await send(_encoded({**claim, **proof}))

    async def _is_taken(self, job: Job, send: Callable[[bytes], Awaitable[str | None]], body: bytes) -> bool:
        """Send a callback until it is taken, or for the last time; say whether it was taken."""
        delay = seconds(self._delivery.retry_delay, "retry_delay")
        problem: str | None = None
        for attempt in range(self._delivery.attempts):
            if attempt:
                await anyio.sleep(min(delay * 2.0 ** (attempt - 1), _LONGEST_RETRY))
            problem = await send(body)
            if problem is None:
                return True
        attempts = self._delivery.attempts
        logger.warning("a callback of job %s was sent %d times and never taken: %s", job.ref.tag, attempts, problem)
        return False

    async def _send(self, url: str, limiter: anyio.CapacityLimiter, body: bytes) -> str | None:
        """POST once; return what was wrong with the answer, if anything was."""
        status = 0
        async with limiter:
            with anyio.move_on_after(self._timeout):
                try:
                    status = await self._post(url, _HEADERS, body)
                except NoStatusError as error:
                    return str(error)
        if not status:
            return f"no answer within {self._timeout:.10g} s"
        return None if 200 <= status < 300 else f"HTTP {status}"

    def _may_send(self, url: str) -> bool:
        """Say whether callbacks may be sent to *url*; if they may not, tell why, once for each host."""
        try:
            self.check(url)
        except ValueError as error:
            host = _host(url)
            if host not in self._refused and len(self._refused) < _MOST_WARNINGS:
                self._refused.add(host)
                logger.warning("callbacks to %r are not sent: %s", host, error)
            return False
        return True

    @cached_property
    def _context(self) -> ssl.SSLContext:
        return ssl.create_default_context()

    def _trust(self) -> ssl.SSLContext:
        return self._context

    def _happens(self, job: Job, what: str, *, is_final: bool) -> bool:
        probability: float = getattr(self._delivery, what)
        return dice(self._seed, "callback", what, job.smile_job_id, is_final).random() < probability


def _over(http_client: HTTPClient) -> Callable[[str, Mapping[str, str], bytes], Awaitable[int]]:
    """Return what POSTs with a client of the user's. The body of the answer is not read."""

    async def post(url: str, headers: Mapping[str, str], body: bytes) -> int:
        try:
            async with http_client.stream(
                "POST", url, content=body, headers=headers, auth=None, follow_redirects=False, timeout=None
            ) as response:
                return response.status_code
        except Exception as error:  # noqa: BLE001  # whatever a client of the user's raises ends one attempt
            raise NoStatusError(f"no answer: {type(error).__name__}") from None

    return post


def _host(url: str) -> str:
    """Return the host that *url* names, which need be no URL, for the log: the rest of it may be a secret."""
    shortened = url[:_LONGEST_URL]
    try:
        host = urlsplit(shortened).hostname or urlsplit(f"//{shortened}").hostname
    except ValueError:
        host = None
    return (host or "")[:_LONGEST_HOST]


def _opposite(job: Job, result: Mapping[str, object], *, is_final: bool) -> dict[str, object]:
    """Return what somebody who forges callbacks would like the result to be."""
    outcome = "approved" if is_final and not has_succeeded(job.result_code) else "rejected"
    code = result_code_for(outcome, job.job_type)
    return {**result, "ResultCode": code, "ResultText": job.product.text(code), "IsFinalResult": "true"}


def _encoded(body: Mapping[str, object]) -> bytes:
    return json.dumps(body).encode()
