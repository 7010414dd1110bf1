"""Integration with FastAPI: one client per app, a route for callbacks, and waits that end with their request.

::

    app = FastAPI(lifespan=lifespan())
    app.include_router(callback_router(CallbackVerifier.from_env()))

    @app.get("/jobs/{user_id}/{job_id}")
    async def result(user_id: str, job_id: str, request: Request, client: SmileClient) -> JobStatusModel:
        return JobStatusModel.of(await while_connected(request, client.wait(user_id, job_id)))

This module needs ``pip install 'smilejobs[fastapi]'``.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, nullcontext
from typing import TYPE_CHECKING, Annotated, TypeVar

try:
    from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request, Response
    from fastapi.requests import HTTPConnection
    from starlette.requests import ClientDisconnect
except ImportError as error:
    raise ImportError("smilejobs.integrations.fastapi needs fastapi: pip install 'smilejobs[fastapi]'") from error

from smilejobs.callbacks import CallbackVerifier
from smilejobs.client import Client
from smilejobs.durations import Duration
from smilejobs.integrations.callbacks import BODY_TIMEOUT_SECONDS, HEADERS, OnCallback, Receiver
from smilejobs.integrations.models import (
    ImageLinkModel,
    JobResultModel,
    JobStatusModel,
    PartnerParamsModel,
    PersonalJobResultModel,
    PersonalJobStatusModel,
)
from smilejobs.tasks import run_bare

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.testclient import TestClient

__all__ = [
    "ClientGoneError",
    "ImageLinkModel",
    "JobResultModel",
    "JobStatusModel",
    "PartnerParamsModel",
    "PersonalJobResultModel",
    "PersonalJobStatusModel",
    "SmileClient",
    "callback_router",
    "client_of",
    "get_client",
    "lifespan",
    "while_connected",
]

_T = TypeVar("_T")
_KEY = "smilejobs_client"
"""The key of the client in the state of the app and in the state of its lifespan."""

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[Mapping[str, object] | None]]


class ClientGoneError(HTTPException):
    """The HTTP client disconnected before the response: status 499, as in nginx. The response is not delivered."""

    def __init__(self) -> None:
        super().__init__(status_code=499, detail="the client has gone")


def lifespan(
    open_client: Callable[[], Client] = Client.from_env, *, inner: Lifespan | None = None
) -> Callable[[FastAPI], AbstractAsyncContextManager[Mapping[str, object]]]:
    """Return a lifespan for an app that opens a client at startup and closes it at shutdown.

    Routes of the app and of mounted apps get the client as a parameter of the type `SmileClient`; other code gets it
    from `get_client`.

    Args:
        open_client: A function that returns the client, for example ``lambda: Client.from_env(rate=20)``. It is called
            at each startup, in the event loop of the app.
        inner: Another lifespan, decorated with ``contextlib.asynccontextmanager``; None for none. It runs while the
            client is open; the mapping that it yields becomes state of the requests as usual.

    Raises:
        TypeError: *open_client* or *inner* is not a function.
    """
    if not callable(open_client):
        raise TypeError("open_client must be a function that returns a Client, because each startup needs a new one")
    if not (inner is None or callable(inner)):
        raise TypeError("inner must be a lifespan: a function of the app that returns an async context manager")

    @asynccontextmanager
    async def run(app: FastAPI) -> AsyncGenerator[Mapping[str, object], None]:
        async with open_client() as client:
            setattr(app.state, _KEY, client)
            try:
                async with nullcontext() if inner is None else inner(app) as state:
                    yield {**(state or {}), _KEY: client}
            finally:
                delattr(app.state, _KEY)

    return run


async def client_of(connection: HTTPConnection) -> Client:
    """Return the client of the app that received a request or a WebSocket: the dependency of `SmileClient`.

    A test can replace it without a lifespan: ``app.dependency_overrides[client_of]``.

    Raises:
        RuntimeError: The app has no client.
    """
    # A mounted app has no lifespan; for its requests, connection.state holds the state of the outer app's lifespan.
    for state in (connection.app.state, connection.state):
        client: Client | None = getattr(state, _KEY, None)
        if client is not None:
            return client
    raise RuntimeError(_NO_CLIENT)


SmileClient = Annotated[Client, Depends(client_of)]
"""The type of a route's parameter that receives the app's client."""


def get_client(app: "Starlette | TestClient") -> Client:
    """Return the client of a running app, given the app or its ``TestClient``.

    Raises:
        RuntimeError: The app has no client.
    """
    client: Client | None = getattr(getattr(getattr(app, "app", app), "state", None), _KEY, None)
    if client is None:
        raise RuntimeError(_NO_CLIENT)
    return client


_NO_CLIENT = (
    "this app has no smilejobs client: create the app with FastAPI(lifespan=smilejobs.integrations.fastapi.lifespan()) "
    "and run its lifespan (in a test: with TestClient(app) as http)"
)


def callback_router(
    verifier: CallbackVerifier,
    *,
    path: str = "/smile-callback",
    on_callback: OnCallback | None = None,
    body_timeout: Duration = BODY_TIMEOUT_SECONDS,
) -> APIRouter:
    """Return a router that receives Smile ID's callbacks and notifies the app's client, see `Client.notify`.

    Responses have no body. Their status is 200 for a callback, also for a duplicate; 401 if it may not come from Smile
    ID or is too old; 400 if it cannot be read; 408 if its body takes too long; 413 if its body is larger than the
    verifier allows, of which no more is read; 415 if it has a ``Content-Encoding``.

    Args:
        verifier: The verifier of the callbacks.
        path: The path of the route, which is not part of the app's OpenAPI schema.
        on_callback: A coroutine function that is called with each callback before the response, for example to tell
            other processes. It must be quick. If it raises, the status is 500, and the vendor repeats the callback.
        body_timeout: The time limit for the body of a callback, in seconds or as a timedelta.

    Raises:
        TypeError: *verifier* is not a CallbackVerifier, or *body_timeout* has the wrong type.
        ValueError: *body_timeout* is not finite and positive.
    """
    receiver = Receiver(verifier, on_callback, body_timeout, ClientDisconnect)
    router = APIRouter()

    @router.post(path, include_in_schema=False)
    async def smile_callback(request: Request, client: SmileClient) -> Response:
        coding = request.headers.get("Content-Encoding")
        async with aclosing(request.stream()) as pieces:
            http_status = await receiver.receive(pieces, coding, client)
        return Response(status_code=http_status, headers=HEADERS.get(http_status))

    return router


async def while_connected(request: Request, work: Awaitable[_T]) -> _T:
    """Await *work* until it ends or the HTTP client disconnects.

    FastAPI does not cancel a route when its HTTP client disconnects; without this function, the wait would run to its
    end.

    If the route needs the body of the request, read it before: the unread rest is discarded.

    Args:
        request: The request that the route answers.
        work: For example ``client.wait(user_id, job_id)``; it is cancelled if the HTTP client disconnects.

    Raises:
        ClientGoneError: The HTTP client disconnected. It needs no handling: FastAPI turns it into a response, which is
            not delivered.
        Exception: An exception of *work*, unchanged.
    """

    async def result() -> _T:
        return await work

    async def watch_connection() -> None:
        await _until_gone(request)
        raise ClientGoneError

    return (await run_bare(result, background=[watch_connection]))[0]


async def _until_gone(request: Request) -> None:
    try:
        async with aclosing(request.stream()) as pieces:
            async for _ in pieces:
                pass
    except ClientDisconnect:
        return
    except RuntimeError:
        pass  # the body has been read already, in pieces
    while (await request.receive())["type"] != "http.disconnect":
        pass
