"""What folders hold, to be compared."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path


def digests(folder: Path) -> dict[str, str]:
    """Return path -> digest of every file below a folder; of a link, where it leads."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            found[name] = f"link to {os.readlink(path)}"
        elif path.is_file():
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        else:
            found[name] = "folder"
    return found
