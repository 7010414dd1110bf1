"""The sandbox behind a socket, served by uvicorn."""

import asyncio
import errno
import os
import socket
import ssl
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any
from weakref import WeakSet

import anyio
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from smilejobs.sandbox.http.common import ConnectionCutError
from smilejobs.tasks import beside

_KEEPALIVE_SECONDS = 120
"""Longer than our clients keep a connection, so that the client closes it and not the server."""


@asynccontextmanager
async def serve(app: ASGIApp, host: str, port: int, tls: ssl.SSLContext | None = None) -> AsyncGenerator[str, None]:
    """Serve *app* in the running event loop while the block runs, and yield the URL of its root.

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
    with _Listener(host, port) as listener:
        server = _Server(app, listener, tls)
        async with beside(server.serve_until_stopped, server.stop):
            await server.is_serving.wait()
            yield make_url("http" if tls is None else "https", host, listener.getsockname()[1])


class _Listener(socket.socket):
    """Remembers its connections: uvicorn does not know those whose TLS handshake has not ended.

    asyncio would wait for such a client for a minute, and from Python 3.12 on the server would wait too.
    """

    def __init__(self, host: str, port: int) -> None:
        if not host:
            raise OSError("host must not be empty; to listen at every address of this machine, give 0.0.0.0 or ::")
        super().__init__(socket.AF_INET6 if ":" in host else socket.AF_INET)
        self._accepted = WeakSet[socket.socket]()
        self.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, os.name == "posix")
        # Connections inherit it; asyncio does not set it for such sockets. Without it the body of an answer, which is
        # sent after its head, waits up to 40 ms for the client's system.
        self.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            self.bind((host, port))
            self.listen()
        except (OSError, OverflowError, TypeError, UnicodeError) as error:
            self.close()
            if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
                raise OSError(
                    f"port {port} of {host} is in use by another program, perhaps by another sandbox: end that one, or "
                    "choose another port, or port 0 for any that is free",
                ) from None
            reason = getattr(error, "strerror", None) or error
            raise OSError(f"cannot listen at host {host!r}, port {port}: {reason}") from None

    def accept(self) -> tuple[socket.socket, Any]:
        accepted, address = super().accept()
        self._accepted.add(accepted)
        return accepted, address

    def hang_up(self) -> None:
        for accepted in self._accepted:
            with suppress(OSError):  # most are closed already
                accepted.shutdown(socket.SHUT_RDWR)


class _Server(uvicorn.Server):
    """Serves in a task, leaves the signals of the process alone, and stops without waiting for its clients."""

    def __init__(self, app: ASGIApp, listener: _Listener, tls: ssl.SSLContext | None) -> None:
        super().__init__(
            uvicorn.Config(
                self._answer,
                interface="asgi3",
                lifespan="off",
                ws="none",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                timeout_keep_alive=_KEEPALIVE_SECONDS,
            )
        )
        self.config.load()
        self.config.ssl = tls
        self.is_serving = anyio.Event()
        self._stopped = anyio.Event()
        self._app = app
        self._listener = listener

    async def serve_until_stopped(self) -> None:
        """Serve until `stop` is called, although the task is cancelled: a start that is cut short leaks sockets."""
        with anyio.CancelScope(shield=True):
            await self.serve(sockets=[self._listener])

    async def main_loop(self) -> None:
        """Wait for `stop`, then close all connections, including those with a request or an answer under way.

        uvicorn would look ten times a second, and update headers that are not sent.
        """
        self.is_serving.set()
        await self._stopped.wait()
        self.should_exit = True
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        self._listener.hang_up()
        for task in list(self.server_state.tasks):
            task.cancel()

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Leave the handlers of signals as they are."""
        yield

    def stop(self) -> None:
        """End the task, but not before it serves: many versions of uvicorn leave open what a start has opened."""
        self._stopped.set()

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; close its connection where the application cuts it, or `main_loop` has cancelled it.

        uvicorn would answer 500 and log an error if this returned before the client is gone, so it waits for that.
        """
        try:
            await self._app(scope, receive, send)
        except (ConnectionCutError, asyncio.CancelledError):
            for connection in self.server_state.connections:
                if tuple(connection.transport.get_extra_info("peername")[:2]) == scope["client"]:
                    connection.transport.close()
            while (await receive())["type"] != "http.disconnect":
                pass


class Authority:
    """A certificate authority for one sandbox; clients trust it only if they are told to.

    Its keys are made anew each time and stay in memory, except while OpenSSL reads them from a temporary file with mode
    0600.
    """

    def __init__(self) -> None:
        import trustme  # takes a tenth of a second

        self._ca = trustme.CA(organization_name="smilejobs sandbox")

    @property
    def pem(self) -> bytes:
        """The certificate that a client has to trust."""
        return self._ca.cert_pem.bytes()

    def context(self, host: str = "localhost") -> ssl.SSLContext:
        """Return a server-side TLS context whose certificate is valid for this machine and for *host*.

        Raises:
            ValueError: A certificate cannot name such a host.
        """
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._ca.issue_cert(*dict.fromkeys(("localhost", "127.0.0.1", "::1", host))).configure_cert(context)
        return context


def make_url(scheme: str, host: str, port: int) -> str:
    """Return the URL of a server on this machine; one that listens at every address is reached on loopback."""
    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  # nothing is bound to it here
    return f"{scheme}://[{reachable}]:{port}" if ":" in reachable else f"{scheme}://{reachable}:{port}"
