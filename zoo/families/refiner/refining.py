"""Whole images: what is fused, with what a network adds to it; needs no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from converters.masks import CropMask, enclose
from converters.types import LabelSpace, Sample
from fusion.arrays import Bytes
from fusion.types import Evidence, Prediction, Rule, Window, soft_mask
from zoo.data.cases import Case
from zoo.data.reading import read_image
from zoo.families.refiner.looks import Look
from zoo.families.refiner.patches import (
    LOG_ODDS,
    PatchSetting,
    Place,
    Planes,
    Tiling,
    cut_image,
    see,
    stack,
    tile,
    to_bytes,
)

Numbers = npt.NDArray[np.int64]
Change = Callable[[Planes, Numbers], Planes]
"""A network: planes, float32 (n, P, h, w), and classes' numbers -> log odds to add, (n, h, w)."""


@dataclass(frozen=True)
class LookCase(Case):
    """An image to mend.

    Attributes:
        look: what there is to look at.
        fused: what is mended.
    """

    look: Look
    fused: Prediction

    @classmethod
    def of(
        cls,
        sample: Sample,
        predictions: Sequence[Prediction],
        rule: Rule,
        labels: LabelSpace,
        setting: PatchSetting,
        truth: Mapping[str, CropMask] | None = None,
    ) -> LookCase:
        """Gather what is said of an image.

        Args:
            sample: the image.
            predictions: one a source, in the rule's order.
            rule: fuses them.
            labels: the classes.
            setting: how it is looked at.
            truth: what is looked at, too, where a network is to learn from it.
        """
        fused = rule(predictions, labels)
        image = read_image(sample, setting.in_channels)
        look = Look.of(image, predictions, fused, labels, setting.detail, truth)
        return cls(sample.key, fused.size_hw, look.image, dict(truth or {}), look, fused)


def mend(
    change: Change, case: LookCase, labels: LabelSpace, setting: PatchSetting, batch: int
) -> Prediction:
    """Return what is fused of an image, with what a network adds.

    Args:
        change: the network.
        case: the image.
        labels: the classes.
        setting: how the network looks at it.
        batch: patches at a time.
    """
    masks = {n: _mend_class(change, case, n, labels, setting, batch) for n in labels.names}
    found = {label: evidence for label, evidence in masks.items() if evidence}
    return Prediction(case.key, case.size_hw, "semantic", found, case.fused.classes)


def _mend_class(
    change: Change,
    case: LookCase,
    label: str,
    labels: LabelSpace,
    setting: PatchSetting,
    batch: int,
) -> tuple[Evidence, ...]:
    look, fused = case.look, case.fused.evidence(label, labels.once)
    window = (0, 0, 0, 0) if fused is None else fused[1].window(case.size_hw)
    tiling = None
    if label in look.classes:
        tiling = tile(look.classes[label].outline_px, look.cell_px, setting)
        window = enclose([_window(tiling, case.size_hw), window])
    if not (window[2] and window[3]):
        return ()
    # At the image's own pixels, mended or not: the mean of several runs needs one grid.
    prob = np.zeros(window[:1:-1], np.uint8) if fused is None else fused[1].render(window)
    if tiling is not None:
        number, places, found = labels.index[label], tiling.places(), []
        for start in range(0, len(places), batch):
            planes = [_planes(look, label, place, setting) for place in places[start:][:batch]]
            found.append(change(np.stack(planes), np.full(len(planes), number, np.int64)))
        prob = to_bytes(LOG_ODDS[prob] + tiling.join(np.concatenate(found), window))
    return _evidence(window, prob)


def _planes(look: Look, label: str, place: Place, setting: PatchSetting) -> Planes:
    image = cut_image(look, place) if "image" in setting.inputs else None
    return stack(see(look, label, place), image, setting.inputs)


def _evidence(window: Window, prob: Bytes) -> tuple[Evidence, ...]:
    x, y, width, height = map(float, window)
    mask = soft_mask(prob, (x, y, width, height))
    return () if mask is None else ((float(mask.prob.max()) / 255, mask),)


def _window(tiling: Tiling, size_hw: tuple[int, int]) -> Window:
    """Return the image's pixels that patches touch."""
    (x, y), cell = tiling.origin_xy, tiling.cell_px
    top, left = tiling.corners.min(0) * cell
    bottom, right = (tiling.corners.max(0) + np.array(tiling.size_hw)) * cell
    x0, y0 = max(int(np.floor(x + left)), 0), max(int(np.floor(y + top)), 0)
    x1 = min(int(np.ceil(x + right)), size_hw[1])
    y1 = min(int(np.ceil(y + bottom)), size_hw[0])
    return x0, y0, max(x1 - x0, 0), max(y1 - y0, 0)
