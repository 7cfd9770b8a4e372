"""What two runs have learned, side by side."""

from __future__ import annotations

from pathlib import Path

import torch

from zoo.run_files.checkpoints import BEST, LAST, read_weights


def differing_weights(first: Path, second: Path, *names: str) -> list[str]:
    """Return what differs between the weights of two runs, to the last bit: [] where nothing does.

    Args:
        first: a run's folder.
        second: another one's.
        names: of files of weights; those of the last and of the best epoch without.
    """
    found = []
    for name in names or (LAST, BEST):
        a, b = read_weights(first / name), read_weights(second / name)
        found += [f"{name}: {key} is in one" for key in sorted(a.keys() ^ b.keys())]
        common = sorted(a.keys() & b.keys())
        found += [f"{name}: {key}" for key in common if not torch.equal(a[key], b[key])]
    return found
