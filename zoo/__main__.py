"""Where `zoo` and `python -m zoo` begin: Ctrl-C is one line, also while libraries are loaded."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from types import FrameType

from zoo.machine.processes import ignore_ends


def run() -> None:
    """Run the command line; what stops it from outside ends it in good order."""
    signal.signal(signal.SIGTERM, _end)
    # A terminal that is closed; nohup lets a command ignore that.
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
        signal.signal(signal.SIGHUP, _end)
    # What is wrong with an image we say ourselves, with its name. Read when OpenCV is imported.
    os.environ.setdefault("OPENCV_LOG_LEVEL", "OFF")
    # Hints for those who write PyTorch's C++, such as about processes that train together.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    try:
        from zoo.cli import main

        main()
    except KeyboardInterrupt:
        print("zoo: interrupted", file=sys.stderr)
        sys.exit(130)
    finally:
        # All is done: a signal while Python takes itself apart would change the exit code.
        ignore_ends()
        _tidy()


def _tidy() -> None:
    """Remove the empty folder that PyTorch makes for a compiler that nobody has asked for."""
    paths = sys.modules.get("torch._inductor.runtime.cache_dir_utils")
    if paths is not None:
        with suppress(OSError):
            os.rmdir(paths.default_cache_dir())


def _end(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    run()
