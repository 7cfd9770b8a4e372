"""What a transform does to images and masks, asked by showing it some.

Masks hold a class in each bit, or an object. So a transform may move pixels and clear them, but not
compute with their values: a filled 255 is every class at once, and the larger of two bytes is no
class that was there. Images are bytes that are normalised after augmentation.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from converters.errors import one_line
from converters.files.images import Pixels
from zoo.augmentation.vendor import A

_SEEDS = range(4)
# Shapes of the images that are shown, until a transform can do something with one: a small one, a
# large one where it counts in pixels of large images, one of colours.
_SHAPES = ((96, 128), (2048, 2048), (96, 128, 3))
_BLOCK = 8
# Grey values that are black to the eye, and the share of them that makes an image a black one.
_BLACK, _NEARLY_ALL = 3, 0.95


class _FailsError(Exception):
    """A transform cannot do anything with what it is shown."""


def check_transform(kind: type, parameters: Mapping[str, Any], where: str) -> None:
    """Make sure that a transform gives images and masks as networks learn from them.

    Args:
        kind: class of the transform.
        parameters: that it is made with; it is shown with the chance 1.
        where: its place in the config and its name, for messages.

    Raises:
        ValueError: images that are no bytes any more, or black; masks of classes that were not
            there; or it fails on all images that it is shown.
    """
    key = kind.__name__, repr(sorted(parameters.items()))
    if key not in _ASKED:
        _ASKED[key] = _ask(kind(**{**parameters, "p": 1.0}))
    if found := _ASKED[key]:
        fill = parameters.get("fill_mask")
        remedy = "set fill_mask: 0" if found == _CLASSES and fill else "leave it out"
        raise ValueError(f"{where}: {found}; {remedy}")


# Transforms are built again for each process, and some take a second to be asked.
_ASKED: dict[tuple[str, str], str] = {}
_DARK = "expected images, found black ones, or of one grey value"
_CLASSES = (
    "expected masks whose pixels keep their classes or lose all of them, found classes that were "
    "not there: it computes with bytes, of which each bit is a class"
)


def _ask(transform: Any) -> str:
    """Say what is wrong with what a transform gives; "" if nothing is."""
    found = ""
    for shape in _SHAPES:
        try:
            found = _ask_of(transform, shape)
        except _FailsError as error:
            found = found or str(error)
            continue
        # What blackens a small image may be a hole in a large one.
        if found != _DARK:
            return found
    return found


def _ask_of(transform: Any, shape: tuple[int, ...]) -> str:
    is_dark = []
    known = _patterns(_probe(shape)[1])
    for seed in _SEEDS:
        image, mask = _show(transform, shape, seed)
        if wrong := _wrong_type(image, mask, shape):
            return wrong
        if not np.isin(_patterns(mask), known).all():
            return _CLASSES
        is_dark.append(bool((image < _BLACK).mean() > _NEARLY_ALL or image.min() == image.max()))
    return _DARK if all(is_dark) else ""


def _wrong_type(image: Any, mask: Any, shape: tuple[int, ...]) -> str:
    for what, array in (("images", image), ("masks", mask)):
        found = getattr(array, "dtype", type(array).__name__)
        if not isinstance(array, np.ndarray) or array.dtype != np.uint8:
            return (
                f"expected {what} of uint8, 0 to 255, found {found}: what a network takes is made "
                "of them afterwards"
            )
    before, after = (sides[2] if len(sides) > 2 else 1 for sides in (shape, image.shape))
    if before != after:
        return f"expected an image of {before} channels to keep them, found {after}"
    if image.shape[:2] != mask.shape[:2]:
        return f"expected image and mask of one size, found {image.shape[:2]} and {mask.shape[:2]}"
    return ""


def _show(transform: Any, shape: tuple[int, ...], seed: int) -> tuple[Any, Any]:
    """Return what becomes of an image and a mask.

    Raises:
        _FailsError: the transform fails on them; an image that is too small to be cut says nothing.
    """
    image, mask = _probe(shape)
    compose = A.Compose([transform], mask_interpolation=0)
    compose.set_random_state(np.random.default_rng(seed), random.Random(seed))
    try:
        with warnings.catch_warnings(action="ignore"):
            out = compose(image=image.copy(), mask=mask.copy())
    # What a transform raises where it does not fit depends on it.
    except Exception as error:
        too_small = type(error).__name__ == "CropSizeError"
        said = "" if too_small else f"fails on images with masks: {one_line(error):.160}"
        raise _FailsError(said) from None
    return out["image"], out["mask"]


@lru_cache(maxsize=4)
def _probe(shape: tuple[int, ...]) -> tuple[Pixels, Pixels]:
    """Return an image, uint8 (h, w) or (h, w, 3), and a mask, uint8 (h, w, 4): blocks of bits."""
    size_hw = shape[:2]
    generator = np.random.default_rng(0)
    rows, columns = (-(-side // _BLOCK) for side in size_hw)
    blocks = generator.integers(1, 255, (rows, columns, 4), np.uint8)
    # Some blocks are empty, as most of an image is.
    blocks[generator.random((rows, columns)) < 0.3] = 0
    mask = blocks.repeat(_BLOCK, 0).repeat(_BLOCK, 1)[: size_hw[0], : size_hw[1]]
    image = generator.integers(30, 226, shape, np.uint8)
    return image, np.ascontiguousarray(mask)


def _patterns(mask: Pixels) -> npt.NDArray[np.uint32]:
    """Return the different bytes of pixels as numbers, and 0."""
    packed = np.ascontiguousarray(mask).view(np.uint32)
    return np.union1d(packed.ravel(), np.zeros(1, np.uint32))
