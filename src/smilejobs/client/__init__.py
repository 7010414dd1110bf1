"""The client: its life, and the doors to everything that it can do."""

from smilejobs.client.arguments import ClientOptions
from smilejobs.client.doors import Client

__all__ = ["Client", "ClientOptions"]
