"""What lies below a folder of others, without what commands have put there."""

from __future__ import annotations

import os
from pathlib import Path

from converters.files.provenance import PROVENANCE


def is_result(folder: Path) -> bool:
    """Tell whether a folder is a result of a command: a run, a store, a converted data set."""
    return (folder / PROVENANCE).is_file()


def files_below(root: Path, *, results: bool = False, links: bool = False) -> list[Path]:
    """Return the files below a folder, sorted; none that are hidden, or lie in results of ours.

    The folder itself may be a result.

    Args:
        root: the folder.
        results: those in results, too.
        links: follow links to folders; a folder that several lead to counts once.
    """
    found: list[Path] = []
    seen = {root.resolve()}
    for place, below, names in os.walk(root, followlinks=links):
        shown = [name for name in below if not name.startswith(".")]
        if links:
            real = {name: Path(place, name).resolve() for name in shown}
            shown = [name for name in shown if real[name] not in seen]
            seen.update(real[name] for name in shown)
        below[:] = [name for name in shown if results or not is_result(Path(place, name))]
        found += [Path(place, name) for name in names if not name.startswith(".")]
    return sorted(found)
