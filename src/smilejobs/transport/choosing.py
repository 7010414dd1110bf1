"""Choose the carrier of a client."""

import logging
import ssl
import sys
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import TYPE_CHECKING, Literal, Protocol, get_args

import httpx

from smilejobs.transport.carrier import Carrier
from smilejobs.transport.environment import is_asyncio, is_socks, proxy_for
from smilejobs.transport.over_client import HTTPClient, OverClient
from smilejobs.transport.over_httpx import over_httpcore
from smilejobs.transport.trust import load_trust

if TYPE_CHECKING:
    import aiohttp

logger = logging.getLogger("smilejobs")

TransportName = Literal["httpx", "httpx2", "aiohttp"]
"""What carries the requests of the own pool.

"httpx" and "httpx2" (extra ``httpx2``) work on asyncio and trio, "aiohttp" (extra ``fast``) on asyncio.
"""


class HTTPSession(Protocol):
    """What is used of an `aiohttp.ClientSession`: its connections."""

    @property
    def closed(self) -> bool:
        """Whether it is closed."""
        ...

    @property
    def connector(self) -> object | None:
        """Its connections."""
        ...


def check_transport(transport: object, http_client: object) -> None:
    """Check the arguments that name a carrier.

    Raises:
        TypeError: *http_client* is not an asynchronous client.
        ValueError: *transport* is unknown, or comes with an *http_client*, or that is closed.
    """
    if transport not in (None, *get_args(TransportName)):
        raise ValueError(f"transport must be 'httpx', 'httpx2', 'aiohttp' or None, not {transport!r}")
    if http_client is None:
        return
    if transport is not None:
        raise ValueError("http_client has a transport of its own; leave out transport=, or http_client=")
    if not (_is_session(http_client) or _is_asynchronous(http_client)):
        raise TypeError(
            "http_client must be an httpx.AsyncClient, httpx2.AsyncClient or aiohttp.ClientSession, opened by you"
        )
    if getattr(http_client, "is_closed", False) is True or getattr(http_client, "closed", False) is True:
        raise ValueError("http_client is closed; give an open one")


def choose(
    url: httpx.URL,
    http_client: HTTPClient | HTTPSession | None,
    max_connections: int,
    transport: TransportName | None,
) -> Callable[[], Carrier]:
    """Return a function that opens the carrier for a URL, to be called in the event loop of the carrier.

    An *http_client* is the carrier itself. Without one, *transport* names the library; None stands for aiohttp if that
    is installed and asyncio runs when the carrier is opened, and for httpx otherwise, also for a SOCKS proxy.

    Raises:
        ImportError: The extra that *transport* needs is missing.
        ValueError: The proxy of the environment is not a URL, or *transport* cannot use it.
    """
    if http_client is None:
        # Reading the certificates takes 30 ms, and plain http needs none.
        is_secure = url.scheme == "https"
        trust = load_trust() if is_secure else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        return open_own(trust, proxy_for(url, trust) if is_secure else None, max_connections, transport)
    if _is_session(http_client):
        return lambda: _over_session(http_client)  # type: ignore[arg-type]  # just checked
    return lambda: OverClient(http_client)  # type: ignore[arg-type]  # just checked


def open_own(
    trust: ssl.SSLContext, proxy: httpx.Proxy | None, max_connections: int, transport: TransportName | None
) -> Callable[[], Carrier]:
    """Return a function that opens a carrier with connections of its own; for *transport* see `choose`.

    Raises:
        ImportError: The extra that *transport* needs is missing.
        ValueError: *transport* cannot use the proxy.
    """
    if transport == "aiohttp":
        if is_socks(proxy):
            raise ValueError("aiohttp cannot use the SOCKS proxy of the environment; transport='httpx' can")
        try:
            import aiohttp  # noqa: F401  # only whether it is there
        except ModuleNotFoundError as error:
            raise ImportError("transport='aiohttp' needs aiohttp: pip install 'smilejobs[fast]'") from error
    elif transport is not None or is_socks(proxy) or find_spec("aiohttp") is None:
        carrier = over_httpcore(max_connections, trust, proxy, _load(transport or "httpx"))
        return lambda: carrier

    def open_carrier() -> Carrier:
        if is_asyncio():
            try:
                from smilejobs.transport.over_aiohttp import OverAiohttp, open_session
            except ImportError as error:
                logger.warning("the extra 'fast' is broken, so requests are slower than they could be: %s", error)
            else:
                return OverAiohttp(open_session(max_connections, trust), proxy)
        elif transport == "aiohttp":
            raise RuntimeError("transport='aiohttp' needs asyncio; transport='httpx' works on trio as well")
        return over_httpcore(max_connections, trust, proxy)

    return open_carrier


def _load(transport: str) -> ModuleType:
    try:
        return import_module(transport)
    except ModuleNotFoundError as error:
        raise ImportError("transport='httpx2' needs httpx2: pip install 'smilejobs[httpx2]'") from error


def _over_session(session: "aiohttp.ClientSession") -> Carrier:
    from smilejobs.transport.over_aiohttp import OverAiohttp, share_connector

    if not is_asyncio():
        raise RuntimeError("an aiohttp.ClientSession as http_client needs asyncio; an httpx.AsyncClient works on trio")
    return OverAiohttp(share_connector(session))


def is_client(http_client: object) -> bool:
    """Return whether requests go through an HTTP client of the caller, which manages its connections itself."""
    return not (http_client is None or _is_session(http_client))


def _is_session(http_client: object) -> bool:
    aiohttp = sys.modules.get("aiohttp")
    return aiohttp is not None and isinstance(http_client, aiohttp.ClientSession)


def _is_asynchronous(http_client: object) -> bool:
    if isinstance(http_client, type) or not hasattr(http_client, "stream"):
        return False
    return hasattr(http_client, "aclose") or not hasattr(http_client, "close")
