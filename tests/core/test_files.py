"""Files that can hold personal data: who may read them, and what they never replace."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from smilejobs.files import create_private, open_private, temporary_path

pytestmark = pytest.mark.skipif(os.name == "nt", reason="files have no mode there")


@pytest.fixture(autouse=True)
def _open_to_all() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_new_file_is_its_owners(tmp_path: Path) -> None:
    """Whatever the umask; one that is there keeps its mode, and a link leads where it leads."""
    path = tmp_path / "file"
    with open(path, "w", opener=open_private):
        assert mode(path) == 0o600
    path.chmod(0o644)
    link = tmp_path / "link"
    link.symlink_to(path)
    with open(link, "a", opener=open_private) as file:
        file.write("more")
    assert (mode(path), path.read_text()) == (0o644, "more")


def test_a_created_file_replaces_nothing(tmp_path: Path) -> None:
    """Neither a file nor a link, and a link is not followed, though it leads nowhere."""
    path = tmp_path / "file"
    with open(path, "w", opener=create_private):
        assert mode(path) == 0o600
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "nowhere")
    for there in (path, link):
        with pytest.raises(FileExistsError):
            create_private(there)
    assert not (tmp_path / "nowhere").exists()


def test_temporary_names_are_random_and_short_enough(tmp_path: Path) -> None:
    """Two are never the same, and a long name of large characters can be one."""
    name = "\N{GRINNING FACE}" * 60
    (tmp_path / name).touch()
    paths = [temporary_path(tmp_path, name) for _ in range(2)]
    assert len(set(paths)) == 2
    for path in paths:
        path.touch()
        assert path.name.startswith(".")
        assert path.suffix == ".part"
