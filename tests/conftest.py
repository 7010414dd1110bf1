"""Every async test runs on asyncio and on trio, under a virtual clock."""

import os

import pytest
from hypothesis import settings

from smilejobs.testing import virtual_clock

# On a machine of one's own, properties look for new examples; in CI they are the same in every run.
settings.register_profile("here", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "here")


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, object]]:
    return virtual_clock(request.param)
