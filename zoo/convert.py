"""From one annotation format to another, with the loss measured."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import converters
from converters.splits import Split
from converters.types import LabelSpace
from zoo.progress import Report


def convert(
    data: Path,
    to: str,
    out: Path,
    data_format: str | None,
    split_path: Path | None,
    fold: int,
    subset: str,
    labels_name: str,
    *,
    command: Sequence[str],
    report: Report,
) -> tuple[int, str]:
    """Convert a data set; return the number of images and what was lost, in words.

    Raises:
        ValueError: unreadable data, a format that cannot be written, or a split of other images.
    """
    labels = LabelSpace.load(labels_name)
    target = converters.load_format(to)
    if not hasattr(target, "write"):
        raise ValueError(f"format '{to}': expected one that can be written")
    samples = converters.read(data, format=data_format, subset=subset, labels=labels)
    split = Split.load(split_path) if split_path else None
    if split:
        split.check(samples)
    loss = target.write(
        *(samples, out, labels),
        split=split,
        fold=fold,
        provenance={"command": list(command)},
        progress=lambda done, total: report(done, total, ""),
    )
    return len(samples), loss.describe()
