"""The sources' evidence for every class at the image's own pixels, on crops, as bytes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
import numpy.typing as npt

from converters.masks import enclose
from converters.types import LabelSpace
from fusion.arrays import Bytes
from fusion.types import Prediction, SoftMask, Window, soft_mask

LOGIT_LIMIT = 4.0
NEUTRAL = 128
ALONE, SHARED, OUTLINE = 0, 1, 2
ZONES = ("alone", "shared", "outline")
OUTLINE_SHARE = 0.005
FAINT = 13  # a twentieth: pixels that every source gives less are no candidates
SOFT_EDGE = 0.05
# Of the normal distribution: what lies above so many standard deviations.
_DEVIATIONS = np.linspace(0, 4, 257)
_TAIL = np.array([math.erfc(d / math.sqrt(2)) / 2 for d in _DEVIATIONS.tolist()])


@cache
def logit_table(limit: float = LOGIT_LIMIT) -> npt.NDArray[np.float32]:
    """Return the log odds of the 256 byte values, float32 (256,), cut at +-limit.

    The neutral byte 128 is exactly 0: bytes from it on have log odds of at least 0, those below it
    less. Otherwise the table is odd, so that opposite opinions cancel. It is not to be written to.
    """
    p = np.clip(np.arange(256) / 255, 1e-6, 1 - 1e-6)
    table = np.clip(np.log(p / (1 - p)), -limit, limit).astype(np.float32)
    table[NEUTRAL] = 0.0
    table.setflags(write=False)
    return table


@dataclass(frozen=True)
class ClassEvidence:
    """What the sources say about one class in the window in which any of them says something.

    Attributes:
        label: class name.
        window_xywh: the window in pixels of the image; beyond it every source's mask stays below
            a twentieth. Without that cut, one stray cell would make a class's window the image.
        prob: uint8 (K, h, w), one layer a source; 255 = 1. A source that saw no such object is
            0 everywhere if it is semantic, neutral (128) everywhere if it finds instances.
        silent: bool (K,): the source finds instances and found none of this class, or does not
            speak of it here, so that its layer is neutral. At least one source is not silent.
        zones: uint8 (h, w): ALONE, SHARED (two or more classes are claimed here by any source) or
            OUTLINE (near the outline of the sources' mean).
        scores: float64 (K,), the detections' scores; 1 for what is no detection.
        overlaps: float64 (K,), Dice of each detection with the mean of the semantic sources; 1 for
            what is no detection, and where no semantic source claims a pixel.
    """

    label: str
    window_xywh: Window
    prob: Bytes
    silent: npt.NDArray[np.bool_]
    zones: Bytes
    scores: npt.NDArray[np.float64]
    overlaps: npt.NDArray[np.float64]


def claimed_by_mean(layers: Bytes | Sequence[Bytes]) -> npt.NDArray[np.bool_]:
    """Return where the mean of layers, halves rounded up, is at least NEUTRAL, bool (h, w)."""
    total = np.zeros(layers[0].shape, np.float32)
    for layer in layers:
        cv2.accumulate(layer, total)
    return total >= NEUTRAL * len(layers) - len(layers) // 2


@dataclass(frozen=True)
class _ClassView:
    """What one source shows of one class: nothing to say, nothing there, or a mask."""

    is_silent: bool
    score: float = 1.0
    mask: SoftMask | None = None
    soft_edge: float = 0.0

    def render(self, window: Window, out: Bytes) -> None:
        """Write the probability at the pixels of a window to `out`, uint8 (h, w)."""
        if self.is_silent:
            out[:] = NEUTRAL
        elif self.mask is None:
            out[:] = 0
        else:
            self.mask.render(window, out)
            fade_beyond(self.mask, self.soft_edge, window, out)


def gather(
    predictions: Sequence[Prediction], labels: LabelSpace, soft_edge: float = SOFT_EDGE
) -> list[ClassEvidence]:
    """Render all sources' best evidence of one image, class by class.

    Args:
        predictions: one a source, of the same image.
        labels: the classes; those of which no source has more than a faint trace are left out.
        soft_edge: see `fade_beyond`.

    Raises:
        ValueError: the predictions are of different images or sizes.
    """
    check_same_image(predictions)
    size_hw = predictions[0].size_hw
    is_instance = np.array([p.kind == "instance" for p in predictions])
    claimed, shared = np.zeros((2, *size_hw), np.bool_)
    rendered = []
    for label in labels.names:
        seen = [_look(p, label, labels.once, soft_edge) for p in predictions]
        window = _window_of(seen, size_hw)
        if window[2] == 0 or window[3] == 0:
            continue
        layers, silent = _layers(seen, window)
        claim = _layers_that_speak(layers, silent).max(axis=0) >= NEUTRAL
        place = _slices(window)
        shared[place] |= claimed[place] & claim
        claimed[place] |= claim
        rendered.append((label, window, layers, silent, [s.score for s in seen]))
    reach = max(1, round(OUTLINE_SHARE * float(np.sqrt(size_hw[0] * size_hw[1]))))
    return [
        ClassEvidence(
            label,
            window,
            layers,
            silent,
            zones=_zones(_layers_that_speak(layers, silent), shared[_slices(window)], reach),
            scores=np.array(scores, np.float64),
            overlaps=_overlaps(layers, silent, is_instance),
        )
        for label, window, layers, silent, scores in rendered
    ]


def _look(prediction: Prediction, label: str, once: bool, soft_edge: float) -> _ClassView:
    if not prediction.speaks_of(label):
        return _ClassView(is_silent=True)
    found = prediction.evidence(label, once)
    if found is None:
        return _ClassView(is_silent=prediction.kind == "instance")
    score, mask = found
    if prediction.kind == "semantic":
        return _ClassView(False, 1.0, mask)
    return _ClassView(False, score, mask, soft_edge)


def fade_beyond(mask: SoftMask, share: float, window: Window, layer: Bytes) -> None:
    """Let a detection's mask fade out beyond its box, where the box cuts something off.

    A box's edge is a guess too. If it errs by a normal distribution, a pixel at distance d beyond
    an edge that cuts through the object is of the object with the probability of an error above d.

    Args:
        mask: a detection's.
        share: standard deviation of the edges' error, as a share of the box's side; 0 for none.
        window: of the image.
        layer: uint8 (h, w), the mask rendered there; what lies beyond the box is changed.
    """
    x, y, width, height = mask.pixels(window)
    if not (share and width > 0 and height > 0 and _reaches_its_edge(mask.prob)):
        return
    top, left = y - window[1], x - window[0]
    bottom, right = top + height, left + width
    box_x, box_y, box_w, box_h = mask.box_xywh
    across = _doubt(window[0], window[2], box_x, box_w, share)
    down = _doubt(window[1], window[3], box_y, box_h, share)[:, None]
    beside = layer[top:bottom]
    beside[:, :left] = beside[:, left : left + 1] * across[:left]
    beside[:, right:] = beside[:, right - 1 : right] * across[right:]
    layer[:top] = layer[top] * down[:top]
    layer[bottom:] = layer[bottom - 1] * down[bottom:]


def _doubt(
    start: int, count: int, edge: float, side: float, share: float
) -> npt.NDArray[np.float32]:
    """Return how likely an edge lies beyond each of some pixels outside a box, float32 (count,)."""
    at = start + np.arange(count) + 0.5
    away = np.maximum(edge - at, at - edge - side) / (share * side)
    return np.interp(away, _DEVIATIONS, _TAIL).astype(np.float32)


def _reaches_its_edge(prob: Bytes) -> bool:
    edges = (prob[0], prob[-1], prob[:, 0], prob[:, -1])
    return any(int(edge.max()) >= FAINT for edge in edges)


def _window_of(seen: Sequence[_ClassView], size_hw: tuple[int, int]) -> Window:
    # What fades out beyond a box supports other sources; alone it decides nothing.
    trimmed = [soft_mask(s.mask.prob, s.mask.box_xywh, FAINT) for s in seen if s.mask]
    return enclose([mask.window(size_hw) for mask in trimmed if mask])


def _layers(seen: Sequence[_ClassView], window: Window) -> tuple[Bytes, npt.NDArray[np.bool_]]:
    silent = np.array([s.is_silent for s in seen])
    layers = np.empty((len(seen), window[3], window[2]), np.uint8)
    for source, layer in zip(seen, layers, strict=True):
        source.render(window, layer)
    return layers, silent


def _layers_that_speak(layers: Bytes, silent: npt.NDArray[np.bool_]) -> Bytes:
    return layers[~silent] if silent.any() else layers


def _overlaps(
    layers: Bytes, silent: npt.NDArray[np.bool_], is_instance: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float64]:
    found = np.ones(len(layers))
    semantic = [layers[k] for k in np.flatnonzero(~silent & ~is_instance)]
    if not semantic:
        return found
    claimed = claimed_by_mean(semantic)
    area = np.count_nonzero(claimed)
    for k in np.flatnonzero(~silent & is_instance) if area else ():
        detected = layers[k] >= NEUTRAL
        both = np.count_nonzero(detected & claimed)
        found[k] = 2 * both / (area + np.count_nonzero(detected))
    return found


def check_same_image(predictions: Sequence[Prediction]) -> None:
    """Raise ValueError where predictions are of different images or sizes, or there is none."""
    if not predictions:
        raise ValueError("fusion: expected at least one source, found none")
    first = predictions[0]
    for other in predictions[1:]:
        if (other.key, other.size_hw) != (first.key, first.size_hw):
            found = f"{other.key} {other.size_hw}"
            raise ValueError(f"fusion: expected {first.key} {first.size_hw}, found {found}")


def _slices(window: Window) -> tuple[slice, slice]:
    x, y, width, height = window
    return slice(y, y + height), slice(x, x + width)


def _zones(layers: Bytes, shared: npt.NDArray[np.bool_], reach: int) -> Bytes:
    inside = claimed_by_mean(layers).view(np.uint8)
    kernel = np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)
    band = cv2.morphologyEx(inside, cv2.MORPH_GRADIENT, kernel)
    zones = band * np.uint8(OUTLINE)
    zones[shared] = SHARED
    return zones
