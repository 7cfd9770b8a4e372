"""What the machine, and not the program, did to a command: each is one line and one exit code."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from traceback import walk_tb

INTERRUPTED, TERMINATED, HUNG_UP = 130, 143, 129
_FULL = {errno.ENOSPC, errno.EDQUOT}
# What libraries that write for themselves make of a full disk: safetensors, torch, Arrow, SQLite.
_FULL_TEXTS = (
    "No space left on device",
    "StorageFull",
    "Disk quota exceeded",
    "database or disk is full",
)
_TORCH_WRITER = ("PytorchStreamWriter failed", "unexpected pos")
# PyTorch's loaders hand over batches by files of such names, which only they see.
_SHARED_TEXTS = ("</torch_", "out of shared memory")
_MEMORY_TEXTS = ("not enough memory", "can't allocate memory", "std::bad_alloc")
_CLOSED = {errno.EACCES, errno.EPERM, errno.EROFS}
_PARTIAL = re.compile(r"[/\\]\.([^/\\]+)\.[a-z0-9_]{8}\.partial([/\\].*)?$")
_AGAIN = "make room, and give the same command again: what is done stays done"
_NO_SHARED = "give --jobs 1, or set workers=0"


def describe_fault(error: BaseException) -> str:
    """Return one line for an error of the machine; "" for all others.

    Args:
        error: what a command ended with; libraries often raise their own error after another one.

    >>> describe_fault(OSError(28, "No space left on device", None, None, "a.csv"))[:37]
    'no space left on the disk (a.csv): ma'
    """
    for found in chain(error):
        if line := _shared_memory(found) or _disk(found) or _memory(found) or _processes(found):
            return line
    return _file(error) if isinstance(error, OSError) else ""


def how_stopped(error: BaseException) -> int:
    """Return the exit code of a command whose processes were stopped from outside; 0 for none.

    Who ends a command often ends all its processes at once, and the first to notice may be PyTorch.

    >>> how_stopped(RuntimeError("DataLoader worker (pid 9) is killed by signal: Terminated. "))
    143
    """
    for found in chain(error):
        text = str(found)
        if isinstance(found, RuntimeError) and "DataLoader worker" in text:
            signals = {"Terminated": TERMINATED, "Interrupt": INTERRUPTED}
            return next((code for word, code in signals.items() if word in text), 0)
    return 0


def is_disk_full(error: BaseException) -> bool:
    """Tell whether something could not be written for lack of space."""
    return any(map(_disk, chain(error)))


def _shared_memory(error: BaseException) -> str:
    text = str(error)
    if any(words in text for words in _SHARED_TEXTS):
        return f"no space left in the shared memory (/dev/shm) of several processes: {_NO_SHARED}"
    frames = walk_tb(error.__traceback__)
    if isinstance(error, OSError) and any(
        frame.f_globals.get("__name__") == "multiprocessing.synchronize" for frame, _ in frames
    ):
        return f"several processes need shared memory (/dev/shm): {error.strerror}; {_NO_SHARED}"
    return ""


def _disk(error: BaseException) -> str:
    text = str(error)
    if isinstance(error, OSError) and error.errno in _FULL:
        name = _name(error)
        return f"no space left on the disk{f' ({name})' if name else ''}: {_AGAIN}"
    if isinstance(error, OSError) and error.errno == errno.EFBIG:
        name = _name(error)
        return (
            f"a file may not grow so large{f' ({name})' if name else ''}: raise the limit "
            "(ulimit -f), or choose another disk"
        )
    if any(words in text for words in _FULL_TEXTS):
        return f"no space left on the disk: {_AGAIN}"
    if isinstance(error, RuntimeError) and any(words in text for words in _TORCH_WRITER):
        return f"a file could not be written, perhaps for lack of space: {_AGAIN}"
    return ""


def _memory(error: BaseException) -> str:
    text = str(error)
    if type(error).__name__ in ("OutOfMemoryError", "AcceleratorError") and "memory" in text:
        return "the GPU's memory is full: try a smaller batch or size, or another device"
    is_short = isinstance(error, OSError) and error.errno == errno.ENOMEM
    is_told = isinstance(error, RuntimeError) and any(words in text for words in _MEMORY_TEXTS)
    # OpenCV's error has the number of its kind.
    is_opencv = getattr(error, "code", None) == -4 and "Insufficient memory" in text
    if isinstance(error, MemoryError) or is_short or is_told or is_opencv:
        return "the machine's memory is full: try fewer --jobs, a smaller batch, or smaller images"
    return ""


def _processes(error: BaseException) -> str:
    text = str(error)
    if isinstance(error, RuntimeError) and "DataLoader worker" in text:
        return (
            "a process that prepares batches was killed, perhaps for lack of memory: set fewer "
            "workers, and give the same command again"
        )
    if isinstance(error, RuntimeError) and "can't start new thread" in text:
        return "no more threads can be started: try fewer --jobs, or workers=0"
    return ""


def _file(error: OSError) -> str:
    """Say what is wrong with a file without Python's brackets; "" where no file is named."""
    name, reason = _name(error), error.strerror
    if not name or not reason:
        return ""
    if error.errno in (errno.EEXIST, errno.ENOTDIR):
        return f"{name}: expected a folder there, found a file: move it, or choose another place"
    remedy = ": make it readable and writable, or choose another place"
    return f"{name}: {reason.lower()}{remedy if error.errno in _CLOSED else ''}"


def _name(error: OSError) -> str:
    """Return the file that an error names; where it was on its way to its place, that place."""
    name = error.filename2 or error.filename
    if isinstance(name, bytes):
        name = name.decode(errors="replace")
    return _PARTIAL.sub(r"/\1", name) if isinstance(name, str) else ""


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error, then what it came of."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__
