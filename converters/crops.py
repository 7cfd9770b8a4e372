"""Crops of images around some of their classes, and how large they have to be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import shapely
from shapely.geometry import MultiPolygon, Polygon

from converters.errors import DataError, did_you_mean
from converters.masks import (
    Box,
    CropMask,
    enclose,
    outline,
    rasterize,
    rasterize_labels,
    tight_box,
    whole_pixels,
)
from converters.types import Frame, Instance, LabelSpace, Sample

# Margins are reported for this share of the images too: the worst one may be an outlier.
MOST = 0.95


def crop(
    samples: Sequence[Sample],
    around: Sequence[str],
    margin_px: int,
    labels: LabelSpace,
    *,
    scale: float = 1,
    boxes: Mapping[str, Box] | None = None,
) -> list[Sample]:
    """Return samples that mean only a window of their images; no pixel is read or written.

    The window is the smallest box of the classes' pixels, grown by the margin on all sides and cut
    to the image. At scale 1 the crop's masks are the windows of the original's to the pixel, and
    the outlines are the annotator's. At other scales a pixel's square [x, x + 1) becomes
    [(x - x0) * scale, (x - x0 + 1) * scale): the masks are the windows' pixels, enlarged, and a
    prediction that equals them is right to the pixel in the original.

    Args:
        samples: whole images.
        around: classes, or groups of them, that the window is to hold.
        margin_px: pixels of the original.
        labels: the classes.
        scale: size of the crop's pixels to the original's, at least 1.
        boxes: key -> x, y, width, height to take instead of the objects' own, such as those that
            a first stage found; the images need no annotation then.

    Returns:
        Samples in the same order, with the same key, group and attributes. Instances without a
        pixel in the window are left out.

    Raises:
        DataError: samples that are crops already, or have no such objects (no box), or a box that
            misses the image; all in one error.
        ValueError: an unknown class, a negative margin, or a scale below 1.
    """
    names = chosen_classes(around, labels)
    if margin_px < 0:
        raise ValueError(f"margin: expected 0 pixels or more, found {margin_px}")
    if not 1 <= scale < float("inf"):
        raise ValueError(f"scale: expected 1 or more, found {scale}")
    windows, problems = [], []
    for sample in samples:
        try:
            windows.append(_grown(_box(sample, names, boxes), margin_px, sample))
        except ValueError as error:
            problems.append(f"{sample.key}: {error}")
    if problems:
        raise DataError(f"crop around {', '.join(around)}", problems)
    return [_cut(sample, box, scale) for sample, box in zip(samples, windows, strict=True)]


def chosen_classes(around: Sequence[str], labels: LabelSpace) -> tuple[str, ...]:
    """Return the classes that names of classes and groups mean, in the label space's order.

    Raises:
        ValueError: no name, or one that is neither.
    """
    wanted: set[str] = set()
    for name in around:
        if name not in labels.groups and name not in labels.index:
            groups = ", ".join(labels.groups) or "none"
            raise ValueError(
                f"crop: expected classes of '{labels.name}' or its groups ({groups}), "
                f"found '{name}'{did_you_mean(name, (*labels.groups, *labels.names))}"
            )
        wanted |= set(labels.groups.get(name, (name,)))
    if not wanted:
        raise ValueError("crop: expected at least one class or group, found none")
    return tuple(name for name in labels.names if name in wanted)


def _box(sample: Sample, names: Sequence[str], boxes: Mapping[str, Box] | None) -> Box:
    if sample.frame is not None:
        raise ValueError("expected a whole image, found a crop of one")
    if boxes is not None:
        if sample.key not in boxes:
            raise ValueError("expected a box of this image, found none")
        return boxes[sample.key]
    chosen = [i for i in sample.instances if i.label in names]
    box = enclose(tight_box(rasterize(i.geometry, sample.size_hw)) for i in chosen)
    if not box[2]:
        raise ValueError(
            "expected one of these objects, found none; crop it by a first stage's box"
        )
    return box


def _grown(box: Box, margin: int, sample: Sample) -> Box:
    x0, y0 = max(0, box[0] - margin), max(0, box[1] - margin)
    x1 = min(sample.size_hw[1], box[0] + box[2] + margin)
    y1 = min(sample.size_hw[0], box[1] + box[3] + margin)
    if min(box[2:]) < 1 or x0 >= x1 or y0 >= y1:
        raise ValueError(f"expected a box in {sample.size_hw} (height, width), found {box}")
    return x0, y0, x1 - x0, y1 - y0


# --- one sample


def _cut(sample: Sample, box: Box, scale: float) -> Sample:
    size_hw = max(1, round(box[3] * scale)), max(1, round(box[2] * scale))
    moved = (_move(instance, sample.size_hw, box, size_hw) for instance in sample.instances)
    return replace(
        sample,
        size_hw=size_hw,
        instances=tuple(instance for instance in moved if instance is not None),
        frame=Frame(box, (sample.size_hw[0], sample.size_hw[1]), is_stored=False),
    )


def _move(
    instance: Instance, full_hw: tuple[int, int], box: Box, size_hw: tuple[int, int]
) -> Instance | None:
    mask = rasterize(instance.geometry, full_hw)
    window = mask.window(box)
    if not window.any():
        return None
    if size_hw == (box[3], box[2]):
        return replace(instance, geometry=_shifted(instance.geometry, mask, box), drawn=())
    # Not the scaled outline: it runs through the centres of the boundary's pixels, so that half a
    # pixel all around would be lost, more or less of it as OpenCV rounds halves.
    large = cv2.resize(window, size_hw[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
    return replace(instance, geometry=outline(CropMask(0, 0, large)), drawn=())


def _shifted(geometry: Polygon | MultiPolygon, mask: CropMask, box: Box) -> Any:
    """The geometry whose pixels are exactly the window's."""

    def place(points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        # Just below a half, the difference of two floats may lie on it.
        moved, whole = points - box[:2], whole_pixels(points) - box[:2]
        return np.where(whole_pixels(moved) == whole, moved, whole)

    shifted = shapely.transform(geometry, place)
    window = mask.window(box)
    if (rasterize(shifted, window.shape).full(window.shape) == window).all():
        return shifted
    # OpenCV draws an edge that leaves the image by a pixel's breadth elsewhere.
    return outline(CropMask(0, 0, window))


# --- how large a crop has to be


@dataclass(frozen=True)
class MarginSuggestion:
    """How large crops around some classes have to be; all figures in pixels of the original.

    Attributes:
        around: what the crops are around, as it was asked for.
        images: number of images looked at.
        is_measured: the boxes were given; otherwise they are the objects' own.
        margin_px: smallest margin around the boxes with which no image loses a pixel of them.
        worst: every other class -> margin with which it is whole in every image.
        most: the same in 95 % of the images in which the class occurs.
        window_wh: width and height of the smallest window into which every image's objects fit.
        fixed_xywh: the smallest window that holds them at one place in all images.
    """

    around: tuple[str, ...]
    images: int
    is_measured: bool
    margin_px: int
    worst: Mapping[str, int]
    most: Mapping[str, int]
    window_wh: tuple[int, int]
    fixed_xywh: Box

    def describe(self) -> str:
        """Return a few lines for people."""
        what = ", ".join(self.around)
        source = "the given boxes" if self.is_measured else "the objects' own boxes"
        reason = "" if self.is_measured else " (they hold all pixels by definition)"
        width, height = self.window_wh
        lines = [
            f"crop around {what}, {self.images} images, margins around {source}:",
            f"  {self.margin_px} px lose no pixel of {what}{reason}",
            f"  {width} x {height} px (width x height) is the smallest window for every image",
            "  {2} x {3} px at ({0}, {1}) is the smallest that stays at one place".format(
                *self.fixed_xywh
            ),
        ]
        lines += [
            f"  {self.worst[name]} px keep {name} whole in every image, "
            f"{self.most[name]} px in {MOST:.0%}"
            for name in sorted(self.worst, key=lambda n: self.worst[n])
        ]
        return "\n".join(lines)


def suggest_margin(
    samples: Sequence[Sample],
    around: Sequence[str],
    labels: LabelSpace,
    boxes: Mapping[str, Box] | None = None,
) -> MarginSuggestion:
    """Measure on annotated images how large crops around some classes have to be.

    Args:
        samples: whole, annotated images; those without any of the classes are left out.
        around: classes, or groups of them.
        labels: the classes.
        boxes: key -> x, y, width, height of each image, such as a first stage's; None takes the
            objects' own boxes, which need no margin for the objects themselves.

    Raises:
        DataError: samples that are crops already, or have no box; all in one error.
        ValueError: an unknown class, or no image that has such objects.
    """
    names = chosen_classes(around, labels)
    found = {s.key: _class_boxes(s) for s in samples if s.frame is None}
    problems = [f"{s.key}: expected a whole image, found a crop of one" for s in samples if s.frame]
    truth = {key: enclose(b for n, b in own.items() if n in names) for key, own in found.items()}
    truth = {key: box for key, box in truth.items() if box[2]}
    if boxes is not None:
        problems += [
            f"{key}: expected a box of this image, found none" for key in truth if key not in boxes
        ]
    if problems:
        raise DataError(f"crop around {', '.join(around)}", problems)
    if not truth:
        raise ValueError(f"crop around {', '.join(around)}: expected such objects, found none")
    start = {key: boxes[key] if boxes is not None else box for key, box in truth.items()}
    others: dict[str, list[int]] = {}
    for key, box in start.items():
        for name, own in found[key].items():
            if name not in names:
                others.setdefault(name, []).append(_margin(box, own))
    return MarginSuggestion(
        around=tuple(around),
        images=len(truth),
        is_measured=boxes is not None,
        margin_px=max(_margin(start[key], box) for key, box in truth.items()),
        worst={n: max(others[n]) for n in labels.names if n in others},
        most={
            n: int(np.quantile(others[n], MOST, method="higher"))
            for n in labels.names
            if n in others
        },
        window_wh=(max(b[2] for b in truth.values()), max(b[3] for b in truth.values())),
        fixed_xywh=enclose(truth.values()),
    )


def _class_boxes(sample: Sample) -> dict[str, Box]:
    masks = rasterize_labels(sample.instances, sample.size_hw)
    return {name: tight_box(mask) for name, mask in masks.items() if mask.area}


def _margin(box: Box, inner: Box) -> int:
    """How far a box has to grow on all sides to hold another one."""
    right = inner[0] + inner[2] - box[0] - box[2]
    below = inner[1] + inner[3] - box[1] - box[3]
    return max(0, box[0] - inner[0], box[1] - inner[1], right, below)
