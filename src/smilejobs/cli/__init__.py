"""The command ``smilejobs``, which needs ``pip install 'smilejobs[cli]'``."""

import sys
from functools import partial

from smilejobs.cli.stopping import exit_on_signals


def main() -> None:
    """Run the command ``smilejobs``; the entry point of the package.

    Raises:
        SystemExit: Always. Its code is the one in the help of the command; 2 if the extra is not installed.
    """
    exit_on_signals()
    try:
        import filelock  # noqa: F401  # fails if the extra is not installed
        import rich  # noqa: F401  # fails if the extra is not installed
        import typer  # noqa: F401  # fails if the extra is not installed
    except ImportError:
        sys.stderr.write("smilejobs: the shell commands need typer, rich and filelock: pip install 'smilejobs[cli]'\n")
        sys.exit(2)
    from smilejobs.cli.app import app
    from smilejobs.cli.exits import run_commands

    run_commands(partial(app, prog_name="smilejobs"))
