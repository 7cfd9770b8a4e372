"""From a batch of bytes to what a network and its loss take; on the device."""

from __future__ import annotations

import torch

from converters.files.images import Pixels
from zoo.data.area_targets import FULL
from zoo.data.reading import (
    COLOR_DEVIATION,
    COLOR_MEAN,
    GREY_DEVIATION,
    GREY_MEAN,
    channels_first,
)


def as_tensor(image: Pixels) -> torch.Tensor:
    """Return an image, uint8 (h, w) or (h, w, 3), as a tensor (1, h, w) or (3, h, w)."""
    return torch.from_numpy(channels_first(image))


def normalize(images: torch.Tensor) -> torch.Tensor:
    """Return images as float32 with about zero mean and unit deviation.

    Args:
        images: 0..255, (..., 1, h, w) in grey, or (..., 3, h, w) in red, green and blue.
    """
    values = images.float() / 255
    if images.shape[-3] == 1:
        return (values - GREY_MEAN) / GREY_DEVIATION
    mean, deviation = (
        values.new_tensor(numbers)[:, None, None] for numbers in (COLOR_MEAN, COLOR_DEVIATION)
    )
    return (values - mean) / deviation


def unpack_on_device(
    packed: torch.Tensor, classes: int, dtype: torch.dtype = torch.float32
) -> torch.Tensor:
    """Return (N, C, h, w) of a type, 0 or 1, of bit-packed masks, uint8 (N, B, h, w)."""
    number = torch.arange(classes, device=packed.device)
    bit = (2 ** (number % 8)).to(torch.uint8)[:, None, None]
    return (packed[:, number // 8] & bit).clamp_max_(1).to(dtype)


def targets_on_device(masks: torch.Tensor, classes: int, is_soft: bool) -> torch.Tensor:
    """Return targets, float32 (N, C, h, w) in 0..1, of a batch's masks.

    Args:
        masks: uint8 (N, B, h, w), bits; or (N, C, h, w), shares.
        classes: how many there are.
        is_soft: which of the two.
    """
    return masks.float() / FULL if is_soft else unpack_on_device(masks, classes)
