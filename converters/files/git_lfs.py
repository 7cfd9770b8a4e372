"""Pointers that stand in a file's place where Git has not fetched it.

Source: Git LFS' specification, version 1.
"""

from __future__ import annotations

_POINTER = b"version https://git-lfs.github.com/spec/"
WHAT = "a pointer of Git LFS: fetch the file itself (git lfs pull)"
"""What was found, and what to do, for a message."""


def is_pointer(content: bytes) -> bool:
    """Tell by its first bytes whether a file is such a pointer.

    >>> is_pointer(b"version https://git-lfs.github.com/spec/v1"), is_pointer(b"{}")
    (True, False)
    """
    return content.startswith(_POINTER)
