"""The lifecycle of a client, its parts, and what its methods share."""

import os
from collections.abc import Callable, Iterable
from datetime import datetime
from functools import partial
from typing import Self, Unpack
from urllib.parse import urlsplit

from smilejobs.client.arguments import ClientOptions, TermsOptions, check_progress, check_refs, include
from smilejobs.clock import require_aware, utcnow
from smilejobs.durations import Duration, positive, seconds
from smilejobs.engine import Engine, count
from smilejobs.events import Hook, Hooks, log_event
from smilejobs.exchange import Exchange
from smilejobs.images import IMAGE_HOSTS, Gallery, Hosts
from smilejobs.model.jobs import Include, JobRef, JobStatus
from smilejobs.notifications import Notifications
from smilejobs.outcomes import JobRefs, Progress
from smilejobs.polling.pace import PaceFunction
from smilejobs.polling.rules import Terms
from smilejobs.scheduler import ManyJobs
from smilejobs.settings import Environment, arguments_from, is_loopback, settings
from smilejobs.transport import Fetcher, HTTPClient, HTTPSession, Transport, TransportName
from smilejobs.waiting import Wait, poll_with_retries
from smilejobs.wire.protocol import HEADERS, PATH


class BaseClient:
    """What `Client` is without its methods; its arguments are described there."""

    def __init__(
        self,
        *,
        partner_id: str,
        api_key: str,
        environment: Environment | None = None,
        base_url: str | None = None,
        http_client: HTTPClient | HTTPSession | None = None,
        transport: TransportName | None = None,
        max_connections: int = 100,
        rate: float | None = 100.0,
        request_timeout: Duration = 30.0,
        attempts: int = 3,
        max_response_bytes: int = 8 * 1024 * 1024,
        insecure_http: bool = False,
        pace: PaceFunction | None = None,
        now: Callable[[], datetime] = utcnow,
        hooks: Iterable[Hook] = (log_event,),
        image_hosts: Iterable[str] = IMAGE_HOSTS,
    ) -> None:
        try:
            checked = settings(
                partner_id=partner_id,
                api_key=api_key,
                environment=environment,
                base_url=base_url,
                insecure_http=insecure_http,
            )
        finally:
            del partner_id, api_key, base_url  # crash reporters copy the variables of every frame of a traceback
        self._base_url = checked.base_url
        self._pace = Terms(pace=pace).pace
        attempts = count(attempts, "attempts")
        clock = require_aware(now)
        max_connections = count(max_connections, "max_connections")
        over = Transport(
            checked.base_url + PATH,
            HEADERS,
            http_client=http_client,
            max_connections=max_connections,
            request_timeout=seconds(request_timeout, "request_timeout", zero=False),
            max_response_bytes=count(max_response_bytes, "max_response_bytes"),
            transport=transport,
        )
        self._fetcher = Fetcher(max_connections=max_connections, timeout=over.request_timeout, transport=transport)
        exchange = Exchange(
            over,
            checked.credentials,
            emit=Hooks(hooks),
            now=clock,
            max_connections=max_connections,
            rate=None if rate is None else positive(rate, "rate"),
        )
        self.engine = Engine(
            exchange=exchange,
            notifications=Notifications(),
            now=clock,
            max_connections=max_connections,
            attempts=attempts,
        )
        self._gallery = Gallery(
            ask=partial(_ask_for_links, self.engine),
            fetcher=self._fetcher,
            hosts=Hosts(image_hosts, loopback=is_loopback(str(urlsplit(checked.base_url).hostname))),
            max_bytes=max_response_bytes,
            attempts=attempts,
            now=clock,
        )

    @classmethod
    def from_env(cls, **options: Unpack[ClientOptions]) -> Self:
        """Return a client for the partner that the environment variables name.

        ``SMILE_PARTNER_ID`` and ``SMILE_API_KEY``, and one of ``SMILE_ENVIRONMENT`` and ``SMILE_BASE_URL``.

        Args:
            options: The other arguments of `Client`.

        Raises:
            ValueError: A variable is missing or invalid; the text names it and its argument.
        """
        insecure_http = options.get("insecure_http", False)
        return cls(**arguments_from(os.environ, insecure_http=insecure_http), **options)

    async def aclose(self) -> None:
        """Close the connections. Twice is fine; a client of yours that was given as ``http_client`` stays open.

        Raises:
            RuntimeError: The client was used in another event loop, which alone can close its connections.
        """
        await self.engine.exchange.aclose()
        await self._fetcher.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return f"<smilejobs.Client for {self._base_url}>"

    def _wait(
        self,
        user_id: str,
        job_id: str,
        *,
        submitted_at: datetime | None = None,
        image_links: bool = False,
        history: bool = False,
        **terms: Unpack[TermsOptions],
    ) -> Wait:
        asked = include(image_links=image_links, history=history)
        return Wait(self.engine, JobRef(user_id, job_id, submitted_at), self._terms(terms), asked)

    def _wait_many(
        self,
        refs: JobRefs,
        *,
        deadline: Duration | None = None,
        concurrency: int | None = None,
        max_pending: int = 100_000,
        on_progress: Callable[[Progress], None] | None = None,
        image_links: bool = False,
        history: bool = False,
        **terms: Unpack[TermsOptions],
    ) -> ManyJobs:
        check_refs(refs)
        check_progress(on_progress)
        return ManyJobs(
            self.engine,
            refs,
            self._terms(terms),
            include=include(image_links=image_links, history=history),
            concurrency=self.engine.concurrency(concurrency),
            max_pending=count(max_pending, "max_pending"),
            on_progress=on_progress,
            deadline=None if deadline is None else seconds(deadline, "deadline", zero=False),
        )

    def _terms(self, options: TermsOptions) -> Terms:
        if options.get("pace") is None:
            options["pace"] = self._pace
        return Terms(**options)


async def _ask_for_links(engine: Engine, job: JobRef | JobStatus) -> JobStatus:
    """Return *job* if it is an answer; else poll the job."""
    if isinstance(job, JobRef):
        return await poll_with_retries(engine, job, Include(image_links=True))
    engine.exchange.check_usable()
    return job
