"""Which parts of an image a network learns from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from converters.files.images import Pixels
from converters.masks import Box, CropMask
from converters.types import LabelSpace
from zoo.augmentation.layout import class_numbers
from zoo.data.area_targets import AreaMask
from zoo.data.bits import BitMask, window_shares
from zoo.data.stores import StoredSample

SHARED = "shared"
# How far the middle of a window may lie from the pixel it is drawn around, in window sides.
_JITTER = 0.25
_HALF = 128


@dataclass(frozen=True)
class Windows:
    """How windows are drawn.

    A window is drawn around a pixel. With the share that `focus` gives a class or a group this is
    a pixel of it: of a class of the group that the image has, all of them equally often, then any
    of its pixels; with the share of `shared`, a pixel that two or more classes have. Where the
    image has no such pixel, and with the remaining share, it is any pixel of the image. A window
    around a pixel of a class has its middle up to a quarter of its sides away from it. A window
    that would leave the image is pushed inside: windows at the edges come as often as their pixels
    do, instead of hardly ever.

    What is cut out is larger by `margin` on each side, and the window is the middle of it when it
    has been augmented: what a rotation or a smaller scale brings in is the image's own. It is black
    only beyond the image, as everywhere. Augmentation takes longer, in proportion to the area.

    Attributes:
        size_hw: of a window.
        labels: the classes.
        focus: class, group or `shared` -> the share of windows that are drawn around it.
        per_image: how many an epoch takes from each image.
        margin: in window sides.

    Raises:
        ValueError: an unknown name in `focus`, shares that are negative or more than 1 together, or
            another number that makes no sense.
    """

    size_hw: tuple[int, int]
    labels: LabelSpace
    focus: Mapping[str, float] = field(default_factory=dict)
    per_image: int = 1
    margin: float = 0.125
    _classes: Mapping[str, frozenset[int]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if min(self.size_hw) < 1:
            raise ValueError(f"window: expected a positive height and width, found {self.size_hw}")
        if self.per_image < 1:
            raise ValueError(f"windows_per_image: expected at least 1, found {self.per_image}")
        if not 0 <= self.margin <= 1:
            raise ValueError(f"window margin: expected 0 to 1, found {self.margin}")
        shares = list(self.focus.values())
        if not all(0 <= share <= 1 for share in shares) or sum(shares) > 1 + 1e-9:
            raise ValueError(
                f"focus: expected shares of at least 0 and at most 1 together, found {shares}"
            )
        classes = {}
        for name in self.focus:
            if name != SHARED or SHARED in self.labels.groups or SHARED in self.labels.index:
                try:
                    classes[name] = class_numbers([name], self.labels)
                except ValueError as error:
                    raise ValueError(f"focus: {error}; or '{SHARED}'") from None
        object.__setattr__(self, "_classes", classes)

    def draw_kind(self, generator: np.random.Generator) -> str | None:
        """Draw what a window lies around: a name of `focus`, or None for any pixel."""
        names: list[str | None] = [*self.focus, None]
        limits = np.cumsum(list(self.focus.values()))
        return names[int(np.searchsorted(limits, generator.random(), side="right"))]

    def draw(
        self, mask: BitMask | AreaMask, kind: str | None, generator: np.random.Generator
    ) -> Box:
        """Draw a window, x, y, w, h, inside an image.

        Args:
            mask: of the image.
            kind: as `draw_kind` gives it.
            generator: decides.
        """
        pixel = self._pixel(mask, kind, generator)
        shift = (generator.random(2) * 2 - 1) * _JITTER
        if pixel is None:
            pixel, shift = generator.random(2) * mask.size_hw, np.zeros(2)
        corner = np.rint(pixel + (shift - 0.5) * self.size_hw)
        y, x = np.clip(corner, 0, np.subtract(mask.size_hw, self.size_hw)).astype(int).tolist()
        return x, y, self.size_hw[1], self.size_hw[0]

    def _pixel(
        self, mask: BitMask | AreaMask, kind: str | None, generator: np.random.Generator
    ) -> npt.NDArray[np.float64] | None:
        """Draw a pixel, row and column, of what a window lies around."""
        if kind is None:
            return None
        if kind in self._classes:
            found = [crop for c, crop in _crops(mask) if c in self._classes[kind] and crop.area]
            if not found:
                return None
            crop = found[int(generator.integers(len(found)))]
        else:
            crop = _shared(mask)
        places = np.flatnonzero(crop.pixels)
        if not len(places):
            return None
        place = int(places[generator.integers(len(places))])
        row, column = divmod(place, crop.pixels.shape[1])
        return np.array([crop.y + row, crop.x + column], np.float64)

    def margins(self, image_hw: tuple[int, int]) -> tuple[int, int]:
        """Return how many rows and columns more are cut out on each side of a window.

        None where a window is as long as the image: there is nothing more to see.
        """
        high, wide = (
            min(round(self.margin * side), whole - side)
            for side, whole in zip(self.size_hw, image_hw, strict=True)
        )
        return high, wide

    def cut(self, kept: StoredSample, box_xywh: Box) -> tuple[Pixels, Pixels]:
        """Return a window and its margins of a sample: image, uint8 (h, w, ...), and mask.

        The mask is uint8 (h, w, B), bits; or (h, w, C), shares.
        """
        rows, columns = self.margins(kept.mask.size_hw)
        x, y, width, height = box_xywh
        box = x - columns, y - rows, width + 2 * columns, height + 2 * rows
        mask = kept.mask
        part = mask.window(box) if isinstance(mask, BitMask) else window_shares(mask, box)
        return cut_image(kept.image, box), part

    def middle(self, pixels: Pixels, image_hw: tuple[int, int]) -> Pixels:
        """Return what is left of a cut-out without its margins; (h, w, ...)."""
        rows, columns = self.margins(image_hw)
        height, width = self.size_hw
        return pixels[rows : rows + height, columns : columns + width]


def cut_image(image: Pixels, box_xywh: Box) -> Pixels:
    """Return a box of an image, uint8 (h, w) or (h, w, 3); black beyond it."""
    x, y, width, height = box_xywh
    part = np.zeros((height, width, *image.shape[2:]), np.uint8)
    top, left = max(y, 0), max(x, 0)
    inner = image[top : max(y + height, 0), left : max(x + width, 0)]
    part[top - y : top - y + inner.shape[0], left - x : left - x + inner.shape[1]] = inner
    return part


def _crops(mask: BitMask | AreaMask) -> Iterator[tuple[int, CropMask]]:
    """The classes of a mask; a pixel that is covered by half or more counts."""
    if isinstance(mask, BitMask):
        yield from mask.crops()
        return
    for number, x, y, shares in mask.parts:
        yield number, CropMask(x, y, (shares >= _HALF).astype(np.uint8))


def _shared(mask: BitMask | AreaMask) -> CropMask:
    """The pixels that two or more classes have."""
    counts = np.zeros(mask.size_hw, np.uint8)
    for _, crop in _crops(mask):
        height, width = crop.pixels.shape
        counts[crop.y : crop.y + height, crop.x : crop.x + width] += crop.pixels
    return CropMask(0, 0, (counts >= 2).astype(np.uint8))
