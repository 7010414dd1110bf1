"""The site that ``nox -s docs`` has built: nothing public is missing, and a search needs no server."""

import importlib
import json
import re
from html import unescape
from pathlib import Path

import pytest
import typer
from typer.core import TyperCommand, TyperGroup

from smilejobs.cli.app import app

ROOT = Path(__file__).parent.parent.parent
SITE = ROOT / "docs" / "_build"
PACKAGES = json.loads((ROOT / "tests" / "docs" / "public_names.json").read_text("utf-8"))


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_is_in_the_reference(package: str) -> None:
    """Each has an entry that can be linked to, or leads to the entry of the package that has it first."""
    reference = "".join(page.read_text("utf-8") for page in (SITE / "reference").glob("*.html"))
    for name in importlib.import_module(package).__all__:
        assert f'id="{package}.{name}"' in reference, f"{package}.{name}"


def commands(command: object, path: str) -> list[tuple[str, TyperCommand | TyperGroup]]:
    """Return every command below one, with its whole name."""
    assert isinstance(command, (TyperCommand, TyperGroup))
    inner = command.commands.items() if isinstance(command, TyperGroup) else ()
    return [(path, command), *(each for name, below in inner for each in commands(below, f"{path} {name}"))]


def test_every_command_and_option_is_in_the_reference() -> None:
    """By the names that a user types."""
    page = unescape(re.sub(r"<[^>]+>", "", (SITE / "reference" / "command-line.html").read_text("utf-8")))
    every = commands(typer.main.get_command(app), "smilejobs")
    assert len(every) > 10
    for path, command in every:
        assert path in page
        for parameter in command.params:
            assert all(option in page for option in parameter.opts if option.startswith("--")), (path, parameter.name)


def test_the_search_index_is_a_script() -> None:
    """A page that is opened from disk may load a script, not a JSON file."""
    assert (SITE / "searchindex.js").read_text("utf-8").startswith("Search.setIndex(")
