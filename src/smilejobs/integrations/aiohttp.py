"""Integration with aiohttp's server: one client per application, and a route for callbacks.

::

    app = web.Application()
    app.cleanup_ctx.append(cleanup_ctx())
    app.router.add_post("/smile-callback", callback_handler(CallbackVerifier.from_env()))
    web.run_app(app, handler_cancellation=True)

A handler gets the client from ``request.config_dict[CLIENT]``. With ``handler_cancellation=True``, here or in
``web.AppRunner``, aiohttp cancels a handler and its wait when its HTTP client disconnects.

This module needs ``pip install 'smilejobs[aiohttp]'``.
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
"""The key of the client: ``app[CLIENT]``, or ``request.config_dict[CLIENT]``, which includes outer applications."""


def cleanup_ctx(
    open_client: Callable[[], Client] = Client.from_env,
) -> Callable[[web.Application], AsyncIterator[None]]:
    """Return a cleanup context for ``app.cleanup_ctx`` that opens a client at startup and closes it at cleanup.

    Cleanup contexts that are appended after it can use the client.

    Args:
        open_client: A function that returns the client, for example ``lambda: Client.from_env(rate=20)``. It is called
            in the event loop in which the application starts.

    Raises:
        TypeError: *open_client* is not a function.
    """
    if not callable(open_client):
        raise TypeError("open_client must be a function that returns a Client, because each application needs its own")

    async def run(app: web.Application) -> AsyncIterator[None]:
        async with open_client() as client:
            app[CLIENT] = client
            yield

    return run


def callback_handler(
    verifier: CallbackVerifier,
    *,
    on_callback: OnCallback | None = None,
    body_timeout: Duration = BODY_TIMEOUT_SECONDS,
) -> Callable[[web.Request], Awaitable[web.Response]]:
    """Return a handler that receives Smile ID's callbacks and notifies the client, see `Client.notify`.

    Responses have no body. Their status is 200 for a callback, also for a duplicate; 401 if it may not come from Smile
    ID or is too old; 400 if it cannot be read; 408 if its body takes too long; 413 if its body is larger than the
    verifier allows, of which no more is read; 415 if it has a ``Content-Encoding``. Only the verifier limits the size
    of a callback; ``client_max_size`` does not apply.

    Args:
        verifier: The verifier of the callbacks.
        on_callback: A coroutine function that is called with each callback before the response, for example to tell
            other processes. It must be quick. If it raises, the status is 500, and the vendor repeats the callback.
        body_timeout: The time limit for the body of a callback, in seconds or as a timedelta.

    Raises:
        TypeError: *verifier* is not a CallbackVerifier, or *body_timeout* has the wrong type.
        ValueError: *body_timeout* is not finite and positive.
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
