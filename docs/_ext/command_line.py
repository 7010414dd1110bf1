"""The reference of the command line: every command with its arguments and options, read from the application itself."""

from collections.abc import Iterator

import typer
from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from sphinx.util.parsing import nested_parse_to_nodes
from sphinx.util.typing import ExtensionMetadata
from typer.core import TyperCommand, TyperGroup

from smilejobs.cli.app import app as application


class CommandLine(SphinxDirective):
    """``.. command-line::``."""

    def run(self) -> list[nodes.Node]:
        command = typer.main.get_command(application)
        assert isinstance(command, TyperGroup)
        lines = list(describe(command, "smilejobs"))
        source = StringList(lines, source="smilejobs.cli")
        return nested_parse_to_nodes(self.state, source, allow_section_headings=True)


def describe(command: TyperCommand | TyperGroup, path: str, parent: typer.Context | None = None) -> Iterator[str]:
    """Return the lines about a command and, below it, about those that belong to it."""
    context = typer.Context(command, info_name=path.rpartition(" ")[2], parent=parent)
    yield from [path, "-" * len(path), ""]
    yield from _text(command.help)
    usage = command.get_usage(context).partition(" ")[2]
    yield from [".. code-block:: text", "", *(f"   {line}" for line in usage.splitlines()), ""]
    for parameter in command.params:
        record = parameter.get_help_record(context)
        if record is not None:
            names, text = record
            yield from [f"``{names}``", f"   {_escaped(text)}", ""]
    yield from _text(command.epilog)
    if isinstance(command, TyperGroup):
        for name, inner in command.commands.items():
            assert isinstance(inner, (TyperCommand, TyperGroup))
            yield from describe(inner, f"{path} {name}", context)


def _text(paragraphs: str | None) -> Iterator[str]:
    for paragraph in (paragraphs or "").split("\n\n"):
        yield from [_escaped(" ".join(paragraph.split())), ""]


def _escaped(text: str) -> str:
    """Escape what reStructuredText would take for markup."""
    return "".join(f"\\{letter}" if letter in "\\*`|_" else letter for letter in text)


def setup(app: Sphinx) -> ExtensionMetadata:
    app.add_directive("command-line", CommandLine)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
