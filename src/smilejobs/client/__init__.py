"""The client: its lifecycle, and the methods that callers use."""

from smilejobs.client.arguments import ClientOptions, SaveManyOptions, WaitManyOptions, WaitOptions
from smilejobs.client.methods import Client

__all__ = ["Client", "ClientOptions", "SaveManyOptions", "WaitManyOptions", "WaitOptions"]
