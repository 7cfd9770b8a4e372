"""Notes that a run keeps about itself, in its `provenance.json`."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from converters.files.json_files import dump_json
from converters.files.provenance import PROVENANCE, atomic_write_text, read_provenance

# PyTorch's words where a kernel has no variant that gives the same bits each time.
_UNSURE = re.compile(r"(\S+) does not have a deterministic implementation|(\S+) is not determin")
BY_SPEED = (
    "on CUDA kernels are chosen by speed and some add in any order: a second run with this seed "
    "differs in the last bits; deterministic=true avoids what can be avoided"
)


def add_note(run: Path, note: str) -> None:
    """Add a sentence to the notes in a run's provenance, once; a folder without one stays so."""
    record = read_provenance(run)
    notes = record.get("notes", [])
    if not record or note in notes:
        return
    atomic_write_text(run / PROVENANCE, dump_json({**record, "notes": [*notes, note]}))


def set_note(run: Path, text: str) -> None:
    """Write what a run is to find out, the config's key `note`, into its provenance.

    A later one takes the place of what was there; an empty one leaves it.
    """
    record = read_provenance(run)
    if text and record and record.get("note") != text:
        atomic_write_text(run / PROVENANCE, dump_json({**record, "note": text}))


def mark_failed(run: Path, why: str | None) -> None:
    """Write into a run's provenance why it failed, or that it did not after all (None).

    A folder without provenance stays so.
    """
    record = read_provenance(run)
    if not record or record.get("failed") == why:
        return
    kept = {name: value for name, value in record.items() if name != "failed"}
    atomic_write_text(run / PROVENANCE, dump_json({**kept, "failed": why} if why else kept))


@contextmanager
def noted_kernels(found: set[str]) -> Iterator[None]:
    """Collect the names of kernels that PyTorch warns of in deterministic mode.

    The mode is as before when the block ends; Lightning leaves it on.
    """
    mode, benchmark = torch.get_deterministic_debug_mode(), torch.backends.cudnn.benchmark
    shown = warnings.showwarning

    def show(message: Warning | str, *rest: object) -> None:
        match = _UNSURE.search(str(message))
        if match:
            found.add(match[1] or match[2])
        else:
            shown(message, *rest)  # type: ignore[arg-type]

    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("always", message=".*determinis")
            warnings.showwarning = show  # type: ignore[assignment]
            yield
    finally:
        torch.set_deterministic_debug_mode(mode)
        torch.backends.cudnn.benchmark = benchmark
