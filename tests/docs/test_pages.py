"""The pages show code that runs, their links lead somewhere, and CI runs what the README says."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
BLOB = "https://github.com/smilejobs/smilejobs/blob/main/"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
EXAMPLES = sorted((ROOT / "examples").rglob("*.py"))
CELLS = json.loads((ROOT / "examples" / "notebook.ipynb").read_text("utf-8"))["cells"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_piece_of_python_in_a_page_is_part_of_an_example(page: Path) -> None:
    """What a reader copies is what the tests run."""
    sources = [example.read_text() for example in EXAMPLES]
    sources += ["".join(cell["source"]) + "\n" for cell in CELLS if cell["cell_type"] == "code"]
    for block in re.findall(r"^```python\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE):
        assert any(block in source for source in sources), f"in no example:\n{block}"


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
