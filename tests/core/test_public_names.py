"""The public names of `smilejobs`, and the cost of importing it."""

import json
import re
import subprocess
import sys
from types import ModuleType

import smilejobs


def place(name: str) -> tuple[object, ...]:
    """Return the sort key of a name in an "isort-style" list: constants, classes, the rest; numbers as numbers."""
    kind = 0 if name.isupper() and len(name) > 1 else 1 if name[:1].isupper() else 2
    return kind, [(int(digits or -1), other) for digits, other in re.findall(r"(\d+)|(\D+)", name)]


def test_the_sorting_is_that_of_the_linter() -> None:
    """Constants, then classes, then the rest; capitals before small letters, 9 before 10."""
    names = ["ab", "URL10", "__version__", "Not", "A_B", "URL9", "NoZip", "Ab"]
    assert sorted(names, key=place) == ["A_B", "URL9", "URL10", "Ab", "NoZip", "Not", "__version__", "ab"]


def test_all_is_the_sorted_list_of_the_public_names() -> None:
    """No public name is missing or listed twice, and each name is found where it is documented."""
    public = {
        name
        for name, value in vars(smilejobs).items()
        if name == "__version__" or not (name.startswith("_") or isinstance(value, ModuleType))
    }
    assert set(smilejobs.__all__) == public
    assert smilejobs.__all__ == sorted(smilejobs.__all__, key=place)
    assert len(smilejobs.__all__) == len(set(smilejobs.__all__))


def test_what_has_a_name_has_an_explanation() -> None:
    """Every public class and function has a docstring."""
    ours = [value for name in smilejobs.__all__ if isinstance(value := getattr(smilejobs, name), type)]
    assert len(ours) > 20
    assert [cls for cls in ours if cls.__module__.startswith("smilejobs") and not cls.__doc__] == []


def test_the_import_brings_no_more_than_is_declared() -> None:
    """Importing the library loads no extras, test tools or other event loops."""
    code = """
import json, sys
import anyio, attrs, cattrs, httpx, tenacity
before = set(sys.modules)
import smilejobs
print(json.dumps(sorted({name.partition(".")[0] for name in set(sys.modules) - before})))
"""
    run = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    roots = set(json.loads(run.stdout))
    assert "smilejobs" in roots
    assert not roots & {"starlette", "uvicorn", "typer", "rich", "trio", "httpx2", "pytest", "click", "procrastinate"}
    assert roots - sys.stdlib_module_names <= {"smilejobs", "anyio", "attrs", "cattrs", "httpx", "tenacity", "sniffio"}


def test_the_import_brings_no_extra() -> None:
    """Importing the library does not import its packages that need an extra."""
    code = "import json, sys, smilejobs; print(json.dumps([name for name in sys.modules if 'smilejobs' in name]))"
    run = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    rooms = {name.split(".")[1] for name in json.loads(run.stdout) if name != "smilejobs"}
    assert "client" in rooms
    assert not rooms & {"testing", "sandbox", "cli"}
