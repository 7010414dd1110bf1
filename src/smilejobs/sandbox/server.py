"""The sandbox behind a socket."""

import asyncio
import errno
import socket
import ssl
import struct
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Any
from weakref import WeakSet

import anyio
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from smilejobs.sandbox.answers import ConnectionCutError

_KEEPALIVE = 120
"""Seconds; longer than our clients keep a connection, so that it is they who close it."""


@asynccontextmanager
async def listening(app: ASGIApp, host: str, port: int, tls: ssl.SSLContext | None = None) -> AsyncGenerator[str, None]:
    """Serve *app* in the running event loop while the block runs, and yield the URL of its root.

    uvicorn's own ``serve()`` is not used: it takes over the process's signals.

    Args:
        app: What to serve.
        host: The address to listen at.
        port: The port; 0 for any that is free.
        tls: The server's side of TLS; None for plain HTTP.

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
    cuttable = _Cuttable(app)
    config = uvicorn.Config(
        cuttable,
        lifespan="off",
        ws="none",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        date_header=False,
        timeout_keep_alive=_KEEPALIVE,
    )
    config.load()
    config.ssl = tls
    server = cuttable.server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    with _listener(host, port) as listener:
        # Connections inherit it. asyncio sets it for sockets alone that name their protocol, which these do not, and
        # without it the body of an answer, which follows its head, waits up to 40 ms for the client's system.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # A start that is cut short would leave behind what nobody could close.
        starting = asyncio.create_task(server.startup(sockets=[listener]))
        try:
            await asyncio.shield(starting)
            yield _url("http" if tls is None else "https", host, listener.getsockname()[1])
        finally:
            with anyio.CancelScope(shield=True):
                await starting
                # Nobody is waited for: neither who has not finished asking, nor who gets an answer in drips.
                server.should_exit = True
                for connection in list(server.server_state.connections):
                    connection.transport.abort()
                listener.hang_up()
                for task in list(server.server_state.tasks):
                    task.cancel()
                await server.shutdown(sockets=[listener])


class _Listener(socket.socket):
    """Remembers whom it has let in: who is still shaking hands for TLS is no connection of uvicorn's yet.

    asyncio would wait for such a client for a minute, from Python 3.12 on before the server may end.
    """

    def __init__(self, fileno: int) -> None:
        super().__init__(fileno=fileno)
        self._accepted = WeakSet[socket.socket]()

    def accept(self) -> tuple[socket.socket, Any]:
        accepted, address = super().accept()
        self._accepted.add(accepted)
        return accepted, address

    def hang_up(self) -> None:
        for accepted in self._accepted:
            with suppress(OSError):  # it is closed already, as most of them are
                accepted.shutdown(socket.SHUT_RDWR)


def _listener(host: str, port: int) -> _Listener:
    if not host:
        raise OSError("host must not be empty; to listen at every address of this machine, say so: 0.0.0.0 or ::")
    try:
        # `socket.create_server` would forget its socket where these fail.
        host.encode("idna")
        struct.pack("!H", port)
    except (UnicodeError, struct.error) as error:
        raise OSError(f"cannot listen at host {host!r}, port {port}: {error}") from None
    try:
        server = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        raise OSError(
            f"port {port} of {host} is in use by another program, perhaps by another sandbox: end that one, or choose "
            "another port, or port 0 for any that is free",
        ) from None
    return _Listener(server.detach())


class _Cuttable:
    """Closes the connection where the application wants that, and when the server ends under an answer.

    An application that returns before its client is gone gets a complaint of uvicorn's, and its client a 500. So it
    waits until the client is.
    """

    server: uvicorn.Server

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._app(scope, receive, send)
        except ConnectionCutError:
            for connection in self.server.server_state.connections:
                if tuple(connection.transport.get_extra_info("peername")[:2]) == scope["client"]:
                    connection.transport.close()
        except asyncio.CancelledError:
            if not self.server.should_exit:
                raise
        else:
            return
        while (await receive())["type"] != "http.disconnect":
            pass


def _url(scheme: str, host: str, port: int) -> str:
    """The URL at which a server on this machine is reached: one that listens everywhere is found on loopback."""
    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  # nothing is bound to it here
    return f"{scheme}://[{reachable}]:{port}" if ":" in reachable else f"{scheme}://{reachable}:{port}"
