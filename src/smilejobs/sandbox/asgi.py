"""Requests to the sandbox in the same process, without a network."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import anyio.lowlevel
from attrs import frozen
from starlette.types import ASGIApp, Message

from smilejobs.sandbox.http.common import ConnectionCutError
from smilejobs.transport.over_client import LocalResponse


@frozen
class InProcess:
    """An HTTP client whose requests go to an ASGI application.

    Unlike `httpx.ASGITransport` it delivers the part of a body that was sent before the connection was cut.
    """

    app: ASGIApp

    @asynccontextmanager
    async def stream(
        self, method: str, url: str, *, content: bytes, headers: Mapping[str, str], **options: object
    ) -> AsyncGenerator[LocalResponse, None]:
        """Send one request; raise ConnectionCutError if the connection is cut before the head of the answer."""
        parts = urlsplit(url)
        sent = {"host": parts.netloc, **{name.lower(): value for name, value in headers.items()}}
        scope = {
            "type": "http",
            "method": method,
            "scheme": parts.scheme,
            "path": parts.path,
            "query_string": parts.query.encode(),
            "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in sent.items()],
        }
        messages: list[Message] = []

        async def receive() -> Message:
            return {"type": "http.request", "body": content, "more_body": False}

        async def send(message: Message) -> None:
            messages.append(message)

        failure = None
        await anyio.lowlevel.checkpoint()
        try:
            await self.app(scope, receive, send)
        except ConnectionCutError as error:
            if not messages:
                raise
            failure = error
        head, *pieces = messages
        yield LocalResponse(
            status_code=head["status"],
            headers={name.decode("latin-1"): value.decode("latin-1") for name, value in head["headers"]},
            body=b"".join(piece["body"] for piece in pieces),
            failure=failure,
        )
