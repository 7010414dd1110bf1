"""The sandbox: submits jobs, changes them, and serves them in process or over HTTP."""

from collections.abc import AsyncGenerator, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from functools import cached_property
from os import PathLike
from types import MappingProxyType, TracebackType
from typing import Literal, Self, Unpack

from attrs import evolve
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.routing import Route, Router
from starlette.types import ASGIApp

from smilejobs.client import Client, ClientOptions
from smilejobs.clock import require_aware, utcnow
from smilejobs.durations import Duration
from smilejobs.model.codes import NO_ZIP, STATUS_CODES, SUCCESS
from smilejobs.model.jobs import JobRef
from smilejobs.sandbox.asgi import InProcess
from smilejobs.sandbox.callbacks import DELIVERIES, Callbacks, Delivery
from smilejobs.sandbox.distributions import Distribution, as_distribution, to_seconds
from smilejobs.sandbox.faults import FaultProfile, FaultProfileName, find_profile
from smilejobs.sandbox.http.admin import Page
from smilejobs.sandbox.http.common import RefusedError, preflight, refuse
from smilejobs.sandbox.http.guard import Guarded
from smilejobs.sandbox.http.images import IMAGE_PATH, Images
from smilejobs.sandbox.http.status import Status
from smilejobs.sandbox.http.uploads import Uploads
from smilejobs.sandbox.jobs import Job, Stage, copy_json
from smilejobs.sandbox.products import result_code_for
from smilejobs.sandbox.registry import MACHINE, REVIEW, Registry, Review
from smilejobs.sandbox.server import Authority, serve
from smilejobs.sandbox.state import State, StateError
from smilejobs.settings import Credentials
from smilejobs.transport import HTTPClient
from smilejobs.wire.protocol import PATH

_BASE = "/v1"
_IN_PROCESS_ROOT = "https://localhost"
"""The root of links while the sandbox is not served."""


class Sandbox:
    """The Job Status API on this machine, with jobs that take their time, and faults on request.

    In process, on asyncio and trio, also under a virtual clock::

        async with Sandbox(now=virtual_now) as sandbox, sandbox.client() as client:
            sandbox.submit("user-1", "job-1", review=3600)
            status = await client.wait("user-1", "job-1", until="final", timeout=7200)

    or over HTTP, see `serve`; or as the ASGI application `app`. Callbacks are sent only within ``async with`` and
    `serve`.

    With the same seed, the same calls and requests at the same times get the same answers, byte for byte, in any
    order of arrival: a random draw depends only on the seed and on its purpose, such as the third poll of a certain
    job. Only a limited ``rate`` depends on the order.

    Args:
        partner_id: The partner id of all jobs.
        api_key: The key that verifies requests and signs answers.
        seed: The seed of all random draws.
        faults: The faults of polls and images: "none", "flaky", "storm", or a `FaultProfile`.
        machine: Seconds (a timedelta, a `Lognormal`, a `Mixture`) from the arrival of a job's images to the machine's
            result, where `submit` does not say. The vendor has published a median of 2 s for KYC.
        review: The length of a human review, where there is one and `submit` does not say; "open" until it is ended
            with `review` or on the page.
        delivery: How callbacks are delivered; the default depends on the preset of *faults*.
        allow_callbacks_to: The hosts beyond this machine to which callbacks may be sent.
        callback_client: An `httpx.AsyncClient` or `httpx2.AsyncClient` that sends the callbacks; it is not closed. Over
            an `httpx.ASGITransport` they reach an application in the same process.
        link_lifetime: Whole seconds (or a timedelta) until the link to an image expires. 900 s were seen in the
            vendor's links.
        picture_bytes: The size of each image in bytes; None for no padding.
        max_skew: Seconds (or a timedelta) by which the timestamp of a request may differ from the clock, before it is
            refused with 2405. None for any; the vendor's own limit is not known.
        state: A file that keeps the jobs and the counts of polls for the next sandbox; one at a time may use it.
        now: The wall clock, as a function that returns an aware datetime.

    Attributes:
        app: The ASGI application. It does not check ``Host`` and ``Origin`` of requests to the API, as `serve` does.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument is out of range; the text names it.
        OSError: The state cannot be read or written.
    """

    def __init__(
        self,
        *,
        partner_id: str = "085",
        api_key: str = "sandbox-key",
        seed: int = 0,
        faults: FaultProfileName | FaultProfile = "none",
        machine: Duration | Distribution = MACHINE,
        review: Duration | Distribution | Literal["open"] = REVIEW,
        delivery: Delivery | None = None,
        allow_callbacks_to: Collection[str] = (),
        callback_client: HTTPClient | None = None,
        link_lifetime: Duration = 900.0,
        picture_bytes: int | None = None,
        max_skew: Duration | None = None,
        state: str | PathLike[str] | None = None,
        now: Callable[[], datetime] = utcnow,
    ) -> None:
        self._names: set[str] = set()
        self._root = _IN_PROCESS_ROOT
        self._registry = Registry(
            credentials=Credentials(partner_id, api_key),
            now=require_aware(now),
            seed=seed,
            faults=find_profile(faults),
            machine=as_distribution(machine, "machine"),
            review="open" if review == "open" else as_distribution(review, "review"),
            max_skew=None if max_skew is None else timedelta(seconds=to_seconds(max_skew, "max_skew")),
            state=None if state is None else State(state),
        )
        images = Images(self._registry, lifetime=link_lifetime, picture_bytes=picture_bytes)
        self._callbacks = Callbacks(
            self._registry,
            delivery=delivery or DELIVERIES[faults if isinstance(faults, str) else "none"],
            links=lambda job, at: images.links(job, job.root or self._root, at),
            allow_to=allow_callbacks_to,
            http_client=callback_client,
        )
        self._registry.on_change = self._callbacks.schedule
        router = Router(
            routes=[
                Route(_BASE + PATH, Status(self._registry, images).answer, methods=["POST"]),
                Route(_BASE + PATH, preflight, methods=["OPTIONS"]),
                Route(IMAGE_PATH, images.answer, methods=["GET"]),
                *Uploads(self._registry).routes,
                *Page(registry=self._registry, review=self.review, names=self._names).routes,
            ],
            redirect_slashes=False,
            # As the gateway before the real API answers for a path that does not exist.
            default=JSONResponse({"message": "Missing Authentication Token"}, status_code=403),
        )
        # Not a Starlette application, which would answer 500 where a connection is to be cut.
        self.app: ASGIApp = ExceptionMiddleware(
            router, dict.fromkeys((RefusedError, StateError, ClientDisconnect), refuse)
        )

    def submit(
        self,
        user_id: str,
        job_id: str,
        *,
        outcome: str = "approved",
        job_type: int = 1,
        upload: Duration | None = 0.0,
        machine: Duration | Distribution | None = None,
        review: Review = None,
        refusal: str | None = None,
        partner_params: Mapping[str, object] | None = None,
        details: Mapping[str, object] | None = None,
        callback_url: str | None = None,
        faults: FaultProfileName | FaultProfile | None = None,
    ) -> JobRef:
        """Submit a job now, with its outcome and durations. Before that the API does not know the job (2304).

        The job is pending with 2314 until its images arrive; then pending with 2302 while the machine works; then, if
        there is a review, complete with the provisional code 0814; then complete and final.

        Args:
            user_id: The id of the user.
            job_id: The id of the job.
            outcome: "approved", "rejected" or "error", for the result code of the product; or a result code.
            job_type: The product, see `smilejobs.JOB_TYPES`.
            upload: Seconds (or a timedelta) until its images arrive; None for never, unless `receive` is called.
            machine: Seconds (a timedelta, a `Lognormal`, a `Mixture`) from there to the machine's result; None for the
                default of the sandbox.
            review: The length of the human review after that: seconds (a timedelta, a `Lognormal`, a `Mixture`); True
                for the default of the sandbox; "open" until it is ended with `review`; None for no review.
            refusal: A status code of `smilejobs.STATUS_CODES`, such as "2307", with which every poll is refused.
            partner_params: Further parameters, which the results return under ``PartnerParams``.
            details: Further keys of the results, in the vendor's spelling, such as ``{"FullName": "..."}``.
            callback_url: Where the results are sent when they are due: on this machine, or at a host of
                ``allow_callbacks_to``.
            faults: The faults of the polls and images of this job; None for those of the sandbox.

        Returns:
            The ids of the job, with the time of its submission.

        Raises:
            TypeError: An argument has the wrong type.
            ValueError: An argument is out of range, or there is a job with these ids already.
            OSError: The state cannot be written.
        """
        if refusal is not None and (refusal not in STATUS_CODES or refusal in (SUCCESS, NO_ZIP)):
            raise ValueError(f"refusal must be a status code of smilejobs.STATUS_CODES, and not {SUCCESS} or {NO_ZIP}")
        if callback_url is not None:
            self._callbacks.check(callback_url)
        now = self._registry.now()
        ref = JobRef(user_id, job_id, now)
        if ref in self._registry.jobs:
            raise ValueError("there is a job with these ids already")
        self._registry.save(
            Job(
                ref=ref,
                smile_job_id=self._registry.next_number(),
                job_type=job_type,
                result_code=result_code_for(outcome, job_type),
                refusal=refusal,
                uploaded_at=None if upload is None else now + timedelta(seconds=to_seconds(upload, "upload")),
                machine=self._registry.draw_machine(ref, machine),
                review=self._registry.draw_review(ref, review),
                partner_params=copy_json(partner_params, "partner_params"),
                details=copy_json(details, "details"),
                callback_url=callback_url,
                faults=None if faults is None else find_profile(faults),
            )
        )
        return ref

    def receive(self, ref: JobRef) -> None:
        """Receive the images of a job now: the machine begins.

        Raises:
            ValueError: There is no such job, or the time of its images is set already.
            OSError: The state cannot be written.
        """
        job = self._registry.find(ref)
        if job.uploaded_at is not None:
            raise ValueError("the images of this job are in already, or on their way")
        self._registry.save(evolve(job, uploaded_at=self._registry.now()))

    def review(self, ref: JobRef, outcome: str) -> None:
        """End the human review of a job now.

        Args:
            ref: The job.
            outcome: As in `submit`.

        Raises:
            ValueError: There is no such job, it is not under review, or there is no such outcome.
            OSError: The state cannot be written.
        """
        job, now = self._registry.find(ref), self._registry.now()
        if job.stage(now) is not Stage.UNDER_REVIEW:
            raise ValueError("this job is not under review")
        self._registry.save(evolve(job, result_code=result_code_for(outcome, job.job_type), reviewed_at=now))

    @property
    def jobs(self) -> Mapping[JobRef, Job]:
        """The jobs, with their planned results and times."""
        return MappingProxyType(self._registry.jobs)

    def polls(self, ref: JobRef) -> int:
        """Return how often a job was polled, refused polls included; the job need not exist."""
        return self._registry.polls(ref)

    def client(self, **options: Unpack[ClientOptions]) -> Client:
        """Return a client of this partner whose requests stay in this process, under the clock of the sandbox.

        Args:
            options: Further arguments of the client, which may raise TypeError or ValueError.
        """
        options.setdefault("http_client", InProcess(self.app))
        options.setdefault("now", self._registry.now)
        partner_id, api_key = self._registry.credentials.partner_id, self._registry.credentials.api_key
        return Client(partner_id=partner_id, api_key=api_key, base_url=_IN_PROCESS_ROOT + _BASE, **options)

    @property
    def ca_pem(self) -> bytes:
        """The certificate that a client has to trust if the sandbox is served with ``tls=True``."""
        return self._authority.pem

    @asynccontextmanager
    async def serve(self, *, host: str = "127.0.0.1", port: int = 0, tls: bool = False) -> AsyncGenerator[str, None]:
        """Serve over HTTP while the block runs, in the running event loop, which must be asyncio's.

        A request is answered only if its ``Host`` is a name of this machine or the *host*, and if it is not from a web
        page of another origin. With a *host* beyond loopback any address and any name without a dot is accepted too.

        The block gets the ``base_url`` for a client, for example "http://127.0.0.1:43211/v1".

        Args:
            host: The address to listen at; loopback by default.
            port: The port; 0 for any that is free.
            tls: Whether to serve https, with a certificate for this machine and the *host*; see `ca_pem`.

        Raises:
            OSError: The address cannot be listened at.
            RuntimeError: The event loop is not asyncio's.
            ValueError: A certificate cannot name such a host.
        """
        context = self._authority.context(host) if tls else None
        self._names.add(host.lower())
        async with self._callbacks.running(), serve(Guarded(self.app, self._names), host, port, context) as self._root:
            yield self._root + _BASE

    async def __aenter__(self) -> Self:
        self._background = self._callbacks.running()
        await self._background.__aenter__()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        return await self._background.__aexit__(exc_type, exc, traceback)

    @cached_property
    def _authority(self) -> Authority:
        return Authority()
