"""The site of the documentation: ``nox -s docs`` builds it, with every warning an error."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

from smilejobs import __version__

project = "smilejobs"
author = "The smilejobs developers"
copyright = author  # noqa: A001  # the name that Sphinx reads
release = __version__
html_title = f"smilejobs {release}"
html_theme = "furo"
html_theme_options = {"source_repository": "https://github.com/smilejobs/smilejobs/", "source_branch": "main"}
html_theme_options["source_directory"] = "docs/"
html_copy_source = False
html_static_path = ["_static"]
html_css_files = ["site.css"]

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "command_line", "public_names", "repository"]
exclude_patterns = ["_build"]
myst_heading_anchors = 4
nitpicky = True
smartquotes = False  # they turn the two dashes of an option into one
pygments_style = "default"
pygments_dark_style = "monokai"

default_role = "py:obj"
autodoc_class_signature = "mixed"
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = False
maximum_signature_line_length = 80
python_use_unqualified_type_names = True
toc_object_entries_show_parents = "hide"
