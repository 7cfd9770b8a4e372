"""The classes that are named beside predictions, in one of these.

classes.txt      a class a line; the first is number 1 of index maps, or 0 where it is `background`
dataset.json     nnU-Net's, `labels`: name -> number, or -> numbers where a class is a region
FILE.npz         with the predictions, in an array `classes` of texts, as in `classes.txt`
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from converters.files.json_files import load_json
from converters.formats.mask_folders.nnunet_writing import DATASET, IGNORE
from converters.formats.yolo.config import listed_names
from fusion.interchange.files.content import nearest_file
from fusion.interchange.files.npz import SUFFIX, classes_in

NAMES = "classes.txt"
BACKGROUND = "background"
Stated = list[tuple[str, tuple[int, ...]]]
"""Names with their numbers in index maps, in the order of planes."""


def find_stated(folder: Path, paths: Collection[Path], first: str = NAMES) -> Path | None:
    """Return the file that names the classes of predictions; None where none does.

    Args:
        folder: beyond which nobody looks.
        paths: of the predictions.
        first: the name of the file that counts where there are both.

    Raises:
        ValueError: it is another one for some of them.
    """
    names = sorted((NAMES, DATASET), key=lambda name: name != first)
    if (beside := nearest_file(folder, paths, names)) is not None:
        return beside
    inside = {path: classes_in(path) for path in sorted(set(paths))}
    stated = next((path for path, own in inside.items() if own), None)
    if stated is None:
        return None
    for path, own in inside.items():
        if own != inside[stated]:
            wanted, found = ", ".join(inside[stated]), ", ".join(own) or "none"
            raise ValueError(
                f"{path}: expected the classes that {stated} names, {wanted:.80}, found {found:.80}"
            )
    return stated


def is_list(path: Path) -> bool:
    """Tell whether a file of classes has these one after the other, without numbers."""
    return path.name != DATASET


def read_stated(path: Path) -> Stated:
    """Return the classes that a file states.

    Args:
        path: of a `classes.txt` or a `dataset.json`, or a NPZ with them.

    Raises:
        ValueError: a broken file, or one without classes.
    """
    if is_list(path):
        names = classes_in(path) if path.suffix.lower() == SUFFIX else listed_names(path)
        if not names:
            raise ValueError(f"{path}: expected classes, one a line, found none")
        first = 0 if names[0].casefold() == BACKGROUND else 1
        return [(name, (number,)) for number, name in enumerate(names, first)]
    try:
        return _of_nnunet(load_json(path))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _of_nnunet(record: object) -> Stated:
    """The names of dataset.json with their numbers, in the order of nnU-Net's probabilities."""
    labels = record.get("labels") if isinstance(record, dict) else None
    given = labels if isinstance(labels, dict) else {}
    # Of pixels that nothing is learned from, nothing is predicted.
    names = [(str(name), own) for name, own in given.items() if name != IGNORE]
    listed = [(name, tuple(own) if isinstance(own, list) else (own,)) for name, own in names]
    are_numbers = all(own and all(type(n) is int for n in own) for _, own in listed)
    classes = [(name, own) for name, own in listed if are_numbers and set(own) != {0}]
    if not classes:
        raise ValueError("expected 'labels' with names, and for each a whole number, or several")
    if all(len(own) == 1 for _, own in listed):
        return sorted(listed, key=lambda pair: pair[1])
    # Networks of regions have no output for the background.
    return classes
