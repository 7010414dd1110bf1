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
from smilejobs.sandbox import Sandbox, Weather
from smilejobs.sandbox.weather import WeatherName
from smilejobs.testing.clock import virtual_now


@pytest.fixture
def smile_weather() -> WeatherName | Weather:
    """Return the weather of the sandbox. Override it, or parametrize it, for another one."""
    return "calm"


@pytest.fixture
def smile_sandbox(smile_weather: WeatherName | Weather) -> Sandbox:
    """Return a sandbox without jobs."""
    return Sandbox(weather=smile_weather, now=virtual_now)


@pytest.fixture
def smile_client(smile_sandbox: Sandbox) -> Client:
    """Return a client of the sandbox of this test; it holds no connections and need not be closed."""
    return smile_sandbox.client()
