"""What a conversion lost: the pixels of a sample before it and after it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import cv2
import numpy as np

from converters.masks import EMPTY, CropMask, class_masks, rasterize, rasterize_labels, union_box
from converters.types import LabelSpace, Sample


@dataclass(frozen=True)
class ConversionLoss:
    """What a format could not hold, summed over samples; add two of them to join their sums.

    Attributes:
        samples: number of samples measured.
        images: label -> number of images in which it occurs.
        missing: label -> sum of 1 - Dice over those images; only labels that lost something.
        holes: holes that were filled.
        parts: parts that were joined to another one, or lost.
        shared_px: pixels of two or more labels that lost at least one of them.
        objects: objects that were joined with others of their class.
        masks: the masks that were made of them.
        changed: samples that lost something.
    """

    samples: int = 0
    images: Mapping[str, int] = field(default_factory=dict)
    missing: Mapping[str, float] = field(default_factory=dict)
    holes: int = 0
    parts: int = 0
    shared_px: int = 0
    objects: int = 0
    masks: int = 0
    changed: int = 0

    def __post_init__(self) -> None:
        if self.samples == 1:
            object.__setattr__(self, "changed", int(bool(self)))

    @property
    def dice(self) -> dict[str, float]:
        """Mean Dice between before and after, of the labels that lost something."""
        return {label: 1 - lost / self.images[label] for label, lost in self.missing.items()}

    @property
    def ceiling(self) -> float:
        """Mean Dice between before and after over all labels that occur; 1 where nothing was."""
        return 1 - sum(1 - dice for dice in self.dice.values()) / max(1, len(self.images))

    def __bool__(self) -> bool:
        return bool(self.missing or self.holes or self.parts or self.shared_px or self.objects)

    def __add__(self, other: ConversionLoss) -> ConversionLoss:
        images = {k: self.images.get(k, 0) + n for k, n in other.images.items()}
        missing = {k: self.missing.get(k, 0.0) + x for k, x in other.missing.items()}
        return ConversionLoss(
            self.samples + other.samples,
            {**self.images, **images},
            {**self.missing, **missing},
            self.holes + other.holes,
            self.parts + other.parts,
            self.shared_px + other.shared_px,
            self.objects + other.objects,
            self.masks + other.masks,
            self.changed + other.changed,
        )

    def describe(self) -> str:
        """Return a few lines for people; "" where nothing was lost."""
        if not self:
            return ""
        counts = {
            "holes filled": self.holes,
            "parts joined": self.parts,
            "pixels that lost one of several labels": self.shared_px,
            f"objects joined with others of their class into {self.masks} masks": self.objects,
        }
        found = ", ".join(f"{n} {what}" for what, n in counts.items() if n) or "pixels at outlines"
        lines = [f"lost in {self.changed} of {self.samples} images: {found}"]
        if self.missing:
            worst = sorted(self.dice.items(), key=lambda item: item[1])
            lines += [f"  {label}: mean Dice {dice:.5f}" for label, dice in worst]
            lines.append(
                f"  all {len(self.images)} classes: mean Dice {self.ceiling:.5f}: the most that a "
                "model can score that learns this without error"
            )
        return "\n".join(lines)


def lossless(sample: Sample) -> ConversionLoss:
    """Return the record of a sample that was converted to the pixel."""
    return ConversionLoss(1, dict.fromkeys(sample.labels, 1))


def joined_objects(sample: Sample, labels: LabelSpace) -> ConversionLoss:
    """Return what a sample loses to the pixel-exact masks of its classes: which object is which.

    Where every class occurs once, all that has its label is one object.

    Args:
        sample: as it was before the conversion.
        labels: the classes.
    """
    kept = lossless(sample)
    occurring = Counter(sample.labels)
    several = {label for label, times in occurring.items() if times > 1 and not labels.once}
    drawn = Counter(
        instance.label
        for instance in sample.instances
        if instance.label in several and rasterize(instance.geometry, sample.size_hw).area
    )
    joined = [times for times in drawn.values() if times > 1]
    return replace(kept, objects=sum(joined), masks=len(joined))


def measure(
    sample: Sample, masks_back: Mapping[str, CropMask], labels: LabelSpace | None = None
) -> ConversionLoss:
    """Compare a sample with what a format gives back.

    Args:
        sample: as it was before the conversion.
        masks_back: label -> mask in the sample's frame; a missing label is an empty mask.
        labels: the classes, where what a pixel means depends on them (`LabelSpace.exclusive`).
    """
    if labels is None:
        truth = rasterize_labels(sample.instances, sample.size_hw)
    else:
        truth = class_masks(sample.instances, sample.size_hw, labels, with_background=False)
    missing: dict[str, float] = {}
    holes = parts = 0
    for label, mask in truth.items():
        back = masks_back.get(label, EMPTY)
        if (dice := _dice(mask, back)) == 1:
            continue
        missing[label] = 1 - dice
        before, after = _topology(mask), _topology(back)
        parts += max(0, before[0] - after[0])
        holes += max(0, before[1] - after[1])
    shared_px = _shared_lost(truth, masks_back) if missing else 0
    return ConversionLoss(1, dict.fromkeys(truth, 1), missing, holes, parts, shared_px)


def _dice(a: CropMask, b: CropMask) -> float:
    total = a.area + b.area
    common = cv2.countNonZero(a.window(b.box_xywh) & b.pixels) if a.area and b.area else 0
    return 2 * common / total if total else 1.0


def _topology(mask: CropMask) -> tuple[int, int]:
    """Number of parts (8-connected) and of holes (4-connected)."""
    if not mask.area:
        return 0, 0
    _, tree = cv2.findContours(mask.pixels, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    outer = int((tree[0, :, 3] < 0).sum())
    return outer, len(tree[0]) - outer


def _shared_lost(truth: Mapping[str, CropMask], back: Mapping[str, CropMask]) -> int:
    box = union_box(truth.values())
    covering = np.zeros((box[3], box[2]), np.uint16)
    lost = np.zeros((box[3], box[2]), np.bool_)
    for label, mask in truth.items():
        before = mask.window(box)
        covering += before
        lost |= before > back.get(label, EMPTY).window(box)
    return int(((covering > 1) & lost).sum())
