"""Which requests are answered: those to a name of the sandbox, and from pages of this machine.

The default key is public, and a job that is submitted with it makes the sandbox POST to ports of this machine. So a web
page from elsewhere must not reach the sandbox through a developer's browser: neither under its own name, which it can
point at this machine (DNS rebinding; the ``Host`` header tells), nor across origins (the ``Origin`` header tells).
"""

from collections.abc import Set as AbstractSet

from attrs import frozen
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from smilejobs.sandbox.http.common import root_of
from smilejobs.settings import is_loopback, split_url

_FORBIDDEN = (
    "This sandbox answers only under its own names: use localhost or 127.0.0.1, or the address at which it listens, "
    "from a program or from a page of this machine."
)


@frozen
class Guarded:
    """An ASGI application that answers 403 to each request from elsewhere.

    The names of a sandbox are those of this machine and *names*, at which it listens, in small letters. If it listens
    beyond loopback, any address and any name without a dot, such as that of a container, is a name too: the name of a
    page from elsewhere has a dot.
    """

    app: ASGIApp
    names: AbstractSet[str]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        is_allowed = self._allows(Request(scope))
        await (self.app if is_allowed else JSONResponse({"message": _FORBIDDEN}, 403))(scope, receive, send)

    def _allows(self, request: Request) -> bool:
        host, origin = host_in(f"http://{request.headers.get('host', '')}"), request.headers.get("origin")
        is_address = ":" in host or host.replace(".", "").isdigit()
        if not self._is_name(host) and not (is_address and self._is_open):
            return False
        return origin is None or origin == root_of(request) or self._is_name(host_in(origin))

    def _is_name(self, host: str) -> bool:
        is_bare = bool(host) and "." not in host and ":" not in host
        return is_loopback(host) or host in self.names or (is_bare and self._is_open)

    @property
    def _is_open(self) -> bool:
        return not all(map(is_loopback, self.names))


def host_in(url: str) -> str:
    """Return the host in *url*, in small letters; "" if it is no URL."""
    try:
        return str(split_url(url, "url").hostname)
    except ValueError:
        return ""
