"""The failures of all HTTP libraries, in the same words."""

import os
import socket
import ssl
import sys
from collections.abc import Iterator
from typing import Any

import httpx

from smilejobs.errors import RequestError
from smilejobs.transport.carrier import LargeHeadError

NOT_HTTP = "what the server sent is not valid HTTP, or its head is too large"
CLOSED = "the server closed the connection"
BROKE_OFF = "it broke off before its end"


def errors(name: str) -> tuple[Any, ...]:
    """Return the errors of that name of httpx, and of those libraries beside it that have been imported."""
    libraries = (httpx, sys.modules.get("httpx2"), sys.modules.get("aiohttp"))
    return tuple(getattr(library, name) for library in libraries if hasattr(library, name))


def is_closed_without_answer(error: BaseException) -> bool:
    """Return whether a connection ended before the head of an answer had come."""
    if isinstance(error, errors("ServerDisconnectedError")):
        return True
    if isinstance(error, (*errors("ClientConnectorError"), *errors("ConnectError"), *errors("ProxyError"))):
        return False
    if isinstance(error, errors("RemoteProtocolError")):
        return not any(_is_malformed(cause) for cause in _chain(error))
    return isinstance(error, (*errors("ClientOSError"), *errors("ReadError"), *errors("WriteError")))


def no_answer(error: Exception) -> RequestError:
    """Return what to raise where no answer came.

    The cause is told: the words of the operating system, of the resolver and of OpenSSL, and the proxy's status. What
    the server or the proxy wrote is not, and no URL.
    """
    causes = list(_chain(error))
    untrusted = [cause for cause in causes if isinstance(cause, ssl.SSLCertVerificationError)]
    if untrusted:
        # Those of aiohttp are of this type too, but have no words. What comes after the comma names the host.
        words = [words for cause in untrusted if isinstance(words := getattr(cause, "verify_message", None), str)]
        why = f" ({words[0].partition(',')[0].rstrip('.')})" if words else ""
        return RequestError(f"no answer: the server's certificate is not trusted{why}", transient=False)
    return RequestError(f"no answer: {_why(error, causes)}")


def _why(error: Exception, causes: list[BaseException]) -> str:
    for words in (_proxy_words, _resolver_words, _tls_words, _system_words):
        for cause in causes:
            why = words(cause)
            if why is not None:
                return why
    if any(map(_is_malformed, causes)):
        return NOT_HTTP
    if is_closed_without_answer(error) or _is_connecting(error):
        return CLOSED
    return f"the HTTP client raised {type(error).__name__}"


def _proxy_words(cause: BaseException) -> str | None:
    if isinstance(cause, errors("ClientHttpProxyError")):
        status = str(getattr(cause, "status", ""))
    elif isinstance(cause, errors("ProxyError")):
        status = str(cause)[:3]
    else:
        return None
    if not (status.isascii() and status.isdecimal()):
        return "the proxy could not connect to the server"
    return f"the proxy refused to connect to the server (HTTP {status}); see HTTPS_PROXY, ALL_PROXY"


def _resolver_words(cause: BaseException) -> str | None:
    if not isinstance(cause, socket.gaierror):
        return None
    return f"the name of the host was not resolved ({cause.strerror})"


def _tls_words(cause: BaseException) -> str | None:
    reason = getattr(cause, "reason", None)
    if not (isinstance(cause, ssl.SSLError) and isinstance(reason, str)):
        return None
    return f"TLS failed ({reason.replace('_', ' ').lower()})"


def _system_words(cause: BaseException) -> str | None:
    """Return the words of the operating system; a library's own text may name addresses and files."""
    if not isinstance(cause, OSError) or isinstance(cause, (ssl.SSLError, socket.gaierror)) or not cause.errno:
        return None
    return os.strerror(cause.errno)


def _is_malformed(cause: BaseException) -> bool:
    if isinstance(cause, LargeHeadError):
        return True
    h11 = sys.modules.get("h11")
    if h11 is not None and isinstance(cause, h11.ProtocolError):
        return True
    return isinstance(cause, errors("ClientResponseError"))


def _is_connecting(error: Exception) -> bool:
    return isinstance(error, (*errors("ConnectError"), *errors("ClientConnectorError")))


def _chain(error: BaseException | None, seen: set[int] | None = None) -> Iterator[BaseException]:
    """Yield an error and all that led to it, the members of groups too."""
    seen = set() if seen is None else seen
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        if isinstance(error, BaseExceptionGroup):
            for member in error.exceptions:
                yield from _chain(member, seen)
        error = error.__cause__ or error.__context__
