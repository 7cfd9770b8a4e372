"""Faults of the machine: each is one line that says what to do; what the program did is none."""

import errno
import multiprocessing.synchronize

import cv2
import pytest
import safetensors
import torch

from zoo.machine.faults import describe_fault, how_stopped, is_disk_full

DISK, MEMORY = "no space left on the disk", "the machine's memory is full"
SHARED, CLOSED = "shared memory (/dev/shm)", "make it readable and writable"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), DISK),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), DISK),
        (OSError(errno.ENOSPC, "No space left", "a.csv"), f"{DISK} (a.csv)"),
        (OSError(errno.ENOSPC, "No space left", "d/.out.ab12cd34.partial/x"), f"{DISK} (d/out)"),
        (safetensors.SafetensorError("I/O error: No space left on device (os error 28)"), DISK),
        (safetensors.SafetensorError("Error: IoError(StorageFull)"), DISK),
        (Exception("(sqlite3.OperationalError) database or disk is full"), DISK),
        (RuntimeError("[enforce fail at inline_container.cc:603] unexpected pos 64 vs 0"), "space"),
        (MemoryError(), MEMORY),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), MEMORY),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), MEMORY),
        (torch.OutOfMemoryError("CUDA out of memory."), "the GPU's memory is full"),
        (RuntimeError("unable to write to file </torch_1_2>: No space left"), SHARED),
        (RuntimeError("DataLoader worker (pid 9) is killed by signal: Killed."), "fewer workers"),
        (RuntimeError("can't start new thread"), "no more threads"),
        (OSError(errno.EROFS, "Read-only file system", "d/.out.ab12cd34.partial"), "d/out: read-o"),
        (OSError(errno.EFBIG, "File too large"), "a file may not grow so large: raise the limit"),
        (FileExistsError(errno.EEXIST, "File exists", "a"), "a: expected a folder there, found a"),
        (NotADirectoryError(errno.ENOTDIR, "Not a directory", "a/b"), "expected a folder there"),
        (PermissionError(errno.EACCES, "Permission denied", "a"), CLOSED),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "a"), "a: no such file"),
    ],
)
def test_a_fault_is_one_line(error, words):
    line = describe_fault(error)
    assert words in line
    assert "\n" not in line
    assert "Errno" not in line


def test_processes_that_are_told_to_end_are_no_fault():
    error = ValueError("no batch")
    error.__cause__ = RuntimeError("DataLoader worker (pid 9) is killed by signal: Terminated. ")
    assert how_stopped(error) == 143
    assert how_stopped(RuntimeError("DataLoader worker (pid 9) is killed by signal: Killed.")) == 0
    assert how_stopped(ValueError("expected a")) == 0


def test_memory_that_opencv_lacks_is_told():
    error = cv2.error("Insufficient memory")
    error.code = -4
    assert MEMORY in describe_fault(error)


@pytest.mark.parametrize(
    "error",
    [ValueError("expected a"), KeyError("a"), RuntimeError("shapes"), OSError("told in words")],
)
def test_other_errors_are_not(error):
    assert describe_fault(error) == ""
    assert not is_disk_full(error)


def test_the_first_cause_counts():
    error = RuntimeError("the writer is closed")
    error.__cause__ = OSError(errno.ENOSPC, "No space left on device")
    assert DISK in describe_fault(error)
    assert is_disk_full(error)


def test_processes_without_shared_memory(monkeypatch):
    def refuse(*_):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(multiprocessing.synchronize._multiprocessing, "SemLock", refuse)
    with pytest.raises(OSError, match="Read-only") as caught:
        multiprocessing.Lock()
    assert SHARED in describe_fault(caught.value)
    assert "--jobs 1" in describe_fault(caught.value)
