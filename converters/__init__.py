"""Annotations: their types, their pixels, and the formats they are read from and written to."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, cast

from converters.errors import DataError, MissingDependency

if TYPE_CHECKING:
    from converters.types import LabelSpace, Sample

__all__ = ["FORMATS", "SUBSETS", "DataError", "MissingDependency", "load_format", "read"]

# A format is a module with
#   matches(root) -> bool                            is this folder in the format?
#   LOSES: frozenset                                 of "overlaps", "holes", "parts", "subpixels"
#   read(root, *, subset, labels) -> list[Sample]    and/or
#   write(samples, out, labels, *, split, fold, provenance, progress) -> ConversionLoss
FORMATS: dict[str, str] = {
    "handbone": "converters.handbone",
    "yolo": "converters.yolo",
    "masks": "converters.masks_dir",
    "segformer": "converters.segformer",
}
SUBSETS = ("train", "test", "all")


def load_format(name: str) -> ModuleType:
    """Import the module of a format.

    Raises:
        ValueError: an unknown name.
    """
    if name not in FORMATS:
        raise ValueError(f"format '{name}': expected one of {', '.join(FORMATS)}")
    return importlib.import_module(FORMATS[name])


def recognise(data: Path) -> str:
    """Return the name of the format that a folder is in, by its content.

    Raises:
        ValueError: the folder is missing, or in no known format, or in several.
    """
    if not data.is_dir():
        raise ValueError(f"{data}: expected a data set's folder, found nothing there")
    found = [name for name in FORMATS if load_format(name).matches(data)]
    if len(found) == 1:
        return found[0]
    known = " or ".join(found or FORMATS)
    what = "several formats at once" if found else "none that is known"
    raise ValueError(f"{data}: expected a data set in one format, found {what}; name it: {known}")


def read(
    data: Path, *, format: str | None = None, subset: str = "train", labels: LabelSpace
) -> list[Sample]:
    """Read a data set in any readable format.

    Args:
        data: its folder.
        format: the format's name; None recognises it by the folder's content.
        subset: `train`, `test` or `all`; test samples may have no instances.
        labels: the classes that may occur.

    Returns:
        Samples, sorted by key.

    Raises:
        DataError: files that are broken or do not fit together, all in one error.
        ValueError: an unknown format or subset, or a format that cannot be read.
    """
    if subset not in SUBSETS:
        raise ValueError(f"subset '{subset}': expected one of {', '.join(SUBSETS)}")
    name = format or recognise(data)
    module = load_format(name)
    if not hasattr(module, "read"):
        readable = ", ".join(n for n in FORMATS if hasattr(load_format(n), "read"))
        raise ValueError(f"{data}: format '{name}' is only written; readable are {readable}")
    if not data.is_dir():
        raise ValueError(f"{data}: expected a data set's folder, found nothing there")
    samples = cast("list[Sample]", module.read(data, subset=subset, labels=labels))
    return sorted(samples, key=lambda sample: sample.key)
