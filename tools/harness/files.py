"""What folders hold, to be compared."""

from __future__ import annotations

import csv
import hashlib
import io
import os
from pathlib import Path


def digests(folder: Path) -> dict[str, str]:
    """Return path -> digest of every file below a folder; of a link, where it leads.

    What a run took to train does not count.
    """
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            found[name] = f"link to {os.readlink(path)}"
        elif path.is_file():
            found[name] = hashlib.sha256(_without_times(path)).hexdigest()
        else:
            found[name] = "folder"
    return found


def _without_times(path: Path) -> bytes:
    content = path.read_bytes()
    if path.name != "metrics.csv":
        return content
    rows = [dict(row) for row in csv.DictReader(io.StringIO(content.decode(errors="replace")))]
    return repr([[(k, v) for k, v in row.items() if k != "seconds"] for row in rows]).encode()
