"""The sandbox behind a socket."""

import asyncio
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import anyio
import uvicorn
from starlette.types import ASGIApp

_KEEPALIVE = 120
"""Seconds; longer than our clients keep a connection, so that it is they who close it."""


@asynccontextmanager
async def listening(app: ASGIApp, host: str, port: int) -> AsyncGenerator[str, None]:
    """Serve *app* in the running event loop while the block runs, and yield the URL of its root.

    uvicorn's own ``serve()`` is not used: it takes over the process's signals.

    Args:
        app: What to serve.
        host: The address to listen at.
        port: The port; 0 for any that is free.

    Raises:
        OSError: The address cannot be listened at.
        RuntimeError: The event loop is not asyncio's.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        raise RuntimeError(
            "the sandbox can be served on asyncio only; elsewhere use it in process, as the app of an ASGITransport"
        ) from None
    config = uvicorn.Config(
        app,
        lifespan="off",
        ws="none",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        date_header=False,
        timeout_keep_alive=_KEEPALIVE,
    )
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, port), family=family) as listener:
        with anyio.CancelScope(shield=True):
            await server.startup(sockets=[listener])
        try:
            yield _url(host, listener.getsockname()[1])
        finally:
            # Every request is answered at once: whoever is not done has not finished asking, and is not waited for.
            for connection in list(server.server_state.connections):
                connection.transport.close()
            with anyio.CancelScope(shield=True):
                await server.shutdown(sockets=[listener])


def _url(host: str, port: int) -> str:
    """The URL at which a server on this machine is reached: one that listens everywhere is found on loopback."""
    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  # it is asked for, or else loopback
    return f"http://[{reachable}]:{port}" if ":" in reachable else f"http://{reachable}:{port}"
