"""Requests to the sandbox in the same process, without a network."""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import anyio
import anyio.lowlevel
from attrs import define, field
from starlette.types import ASGIApp, Message

from smilejobs.sandbox.http.answers import ConnectionCutError


@define
class _Response:
    """A response, as much of it as was sent."""

    status_code: int = 0
    headers: dict[str, str] = field(factory=dict[str, str])
    pieces: list[bytes] = field(factory=list[bytes])
    failure: ConnectionCutError | None = None

    async def aiter_raw(self) -> AsyncIterator[bytes]:
        """Yield the body; raise where the connection was cut."""
        await anyio.lowlevel.checkpoint()
        yield b"".join(self.pieces)
        if self.failure is not None:
            raise self.failure


class InProcess:
    """An HTTP client whose requests go to an ASGI application.

    Unlike `httpx.ASGITransport` it delivers the part of a body that was sent before the connection was cut.

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
