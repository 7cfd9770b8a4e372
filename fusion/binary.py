"""From a prediction to binary masks: each class by itself, or one label a pixel."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from converters.masks import EMPTY, CropMask, split_plane
from converters.types import LabelSpace
from fusion.types import Evidence, Prediction, Window

_FULL = 255


def binary_masks(prediction: Prediction, labels: LabelSpace) -> dict[str, CropMask]:
    """Return the masks that a submission of this prediction holds, one for every class.

    Where classes may share pixels, a pixel is a class's from one half on. Where a pixel has one
    label, it is that of the class of the highest probability (of equal ones the first), unless it
    is likelier that no class is there: what the classes' probabilities leave to 1 is that of the
    background, be it a class or not.

    Args:
        prediction: of one image.
        labels: the classes.
    """
    if labels.exclusive is None:
        return {name: prediction.binary(name, once=labels.once) for name in labels.names}
    found = split_plane(_likeliest(prediction, labels), labels)
    return {name: found.get(name, EMPTY) for name in labels.names}


def _likeliest(prediction: Prediction, labels: LabelSpace) -> npt.NDArray[np.uint16]:
    """The number of each pixel's likeliest class + 1, uint16 (H, W); 0 where there is none."""
    plane = np.zeros(prediction.size_hw, np.uint16)
    # A class needs more than nothing at all.
    most = np.zeros(prediction.size_hw, np.uint8)
    total = np.zeros(prediction.size_hw, np.uint16)
    for number, window, prob in _shown(prediction, labels):
        x, y, width, height = window
        place = slice(y, y + height), slice(x, x + width)
        total[place] += prob
        is_more = prob > most[place]
        plane[place][is_more] = number + 1
        np.maximum(most[place], prob, out=most[place])
    plane[most < _FULL - np.minimum(total, _FULL)] = 0
    return plane


def _shown(
    prediction: Prediction, labels: LabelSpace
) -> Iterator[tuple[int, Window, npt.NDArray[np.uint8]]]:
    """The classes with a probability, at the image's pixels in a window: uint8 (h, w)."""
    for number, name in enumerate(labels.names):
        found: Evidence | None = prediction.evidence(name, labels.once)
        if found is None:
            continue
        window = found[1].window(prediction.size_hw)
        if window[2] and window[3]:
            yield number, window, found[1].render(window)
