"""What may be done to a prediction after its fusion: threshold, outline, parts, holes, CRF.

Classes are refined one by one, on crops, so that they overlap afterwards as they did before.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cache, lru_cache
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from converters.types import LabelSpace
from fusion.arrays import Bytes
from fusion.rules.base import WrappedRule
from fusion.rules.crf import DenseCrf
from fusion.types import Evidence, Prediction, SoftMask, Window, evidence_at_pixels, soft_mask

ReadGrey = Callable[[str], Bytes | None]
"""From an image's key to its grey values, uint8 (H, W), or None where there are none."""
_INSIDE = 128
# Cells of less than a hundredth change no outline, but would make a class's crop the whole image.
_FAINTEST = 3
# A Gaussian has no weight to speak of beyond so many standard deviations.
_DEVIATIONS = 4.0
_WHOLE = 256  # the sum of a Gaussian's weights


@dataclass(frozen=True)
class Steps:
    """What is done to one class, in the order of the attributes; by default nothing.

    Lengths are shares of sqrt(H * W), so that they mean the same in images of all sizes; below
    half a pixel they do nothing. A step that would leave no pixel of an object is not taken.

    Attributes:
        crf: draws the outline to where the grey values change; None leaves it out.
        smooth: standard deviation of a Gaussian over the probability.
        threshold: probability from which a pixel is inside; becomes one half in the result.
        opening: radius of a disc; what is narrower than it is cut off.
        closing: radius of a disc; gaps that are narrower than it are filled.
        parts: parts of less than this share of the largest one are left out; 1 keeps only the
            largest one, and others that are as large.
        holes: holes of at most this share of the object's area are filled; `.inf` fills all.

    Raises:
        ValueError: a value out of its range.
    """

    crf: DenseCrf | None = None
    smooth: float = 0.0
    threshold: float = 0.5
    opening: float = 0.0
    closing: float = 0.0
    parts: float = 0.0
    holes: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.threshold < 1:
            raise ValueError(f"'threshold': expected more than 0, less than 1: {self.threshold}")
        for name, most in (("smooth", 0.1), ("opening", 0.1), ("closing", 0.1), ("parts", 1)):
            if not 0 <= (value := getattr(self, name)) <= most:
                raise ValueError(f"'{name}': expected a share from 0 to {most}, found {value}")
        if not self.holes >= 0:
            raise ValueError(f"'holes': expected a share from 0 on, found {self.holes}")

    @property
    def is_off(self) -> bool:
        """Whether nothing is done."""
        return self == Steps()

    @property
    def chosen(self) -> dict[str, Any]:
        """The steps that are not left at their default, by attribute, in order."""
        own = {field.name: (getattr(self, field.name), field.default) for field in fields(self)}
        return {name: value for name, (value, default) in own.items() if value != default}

    def margin_px(self, side_px: float) -> int:
        """Return how far around a crop pixels matter, given sqrt(H * W)."""
        crf = 2 * self.crf.reach if self.crf else 0.0
        far = max(crf, _DEVIATIONS * self.smooth) + self.opening + 2 * self.closing
        return math.ceil(far * side_px) + 1

    def __call__(self, prob: Bytes, side_px: float, image: Bytes | None = None) -> Bytes:
        """Return a class's refined probability.

        See `inside` for where it is at least one half, in less time.

        Args:
            prob: uint8 (h, w), 255 = 1, at the image's pixels in a window that has `margin_px`
                around the object, or reaches the image's border.
            side_px: sqrt(H * W) of the whole image.
            image: grey uint8 (h, w) of the window; needed for the CRF alone.

        Returns:
            uint8 (h, w); at least 128 is inside.

        Raises:
            ValueError: a CRF without an image.
        """
        out = self._shade(prob, side_px, image)
        mask = self._reshape((out >= _INSIDE).astype(np.uint8), side_px)
        if not mask.any():
            return out
        return np.where(mask, np.maximum(out, _INSIDE), np.minimum(out, _INSIDE - 1))

    def inside(self, prob: Bytes, side_px: float, image: Bytes | None = None) -> Bytes:
        """Return where the refined probability is at least 128, uint8 (h, w), 0 or 1.

        Args:
            prob: as for a call, like all others.
            side_px: sqrt(H * W) of the whole image.
            image: grey uint8 (h, w) of the window; needed for the CRF alone.
        """
        out = self._shade(prob, side_px, image)
        return self._reshape((out >= _INSIDE).astype(np.uint8), side_px)

    def _shade(self, prob: Bytes, side_px: float, image: Bytes | None) -> Bytes:
        """The steps that change probabilities."""
        out = _unless_gone(prob, self._redraw(prob, side_px, image))
        sigma_px = self.smooth * side_px
        if sigma_px >= 0.5:
            out = _unless_gone(out, blur(out, sigma_px))
        return _unless_gone(out, _shift(out, self.threshold))

    def _redraw(self, prob: Bytes, side_px: float, image: Bytes | None) -> Bytes:
        if self.crf is None:
            return prob
        if image is None:
            raise ValueError("crf: expected the image's grey values, found none")
        return self.crf(prob, image, side_px)

    def _reshape(self, before: Bytes, side_px: float) -> Bytes:
        """The steps that know inside and outside only."""
        if not before.any():
            return before
        mask = _morph(before, cv2.MORPH_OPEN, self.opening * side_px)
        mask = _morph(mask if mask.any() else before, cv2.MORPH_CLOSE, self.closing * side_px)
        mask = drop_parts(mask, self.parts) if self.parts else mask
        return fill_holes(mask, self.holes) if self.holes else mask


@dataclass(frozen=True)
class Refine:
    """Refines predictions: what is done to all classes, to groups, and to single classes.

    The most special entry that there is counts, as a whole. Of several detections of a class the
    best is refined, the others stay as they are.

    Attributes:
        all: for classes without another entry.
        groups: name of a group -> what is done to its classes.
        classes: name of a class -> what is done to it.
    """

    all: Steps = Steps()
    groups: Mapping[str, Steps] = field(default_factory=dict)
    classes: Mapping[str, Steps] = field(default_factory=dict)

    @property
    def needs_image(self) -> bool:
        """Whether there is a CRF, which looks at grey values."""
        chosen = (self.all, *self.groups.values(), *self.classes.values())
        return any(steps.crf is not None for steps in chosen)

    def steps(self, label: str, labels: LabelSpace) -> Steps:
        """Return what is done to a class."""
        group = labels.group_of(label)
        fallback = self.groups.get(group, self.all) if group else self.all
        return self.classes.get(label, fallback)

    def __call__(
        self, prediction: Prediction, labels: LabelSpace, image: Bytes | None = None
    ) -> Prediction:
        """Return the refined prediction; the very same one where nothing is to be done.

        Args:
            prediction: of one image.
            labels: the classes.
            image: grey uint8 (H, W); needed for the CRF alone.

        Raises:
            ValueError: a class or group that the label space does not have, no image for a CRF,
                or one of another size.
        """
        self._check(prediction, labels, image)
        masks = dict(prediction.masks)
        for label, found in prediction.masks.items():
            steps = self.steps(label, labels)
            if found and not steps.is_off:
                masks[label] = _refined(found, steps, prediction.size_hw, image)
        same = all(masks[label] is found for label, found in prediction.masks.items())
        return prediction if same else replace(prediction, masks=masks)

    def _check(self, prediction: Prediction, labels: LabelSpace, image: Bytes | None) -> None:
        unknown = sorted(set(self.classes) - set(labels.names))
        unknown += sorted(set(self.groups) - set(labels.groups))
        if unknown:
            expected = f"classes and groups of '{labels.name}'"
            raise ValueError(f"refine: expected {expected}, found '{unknown[0]}'")
        if not self.needs_image:
            return
        found = "none" if image is None else f"{image.dtype} {image.shape}"
        if image is None or image.shape != prediction.size_hw or image.dtype != np.uint8:
            expected = f"the image in grey, uint8 {prediction.size_hw}"
            raise ValueError(f"{prediction.key}: refine: crf: expected {expected}, found {found}")


@dataclass(frozen=True)
class Refined(WrappedRule):
    """A rule whose result is refined.

    Attributes:
        rule: fuses.
        refine: refines what was fused.
        read_grey: reads an image by its key; called only where there is a CRF.
    """

    refine: Refine
    read_grey: ReadGrey | None = field(default=None, compare=False, repr=False)

    def __call__(self, predictions: Sequence[Prediction], labels: LabelSpace) -> Prediction:
        """Fuse one image's predictions, and refine the result.

        Raises:
            ValueError: as the rule and `Refine`.
        """
        fused = self.rule(predictions, labels)
        is_wanted = self.refine.needs_image and self.read_grey is not None
        image = self.read_grey(fused.key) if is_wanted and self.read_grey else None
        return self.refine(fused, labels, image)


# --- steps on a raster


def _unless_gone(before: Bytes, after: Bytes) -> Bytes:
    """What a step has made of an object, or the object as it was where nothing is left of it."""
    if after is before:
        return before
    is_gone = int(after.max(initial=0)) < _INSIDE <= int(before.max(initial=0))
    return before if is_gone else after


def blur(prob: Bytes, sigma_px: float) -> Bytes:
    """Return what `cv2.GaussianBlur` makes of bytes, to the bit, in a fraction of its time.

    It weighs bytes by whole numbers that come to 256 in a row, and so in a column. Sums of these
    stay below 2 ** 24, so that floats hold them exactly, and OpenCV filters floats faster.

    Args:
        prob: uint8 (h, w); beyond the border its outermost pixels go on.
        sigma_px: standard deviation, at least half a pixel.
    """
    weights = _gaussian(sigma_px)
    sums = cv2.sepFilter2D(prob, cv2.CV_32F, weights, weights, borderType=cv2.BORDER_REPLICATE)
    sums += _WHOLE * _WHOLE // 2
    sums *= 1 / (_WHOLE * _WHOLE)
    return sums.astype(np.uint8)


@lru_cache(maxsize=64)
def _gaussian(sigma_px: float) -> npt.NDArray[np.float32]:
    """Return the weights with which OpenCV blurs bytes, in steps of 1 / 256: float32 (n,)."""
    # It makes them of a line of 255, but for the middle one where it is large and loses a step.
    middle = math.ceil(_DEVIATIONS * sigma_px) + 1
    line = np.zeros((3, 2 * middle + 1), np.uint8)
    line[:, middle] = 255
    blurred = cv2.GaussianBlur(line, (0, 0), sigma_px, borderType=cv2.BORDER_REPLICATE)
    weights = blurred[1].astype(np.float32)
    weights[middle] += _WHOLE - weights.sum()
    used = np.flatnonzero(weights)
    return weights[used[0] : used[-1] + 1]


def drop_parts(mask: Bytes, share: float) -> Bytes:
    """Return a mask (h, w), 0 or 1, without parts of less than a share of the largest one.

    Pixels that touch at a corner belong together.
    """
    count, numbers, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    areas = stats[:, cv2.CC_STAT_AREA]
    if count < 2:
        return mask
    keep = areas >= share * areas[1:].max()
    keep[0] = False
    return np.asarray(keep[numbers], np.uint8)


def fill_holes(mask: Bytes, share: float) -> Bytes:
    """Return a mask (h, w), 0 or 1, with holes filled of at most a share of its area.

    A hole is what cannot leave the mask by steps along rows and columns; what lies open at the
    window's border is none.
    """
    outside = cv2.copyMakeBorder(1 - mask, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=1)
    _, numbers, stats, _ = cv2.connectedComponentsWithStats(outside, connectivity=4)
    fill = stats[:, cv2.CC_STAT_AREA] <= share * cv2.countNonZero(mask)
    fill[[0, numbers[0, 0]]] = False
    return mask | np.asarray(fill[numbers[1:-1, 1:-1]], np.uint8)


def _morph(mask: Bytes, operation: int, radius_px: float) -> Bytes:
    reach = round(radius_px)
    if reach < 1:
        return mask
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    wide = 2 * reach
    # Neither cuts or fills anything beyond the object's box; the pixels around it tell the border.
    box = _box_around(mask)
    # Beyond the image the object goes on as it is at the border: neither eats it nor adds to it.
    framed = cv2.copyMakeBorder(mask[box], wide, wide, wide, wide, cv2.BORDER_REPLICATE)
    done = np.zeros_like(mask)
    done[box] = cv2.morphologyEx(framed, operation, kernel)[wide:-wide, wide:-wide]
    return done


def _box_around(mask: Bytes) -> tuple[slice, slice]:
    """Return the place of a mask's pixels (h, w), and of one more on each side."""
    x, y, width, height = cv2.boundingRect(mask)
    return slice(max(0, y - 1), y + height + 1), slice(max(0, x - 1), x + width + 1)


def _shift(prob: Bytes, threshold: float) -> Bytes:
    """Move log odds so that the threshold comes to lie at one half."""
    if threshold == 0.5:
        return prob
    return cv2.LUT(prob, _shifted(threshold)) if prob.size else prob


@cache
def _shifted(threshold: float) -> Bytes:
    """What becomes of the 256 byte values, uint8 (256,)."""
    values = np.clip(np.arange(256) / 255, 1e-6, 1 - 1e-6)
    odds = np.log(values / (1 - values)) - math.log(threshold / (1 - threshold))
    table = np.rint(255 / (1 + np.exp(-odds))).astype(np.uint8)
    is_inside = np.arange(256) >= 255 * threshold
    table[is_inside] = np.maximum(table[is_inside], _INSIDE)
    table[~is_inside] = np.minimum(table[~is_inside], _INSIDE - 1)
    return table


# --- crops


def work_window(mask: SoftMask, margin_px: int, size_hw: tuple[int, int]) -> Window:
    """Return the window of the image in which a mask says something, with a margin around it.

    All zero where it says nothing in the image.
    """
    part = soft_mask(mask.prob, mask.box_xywh, _FAINTEST)
    x, y, width, height = part.window(size_hw) if part else (0, 0, 0, 0)
    if not (width and height):
        return 0, 0, 0, 0
    x0, y0 = max(0, x - margin_px), max(0, y - margin_px)
    x1, y1 = min(size_hw[1], x + width + margin_px), min(size_hw[0], y + height + margin_px)
    return x0, y0, x1 - x0, y1 - y0


def cut(image: Bytes | None, window: Window) -> Bytes | None:
    """Return a window of an image, contiguous; None without an image."""
    x, y, width, height = window
    return None if image is None else np.ascontiguousarray(image[y : y + height, x : x + width])


def _refined(
    found: tuple[Evidence, ...], steps: Steps, size_hw: tuple[int, int], image: Bytes | None
) -> tuple[Evidence, ...]:
    """The best evidence refined, the others as they are."""
    (score, mask), *others = found
    side_px = math.sqrt(size_hw[0] * size_hw[1])
    window = work_window(mask, steps.margin_px(side_px), size_hw)
    if not window[2]:
        return found
    prob = steps(mask.render(window), side_px, cut(image, window))
    x, y, width, height = map(float, window)
    kept = soft_mask(prob, (x, y, width, height), _FAINTEST)
    return ((score, kept), *others) if kept else found


def confidence(prediction: Prediction, label: str) -> float:
    """Return the mean probability inside a class's mask, in 0..1; 0 where the mask is empty.

    Inside is what a submission would call the object: a probability of at least one half. The mask
    of a hard vote has confidence 1.
    """
    best = prediction.best(label)
    if best is None:
        return 0.0
    window = best[1].window(prediction.size_hw)
    prob = best[1].render(window)
    inside = prob[prob >= _INSIDE]
    return float(inside.mean()) / 255 if inside.size else 0.0


def drop_uncertain(
    prediction: Prediction, floor: float, once: bool = True
) -> tuple[Prediction, tuple[str, ...]]:
    """Return the prediction without the objects below a confidence, and their classes.

    An object whose mask is empty is none: it is neither kept nor counted.

    Args:
        prediction: of one image.
        floor: the least confidence of what is kept.
        once: each class occurs once in an image: all of its mask is one object. Otherwise each
            connected part (8 neighbours) is, and a class comes as often as parts of it are dropped.
    """
    if not once:
        return _drop_parts(prediction, floor)
    known = {label: confidence(prediction, label) for label in prediction.masks}
    kept = {n: e for n, e in prediction.masks.items() if known[n] >= floor and known[n] > 0}
    dropped = tuple(label for label, value in known.items() if 0 < value < floor)
    return replace(prediction, masks=kept), dropped


def _drop_parts(prediction: Prediction, floor: float) -> tuple[Prediction, tuple[str, ...]]:
    kept: dict[str, tuple[Evidence, ...]] = {}
    dropped: list[str] = []
    for label in prediction.masks:
        found = prediction.evidence(label, once=False)
        window = found[1].window(prediction.size_hw) if found else (0, 0, 0, 0)
        if found is None or not (window[2] and window[3]):
            continue
        prob = found[1].render(window)
        parts, number_of = cv2.connectedComponents((prob >= _INSIDE).astype(np.uint8))
        sums = np.bincount(number_of.ravel(), prob.ravel(), parts)[1:]
        means = sums / np.bincount(number_of.ravel(), minlength=parts)[1:] / 255
        unsure = 1 + np.flatnonzero(means < floor)
        dropped += [label] * len(unsure)
        if len(unsure) == parts - 1:
            continue
        # As it was, where nothing is dropped: finer or coarser than pixels.
        kept[label] = prediction.masks[label]
        if len(unsure):
            prob[np.isin(number_of, unsure)] = 0
            kept[label] = evidence_at_pixels(window, prob)
    return replace(prediction, masks=kept), tuple(dropped)
