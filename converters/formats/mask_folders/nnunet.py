"""nnU-Net's raw data sets of plane images.

    DATA/imagesTr/NAME_0000.png     images, also TIFF or BMP
    DATA/labelsTr/NAME.png          their index maps
    DATA/imagesTs/NAME_0000.png     (optional) test images; labelsTs/ holds their maps
    DATA/dataset.json               `labels`: name -> number, or -> numbers (regions)
    DATA/images.json                (ours) NAME -> key, group, size
    DATA/splits_final.json          (with a split) names of each fold, which nnU-Net takes over

Number 0 is none, and so is a class `ignore`. A region, such as a whole tumour, is the union of its
numbers, and regions overlap. Images of several files (`_0001`, ...) are refused: networks here are
shown one. Without `images.json` keys are names, those of test images lie in `test`.

Written are PNGs, of three channels where any image has colours. Classes that share pixels become
regions (`nnunet_writing`): nnU-Net learns all of them, and its probabilities have them, while of a
map that it predicts a pixel has one.

Source: nnU-Net v2, documentation/dataset_format.md, region_based_training.md, ignore_label.md.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from converters.errors import Problems, one_line
from converters.files.images import is_image, read_size_hw
from converters.files.json_files import load_json
from converters.formats.label_spaces import folder_space
from converters.formats.mask_colours import check_palettes
from converters.formats.mask_folders.mask_folders import read_mask
from converters.formats.mask_folders.nnunet_writing import (
    BACKGROUND,
    DATASET,
    IGNORE,
    IMAGES_TEST,
    IMAGES_TRAIN,
    LABELS_TEST,
    LABELS_TRAIN,
    write,
)
from converters.formats.mask_folders.pairing import describe_left_out
from converters.formats.mask_folders.tree import Tree
from converters.formats.mask_pixels import used_values
from converters.formats.writing import INDEX, read_index
from converters.masks import crop, outline
from converters.types import NO_CLASS, Instance, LabelSpace, Sample

__all__ = [
    "LOSES",
    "WITHOUT_VAL",
    "annotation_files",
    "label_space",
    "list_images",
    "matches",
    "read",
    "write",
]

LOSES = {"regions": frozenset({"objects", "subpixels"})}
WITHOUT_VAL = "nnU-Net deals folds itself, image by image"
_TRAIN, _TEST = (IMAGES_TRAIN, LABELS_TRAIN, ""), (IMAGES_TEST, LABELS_TEST, "test/")
# What ends an image's name: the number of its channel.
_CHANNEL = re.compile(r"(.+)_(\d{4})")
_FORM = "'labels' of names with their numbers, such as {'background': 0, 'lung': 1}"


def matches(root: Path) -> bool:
    """Tell whether a folder holds nnU-Net's description, and plane images of it."""
    images, labels, _ = _TRAIN
    if not ((root / DATASET).is_file() and (root / labels).is_dir()):
        return False
    return any(map(is_image, _inside(root / images))) or (root / INDEX).is_file()


def annotation_files(root: Path) -> tuple[Path, ...]:
    """Return the file that describes the data set."""
    path = root / DATASET
    return (path,) if path.is_file() else ()


def label_space(root: Path) -> LabelSpace:
    """Return the classes and regions of dataset.json.

    Raises:
        ValueError: a file that names none.
    """
    return folder_space(root, tuple(_classes(root)))


def _classes(root: Path) -> dict[str, tuple[int, ...]]:
    """Name of a class or a region -> its numbers."""
    path = root / DATASET
    content = load_json(path)
    labels = content.get("labels") if isinstance(content, dict) else None
    if not isinstance(labels, dict) or not labels:
        raise ValueError(f"{path}: expected {_FORM}, found {labels!r:.60}")
    # Before version 2: {"0": "background", "1": "lung"}.
    is_old = all(str(key).isdecimal() and isinstance(name, str) for key, name in labels.items())
    pairs = ((name, key) for key, name in labels.items()) if is_old else labels.items()
    found: dict[str, tuple[int, ...]] = {}
    for name, given in pairs:
        numbers = given if isinstance(given, list) else [given]
        if not all(str(number).isdecimal() for number in numbers) or name in found:
            raise ValueError(f"{path}: expected {_FORM}, found {name!r:.40}: {given!r:.40}")
        found[name] = tuple(int(number) for number in numbers)
    if wrong := [n for n, own in found.items() if own == (0,) and n.casefold() not in NO_CLASS]:
        raise ValueError(f"{path}: expected 0 to be the background, found '{wrong[0]:.60}'")
    kept = {name: own for name, own in found.items() if set(own) - {0} and name != IGNORE}
    single = [own for own in kept.values() if len(own) == 1]
    if twice := [own[0] for own in single if single.count(own) > 1]:
        raise ValueError(f"{path}: expected each number once, found {twice[0]} twice")
    if not kept:
        raise ValueError(f"{path}: expected a class beside '{BACKGROUND}', found none")
    return kept


def read(root: Path, *, subset: str, labels: LabelSpace, problems: Problems) -> list[Sample]:
    """Read index maps.

    Args:
        root: the data set's folder.
        subset: `test` are the images of `imagesTs`; `train` are the others.
        labels: those of `label_space`.
        problems: takes down maps and images that are broken or missing.

    Returns:
        Samples, an instance for each class and region of an image.

    Raises:
        ValueError: as `label_space`, or images of several files.
    """
    classes = _classes(root)
    known = _known(root, classes)
    samples: list[Sample] = []
    for sample, path in _images(root, subset, problems):
        try:
            found = tuple(_instances(path, sample.size_hw, classes, known)) if path else ()
        except (OSError, ValueError) as error:
            problems.add(path or root, one_line(error), key=sample.key)
            continue
        samples.append(replace(sample, instances=found))
    maps = [path for part in (_TRAIN, _TEST) for path in _inside(root / part[1])]
    check_palettes(filter(is_image, maps))
    ignored = _ignored(root)
    if ignored is not None:
        problems.note(f"{root}: pixels of the number {ignored} ('{IGNORE}') are no class")
    return samples


def list_images(root: Path, *, subset: str, problems: Problems) -> list[Sample]:
    """List the images that `read` reads, without their objects.

    Args:
        root: as for `read`, like the next two.
        subset: `test`, `train` or `all`.
        problems: takes down images that are broken.
    """
    return [sample for sample, _ in _images(root, subset, problems)]


def _ignored(root: Path) -> int | None:
    """The number of pixels that nobody has annotated; None without any."""
    labels: Any = load_json(root / DATASET)["labels"]
    given = labels.get(IGNORE)
    found = [key for key, name in labels.items() if name == IGNORE] + [given]
    return next((int(number) for number in found if str(number).isdecimal()), None)


def _known(root: Path, classes: Mapping[str, tuple[int, ...]]) -> set[int]:
    """The numbers that a map may hold."""
    ignored = _ignored(root)
    own = {0, *(number for numbers in classes.values() for number in numbers)}
    return own if ignored is None else own | {ignored}


def _images(root: Path, subset: str, problems: Problems) -> Iterator[tuple[Sample, Path | None]]:
    """Yield a subset's images, sorted by key, with their maps; test images may have none."""
    index = read_index(root)
    homes = [root / folder for part in (_TRAIN, _TEST) for folder in part[:2]]
    if others := [path for path in Tree(root).all_files() if path.parent not in homes]:
        problems.note(describe_left_out(root, others))
    for part in (_TEST, _TRAIN):
        if subset in ("all", "test" if part is _TEST else "train"):
            yield from _part(root, part, index, problems)


def _part(
    root: Path,
    part: tuple[str, str, str],
    index: Mapping[str, Mapping[str, Any]],
    problems: Problems,
) -> Iterator[tuple[Sample, Path | None]]:
    maps: dict[str, Path] = {}
    for path in filter(is_image, _inside(root / part[1])):
        if maps.setdefault(path.stem, path) != path:
            what = f"expected one map of this name, found {maps[path.stem].name} too"
            problems.add(path, what, key=part[2] + path.stem)
    images = _named(root / part[0], maps, index)
    for name in sorted(maps.keys() - images.keys()):
        problems.add(maps[name], f"expected an image {name}_0000, found none", key=part[2] + name)
    without = sorted(images.keys() - maps.keys()) if part is _TRAIN else []
    if without:
        problems.note(
            f"{root}: left out {len(without)} images without a map in {part[1]} ({without[0]}, ...)"
        )
    for name in sorted(images.keys() - set(without)):
        fields = {"key": part[2] + name, **index.get(name, {})}
        try:
            size_hw = read_size_hw(images[name])
            yield Sample(image=images[name], size_hw=size_hw, **fields), maps.get(name)
        except ValueError as error:
            problems.add(images[name], error, key=fields["key"])


def _named(folder: Path, maps: Collection[str], written: Collection[str]) -> dict[str, Path]:
    """Name of an image -> its one file; some names may be known from what we wrote.

    Raises:
        ValueError: it has several.
    """
    found: dict[str, Path] = {}
    for path in filter(is_image, _inside(folder)):
        named = _CHANNEL.fullmatch(path.stem)
        # `scan_2020` is a name where a map has it, and no channel.
        is_channel = named and (named[1] in written or path.stem not in maps)
        name = named[1] if named and is_channel else path.stem
        if name in found:
            raise ValueError(
                f"{path}: expected one file an image, found {found[name].name} too: networks here "
                "are shown one; keep a copy of the data set with that channel alone"
            )
        found[name] = path
    return found


def _inside(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _instances(
    path: Path, size_hw: tuple[int, int], classes: Mapping[str, tuple[int, ...]], known: set[int]
) -> Iterator[Instance]:
    values = read_mask(path, size_hw)
    if values.ndim != 2:
        raise ValueError("expected numbers of classes, found colours")
    if others := sorted(set(used_values(values)) - known):
        raise ValueError(f"expected a number of {DATASET}, found {others[0]}")
    for name, numbers in classes.items():
        plane = np.isin(values, numbers).astype(np.uint8)
        if plane.any():
            yield Instance(name, outline(crop(plane)))
