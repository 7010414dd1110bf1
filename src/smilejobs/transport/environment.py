"""What the environment says: which event loop runs, which proxy is used, and which certificates are trusted."""

import asyncio
import ssl
from base64 import b64encode
from urllib.request import getproxies, proxy_bypass

import httpx


def proxy_for(url: httpx.URL, trust: ssl.SSLContext) -> httpx.Proxy | None:
    """Return the proxy that the environment names for an https URL.

    Raises:
        ValueError: What the environment names is not the URL of a proxy.
    """
    proxies = getproxies()
    address = proxies.get("https") or proxies.get("all")
    if not address or proxy_bypass(url.raw_host.decode("ascii")) or proxy_bypass(url.netloc.decode("ascii")):
        return None
    proxy = _proxy_at(address if "://" in address else f"http://{address}")
    del proxies, address  # they hold a password: crash reporters copy the locals of each frame of a traceback
    if proxy is None:
        raise ValueError("the proxy of the environment is not a URL of a proxy; see HTTPS_PROXY, ALL_PROXY")
    if proxy.url.scheme == "https":
        proxy.ssl_context = trust
    return proxy


def _proxy_at(address: str) -> httpx.Proxy | None:
    try:
        return httpx.Proxy(address)
    except (httpx.InvalidURL, ValueError):
        return None


def is_socks(proxy: httpx.Proxy | None) -> bool:
    """Return whether a proxy speaks SOCKS, which httpx knows with an extra of its own, and aiohttp does not."""
    return proxy is not None and proxy.url.scheme.startswith("socks")


def proxy_headers(proxy: httpx.Proxy) -> dict[str, str]:
    """Return the headers for a proxy: its credentials, if it has any."""
    if proxy.raw_auth is None:
        return {}
    return {"Proxy-Authorization": f"Basic {b64encode(b':'.join(proxy.raw_auth)).decode('ascii')}"}


def is_asyncio() -> bool:
    """Return whether a task of asyncio runs; trio may run inside of an event loop of asyncio, but not in its tasks."""
    try:
        return asyncio.current_task() is not None
    except RuntimeError:
        return False
