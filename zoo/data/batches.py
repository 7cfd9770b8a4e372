"""From a batch of bytes to what a network and its loss take; on the device."""

from __future__ import annotations

import torch

from zoo.data.area_targets import FULL

# The mean and deviation of ImageNet's grey values, which pretrained encoders expect.
GREY_MEAN, GREY_DEVIATION = 0.449, 0.226


def normalize(images: torch.Tensor) -> torch.Tensor:
    """Return uint8 images of any shape as float32 with about zero mean and unit deviation."""
    return (images.float() / 255 - GREY_MEAN) / GREY_DEVIATION


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
