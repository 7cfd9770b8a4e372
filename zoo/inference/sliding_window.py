"""Sliding windows: a network sees an image part by part, and the parts are blended."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import torch
import torch.nn.functional as F

from zoo.inference.windows import LEAST, SIGMA, Size, even_parts, window_corners


def importance(window_hw: Size, device: torch.device) -> torch.Tensor:
    """Return how much a window's pixels count, float32 (h, w), 1 in the middle: a Gaussian."""
    rows, columns = (
        torch.signal.windows.gaussian(side, std=SIGMA * side, dtype=torch.float32, device=device)
        for side in window_hw
    )
    weights = rows[:, None] * columns
    return weights.clamp_min(max(float(weights.min()), LEAST))


def blend(
    predict: Callable[..., torch.Tensor],
    images: torch.Tensor,
    window_hw: Size,
    overlap: float,
    batch: int,
    fill: torch.Tensor,
    rows: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return what a network says about images that it sees window by window, (N, C, h, w).

    What windows say of a pixel is averaged by their importance there. The sum is float32, on the
    device of the images, and the weights are divided by their sum beforehand: nothing else of the
    images' size is held. Of 29 classes at 2048 x 2048 that is 487 MB for each image. (MONAI's
    `sliding_window_inference` enlarges no outputs, and holds those of a whole batch of windows at
    their full size where `predict` does so.)

    Args:
        predict: (n, c, *window_hw) -> (n, C, *window_hw), any float dtype, or (n, C, h', w'), which
            is enlarged.
        images: float (N, c, h, w).
        window_hw: a window's height and width; smaller images are padded on all sides.
        overlap: how much of a window's side the next one repeats, 0 up to below 1.
        batch: windows at a time, of any of the images.
        fill: values of the padding, float (c, 1, 1).
        rows: what is known of the images, float (N, k): `predict` is given those of its windows,
            (n, k), as a second argument; None: it is given none.
    """
    (height, width), (high, wide) = images.shape[-2:], window_hw
    bottom, right = max(high - height, 0), max(wide - width, 0)
    top, left = bottom // 2, right // 2
    padded = images
    if bottom or right:
        # Zeros around the difference: a value for each channel.
        padded = F.pad(images - fill, (left, right - left, top, bottom - top)) + fill
    corners = window_corners((padded.shape[-2], padded.shape[-1]), window_hw, overlap)
    weights = importance(window_hw, images.device)
    norm = torch.zeros(padded.shape[-2:], device=images.device)
    for y, x in corners:
        norm[y : y + high, x : x + wide] += weights
    total = None
    for part in even_parts(list(product(range(len(padded)), corners)), batch):
        cut = torch.stack([padded[n, :, y : y + high, x : x + wide] for n, (y, x) in part])
        outputs = predict(cut) if rows is None else predict(cut, rows[[n for n, _ in part]])
        if total is None:
            total = outputs.new_zeros(
                (len(padded), outputs.shape[1], *padded.shape[-2:]), dtype=torch.float32
            )
        for (n, (y, x)), output in zip(part, outputs, strict=True):
            place = (slice(y, y + high), slice(x, x + wide))
            total[(n, slice(None), *place)] += _stretch(output, window_hw) * (weights / norm[place])
    if total is None:
        raise ValueError("windows: expected at least one image, found none")
    return total[..., top : top + height, left : left + width]


def _stretch(output: torch.Tensor, size_hw: Size) -> torch.Tensor:
    """One window's output, (C, h', w'), as float32 (C, *size_hw)."""
    values = output.float()
    if tuple(values.shape[-2:]) == tuple(size_hw):
        return values
    return F.interpolate(values[None], size=size_hw, mode="bilinear", align_corners=False)[0]
