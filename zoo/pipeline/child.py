"""A step's process: a `zoo` command that does not outlive the pipeline it belongs to."""

import ctypes
import signal
import sys


def end_with_parent() -> None:
    """Let this process be ended when the one that started it is, however that ended (Linux)."""
    if sys.platform == "linux":
        # prctl(2): PR_SET_PDEATHSIG is 1.
        ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGTERM)


if __name__ == "__main__":
    end_with_parent()
    from zoo.__main__ import run

    run()
