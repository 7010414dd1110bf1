"""The sandbox: the jobs that it has, and the doors to everything that it can do."""

from collections.abc import AsyncGenerator, Callable, Collection, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime, timedelta
from functools import cached_property
from os import PathLike
from types import MappingProxyType, TracebackType
from typing import Literal, Self, Unpack

from attrs import evolve
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, Router
from starlette.types import ASGIApp

from smilejobs.client import Client, ClientOptions
from smilejobs.clock import require_aware, utcnow
from smilejobs.durations import Duration
from smilejobs.model.jobs import JobRef
from smilejobs.sandbox.answers import Endpoint, preflight
from smilejobs.sandbox.callbacks import DELIVERIES, Callbacks, Delivery
from smilejobs.sandbox.dice import Lognormal, lasting, within_reason
from smilejobs.sandbox.guard import Guard
from smilejobs.sandbox.images import PATH as IMAGE_PATH
from smilejobs.sandbox.images import Images
from smilejobs.sandbox.inprocess import InProcess
from smilejobs.sandbox.jobs import Job, Stage
from smilejobs.sandbox.page import Page
from smilejobs.sandbox.polls import Polls
from smilejobs.sandbox.products import result_code_for
from smilejobs.sandbox.registry import Registry, Review
from smilejobs.sandbox.server import listening
from smilejobs.sandbox.state import State
from smilejobs.sandbox.tls import Authority
from smilejobs.sandbox.uploads import Uploads
from smilejobs.sandbox.weather import Weather, WeatherName, weather_from
from smilejobs.settings import Credentials
from smilejobs.transport import HTTPClient
from smilejobs.wire.protocol import PATH

_BASE = "/v1"
_NOWHERE = "https://localhost"
"""The root of links that nobody has asked for over a network."""
_MACHINE = Lognormal(2.0, 0.6)
_REVIEW = Lognormal(600.0, 1.0)


class Sandbox:
    """A Smile ID of your own, with jobs that live, in the weather that you want.

    In process, on asyncio and trio, under a virtual clock too::

        async with Sandbox(now=virtual_now) as sandbox, sandbox.client() as client:
            sandbox.submit("user-1", "job-1", review=3600)
            status = await client.wait("user-1", "job-1", until="final", timeout=7200)

    or over a socket, see `serve`; or, in an HTTP client of yours, as the ASGI application `app`. Outside of ``async
    with`` and `serve` everything works but the callbacks.

    What chance decides depends on the seed and on what it is for, such as the third poll of a certain job, and on
    nothing else: with the same seed, the same calls and requests at the same instants get the same answers, byte for
    byte, in whatever order they come. Only a limited ``rate`` counts polls as they come.

    Args:
        partner_id: Whose jobs these are.
        api_key: The key that verifies requests and signs answers.
        seed: Draws all that is left to chance.
        weather: "calm", "rainy", "storm", or a `Weather`: what polls and pictures have to live with.
        machine: Seconds (a timedelta, a `Lognormal`) from the arrival of a job's images to the machine's result, where
            `submit` does not say. The vendor has published a median of 2 s for KYC.
        review: How long a human review takes, where there is one and `submit` does not say; "open" until a person ends
            it. Reports speak of minutes to hours.
        delivery: How callbacks are delivered; by default as it fits the name of the weather.
        allow_callbacks_to: The hosts beyond this machine to which callbacks may be sent.
        callback_client: A client of yours, `httpx.AsyncClient` or `httpx2.AsyncClient`, with which callbacks are sent:
            over an `httpx.ASGITransport` they reach an application in the same process. It is never closed here.
        link_lifetime: Seconds (or a timedelta) for which a link to an image works: a whole number, as AWS has it. The
            vendor's links were seen to live 900 s.
        picture_bytes: How large each picture is; None for as small as it can be.
        max_skew: Seconds (or a timedelta) by which the timestamp of a request may differ from the clock; what differs
            more is refused with 2405. None for any. The vendor's own limit is not known.
        state: A file in which the jobs are kept, and how often each was asked about, so that a restart goes on with
            them. It is for one sandbox at a time. Callbacks that are due while none runs are not sent.
        now: The wall clock, as a function that returns an aware datetime.

    Attributes:
        app: The ASGI application. Only `serve` checks for whom a request to the API is meant: a server of your own has
            to check ``Host`` and ``Origin`` itself.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument can never be right; the text names it.
        OSError: The state cannot be read or written.
    """

    def __init__(
        self,
        *,
        partner_id: str = "085",
        api_key: str = "sandbox-key",
        seed: int = 0,
        weather: WeatherName | Weather = "calm",
        machine: Duration | Lognormal = _MACHINE,
        review: Duration | Lognormal | Literal["open"] = _REVIEW,
        delivery: Delivery | None = None,
        allow_callbacks_to: Collection[str] = (),
        callback_client: HTTPClient | None = None,
        link_lifetime: Duration = 900.0,
        picture_bytes: int | None = None,
        max_skew: Duration | None = None,
        state: str | PathLike[str] | None = None,
        now: Callable[[], datetime] = utcnow,
    ) -> None:
        self._credentials = Credentials(partner_id, api_key)
        machine = lasting(machine, "machine")
        review = "open" if review == "open" else lasting(review, "review")
        self._now = require_aware(now)
        self._jobs: dict[JobRef, Job] = {}
        self._numbered: dict[str, Job] = {}
        self._guard = Guard()
        self._root = _NOWHERE
        self._background: AsyncExitStack | None = None
        kept = None if state is None else State(state)
        skew = None if max_skew is None else timedelta(seconds=within_reason(max_skew, "max_skew"))
        sky = weather_from(weather)
        images = Images(
            self._numbered,
            self._credentials,
            seed=seed,
            weather=sky,
            lifetime=link_lifetime,
            picture_bytes=picture_bytes,
            now=self._now,
            keep=_forget if kept is None else kept.save_fetches,
        )
        self._polls = Polls(
            self._jobs,
            self._credentials,
            seed=seed,
            weather=sky,
            max_skew=skew,
            images=images,
            now=self._now,
            keep=_forget if kept is None else kept.save_polls,
        )
        self._callbacks = Callbacks(
            self._jobs,
            self._credentials,
            seed=seed,
            now=self._now,
            delivery=delivery or DELIVERIES[weather if isinstance(weather, str) else "calm"],
            links=lambda job, at: images.links(job, job.root or self._root, at),
            allow_to=allow_callbacks_to,
            http_client=callback_client,
        )
        self._registry = Registry(
            self._jobs,
            self._numbered,
            seed=seed,
            machine=machine,
            review=review,
            callbacks=self._callbacks,
            state=kept,
            now=self._now,
        )
        uploads = Uploads(
            self._jobs,
            self._numbered,
            self._credentials,
            seed=seed,
            max_skew=skew,
            now=self._now,
            register=self._registry.register,
            receive=self._registry.receive,
        )
        page = Page(jobs=self._numbered, polls=self.polls, review=self.review, guard=self._guard, now=self._now)
        # Not an application of Starlette's: that would answer a connection that is to be cut with a 500.
        self.app: ASGIApp = Router(
            routes=[
                Route(_BASE + PATH, Endpoint(self._polls.answer), methods=["POST"]),
                Route(_BASE + PATH, preflight("POST"), methods=["OPTIONS"]),
                Route(IMAGE_PATH, Endpoint(images.answer), methods=["GET"]),
                *uploads.routes,
                *page.routes,
            ],
            redirect_slashes=False,
            default=Endpoint(_no_such_route),
        )
        if kept is not None:
            self._polls.counts.update(kept.polls())
            images.counts.update(kept.fetches())
            self._registry.restore(kept)

    def submit(
        self,
        user_id: str,
        job_id: str,
        *,
        outcome: str = "approved",
        job_type: int = 1,
        upload: Duration | None = 0.0,
        machine: Duration | Lognormal | None = None,
        review: Review = None,
        refusal: str | None = None,
        partner_params: Mapping[str, object] | None = None,
        details: Mapping[str, object] | None = None,
        callback_url: str | None = None,
        weather: WeatherName | Weather | None = None,
    ) -> JobRef:
        """Register a job now, and say how it will go. Until then the API knows no such job (2304).

        While its images are not there it is pending with 2314; then the machine works, pending with 2302; then, if
        there is a review, it is complete with 0814, provisionally; then it is complete and final.

        Args:
            user_id: The name of the user.
            job_id: The name of the job.
            outcome: "approved", "rejected" or "error", for the result code that fits the product; or a result code.
            job_type: The product, see `smilejobs.JOB_TYPES`.
            upload: Seconds (or a timedelta) until its images are in; None for never, unless they are received later,
                see `receive`.
            machine: Seconds (a timedelta, a `Lognormal`) from there to the machine's result; by default as long as the
                machine takes in this sandbox.
            review: How long a human review takes after that: seconds (a timedelta, a `Lognormal`); True for as long as
                reviews take in this sandbox; "open" until a person ends it, see `review`; None for no review.
            refusal: A status code of `smilejobs.STATUS_CODES`, such as "2301", "2307" or "2310", with which every poll
                is refused; the job never ends.
            partner_params: Further parameters, which the results give back under ``PartnerParams``.
            details: Further keys of the results, in the vendor's spelling, such as ``{"FullName": "..."}``.
            callback_url: Where the results are sent when they are there: on this machine, or at a host of
                ``allow_callbacks_to``. (A registration over HTTP may name any; it is not used if it is elsewhere.)
            weather: What the polls of this job have to live with, and its pictures; that of the sandbox by default.

        Returns:
            The name of the job, with the instant at which it was submitted.

        Raises:
            TypeError: An argument has the wrong type.
            ValueError: An argument can never be right, or there is such a job already.
            OSError: The state cannot be written.
        """
        if callback_url is not None:
            self._callbacks.check(callback_url)
        job = self._registry.made(
            JobRef(user_id, job_id, self._now()),
            outcome=outcome,
            job_type=job_type,
            machine=machine,
            review=review,
            refusal=refusal,
            partner_params=partner_params,
            details=details,
            callback_url=callback_url,
        )
        delay = None if upload is None else timedelta(seconds=lasting(upload, "upload").median)
        submitted_at = job.ref.submitted_at
        assert submitted_at is not None
        job = evolve(
            job,
            uploaded_at=None if delay is None else submitted_at + delay,
            weather=None if weather is None else weather_from(weather),
        )
        self._registry.keep(job)
        return job.ref

    def receive(self, ref: JobRef) -> None:
        """The images of a job are in, as of now: the machine begins.

        Args:
            ref: The job.

        Raises:
            ValueError: There is no such job, or its images are in already, or on their way.
            OSError: The state cannot be written.
        """
        job = self._registry.known(ref)
        if job.uploaded_at is not None:
            raise ValueError("the images of this job are in already, or on their way")
        self._registry.keep(evolve(job, uploaded_at=self._now()))

    def review(self, ref: JobRef, outcome: str) -> None:
        """Let a person end the human review of a job, as of now.

        Args:
            ref: The job.
            outcome: As that of `submit`.

        Raises:
            ValueError: There is no such job, it is not under review, or there is no such outcome.
            OSError: The state cannot be written.
        """
        job, now = self._registry.known(ref), self._now()
        if job.stage(now) is not Stage.UNDER_REVIEW:
            raise ValueError("this job is not under review")
        self._registry.keep(evolve(job, result_code=result_code_for(outcome, job.job_type), reviewed_at=now))

    @property
    def jobs(self) -> Mapping[JobRef, Job]:
        """What was submitted, and what is meant to become of it."""
        return MappingProxyType(self._jobs)

    def polls(self, ref: JobRef) -> int:
        """Return how many polls about a job there were, refusals included; the job need not exist."""
        return self._polls.counts[ref]

    def client(self, **options: Unpack[ClientOptions]) -> Client:
        """Return a client of this partner that asks this sandbox, in the same process and under the same clock.

        Args:
            options: Further arguments of the client.

        Raises:
            TypeError: An argument has the wrong type.
            ValueError: An argument can never be right.
        """
        options.setdefault("http_client", InProcess(self.app))
        options.setdefault("now", self._now)
        partner_id, api_key = self._credentials.partner_id, self._credentials.api_key
        return Client(partner_id=partner_id, api_key=api_key, base_url=_NOWHERE + _BASE, **options)

    @property
    def ca_pem(self) -> bytes:
        """The certificate that a client has to trust if the sandbox is served with ``tls=True``.

        Raises:
            ImportError: trustme is not installed.
        """
        return self._authority.pem

    @asynccontextmanager
    async def serve(
        self, *, host: str = "127.0.0.1", port: int = 0, tls: bool | Collection[str] = False
    ) -> AsyncGenerator[str, None]:
        """Serve over HTTP while the block runs, in the running event loop, which must be asyncio's.

        Answered are only requests whose ``Host`` is a name of this machine, the *host*, or one of the names of *tls*,
        and no page of another origin. With a *host* beyond loopback an address or a name without a dot is a name of
        this sandbox too.

        The block gets the ``base_url`` for a client, for example "http://127.0.0.1:43211/v1".

        Args:
            host: The address to listen at; loopback, unless this is a container.
            port: The port; 0 for any that is free.
            tls: Whether to serve https, with a certificate of its own making for this machine; or else the names of
                further hosts that the certificate is to be good for. See `ca_pem`.

        Raises:
            ImportError: trustme is not installed.
            OSError: The address cannot be listened at.
            RuntimeError: The event loop is not asyncio's.
            ValueError: There can be no certificate for such a host.
        """
        context = None
        if tls is not False:
            context = self._authority.context(host, *(() if tls is True else tls))
        self._guard.add((host, *(tls if isinstance(tls, Collection) else ())))
        async with self._callbacks.running(), listening(self._guard.over(self.app), host, port, context) as root:
            before, self._root = self._root, root
            try:
                yield root + _BASE
            finally:
                self._root = before

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._callbacks.running())
            self._background = stack.pop_all()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        assert self._background is not None
        background, self._background = self._background, None
        return await background.__aexit__(exc_type, exc, traceback)

    @cached_property
    def _authority(self) -> Authority:
        return Authority()


def _forget(what: object, count: int) -> None:
    """Without a state there is nothing to keep a count in."""


async def _no_such_route(request: Request) -> Response:
    """What the gateway before the API says about a path that there is not."""
    return JSONResponse({"message": "Missing Authentication Token"}, status_code=403)
