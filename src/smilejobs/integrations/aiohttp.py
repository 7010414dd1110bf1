"""For aiohttp's server: one client per application, and a route for callbacks.

::

    app = web.Application()
    app.cleanup_ctx.append(cleanup_ctx())
    app.router.add_post("/smile-callback", callback_handler(CallbackVerifier.from_env()))
    web.run_app(app, handler_cancellation=True)

A handler finds the client by ``request.config_dict[CLIENT]``. With ``handler_cancellation=True``, here or in
``web.AppRunner``, aiohttp itself ends a handler, and its wait, when its HTTP client goes.

It needs ``pip install 'smilejobs[aiohttp]'``.
"""

from collections.abc import AsyncIterator, Awaitable, Callable

try:
    from aiohttp import web
except ImportError as error:
    raise ImportError("smilejobs.integrations.aiohttp needs aiohttp: pip install 'smilejobs[aiohttp]'") from error

from smilejobs.callbacks import CallbackVerifier
from smilejobs.client import Client
from smilejobs.durations import Duration
from smilejobs.integrations.callbacks import BODY_TIMEOUT_SECONDS, HEADERS, OnCallback, Receiver

__all__ = ["CLIENT", "callback_handler", "cleanup_ctx"]

CLIENT: web.AppKey[Client] = web.AppKey("smilejobs_client", Client)
"""Where the client is: ``app[CLIENT]``, and ``request.config_dict[CLIENT]``, which looks in outer applications too."""


def cleanup_ctx(
    open_client: Callable[[], Client] = Client.from_env,
) -> Callable[[web.Application], AsyncIterator[None]]:
    """Return what ``app.cleanup_ctx`` takes: it opens a client when the application starts and closes it at its end.

    What is appended after it may use the client, until its own end.

    Args:
        open_client: Makes the client, for example ``lambda: Client.from_env(rate=20)``. It is called in the event loop
            in which the application starts.

    Raises:
        TypeError: *open_client* is no function.
    """
    if not callable(open_client):
        raise TypeError("open_client must be a function that returns a Client: each application needs one of its own")

    async def running(app: web.Application) -> AsyncIterator[None]:
        async with open_client() as client:
            app[CLIENT] = client
            yield

    return running


def callback_handler(
    verifier: CallbackVerifier,
    *,
    on_callback: OnCallback | None = None,
    body_timeout: Duration = BODY_TIMEOUT_SECONDS,
) -> Callable[[web.Request], Awaitable[web.Response]]:
    """Return a handler that takes Smile ID's callbacks and notifies the waits of the client, see `Client.notify`.

    Answers have no body: 200, also for a duplicate; 401 for a callback that may not come from Smile ID, or comes too
    late; 400 for one that cannot be read; 408 for a body that takes too long; 413 for one that is larger than the
    verifier takes, of which no more is read; 415 for one with a ``Content-Encoding``. The verifier alone decides how
    large a callback may be: ``client_max_size`` is for other routes.

    Args:
        verifier: Tells callbacks of the vendor from other requests.
        on_callback: What else is to be done, for example telling other processes. The answer waits for it, so let it be
            quick; if it raises, the answer is a 500, and the vendor will repeat the callback.
        body_timeout: Seconds (or a timedelta) for the body of a callback.

    Raises:
        TypeError: *verifier* is none, or *body_timeout* has the wrong type.
        ValueError: *body_timeout* can never be right.
    """
    receiver = Receiver(verifier, on_callback, body_timeout, web.RequestPayloadError)

    async def smile_callback(request: web.Request) -> web.Response:
        client = request.config_dict.get(CLIENT)
        if client is None:
            raise RuntimeError(
                "this application has no smilejobs client: "
                "app.cleanup_ctx.append(smilejobs.integrations.aiohttp.cleanup_ctx())"
            )
        coding = request.headers.get("Content-Encoding")
        http_status = await receiver.receive(request.content.iter_any(), coding, client)
        headers = HEADERS.get(http_status)
        response = web.Response(status=http_status, headers=headers)
        if headers is not None:
            response.force_close()
        return response

    return smile_callback
