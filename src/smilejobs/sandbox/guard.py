"""Which requests are answered: only those to a name of the sandbox, and from pages of this machine.

Whoever knows the default key can submit jobs, whose callbacks make the sandbox POST to ports of this machine. So a page
from elsewhere must not reach it in a developer's browser: not by its own name, which it makes point to this machine
(DNS rebinding; the ``Host`` header names it), and not across origins (the ``Origin`` header names it).
"""

from collections.abc import Iterable

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from smilejobs.sandbox.requests import root_of
from smilejobs.settings import is_loopback, split_url

FORBIDDEN = (
    "This sandbox answers to names of its own only: ask for localhost or 127.0.0.1, or for the address at which it "
    "listens, from a program or from a page of this machine."
)


class Guard:
    """Knows the names of a sandbox.

    It has those of this machine and those at which it listens. If it listens beyond this machine, it has any address
    and any name without a dot as well, such as that of a container: neither can be a name of a page from elsewhere.
    """

    def __init__(self) -> None:
        self._names: set[str] = set()

    def add(self, names: Iterable[str]) -> None:
        """Take in names at which the sandbox is served."""
        self._names |= {name.lower() for name in names}

    def allows(self, request: Request) -> bool:
        """Say whether a request is one to this sandbox, from nowhere else."""
        host = _host(f"http://{request.headers.get('host', '')}")
        if host is None or not (self._is_name(host) or (self._is_open and _is_address(host))):
            return False
        origin = request.headers.get("origin")
        if origin is None or origin == root_of(request):
            return True
        source = _host(origin)
        return source is not None and self._is_name(source)

    def over(self, app: ASGIApp) -> ASGIApp:
        """Return *app*, which then gets no request that is not allowed."""

        async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
            is_allowed = self.allows(Request(scope))
            await (app if is_allowed else JSONResponse({"message": FORBIDDEN}, status_code=403))(scope, receive, send)

        return guarded

    @property
    def _is_open(self) -> bool:
        return not all(map(is_loopback, self._names))

    def _is_name(self, host: str) -> bool:
        return is_loopback(host) or host in self._names or (self._is_open and "." not in host and ":" not in host)


def _is_address(host: str) -> bool:
    return ":" in host or host.replace(".", "").isdigit()


def _host(url: str) -> str | None:
    try:
        return split_url(url, "Host").hostname
    except ValueError:
        return None
