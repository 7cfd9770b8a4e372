"""One opinion of several networks of one recipe, such as those of the folds of a split.

Semantic networks: the mean of the probabilities, cell by cell of the grid on which all of them
predict, so that a raster keeps the networks' resolution and is enlarged as that of a single one.

Networks that find instances: detections of different networks that mean the same object are one,
as in weighted boxes fusion (Solovyev, Wang, Gabruseva 2021, "Weighted boxes fusion", Image and
Vision Computing 107), here with masks instead of boxes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from converters.masks import CropMask, enclose
from converters.types import LabelSpace
from fusion.metrics.scores import dice
from fusion.types import Evidence, Prediction, SoftMask, evidence_at_pixels, soft_mask

# Dice from which on two detections mean the same object: an IoU of one half.
SAME = 2 / 3
# How far, in cells, a raster may be off the grid that it is taken to be on: rounding of boxes.
_NEAR = 1e-3
# A detection of score 0 has a mask all the same.
_LEAST = 1e-6


def mean_prediction(predictions: Sequence[Prediction], labels: LabelSpace) -> Prediction:
    """Return the mean of what several networks say of one image; all count the same.

    Args:
        predictions: one a network, all semantic or all of instances, on the whole image.
        labels: the classes; where each occurs once, one object of a class is left.

    Raises:
        ValueError: no predictions, of different images or kinds, or on different grids.
    """
    first = _check_alike(predictions)
    masks = {}
    for label in labels.names:
        if first.kind == "semantic":
            found = _mean_raster(predictions, label)
        else:
            found = _mean_detections(predictions, label)[: 1 if labels.once else None]
        if found:
            masks[label] = found
    return Prediction(first.key, first.size_hw, first.kind, masks)


def _check_alike(predictions: Sequence[Prediction]) -> Prediction:
    if not predictions:
        raise ValueError("mean of networks: expected at least one prediction, found none")
    first = predictions[0]
    expected = first.key, first.size_hw, first.kind
    for other in predictions[1:]:
        if (found := (other.key, other.size_hw, other.kind)) != expected:
            raise ValueError(f"mean of networks: expected predictions of {expected}, found {found}")
    return first


# --- semantic


class _Placed(NamedTuple):
    """A raster on the grid of its network's cells, which begins at the image's corner."""

    x: int
    y: int
    cell_wh: tuple[float, float]
    mask: SoftMask


def _place(mask: SoftMask, key: str) -> _Placed:
    rows, cols = mask.prob.shape
    cell = mask.box_xywh[2] / cols, mask.box_xywh[3] / rows
    x, y = mask.box_xywh[0] / cell[0], mask.box_xywh[1] / cell[1]
    if max(abs(x - round(x)), abs(y - round(y))) > _NEAR:
        raise ValueError(
            f"{key}: expected rasters of whole cells from the image's corner on, found one "
            f"{x:.2f} x {y:.2f} cells away from it"
        )
    return _Placed(round(x), round(y), cell, mask)


def _mean_raster(predictions: Sequence[Prediction], label: str) -> tuple[Evidence, ...]:
    found = (prediction.best(label) for prediction in predictions)
    placed = [_place(best[1], predictions[0].key) for best in found if best]
    if not placed:
        return ()
    (cell_w, cell_h), key = placed[0].cell_wh, predictions[0].key
    for other in placed[1:]:
        if not np.allclose(other.cell_wh, (cell_w, cell_h), rtol=_NEAR / 10, atol=0):
            raise ValueError(
                f"{key}: expected networks that predict at one resolution, found cells of "
                f"{cell_w:.3f} x {cell_h:.3f} and {other.cell_wh[0]:.3f} x {other.cell_wh[1]:.3f} "
                "pixels; choose a --size for all, or fuse the stores of single runs"
            )
    x, y, width, height = enclose((p.x, p.y, *p.mask.prob.shape[::-1]) for p in placed)
    total = np.zeros((height, width), np.float32)
    for part in placed:
        rows, cols = part.mask.prob.shape
        total[part.y - y : part.y - y + rows, part.x - x : part.x - x + cols] += part.mask.prob
    mean = np.rint(total / len(predictions)).astype(np.uint8)
    mask = soft_mask(mean, (x * cell_w, y * cell_h, width * cell_w, height * cell_h))
    return () if mask is None else ((int(mean.max()) / 255, mask),)


# --- instances


class _Detection(NamedTuple):
    network: int
    score: float
    mask: SoftMask
    pixels: CropMask


def _mean_detections(predictions: Sequence[Prediction], label: str) -> tuple[Evidence, ...]:
    size_hw = predictions[0].size_hw
    pooled = (_pool(group, len(predictions), size_hw) for group in _match(predictions, label))
    return tuple(sorted(pooled, key=lambda evidence: -evidence[0]))


def _match(predictions: Sequence[Prediction], label: str) -> Iterator[list[_Detection]]:
    """Yield detections that mean the same object, at most one a network.

    From the surest one on, each takes with it of every other network the one that is most like it,
    if that is like enough and not taken yet.
    """
    left = [
        _Detection(number, score, mask, mask.binary(prediction.size_hw))
        for number, prediction in enumerate(predictions)
        for score, mask in prediction.masks.get(label, ())
    ]
    left.sort(key=lambda detection: -detection.score)
    while left:
        group = [left.pop(0)]
        near = [(dice(d.pixels, group[0].pixels), d) for d in left if d.pixels.area]
        near.sort(key=lambda pair: -pair[0])
        for likeness, other in near:
            if likeness >= SAME and all(other.network != d.network for d in group):
                group.append(other)
                left = [d for d in left if d is not other]
        yield group


def _pool(group: Sequence[_Detection], networks: int, size_hw: tuple[int, int]) -> Evidence:
    """Return one object's score, to which those that missed it add 0, and its mask.

    The mask is the mean of the masks, weighted by their scores, at the image's own pixels: boxes of
    different detections have no cells in common.
    """
    score = min(sum(d.score for d in group) / networks, 1.0)
    if len(group) == 1:
        return score, group[0].mask
    window = enclose(d.mask.window(size_hw) for d in group)
    weights = [max(d.score, _LEAST) for d in group]
    layers = zip(weights, (d.mask.render(window) for d in group), strict=True)
    total = sum(
        (np.float32(weight) * layer for weight, layer in layers),
        np.zeros((window[3], window[2]), np.float32),
    )
    mean = np.rint(total / np.float32(sum(weights))).astype(np.uint8)
    return score, evidence_at_pixels(window, mean)[0][1]
