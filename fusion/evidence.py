"""The sources' evidence for every class at the image's own pixels, on crops, as bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from converters.masks import enclose
from converters.types import LabelSpace
from fusion.types import Prediction, Window, soft_mask

Bytes = npt.NDArray[np.uint8]
LOGIT_LIMIT = 4.0
NEUTRAL = 128
ALONE, SHARED, OUTLINE = 0, 1, 2
ZONES = ("alone", "shared", "outline")
OUTLINE_SHARE = 0.005
FAINT = 13  # a twentieth: pixels that every source gives less are no candidates


def logit_table(limit: float = LOGIT_LIMIT) -> npt.NDArray[np.float32]:
    """Return the log odds of the 256 byte values, float32 (256,), cut at +-limit.

    The neutral byte 128 is exactly 0: bytes from it on have log odds of at least 0, those below it
    less. Otherwise the table is odd, so that opposite opinions cancel.
    """
    p = np.clip(np.arange(256) / 255, 1e-6, 1 - 1e-6)
    table = np.clip(np.log(p / (1 - p)), -limit, limit).astype(np.float32)
    table[NEUTRAL] = 0.0
    return table


def damp(prob: Bytes, reliability: float) -> Bytes:
    """Return the evidence with its log odds multiplied by a reliability in 0..1.

    What was at least one half stays so: a mask's outline does not move, its weight does.
    """
    table = 1 / (1 + np.exp(-reliability * logit_table()))
    damped = np.rint(table * 255)
    damped[:NEUTRAL] = np.minimum(damped[:NEUTRAL], NEUTRAL - 1)
    damped[NEUTRAL:] = np.maximum(damped[NEUTRAL:], NEUTRAL)
    return cv2.LUT(prob, damped.astype(np.uint8)) if prob.size else prob


@dataclass(frozen=True)
class ClassEvidence:
    """What the sources say about one class in the window in which any of them says something.

    Attributes:
        label: class name.
        window_xywh: the window in pixels of the image; beyond it every source stays below a
            twentieth. Without that cut, one stray cell would make a class's window the image.
        prob: uint8 (K, h, w), one layer a source; 255 = 1. A source that saw no such object is
            0 everywhere if it is semantic, neutral (128) everywhere if it finds instances.
        silent: bool (K,): the source finds instances and found none of this class, or does not
            speak of it here, so that its layer is neutral. At least one source is not silent.
        zones: uint8 (h, w): ALONE, SHARED (two or more classes are claimed here by any source) or
            OUTLINE (near the outline of the sources' mean).
    """

    label: str
    window_xywh: Window
    prob: Bytes
    silent: npt.NDArray[np.bool_]
    zones: Bytes


def gather(
    predictions: Sequence[Prediction],
    labels: LabelSpace,
    reliability: Mapping[int, Reliability] | None = None,
) -> list[ClassEvidence]:
    """Render all sources' best evidence of one image, class by class.

    Args:
        predictions: one a source, of the same image.
        labels: the classes; those of which no source has more than a faint trace are left out.
        reliability: source's place -> how far its scores can be trusted.

    Raises:
        ValueError: the predictions are of different images or sizes.
    """
    check_same_image(predictions)
    size_hw = predictions[0].size_hw
    claimed, shared = np.zeros((2, *size_hw), np.bool_)
    rendered = []
    for label in labels.names:
        window = union_window(predictions, label, FAINT)
        if window[2] == 0 or window[3] == 0:
            continue
        layers, silent = _layers(predictions, label, window, reliability or {})
        claim = layers[~silent].max(axis=0) >= NEUTRAL
        place = _slices(window)
        shared[place] |= claimed[place] & claim
        claimed[place] |= claim
        rendered.append((label, window, layers, silent))
    reach = max(1, round(OUTLINE_SHARE * float(np.sqrt(size_hw[0] * size_hw[1]))))
    return [
        ClassEvidence(
            label, window, layers, silent, _zones(layers[~silent], shared[_slices(window)], reach)
        )
        for label, window, layers, silent in rendered
    ]


def check_same_image(predictions: Sequence[Prediction]) -> None:
    """Raise ValueError where predictions are of different images or sizes, or there is none."""
    if not predictions:
        raise ValueError("fusion: expected at least one source, found none")
    first = predictions[0]
    for other in predictions[1:]:
        if (other.key, other.size_hw) != (first.key, first.size_hw):
            found = f"{other.key} {other.size_hw}"
            raise ValueError(f"fusion: expected {first.key} {first.size_hw}, found {found}")


def union_window(predictions: Sequence[Prediction], label: str, level: int = 0) -> Window:
    """Return the smallest window of the image that holds all sources' boxes of a class.

    Args:
        predictions: one a source, of the same image.
        label: the class.
        level: cells below it, outside the box of the others, do not count.
    """
    windows = []
    for prediction in predictions:
        best = prediction.best(label) if prediction.speaks_of(label) else None
        mask = best and soft_mask(best[1].prob, best[1].box_xywh, level)
        if mask:
            windows.append(mask.window(prediction.size_hw))
    return enclose(windows)


def _layers(
    predictions: Sequence[Prediction],
    label: str,
    window: Window,
    reliability: Mapping[int, Reliability],
) -> tuple[Bytes, npt.NDArray[np.bool_]]:
    layers = np.zeros((len(predictions), window[3], window[2]), np.uint8)
    silent = np.zeros(len(predictions), np.bool_)
    for k, prediction in enumerate(predictions):
        best = prediction.best(label) if prediction.speaks_of(label) else None
        if best is None:
            silent[k] = prediction.kind == "instance" or not prediction.speaks_of(label)
            layers[k] = NEUTRAL if silent[k] else 0
            continue
        layer = best[1].render(window)
        layers[k] = damp(layer, reliability[k](best[0])) if k in reliability else layer
    return layers, silent


def _slices(window: Window) -> tuple[slice, slice]:
    x, y, width, height = window
    return slice(y, y + height), slice(x, x + width)


def _zones(layers: Bytes, shared: npt.NDArray[np.bool_], reach: int) -> Bytes:
    inside = (np.mean(layers, axis=0, dtype=np.float32) >= NEUTRAL).astype(np.uint8)
    kernel = np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)
    band = cv2.morphologyEx(inside, cv2.MORPH_GRADIENT, kernel)
    zones = band * np.uint8(OUTLINE)
    zones[shared] = SHARED
    return zones


@dataclass(frozen=True)
class Reliability:
    """How good a source's detections are, given their score: linear between knots.

    Attributes:
        scores: increasing scores, in 0..1.
        values: mean Dice of detections with that score, in 0..1, never falling.
    """

    scores: tuple[float, ...]
    values: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.scores) != len(self.values) or not self.scores:
            raise ValueError("reliability: expected as many values as scores, at least one")
        if list(self.scores) != sorted(self.scores) or list(self.values) != sorted(self.values):
            raise ValueError("reliability: expected scores and values that never fall")
        if not all(0 <= v <= 1 for v in (*self.scores, *self.values)):
            raise ValueError("reliability: expected scores and values in 0..1")

    def __call__(self, score: float) -> float:
        """Return the reliability of a score."""
        return float(np.interp(score, self.scores, self.values))
