"""Arrays of numpy, one an image, as who has written a network's outputs by himself has them.

    FOLDER/NAME.npy, FOLDER/NAME.npz    probabilities (C, H, W), (H, W, C), or (H, W) of one class
    FILE.npz, FOLDER/FILE.npz           an array of each image, called as the image is; or a stack
                                        of all and the images' names, and maybe `classes`
    FOLDER/NAME.tif                     planes as pages or channels; uint16 has 65535 for 1
    FOLDER/classes.txt                  (optional) the C classes, a line each

Without names these are the data set's own classes in their order, or these after a first plane
that is the background's. Floats are probabilities, uint8 has 255 for 1, bool is a mask, and so are
whole numbers of which none in the folder is above 1; with an activation values are what a network
gives before it, logits. One plane of whole numbers in the place of several is an index map. Height
and width may be those at which the network saw the image: planes are stretched over it. The NPZ of
an image holds one array, or `probabilities` (with an activation `logits`) among others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from converters.formats.mask_folders.nnunet_writing import DATASET
from converters.types import LabelSpace
from fusion.interchange.dense import from_planes
from fusion.interchange.files.array_files import LOGITS, PLANES, Array, ArrayOf
from fusion.interchange.files.stated_names import BACKGROUND, NAMES, find_stated, read_stated
from fusion.interchange.files.tiff import FULL_16, is_tiff
from fusion.interchange.files.written import KnownImages, WrittenPredictions
from fusion.types import Prediction

Activation = Literal["sigmoid", "softmax"]
"""What makes probabilities of logits: of each class by itself, or of all planes together."""
_ROUNDED = 1e-2
_FULL = 255


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
    are_masks = None if activation else _are_masks(files.values())
    if are_masks is False:
        _check_depth(files.values())

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


def _classes(
    folder: Path, arrays: Sequence[Path], known: KnownImages, note: Callable[[str], None]
) -> list[str | None]:
    """Return the classes of the planes, None of those that are not asked for.

    A plane of the background may be before them.
    """
    path = find_stated(folder, arrays)
    if path is None:
        where = arrays[0] if len(arrays) == 1 else folder
        note(
            f"{where}: planes are taken for the data set's classes, {known.list_numbers()}, or "
            f"these after the background: a {NAMES} there would say otherwise"
        )
        return list(map(known.labels.canonical, known.numbers.values()))
    stated = read_stated(path)
    if path.name == DATASET and stated[0][1] == (0,) and not known.canonical(stated[0][0]):
        stated = stated[1:]
    return known.take_names(path, [name for name, _ in stated], note, BACKGROUND)


def _are_masks(files: Iterable[ArrayOf]) -> bool | None:
    """Tell whether whole numbers are 0 and 1 in all files; None where the first has no such.

    The first file tells, except of masks.
    """
    for file in files:
        try:
            values = file.read()
        except ValueError:
            continue  # told when it is read
        if values.dtype.kind not in "iu":
            return None
        if values.max(initial=0) > 1 or values.min(initial=0) < 0:
            return False
    return True


def _check_depth(files: Iterable[ArrayOf]) -> None:
    """Refuse TIFFs of 16 bits none of which goes beyond 8: nobody knows what is 1 in them."""
    highest = 0
    for file in files:
        try:
            values = file.read()
        except ValueError:
            continue  # told when it is read
        if values.dtype != np.uint16 or not is_tiff(file.path):
            return
        highest = max(highest, int(values.max(initial=0)))
        if highest > _FULL:
            return
    raise ValueError(
        f"{file}: expected 16 bits of which {FULL_16} is 1, found none above {highest} in any "
        "file: save them in 8 bits"
    )


def _planes(
    path: ArrayOf, count: int, activation: Activation | None, are_masks: bool | None
) -> Array:
    """Return the planes of a file's classes, (count, H, W), without that of the background."""
    values = _stacked(path, count, activation)
    if values.dtype.kind == "f" and (lost := int(np.isnan(values).sum())):
        raise ValueError(f"{path}: expected numbers, found {lost} that are none (NaN)")
    _check_range(path, values, activation)
    if activation is not None:
        values = _activated(path, values, activation)
    elif are_masks:
        values = values != 0
    elif values.dtype == np.uint8 and (are_masks is not None or values.max() != 1):
        # That 255 is 1 is known by now, also where this image has less than 1 / 255.
        values = np.divide(values, _FULL, dtype=np.float32)
    elif values.dtype == np.uint16 and is_tiff(path.path) and are_masks is not None:
        values = np.divide(values, FULL_16, dtype=np.float32)
    elif values.dtype.kind in "iu":
        raise ValueError(
            f"{path}: expected probabilities as floats or as uint8 where 255 is 1, or, in all "
            f"files, masks of 0 and 1, found {values.dtype} from {values.min()} to {values.max()}"
        )
    return values[values.shape[0] - count :]


def _check_range(path: ArrayOf, values: Array, activation: Activation | None) -> None:
    """Tell logits in the place of probabilities, and these in the place of logits."""
    if values.dtype.kind != "f":
        return
    low, high = float(values.min()), float(values.max())
    if activation is None and (low < -_ROUNDED or high > 1 + _ROUNDED):
        hint = "divide them by what is sure"
        if low < 0 or high > _FULL:
            hint = (
                "where these are logits, --activation sigmoid (or softmax, where a pixel has one "
                "class) makes probabilities of them"
            )
        elif len(values) == 1 and (values == np.rint(values)).all():
            hint = "numbers of classes or objects have to be integers, such as numpy.int32"
        raise ValueError(
            f"{path}: expected probabilities from 0 to 1, found {low:g} to {high:g}: {hint}"
        )
    if activation == "sigmoid" and len(values) > 1 and high <= 0:
        # Of log_softmax the exponentials add up to 1.
        total = np.exp(values.astype(np.float64)).sum(axis=0)
        if np.abs(total - 1).max() <= _ROUNDED:
            raise ValueError(
                f"{path}: expected logits, each class by itself, found logarithms of probabilities "
                "that add up to 1 (log_softmax): --activation softmax makes these of them"
            )
    if activation is not None and 0 <= low < high <= 1:
        raise ValueError(
            f"{path}: expected logits, of which --activation {activation} makes probabilities, "
            "found values from 0 to 1: they look like probabilities already"
        )


def _stacked(path: ArrayOf, count: int, activation: Activation | None) -> Array:
    """Return the planes of a file, (count or one more, H, W)."""
    preferred = PLANES if activation is None else LOGITS
    values = path.read(preferred)
    found = values.shape
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
        hint = f"a {NAMES} beside them may name the classes that they are of"
        if values.ndim == 3 and len(values) == 1 and (values == np.rint(values)).all():
            hint = "numbers of classes in one plane have to be integers, in all files"
        raise ValueError(
            f"{path}: expected planes ({count}, H, W) or (H, W, {count}), one a class, and one "
            f"more with the background before them, found {found}: {hint}"
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
