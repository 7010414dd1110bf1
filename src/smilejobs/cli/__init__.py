"""The shell commands; they need ``pip install 'smilejobs[cli]'``."""

import sys
from functools import partial


def main() -> None:
    """Run the command ``smilejobs``; the entry point of the package.

    Raises:
        SystemExit: Always. Its code is the one that the command's help tells; 2 if the extra is not installed.
    """
    try:
        import filelock  # noqa: F401  # only whether it is there
        import rich  # noqa: F401  # only whether it is there
        import typer  # noqa: F401  # only whether it is there
    except ImportError:
        sys.stderr.write("smilejobs: the shell commands need typer, rich and filelock: pip install 'smilejobs[cli]'\n")
        sys.exit(2)
    from smilejobs.cli.app import app
    from smilejobs.cli.exits import run_commands

    run_commands(partial(app, prog_name="smilejobs"))
