"""Send bytes, get bytes: the only room that knows HTTP libraries.

Their errors become ours here; nothing of theirs passes upwards.
"""

from smilejobs.transport.carriers import TransportName
from smilejobs.transport.fetching import Fetcher
from smilejobs.transport.posting import HTTPClient, HTTPResponse, Transport

__all__ = [
    "Fetcher",
    "HTTPClient",
    "HTTPResponse",
    "Transport",
    "TransportName",
]
