"""Where `zoo` and `python -m zoo` begin: Ctrl-C is one line, also while libraries are loaded."""

from __future__ import annotations

import signal
import sys
from types import FrameType


def run() -> None:
    """Run the command line; what stops it from outside ends it in good order."""
    signal.signal(signal.SIGTERM, _end)
    try:
        from zoo.cli import main

        main()
    except KeyboardInterrupt:
        print("zoo: interrupted", file=sys.stderr)
        sys.exit(130)
    finally:
        # All is done: a signal while Python takes itself apart would change the exit code.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _end(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    run()
