"""Files of numpy: which array is that of which image, and what kind of array it is."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from converters.errors import one_line
from fusion.interchange.files.content import (
    is_called_as_image,
    names_inside,
    place_inside,
)
from fusion.interchange.files.npz import (
    BROKEN,
    heads_in,
    is_of_python,
    names_in,
    read_stack,
    stacks_in,
)
from fusion.interchange.files.stated_names import find_stated, read_stated
from fusion.interchange.files.tiff import FULL_16, is_tiff, read_tiff
from fusion.interchange.files.written import KnownImages, match_files

PLANES, LOGITS = "probabilities", "logits"
Array = npt.NDArray[np.generic]
_NAMED = "numpy.savez('predictions.npz', probabilities=arrays, images=names) gives them names"
# Of objects' numbers: pieces that each is in, at most; the shares of them that lie next to nothing,
# and of the numbers up to the highest that there are, at least.
_PIECES, _BESIDE_NOTHING, _DENSE = 1.5, 0.8, 0.4


@dataclass(frozen=True)
class ArrayOf:
    """Where the array of an image is.

    Attributes:
        path: of the file.
        name: in a NPZ of several images; "" where the file is of the image alone.
        place: in a stack; None where it is by itself.
        stacks: names of the arrays that may be that stack.
    """

    path: Path
    name: str = ""
    place: int | None = None
    stacks: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.path}, '{self.name}'" if self.name else str(self.path)

    def read(self, preferred: str = PLANES) -> Array:
        """Return the array; nothing in the file is run.

        Args:
            preferred: the name of it where it is one of several.

        Raises:
            ValueError: a damaged file, none or several such arrays, or one of other than numbers.
        """
        if self.place is None:
            return read_array(self.path, self.name, preferred)
        name = _only(self.path, self.stacks, preferred)
        try:
            values = read_stack(self.path, name)
        except BROKEN as error:
            raise _broken(self.path, error) from None
        return _checked(self.path, values[self.place])


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
        places = [place_inside(path, name) for name in names]
        inside = dict(zip(places, _arrays_of(path, names), strict=True))
        for key, place in match_files(path, places, known, "array").items():
            if key in files:
                raise ValueError(f"{path}: expected one array of '{key}', found {files[key]} too")
            files[key] = inside[place]
    return files


def _arrays_of(path: Path, names: Sequence[str]) -> list[ArrayOf]:
    """The arrays of images that a NPZ calls so, each by itself or in a stack of all."""
    if set(names) <= set(names_in(path)):
        return [ArrayOf(path, name) for name in names]
    stacks = tuple(stacks_in(path, len(names)))
    if not stacks:
        shapes = ", ".join(f"{n} {h.shape}" for n, h in heads_in(path).items() if not h.is_list)
        raise ValueError(
            f"{path}: expected arrays of {len(names)} images, as many as it names, found "
            f"{shapes:.80}"
        )
    return [ArrayOf(path, name, number, stacks) for number, name in enumerate(names)]


def _check_names(path: Path) -> None:
    """Say what to do with a file of several images that have no names, or unknown ones."""
    heads = heads_in(path)
    if name := is_of_python(heads):
        raise ValueError(
            f"{path}: expected the images' names as texts, found objects of Python in '{name}', "
            "which are not read: numpy.array(names, dtype=str) makes texts of them"
        )
    names = _of_numbers(path, names_in(path))
    if len(names) > 1 and not {PLANES, LOGITS} & set(names):
        raise ValueError(
            f"{path}: expected arrays that are called as images of the data set are, found "
            f"{', '.join(names):.80}: {_NAMED}"
        )
    try:
        shape = read_array(path).shape
    except ValueError as error:
        raise ValueError(f"{error}: move it elsewhere if it is no prediction") from None
    if len(shape) > 3 and shape[0] > 1:
        raise ValueError(
            f"{path}: expected arrays that are called as images of the data set are, found a stack "
            f"of them without names, {shape}: {_NAMED}"
        )


def read_array(path: Path, name: str = "", preferred: str = PLANES) -> Array:
    """Return the array of a file of numpy; nothing in it is run.

    Args:
        path: NPY, NPZ or TIFF.
        name: of the array in a NPZ; "" takes the preferred one, or the only one.
        preferred: of several arrays.

    Raises:
        ValueError: a damaged file, none or several such arrays, or one of other than numbers.
    """
    if is_tiff(path):
        return read_tiff(path)
    try:
        # numpy leaves files open that it cannot read.
        with path.open("rb") as file:
            content = np.load(file, allow_pickle=False)
            if isinstance(content, np.ndarray):
                values: Array = content
            else:
                values = np.asarray(
                    content[name or _only(path, _of_numbers(path, content.files), preferred)]
                )
    except KeyError:
        raise ValueError(f"{path}: expected an array '{name}', found none") from None
    except BROKEN as error:
        raise _broken(path, error) from None
    return _checked(path, values)


def _broken(path: Path, error: Exception) -> ValueError:
    """What to say of a file that numpy cannot read."""
    what = one_line(error)
    if what.startswith(str(path)):
        return ValueError(what)
    if "allow_pickle" in what:
        what = "objects of Python, which are not read: numpy.savez writes arrays alone"
    return ValueError(f"{path}: expected arrays of numpy, found: {what}")


def _checked(path: Path, values: Array) -> Array:
    if values.dtype.kind not in "bfiu":
        raise ValueError(f"{path}: expected probabilities, found {values.dtype}")
    return values


def _of_numbers(path: Path, names: Sequence[str]) -> list[str]:
    """The names of a NPZ's arrays, without those that are texts beside them."""
    heads = heads_in(path)
    return [name for name in names if name not in heads or not heads[name].is_list]


def _only(path: Path, names: Sequence[str], preferred: str) -> str:
    if preferred in names or len(names) == 1:
        return preferred if preferred in names else names[0]
    hint = f": {LOGITS} want --activation" if LOGITS in names else ""
    raise ValueError(
        f"{path}: expected one array, or '{preferred}', found {', '.join(names) or 'none'}{hint}"
    )


def one_plane(values: Array) -> Array | None:
    """Return (H, W) of an array that is it, also as (1, H, W) or (H, W, 1); else None."""
    if values.ndim == 3 and 1 in (values.shape[0], values.shape[2]):
        values = values[0] if values.shape[0] == 1 else values[:, :, 0]
    return values if values.ndim == 2 else None


def are_maps(folder: Path, files: Collection[ArrayOf], known: KnownImages) -> bool:
    """Tell whether arrays are index maps: of whole numbers in one plane.

    These are of the classes, where there are several. Of one class they are of its objects; in
    uint8 they may also be probabilities, and these lie otherwise; in TIFFs of uint16, too, and then
    one goes beyond half of what there is.

    Args:
        folder: with the files.
        files: the arrays.
        known: the images and the classes.

    Raises:
        ValueError: names of classes that are broken, or not those of all files.
    """
    stated = find_stated(folder, [file.path for file in files])
    planes = [own for _, own in read_stated(stated) if own != (0,)] if stated else known.labels
    if len(planes) == 1 < len(known.labels):
        return False  # a plane of the class that is named
    is_deep = False
    for file in files:
        try:
            values = one_plane(file.read())
        except ValueError:
            continue  # told when it is read
        if values is None or values.dtype.kind not in "iu":
            return False
        if len(planes) > 1:
            return True
        highest = values.max(initial=0)
        if values.dtype == np.uint16 and is_tiff(file.path):
            if highest > FULL_16 // 2:
                return False
            is_deep = is_deep or highest > 1
        elif values.dtype != np.uint8 and highest > 1:
            return True
        if values.dtype == np.uint8 and len(np.unique(values)) > 2:
            return _are_objects(values)
    return is_deep


def _are_objects(values: Array) -> bool:
    """Tell objects' numbers from probabilities up to 255.

    They are counted from 1, and each is a piece by itself, beside nothing; a probability comes in
    many places, and between those that are lower and higher.
    """
    numbers = [int(number) for number in np.unique(values) if number]
    if len(numbers) < _DENSE * numbers[-1]:
        return False
    nothing = cv2.dilate((values == 0).astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
    beside = np.count_nonzero(np.isin(numbers, values[nothing]))
    if beside < _BESIDE_NOTHING * len(numbers):
        return False
    own = ((values == number).astype(np.uint8) for number in numbers)
    pieces = sum(cv2.connectedComponents(mask)[0] - 1 for mask in own)
    return pieces <= _PIECES * len(numbers)
