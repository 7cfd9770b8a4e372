"""What the machine, and not the program, did to a command: each is one line and one exit code."""

from __future__ import annotations

import errno
from collections.abc import Iterator

INTERRUPTED = 130
_FULL = {errno.ENOSPC, errno.EDQUOT}
# What libraries that write for themselves make of a full disk: safetensors, torch, Arrow, HDF5.
_FULL_TEXTS = ("No space left on device", "StorageFull", "Disk quota exceeded")
_TORCH_WRITER = ("PytorchStreamWriter failed", "unexpected pos")
_AGAIN = "make room, and give the same command again: what is done stays done"


def describe_fault(error: BaseException) -> str:
    """Return one line for an error of the machine; "" for all others.

    Args:
        error: what a command ended with; libraries often raise their own error after another one.

    >>> describe_fault(OSError(28, "No space left on device", None, None, "a.csv"))[:37]
    'no space left on the disk (a.csv): ma'
    """
    for found in _chain(error):
        text = str(found)
        if isinstance(found, OSError) and found.errno in _FULL:
            return f"no space left on the disk{_named(found)}: {_AGAIN}"
        if any(words in text for words in _FULL_TEXTS):
            return f"no space left on the disk: {_AGAIN}"
        if isinstance(found, RuntimeError) and any(words in text for words in _TORCH_WRITER):
            return f"a file could not be written, perhaps for lack of space: {_AGAIN}"
        if type(found).__name__ in ("OutOfMemoryError", "AcceleratorError") and "memory" in text:
            return "the GPU's memory is full: try a smaller batch or size, or another device"
        if isinstance(found, MemoryError):
            return "the machine's memory is full: try fewer --jobs, or smaller images"
    return ""


def _named(error: OSError) -> str:
    name = error.filename2 or error.filename
    return f" ({name})" if name else ""


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__
