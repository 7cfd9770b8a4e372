"""Which one this process is of those that train one run together; of anything else the only one."""

from __future__ import annotations

import os

_RANKS = ("RANK", "SLURM_PROCID", "LOCAL_RANK", "NODE_RANK")


def is_first_process() -> bool:
    """Tell whether this is the process that writes, whoever began them."""
    return all(os.environ.get(name, "0") == "0" for name in _RANKS)
