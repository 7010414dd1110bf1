"""What carries requests: httpx's own pool or aiohttp's, and through which proxy."""

import asyncio
import ssl
from base64 import b64encode
from typing import TYPE_CHECKING, Literal
from urllib.request import getproxies, proxy_bypass

import httpx

if TYPE_CHECKING:
    import aiohttp

TransportName = Literal["httpx", "aiohttp"]
"""What carries the requests of the own pool: "httpx" on asyncio and trio, "aiohttp" (extra ``fast``) on asyncio."""

KEEPALIVE = 75.0
"""Seconds for which an idle connection is kept: longer than the longest delay between two polls."""


def proxy_for(url: httpx.URL, trust: ssl.SSLContext) -> httpx.Proxy | None:
    """Return the proxy that the environment names for an https URL."""
    proxies = getproxies()
    address = proxies.get("https") or proxies.get("all")
    if not address or proxy_bypass(url.raw_host.decode("ascii")) or proxy_bypass(url.netloc.decode("ascii")):
        return None
    try:
        proxy = httpx.Proxy(address if "://" in address else f"http://{address}")
    except (httpx.InvalidURL, ValueError):
        raise ValueError("the proxy of the environment is not a URL of a proxy; see HTTPS_PROXY, ALL_PROXY") from None
    if proxy.url.scheme == "https":
        proxy.ssl_context = trust
    return proxy


def is_socks(proxy: httpx.Proxy | None) -> bool:
    """Whether a proxy speaks SOCKS, which httpx knows with an extra of its own, and aiohttp does not."""
    return proxy is not None and proxy.url.scheme.startswith("socks")


def for_aiohttp(proxy: httpx.Proxy) -> httpx.Proxy:
    """Credentials as a header: the way in which httpx-aiohttp hands them over is deprecated by aiohttp."""
    if proxy.raw_auth is None:
        return proxy
    credentials = b64encode(b":".join(proxy.raw_auth)).decode("ascii")
    return httpx.Proxy(proxy.url, headers={"Proxy-Authorization": f"Basic {credentials}"})


def aiohttp_session(max_connections: int, trust: ssl.SSLContext) -> "aiohttp.ClientSession":
    """Open a pool of aiohttp's, which keeps connections and no cookies."""
    import aiohttp

    connector = aiohttp.TCPConnector(limit=max_connections, keepalive_timeout=KEEPALIVE, ssl=trust)
    return aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())


def is_asyncio() -> bool:
    """Whether a task of asyncio is running; trio may run inside of an event loop of asyncio, but not in its tasks."""
    try:
        return asyncio.current_task() is not None
    except RuntimeError:
        return False
