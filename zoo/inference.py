"""From a network to predictions in the images' own frame; training scores take the same path."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import nn

from converters.types import LabelSpace
from fusion.types import Prediction, soft_mask
from zoo.data import Frame, normalize
from zoo.devices import Precision, autocast

Move = Callable[[torch.Tensor], torch.Tensor]


def flip(values: torch.Tensor) -> torch.Tensor:
    """Mirror left and right, any (..., h, w)."""
    return values.flip(-1)


# Test-time augmentation: name -> what is done to the images, and what undoes it.
TTA: dict[str, tuple[Move, Move]] = {"hflip": (flip, flip)}


@dataclass(frozen=True)
class Setting:
    """Where and how a network computes.

    Attributes:
        device: where.
        precision: in which number format.
        batch: images at a time.
        tta: keys of `TTA`; their probabilities and the plain ones are averaged.

    Raises:
        ValueError: an unknown test-time augmentation, or no images at a time.
    """

    device: torch.device
    precision: Precision = "32-true"
    batch: int = 1
    tta: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if unknown := sorted(set(self.tta) - set(TTA)):
            raise ValueError(f"tta '{unknown[0]}': expected any of {', '.join(TTA)}")
        if self.batch < 1:
            raise ValueError(f"batch: expected at least 1, found {self.batch}")


def enlarge(logits: torch.Tensor, size_hw: Sequence[int]) -> torch.Tensor:
    """Return logits (N, C, h, w) at another size, bilinear; before the sigmoid, which keeps edges.

    Networks may give logits at a fraction of their input's size.
    """
    if tuple(logits.shape[-2:]) == tuple(size_hw):
        return logits
    return F.interpolate(logits, size=tuple(size_hw), mode="bilinear", align_corners=False)


def probabilities(network: nn.Module, images: torch.Tensor, setting: Setting) -> torch.Tensor:
    """Return each class's probability, uint8 (N, C, h, w), 255 = 1, rounded.

    Args:
        network: in evaluation mode, on the setting's device; gives logits per class.
        images: uint8 (N, 1, h, w), on the setting's device.
        setting: how to compute.
    """
    with torch.inference_mode():
        values = normalize(images)
        moves = [TTA[name] for name in setting.tta]
        total = _sigmoid(network, values, setting)
        for move, undo in moves:
            total = total + undo(_sigmoid(network, move(values), setting))
        return (total * (255 / (1 + len(moves)))).round().to(torch.uint8)


def _sigmoid(network: nn.Module, values: torch.Tensor, setting: Setting) -> torch.Tensor:
    with autocast(setting.device, setting.precision):
        logits = network(values)
    return enlarge(logits.float(), values.shape[-2:]).sigmoid()


def to_prediction(
    key: str, size_hw: tuple[int, int], probs: npt.NDArray[np.uint8], labels: LabelSpace
) -> Prediction:
    """Return one image's prediction; a class's score is its highest probability.

    Args:
        key: the sample's key.
        size_hw: the image's own height and width.
        probs: uint8 (C, h, w), 255 = 1, over the whole image, at the network's size.
        labels: the classes.
    """
    box = (0.0, 0.0, float(size_hw[1]), float(size_hw[0]))
    masks = {}
    for name, plane in zip(labels.names, probs, strict=True):
        mask = soft_mask(plane, box)
        if mask is not None:
            masks[name] = ((int(plane.max()) / 255, mask),)
    return Prediction(key, size_hw, "semantic", masks)


def predict_semantic(
    network: nn.Module, frames: Iterable[Frame], labels: LabelSpace, setting: Setting
) -> Iterator[Prediction]:
    """Yield one prediction a frame, in order; the network must be in evaluation mode."""
    frames = iter(frames)
    while part := list(islice(frames, setting.batch)):
        images = torch.from_numpy(np.stack([frame.image for frame in part]))[:, None]
        probs = probabilities(network, images.to(setting.device), setting).cpu().numpy()
        for frame, planes in zip(part, probs, strict=True):
            yield to_prediction(frame.key, frame.size_hw, planes, labels)
