"""For FastAPI: one client per app, a route for callbacks, waits that end with their HTTP client.

::

    app = FastAPI(lifespan=lifespan())
    app.include_router(callback_router(CallbackVerifier.from_env()))

    @app.get("/jobs/{user_id}/{job_id}")
    async def result(user_id: str, job_id: str, request: Request, client: SmileClient) -> JobStatusModel:
        return JobStatusModel.of(await while_connected(request, client.wait(user_id, job_id)))

It needs ``pip install 'smilejobs[fastapi]'``.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, nullcontext
from typing import TYPE_CHECKING, Annotated, TypeVar

import anyio

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
"""Where the client is, in the state of the app and in that of its lifespan."""

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[Mapping[str, object] | None]]


class ClientGoneError(HTTPException):
    """The HTTP client has gone before it had its answer, which nobody will read: status 499, as nginx has it."""

    def __init__(self) -> None:
        super().__init__(status_code=499, detail="the client has gone")


def lifespan(
    open_client: Callable[[], Client] = Client.from_env, *, inner: Lifespan | None = None
) -> Callable[[FastAPI], AbstractAsyncContextManager[Mapping[str, object]]]:
    """Return a lifespan for an app that opens a client when the app starts and closes it when it ends.

    Its routes, and those of apps that are mounted in it, take it as a parameter of the type `SmileClient`; elsewhere
    `get_client` finds it.

    Args:
        open_client: Makes the client, for example ``lambda: Client.from_env(rate=20)``. It is called in the event loop
            in which the app starts, at each start.
        inner: A lifespan of yours, decorated with ``contextlib.asynccontextmanager``. It runs while the client is
            open; what it yields is state of the requests as ever.

    Raises:
        TypeError: *open_client* or *inner* is no function.
    """
    if not callable(open_client):
        raise TypeError("open_client must be a function that returns a Client: each start of the app needs a new one")
    if not (inner is None or callable(inner)):
        raise TypeError("inner must be a lifespan: a function of the app that returns an async context manager")

    @asynccontextmanager
    async def running(app: FastAPI) -> AsyncGenerator[Mapping[str, object], None]:
        async with open_client() as client:
            setattr(app.state, _KEY, client)
            try:
                async with nullcontext() if inner is None else inner(app) as state:
                    yield {**(state or {}), _KEY: client}
            finally:
                delattr(app.state, _KEY)

    return running


async def client_of(connection: HTTPConnection) -> Client:
    """Return the client of the app that a request or a WebSocket has come to: the dependency of `SmileClient`.

    A test that has no use for the lifespan puts another in its place: ``app.dependency_overrides[client_of]``.

    Raises:
        RuntimeError: There is none.
    """
    # The state of the lifespan is the outer app's also where a mounted one, which has no lifespan, answers.
    for state in (connection.app.state, connection.state):
        client = getattr(state, _KEY, None)
        if isinstance(client, Client):
            return client
    raise RuntimeError(_NO_CLIENT)


SmileClient = Annotated[Client, Depends(client_of)]
"""The type of a parameter of a route that is to be the app's client."""


def get_client(app: "Starlette | TestClient") -> Client:
    """Return the client of an app that is running, also by its ``TestClient``.

    Raises:
        RuntimeError: It has none.
    """
    client = getattr(getattr(getattr(app, "app", app), "state", None), _KEY, None)
    if not isinstance(client, Client):
        raise RuntimeError(_NO_CLIENT)  # noqa: TRY004  # it has the right type, and the wrong state
    return client


_NO_CLIENT = (
    "this app has no smilejobs client: make it with FastAPI(lifespan=smilejobs.integrations.fastapi.lifespan()), and "
    "let its lifespan run (in a test: with TestClient(app) as http)"
)


def callback_router(
    verifier: CallbackVerifier,
    *,
    path: str = "/smile-callback",
    on_callback: OnCallback | None = None,
    body_timeout: Duration = BODY_TIMEOUT_SECONDS,
) -> APIRouter:
    """Return a router that takes Smile ID's callbacks and notifies the waits of the app's client, see `Client.notify`.

    Answers have no body: 200, also for a duplicate; 401 for a callback that may not come from Smile ID, or comes too
    late; 400 for one that cannot be read; 408 for a body that takes too long; 413 for one that is larger than the
    verifier takes, of which no more is read; 415 for one with a ``Content-Encoding``.

    Args:
        verifier: Tells callbacks of the vendor from other requests.
        path: Where they come. It is not part of the app's OpenAPI schema.
        on_callback: What else is to be done, for example telling other processes. The answer waits for it, so let it be
            quick; if it raises, the answer is a 500, and the vendor will repeat the callback.
        body_timeout: Seconds (or a timedelta) for the body of a callback.

    Raises:
        TypeError: *verifier* is none, or *body_timeout* has the wrong type.
        ValueError: *body_timeout* can never be right.
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
    """Await *work*, but no longer than the HTTP client waits for the answer.

    FastAPI does not tell a route that its client has gone; without this, its wait goes on to its end for nobody.

    Read the body of the request before, if there is one that you need: what has not been read by then is thrown away.

    Args:
        request: The request that the route answers.
        work: For example ``client.wait(user_id, job_id)``; it is cancelled if the client goes.

    Raises:
        ClientGoneError: The client has gone. Left alone, FastAPI takes it for an answer, which nobody gets.
        Exception: Whatever *work* raises, as it is.
    """
    results: list[_T] = []
    problems: list[BaseException] = []

    async def listen() -> None:
        try:
            await _until_gone(request)
        except Exception as problem:  # noqa: BLE001  # handed over bare: it must not come out in a group
            problems.append(problem)
        tasks.cancel_scope.cancel()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(listen)
        try:
            results.append(await work)
        except anyio.get_cancelled_exc_class():
            raise
        except BaseException as problem:  # noqa: BLE001  # handed over bare: it must not come out in a group
            problems.append(problem)
        tasks.cancel_scope.cancel()
    for raised in problems:
        raise raised
    for result in results:
        return result
    raise ClientGoneError


async def _until_gone(request: Request) -> None:
    try:
        async with aclosing(request.stream()) as pieces:
            async for _ in pieces:
                pass
    except ClientDisconnect:
        return
    except RuntimeError:
        pass  # somebody has read the body, piece by piece
    while (await request.receive())["type"] != "http.disconnect":
        pass
