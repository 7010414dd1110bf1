"""Which requests are answered: those to a name of the sandbox, and from pages of this machine.

The default key is public, and a job that is submitted with it makes the sandbox POST to ports of this machine. So a web
page from elsewhere must not reach the sandbox through a developer's browser: neither under its own name, which it can
point at this machine (DNS rebinding; the ``Host`` header tells), nor across origins (the ``Origin`` header tells).
"""

from collections.abc import Iterable

from attrs import field, frozen
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from smilejobs.sandbox.http.requests import root_of
from smilejobs.settings import is_loopback, split_url

_FORBIDDEN = (
    "This sandbox answers only under its own names: use localhost or 127.0.0.1, or the address at which it listens, "
    "from a program or from a page of this machine."
)


@frozen
class Guard:
    """Knows the names of a sandbox.

    They are those of this machine and those at which the sandbox listens. If it listens beyond loopback, any address
    and any name without a dot, such as that of a container, is a name too: the name of a page from elsewhere has a dot.
    """

    _names: set[str] = field(init=False, factory=set[str])

    def add(self, names: Iterable[str]) -> None:
        """Add names at which the sandbox listens."""
        self._names.update(name.lower() for name in names)

    def allows(self, request: Request) -> bool:
        """Return whether a request is to this sandbox, and not from a page from elsewhere."""
        host = _host(f"http://{request.headers.get('host', '')}")
        if host is None or not (self._is_name(host) or (self._is_open and _is_address(host))):
            return False
        origin = request.headers.get("origin")
        if origin is None or origin == root_of(request):
            return True
        source = _host(origin)
        return source is not None and self._is_name(source)

    @property
    def _is_open(self) -> bool:
        return not all(map(is_loopback, self._names))

    def _is_name(self, host: str) -> bool:
        return is_loopback(host) or host in self._names or (self._is_open and "." not in host and ":" not in host)


@frozen
class Guarded:
    """An ASGI application that answers 403 to each request that a guard does not allow."""

    app: ASGIApp
    guard: Guard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        is_allowed = self.guard.allows(Request(scope))
        await (self.app if is_allowed else JSONResponse({"message": _FORBIDDEN}, 403))(scope, receive, send)


def _is_address(host: str) -> bool:
    return ":" in host or host.replace(".", "").isdigit()


def _host(url: str) -> str | None:
    try:
        return split_url(url, "Host").hostname
    except ValueError:
        return None
