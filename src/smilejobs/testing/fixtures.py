"""Fixtures for pytest: a sandbox for one test, and a client of it, both in the process of the test.

In a test module, or in the ``conftest.py`` at the root::

    pytest_plugins = ["smilejobs.testing.fixtures"]

They open nothing and need no event loop, so they work with anyio's plugin, pytest-asyncio and pytest-trio. Both use
`smilejobs.testing.virtual_now` as wall clock, which follows the clock of the event loop, virtual or real. Callbacks are
delivered within ``async with smile_sandbox``.

This module needs ``pip install 'smilejobs[sandbox]'``.
"""

import pytest

from smilejobs.client import Client
from smilejobs.sandbox import FaultProfile, Sandbox
from smilejobs.sandbox.faults import FaultProfileName
from smilejobs.testing.clock import virtual_now


@pytest.fixture
def smile_faults() -> FaultProfileName | FaultProfile:
    """Return the faults of the sandbox, none. Override or parametrize this fixture for others."""
    return "none"


@pytest.fixture
def smile_sandbox(smile_faults: FaultProfileName | FaultProfile) -> Sandbox:
    """Return a sandbox without jobs."""
    return Sandbox(faults=smile_faults, now=virtual_now)


@pytest.fixture
def smile_client(smile_sandbox: Sandbox) -> Client:
    """Return a client of the sandbox of this test; it holds no connections and need not be closed."""
    return smile_sandbox.client()
