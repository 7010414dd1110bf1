"""What went wrong, whatever library it went wrong in."""

import ssl
import sys
from typing import Any

import httpx

from smilejobs.errors import RequestError


def errors(name: str) -> tuple[Any, ...]:
    """Return the errors of that name of httpx, and of those libraries beside it that somebody has imported."""
    libraries = (httpx, sys.modules.get("httpx2"), sys.modules.get("aiohttp"))
    return tuple(getattr(library, name) for library in libraries if hasattr(library, name))


_KINDS = {
    "ClientHttpProxyError": "ProxyError",
    "ClientConnectorError": "ConnectError",
    "ServerDisconnectedError": "RemoteProtocolError",
    "ClientResponseError": "RemoteProtocolError",
    "ClientPayloadError": "RemoteProtocolError",
    "ClientError": "ReadError",
}
"""The errors of aiohttp, the special before the general, and what httpx calls the same."""


def kind(error: Exception) -> str:
    """Return httpx's name for what went wrong.

    httpx-aiohttp calls nearly everything ConnectTimeout, or passes it on as it is: the cause says what it was.
    """
    for cause in _chain(error):
        for name, its_kind in _KINDS.items():
            if isinstance(cause, errors(name)):
                return its_kind
    return type(error).__name__


def no_answer(error: Exception) -> RequestError:
    """Return what to raise where nothing came."""
    untrusted = any(isinstance(cause, ssl.SSLCertVerificationError) for cause in _chain(error))
    why = "the server's certificate is not trusted" if untrusted else kind(error)
    return RequestError(f"no answer: {why}", transient=not untrusted)


def broke_off(error: Exception) -> RequestError:
    """Return what to raise where not all came."""
    return RequestError(f"the answer broke off: {kind(error)}")


def _chain(error: BaseException | None) -> list[BaseException]:
    chain: list[BaseException] = []
    while error is not None and error not in chain:
        chain.append(error)
        error = error.__cause__ or error.__context__
    return chain
