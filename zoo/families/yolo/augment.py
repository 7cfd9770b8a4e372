"""The config's list `augment` as a step of Ultralytics' augmentation; under AGPL-3.0."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from converters.formats.single_ring import joined_ring
from converters.masks import Ring, crop, rings
from zoo.augmentation.pipeline import Augmentation
from zoo.families.yolo import offline  # noqa: F401  (before anything of Ultralytics)

# isort: split
from ultralytics.utils.instance import Instances
from ultralytics.utils.ops import resample_segments

Pixels = npt.NDArray[np.uint8]
Draw = Callable[[npt.NDArray[np.float32], tuple[int, int]], Pixels]
# Points of an outline, at least, as Ultralytics has them.
_POINTS = 1000


class ListedTransforms:
    """Our transforms on Ultralytics' samples, in place of its own few of albumentations.

    Ultralytics would move outlines point by point, which not every transform can. Here objects are
    drawn as bits of a mask, which moves as it does for the other families, and are traced again; an
    outline keeps to the pixels of the network's input from then on. Where no transform moves
    anything, outlines stay as they are. Decisions come from Python's generator, as Ultralytics'
    do, which the seed, the epoch and the worker decide.
    """

    def __init__(self, augment: Augmentation, draw: Draw, image_px: int) -> None:
        """Take the transforms.

        Args:
            augment: of bit-packed masks; it must not mix samples.
            draw: gives an object's pixels, uint8 (h, w), 0 or 1, of its outline and the size.
            image_px: pixels of the image for one of the network's input, along a side; outlines
                are traced so that drawing them at the image's size gives the traced pixels; where
                it is 1, but for some beside diagonals, to which points between are rounded.
        """
        self._augment, self._draw, self._trace_px = augment, draw, image_px

    def __call__(self, labels: dict[str, Any]) -> dict[str, Any]:
        """Return a sample with its image and objects augmented."""
        image: Pixels = labels["img"]
        size_hw = image.shape[:2]
        is_grey = bool((image == image[..., :1]).all())
        pixels = np.ascontiguousarray(image[..., 0]) if is_grey else image
        instances = labels["instances"]
        instances.convert_bbox("xyxy")
        instances.denormalize(size_hw[1], size_hw[0])
        drawn = [self._draw(ring, size_hw) for ring in instances.segments]
        packed = _pack(drawn, size_hw)
        classes = tuple(int(number) for number in labels["cls"].ravel())
        seed = (random.getrandbits(32),)
        pixels, moved = self._augment(pixels, packed, seed, classes=classes)
        labels["img"] = np.repeat(pixels[..., None], image.shape[2], 2) if is_grey else pixels
        if not np.array_equal(moved, packed):
            self._trace(labels, moved, len(drawn))
        return labels

    def _trace(self, labels: dict[str, Any], packed: Pixels, count: int) -> None:
        size = (packed.shape[1] * self._trace_px, packed.shape[0] * self._trace_px)
        outlines, kept = [], []
        for i in range(count):
            plane = packed[..., i // 8] >> np.uint8(i % 8) & np.uint8(1)
            mask = crop(cv2.resize(plane, size, interpolation=cv2.INTER_NEAREST_EXACT))
            if mask.area:
                ring = _every_pixel(joined_ring(rings(mask)))
                outlines.append(((ring + 0.5) / self._trace_px).astype(np.float32))
                kept.append(i)
        length = max([_POINTS, *(len(ring) + 1 for ring in outlines)])
        boxes = [np.concatenate([ring.min(0), ring.max(0)]) for ring in outlines]
        segments = resample_segments(outlines, length)
        labels["cls"] = labels["cls"][kept]
        labels["instances"] = Instances(
            np.array(boxes, np.float32).reshape(-1, 4),
            np.array(segments, np.float32).reshape(-1, length, 2),
            bbox_format="xyxy",
            normalized=False,
        )


def _pack(drawn: list[Pixels], size_hw: tuple[int, int]) -> Pixels:
    packed = np.zeros((*size_hw, max(1, -(-len(drawn) // 8))), np.uint8)
    for i, plane in enumerate(drawn):
        packed[..., i // 8] |= plane << np.uint8(i % 8)
    return packed


def _every_pixel(ring: Ring) -> Ring:
    """A ring of straight and diagonal steps with a point on each of its pixels.

    Ultralytics puts further points between those of a ring, rounded when they are drawn: a pixel
    on a long diagonal would be lost where it is no point itself.
    """
    steps = np.roll(ring, -1, axis=0) - ring
    counts = np.maximum(np.abs(steps).max(1), 1)
    start = np.repeat(np.arange(len(ring)), counts)
    share = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.asarray(ring[start] + np.sign(steps[start]) * share[:, None], np.int32)
