"""Whole images: what is fused, with what the network adds to it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from converters.masks import enclose
from converters.types import LabelSpace, Sample
from fusion.arrays import Bytes
from fusion.metrics.annotated import truth_masks
from fusion.types import Evidence, Prediction, Rule, Window, soft_mask
from zoo.data.cases import Case
from zoo.data.reading import NetworkInput, read_image
from zoo.families.refiner.config import RefinerConfig
from zoo.families.refiner.looks import Look
from zoo.families.refiner.network import Refiner
from zoo.families.refiner.patches import (
    LOG_ODDS,
    Planes,
    Tiling,
    cut_image,
    see,
    stack,
    tile,
    to_bytes,
)
from zoo.families.refiner.start import Sources, Start
from zoo.inference.setting import Setting
from zoo.machine.devices import autocast


@dataclass(frozen=True)
class LookCase(Case):
    """An image to mend.

    Attributes:
        look: what there is to look at.
        fused: what is mended.
    """

    look: Look
    fused: Prediction


def read_cases(
    samples: Sequence[Sample],
    sources: Sources,
    rules: Start | Rule,
    config: RefinerConfig,
    labels: LabelSpace,
    with_truth: bool,
) -> Iterator[LookCase]:
    """Yield images with what is said of them, one in memory at a time.

    Args:
        samples: which.
        sources: what is said.
        rules: what fuses it: the same rule for all, or one a patient that has not seen them.
        config: how they are looked at.
        labels: the classes.
        with_truth: whether their truth is looked at, too.
    """
    keys = [sample.key for sample in samples]
    for sample, predictions in zip(samples, sources.read(keys), strict=True):
        rule = rules.of(sample.patient) if isinstance(rules, Start) else rules
        fused = rule(predictions, labels)
        image = read_image(sample, config.in_channels)
        truth = truth_masks(sample, labels) if with_truth else None
        look = Look.of(image, predictions, fused, labels, config.detail, truth)
        yield LookCase(sample.key, fused.size_hw, look.image, truth or {}, look, fused)


@dataclass(frozen=True)
class LookCases:
    """Images to score on; read and fused anew each time, so that none stays in memory.

    What is looked at knows nothing of the truth.
    """

    samples: Sequence[Sample]
    sources: Sources
    rule: Rule
    config: RefinerConfig
    labels: LabelSpace

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.samples)

    def read(self, numbers: Iterable[int]) -> Iterator[Case]:
        """Yield the samples of these numbers, in order."""
        chosen = [self.samples[number] for number in numbers]
        cases = read_cases(chosen, self.sources, self.rule, self.config, self.labels, False)
        for sample, case in zip(chosen, cases, strict=True):
            yield replace(case, truth=truth_masks(sample, self.labels))


def mend(
    network: Refiner, frames: Iterable[NetworkInput], labels: LabelSpace, setting: Setting
) -> Iterator[Prediction]:
    """Yield one prediction a `LookCase`, in order; the network is in evaluation mode."""
    for case in frames:
        if not isinstance(case, LookCase):
            raise TypeError(f"expected a LookCase, found {type(case).__name__}")
        masks = {n: _mend_class(network, case, n, labels, setting) for n in labels.names}
        found = {label: evidence for label, evidence in masks.items() if evidence}
        yield Prediction(case.key, case.size_hw, "semantic", found, case.fused.classes)


def _mend_class(
    network: Refiner, case: LookCase, label: str, labels: LabelSpace, setting: Setting
) -> tuple[Evidence, ...]:
    look, fused = case.look, case.fused.evidence(label, labels.once)
    window = (0, 0, 0, 0) if fused is None else fused[1].window(case.size_hw)
    tiling = None
    if label in look.classes:
        tiling = tile(look.classes[label].outline_px, look.cell_px, network.config)
        window = enclose([_window(tiling, case.size_hw), window])
    if not (window[2] and window[3]):
        return ()
    # At the image's own pixels, mended or not: the mean of several runs needs one grid.
    prob = np.zeros(window[:1:-1], np.uint8) if fused is None else fused[1].render(window)
    if tiling is not None:
        changes = _changes(network, look, label, labels, tiling, setting)
        prob = to_bytes(LOG_ODDS[prob] + tiling.join(changes, window))
    return _evidence(window, prob)


def _evidence(window: Window, prob: Bytes) -> tuple[Evidence, ...]:
    x, y, width, height = map(float, window)
    mask = soft_mask(prob, (x, y, width, height))
    return () if mask is None else ((float(mask.prob.max()) / 255, mask),)


def _changes(
    network: Refiner,
    look: Look,
    label: str,
    labels: LabelSpace,
    tiling: Tiling,
    setting: Setting,
) -> Planes:
    """Return the network's log odds for each patch, float32 (n, h, w)."""
    found, places, inputs = [], tiling.places(), network.config.inputs
    for start in range(0, len(places), setting.batch):
        few = places[start : start + setting.batch]
        planes = [
            stack(see(look, label, p), cut_image(look, p) if "image" in inputs else None, inputs)
            for p in few
        ]
        given = torch.from_numpy(np.stack(planes)).to(setting.device)
        which = torch.full((len(few),), labels.index[label], device=setting.device)
        with torch.inference_mode(), autocast(setting.device, setting.precision):
            found.append(network.change(given, which)[:, 0].float().cpu().numpy())
    return np.concatenate(found)


def _window(tiling: Tiling, size_hw: tuple[int, int]) -> Window:
    """Return the image's pixels that patches touch."""
    (x, y), cell = tiling.origin_xy, tiling.cell_px
    top, left = tiling.corners.min(0) * cell
    bottom, right = (tiling.corners.max(0) + np.array(tiling.size_hw)) * cell
    x0, y0 = max(int(np.floor(x + left)), 0), max(int(np.floor(y + top)), 0)
    x1 = min(int(np.ceil(x + right)), size_hw[1])
    y1 = min(int(np.ceil(y + bottom)), size_hw[0])
    return x0, y0, max(x1 - x0, 0), max(y1 - y0, 0)
