"""Files of the repository in the site: some become pages, and links to all others lead to the repository."""

import re
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.util.typing import ExtensionMetadata

ROOT = Path(__file__).parent.parent.parent
URL = "https://github.com/smilejobs/smilejobs/blob/main"
PAGES = {
    "benchmarks": ROOT / "benchmarks" / "README.md",
    "changelog": ROOT / "CHANGELOG.md",
    "contributing": ROOT / "CONTRIBUTING.md",
    "security": ROOT / "SECURITY.md",
}
"""The text of a page that is kept elsewhere, by the name of the page."""

_LINK = re.compile(r"\]\((?!https?://|#)([^)#\s]+)(#[^)\s]*)?\)")


def take_text(app: Sphinx, page: str, source: list[str]) -> None:
    """Put the file of a page in its place, and lead links to files that are no pages to the repository."""
    path = PAGES.get(page, Path(app.env.doc2path(page)))
    text = path.read_text("utf-8")

    def lead(link: re.Match[str]) -> str:
        target = (path.parent / link[1]).resolve()
        for name, file in PAGES.items():
            if target == file:
                return f"](/{name}.md{link[2] or ''})"
        if target.is_relative_to(ROOT / "docs"):
            return f"](/{target.relative_to(ROOT / 'docs').as_posix()}{link[2] or ''})"
        return f"]({URL}/{target.relative_to(ROOT).as_posix()}{link[2] or ''})" if target.exists() else link[0]

    if path.suffix == ".md":
        source[0] = _LINK.sub(lead, text)


def setup(app: Sphinx) -> ExtensionMetadata:
    app.connect("source-read", take_text)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
