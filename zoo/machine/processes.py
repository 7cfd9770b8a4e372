"""This process: which one it is of those that train one run together, and that it is not ended."""

from __future__ import annotations

import os
import signal

_RANKS = ("RANK", "SLURM_PROCID", "LOCAL_RANK", "NODE_RANK")


def is_first_process() -> bool:
    """Tell whether this is the process that writes, whoever began them."""
    return all(os.environ.get(name, "0") == "0" for name in _RANKS)


def ignore_ends() -> None:
    """Hear no more of Ctrl-C, of being told to end, or of a terminal that is closed."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
