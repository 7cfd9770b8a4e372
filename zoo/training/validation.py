"""What a network reaches at the images' own size, counted where the network computes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from converters.masks import EMPTY, CropMask
from converters.types import LabelSpace
from fusion.binary import binary_masks
from fusion.metrics.scores import count
from fusion.types import TO_LOG_ODDS, Prediction
from zoo.data.cases import Case
from zoo.data.reading import NetworkInput
from zoo.inference.predict import enlarge, predict_planes, predict_semantic
from zoo.inference.setting import Setting, class_chunks
from zoo.inference.windows import Size

# A pixel belongs to a class from 128 of 255 on; of values that are not rounded yet, from here on.
LEVEL = 127.5

Predict = Callable[[Any, Iterable[NetworkInput], LabelSpace, Setting], Iterator[Prediction]]
"""Gives a network's predictions of frames, one after the other, as `predict_semantic` does."""


def count_cases(
    network: nn.Module,
    cases: Iterable[Case],
    labels: LabelSpace,
    setting: Setting,
    predict: Predict = predict_semantic,
) -> torch.Tensor:
    """Count pixels of images and classes at the images' own size: both, predicted, true.

    Predictions come about as those of `zoo predict` do. On a GPU they are enlarged, cut at one half
    and counted there; else on the CPU, on crops. The two agree to the pixel where nothing is
    enlarged. Elsewhere OpenCV rounds twice, and enlarges boxes of fractions of a pixel by steps of
    1/32 pixel, so that pixels on an outline may differ.

    Args:
        network: in evaluation mode, on the setting's device.
        cases: images with truth.
        labels: the classes.
        setting: how to compute.
        predict: how the network predicts; where it is another way than that of semantic networks,
            or a pixel has one label, pixels are counted on crops.

    Returns:
        int64 (n, C, 3).
    """
    is_plain = predict is predict_semantic and labels.exclusive is None
    if setting.device.type == "cuda" and is_plain:
        return count_on_device(network, cases, labels, setting)
    return count_on_crops(network, cases, labels, setting, predict)


def dice_of(counts: torch.Tensor) -> torch.Tensor:
    """Return Dice, float64 (...), of pixels of both, predicted and true, (..., 3); 1 of none."""
    both, found, real = counts.double().unbind(-1)
    total = found + real
    return torch.where(total > 0, 2 * both / total.clamp_min(1), 1.0)


def mean_iou(counts: torch.Tensor) -> float:
    """Return the mean IoU of pixels of all images together, (C, 3), over classes that occur."""
    both, found, real = counts.double().unbind(-1)
    either = found + real - both
    return float((both / either)[either > 0].mean()) if bool((either > 0).any()) else 1.0


def count_on_crops(
    network: nn.Module,
    cases: Iterable[Case],
    labels: LabelSpace,
    setting: Setting,
    predict: Predict = predict_semantic,
) -> torch.Tensor:
    """Return what `count_cases` does, counted on the CPU on crops."""
    waiting: deque[Case] = deque()

    def frames() -> Iterator[Case]:
        for case in cases:
            waiting.append(case)
            yield case

    rows = []
    for prediction in predict(network, frames(), labels, setting):
        truth = waiting.popleft().truth
        found = binary_masks(prediction, labels).values()
        true = (truth.get(name, EMPTY) for name in labels.names)
        rows.append([count(*pair) for pair in zip(found, true, strict=True)])
    return torch.tensor(rows, dtype=torch.int64).reshape(len(rows), len(labels), 3)


def count_on_device(
    network: nn.Module, cases: Iterable[Case], labels: LabelSpace, setting: Setting
) -> torch.Tensor:
    """Return what `count_cases` does, counted on the setting's device."""
    counts = [torch.zeros((0, len(labels), 3), dtype=torch.int64)]
    for group, planes in predict_planes(network, cases, setting):
        rows = [
            count_pixels(probs, case.size_hw, case.truth, labels)
            for case, probs in zip(group, planes, strict=True)
        ]
        # Once a group: reading a number waits for the device.
        counts.append(torch.stack(rows).cpu())
    return torch.cat(counts)


def count_pixels(
    probs: torch.Tensor, size_hw: Size, truth: Mapping[str, CropMask], labels: LabelSpace
) -> torch.Tensor:
    """Count pixels of each class: of both masks, predicted, and true; int64 (C, 3).

    Probabilities are enlarged a few classes at a time, as `zoo.inference.setting.CHUNK` says.

    Args:
        probs: uint8 (C, h, w), 255 = 1, over the whole image, on any device.
        size_hw: the image's own height and width.
        truth: label -> mask at the image's own size. Only crops go to the device: of many
            small objects they are a tenth of the bytes of bit-packed planes.
        labels: the classes.
    """
    true = _send([truth.get(name, EMPTY) for name in labels.names], probs.device)
    both, found = [], []
    # As `SoftMask` does: what is enlarged are log odds.
    table = torch.from_numpy(TO_LOG_ODDS).to(probs.device)
    for classes in class_chunks(len(probs), size_hw):
        odds = table[probs[None, classes].long()].float()
        masks = enlarge(odds, size_hw)[0] >= LEVEL
        found.append(masks.sum((-2, -1)))
        both += [crop.count_in(m) for m, crop in zip(masks, true[classes], strict=True)]
    # Truth is counted there, too: its areas would be one more copy.
    real = [crop.pixels.sum() for crop in true]
    return torch.stack((torch.stack(both), torch.cat(found), torch.stack(real)), dim=1)


@dataclass(frozen=True)
class _Crop:
    """A true mask on a device: bool pixels (h, w), and its place."""

    x: int
    y: int
    pixels: torch.Tensor

    def count_in(self, mask: torch.Tensor) -> torch.Tensor:
        height, width = self.pixels.shape
        part = mask[self.y : self.y + height, self.x : self.x + width]
        return (part & self.pixels).sum()


def _send(masks: list[CropMask], device: torch.device) -> list[_Crop]:
    """Copy masks to a device, all in one go."""
    flat = torch.from_numpy(np.concatenate([mask.pixels.ravel() for mask in masks]))
    if device.type == "cuda":
        flat = flat.pin_memory()
    parts = flat.to(device, non_blocking=True).bool().split([m.pixels.size for m in masks])
    pairs = zip(masks, parts, strict=True)
    return [_Crop(m.x, m.y, part.reshape(m.pixels.shape)) for m, part in pairs]
