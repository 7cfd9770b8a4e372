"""A mask for each image and class, as scripts of one's own write them.

    FOLDER/CLASS/NAME.png, FOLDER/NAME/CLASS.png, FOLDER/NAME_CLASS.png     PNGs of one channel

A mask has 0 and 1, or 0 and 255; other levels are probabilities, 255 for 1. Height and width may be
those at which the network saw the image: masks are stretched over it. Where capitals, spaces and
separators differ, a class is known by its letters and digits.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from converters.types import LabelSpace
from fusion.interchange.dense import from_planes
from fusion.interchange.files.index_maps import read_map
from fusion.interchange.files.written import KnownImages, WrittenPredictions, one_key
from fusion.types import Prediction

_FULL = 255


@dataclass
class ClassMasks:
    """Which file is of which image and class.

    Attributes:
        files: key -> class -> file.
        others: names of classes that are not asked for.
    """

    files: dict[str, dict[str, Path]] = field(default_factory=dict)
    others: set[str] = field(default_factory=set)


def find_class_masks(folder: Path, maps: list[Path], known: KnownImages) -> ClassMasks | None:
    """Return whose masks the files of a folder are; None where they are of no image and class.

    Args:
        folder: with the files.
        maps: the files.
        known: the images and classes that they may be of.
    """
    stems = known.stems
    classes = _plain_classes(known.labels)
    for way in (_class_above, _image_above, _class_behind):
        found = ClassMasks()
        if all(_take(found, path, way(path.relative_to(folder)), stems, classes) for path in maps):
            return found if found.files else None
    return None


def open_class_masks(
    folder: Path, masks: ClassMasks, known: KnownImages, note: Callable[[str], None]
) -> WrittenPredictions:
    """Open masks that were found.

    Args:
        folder: with the files.
        masks: of images and classes.
        known: the images and classes that they may be of.
        note: told of classes that are left out, or are never there.
    """
    if masks.others:
        known.say_left_out(folder, sorted(masks.others), note)
    there = {label for own in masks.files.values() for label in own}
    spoken = known.spoken(folder, there, note)
    classes = known.labels.only(spoken or known.labels.names)

    def predict(key: str) -> Prediction:
        if lacking := [name for name in classes.names if name not in masks.files.get(key, {})]:
            raise ValueError(f"{folder}: expected a mask of '{key}' of {lacking[0]}, found none")
        planes = {label: _read(path) for label, path in masks.files[key].items()}
        return from_planes(key, planes, classes, known.samples[key].size_hw)

    return WrittenPredictions("masks of classes", "semantic", masks.files, True, predict, spoken)


# What may be the image, and what the class.
_Pairs = Iterator[tuple[str, str]]


def _class_above(place: Path) -> _Pairs:
    return ((place.stem, folder) for folder in reversed(place.parts[:-1]))


def _image_above(place: Path) -> _Pairs:
    return ((folder, place.stem) for folder in reversed(place.parts[:-1]))


def _class_behind(place: Path) -> _Pairs:
    stem = place.stem
    return ((stem[: m.start()], stem[m.end() :]) for m in re.finditer(r"[_. -]", stem))


def _take(
    found: ClassMasks,
    path: Path,
    pairs: _Pairs,
    stems: Mapping[str, list[str]],
    classes: Mapping[str, str],
) -> bool:
    """Take down whose mask a file is; False where no image is called so, or it has one already."""
    other = ""
    for image, name in pairs:
        try:
            key = one_key(stems, image)
        except ValueError:
            return False
        if key is None:
            continue
        if label := classes.get(_plain(name)):
            return found.files.setdefault(key, {}).setdefault(label, path) is path
        other = other or name
    if other:
        found.others.add(other)
    return bool(other)


def _plain_classes(labels: LabelSpace) -> dict[str, str]:
    names = {**{name: name for name in labels.names}, **labels.aliases}
    return {_plain(name): label for name, label in names.items() if label in labels.index}


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", "", name).casefold()


def _read(path: Path) -> npt.NDArray[np.generic]:
    values = read_map(path, None)
    if values.max(initial=0) > _FULL:
        raise ValueError(f"{path}: expected one channel of 8 bits, found another image")
    return values != 0 if values.max(initial=0) <= 1 else values.astype(np.uint8)
