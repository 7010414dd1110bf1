"""The public API is the one of a committed listing, so that a change of it is seen in review."""

import importlib
import json
import pkgutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
LISTING = Path(__file__).with_name("public_names.json")
NAMES = json.loads(LISTING.read_text("utf-8"))


def packages() -> list[str]:
    """Return the packages and modules that say what is public: those with an ``__all__`` that callers import from."""
    rooms = ["smilejobs", *(f"smilejobs.{name}" for name in ("batch", "durable", "sandbox", "testing"))]
    integrations = importlib.import_module("smilejobs.integrations").__path__
    found = [f"smilejobs.integrations.{module.name}" for module in pkgutil.iter_modules(integrations)]
    return sorted(rooms + [name for name in found if hasattr(importlib.import_module(name), "__all__")])


def test_all_packages_are_listed() -> None:
    """A new integration is listed too."""
    assert packages() == sorted(NAMES)


@pytest.mark.parametrize("package", sorted(NAMES))
def test_the_public_names_are_those_of_the_listing(package: str) -> None:
    """Change the listing and the changelog along with the API."""
    assert sorted(importlib.import_module(package).__all__) == NAMES[package]


@pytest.mark.parametrize("package", sorted(NAMES))
def test_every_package_has_its_page_in_the_reference(package: str) -> None:
    """The page is generated from the package's ``__all__``, so that no name can be missing."""
    pages = "\n".join(page.read_text("utf-8") for page in (ROOT / "docs" / "reference").glob("*.rst"))
    assert f".. public-names:: {package}\n" in pages
