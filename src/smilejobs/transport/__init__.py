"""Send bytes, get bytes: the only room that knows HTTP libraries.

Their errors become ours here; nothing of theirs passes upwards.
"""

from smilejobs.transport.carriers import TransportName
from smilejobs.transport.connections import Connections
from smilejobs.transport.fetching import Download, Fetcher
from smilejobs.transport.posting import Answer, HTTPClient, HTTPResponse, Transport

__all__ = [
    "Answer",
    "Connections",
    "Download",
    "Fetcher",
    "HTTPClient",
    "HTTPResponse",
    "Transport",
    "TransportName",
]
