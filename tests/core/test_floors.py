"""The house has floors: who may import whom, who may know HTTP, and who may look at a clock."""

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest

import smilejobs
from smilejobs import CallbackVerifier, Client
from smilejobs.clock import utcnow

ROOT = Path(smilejobs.__file__).parent
FLOORS = {
    "clock": 0,
    "durations": 0,
    "errors": 0,
    "version": 0,
    "model": 1,
    "settings": 1,
    "outcomes": 2,
    "wire": 2,
    "polling": 2,
    "callbacks": 3,
    "events": 3,
    "files": 3,
    "notifications": 3,
    "tasks": 3,
    "transport": 4,
    "exchange": 5,
    "engine": 6,
    "scheduler": 7,
    "waiting": 7,
    "images": 8,
    "client": 9,
    "": 10,
    "batch": 11,
    "integrations": 11,
    "sandbox": 11,
    "durable": 12,
    "testing": 12,
    "cli": 13,
    "__main__": 14,
}
"""By module or package of `smilejobs`; "" is the package itself. It and what is below it is the core."""

CORE = 10
PURE = 2
IMPURE = {
    "anyio",
    "asyncio",
    "http",
    "httpx",
    "logging",
    "os",
    "requests",
    "socket",
    "ssl",
    "tenacity",
    "threading",
    "trio",
}


def module_name(path: Path) -> str:
    """The dotted name below `smilejobs`, "" for the package itself."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): ast.parse(path.read_text("utf-8")) for path in sorted(ROOT.rglob("*.py"))}


def room(module: str) -> str:
    """The module or package that has the floor."""
    return module.partition(".")[0]


def floor(module: str) -> int:
    return FLOORS[room(module)]


def running(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes below *node* that run, which those of ``if TYPE_CHECKING:`` do not."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            for alternative in child.orelse:
                yield alternative
                yield from running(alternative)
            continue
        yield child
        yield from running(child)


def imported(tree: ast.AST) -> Iterator[str]:
    """The absolute names of all modules that are imported, and of all names that are imported from them."""
    for node in running(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide where they go"
            assert node.module is not None
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            modules = [name for name in names if name.removeprefix("smilejobs.") in MODULES]
            yield from modules or [node.module]


def inner(module: str) -> set[str]:
    """The modules of the library that a module imports, named as in `MODULES`."""
    names = {name for name in imported(MODULES[module]) if room(name) == "smilejobs"}
    return {name.removeprefix("smilejobs").removeprefix(".") for name in names}


def outer(module: str) -> set[str]:
    """The other top-level packages that a module imports."""
    return {room(name) for name in imported(MODULES[module])} - {"smilejobs"}


def test_the_walk_sees_imports() -> None:
    """A test that reads source must be seen to read it: an import of each kind, and one that does not count."""
    source = """
import a.b, c
from d import e
if TYPE_CHECKING:
    import f
else:
    import g
def function():
    from h.i import j
from smilejobs import client
from smilejobs.errors import ApiError
"""
    names = ["a.b", "c", "d", "g", "h.i", "smilejobs.client", "smilejobs.errors"]
    assert sorted(imported(ast.parse(source))) == names
    assert "wire.protocol" in inner("exchange")
    assert "model.jobs" not in inner("errors")
    assert "httpx" in outer("transport.over_httpx")


@pytest.mark.parametrize("module", MODULES)
def test_every_module_has_a_floor(module: str) -> None:
    """A new room must be given its place here."""
    assert room(module) in FLOORS


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_from_lower_floors_or_its_own_package(module: str) -> None:
    """Nothing reaches upwards, or sideways into another room."""
    wrong = {name for name in inner(module) if room(name) != room(module) and floor(name) >= floor(module)}
    assert not wrong


def test_there_are_no_cycles() -> None:
    """Inside a package neither: each module can be read before those that import it."""
    left = {module: inner(module) & MODULES.keys() - {module} for module in MODULES}
    while free := [module for module, needs in left.items() if not needs & left.keys()]:
        for module in free:
            del left[module]
    assert not left


@pytest.mark.parametrize("module", MODULES)
def test_http_libraries_are_known_to_the_transport_alone(module: str) -> None:
    """It imports httpx and what the extra `fast` brings; aiohttp's server is another matter; nobody imports httpx2.

    So does each module of that room which has a line here, and none of its others.
    """
    libraries = {"httpx", "httpx2", "httpcore", "aiohttp"}
    known = {
        "transport.choosing": {"httpx", "aiohttp"},
        "transport.environment": {"httpx"},
        "transport.failures": {"httpx"},
        "transport.fetching": {"httpx"},
        "transport.over_aiohttp": {"aiohttp", "httpx"},
        "transport.over_httpx": {"httpx"},
        "transport.posting": {"httpx"},
        "transport.trust": {"httpx"},
        "integrations.aiohttp": {"aiohttp"},
    }
    assert outer(module) & libraries == known.get(module, set())


@pytest.mark.parametrize("module", [module for module in MODULES if floor(module) <= PURE])
def test_the_lower_floors_are_pure(module: str) -> None:
    """No I/O, no event loop, no log: they could run anywhere."""
    assert not outer(module) & IMPURE


def clocks(node: ast.AST, place: str = "") -> Iterator[str]:
    """The functions that read a system clock, or import one; "" outside of functions."""
    for child in ast.iter_child_nodes(node):
        inside = child.name if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)) else place
        if (isinstance(child, ast.Import) and any(alias.name == "time" for alias in child.names)) or (
            isinstance(child, ast.ImportFrom) and child.module == "time"
        ):
            yield inside
        if isinstance(child, ast.Attribute) and child.attr in ("now", "today", "utcnow"):
            yield from [inside] if ast.unparse(child.value).endswith(("datetime", "date")) else []
        yield from clocks(child, inside)


def test_the_walk_sees_clocks() -> None:
    """Each way to the system's clock is found."""
    source = """
import time
from time import monotonic
def one():
    return datetime.now(UTC)
class Two:
    async def three(self):
        return datetime.datetime.utcnow, date.today()
    def four(self):
        return self._now(), anyio.current_time(), now()
"""
    assert list(clocks(ast.parse(source))) == ["", "", "one", "three", "three"]


def test_only_the_default_of_now_reads_the_system_clock() -> None:
    """Time is handed in everywhere else: nothing in the core looks at a clock of its own."""
    defaults = {inspect.signature(taker).parameters["now"].default for taker in (CallbackVerifier, Client)}
    places = [(module, place) for module in MODULES if floor(module) <= CORE for place in clocks(MODULES[module])]
    assert places == [("clock", "utcnow")]
    assert defaults == {utcnow}
    assert utcnow().utcoffset() is not None
