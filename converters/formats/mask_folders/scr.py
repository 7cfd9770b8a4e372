"""SCR's masks of the chest radiographs of the JSRT; only read.

    DATA/**/JPCLN001.png                        the image, wherever it lies; JPCNN001, ..., too
    DATA/fold1/masks/heart/JPCLN001.gif         black and white; fold2 holds the even numbers
    DATA/fold1/masks/left clavicle/...          left lung, right clavicle, right lung

Images are the JSRT's own files (`JPCLN001.IMG`, 2048 x 2048 without a header) or what was made of
them. Masks have 1024 x 1024 pixels and are brought to the image's size: each pixel becomes several
of a larger image, and the half decides in a smaller one. That is said. `zoo split --strategy given`
keeps the two folds, by which results on SCR are published.

Source: B. van Ginneken, M. B. Stegmann, M. Loog, "Segmentation of anatomical structures in chest
radiographs using supervised methods", Medical Image Analysis 10 (2006), section 2; J. Shiraishi et
al., AJR 174 (2000), for the images.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from converters.errors import Problems, one_line
from converters.files.image_headers import JSRT_NAME
from converters.files.images import read_size_hw
from converters.formats.label_spaces import folder_space
from converters.formats.mask_folders.mask_folders import read_mask
from converters.formats.mask_folders.tree import Tree
from converters.formats.mask_pixels import used_values
from converters.masks import crop, outline
from converters.subsets.keys import is_test_key
from converters.types import SUBSET, Instance, LabelSpace, Sample

LOSES: dict[str, frozenset[str]] = {}
CLASSES = ("heart", "left clavicle", "left lung", "right clavicle", "right lung")
_FOLD = re.compile(r"fold[_ -]?\d+", re.IGNORECASE)
_MASKS = frozenset({".gif", ".png", ".bmp", ".tif", ".tiff"})
# What holds the folders of classes, and how far below the data set's folder it may lie.
_HOME, _DEPTH = "masks", 3

Plane = npt.NDArray[np.uint8]
Masks = Mapping[str, Mapping[str, Sequence[Path]]]
"""The name of an image -> its structures -> their masks, of which there should be one."""


def matches(root: Path) -> bool:
    """Tell whether a folder holds masks as SCR has them, and an image of the JSRT."""
    tree = Tree(root)
    return bool(_mask_files(tree)) and bool(_image_files(tree))


def label_space(root: Path) -> LabelSpace:
    """Return those structures of SCR that there are folders of.

    Raises:
        ValueError: none.
    """
    found = {label for masks in _mask_files(Tree(root)).values() for label in masks}
    return folder_space(root, [label for label in CLASSES if label in found])


def read(root: Path, *, subset: str, labels: LabelSpace, problems: Problems) -> list[Sample]:
    """Read the radiographs that have masks.

    Args:
        root: the data set's folder.
        subset: `test` is what lies in a folder of that name; `train` is everything else.
        labels: those of `label_space`.
        problems: takes down masks and images that are broken or have no partner.

    Returns:
        Samples, an instance for each structure; the attribute `subset` is the fold.
    """
    tree = Tree(root)
    masks = _mask_files(tree)
    samples: list[Sample] = []
    scaled: dict[str, int] = defaultdict(int)
    for sample in _samples(tree, masks, subset, problems):
        instances: list[Instance] = []
        own = masks[_number(sample.image)]
        for label in labels.names:
            if len(found := own.get(label, [])) != 1:
                more = f"several: {', '.join(map(str, found))}" if found else "none"
                what = f"expected one mask of '{label}', as of other images, found {more}"
                problems.add(Path(str(sample.image)), what, key=sample.key)
                continue
            (path,) = found
            try:
                plane = _plane(path)
                fitted = _fitted(plane, sample.size_hw)
            except (OSError, ValueError) as error:
                problems.add(path, one_line(error), key=sample.key)
                continue
            if fitted.shape != plane.shape:
                scaled[f"{plane.shape[0]} x {plane.shape[1]}"] += 1
            if fitted.any():
                instances.append(Instance(label, outline(crop(fitted))))
        samples.append(replace(sample, instances=tuple(instances)))
    for size, count in scaled.items():
        problems.note(f"{root}: {count} masks of {size} pixels are brought to their images' size")
    return samples


def list_images(root: Path, *, subset: str, problems: Problems) -> list[Sample]:
    """List the radiographs that `read` reads, without their structures.

    Args:
        root: as for `read`, like the next two.
        subset: `test`, `train` or `all`.
        problems: takes down images that are broken or there twice, and masks that have none.
    """
    tree = Tree(root)
    return _samples(tree, _mask_files(tree), subset, problems)


def _samples(tree: Tree, masks: Masks, subset: str, problems: Problems) -> list[Sample]:
    """The radiographs of a subset that have masks, without these."""
    root, images = tree.root, _image_files(tree)
    for number in sorted(masks.keys() - images.keys()):
        path = _first(masks[number])
        problems.add(path, "expected an image of this name, found none", key=path.stem)
    if alone := sorted(images.keys() - masks.keys()):
        first = images[alone[0]][0].name
        problems.note(f"{root}: left out {len(alone)} images without a mask ({first}, ...)")
    samples: list[Sample] = []
    for number in sorted(masks.keys() & images.keys()):
        path, *more = images[number]
        key = path.relative_to(root).with_suffix("").as_posix()
        if more:
            what = f"expected one image of this name, found {more[0]} too: move one away"
            problems.add(path, what, key=key)
            continue
        if subset != "all" and is_test_key(key) != (subset == "test"):
            continue
        folds = [p for p in _first(masks[number]).parts if _FOLD.fullmatch(p)]
        about: dict[str, Any] = {SUBSET: folds[-1].lower()} if folds else {}
        try:
            samples.append(Sample(key, path, read_size_hw(path), attributes=about))
        except ValueError as error:
            problems.add(path, error, key=key)
    return sorted(samples, key=lambda sample: sample.key)


def _number(image: Any) -> str:
    return Path(image).stem.upper()


def _first(masks: Mapping[str, Sequence[Path]]) -> Path:
    return next(iter(masks.values()))[0]


def _mask_files(tree: Tree) -> Masks:
    found: dict[str, dict[str, list[Path]]] = defaultdict(dict)
    for folder, label in _class_folders(tree):
        for path in tree.files_in(folder):
            if path.suffix.lower() in _MASKS and JSRT_NAME.fullmatch(path.stem):
                found[_number(path)].setdefault(label, []).append(path)
    return found


def _class_folders(tree: Tree) -> Iterator[tuple[Path, str]]:
    homes, below = [tree.root], [tree.root]
    for _ in range(_DEPTH):
        below = [path for folder in below for path in tree.inside(folder)]
        homes += [path for path in below if path.name == _HOME]
    for path in (path for home in homes for path in tree.inside(home)):
        label = re.sub(r"[\W_]+", " ", path.name).strip().lower()
        if label in CLASSES:
            yield path, label


def _image_files(tree: Tree) -> dict[str, list[Path]]:
    """The name of an image -> its files."""
    homes = {folder for folder, _ in _class_folders(tree)}
    found: dict[str, list[Path]] = defaultdict(list)
    for path in tree.all_files():
        if path.parent not in homes and JSRT_NAME.fullmatch(path.stem):
            found[_number(path)].append(path)
    return found


def _plane(path: Path) -> Plane:
    """Return a mask as 0 and 1, uint8 (H, W).

    Raises:
        ValueError: it has more than one value beside black.
    """
    values = read_mask(path)
    found = used_values(values)
    if values.ndim != 2 or len(found) > 2 or (len(found) == 2 and found[0]):
        raise ValueError("expected a black and white mask, found more values")
    return (values > 0).astype(np.uint8)


def _fitted(plane: Plane, size_hw: tuple[int, int]) -> Plane:
    """Bring a mask to its image's size, where that has the same sides.

    Raises:
        ValueError: it has others, or the image is larger by no whole number.
    """
    (height, width), (own_height, own_width) = size_hw, plane.shape
    is_alike = height * own_width == width * own_height
    if is_alike and height <= own_height:
        area = cv2.resize(plane.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)
        return (area >= 0.5).astype(np.uint8)
    if not is_alike or height % own_height:
        raise ValueError(
            f"expected a mask of {size_hw}, or whose sides are a whole part of these, found "
            f"{plane.shape}: scale the images to the masks' size"
        )
    times = height // own_height
    return np.repeat(np.repeat(plane, times, axis=0), times, axis=1)
