"""Index maps, one an image: nnU-Net's output, and that of others whose masks hold class numbers.

    FOLDER/NAME.png         class numbers, at the image's own size; 0 is none
    FOLDER/NAME.npy         class numbers, at any size; or a NPZ, as with probabilities
    FOLDER/NAME.npz         (optional) nnU-Net's `probabilities`, (C, H, W) or (C, 1, H, W)
    FOLDER/dataset.json     (optional, nnU-Net writes it) `labels`: name -> number, or -> numbers
    FOLDER/classes.txt      (optional) in its place: the classes, a line each

A folder that nnU-Net has trained in holds what its folds say of the images that they held out:

    FOLDER/fold_0/validation/NAME.png, NAME.npz
    FOLDER/dataset.json

Where one class is asked for, and numbers go beyond it, each number is an object of it, as Cellpose
and StarDist write them; 0 and 255 alone are a mask.

Where nothing names the classes number 1 is the data set's first class; of a
label space in which every pixel has a class, 0 is the first. Where a NAME.npz lies beside a map,
its probabilities are taken, in the order of the numbers. Where a class is a region, of several
numbers, the probabilities are those of the regions, in the order of `labels`, and a map has one
region a pixel, or such that lie in each other. Source: nnU-Net v2, `export_prediction.py`
(`--save_probabilities`), `label_handling.py`, `nnUNetTrainer.py` (`perform_actual_validation`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from converters.formats.mask_folders.nnunet_writing import DATASET
from converters.formats.mask_pixels import read_mask_pixels
from converters.masks import CropMask
from converters.types import LabelSpace
from fusion.interchange.dense import from_planes
from fusion.interchange.files.array_files import PLANES, ArrayOf, one_plane, read_array
from fusion.interchange.files.arrays import of_planes
from fusion.interchange.files.stated_names import (
    BACKGROUND,
    NAMES,
    find_stated,
    is_list,
    read_stated,
)
from fusion.interchange.files.written import KnownImages, WrittenPredictions
from fusion.interchange.objects import MaskObject, predict_objects
from fusion.types import Prediction

# Images of `fold_all/validation` are among those that it has learned from.
_FOLD, _VALIDATION = re.compile(r"fold_\d+"), "validation"
# What nnU-Net puts below the maps of all folds: the same ones, smaller parts left out.
_POSTPROCESSED = "postprocessed"
Planes = list[tuple[str | None, tuple[int, ...]]]
"""Class, None where it is none that is asked for, and its numbers in a map; in the order of
probabilities."""
Map = Path | ArrayOf
_FULL = 255


def choose_maps(folder: Path, found: Sequence[Path]) -> list[Path]:
    """Return those of a folder's maps that are predictions; of folds what they have held out."""
    folders = [folder, *(path for path in folder.iterdir() if _FOLD.fullmatch(path.name))]
    held_out = [path / _VALIDATION for path in folders if (path / _VALIDATION).is_dir()]
    if held_out and any(_FOLD.fullmatch(path.parent.name) for path in held_out):
        return [path for path in found if path.parent in held_out]
    return [path for path in found if path.parent != folder / _POSTPROCESSED]


def _description(folder: Path, maps: Collection[Path]) -> Path | None:
    """What names the classes: near the maps, or in the folder that their fold was trained in."""
    if own := find_stated(folder, maps, first=DATASET):
        return own
    above = folder.parent if folder.name == _VALIDATION else folder
    trained = above.parent / DATASET
    return trained if _FOLD.fullmatch(above.name) and trained.is_file() else None


def open_index_maps(
    folder: Path, files: Mapping[str, Map], known: KnownImages, note: Callable[[str], None]
) -> WrittenPredictions:
    """Open a folder of index maps.

    Args:
        folder: with the maps.
        files: key -> map.
        known: the images that they may be of.
        note: told of classes that are left out.

    Raises:
        ValueError: no map, or a broken `dataset.json`.
    """
    if not files:
        raise ValueError(f"{folder}: expected maps as PNG, found none")
    places = [each if isinstance(each, Path) else each.path for each in files.values()]
    described = _description(folder, places)
    # Of all images in one file it is named, not the folder that it lies in.
    where = places[0] if len(places) > 1 and len(set(places)) == 1 else folder
    if len(known.labels) == 1 and (described is None or len(read_stated(described)) == 1):
        highest, is_mask = _look(files)
        if is_mask:
            note(f"{where}: maps of 0 and {_FULL} alone are taken for masks")
            return _of_masks(files, known)
        if highest > 1:
            note(f"{where}: numbers up to {highest} are taken for those of objects")
            return _of_objects(files, known)
    planes = _planes(where, described, known, note)
    classes = known.labels.only(label for label, _ in planes if label)
    if any(len(own) > 1 for _, own in planes) and not any(map(_beside, files.values())):
        note(
            f"{where}: regions without probabilities: where they share pixels, a map has one of "
            "them; nnU-Net writes all with --save_probabilities"
        )

    def predict(key: str) -> Prediction:
        if key not in files:
            raise ValueError(f"{folder}: expected a map of '{key}', found none")
        path, size_hw = files[key], known.samples[key].size_hw
        if probabilities := _beside(path):
            return _soft(key, probabilities, planes, classes, size_hw)
        return _hard(key, path, planes, classes, size_hw, described)

    few = classes.names if len(classes) < len(known.labels) else ()
    return WrittenPredictions("index maps", "semantic", files, True, predict, few)


def _beside(path: Map) -> Path | None:
    """The file of probabilities beside a map."""
    if isinstance(path, ArrayOf):
        return None
    probabilities = path.with_suffix(".npz")
    return probabilities if probabilities.is_file() else None


def _look(files: Mapping[str, Map]) -> tuple[int, bool]:
    """The highest number in maps, and whether they hold 0 and `_FULL` alone."""
    highest, is_mask = 0, True
    for path in files.values():
        values = read_map(path, None)
        highest = max(highest, int(values.max()))
        is_mask = is_mask and not ((values != 0) & (values != _FULL)).any()
    return highest, is_mask and highest == _FULL


def read_map(path: Map, size_hw: tuple[int, int] | None) -> npt.NDArray[np.generic]:
    """Return the numbers of a map, (H, W).

    Args:
        path: of the map, or where it is in a file of arrays.
        size_hw: height and width that it has to have; None takes any.

    Raises:
        ValueError: no map, one of colours, or of another size.
    """
    if isinstance(path, ArrayOf):
        return _map_of_array(path, size_hw)
    try:
        values = read_mask_pixels(path.read_bytes(), size_hw).values
    except OSError as error:
        raise ValueError(f"{path}: expected a map, found: {error.strerror}") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    if values.ndim != 2:
        raise ValueError(f"{path}: expected numbers in one channel, found colours")
    return np.asarray(values)


def _map_of_array(path: ArrayOf, size_hw: tuple[int, int] | None) -> npt.NDArray[np.generic]:
    values = path.read()
    found = one_plane(values)
    if found is None or found.dtype.kind not in "iu":
        raise ValueError(
            f"{path}: expected whole numbers (H, W) as in the other files, found {values.dtype} "
            f"{values.shape}"
        )
    if size_hw is not None and found.shape != tuple(size_hw):
        raise ValueError(
            f"{path}: expected a map of the image's height and width, {tuple(size_hw)}, found "
            f"{found.shape}"
        )
    return found


def _of_masks(files: Mapping[str, Map], known: KnownImages) -> WrittenPredictions:
    (label,) = known.labels.names

    def predict(key: str) -> Prediction:
        values = read_map(files[key], known.samples[key].size_hw)
        return from_planes(key, {label: values != 0}, known.labels)

    return WrittenPredictions("masks", "semantic", files, True, predict)


def _of_objects(files: Mapping[str, Map], known: KnownImages) -> WrittenPredictions:
    # Late: rules and stores do not need it.
    from scipy.ndimage import find_objects

    (label,) = known.labels.names

    def predict(key: str) -> Prediction:
        size_hw = known.samples[key].size_hw
        values = read_map(files[key], size_hw)
        found = []
        for number, place in enumerate(find_objects(values.astype(np.int32)), start=1):
            if place is not None:
                rows, columns = place
                pixels = (values[place] == number).astype(np.uint8)
                found.append(MaskObject(label, 1.0, CropMask(columns.start, rows.start, pixels)))
        return predict_objects(key, size_hw, found, known.labels)

    return WrittenPredictions("maps of objects", "instance", files, True, predict, has_scores=False)


def _planes(
    folder: Path, path: Path | None, known: KnownImages, note: Callable[[str], None]
) -> Planes:
    if path is None:
        first = 0 if known.has_background else 1
        note(
            f"{folder}: numbers are taken for the data set's classes, {known.list_numbers(first)}: "
            f"a {NAMES} or nnU-Net's {DATASET} there would say otherwise"
        )
        own = dict(enumerate(map(known.labels.canonical, known.numbers.values()), first))
        return [(label, (number,)) for number, label in ({0: None} | own).items()]
    listed = read_stated(path)
    if is_list(path) and listed[0][1] != (0,):
        # What is of no class has a plane of probabilities, too.
        listed = [(BACKGROUND, (0,)), *listed]
    found: Planes = [(known.canonical(name), numbers) for name, numbers in listed]
    if listed[0][1] == (0,) and not found[0][0]:
        found[0] = (known.labels.background, (0,))
    there = {label for label, _ in found if label}
    if not there:
        raise known.none_of(path, [name for name, _ in listed])
    pairs = zip(listed, found, strict=True)
    lost = [name for (name, numbers), (label, _) in pairs if numbers != (0,) and not label]
    known.say_left_out(path, lost, there, note)
    return found


def _hard(
    key: str,
    path: Map,
    planes: Planes,
    classes: LabelSpace,
    size_hw: tuple[int, int],
    described: Path | None,
) -> Prediction:
    values = read_map(path, size_hw if isinstance(path, Path) else None)
    if values.shape == tuple(reversed(size_hw)) != tuple(size_hw):
        raise ValueError(
            f"{path}: expected a map of the image's height and width, {tuple(size_hw)}, found "
            f"{values.shape}: transpose it"
        )
    known = {0, *(number for _, own in planes for number in own)}
    if unknown := sorted(set(np.unique(values).tolist()) - known):
        raise ValueError(
            f"{path}: expected numbers of classes, {min(known)} to {max(known)}, found "
            f"{unknown[0]}{_hint(path, described)}"
        )
    named: dict[str, tuple[int, ...]] = {}
    for label, own in planes:
        # Two names may be of one class.
        if label:
            named[label] = named.get(label, ()) + own
    found = {label: np.isin(values, own) for label, own in named.items()}
    return from_planes(key, found, classes, size_hw)


def _hint(path: Map, described: Path | None) -> str:
    """What may be done about a number that is that of no class."""
    if isinstance(path, ArrayOf):
        return ": give 0 to pixels that are of no class, or to be ignored"
    # Without it numbers are those of the classes in their order; regions have others.
    return (
        ""
        if described
        else (
            f": beside nnU-Net's maps has to lie the {DATASET} of their data set, which says what "
            "numbers mean"
        )
    )


def _soft(
    key: str,
    path: Path,
    planes: Planes,
    classes: LabelSpace,
    size_hw: tuple[int, int],
) -> Prediction:
    values = read_array(path, PLANES)
    if values.ndim == 4 and values.shape[1] == 1:
        values = values[:, 0]
    if values.shape != (expected := (len(planes), *size_hw)):
        raise ValueError(
            f"{path}: expected probabilities of shape {expected}, found {values.shape}"
        )
    return of_planes(key, path, [label for label, _ in planes], values, classes, size_hw)
