"""The reference of a package: every name in its ``__all__``, grouped by the module that defines it.

``.. public-names:: smilejobs`` reads the package's own import statements, so a name that is added, renamed or removed
changes the page without an edit. References in docstrings and signatures to the module that defines a name lead to the
public name.
"""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from enum import Enum
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.pycode import ModuleAnalyzer
from sphinx.util.docutils import SphinxDirective
from sphinx.util.parsing import nested_parse_to_nodes
from sphinx.util.typing import ExtensionMetadata

TITLES = {
    "client": "Client",
    "durations": "Values and types",
    "polling": "Values and types",
    "outcomes": "Values and types",
    "transport": "Values and types",
    "settings": "Settings",
    "model": "Answers",
    "callbacks": "Callbacks",
    "errors": "Errors",
    "events": "Events and hooks",
    "images": "Pictures",
    "version": "Version",
}
"""Headings of the reference of `smilejobs`, by the module or package that defines a name."""

PACKAGES = (
    "smilejobs",
    "smilejobs.batch",
    "smilejobs.durable",
    "smilejobs.sandbox",
    "smilejobs.testing",
    "smilejobs.integrations.aiohttp",
    "smilejobs.integrations.fastapi",
    "smilejobs.integrations.opentelemetry",
)
"""The packages with public names. A name that two of them have is documented in the first."""


@cache
def origins(package: ModuleType) -> dict[str, str]:
    """Return the public names of a package in the order of ``__all__``, each with the module that defines it."""
    assert package.__file__ is not None
    found = dict.fromkeys(package.__all__, package.__name__)
    for statement in ast.parse(Path(package.__file__).read_text("utf-8")).body:
        if isinstance(statement, ast.ImportFrom) and statement.module and statement.module.startswith("smilejobs"):
            found |= {alias.name: statement.module for alias in statement.names if alias.name in found}
    return {name: _definition(module, name) for name, module in found.items()}


@cache
def _definition(module: str, name: str) -> str:
    """Follow the imports of a name from package to package to the module that defines it."""
    tree = ast.parse(Path(str(import_module(module).__file__)).read_text("utf-8"))
    for statement in tree.body:
        if isinstance(statement, ast.ImportFrom) and name in [alias.name for alias in statement.names]:
            return _definition(str(statement.module), name)
    return module


@cache
def aliases() -> dict[str, str]:
    """Return where each public name is documented, by the name of the module that defines it and its own."""
    places: dict[str, str] = {}
    for package in PACKAGES:
        for name, module in origins(import_module(package)).items():
            places.setdefault(f"{module}.{name}", f"{package}.{name}")
    return places


class PublicNames(SphinxDirective):
    """``.. public-names:: package``."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        package = import_module(self.arguments[0])
        sections: defaultdict[str, list[str]] = defaultdict(list)
        for name, module in origins(package).items():
            room = module.split(".")[1] if package.__name__ == "smilejobs" else ""
            sections[TITLES.get(room, room.capitalize())].append(name)
        lines = [f".. py:currentmodule:: {package.__name__}", ""]
        titles = [*dict.fromkeys(TITLES.values()), *sections]
        for title in dict.fromkeys(title for title in titles if title in sections):
            lines += [title, "-" * len(title), ""] if title else []
            for name in sections[title]:
                lines += [*self._entry(package, name), ""]
        source = StringList(lines, source=f"{package.__name__}.__all__")
        return nested_parse_to_nodes(self.state, source, allow_section_headings=True)

    def _entry(self, package: ModuleType, name: str) -> Iterator[str]:
        value = getattr(package, name)
        origin = origins(package)[name]
        public = f"{package.__name__}.{name}"
        if aliases()[f"{origin}.{name}"] != public:
            yield f"The name `{name}` is that of `{aliases()[f'{origin}.{name}']}`."
        elif isinstance(value, type):
            yield from [f".. autoclass:: {public}", "   :members:"]
            if issubclass(value, Enum):
                yield "   :undoc-members:"
            yield "   :inherited-members:" if any(map(_is_internal, value.__bases__)) else "   :show-inheritance:"
        elif hasattr(value, "__code__"):
            yield f".. autofunction:: {public}"
        else:
            analyzer = ModuleAnalyzer.for_module(origin)
            analyzer.analyze()
            yield from [f".. py:data:: {name}", ""]
            yield from (f"   {line}".rstrip() for line in analyzer.attr_docs.get(("", name), [_written(origin, name)]))


def _is_internal(cls: type) -> bool:
    """Tell whether a class is ours but not public, so that its methods belong to the page of what inherits them."""
    return cls.__module__.startswith("smilejobs.") and f"{cls.__module__}.{cls.__qualname__}" not in aliases()


def _written(module: str, name: str) -> str:
    """Return what the source assigns to a name without a docstring, on one line."""
    source = Path(str(import_module(module).__file__)).read_text("utf-8")
    for statement in ast.parse(source).body:
        if isinstance(statement, ast.Assign) and name in [ast.unparse(target) for target in statement.targets]:
            return f"``{ast.unparse(statement.value)}``"
        if isinstance(statement, ast.AnnAssign) and ast.unparse(statement.target) == name and statement.value:
            return f"``{ast.unparse(statement.value)}``"
    raise LookupError(f"{module}.{name} is assigned nowhere")


def resolve(app: Sphinx, env: BuildEnvironment, node: pending_xref, content: nodes.TextElement) -> nodes.Node | None:
    """Lead a reference to the public name; leave names of other libraries and of the inside as they are.

    A reference that begins with a public name, or with a package that has public names, and leads nowhere stays a
    warning.
    """
    if node.get("refdomain") != "py":
        return None
    target = str(node["reftarget"])
    for known, public in aliases().items():
        if target == known or target.startswith(f"{known}."):
            target = public + target.removeprefix(known)
    first, _, rest = target.partition(".")
    candidates = [target]
    candidates += [f"{public}.{rest}".rstrip(".") for public in aliases().values() if public.split(".")[-1] == first]
    domain = env.domains.python_domain
    for candidate in candidates:
        if candidate in domain.objects:
            return domain.resolve_xref(env, node["refdoc"], app.builder, "obj", candidate, node, content)
    package, _, name = target.rpartition(".")
    is_public = package in PACKAGES and not name.startswith("_") and not hasattr(import_module(package), name)
    return None if is_public or (rest and len(candidates) > 1) else content


def escape_plurals(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Let a plural such as `JobRef`s be a reference and a letter, which reStructuredText would refuse."""
    lines[:] = [re.sub(r"(?<!`)(`[\w.]+`)(?=\w)", r"\1\\ ", line) for line in lines]


def setup(app: Sphinx) -> ExtensionMetadata:
    app.add_directive("public-names", PublicNames)
    app.connect("autodoc-process-docstring", escape_plurals)
    app.connect("missing-reference", resolve)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
