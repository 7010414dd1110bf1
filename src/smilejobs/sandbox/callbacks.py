"""Callbacks: the results of a job are POSTed to the partner when they are due.

The body of a callback is the result, with ``timestamp``, ``signature`` and ``ImageLinks`` in it. A callback that is not
answered with a 2xx is sent again, so that even without faults it may arrive late, twice, or after its successor.
Sources: the vendor's page about callbacks, and one recorded callback.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import datetime, timedelta
from functools import partial
from types import MappingProxyType

import anyio
from anyio.abc import TaskGroup
from attrs import define, field, frozen

from smilejobs.durations import Duration
from smilejobs.sandbox.distributions import Lognormal, to_seconds
from smilejobs.sandbox.faults import FaultProfileName, share
from smilejobs.sandbox.http.common import encode_json, logger
from smilejobs.sandbox.http.guard import host_in
from smilejobs.sandbox.jobs import Job
from smilejobs.sandbox.products import has_succeeded, result_code_for, text_for
from smilejobs.sandbox.registry import Registry
from smilejobs.settings import Credentials, is_loopback, split_url
from smilejobs.tasks import beside
from smilejobs.transport import HTTPClient
from smilejobs.transport.body import Body
from smilejobs.transport.carrier import Carrier, Request
from smilejobs.transport.failures import no_answer
from smilejobs.transport.over_client import OverClient
from smilejobs.transport.over_httpx import over_httpcore
from smilejobs.transport.trust import load_trust
from smilejobs.wire.signature import format_timestamp, sign

_MAX_CONNECTIONS = 100
_MAX_RETRY_DELAY_SECONDS = 60.0
_MAX_ANSWER_BYTES = 64 * 1024
_ANSWER_BODY_SECONDS = 1.0
"""How long the body of an answer is read, so that the receiver can end it before the connection closes."""
_REORDERED_DELAY = timedelta(seconds=1)
_HEADERS = {"content-type": "application/json"}
_WRONG_KEY = "not-the-key-of-the-partner"


def _to_delay(value: Duration | Lognormal) -> Lognormal:
    return value if isinstance(value, Lognormal) else Lognormal(to_seconds(value, "delay"))


@frozen(kw_only=True)
class Delivery:
    """How callbacks are delivered, and their faults. There are no faults by default.

    A *share* is a probability, from 0 to 1, for each callback.

    Args:
        delay: Seconds (a timedelta, a `Lognormal`) by which a callback is late. Its timestamp is not changed.
        duplicates: The share of callbacks that are sent again after they were answered with a 2xx.
        reordered: The share of provisional callbacks that are sent after the final one.
        forgeries: The share of callbacks with two forgeries that claim the opposite outcome: before it one with a
            wrong signature, after it one with the timestamp and signature of the callback itself.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument is out of range; the text names it.
    """

    delay: Lognormal = field(default=Lognormal(0.0), converter=_to_delay)
    duplicates: float = share()
    reordered: float = share()
    forgeries: float = share()


DELIVERIES: Mapping[FaultProfileName, Delivery] = MappingProxyType(
    {
        "none": Delivery(),
        "flaky": Delivery(delay=Lognormal(1.0, 1.0), duplicates=0.1, reordered=0.05),
        "storm": Delivery(delay=Lognormal(5.0, 1.5), duplicates=0.3, reordered=0.3, forgeries=0.1),
    }
)
"""The delivery of callbacks with each preset of faults."""


def _to_hosts(value: Collection[str]) -> frozenset[str]:
    if isinstance(value, str):
        raise TypeError("allow_callbacks_to must be a collection of host names, not one string")
    return frozenset(host.lower() for host in value)


_Due = tuple[datetime, str, bool]
"""When a callback is to be sent, the number of its job, and whether it is the final one."""


@define(eq=False, repr=False)
class Callbacks:
    """Sends the callbacks of a sandbox, to this machine and to the hosts in *allow_to*.

    They are sent by *http_client*, which is not closed, or over connections of our own, without a proxy. Each is sent
    up to *attempts* times, until it is answered with a 2xx within *timeout* seconds; the first time again after
    *retry_delay* seconds, then after twice as long each time, up to a minute. *links* makes the links to the images of
    a job, whose lifetime begins at the given time.
    """

    registry: Registry
    delivery: Delivery
    links: Callable[[Job, datetime], Mapping[str, str]]
    allow_to: frozenset[str] = field(default=frozenset[str](), converter=_to_hosts)
    http_client: HTTPClient | None = None
    attempts: int = 5
    retry_delay: float = 2.0
    timeout: float = 10.0
    _carrier: Carrier | None = field(init=False, default=None)
    _warned: set[str] = field(init=False, factory=set)
    """The hosts that are not allowed and were named in the log."""
    _sent: set[tuple[str, bool]] = field(init=False)
    """The callbacks that were sent or are being sent, also by an earlier sandbox with the same state."""
    _tasks: TaskGroup | None = field(init=False, default=None)
    """Runs a task for each callback that is not sent yet."""
    _scope: anyio.CancelScope | None = field(init=False, default=None)
    """Ends the tasks; None if none run."""
    _limiter: anyio.CapacityLimiter = field(init=False)

    def __attrs_post_init__(self) -> None:
        dues = [due for job in self.registry.jobs.values() for due in self._dues(job)]
        self._sent = {due[1:] for due in dues if due[0] < self.registry.now()}

    def check(self, url: str) -> None:
        """Raise as `split_url` does, or ValueError if the host is not allowed.

        A job must not make the sandbox POST to any address that it reaches.
        """
        host = str(split_url(url, "callback_url").hostname)
        if not is_loopback(host) and host not in self.allow_to:
            raise ValueError(
                "callback_url must be on this machine, at localhost or 127.0.0.1: the sandbox posts to no other host, "
                "unless allow_callbacks_to= names it"
            )

    def schedule(self, job: Job) -> None:
        """Schedule the callbacks of a job that is new or has changed, or drop them if their URL is not allowed."""
        if job.callback_url is not None and self._may_send(job.callback_url) and self._tasks is not None:
            for due in self._dues(job):
                self._tasks.start_soon(self._deliver, due)

    def _dues(self, job: Job) -> Iterator[_Due]:
        """Yield when the callbacks of a job are due, as far as it is known."""
        milestones = job.milestones()
        for at, _ in milestones:
            is_final = at == job.final_at
            due = at
            if not is_final and self._draw(job, "reordered", is_final=False):
                if len(milestones) == 1:
                    continue  # the final one, which it follows, has no time yet
                due = milestones[-1][0] + _REORDERED_DELAY
            delay = self.delivery.delay.draw(self.registry.rng("callback", "delay", job.smile_job_id, is_final))
            yield due + timedelta(seconds=delay), job.smile_job_id, is_final

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None, None]:
        """Send callbacks while the block runs; those that are due later are not sent.

        Errors of the block are raised as they are, not in a group. A block within a block has no effect.
        """
        if self._scope is not None:
            yield
            return
        self._scope = anyio.CancelScope()
        try:
            async with beside(partial(self._run, self._scope), self._scope.cancel):
                yield
        finally:
            self._scope = self._tasks = self._carrier = None

    async def _run(self, scope: anyio.CancelScope) -> None:
        self._limiter = anyio.CapacityLimiter(_MAX_CONNECTIONS)
        with scope:
            async with anyio.create_task_group() as self._tasks:
                for job in self.registry.jobs.values():
                    self.schedule(job)
                await anyio.sleep_forever()

    async def _deliver(self, due: _Due) -> None:
        """Send a callback when it is due, unless the schedule of its job has changed, or it was sent."""
        at, number, is_final = due
        await anyio.sleep(max(0.0, (at - self.registry.now()).total_seconds()))
        job = self.registry.numbered[number]
        if due[1:] not in self._sent and due in self._dues(job):
            self._sent.add(due[1:])
            await self._send_with_faults(job, is_final=is_final)

    async def _send_with_faults(self, job: Job, *, is_final: bool) -> None:
        """Send a callback until it is accepted, and its duplicates and forgeries."""
        credentials = self.registry.credentials
        at, result = next(milestone for milestone in job.milestones() if (milestone[0] == job.final_at) == is_final)
        timestamp = format_timestamp(at)
        proof = {"timestamp": timestamp, "signature": sign(credentials, timestamp)}
        body = encode_json({**result, "ImageLinks": dict(self.links(job, at)), **proof})
        send = partial(self._send, str(job.callback_url))
        is_forged = self._draw(job, "forgeries", is_final=is_final)
        claim = _opposite(job, result, is_final=is_final)
        if is_forged:
            wrong = Credentials(credentials.partner_id, _WRONG_KEY)
            await send(encode_json({**claim, "timestamp": timestamp, "signature": sign(wrong, timestamp)}))
        if await self._is_accepted(job, send, body) and self._draw(job, "duplicates", is_final=is_final):
            await send(body)
        if is_forged:
            await send(encode_json({**claim, **proof}))

    async def _is_accepted(self, job: Job, send: Callable[[bytes], Awaitable[str | None]], body: bytes) -> bool:
        """Send a callback until it is accepted or there are no attempts left; return whether it was accepted."""
        problem: str | None = None
        for attempt in range(self.attempts):
            if attempt:
                await anyio.sleep(min(self.retry_delay * 2.0 ** (attempt - 1), _MAX_RETRY_DELAY_SECONDS))
            problem = await send(body)
            if problem is None:
                return True
        text = "a callback of job %s was not accepted, attempts: %d; %s"
        logger.warning(text, job.ref.tag, self.attempts, problem)
        return False

    async def _send(self, url: str, body: bytes) -> str | None:
        """POST once; return what was wrong, or None for a 2xx."""
        status = 0
        async with self._limiter:
            with anyio.move_on_after(self.timeout):
                try:
                    status = await self._post(url, body)
                except Exception as error:  # noqa: BLE001  # any error of a client of the caller's ends one attempt
                    return str(no_answer(error))
        if not status:
            return f"no answer within {self.timeout:.10g} s"
        return None if 200 <= status < 300 else f"HTTP {status}"

    async def _post(self, url: str, body: bytes) -> int:
        """POST *body*, and return the HTTP status of the answer; read a part of its body, which is not used."""
        if self._carrier is None:
            client = self.http_client
            self._carrier = (
                over_httpcore(_MAX_CONNECTIONS, load_trust(), None) if client is None else OverClient(client)
            )
        response = await self._carrier.send(Request("POST", url, _HEADERS, body))
        try:
            with anyio.move_on_after(_ANSWER_BODY_SECONDS), suppress(Exception):
                await Body(response, _MAX_ANSWER_BYTES, None).whole()
            return response.status
        finally:
            await response.aclose(keep=False)

    def _may_send(self, url: str) -> bool:
        """Return whether callbacks may be sent to *url*; if not, log a warning, once for each host."""
        try:
            self.check(url)
        except ValueError as error:
            host = host_in(url)  # the rest of the URL may be a secret
            if host not in self._warned:
                self._warned.add(host)
                logger.warning("callbacks to %r are not sent: %s", host, error)
            return False
        return True

    def _draw(self, job: Job, fault: str, *, is_final: bool) -> bool:
        probability: float = getattr(self.delivery, fault)
        return self.registry.rng("callback", fault, job.smile_job_id, is_final).random() < probability


def _opposite(job: Job, result: Mapping[str, object], *, is_final: bool) -> dict[str, object]:
    """Return the opposite of a result, which a forgery claims."""
    outcome = "approved" if is_final and not has_succeeded(job.result_code) else "rejected"
    code = result_code_for(outcome, job.job_type)
    return {**result, "ResultCode": code, "ResultText": text_for(code), "IsFinalResult": "true"}
