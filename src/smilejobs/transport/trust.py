"""The certificate authorities that connections trust."""

import os
import re
import ssl
from contextlib import suppress
from pathlib import Path

import httpx

_HASHED = re.compile(r"[0-9a-f]{8}\.[0-9]+")
"""The name of a file that OpenSSL finds in a folder of certificates."""


def load_trust() -> ssl.SSLContext:
    """Return a TLS context that trusts the authorities of ``SSL_CERT_FILE``, else of ``SSL_CERT_DIR``, else certifi's.

    Raises:
        ValueError: The variable names a path that holds no such certificates; the text says which and why.
    """
    variables = ("SSL_CERT_FILE", "SSL_CERT_DIR")
    variable, path = next(((name, value) for name in variables if (value := os.environ.get(name))), ("", ""))
    if variable == "SSL_CERT_DIR" and not any(map(_has_certificates, path.split(os.pathsep))):
        raise ValueError(
            f"SSL_CERT_DIR: {path!r} is no folder of certificates under the names that openssl rehash gives; "
            "correct the path, or unset the variable"
        )
    try:
        return httpx.create_ssl_context()
    except OSError as error:
        if not variable:
            raise
        why = "no certificate in PEM format" if isinstance(error, ssl.SSLError) else error.strerror
        raise ValueError(f"{variable}: {path!r}: {why}; correct the path, or unset the variable") from None


def _has_certificates(folder: str) -> bool:
    with suppress(OSError):
        return any(_HASHED.fullmatch(path.name) for path in Path(folder).iterdir())
    return False
