"""Boxes that a first stage's predictions give to the crops of a second one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from converters.crops import chosen_classes
from converters.masks import EMPTY, Box, CropMask, crop, enclose, tight_box
from converters.types import LabelSpace
from fusion.sources.store import PredictionStore

# A network sees a speck of a class elsewhere now and then; a crop that holds it is none any more.
SPECK = 0.1


@dataclass(frozen=True)
class FirstBoxes:
    """Where a first stage sees some classes.

    Attributes:
        store: whose predictions they are from.
        found: key -> x, y, width, height, in pixels of the image.
        sizes: key -> height and width, of all images that it has looked at.
    """

    store: Path
    found: Mapping[str, Box]
    sizes: Mapping[str, tuple[int, int]]

    @property
    def blind(self) -> tuple[str, ...]:
        """Keys of the images in which it sees none of the classes."""
        return tuple(key for key in self.sizes if key not in self.found)

    def complete(self) -> dict[str, Box]:
        """Return a box for every image; where it sees none, the window that holds all others'.

        Windows are compared as shares of their images' sides.

        Raises:
            ValueError: it sees none in any image.
        """
        if not self.found:
            raise ValueError(f"{self.store}: expected an image with such objects, found none")
        edges = np.array([_shares(box, self.sizes[key]) for key, box in self.found.items()])
        (left, top), (right, bottom) = edges[:, :2].min(0), edges[:, 2:].max(0)
        window = (float(left), float(top), float(right), float(bottom))
        return dict(self.found) | {key: _pixels(window, self.sizes[key]) for key in self.blind}


def _shares(box: Box, size_hw: tuple[int, int]) -> tuple[float, float, float, float]:
    x, y, width, height = box
    high, wide = size_hw
    return x / wide, y / high, (x + width) / wide, (y + height) / high


def _pixels(edges: tuple[float, float, float, float], size_hw: tuple[int, int]) -> Box:
    high, wide = size_hw
    x, y = math.floor(edges[0] * wide), math.floor(edges[1] * high)
    return x, y, math.ceil(edges[2] * wide) - x, math.ceil(edges[3] * high) - y


def find_boxes(store: Path, around: Sequence[str], labels: LabelSpace) -> FirstBoxes:
    """Read where a prediction store sees some classes, its specks of them left out.

    Args:
        store: folder of a prediction store.
        around: classes, or groups of them.
        labels: the classes; must be the store's.

    Raises:
        ValueError: not a store, one of other classes, or an unknown class.
    """
    names = chosen_classes(around, labels)
    predictions = PredictionStore(store)
    manifest = predictions.manifest
    if manifest.names != labels.names:
        raise ValueError(
            f"{store}: expected classes of '{labels.name}', found those of '{manifest.labels}'"
        )
    boxes = (
        (p.key, enclose(tight_box(without_specks(p.binary(n, once=labels.once))) for n in names))
        for p in predictions
    )
    sizes = {key: (height, width) for key, (height, width, _) in manifest.images.items()}
    return FirstBoxes(store, {key: box for key, box in boxes if box[2]}, sizes)


def read_boxes(store: Path, around: Sequence[str], labels: LabelSpace) -> dict[str, Box]:
    """Read where a prediction store sees some classes: key -> x, y, width, height, in pixels.

    These are the `boxes` of `converters.crops.crop` and `suggest_margin`. An image in which the
    store sees none of the classes has no box. Takes and raises what `find_boxes` does.
    """
    return dict(find_boxes(store, around, labels).found)


def without_specks(mask: CropMask) -> CropMask:
    """Return a mask's parts that have at least a tenth of the largest one's pixels."""
    if not mask.area:
        return EMPTY
    count, parts, stats, _ = cv2.connectedComponentsWithStats(mask.pixels, connectivity=8)
    areas = stats[1:count, cv2.CC_STAT_AREA]
    kept = np.concatenate([[False], areas >= SPECK * areas.max()])
    inner = crop(kept[parts])
    return CropMask(mask.x + inner.x, mask.y + inner.y, inner.pixels)
