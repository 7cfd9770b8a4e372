"""Where `zoo` and `python -m zoo` begin: Ctrl-C is one line, also while libraries are loaded."""

from __future__ import annotations

import sys


def run() -> None:
    """Run the command line."""
    try:
        from zoo.cli import main

        main()
    except KeyboardInterrupt:
        print("zoo: interrupted", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    run()
