"""Real HTTP servers, raw enough to misbehave, for both backends."""

import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

import anyio
from anyio.abc import ByteReceiveStream, ByteSendStream, SocketAttribute, SocketStream
from anyio.streams.buffered import BufferedByteReceiveStream
from anyio.streams.tls import TLSStream
from attrs import define, field

Stream = SocketStream | TLSStream
Handler = Callable[[Stream, bytes], Awaitable[None]]
"""Answers one request: the stream to write to, and the request's body."""


@define
class Server:
    """A server under test, and what it has seen."""

    port: int
    connections: int = 0
    requests: int = 0
    open: int = 0
    most_open: int = 0
    heads: list[bytes] = field(factory=list)

    def url(self, scheme: str = "http") -> str:
        return f"{scheme}://localhost:{self.port}/v1"


def http(body: bytes, status: str = "200 OK", *headers: str) -> bytes:
    """The bytes of a response."""
    head = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Content-Type: application/json", *headers]
    return "\r\n".join([*head, "", ""]).encode() + body


@asynccontextmanager
async def serve(
    handler: Handler, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1"
) -> AsyncGenerator[Server, None]:
    """Serve on a free port of loopback while the block runs."""
    listener = await anyio.create_tcp_listener(local_host=host, local_port=0)
    server = Server(port=listener.extra(SocketAttribute.local_port))

    async def connection(stream: SocketStream) -> None:
        server.connections += 1
        server.open += 1
        server.most_open = max(server.open, server.most_open)
        try:
            async with stream:
                secure = stream if tls is None else await TLSStream.wrap(stream, ssl_context=tls, server_side=True)
                received = BufferedByteReceiveStream(secure)
                while True:
                    head = await received.receive_until(b"\r\n\r\n", 65_536)
                    lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
                    body = await received.receive_exactly(int(lengths[0].split(b":")[1])) if lengths else b""
                    server.requests += 1
                    server.heads.append(head)
                    await handler(secure, body)
        except (anyio.EndOfStream, anyio.IncompleteRead, anyio.BrokenResourceError, anyio.ClosedResourceError):
            pass
        except ssl.SSLError:
            pass
        finally:
            server.open -= 1

    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, connection)
        yield server
        tasks.cancel_scope.cancel()


@asynccontextmanager
async def serve_proxy(
    port: int, tls: ssl.SSLContext | None = None, refusal: bytes | None = None
) -> AsyncGenerator[Server, None]:
    """A proxy that connects everybody to *port* of this machine, whatever they ask for, or refuses to."""

    async def connect(stream: Stream, body: bytes) -> None:
        if refusal is not None:
            await stream.send(refusal)
            return
        async with await anyio.connect_tcp("127.0.0.1", port) as target, anyio.create_task_group() as tasks:
            await stream.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
            tasks.start_soon(_relay, target, stream)
            await _relay(stream, target)
            tasks.cancel_scope.cancel()
        await stream.aclose()

    async with serve(connect, tls) as server:
        yield server


async def _relay(source: ByteReceiveStream, target: ByteSendStream) -> None:
    try:
        async for data in source:
            await target.send(data)
    except (anyio.BrokenResourceError, anyio.ClosedResourceError):
        pass
