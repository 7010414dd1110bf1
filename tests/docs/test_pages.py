"""The pages show code that runs, their links lead somewhere, and CI runs what the README says."""

import ast
import builtins
import json
import re
from itertools import takewhile
from pathlib import Path

import pytest
from attrs import fields

from smilejobs import Client
from smilejobs.polling.pace import Backoff
from smilejobs.sandbox import FaultProfile

ROOT = Path(__file__).parent.parent.parent
BLOB = "https://github.com/smilejobs/smilejobs/blob/main/"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
EXAMPLES = sorted((ROOT / "examples").rglob("*.py"))
NOT_SHOWN: dict[str, str] = {}
"""Examples that are on no page, each with the reason."""

CELLS = json.loads((ROOT / "examples" / "notebook.ipynb").read_text("utf-8"))["cells"]


def split(block: str) -> tuple[str, list[str], set[str]]:
    """Return the code of a block, its opening imports, and the names that its first line says to look up."""
    known, _, rest = block.partition("\n\n") if block.startswith("# ") else ("", "", block)
    statements = ast.parse(rest).body
    opening = list(takewhile(lambda each: isinstance(each, (ast.Import, ast.ImportFrom)), statements))
    lines = rest.splitlines(keepends=True)
    start = opening[-1].end_lineno if opening else 0
    names = set(re.sub(r"^# |: see .*$", "", known).split(", ")) - {""}
    return "".join(lines[start:]).lstrip("\n"), [name for each in opening for name in imported(each)], names


def imported(statement: ast.AST) -> list[str]:
    """Return what a statement imports, "module.name" or "module"."""
    if isinstance(statement, ast.Import):
        return [alias.name for alias in statement.names]
    assert isinstance(statement, ast.ImportFrom)
    return [f"{statement.module}.{alias.name}" for alias in statement.names]


def unbound(code: str) -> set[str]:
    """Return the names that a piece of code reads and neither binds nor imports."""
    nodes = list(ast.walk(ast.parse(code)))
    names = [node for node in nodes if isinstance(node, ast.Name)]
    bound = {node.id for node in names if not isinstance(node.ctx, ast.Load)} | set(dir(builtins)) | {"__name__"}
    bound |= {node.arg for node in nodes if isinstance(node, ast.arg)}
    bound |= {str(node.name) for node in nodes if isinstance(node, (ast.ExceptHandler, ast.MatchAs))}
    bound |= {node.name for node in nodes if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))}
    for node in nodes:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            bound |= {alias.name.partition(".")[0] for alias in node.names}
    return {node.id for node in names} - bound


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_piece_of_python_in_a_page_is_part_of_an_example(page: Path) -> None:
    """What a reader copies is what the tests run; the imports that it needs stand above it."""
    sources = [example.read_text() for example in EXAMPLES]
    cells = ["".join(cell["source"]) + "\n" for cell in CELLS if cell["cell_type"] == "code"]
    for block in blocks_of(page):
        if any(block in cell for cell in cells):
            continue  # a notebook imports in its first cell
        if any(block in source for source in sources):
            assert not unbound(block), f"undefined:\n{block}"
            continue
        code, opening, elsewhere = split(block)
        source = next((source for source in sources if code in source), None)
        assert source is not None, f"in no example:\n{block}"
        assert set(opening) <= {name for each in ast.walk(ast.parse(source)) for name in imported_by(each)}, block
        assert unbound(block) == elsewhere, f"undefined:\n{block}"


def imported_by(node: ast.AST) -> list[str]:
    return imported(node) if isinstance(node, (ast.Import, ast.ImportFrom)) else []


def blocks_of(page: Path) -> list[str]:
    """Return the Python in a page."""
    return re.findall(r"^```python\n(.*?)^```", page.read_text("utf-8"), re.DOTALL | re.MULTILINE)


def test_every_example_is_on_a_page() -> None:
    """A part of each example is shown, or `NOT_SHOWN` says why not."""
    codes = [split(block)[0] for page in PAGES for block in blocks_of(page)]
    sources = {path.relative_to(ROOT / "examples").as_posix(): path.read_text("utf-8") for path in EXAMPLES}
    sources["notebook.ipynb"] = "\n".join("".join(cell["source"]) + "\n" for cell in CELLS)
    hidden = {name for name, source in sources.items() if not any(code in source for code in codes)}
    assert hidden == NOT_SHOWN.keys()


def test_the_pages_name_the_figures_of_the_backoff() -> None:
    """A changed default of `Backoff` changes these sentences too."""
    backoff = Backoff()
    waiting = (ROOT / "docs" / "explanation" / "waiting.md").read_text("utf-8")
    assert f"backs off ({backoff.min:g} s to {backoff.max:g} s with jitter" in waiting
    assert f"the longest backoff ({backoff.max:g} s)" in waiting
    assert Client.job_status.__doc__ is not None
    assert f"a pause of more than {backoff.max:g} s" in " ".join(Client.job_status.__doc__.split())


def test_links_between_the_pages_lead_somewhere() -> None:
    """Every relative link of a page is a file of the repository."""
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_links_of_the_readme_are_absolute() -> None:
    """They work on a package index too, and each of them leads to a file of the repository."""
    targets = re.findall(r"\]\(([^)#]+)", PAGES[0].read_text())
    assert all(target.startswith("https://") for target in targets)
    ours = [target.removeprefix(BLOB) for target in targets if target.startswith(BLOB)]
    assert len(ours) > 15
    assert [target for target in ours if not (ROOT / target).exists()] == []


def first_block() -> list[str]:
    """Return the lines of the first code block of the README."""
    block = re.search(r"^```\w*\n(.*?)^```", PAGES[0].read_text(), re.DOTALL | re.MULTILINE)
    assert block is not None
    return block[1].splitlines()


def test_the_first_block_of_the_readme_is_two_commands() -> None:
    """The first runs the demo, the second the tests; each sets up all that it needs."""
    demo, tests = first_block()
    assert demo.endswith("smilejobs demo")
    assert tests.endswith("nox")
    assert "pip install" in demo
    assert "pip install" in tests


def test_ci_runs_the_second_command_of_the_readme() -> None:
    """The last line of the script is that command, unchanged."""
    assert (ROOT / ".ci" / "run").read_text().splitlines()[-1] == first_block()[1]


def test_the_page_of_the_sandbox_has_every_fault() -> None:
    """Each is named in the table of faults."""
    table = (
        (ROOT / "docs" / "sandbox.md").read_text("utf-8").partition("| fault | share of polls")[2].partition("\n\n")[0]
    )
    named = set(re.findall(r"`(\w+)`", "".join(line.split("|")[1] for line in table.splitlines()[2:])))
    assert named == {field.name for field in fields(FaultProfile)}
