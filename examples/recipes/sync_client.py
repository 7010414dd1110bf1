"""Wait in code that is not async: one event loop in a thread of its own, and one client, per process."""

import threading
from contextlib import ExitStack
from functools import partial

from anyio.from_thread import start_blocking_portal

import smilejobs


class SyncClient:
    """A client for threads. Create it once per process, after any fork, and close it when the process ends."""

    def __init__(self, client: smilejobs.Client) -> None:
        self._stack = ExitStack()
        self._portal = self._stack.enter_context(start_blocking_portal())
        self._client = self._stack.enter_context(self._portal.wrap_async_context_manager(client))

    def wait(self, user_id: str, job_id: str, *, timeout: float) -> smilejobs.JobStatus:
        """Wait as `Client.wait` does, and block this thread meanwhile."""
        return self._portal.call(partial(self._client.wait, user_id, job_id, timeout=timeout))

    def close(self) -> None:
        self._stack.close()


_lock = threading.Lock()
_clients: list[SyncClient] = []


def sync_client() -> SyncClient:
    """Return the client of this process; the first call opens it."""
    with _lock:
        if not _clients:
            _clients.append(SyncClient(smilejobs.Client.from_env()))
    return _clients[0]


def close_sync_client() -> None:
    with _lock:
        while _clients:
            _clients.pop().close()
