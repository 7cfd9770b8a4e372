"""What there is to look at in an image: its pixels, and what sources say of each class.

All of it is kept at the detail at which the network looks, masks compressed, a class at a time:
nothing grows with classes times pixels.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from converters.files.images import Pixels
from converters.masks import CropMask
from converters.types import LabelSpace
from fusion.arrays import Bytes
from fusion.rules.evidence import NEUTRAL
from fusion.types import Box, Prediction, SoftMask
from zoo.data.reading import resize_image

# A raster that is not much finer than what it is shown at is left as it is.
_FINER = 0.75
_FAST = 1


@dataclass(frozen=True)
class Packed:
    """A soft mask, compressed.

    Attributes:
        box_xywh: the mask's.
        shape: of its raster.
        code: the raster's bytes, compressed.
    """

    box_xywh: Box
    shape: tuple[int, int]
    code: bytes

    @classmethod
    def of(cls, mask: SoftMask) -> Packed:
        """Compress a mask."""
        rows, cols = mask.prob.shape
        return cls(mask.box_xywh, (rows, cols), zlib.compress(mask.prob.tobytes(), _FAST))

    def mask(self) -> SoftMask:
        """Return the mask."""
        prob = np.frombuffer(zlib.decompress(self.code), np.uint8).reshape(self.shape)
        return SoftMask(self.box_xywh, prob)


Held = SoftMask | Packed


def unpack(held: Held | None) -> SoftMask | None:
    """Return a mask as it is, or as it was before it was packed."""
    return held.mask() if isinstance(held, Packed) else held


@dataclass(frozen=True)
class ClassLook:
    """What is known of one class in an image.

    Attributes:
        sources: each one's mask; None where it has none. Masks of looks that are kept are packed.
        speaks: whether it speaks of the class here; one that does not is no vote against it.
        fused: what was made of them; None is nothing.
        truth: None where there is none, or nobody knows.
        outline_px: points on outlines of the fused answer, or of the sources where it has none, and
            of the truth; float32 (n, 2), x and y in pixels of the image.
    """

    sources: tuple[Held | None, ...]
    speaks: tuple[bool, ...]
    fused: Held | None
    truth: Held | None
    outline_px: npt.NDArray[np.float32]


@dataclass(frozen=True)
class Look:
    """What is known of an image.

    Attributes:
        key: the sample's.
        size_hw: the image's own height and width.
        cell_px: how many pixels of the image a pixel of a patch is wide and high.
        image: the image at that size, uint8 (h, w) or (h, w, 3).
        classes: class name -> what is known of it; of those that have an outline.
    """

    key: str
    size_hw: tuple[int, int]
    cell_px: float
    image: Pixels
    classes: Mapping[str, ClassLook]

    @classmethod
    def of(
        cls,
        image: Pixels,
        predictions: Sequence[Prediction],
        fused: Prediction,
        labels: LabelSpace,
        detail: float,
        truth: Mapping[str, CropMask] | None = None,
    ) -> Look:
        """Gather it.

        Args:
            image: uint8 (H, W) or (H, W, 3).
            predictions: one a source.
            fused: what a rule made of them.
            labels: the classes.
            detail: pixels of a patch along a cell of the finest source.
            truth: class name -> mask; None where nobody knows. A look with truth is one to keep,
                and packed.
        """
        size_hw = fused.size_hw
        cell = max(1.0, finest_cell(predictions, labels) / detail)
        made = {n: _look(n, predictions, fused, labels, cell, truth) for n in labels.names}
        known = {name: look for name, look in made.items() if len(look.outline_px)}
        shown = (max(round(size_hw[0] / cell), 1), max(round(size_hw[1] / cell), 1))
        return cls(fused.key, size_hw, cell, resize_image(image, shown), known)


def finest_cell(predictions: Sequence[Prediction], labels: LabelSpace) -> float:
    """Return how many pixels a cell of the finest source is wide, or high if that is more.

    A source's cells are those of its classes in the middle. 1 where nobody says anything.
    """
    found = []
    for prediction in predictions:
        best = [e[1] for n in labels.names if (e := prediction.best(n))]
        if best:
            found.append(float(np.median([_cell(mask) for mask in best])))
    return min(found, default=1.0)


def _cell(mask: SoftMask) -> float:
    rows, cols = mask.prob.shape
    return max(mask.box_xywh[2] / cols, mask.box_xywh[3] / rows)


def _look(
    label: str,
    predictions: Sequence[Prediction],
    fused: Prediction,
    labels: LabelSpace,
    cell: float,
    truth: Mapping[str, CropMask] | None,
) -> ClassLook:
    masks, speaks = [], []
    for prediction in predictions:
        found = prediction.evidence(label, labels.once) if prediction.speaks_of(label) else None
        masks.append(None if found is None else shrink(found[1], cell))
        # A detector that found nothing is as silent as one that was not asked.
        is_no = prediction.speaks_of(label) and prediction.kind == "semantic"
        speaks.append(found is not None or is_no)
    answer = fused.evidence(label, labels.once)
    start = None if answer is None else shrink(answer[1], cell)
    real = None if truth is None else _of_crop(truth.get(label), cell)
    points = _lines([start])
    points = np.concatenate([points if len(points) else _lines(masks), _lines([real])])
    if truth is None:
        return ClassLook(tuple(masks), tuple(speaks), start, None, points)
    pack = [None if mask is None else Packed.of(mask) for mask in (*masks, start, real)]
    return ClassLook(tuple(pack[:-2]), tuple(speaks), pack[-2], pack[-1], points)


def _lines(masks: Sequence[SoftMask | None]) -> npt.NDArray[np.float32]:
    lines = [outline_of(mask) for mask in masks if mask is not None]
    return np.concatenate([np.zeros((0, 2), np.float32), *lines])


def _of_crop(crop: CropMask | None, cell: float) -> SoftMask | None:
    if crop is None or not crop.pixels.size:
        return None
    height, width = crop.pixels.shape
    box = float(crop.x), float(crop.y), float(width), float(height)
    return shrink(SoftMask(box, crop.pixels * np.uint8(255)), cell)


def shrink(mask: SoftMask, cell: float) -> SoftMask:
    """Return a mask at cells of so many pixels, by area; one that is about as coarse stays.

    A cell is added on each side, so that an outline on the raster's edge stays where it is.
    """
    if cell == 1 or _cell(mask) >= _FINER * cell:
        return mask
    rows, cols = mask.prob.shape
    x, y, width, height = mask.box_xywh
    cell_w, cell_h = width / cols, height / rows
    beside, above = -(-cell // cell_w), -(-cell // cell_h)
    pads = int(above), int(above), int(beside), int(beside)
    padded = cv2.copyMakeBorder(mask.prob, *pads, cv2.BORDER_CONSTANT, value=0)
    left, top = x - beside * cell_w, y - above * cell_h
    box = left, top, width + 2 * beside * cell_w, height + 2 * above * cell_h
    shape = max(round(box[2] / cell), 1), max(round(box[3] / cell), 1)
    small: Bytes = cv2.resize(padded, shape, interpolation=cv2.INTER_AREA)
    return SoftMask(box, small)


def outline_of(mask: SoftMask) -> npt.NDArray[np.float32]:
    """Return points on the outline of what is at least one half, float32 (n, 2), in pixels."""
    inside = (mask.prob >= NEUTRAL).astype(np.uint8)
    rings, _ = cv2.findContours(inside, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    if not rings:
        return np.zeros((0, 2), np.float32)
    cells = np.concatenate([ring.reshape(-1, 2) for ring in rings]).astype(np.float32)
    rows, cols = mask.prob.shape
    x, y, width, height = mask.box_xywh
    scale = np.array([width / cols, height / rows], np.float32)
    return ((cells + 0.5) * scale + np.array([x, y], np.float32)).astype(np.float32)
