"""Send bytes, get bytes: only this package sends requests through HTTP libraries.

Their errors become errors of smilejobs here; no type of an HTTP library passes upwards.
"""

from smilejobs.transport.body import UnreadableBodyError
from smilejobs.transport.choosing import HTTPSession, TransportName
from smilejobs.transport.fetching import Download, Fetcher
from smilejobs.transport.over_client import HTTPClient, HTTPResponse
from smilejobs.transport.posting import Answer, Transport

__all__ = [
    "Answer",
    "Download",
    "Fetcher",
    "HTTPClient",
    "HTTPResponse",
    "HTTPSession",
    "Transport",
    "TransportName",
    "UnreadableBodyError",
]
