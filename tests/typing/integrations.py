"""The types of the integrations, as a type checker sees them. Checked with mypy --strict and pyright, never run."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import assert_type

from aiohttp import web
from fastapi import APIRouter, FastAPI, Request
from fastapi.testclient import TestClient
from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import TracerProvider

from smilejobs import Callback, CallbackVerifier, Client, JobStatus, Verdict, log_event
from smilejobs.integrations import aiohttp, fastapi
from smilejobs.integrations.opentelemetry import OpenTelemetryHook


def own_client() -> Client:
    """Return a client with options."""
    return Client.from_env(rate=5)


async def pass_on(callback: Callback) -> None:
    """A function for `on_callback`."""


async def with_fastapi(app: FastAPI, request: Request, client: fastapi.SmileClient) -> None:
    """An app has a lifespan and a router; a route's parameter is a client; a wait keeps its type."""
    assert_type(fastapi.lifespan(), Callable[[FastAPI], AbstractAsyncContextManager[Mapping[str, object]]])
    FastAPI(lifespan=fastapi.lifespan(own_client, inner=fastapi.lifespan()))
    router = fastapi.callback_router(CallbackVerifier.from_env(), path="/callback", on_callback=pass_on)
    assert_type(router, APIRouter)
    assert_type(client, Client)
    assert_type(fastapi.get_client(app), Client)
    assert_type(fastapi.get_client(TestClient(app)), Client)
    status = await fastapi.while_connected(request, client.wait("u", "j"))
    assert_type(status, JobStatus)

    fastapi.lifespan(own_client())  # type: ignore[arg-type]  # each app makes a client of its own
    fastapi.callback_router(pass_on)  # type: ignore[arg-type]  # the verifier is missing
    fastapi.callback_router(CallbackVerifier.from_env(), on_callback=print)  # type: ignore[arg-type]  # it is awaited


def models(status: JobStatus) -> None:
    """`of` returns the class on which it is called; only the personal model has personal data."""
    model = fastapi.JobStatusModel.of(status, links=True)
    assert_type(model, fastapi.JobStatusModel)
    assert_type(model.verdict, Verdict | None)
    assert_type(model.result, fastapi.JobResultModel | None)
    assert_type(model.history, tuple[fastapi.JobResultModel, ...])
    personal = fastapi.PersonalJobStatusModel.of(status)
    assert_type(personal, fastapi.PersonalJobStatusModel)
    assert_type(personal.result, fastapi.PersonalJobResultModel | None)


def with_aiohttp(app: web.Application) -> None:
    """A typed key returns the client of an application; a handler receives callbacks."""
    assert_type(aiohttp.cleanup_ctx(), Callable[[web.Application], AsyncIterator[None]])
    app.cleanup_ctx.append(aiohttp.cleanup_ctx(own_client))
    assert_type(app[aiohttp.CLIENT], Client)
    handler = aiohttp.callback_handler(CallbackVerifier.from_env(), on_callback=pass_on)
    assert_type(handler, Callable[[web.Request], Awaitable[web.Response]])
    app.router.add_post("/smile-callback", handler)

    aiohttp.callback_handler()  # type: ignore[call-arg]  # the verifier is missing


def with_opentelemetry(tracer_provider: TracerProvider, meter_provider: MeterProvider) -> None:
    """It is a hook like any other."""
    hook = OpenTelemetryHook(tracer_provider=tracer_provider, meter_provider=meter_provider)
    Client.from_env(hooks=[log_event, hook, OpenTelemetryHook()])

    OpenTelemetryHook(tracer_provider)  # type: ignore[call-arg]  # keywords only
