"""Every async test runs on asyncio and on trio, under a virtual clock."""

import os
import signal
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings

from smilejobs.testing import virtual_clock

# How long an example takes says something about the machine. On one of one's own, properties look for new examples; in
# CI they are the same in every run. A mutant needs few of them, and no small one; `nox -s fuzz` looks at many.
settings.register_profile("here", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("here"), derandomize=True)
settings.register_profile(
    "mutants", settings.get_profile("ci"), max_examples=30, phases=[Phase.explicit, Phase.generate]
)
settings.register_profile("fuzz", settings.get_profile("here"), max_examples=5_000)
settings.load_profile("ci" if os.environ.get("CI") else "here")

# A shell that runs the tests in the background has Ctrl-C ignored, and so by everybody below it.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test that needs PostgreSQL as slow."""
    for item in items:
        if "postgres_server" in getattr(item, "fixturenames", ()) or "[postgres" in item.name:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, object]]:
    return virtual_clock(request.param)


@pytest.fixture(scope="session")
def postgres_server() -> Generator[str, None, None]:
    """URL of a server where databases may be made: `SMILEJOBS_TEST_POSTGRES`, or one of our own for the session."""
    if theirs := os.environ.get("SMILEJOBS_TEST_POSTGRES"):
        yield theirs
        return
    from tests.helpers.postgres import Postgres  # most tests need none, and do not pay for its import

    with Postgres() as server:
        yield server.url("postgres")


@pytest.fixture
def postgres_url(postgres_server: str) -> Generator[str, None, None]:
    """URL of an empty database on a real Postgres, for one test."""
    from tests.helpers.postgres import empty_database

    with empty_database(postgres_server) as url:
        yield url


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'jobs.db'}"


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest) -> str:
    """URL of an empty database of each kind that a watch list can live in."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url
