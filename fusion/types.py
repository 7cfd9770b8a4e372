"""What a model says about an image: soft masks and predictions."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import cv2
import numpy as np
import numpy.typing as npt

from converters.display import as_html
from converters.masks import EMPTY, CropMask, crop, enclose, tight_box
from converters.types import Frame, LabelSpace

Kind = Literal["semantic", "instance"]
Box = tuple[float, float, float, float]
Window = tuple[int, int, int, int]


def _log_odds_as_bytes() -> npt.NDArray[np.uint8]:
    p = (np.arange(256) + 0.5) / 256
    z = np.log(p / (1 - p))
    return np.rint(127.5 + 127.5 * z / z[-1]).astype(np.uint8)


def _bytes_of_log_odds() -> npt.NDArray[np.uint8]:
    farthest = math.log(255.5 / 0.5)
    p = 1 / (1 + np.exp(-(np.arange(256) - 127.5) / 127.5 * farthest))
    return np.clip(np.floor(256 * p), 0, 255).astype(np.uint8)


# Log odds as bytes, and back to within two steps; at least 128 stays at least 128. OpenCV enlarges
# bytes faster than floats.
TO_LOG_ODDS, _TO_PROB = _log_odds_as_bytes(), _bytes_of_log_odds()
_BAND = 64  # rows that are interpolated at a time


@dataclass(frozen=True)
class SoftMask:
    """One object's probability, at the resolution of the model, over a box of the image.

    The raster is stretched over the box: its cells tile the box, their values stand at the
    cells' centres, and between them the log odds are linear (beyond the outermost centres
    constant), as they are where a network enlarges its logits: sure probabilities that are
    enlarged themselves give outlines with the grid's steps. Outside the box the probability is 0.

    Attributes:
        box_xywh: the box's left and upper edge, width and height in pixels of the original
            image; pixel (0, 0) covers 0..1, so that a whole image is (0, 0, W, H). Fractions
            are allowed, and so is a box that leaves the image.
        prob: uint8 (rows, cols), 255 = 1.

    Raises:
        ValueError: another dtype, an empty raster, or a box without area.
    """

    box_xywh: Box
    prob: npt.NDArray[np.uint8]

    def __post_init__(self) -> None:
        if self.prob.dtype != np.uint8 or self.prob.ndim != 2 or not self.prob.size:
            found = f"{self.prob.dtype} {self.prob.shape}"
            raise ValueError(f"soft mask: expected a uint8 raster (rows, cols), found {found}")
        x, y, width, height = self.box_xywh
        if not (width > 0 and height > 0 and math.isfinite(x + y + width + height)):
            raise ValueError(f"soft mask: expected a box with area, found {self.box_xywh}")

    def window(self, size_hw: tuple[int, int]) -> Window:
        """Return the whole pixels x, y, w, h that the box touches in an image of that size."""
        x, y, width, height = self.box_xywh
        x0, y0 = max(0, math.floor(x)), max(0, math.floor(y))
        x1, y1 = min(size_hw[1], math.ceil(x + width)), min(size_hw[0], math.ceil(y + height))
        return x0, y0, max(0, x1 - x0), max(0, y1 - y0)

    def render(
        self, window_xywh: Window, out: npt.NDArray[np.uint8] | None = None
    ) -> npt.NDArray[np.uint8]:
        """Return the probability at the pixels of a window of the image.

        Args:
            window_xywh: the window, in whole pixels.
            out: array for the result, uint8 (h, w); a new one where it is None.
        """
        if out is None:
            out = np.empty((window_xywh[3], window_xywh[2]), np.uint8)
        x, y, width, height = inner = self.pixels(window_xywh)
        if inner != tuple(window_xywh):
            out[:] = 0
        if width > 0 and height > 0:
            top, left = y - window_xywh[1], x - window_xywh[0]
            self._enlarge(inner, out[top : top + height, left : left + width])
        return out

    def binary(self, size_hw: tuple[int, int], level: int = 128) -> CropMask:
        """Return the image's pixels whose probability is at least `level` / 255."""
        window = self.pixels((0, 0, size_hw[1], size_hw[0]))
        if window[2] <= 0 or window[3] <= 0:
            return EMPTY
        part = self._cells_around(window)
        if part._lies_on_pixels():
            pixels, least = part._cut(window), level
        else:
            # Log odds keep the order of probabilities: there is no need to go back.
            least = int(np.searchsorted(_TO_PROB, level))
            cells = part._odds_that_may_reach(least)
            if cells is None:
                return EMPTY
            window = cells.pixels(window)
            pixels = cells._stretch(window)
        inner = crop(cv2.threshold(pixels, least - 1, 1, cv2.THRESH_BINARY)[1])
        if not inner.pixels.size:
            return EMPTY
        return CropMask(inner.x + window[0], inner.y + window[1], inner.pixels)

    def pixels(self, window: Window) -> Window:
        """Return x, y, w, h of a window's pixels whose centres lie in the box.

        Width or height is not positive where there are none.
        """
        x, y, width, height = self.box_xywh
        x0 = max(window[0], math.ceil(x - 0.5))
        y0 = max(window[1], math.ceil(y - 0.5))
        x1 = min(window[0] + window[2], math.ceil(x + width - 0.5))
        y1 = min(window[1] + window[3], math.ceil(y + height - 0.5))
        return x0, y0, x1 - x0, y1 - y0

    def _enlarge(self, window: Window, out: npt.NDArray[np.uint8]) -> None:
        part = self._cells_around(window)
        if part._lies_on_pixels():
            out[:] = part._cut(window)
        else:
            odds = SoftMask(part.box_xywh, cv2.LUT(part.prob, TO_LOG_ODDS))
            cv2.LUT(odds._stretch(window), _TO_PROB, out)

    def _stretch(self, window: Window) -> npt.NDArray[np.uint8]:
        if not self._has_whole_box():
            return self._interpolate(window)
        x, y, width, height = map(int, self.box_xywh)
        enlarged = cv2.resize(self.prob, (width, height), interpolation=cv2.INTER_LINEAR)
        top, left = window[1] - y, window[0] - x
        return enlarged[top : top + window[3], left : left + window[2]]

    def _has_whole_box(self) -> bool:
        x, y, width, height = self.box_xywh
        return x % 1 == y % 1 == width % 1 == height % 1 == 0

    def _lies_on_pixels(self) -> bool:
        # One cell a pixel: there is nothing to enlarge.
        return self.prob.shape == (self.box_xywh[3], self.box_xywh[2]) and self._has_whole_box()

    def _cut(self, window: Window) -> npt.NDArray[np.uint8]:
        top, left = window[1] - int(self.box_xywh[1]), window[0] - int(self.box_xywh[0])
        return self.prob[top : top + window[3], left : left + window[2]]

    def _odds_that_may_reach(self, least: int) -> SoftMask | None:
        # Between cells that all stay below, nothing reaches it. A part of the raster gives the
        # very values of the whole where each cell covers whole pixels, and only there.
        odds = cv2.LUT(self.prob, TO_LOG_ODDS)
        rows, cols = odds.shape
        cell_w, cell_h = self.box_xywh[2] / cols, self.box_xywh[3] / rows
        if not (self._has_whole_box() and cell_w.is_integer() and cell_h.is_integer()):
            return SoftMask(self.box_xywh, odds)
        return soft_mask(odds, self.box_xywh, least)

    def _cells_around(self, window: Window) -> SoftMask:
        (x, y, width, height), (rows, cols) = self.box_xywh, self.prob.shape
        right, bottom = window[0] + window[2], window[1] + window[3]
        if window[0] <= x and window[1] <= y and x + width <= right and y + height <= bottom:
            return self
        # One cell more on each side, toward whose centre the outermost pixels slope.
        cell_w, cell_h = width / cols, height / rows
        left = max(0, math.floor((window[0] - x) / cell_w) - 1)
        top = max(0, math.floor((window[1] - y) / cell_h) - 1)
        right = min(cols, math.ceil((right - x) / cell_w) + 1)
        bottom = min(rows, math.ceil((bottom - y) / cell_h) + 1)
        box = (
            x + left * cell_w,
            y + top * cell_h,
            (right - left) * cell_w,
            (bottom - top) * cell_h,
        )
        return SoftMask(box, self.prob[top:bottom, left:right])

    def _interpolate(self, window: Window) -> npt.NDArray[np.uint8]:
        """Stretch to a box with fractions: first along the rows, which are few, then down."""
        (x, y, width, height), (rows, cols) = self.box_xywh, self.prob.shape
        left, right, share = _between(window[0] - x, window[2], cols / width, cols)
        cells = self.prob.astype(np.float32)
        wide = cells.take(left, axis=1)
        wide += share * (cells.take(right, axis=1) - wide)
        slope = np.diff(wide, axis=0, append=wide[-1:])
        above, _, share = _between(window[1] - y, window[3], rows / height, rows)
        out = np.empty((window[3], window[2]), np.uint8)
        # Few rows at a time stay in the processor's cache.
        for start in range(0, window[3], _BAND):
            band = slice(start, start + _BAND)
            values = slope.take(above[band], axis=0)
            values *= share[band, None]
            values += wide.take(above[band], axis=0)
            cv2.convertScaleAbs(values, out[band])
        return out


def _between(
    start: float, count: int, scale: float, cells: int
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], npt.NDArray[np.float32]]:
    """Return the cells before and after each of `count` pixels, and how far it is on the way.

    Args:
        start: of the pixels, from the box's edge.
        count: number of pixels.
        scale: cells a pixel.
        cells: their number; beyond the centre of the outermost one its value holds.
    """
    at = np.clip((np.arange(count) + (start + 0.5)) * scale - 0.5, 0, cells - 1)
    before = at.astype(np.intp)
    return before, np.minimum(before + 1, cells - 1), (at - before).astype(np.float32)


def soft_mask(prob: npt.NDArray[np.uint8], box_xywh: Box, floor: int = 2) -> SoftMask | None:
    """Cut a raster to the cells that say something; None where none does.

    Args:
        prob: uint8 (rows, cols) over the whole box, 255 = 1.
        box_xywh: the box in pixels of the original image.
        floor: cells below it may be dropped where they are outside the box of the others. One
            more row or column than needed is kept, so that the slope to the dropped cells stays.
    """
    x, y, width, height = cv2.boundingRect((prob >= floor).astype(np.uint8))
    if width == 0:
        return None
    rows, cols = prob.shape
    left, top = max(0, x - 1), max(0, y - 1)
    right, bottom = min(cols, x + width + 1), min(rows, y + height + 1)
    cell_w, cell_h = box_xywh[2] / cols, box_xywh[3] / rows
    box = (
        box_xywh[0] + left * cell_w,
        box_xywh[1] + top * cell_h,
        (right - left) * cell_w,
        (bottom - top) * cell_h,
    )
    return SoftMask(box, np.ascontiguousarray(prob[top:bottom, left:right]))


def union_of(masks: Sequence[SoftMask], size_hw: tuple[int, int]) -> SoftMask | None:
    """Return the highest of several probabilities as one mask; None where all leave the image.

    At the image's own pixels nothing is lost: rasters of different cells have no grid in common.
    """
    windows = [mask.window(size_hw) for mask in masks]
    x, y, width, height = enclose(windows)
    if width == 0:
        return None
    joined = np.zeros((height, width), np.uint8)
    for mask, window in zip(masks, windows, strict=True):
        part = (
            slice(window[1] - y, window[1] - y + window[3]),
            slice(window[0] - x, window[0] - x + window[2]),
        )
        if window[2] and window[3]:
            joined[part] = np.maximum(joined[part], mask.render(window))
    return SoftMask((float(x), float(y), float(width), float(height)), joined)


Evidence = tuple[float, SoftMask]
# Below it, a detection is more likely wrong than right, if its score means what it says.
LEAST_SCORE = 0.5


def evidence_at_pixels(window: Window, prob: npt.NDArray[np.uint8]) -> tuple[Evidence, ...]:
    """Wrap a probability at the image's own pixels as a class's only evidence."""
    x, y, width, height = window
    mask = SoftMask((float(x), float(y), float(width), float(height)), prob)
    return ((float(prob.max()) / 255, mask),)


@dataclass(frozen=True)
class Prediction:
    """What one source says about one image.

    Attributes:
        key: the sample's key.
        size_hw: height and width of the original image in pixels.
        kind: `semantic` (one mask a class, from every pixel) or `instance` (detections).
        masks: class name -> (score in 0..1, soft mask), best score first; a class that the
            source does not see is absent.
        classes: the classes that the source speaks of; None means all. A submission with a
            few classes alone says nothing of the others, not that there are none.
        domain_xywh: the window of the image that the source has looked at, in whole pixels; None
            means all of it.

    Raises:
        ValueError: another kind, a size that is not positive, scores outside 0..1 or unsorted, a
            class that the source does not speak of.
    """

    key: str
    size_hw: tuple[int, int]
    kind: Kind
    masks: Mapping[str, tuple[Evidence, ...]]
    classes: frozenset[str] | None = None
    domain_xywh: Window | None = None

    def __post_init__(self) -> None:
        if self.kind not in ("semantic", "instance"):
            raise ValueError(f"{self.key}: expected semantic or instance, found '{self.kind}'")
        if len(self.size_hw) != 2 or min(self.size_hw) < 1:
            raise ValueError(f"{self.key}: expected a positive size, found {self.size_hw}")
        for label, found in self.masks.items():
            scores = [score for score, _ in found]
            if not all(0 <= s <= 1 for s in scores) or scores != sorted(scores, reverse=True):
                raise ValueError(f"{self.key} {label}: expected sorted scores in 0..1: {scores}")
        if self.classes is not None and (foreign := sorted(set(self.masks) - self.classes)):
            raise ValueError(f"{self.key}: expected classes that the source has, found {foreign}")

    def speaks_of(self, label: str) -> bool:
        """Tell whether the source has an opinion on a class, be it that there is none.

        It has none on classes that it does not know. What has looked at a part of the image has
        none either on an object that it did not find there, for that may lie elsewhere, nor on one
        that the part's edge cuts.
        """
        if self.classes is not None and label not in self.classes:
            return False
        if self.domain_xywh is None:
            return True
        x, y, width, height = tight_box(self.binary(label))
        left, top, across, down = self.domain_xywh
        is_cut = (
            (left > 0 and x <= left)
            or (top > 0 and y <= top)
            or (left + across < self.size_hw[1] and x + width >= left + across)
            or (top + down < self.size_hw[0] and y + height >= top + down)
        )
        return width > 0 and not is_cut

    def check_classes(self, labels: LabelSpace) -> None:
        """Make sure that all classes that are seen are those of a label space.

        Raises:
            ValueError: one is not; who asks by name would not find it.
        """
        if unknown := sorted(set(self.masks) - labels.index.keys()):
            raise ValueError(
                f"{self.key}: expected classes of {labels.listed()}, found '{unknown[0]}'"
            )

    def best(self, label: str) -> Evidence | None:
        """Return the class's evidence with the highest score, or None."""
        found = self.masks.get(label, ())
        return found[0] if found else None

    def evidence(self, label: str, once: bool, least_score: float = LEAST_SCORE) -> Evidence | None:
        """Return all that the source has found of a class as one soft mask, or None.

        Args:
            label: the class.
            once: the class occurs once in an image: its evidence is the best detection. Otherwise
                it is the highest probability of all detections, at the image's own pixels.
            least_score: detections below it are left out where a class may occur more than once.

        >>> left, right = (SoftMask((x, 0, 1, 1), np.full((1, 1), 255, np.uint8)) for x in (0, 2))
        >>> seen = Prediction("a", (1, 3), "instance", {"cup": ((0.9, left), (0.5, right))})
        >>> [seen.evidence("cup", once)[1].box_xywh for once in (True, False)]
        [(0, 0, 1, 1), (0.0, 0.0, 3.0, 1.0)]
        """
        if once or self.kind == "semantic":
            return self.best(label)
        found = [(s, mask) for s, mask in self.masks.get(label, ()) if s >= least_score]
        if len(found) < 2:
            return found[0] if found else None
        joined = union_of([mask for _, mask in found], self.size_hw)
        return (found[0][0], joined) if joined else None

    def rows(self) -> Iterator[tuple[str, int, float, SoftMask]]:
        """Yield label, rank, score and mask of every piece of evidence."""
        for label, found in self.masks.items():
            for rank, (score, mask) in enumerate(found):
                yield label, rank, score, mask

    def placed(self, frame: Frame) -> Prediction:
        """Return what a prediction on a crop says about the original that it was cut from.

        Boxes are moved and scaled, rasters stay as they are: nothing is sampled again.

        Args:
            frame: where the crop lies in the original.
        """
        left, top, width, height = frame.box_xywh
        scale_x, scale_y = width / self.size_hw[1], height / self.size_hw[0]

        def move(mask: SoftMask) -> SoftMask:
            x, y, w, h = mask.box_xywh
            box = left + x * scale_x, top + y * scale_y, w * scale_x, h * scale_y
            return SoftMask(box, mask.prob)

        masks = {n: tuple((score, move(m)) for score, m in e) for n, e in self.masks.items()}
        is_whole = frame.box_xywh == (0, 0, frame.full_hw[1], frame.full_hw[0])
        domain = None if is_whole else frame.box_xywh
        return Prediction(self.key, frame.full_hw, self.kind, masks, self.classes, domain)

    def binary(self, label: str, level: int = 128, once: bool = True) -> CropMask:
        """Return the pixels where the class's evidence is at least `level` / 255.

        Args:
            label: the class.
            level: 128 is what a submission holds.
            once: as for `evidence`: whether the best detection counts, or all.
        """
        found = self.evidence(label, once)
        return EMPTY if found is None else found[1].binary(self.size_hw, level)

    def _repr_html_(self) -> str | None:
        """What a notebook shows: the masks, on black; `fusion.show` knows the image, too."""
        return as_html(self)

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """What IPython prints: no rasters."""
        height, width = self.size_hw
        said = f"{self.kind}, {len(self.masks)} classes"
        printer.text(f"Prediction({self.key!r}, {height} x {width}, {said})")


class Rule(Protocol):
    """Fuses what several sources say about one image."""

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of the sources in the order of the predictions; empty takes any."""

    @property
    def is_pixelwise(self) -> bool:
        """Whether it looks at one pixel at a time, so that it need not know an image's size."""

    def innermost(self) -> Rule:
        """Return the rule inside all that is around it; itself where there is nothing."""

    def __call__(self, predictions: Sequence[Prediction], labels: LabelSpace) -> Prediction:
        """Fuse one image's predictions, given in the order of `sources`."""
