"""A mask for each image and class, as scripts of one's own write them.

    FOLDER/CLASS/NAME.png, FOLDER/NAME/CLASS.png, FOLDER/NAME_CLASS.png     PNGs of one channel
    FOLDER/CLASS/NAME.tif, ...                                              or TIFFs

A mask has 0 and 1, or 0 and 255; other levels are probabilities, 255 for 1, or 65535 in 16 bits
where a file goes beyond 255; floats are probabilities. Height and width may be
those at which the network saw the image: masks are stretched over it. A class is known also where
capitals, spaces and separators differ.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fusion.interchange.dense import from_planes
from fusion.interchange.files.array_files import one_plane
from fusion.interchange.files.index_maps import read_map
from fusion.interchange.files.tiff import FULL_16, is_tiff, read_tiff
from fusion.interchange.files.written import KnownImages, WrittenPredictions, one_key
from fusion.types import Prediction

_FULL = 255
_ROUNDED = 1e-2


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
    for way in (_class_above, _image_above, _class_behind):
        found = ClassMasks()
        if all(_take(found, path, way(path.relative_to(folder)), stems, known) for path in maps):
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
    there = {label for own in masks.files.values() for label in own}
    if masks.others:
        known.say_left_out(folder, sorted(masks.others), there, note)
    spoken = known.spoken(folder, there, note)
    classes = known.labels.only(spoken or known.labels.names)
    levels = _Levels.of(path for own in masks.files.values() for path in own.values())

    def predict(key: str) -> Prediction:
        if lacking := [name for name in classes.names if name not in masks.files.get(key, {})]:
            raise ValueError(f"{folder}: expected a mask of '{key}' of {lacking[0]}, found none")
        planes = {label: _read(path, levels) for label, path in masks.files[key].items()}
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
    known: KnownImages,
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
        if label := known.canonical(name):
            return found.files.setdefault(key, {}).setdefault(label, path) is path
        other = other or name
    if other:
        found.others.add(other)
    return bool(other)


@dataclass
class _Levels:
    """What numbers mean in the files of a folder.

    Attributes:
        are_there: whether there are others than those of masks: 0, 1 and the most there can be.
        highest: dtype -> the highest number.
    """

    are_there: bool = False
    highest: dict[np.dtype[np.generic], int] = field(default_factory=dict)

    @classmethod
    def of(cls, paths: Iterable[Path]) -> _Levels:
        """Read files until one tells."""
        own = cls()
        for path in paths:
            try:
                values = _plane(path)
            except ValueError:
                continue  # told when it is read
            if values.dtype.kind == "f" or (own._take(values) and own._is_sure(values.dtype)):
                break
        return own

    def _take(self, values: npt.NDArray[np.generic]) -> bool:
        highest = max(self.highest.get(values.dtype, 0), int(values.max(initial=0)))
        self.highest[values.dtype] = highest
        self.are_there |= not np.isin(values, (0, 1, _FULL, FULL_16)).all()
        return self.are_there

    def _is_sure(self, dtype: np.dtype[np.generic]) -> bool:
        return dtype == np.uint8 or self.highest[dtype] > _FULL

    def read(self, values: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
        """Return a mask, bool, or probabilities, uint8 or floats."""
        if not self.are_there:
            return values != 0
        highest = max(self.highest.get(values.dtype, 0), int(values.max(initial=0)))
        full = _FULL if highest <= _FULL else FULL_16
        # Of uint8, 1 alone would be a mask.
        if full == _FULL and values.max(initial=0) != 1:
            return values.astype(np.uint8)
        return np.divide(values, full, dtype=np.float32)


def _plane(path: Path) -> npt.NDArray[np.generic]:
    if not is_tiff(path):
        return read_map(path, None)
    values = read_tiff(path)
    if (plane := one_plane(values)) is None:
        raise ValueError(f"{path}: expected one channel, found {values.shape}")
    return plane


def _read(path: Path, levels: _Levels) -> npt.NDArray[np.generic]:
    """Return a mask, bool, or probabilities, uint8 or floats; (H, W)."""
    values = _plane(path)
    if values.dtype.kind != "f":
        if values.dtype not in (np.uint8, np.uint16, np.bool_):
            raise ValueError(f"{path}: expected 8 or 16 bits or floats, found {values.dtype}")
        return levels.read(values)
    low, high = float(values.min(initial=0)), float(values.max(initial=0))
    if not (low >= -_ROUNDED and high <= 1 + _ROUNDED):
        raise ValueError(
            f"{path}: expected probabilities from 0 to 1, found {low:g} to {high:g}: divide them "
            "by what is sure"
        )
    return np.clip(values, 0, 1)
