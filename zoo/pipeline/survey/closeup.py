"""Which classes are worth a second look by a network of their own, on enlarged crops.

These are thin, lie together in a part of the image, and have pixels that the other networks, which
see the whole image smaller than it is, are not shown.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
import numpy.typing as npt

from converters.types import LabelSpace, Sample

# A class that is thinner than so many of the network's pixels gains by more of them; thicker ones
# gain less, in proportion.
_THIN = 12
# A class is in so many of the images, and has so few objects in each, where a crop is to hold all.
_USUAL, _MOST_OBJECTS = 0.8, 1.2
# What lies around the objects, to the image's longer side: where a first stage finds them is not
# exactly where they are, and of what a crop's edge cuts it says nothing.
_MARGIN = 0.06
# How much larger classes have to be seen, and what that is worth to the mean over all classes at
# least: of a thin one's error, which lies along its outline, what is left is one part in so many.
_LEAST_ZOOM, _LEAST_WORTH = 1.5, 0.15


@dataclass(frozen=True)
class Closeup:
    """Classes that a network is to see larger.

    Attributes:
        classes: they are in nearly all images, once in each.
        margin: pixels around them.
        height: of the crops, half of which are higher, in pixels of the image.
        width: of the crops.
        longest: longer side of the images.
        zoom: how much larger they are seen than by a network that looks at the whole image.
    """

    classes: tuple[str, ...]
    margin: int
    height: float
    width: float
    longest: float
    zoom: float

    def describe(self) -> str:
        """Return it in words."""
        named = ", ".join(self.classes)
        return f"{named:.80} seen {self.zoom:.1f} times larger"

    def size_hw(self, side: int, multiple: int) -> list[int]:
        """Return what a network is shown: about as many pixels as of a whole image, if there are.

        Args:
            side: that it is shown of a whole image.
            multiple: that height and width have to be of.
        """
        scale = self.zoom * side / self.longest
        sizes = (multiple * round(scale * n / multiple) for n in (self.height, self.width))
        return [max(multiple, size) for size in sizes]


class _Shapes:
    """Where classes lie, and how thick they are.

    Args:
        samples: of a data set.
        labels: its classes.
    """

    def __init__(self, samples: Sequence[Sample], labels: LabelSpace) -> None:
        count = len(samples), len(labels)
        self.boxes: npt.NDArray[np.float64] = np.full((*count, 4), np.nan)
        objects = np.zeros(count)
        thick: dict[str, list[float]] = {}
        for row, sample in enumerate(samples):
            for found in sample.instances:
                column = labels.index[found.label]
                left, top, right, bottom = found.geometry.bounds
                own = np.array([-left, -top, right + 1, bottom + 1])
                self.boxes[row, column] = np.fmax(self.boxes[row, column], own)
                objects[row, column] += 1
                # Of a stripe its area to half its outline's length is about its breadth.
                share = 2 * found.geometry.area / max(1.0, found.geometry.length)
                thick.setdefault(found.label, []).append(share / max(sample.size_hw))
        self.sizes_hw = np.array([sample.size_hw for sample in samples], float)
        there = (objects > 0).sum(axis=0)
        is_usual = there >= max(1.0, _USUAL * len(samples))
        is_usual &= objects.sum(axis=0) <= _MOST_OBJECTS * np.maximum(1, there)
        # Commas are between the names of a crop's classes.
        self.usual = [n for n, column in labels.index.items() if is_usual[column] and "," not in n]
        self.columns: Mapping[str, int] = labels.index
        self.thick = {name: median(found) for name, found in thick.items()}

    def thinness(self, names: Sequence[str], side: int) -> float:
        """Return what is thin in classes, 1 for each that is, as a network sees images."""
        return sum(min(1.0, _THIN / (side * max(self.thick[name], 1e-6))) for name in names)

    def crops(self, names: Sequence[str]) -> tuple[float, float, float]:
        """Return height, width and share of the image of crops around classes, medians of all."""
        with np.errstate(invalid="ignore"):
            edges = np.fmax.reduce(self.boxes[:, [self.columns[name] for name in names]], axis=1)
        seen = ~np.isnan(edges[:, 0])
        edges, sizes = edges[seen], self.sizes_hw[seen]
        margins = _MARGIN * sizes.max(axis=1)
        left, top = (np.maximum(0, -edges[:, i] - margins) for i in (0, 1))
        right = np.minimum(sizes[:, 1], edges[:, 2] + margins)
        bottom = np.minimum(sizes[:, 0], edges[:, 3] + margins)
        heights, widths = np.maximum(1, bottom - top), np.maximum(1, right - left)
        shares = heights * widths / sizes.prod(axis=1)
        return float(np.median(heights)), float(np.median(widths)), float(np.median(shares))


def find_closeup(samples: Sequence[Sample], labels: LabelSpace, side: int) -> Closeup | None:
    """Return the classes that are worth most where a network sees them larger; None without such.

    Args:
        samples: of the data set.
        labels: its classes.
        side: of whole images as networks see them, in pixels.
    """
    shapes = _Shapes(samples, labels)
    longest = float(np.median(shapes.sizes_hw.max(axis=1)))

    def look(names: Sequence[str]) -> tuple[float, Closeup]:
        height, width, share = shapes.crops(names)
        # More pixels than the image has show nothing more.
        zoom = min(math.sqrt(1 / share), longest / side)
        margin = round(_MARGIN * longest)
        found = Closeup(tuple(names), margin, height, width, longest, zoom)
        return shapes.thinness(names, side) * (1 - 1 / max(1.0, zoom)) / len(labels), found

    left = list(shapes.usual)
    best: tuple[float, Closeup] | None = None
    while left:
        worth, found = look(left)
        if found.zoom >= _LEAST_ZOOM and (best is None or worth > best[0]):
            best = worth, found
        # Without which of them is the rest worth most?
        rests = [[name for name in left if name != one] for one in left if len(left) > 1]
        left = max(rests, key=lambda names: look(names)[0], default=[])
    return best[1] if best and best[0] >= _LEAST_WORTH else None
