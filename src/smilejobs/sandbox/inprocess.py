"""A client's way to the sandbox without a network, in the place of an HTTP client."""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import anyio
import anyio.lowlevel
from attrs import define, field
from starlette.types import ASGIApp, Message

from smilejobs.sandbox.answers import ConnectionCutError


@define
class _Response:
    """A response, as far as it came."""

    status_code: int = 0
    headers: dict[str, str] = field(factory=dict[str, str])
    pieces: list[bytes] = field(factory=list[bytes])
    failure: ConnectionCutError | None = None

    async def aiter_raw(self) -> AsyncIterator[bytes]:
        """Yield the body as it came; raise where it broke off."""
        await anyio.lowlevel.checkpoint()
        yield b"".join(self.pieces)
        if self.failure is not None:
            raise self.failure


class InProcess:
    """Fits in the place of an HTTP client, and hands each request to an ASGI application.

    Unlike `httpx.ASGITransport` it delivers what came before a connection was cut.

    Args:
        app: The application.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    @asynccontextmanager
    async def stream(
        self,
        method: str,
        url: str,
        *,
        content: bytes,
        headers: Mapping[str, str],
        auth: None,
        follow_redirects: bool,
        timeout: None,
    ) -> AsyncGenerator[_Response, None]:
        """Send one request.

        Raises:
            ConnectionCutError: The connection was cut before the head of the answer.
        """
        parts = urlsplit(url)
        sent = {"host": parts.netloc, **{name.lower(): value for name, value in headers.items()}}
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": parts.scheme,
            "path": parts.path,
            "raw_path": parts.path.encode(),
            "query_string": parts.query.encode(),
            "root_path": "",
            "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in sent.items()],
            "client": None,
            "server": (parts.hostname, parts.port),
        }
        response = _Response()

        async def receive() -> Message:
            return {"type": "http.request", "body": content, "more_body": False}

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                response.status_code = message["status"]
                response.headers = {
                    name.decode("latin-1"): value.decode("latin-1") for name, value in message["headers"]
                }
            else:
                response.pieces.append(message["body"])

        await anyio.lowlevel.checkpoint()
        try:
            await self._app(scope, receive, send)
        except ConnectionCutError as error:
            if not response.status_code:
                raise
            response.failure = error
        yield response
