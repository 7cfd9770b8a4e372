"""Writing nnU-Net's raw data sets: classes that share pixels become regions, and none is lost.

A pixel of one class has the class's number, from 1 on in their order. Each combination of classes
that shares a pixel in any image has a number of its own after these, and each class is the region
of its own number and those of its combinations. Without any these are plain labels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from converters.files.images import Enlarge, PutImage, count_channels, is_plain_png, read_pixels
from converters.files.json_files import dump_json
from converters.files.provenance import atomic_write_text
from converters.formats.writing import INDEX, WriteTarget, check_labels, free_name, sample_record
from converters.loss import ConversionLoss, joined_objects
from converters.masks import CropMask, class_masks
from converters.types import ImageFile, LabelSpace, Sample

DATASET, SPLITS = "dataset.json", "splits_final.json"
IGNORE, BACKGROUND = "ignore", "background"
IMAGES_TRAIN, LABELS_TRAIN = "imagesTr", "labelsTr"
IMAGES_TEST, LABELS_TEST = "imagesTs", "labelsTs"
# What ends the name of an image's first, and here only, file.
_FIRST = "_0000"
_CHANNELS = {1: ("grey",), 3: ("R", "G", "B")}
_LARGEST, _LARGEST_BYTE = 65535, 255
Combination = tuple[int, ...]
"""Numbers of classes, in their order, that a pixel has."""


@dataclass(frozen=True)
class RawDataSet:
    """What all images of a data set have in common, as it is written.

    Attributes:
        folder: of the data set.
        labels: the classes.
        classes: those that have numbers: all but that of the background.
        numbers: combination of them -> its number in the maps; none is 0.
        channels: of the images, 1 or 3.
        put: puts an image at a path.
        enlarge: how crops come to their size.
    """

    folder: Path
    labels: LabelSpace
    classes: tuple[str, ...]
    numbers: Mapping[Combination, int]
    channels: int
    put: PutImage
    enlarge: Enlarge


def write(samples: Sequence[Sample], target: WriteTarget) -> ConversionLoss:
    """Write samples with index maps; objects of one class become one mask.

    Where one image has colours, all have three channels, because nnU-Net wants them alike.

    Raises:
        ValueError: a class that is called as what nnU-Net has another meaning for, or more
            combinations of classes than an index map has numbers.
    """
    classes = _classes(target.labels)
    for folder in (IMAGES_TRAIN, LABELS_TRAIN):
        (target.folder / folder).mkdir()
    looked = list(target.each(partial(_look, target.labels, classes), samples))
    channels = max((count for count, _ in looked), default=1)
    numbers = _numbers(classes, set().union(*(found for _, found in looked)))
    written = RawDataSet(
        *(target.folder, target.labels, classes, numbers, channels),
        *(target.put_image, target.enlarge),
    )
    tasks = [
        (sample, name, sample.key in target.test)
        for sample, name in zip(samples, _names(samples), strict=True)
    ]
    loss = sum(target.each(partial(_write_sample, written), tasks), ConversionLoss())
    index = {name: sample_record(sample) for sample, name, _ in tasks}
    learned = {sample.key: name for sample, name, is_test in tasks if not is_test}
    described = _describe(classes, numbers, channels, len(learned))
    atomic_write_text(target.folder / INDEX, dump_json(index))
    atomic_write_text(target.folder / DATASET, dump_json(described))
    if target.folds:
        atomic_write_text(target.folder / SPLITS, dump_json(_splits(learned, target.folds)))
    return loss


def name_of_image(image: ImageFile) -> str:
    """Return nnU-Net's name of an image that lies in its folders; "" of others.

    >>> name_of_image(Path("imagesTr/a_0000.png")), name_of_image(Path("images/a_0000.png"))
    ('a', '')
    """
    is_there = isinstance(image, Path) and image.parent.name in (IMAGES_TRAIN, IMAGES_TEST)
    return image.stem.removesuffix(_FIRST) if is_there and image.stem.endswith(_FIRST) else ""


def _names(samples: Sequence[Sample]) -> Iterator[str]:
    """Yield a name for each sample: its key's last, with a number where another has it.

    No number makes a name that is another sample's own: predictions come back by names.
    """
    own = [sample.key.rpartition("/")[2] for sample in samples]
    # Some file systems do not tell a.png from A.png.
    taken, times = {name.casefold() for name in own}, Counter[str]()
    for name in own:
        times[name.casefold()] += 1
        yield name if times[name.casefold()] == 1 else free_name(name, taken)


def _classes(labels: LabelSpace) -> tuple[str, ...]:
    """Return the classes that have pixels of their own: all but that of the background."""
    found = tuple(name for name in labels.names if name != labels.background)
    for name in found:
        if name in (BACKGROUND, IGNORE):
            raise ValueError(
                f"label space '{labels.name}': nnU-Net has a meaning of its own for the class "
                f"'{name}': rename it, or leave it out by --labels"
            )
    if not found:
        raise ValueError(f"label space '{labels.name}': expected a class beside the background")
    return found


def _look(
    labels: LabelSpace, classes: Sequence[str], sample: Sample
) -> tuple[int, set[Combination]]:
    """Return an image's channels, and the combinations of classes that share its pixels."""
    check_labels(sample, labels)
    _, found = _combine(_masks(sample, labels), classes, sample.size_hw)
    return count_channels(sample), {one for one in found if len(one) > 1}


def _masks(sample: Sample, labels: LabelSpace) -> dict[str, CropMask]:
    return class_masks(sample.instances, sample.size_hw, labels, with_background=False)


def _combine(
    masks: Mapping[str, CropMask], classes: Sequence[str], size_hw: tuple[int, int]
) -> tuple[npt.NDArray[np.int32], list[Combination]]:
    """Return which combination each pixel has, int32 (H, W), and the combinations that occur."""
    plane = np.zeros(size_hw, np.int32)
    found: list[Combination] = [()]
    for number, name in enumerate(classes):
        mask = masks.get(name)
        if mask is None or not mask.area:
            continue
        height, width = mask.pixels.shape
        part = plane[mask.y : mask.y + height, mask.x : mask.x + width]
        inside = mask.pixels > 0
        before = np.flatnonzero(np.bincount(part[inside]))
        table = np.zeros(before[-1] + 1, np.int32)
        table[before] = np.arange(len(found), len(found) + len(before))
        found += [(*found[old], number) for old in before]
        part[inside] = table[part[inside]]
    left = np.flatnonzero(np.bincount(plane.ravel(), minlength=1))
    table = np.zeros(len(found), np.int32)
    table[left] = np.arange(len(left))
    return table[plane], [found[old] for old in left]


def _numbers(classes: Sequence[str], shared: set[Combination]) -> dict[Combination, int]:
    """Return the number of each class and of each combination, one after the other."""
    ordered = [(), *((n,) for n in range(len(classes)))]
    ordered += sorted(shared, key=lambda one: (len(one), one))
    if len(ordered) - 1 > _LARGEST:
        raise ValueError(
            f"expected at most {_LARGEST} classes and combinations of them that share pixels, "
            f"found {len(ordered) - 1}"
        )
    return {one: number for number, one in enumerate(ordered)}


def _write_sample(written: RawDataSet, task: tuple[Sample, str, bool]) -> ConversionLoss:
    sample, name, is_test = task
    images, maps = (IMAGES_TEST, LABELS_TEST) if is_test else (IMAGES_TRAIN, LABELS_TRAIN)
    _put_png(sample, written.folder / images / f"{name}{_FIRST}.png", written)
    if sample.instances or not is_test:
        masks, numbers = _masks(sample, written.labels), written.numbers
        plane, found = _combine(masks, written.classes, sample.size_hw)
        dtype = np.uint8 if len(numbers) - 1 <= _LARGEST_BYTE else np.uint16
        table = np.array([numbers[one] for one in found], dtype)
        _write_png(table[plane], written.folder / maps / f"{name}.png")
    return joined_objects(sample, written.labels)


def _put_png(sample: Sample, target: Path, written: RawDataSet) -> None:
    """Put an image as a PNG of the data set's channels: a copy where it is one already."""
    if is_plain_png(sample) and count_channels(sample) == written.channels:
        written.put(sample, target)
    else:
        grey = written.channels == 1
        _write_png(read_pixels(sample, grey=grey, enlarge=written.enlarge), target)


def _write_png(pixels: npt.NDArray[Any], target: Path) -> None:
    target.parent.mkdir(exist_ok=True)
    target.write_bytes(cv2.imencode(".png", pixels)[1].tobytes())


def _describe(
    classes: Sequence[str], numbers: Mapping[Combination, int], channels: int, count: int
) -> dict[str, Any]:
    """Return what dataset.json says."""
    own = {name: [n for one, n in numbers.items() if k in one] for k, name in enumerate(classes)}
    has_regions = any(len(found) > 1 for found in own.values())
    labels = {name: found if len(found) > 1 else found[0] for name, found in own.items()}
    # A pixel of several regions gets the number of the last in a map that nnU-Net predicts; all
    # of them are in the probabilities.
    order = {"regions_class_order": [found[0] for found in own.values()]} if has_regions else {}
    return {
        "channel_names": {str(n): name for n, name in enumerate(_CHANNELS[channels])},
        "labels": {BACKGROUND: 0, **labels},
        **order,
        "numTraining": count,
        "file_ending": ".png",
    }


def _splits(
    names: Mapping[str, str], folds: Sequence[frozenset[str]]
) -> list[dict[str, list[str]]]:
    """Return what splits_final.json says: of each fold, the names to learn from and those held out.

    Args:
        names: key -> name of a file.
        folds: keys of each fold.
    """
    return [
        {
            "train": sorted(name for key, name in names.items() if key not in held_out),
            "val": sorted(name for key, name in names.items() if key in held_out),
        }
        for held_out in folds
    ]
