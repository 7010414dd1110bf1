"""Every async test runs on asyncio and on trio, under a virtual clock."""

import pytest

from smilejobs.testing import virtual_clock


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, object]]:
    return virtual_clock(request.param)
