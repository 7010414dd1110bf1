"""``python -m smilejobs``: the command ``smilejobs``."""

from smilejobs.cli import main

if __name__ == "__main__":
    main()
