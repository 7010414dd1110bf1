"""The types of everything public, as a type checker sees them. Checked with mypy --strict and pyright, never run.

A `type: ignore` marks a line that must be refused; mypy reports an ignore that is not needed.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal, Unpack, assert_type

import httpx
import httpx2
import pandas as pd
import polars as pl

import smilejobs
from smilejobs import (
    ApiError,
    Callback,
    CallbackError,
    CallbackVerifier,
    CallbackVerifierOptions,
    Client,
    ClientOptions,
    Credentials,
    HTTPClient,
    HTTPResponse,
    Image,
    ImageError,
    ImageLink,
    ImageLinks,
    JobRef,
    JobResult,
    JobStatus,
    NotApprovedError,
    Pace,
    PartnerParams,
    ResultCode,
    SavedImages,
    SmileJobsError,
    StatusCode,
    TooManyFailuresError,
    Verdict,
    WaitOptions,
    WaitTimeoutError,
)
from smilejobs.batch import Batch, check


def utc_now() -> datetime:
    """A wall clock."""
    raise NotImplementedError


def steady(age: float, polls: int) -> float:
    """A pace."""
    return assert_type(age, float) + assert_type(polls, int)


def clients(theirs: httpx.AsyncClient, also_theirs: httpx2.AsyncClient, injected: HTTPClient) -> None:
    """A client takes keywords; all durations are seconds or timedeltas."""
    assert_type(Client(partner_id="085", api_key="k", environment="sandbox"), Client)
    Client(partner_id="085", api_key="k", environment="production", http_client=theirs)
    Client(partner_id="085", api_key="k", base_url="https://a.example/v1", http_client=also_theirs)
    Client(partner_id="085", api_key="k", base_url="http://sandbox:8787/v1", http_client=injected, insecure_http=True)
    Client(partner_id="085", api_key="k", environment="sandbox", transport="aiohttp")
    Client(partner_id="085", api_key="k", environment="sandbox", transport="curl")  # type: ignore[arg-type]  # there are two transports
    Client(
        partner_id="085",
        api_key="k",
        environment="sandbox",
        max_connections=10,
        rate=None,
        request_timeout=timedelta(seconds=5),
        attempts=1,
        max_response_bytes=1024,
        now=utc_now,
    )
    assert_type(Client.from_env(), Client)
    assert_type(Client.from_env(rate=5, request_timeout=2.5, attempts=1, http_client=also_theirs, now=utc_now), Client)
    options: ClientOptions = {"max_connections": 5, "http_client": theirs}
    assert_type(Client.from_env(**options), Client)

    Client("085", "k", "sandbox")  # type: ignore[call-arg]  # keywords only
    Client(partner_id=85, api_key="k", environment="sandbox")  # type: ignore[arg-type]  # an id is a text
    Client(partner_id="85", api_key="k", environment="live")  # type: ignore[arg-type]  # there is no such environment
    Client(partner_id="85", api_key="k", environment="sandbox", http_client=httpx.Client())  # type: ignore[arg-type]  # a client that cannot await
    Client.from_env(partner_id="085")  # type: ignore[call-arg]  # that one comes from the environment


class Subclass(Client):
    """A client of the caller's own."""


async def one_job(client: Client, pace: Pace) -> None:
    """The three methods for one job."""
    assert_type(await client.job_status("u", "j"), JobStatus)
    assert_type(await client.job_status("u", "j", image_links=True, history=True), JobStatus)
    assert_type(await client.wait("u", "j"), JobStatus)
    assert_type(
        await client.wait(
            "u",
            "j",
            timeout=timedelta(hours=1),
            until="final",
            pace=pace,
            first_after=timedelta(seconds=2),
            submitted_at=utc_now(),
            image_links=True,
            history=True,
        ),
        JobStatus,
    )
    await client.wait("u", "j", timeout=None, until="complete", pace=steady, first_after=1)
    answers = client.watch("u", "j", timeout=60, until="final", pace=steady, submitted_at=None)
    assert_type(answers, AsyncIterator[JobStatus])
    async for status in answers:
        assert_type(status, JobStatus)
    assert_type(await client.aclose(), None)
    async with client as same:
        assert_type(same, Client)
    async with Subclass.from_env() as subclassed:
        assert_type(subclassed, Subclass)

    await client.job_status("u", 5)  # type: ignore[arg-type]  # an id is a text
    await client.job_status("u", "j", True)  # type: ignore[call-arg]  # what is asked for has a keyword
    await client.wait("u", "j", until="done")  # type: ignore[arg-type]  # there is no such end
    await client.wait("u", "j", timeout="5")  # type: ignore[arg-type]  # a duration is no text
    client.watch("u", "j", patience=5)  # type: ignore[call-arg]  # wait has no such option
    client.watch("u", "j", until="done")  # type: ignore[arg-type]  # there is no such end


async def forwarded(client: Client, **options: Unpack[WaitOptions]) -> JobStatus:
    """Callers can pass the options of a wait on."""
    client.watch("u", "j", **options)
    return assert_type(await client.wait("u", "j", **options), JobStatus)


def answer(status: JobStatus) -> None:
    """The attributes of an answer."""
    assert_type(status.user_id, str)
    assert_type(status.job_id, str)
    assert_type(status.ref, JobRef)
    assert_type(status.job_complete, bool)
    assert_type(status.job_success, bool | None)
    assert_type(status.code, str | None)
    assert_type(status.message, str | None)
    assert_type(status.result, JobResult | None)
    assert_type(status.history, tuple[JobResult, ...])
    assert_type(status.image_links, ImageLinks | None)
    assert_type(status.timestamp, datetime | None)
    assert_type(status.retry_after, float | None)
    assert_type(status.raw, Mapping[str, object])
    assert_type(status.verdict, Verdict | None)
    assert_type(status.is_final, bool)
    assert_type(status.as_dict(), dict[str, object])
    assert_type(status.as_dict(personal=True, links=True), dict[str, object])
    assert_type(status.raise_for_verdict(), None)

    status.code = "2302"  # type: ignore[misc]  # an answer is frozen
    JobStatus("u", "j")  # type: ignore[call-arg]  # keywords only


def outcome(result: JobResult) -> None:
    """The attributes of a result."""
    assert_type(result.result_code, str | None)
    assert_type(result.result_text, str | None)
    assert_type(result.result_type, str | None)
    assert_type(result.smile_job_id, str | None)
    assert_type(result.confidence_value, float | None)
    assert_type(result.actions, Mapping[str, str])
    assert_type(result.is_final_result, bool | None)
    assert_type(result.is_machine_result, bool | None)
    assert_type(result.raw, Mapping[str, object])
    assert_type(result.partner_params, PartnerParams | None)
    assert_type(result.as_dict(personal=True), dict[str, object])
    for personal in (
        *(result.country, result.id_type, result.id_number, result.full_name, result.first_name, result.last_name),
        *(result.other_name, result.dob, result.gender, result.address, result.phone_number, result.phone_number2),
        *(result.expiration_date, result.issuance_date, result.secondary_id_number, result.id_status),
        *(result.photo, result.document),
    ):
        assert_type(personal, str | None)
    if result.partner_params is not None:
        assert_type(result.partner_params.user_id, str | None)
        assert_type(result.partner_params.job_id, str | None)
        assert_type(result.partner_params.job_type, int | None)
        assert_type(result.partner_params.extra, Mapping[str, object])


def links(images: ImageLinks) -> None:
    """Links are a mapping, with an attribute for the one that is documented."""
    assert_type(images.error, str | None)
    assert_type(images.selfie_image, ImageLink | None)
    assert_type(images["selfie_image"], ImageLink)
    assert_type(images.get("id_card_image"), ImageLink | None)
    for name, link in images.items():
        assert_type(name, str)
        assert_type(link.url, str)
        assert_type(link.expires_at, datetime | None)
        assert_type(link.expired(utc_now()), bool | None)
    mapping: Mapping[str, ImageLink] = images
    ImageLinks(links=mapping, error="x")
    ImageLink(url="https://a.example/a.jpg")


async def pictures(client: Client, folder: Path) -> None:
    """Pictures are values or files; an error says why one is missing."""
    images = client.images("u", "j", names=["selfie_image"])
    assert_type(images, AsyncIterator[Image])
    async for image in images:
        assert_type(image.name, str)
        assert_type(image.content_type, str)
        assert_type(image.data, bytes)
        assert_type(image.ref, JobRef)
    assert_type(await client.save_images("u", "j", "folder"), list[Path])
    await client.save_images("u", "j", folder, names={"selfie_image"})
    status = await client.wait("u", "j", image_links=True)
    for job in (status, status.ref):
        assert_type(client.images(job, names=["selfie_image"]), AsyncIterator[Image])
        assert_type(await client.save_images(job, folder, names=["selfie_image"]), list[Path])
    client.save_images_many([("u", "j")], folder, until="final", history=True)
    saving = client.save_images_many([("u", "j")], folder, timeout=None, concurrency=5, on_progress=print)
    assert_type(saving, AbstractAsyncContextManager[AsyncIterator[SavedImages]])
    async with saving as outcomes:
        async for outcome in outcomes:
            assert_type(outcome.index, int)
            assert_type(outcome.ref, JobRef)
            assert_type(outcome.outcome, smilejobs.Outcome)
            assert_type(outcome.paths, tuple[Path, ...])
            assert_type(outcome.error, SmileJobsError | None)
    try:
        await client.save_images("u", "j", folder)
    except ImageError as error:
        assert_type(error.reason, smilejobs.ImageReason)
        assert_type(error.name, str | None)
        assert_type(error.text, str | None)
        assert_type(error.saved, tuple[Path, ...])
        assert_type(error.others, tuple[ImageError, ...])
    assert_type(smilejobs.IMAGE_HOSTS, tuple[str, ...])
    Client.from_env(image_hosts=[*smilejobs.IMAGE_HOSTS, "pictures.example.org"])

    await client.save_images("u", "j")  # type: ignore[call-overload]  # the folder is missing
    client.images("u", "j", ["selfie_image"])  # type: ignore[call-overload]  # names have a keyword
    client.images(status, "j")  # type: ignore[call-overload]  # the status names the job
    await client.save_images(status)  # type: ignore[call-overload]  # the folder is missing
    client.save_images_many([("u", "j")], folder, image_links=True)  # type: ignore[call-arg]  # links are always needed
    client.save_images_many([("u", "j")], folder, until="done")  # type: ignore[arg-type]  # there is no such end


def callbacks(credentials: Credentials, body: bytes) -> None:
    """A verifier takes bytes; a callback is a value without a verdict; an error says why."""
    verifier = CallbackVerifier(credentials)
    CallbackVerifier(credentials, max_age=None, max_bytes=1024, now=utc_now)
    CallbackVerifier(credentials, max_age=timedelta(minutes=5))
    CallbackVerifier(credentials, max_age=300)
    assert_type(verifier.max_bytes, int)
    try:
        callback = verifier.verify(body)
    except CallbackError as error:
        assert_type(error.reason, Literal["oversized", "malformed", "unsigned", "undated", "stale", "future"])
        assert_type(error.ref, JobRef | None)
        _ours: SmileJobsError = error
    else:
        assert_type(callback, Callback)
        assert_type(callback.ref, JobRef)
        assert_type(callback.result, JobResult)
        assert_type(callback.image_links, ImageLinks | None)
        assert_type(callback.timestamp, datetime | None)
        assert_type(callback.duplicate, bool)
        callback.duplicate = True  # type: ignore[misc]  # a callback is frozen

    verifier.verify("{}")  # type: ignore[arg-type]  # a body is bytes
    CallbackVerifier("085", "k")  # type: ignore[arg-type, call-arg]  # it takes Credentials
    CallbackVerifier(credentials, max_age="5")  # type: ignore[arg-type]  # a duration is no text


def hooks(event: smilejobs.Event) -> None:
    """A hook is a function that takes any event; events differ by their classes."""
    match event:
        case smilejobs.PollFinished() | smilejobs.PollFailed():
            assert_type(event.ref, JobRef)
            assert_type(event.wait, object | None)
            assert_type(event.seconds, float)
            assert_type(event.late, float)
        case smilejobs.PollScheduled():
            assert_type(event.delay, float)
            assert_type(event.error, SmileJobsError | None)
        case smilejobs.WaitEnded():
            assert_type(event.status, JobStatus | None)
            assert_type(event.error, SmileJobsError | None)
            assert_type(event.polls, int)
            assert_type(event.elapsed, float)
        case smilejobs.Throttled():
            assert_type(event.pause, float)
        case _:
            assert_type(event, smilejobs.Notified)
    hook: smilejobs.Hook = hooks
    Client.from_env(hooks=(hook, smilejobs.log_event))
    options: CallbackVerifierOptions = {"max_age": None, "max_bytes": 1024, "now": utc_now}
    assert_type(CallbackVerifier.from_env(**options), CallbackVerifier)

    Client.from_env(hooks=[print_poll])  # type: ignore[list-item]  # it takes polls only
    Client.from_env(hooks=hook)  # type: ignore[arg-type]  # hooks are many


def print_poll(poll: smilejobs.PollFinished) -> None:
    """A function that takes only one kind of event."""


def names(ref: JobRef, credentials: Credentials) -> None:
    """Refs, verdicts and other small values."""
    assert_type(JobRef("u", "j"), JobRef)
    assert_type(JobRef("u", "j", utc_now()), JobRef)
    assert_type(JobRef(user_id="u", job_id="j", submitted_at=None).submitted_at, datetime | None)
    assert_type(ref.user_id, str)
    assert_type(ref.job_id, str)
    assert_type(ref.tag, str)
    assert_type(Credentials("085", "k"), Credentials)
    assert_type(credentials.partner_id, str)
    assert_type(credentials.api_key, str)
    assert_type(smilejobs.__version__, str)


def paces(until: smilejobs.Until, environment: smilejobs.Environment) -> None:
    """A pace is a value and a function; words are literals."""
    assert_type(until, Literal["complete", "final"])
    assert_type(environment, Literal["sandbox", "production"])
    pace = Pace(min=timedelta(seconds=1), max=60, fraction=0.2, jitter=0)
    assert_type(pace, Pace)
    assert_type(pace.min, float)
    assert_type(pace.max, float)
    assert_type(pace.fraction, float)
    assert_type(pace.jitter, float)
    assert_type(pace(5.0, 1), float)
    function: smilejobs.PaceFunction = pace
    assert_type(function(1.0, 2), float)
    learned = smilejobs.LearnedPace(base=pace, lateness=timedelta(seconds=2))
    function = learned
    assert_type(learned(5.0, 1), float)
    assert_type(learned.after_provisional(5.0, 1), float)
    assert_type(learned.base, Pace)
    assert_type(learned.lateness, float | None)
    assert_type(learned.limit, float)
    assert_type(learned.jobs, float)
    assert_type(learned.merge(smilejobs.LearnedPace()), smilejobs.LearnedPace)
    assert_type(smilejobs.LearnedPace.from_json(learned.to_json()), smilejobs.LearnedPace)
    learned.observe(pending_at=1, complete_at=None, provisional=True)
    Client.from_env(pace=learned)
    durations: list[smilejobs.Duration] = [1, 2.5, timedelta(seconds=3)]
    assert_type(durations[0], float | timedelta)


def tables() -> tuple[str, str]:
    """The tables are read-only mappings."""
    assert_type(smilejobs.STATUS_CODES, Mapping[str, StatusCode])
    assert_type(smilejobs.STATUS_CODES["2304"].meaning, str)
    assert_type(smilejobs.STATUS_CODES["2304"].kind, smilejobs.CodeClass)
    assert_type(smilejobs.RESULT_CODES, Mapping[str, ResultCode])
    assert_type(smilejobs.RESULT_CODES["0810"].text, str)
    assert_type(smilejobs.RESULT_CODES["0810"].verdict, Verdict)
    assert_type(smilejobs.JOB_TYPES, Mapping[int, str])
    assert_type(Verdict("approved"), Verdict)
    return Verdict.APPROVED.value, smilejobs.CodeClass.PENDING.value


def meaning(verdict: Verdict) -> str:
    """These are all verdicts: a `match` over them needs no default case."""
    match verdict:
        case Verdict.APPROVED | Verdict.PROVISIONAL:
            return "in"
        case Verdict.REJECTED | Verdict.ERROR | Verdict.UNKNOWN:
            return "out"


async def errors(client: Client) -> None:
    """Errors carry what a caller needs to decide."""
    try:
        await client.wait("u", "j")
    except WaitTimeoutError as error:
        _also: TimeoutError = error
        assert_type(error.last, JobStatus | None)
        assert_type(error.last_error, SmileJobsError | None)
        assert_type(error.polls, int)
        assert_type(error.elapsed, float)
        assert_type(error.age, float)
        assert_type(error.timeout, float)
    except TooManyFailuresError as error:
        assert_type(error.last, JobStatus | None)
        assert_type(error.last_error, SmileJobsError)
        assert_type(error.polls, int)
    except NotApprovedError as error:
        assert_type(error.status, JobStatus)
    except ApiError as error:
        assert_type(error.text, str | None)
    except SmileJobsError as error:
        assert_type(error.ref, JobRef | None)
        assert_type(error.code, str | None)
        assert_type(error.http_status, int | None)
        assert_type(error.retry_after, float | None)
        assert_type(error.transient, bool)


def tree(
    error: smilejobs.RequestError
    | smilejobs.BadResponseError
    | smilejobs.GatewayError
    | smilejobs.UntrustedError
    | smilejobs.SignatureError
    | smilejobs.WrongJobError
    | smilejobs.CredentialsError
    | smilejobs.JobNotFoundError
    | smilejobs.NoZipError
    | smilejobs.UserDisabledError
    | smilejobs.UserNotFoundError
    | smilejobs.BadRequestError
    | smilejobs.RateLimitedError
    | smilejobs.ServerError,
    untrusted: smilejobs.SignatureError | smilejobs.WrongJobError,
    refused: smilejobs.CredentialsError | smilejobs.JobNotFoundError | smilejobs.RateLimitedError,
) -> tuple[SmileJobsError, smilejobs.UntrustedError, ApiError]:
    """Every error has its base class."""
    return error, untrusted, refused


class Injected:
    """The smallest class that is accepted as an HTTP client."""

    def stream(
        self,
        method: str,
        url: str,
        *,
        content: bytes,
        headers: Mapping[str, str],
        auth: None,
        follow_redirects: bool,
        timeout: None,
    ) -> AbstractAsyncContextManager[HTTPResponse]:
        """Send one request."""
        raise NotImplementedError


async def protocols(response: HTTPResponse) -> None:
    """The protocols of an injected client and of its response."""
    injected: HTTPClient = Injected()
    Client.from_env(http_client=injected)
    assert_type(response.status_code, int)
    assert_type(response.headers, Mapping[str, str])
    assert_type(response.aiter_raw(), AsyncIterator[bytes])


async def batches(client: Client, refs: list[JobRef]) -> None:
    """A batch is a sequence; its frame has the type of the chosen library."""
    batch = assert_type(await check(client, refs, timeout=timedelta(minutes=1), until="final", progress=False), Batch)
    await check(client, [("u", "j")], patience=3)  # type: ignore[call-arg]  # wait_many has no such option
    assert_type(batch[0], smilejobs.Outcome)
    assert_type(batch[:1], Batch)
    assert_type(batch.counts(), dict[str, int])
    assert_type(batch.frame("pandas"), pd.DataFrame)
    assert_type(batch.frame("polars", personal=True), pl.DataFrame)
    assert_type(batch.frame(), pd.DataFrame | pl.DataFrame)
    batch.frame("arrow")  # type: ignore[call-overload]  # there are two libraries
