"""Cityscapes' street scenes, and data sets in its tree; only read.

    DATA/leftImg8bit/SUBSET/CITY/NAME_leftImg8bit.png
    DATA/gtFine/SUBSET/CITY/NAME_gtFine_instanceIds.png     class, or class * 1000 + object
    DATA/gtFine/SUBSET/CITY/NAME_gtFine_labelIds.png        taken where there are no instanceIds

or `gtCoarse` in place of `gtFine`; other files of an image (colours, polygons, training's numbers)
say the same, and are left out. Numbers are those of Cityscapes' classes; 0 to 3 and 255 are none
(unlabeled, the own car, borders of the rectification, out of the region of interest). A number
below 1000 is a class whose objects are not told apart, in one piece or as a group.

Source: https://github.com/mcordts/cityscapesScripts, helpers/labels.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from converters.errors import Problems, one_line
from converters.files.images import read_size_hw
from converters.formats.label_spaces import folder_space
from converters.formats.mask_folders.tree import Tree
from converters.formats.mask_pixels import VOID, read_mask_pixels, used_values
from converters.masks import crop, outline
from converters.subsets.keys import is_test_key
from converters.types import Instance, LabelSpace, Sample

LOSES: dict[str, frozenset[str]] = {}
IMAGES, MASKS = "leftImg8bit", ("gtFine", "gtCoarse")
_ENDS = ("instanceIds", "labelIds")
_OBJECTS = 1000
# From number 4 on.
_FIRST, CLASSES = (
    4,
    (
        "static",
        "dynamic",
        "ground",
        "road",
        "sidewalk",
        "parking",
        "rail track",
        "building",
        "wall",
        "fence",
        "guard rail",
        "bridge",
        "tunnel",
        "pole",
        "polegroup",
        "traffic light",
        "traffic sign",
        "vegetation",
        "terrain",
        "sky",
        "person",
        "rider",
        "car",
        "truck",
        "bus",
        "caravan",
        "trailer",
        "train",
        "motorcycle",
        "bicycle",
    ),
)


def matches(root: Path) -> bool:
    """Tell whether a folder holds Cityscapes' images and index maps."""
    masks = _masks(root)
    return bool(masks and (root / IMAGES).is_dir() and next(_files(masks), None))


def _masks(root: Path) -> Path | None:
    return next((root / name for name in MASKS if (root / name).is_dir()), None)


def _files(masks: Path) -> Iterator[tuple[str, Path]]:
    """Place and name of an image, and its index map, sorted."""
    found: dict[str, Path] = {}
    files = Tree(masks).all_files()
    for end in _ENDS:
        behind = f"_{masks.name}_{end}.png"
        for path in sorted(path for path in files if path.name.endswith(behind)):
            place = path.relative_to(masks).as_posix().removesuffix(behind)
            found.setdefault(place, path)
    yield from sorted(found.items())


def label_space(root: Path) -> LabelSpace:
    """Return Cityscapes' classes."""
    return folder_space(root, CLASSES)


def read(root: Path, *, subset: str, labels: LabelSpace, problems: Problems) -> list[Sample]:
    """Read Cityscapes' index maps.

    Args:
        root: the data set's folder.
        subset: `test` is what lies in a folder of that name; `train` is everything else.
        labels: those of `label_space`.
        problems: takes down index maps and images that are broken or missing.

    Returns:
        Samples, an instance for each object, or for each class where none are told apart.
    """
    samples: list[Sample] = []
    for key, size_hw, path in _images(root, subset, problems):
        try:
            found = tuple(_instances(path, size_hw))
        except (OSError, ValueError) as error:
            problems.add(path, one_line(error), key=key)
            continue
        samples.append(Sample(key, _image(root, key), size_hw, found))
    return samples


def list_images(root: Path, *, subset: str, problems: Problems) -> list[Sample]:
    """List the images that `read` reads, without their objects.

    Args:
        root: as for `read`, like the next two.
        subset: `test`, `train` or `all`.
        problems: takes down images that are broken or missing.
    """
    found = _images(root, subset, problems)
    return [Sample(key, _image(root, key), size_hw) for key, size_hw, _ in found]


def _images(
    root: Path, subset: str, problems: Problems
) -> Iterator[tuple[str, tuple[int, int], Path]]:
    """Key and size of an image of a subset, and its index map."""
    masks = _masks(root)
    found = dict(_files(masks)) if masks else {}
    images = (p for p in Tree(root / IMAGES).all_files() if p.stem.endswith(f"_{IMAGES}"))
    places = {_place(root, path) for path in images}
    if alone := sorted(places - found.keys()):
        problems.note(f"{root}: left out {len(alone)} images without index map ({alone[0]}, ...)")
    for key, path in found.items():
        if subset == "all" or is_test_key(key) == (subset == "test"):
            try:
                yield key, read_size_hw(_image(root, key)), path
            except ValueError as error:
                problems.add(path, error, key=key)


def _place(root: Path, image: Path) -> str:
    return image.relative_to(root / IMAGES).as_posix().rpartition(f"_{IMAGES}")[0]


def _image(root: Path, key: str) -> Path:
    """The image of a key; Cityscapes' own are PNG."""
    base = root / IMAGES / f"{key}_{IMAGES}"
    kept = (base.with_name(base.name + suffix) for suffix in (".png", ".jpg", ".jpeg", ".tif"))
    first = base.with_name(base.name + ".png")
    return next((path for path in kept if path.is_file()), first)


def _instances(path: Path, size_hw: tuple[int, int]) -> Iterator[Instance]:
    values = read_mask_pixels(path.read_bytes(), size_hw).values
    if values.ndim != 2:
        raise ValueError("expected numbers of classes and objects, found colours")
    for number in used_values(values):
        name = number // _OBJECTS if number >= _OBJECTS else number
        if name < _FIRST or number == VOID:
            continue
        if name - _FIRST >= len(CLASSES):
            most = _FIRST + len(CLASSES) - 1
            raise ValueError(f"expected a class of Cityscapes, up to {most}, found {name}")
        plane = (values == number).astype(np.uint8)
        yield Instance(CLASSES[name - _FIRST], outline(crop(plane)))
