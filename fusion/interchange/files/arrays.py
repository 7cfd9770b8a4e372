"""Arrays of numpy, one an image, as who has written a network's outputs by himself has them.

    FOLDER/NAME.npy, FOLDER/NAME.npz    probabilities (C, H, W), (H, W, C), or (H, W) of one class
    FILE.npz, FOLDER/FILE.npz           an array of each image, called as the image is
    FOLDER/classes.txt                  (optional) the C classes, a line each

Without names these are the data set's own classes in their order, or these after a first plane
that is the background's. Floats are probabilities, uint8 has 255 for 1, bool is a mask, and so are
whole numbers of which none in the folder is above 1; with an activation values are what a network
gives before it, logits. One plane of whole numbers in the place of several is an index map. Height
and width may be those at which the network saw the image: planes are stretched over it. The NPZ of
an image holds one array, or `probabilities` (with an activation `logits`) among others.
"""

from __future__ import annotations

import tokenize
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from converters.errors import one_line
from converters.formats.yolo.config import listed_names
from converters.types import LabelSpace
from fusion.interchange.dense import from_planes
from fusion.interchange.files.content import (
    array_names,
    is_called_as_image,
    names_inside,
    nearest_file,
)
from fusion.interchange.files.written import KnownImages, WrittenPredictions, match_files
from fusion.types import Prediction

PLANES = "probabilities"
Activation = Literal["sigmoid", "softmax"]
"""What makes probabilities of logits: of each class by itself, or of all planes together."""
_LOGITS = "logits"
_NAMES = "classes.txt"
_BACKGROUND = "background"
_ROUNDED = 1e-2
# What numpy and its libraries say of a damaged file: a stream, a header, a method of compression, a
# password, a size beyond the memory, or one array in the place of several.
_BROKEN = (
    *(OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError),
    *(RuntimeError, MemoryError, TypeError, tokenize.TokenError, SyntaxError),
)
Array = npt.NDArray[np.generic]


@dataclass(frozen=True)
class ArrayOf:
    """Where the array of an image is.

    Attributes:
        path: of the file.
        name: in a NPZ of several images; "" where the file is of the image alone.
    """

    path: Path
    name: str = ""

    def __str__(self) -> str:
        return f"{self.path}, '{self.name}'" if self.name else str(self.path)


def open_arrays(
    folder: Path,
    files: Mapping[str, ArrayOf],
    known: KnownImages,
    note: Callable[[str], None],
    activation: Activation | None = None,
) -> WrittenPredictions:
    """Open arrays.

    Args:
        folder: with the files.
        files: key -> the array of that image.
        known: the images that they may be of, and the classes where the folder names none.
        note: told which plane is which class.
        activation: what makes probabilities of the values; None where they are probabilities.

    Raises:
        ValueError: names of classes none of which is asked for; or values that are logits where
            probabilities are meant, or these where logits are.
    """
    given = _classes(folder, sorted({file.path for file in files.values()}), known, note)
    one = next(iter(files.values()))
    try:
        first = _stacked(one, len(given), activation)
    except ValueError:
        pass  # it is told with others like it, when it is read
    else:
        _check_range(one, first, activation)
    classes = known.labels.only(label for label in given if label)
    are_masks = activation is None and _are_masks(files.values())

    def predict(key: str) -> Prediction:
        if key not in files:
            raise ValueError(f"{folder}: expected an array of '{key}', found none")
        values = _planes(files[key], len(given), activation, are_masks)
        size_hw, found_hw = known.samples[key].size_hw, values.shape[1:]
        if found_hw == tuple(reversed(size_hw)) != tuple(size_hw):
            raise ValueError(
                f"{files[key]}: expected planes of the image's height and width, {size_hw}, found "
                f"{found_hw}: transpose them"
            )
        return of_planes(key, files[key], given, values, classes, size_hw)

    few = classes.names if len(classes) < len(known.labels) else ()
    return WrittenPredictions("arrays", "semantic", files, True, predict, few)


def match_arrays(folder: Path, arrays: Sequence[Path], known: KnownImages) -> dict[str, ArrayOf]:
    """Return key -> the array of that image.

    Args:
        folder: with the files.
        arrays: the files, in the folder or below it.
        known: the images that they may be of.

    Raises:
        ValueError: an array of no image, or of several; or two of one.
    """
    others = [path for path in arrays if not is_called_as_image(folder, path, known)]
    several = {path: names for path in others if (names := names_inside(path, known))}
    alone = [path for path in arrays if path not in several]
    for path in others:
        if path not in several:
            _check_names(path)
    files = {key: ArrayOf(path) for key, path in match_files(folder, alone, known).items()}
    for path, names in several.items():
        inside = {path / name: name for name in names}
        for key, place in match_files(path, inside, known, "array").items():
            if key in files:
                raise ValueError(f"{path}: expected one array of '{key}', found {files[key]} too")
            files[key] = ArrayOf(path, inside[place])
    return files


def _check_names(path: Path) -> None:
    """Say what to do with a file of several images that have no names, or unknown ones."""
    names = array_names(path)
    if len(names) > 1 and not {PLANES, _LOGITS} & set(names):
        raise ValueError(
            f"{path}: expected arrays that are called as images of the data set are, found "
            f"{', '.join(names):.80}"
        )
    try:
        shape = read_array(path).shape
    except ValueError:
        return  # that the file is called as no image is told first
    if len(shape) > 3 and shape[0] > 1:
        raise ValueError(
            f"{path}: expected arrays that are called as images of the data set are, found a stack "
            f"of them without names, {shape}: numpy.savez('predictions.npz', **dict(zip(names, "
            "stack))) gives them names"
        )


def _classes(
    folder: Path, arrays: Sequence[Path], known: KnownImages, note: Callable[[str], None]
) -> list[str | None]:
    """Return the classes of the planes, None of those that are not asked for.

    A plane of the background may be before them.
    """
    path = nearest_file(folder, arrays, (_NAMES,))
    if path is None:
        where = arrays[0] if len(arrays) == 1 else folder
        note(
            f"{where}: planes are taken for the data set's classes, {known.list_numbers()}, or "
            f"these after the background: a {_NAMES} there would say otherwise"
        )
        return list(map(known.labels.canonical, known.numbers.values()))
    return known.take_names(path, listed_names(path), note, _BACKGROUND)


def are_maps(folder: Path, files: Collection[ArrayOf], known: KnownImages) -> bool:
    """Tell whether arrays are index maps: of whole numbers, one a pixel for several classes.

    Of one class such are numbers of objects, where one is above 1; uint8 has probabilities there.
    Where names are given planes are meant.

    Args:
        folder: with the files.
        files: the arrays.
        known: the images and the classes.

    Raises:
        ValueError: names that are not those of all files.
    """
    if nearest_file(folder, [file.path for file in files], (_NAMES,)):
        return False
    for file in files:
        try:
            values = read_array(file.path, file.name)
        except ValueError:
            continue  # told when it is read
        if values.dtype.kind not in "iu" or values.size != np.prod(values.shape[-2:]):
            return False
        if len(known.labels) > 1:
            return True
        if values.dtype == np.uint8 or values.max(initial=0) > 1:
            return values.dtype != np.uint8
    return False


def _are_masks(files: Iterable[ArrayOf]) -> bool:
    """Tell whether whole numbers are 0 and 1 in all files; most end it with the first one."""
    for file in files:
        try:
            values = read_array(file.path, file.name)
        except ValueError:
            continue  # told when it is read
        if values.dtype.kind not in "iu" or values.max(initial=0) > 1 or values.min(initial=0) < 0:
            return False
    return True


def _planes(path: ArrayOf, count: int, activation: Activation | None, are_masks: bool) -> Array:
    """Return the planes of a file's classes, (count, H, W), without that of the background."""
    values = _stacked(path, count, activation)
    if values.dtype.kind == "f" and (lost := int(np.isnan(values).sum())):
        raise ValueError(f"{path}: expected numbers, found {lost} that are none (NaN)")
    _check_range(path, values, activation)
    if activation is not None:
        values = _activated(path, values, activation)
    elif are_masks:
        values = values != 0
    elif values.dtype == np.uint8:
        # That 255 is 1 is known by now, also where this image has less than 1 / 255.
        values = np.divide(values, 255, dtype=np.float32)
    elif values.dtype.kind in "iu":
        raise ValueError(
            f"{path}: expected probabilities as floats, as uint8 where 255 is 1, or masks of 0 and "
            f"1, found {values.dtype} up to {values.max()}"
        )
    return values[values.shape[0] - count :]


def _check_range(path: ArrayOf, values: Array, activation: Activation | None) -> None:
    """Tell logits in the place of probabilities, and these in the place of logits."""
    if values.dtype.kind != "f":
        return
    low, high = float(values.min()), float(values.max())
    if activation is None and (low < -_ROUNDED or high > 1 + _ROUNDED):
        raise ValueError(
            f"{path}: expected probabilities from 0 to 1, found {low:g} to {high:g}: where these "
            "are logits, --activation sigmoid (or softmax, where a pixel has one class) makes "
            "probabilities of them"
        )
    if activation is not None and 0 <= low < high <= 1:
        raise ValueError(
            f"{path}: expected logits, of which --activation {activation} makes probabilities, "
            "found values from 0 to 1: they look like probabilities already"
        )


def _stacked(path: ArrayOf, count: int, activation: Activation | None) -> Array:
    """Return the planes of a file, (count or one more, H, W)."""
    preferred = PLANES if activation is None else _LOGITS
    values = read_array(path.path, path.name, preferred)
    if values.ndim == 4 and values.shape[0] == 1:
        values = values[0]
    if values.ndim == 4 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim == 2:
        values = values[np.newaxis]
    wanted = (count, count + 1)
    if values.ndim == 3 and values.shape[0] not in wanted and values.shape[2] in wanted:
        values = np.moveaxis(values, 2, 0)
    if values.ndim != 3 or values.shape[0] not in wanted or not values.size:
        raise ValueError(
            f"{path}: expected planes ({count}, H, W) or (H, W, {count}), one a class, and one "
            f"more with the background before them, found {values.shape}: a {_NAMES} beside them "
            "may name the classes that they are of"
        )
    return values


def _activated(path: ArrayOf, values: Array, activation: Activation) -> Array:
    # Late: rules and stores do not need it.
    from scipy.special import expit, softmax

    if values.dtype.kind not in "fi":
        raise ValueError(
            f"{path}: expected logits, of which --activation {activation} makes probabilities, "
            f"found {values.dtype}"
        )
    exact: npt.NDArray[np.floating[Any]]
    exact = values.astype(np.float64 if values.dtype.itemsize > 4 else np.float32)
    if activation == "sigmoid":
        return np.asarray(expit(exact))
    if len(exact) == 1:
        raise ValueError(
            f"{path}: expected two planes at least, of which softmax makes probabilities, found "
            "one: --activation sigmoid"
        )
    if np.isposinf(exact).any():
        raise ValueError(f"{path}: expected logits, found infinite ones")
    return np.asarray(softmax(exact, axis=0))


def of_planes(
    key: str,
    path: Path | ArrayOf,
    given: Sequence[str | None],
    values: Array,
    classes: LabelSpace,
    size_hw: tuple[int, int],
) -> Prediction:
    """Return the prediction that a file's planes are.

    Args:
        key: of the image.
        path: of the file, or where in it, for messages.
        given: the class of each plane; None where it is none that is asked for.
        values: (planes, H, W).
        classes: those that are asked for and given.
        size_hw: height and width of the image.

    Raises:
        ValueError: values that are no probabilities.
    """
    # Rounding may leave the range by a little; logits leave it by more, and are refused.
    is_float = values.dtype.kind == "f" and values.size
    if is_float and values.min() >= -_ROUNDED and values.max() <= 1 + _ROUNDED:
        values = np.clip(values, 0, 1)
    found: dict[str, Array] = {}
    for label, plane in zip(given, values, strict=True):
        # Of two names of one class the surer one counts.
        if label:
            found[label] = np.maximum(found[label], plane) if label in found else plane
    try:
        return from_planes(key, found, classes, size_hw)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def read_array(path: Path, name: str = "", preferred: str = PLANES) -> Array:
    """Return the array of a file of numpy; nothing in it is run.

    Args:
        path: NPY, or NPZ.
        name: of the array in a NPZ; "" takes the preferred one, or the only one.
        preferred: of several arrays.

    Raises:
        ValueError: a damaged file, none or several such arrays, or one of other than numbers.
    """
    try:
        # numpy leaves files open that it cannot read.
        with path.open("rb") as file:
            content = np.load(file, allow_pickle=False)
            if isinstance(content, np.ndarray):
                values: Array = content
            else:
                values = np.asarray(content[name or _only(path, content.files, preferred)])
    except KeyError:
        raise ValueError(f"{path}: expected an array '{name}', found none") from None
    except _BROKEN as error:
        if str(error).startswith(str(path)):
            raise
        what = "objects of Python" if "allow_pickle" in str(error) else one_line(error)
        raise ValueError(f"{path}: expected arrays of numpy, found: {what}") from None
    if values.dtype.kind not in "bfiu":
        raise ValueError(f"{path}: expected probabilities, found {values.dtype}")
    return values


def _only(path: Path, names: Sequence[str], preferred: str) -> str:
    if preferred in names or len(names) == 1:
        return preferred if preferred in names else names[0]
    hint = f": {_LOGITS} want --activation" if _LOGITS in names else ""
    raise ValueError(
        f"{path}: expected one array, or '{preferred}', found {', '.join(names) or 'none'}{hint}"
    )
