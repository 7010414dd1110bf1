"""The recipes that need a framework, run by ``nox -s recipes``."""

import importlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import anyio.from_thread
import pytest

from smilejobs.sandbox import Sandbox

FOLDER = Path(__file__).parent.parent.parent / "examples" / "recipes"

pytestmark = pytest.mark.filterwarnings("default::DeprecationWarning", "default::ResourceWarning")


@pytest.fixture
def sandbox(monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    """Return a sandbox that serves over HTTP in a thread, and is named by the environment variables."""
    served = Sandbox()
    with (
        anyio.from_thread.start_blocking_portal() as portal,
        portal.wrap_async_context_manager(served.serve()) as base_url,
    ):
        for name, value in (("PARTNER_ID", "085"), ("API_KEY", "sandbox-key"), ("BASE_URL", base_url)):
            monkeypatch.setenv(f"SMILE_{name}", value)
        monkeypatch.delenv("SMILE_ENVIRONMENT", raising=False)
        yield served


@pytest.fixture
def recipe(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], ModuleType]]:
    """Import a recipe by its name; what it has opened is closed afterwards."""
    monkeypatch.syspath_prepend(FOLDER)
    yield importlib.import_module
    importlib.import_module("sync_client").close_sync_client()


def test_a_django_view_answers_with_the_result(sandbox: Sandbox, recipe: Callable[[str], ModuleType]) -> None:
    """The verdict as JSON, for a job that is complete."""
    import django
    from django.conf import settings
    from django.test import Client

    settings.configure(ROOT_URLCONF="django_views", ALLOWED_HOSTS=["*"])
    django.setup()
    recipe("django_views")
    sandbox.submit("user-1", "job-1", machine=0.0)
    answer: Any = Client().get("/jobs/user-1/job-1/result")
    assert answer.status_code == 200
    assert answer.json()["verdict"] == "approved"


def test_a_celery_task_returns_the_verdict(sandbox: Sandbox, recipe: Callable[[str], ModuleType]) -> None:
    """Run in this process, as Celery runs eager tasks."""
    tasks = recipe("celery_tasks")
    tasks.app.conf.task_always_eager = True
    sandbox.submit("user-1", "job-1", machine=0.0, outcome="rejected")
    assert tasks.verify.delay("user-1", "job-1").get() == "rejected"
