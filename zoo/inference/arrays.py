"""Whole images, windows and test-time augmentation as in `predict`, on arrays: needs no torch.

What computes logits is any function of arrays, such as an ONNX network. What it is shown and what
becomes of its logits are those of `predict` but for rounding: bilinear enlargement has the same
grid in OpenCV, and shrinking by an image pyramid's triangle filter is Pillow's, which torch copied.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import groupby, islice, product

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from converters.types import LabelSpace
from fusion.types import Prediction
from zoo.contract import DivergedError
from zoo.data.reading import (
    COLOR_DEVIATION,
    COLOR_MEAN,
    GREY_DEVIATION,
    GREY_MEAN,
    NetworkInput,
    channels_first,
)
from zoo.inference.frames import to_prediction
from zoo.inference.setting import Activation, Setting, class_chunks
from zoo.inference.windows import (
    LEAST,
    SIGMA,
    Size,
    even_parts,
    images_at_a_time,
    window_corners,
)
from zoo.tta import PLAIN, Variant

Floats = npt.NDArray[np.float32]
Compute = Callable[..., Floats]
"""Normalised images, float32 (n, c, h, w), to logits, float32 (n, C, h', w').

Networks that are shown what is known of the images take it as a second argument, float32 (n, k).
"""
# How bright red, green and blue look: ITU-R BT.601, rounded as torchvision does.
_LUMA = np.array((0.2989, 0.587, 0.114), np.float32)[:, None, None]


def normalize(images: npt.NDArray[np.generic]) -> Floats:
    """Return images as float32 with about zero mean and unit deviation.

    Args:
        images: 0..255, (..., 1, h, w) in grey, or (..., 3, h, w) in red, green and blue.
    """
    is_grey = images.shape[-3] == 1
    mean = np.array(GREY_MEAN if is_grey else COLOR_MEAN, np.float32).reshape(-1, 1, 1)
    deviation = np.array(GREY_DEVIATION if is_grey else COLOR_DEVIATION, np.float32)
    values = images.astype(np.float32)
    values /= np.float32(255)
    values -= mean
    values /= deviation.reshape(-1, 1, 1)
    return values


def enlarge(logits: Floats, size_hw: Size) -> Floats:
    """Return planes (..., h, w) at another size, bilinear, as `predict.enlarge` does."""
    if tuple(logits.shape[-2:]) == tuple(size_hw):
        return logits
    out = np.empty((*logits.shape[:-2], *size_hw), np.float32)
    for place in np.ndindex(*logits.shape[:-2]):
        plane = np.ascontiguousarray(logits[place])
        out[place] = cv2.resize(plane, size_hw[::-1], interpolation=cv2.INTER_LINEAR)
    return out


def activate(logits: Floats, activation: Activation) -> Floats:
    """Return probabilities, float32 (N, C, h, w) in 0..1, of logits (N, C, h, w)."""
    if activation == "sigmoid":
        # By tanh nothing overflows.
        return np.tanh(logits * np.float32(0.5)) * np.float32(0.5) + np.float32(0.5)
    highest = logits.max(axis=1, keepdims=True)
    if activation == "softmax_or_none":
        highest = np.maximum(highest, np.float32(0))
    scaled = np.exp(logits - highest)
    total = scaled.sum(axis=1, keepdims=True)
    if activation == "softmax_or_none":
        total = total + np.exp(-highest)
    scaled /= total
    return scaled


def probabilities(
    compute: Compute,
    images: npt.NDArray[np.uint8],
    setting: Setting,
    rows: Floats | None = None,
) -> npt.NDArray[np.uint8]:
    """Return each class's probability, uint8 (N, C, h, w), 255 = 1, rounded.

    Args:
        compute: gives logits.
        images: uint8 (N, 1 or 3, h, w).
        setting: how images are shown; its device and precision are the network's own affair.
        rows: what is known of the images, float32 (N, k), for networks that are shown that.

    Raises:
        DivergedError: the network gives NaN.
    """
    height, width = images.shape[-2:]
    size = (int(height), int(width))

    def logits_of(variant: Variant) -> Floats:
        shown = _show(images, variant, setting.shown_size(size, variant))
        return _logits(compute, shown, setting, rows)

    plain = logits_of(PLAIN)
    total = np.zeros((len(images), plain.shape[1], *size), np.float32)
    _add(total, plain, PLAIN, setting)
    for variant in setting.variants:
        _add(total, logits_of(variant), variant, setting)
    return _as_bytes(total, setting)


def _as_bytes(total: Floats, setting: Setting) -> npt.NDArray[np.uint8]:
    total /= np.float32(1 + len(setting.variants))
    if setting.average == "logits":
        total = activate(total, setting.activation)
    # NaN would become any byte.
    if np.isnan(total.sum()):
        raise DivergedError("expected probabilities, found NaN")
    total *= np.float32(255)
    return np.rint(total, out=total).astype(np.uint8)


def _show(images: npt.NDArray[np.uint8], variant: Variant, size_hw: Size) -> Floats:
    """What the network sees of uint8 images in one form."""
    shown: npt.NDArray[np.generic] = images
    if variant.gamma != 1 or variant.contrast != 1:
        values = images.astype(np.float32) / np.float32(255)
        if variant.gamma != 1:
            values = values ** np.float32(variant.gamma)
        if variant.contrast != 1:
            values = _adjust_contrast(values, variant.contrast)
        shown = values * np.float32(255)
    return _mirror(_stretch(normalize(shown), size_hw), variant)


def _adjust_contrast(values: Floats, factor: float) -> Floats:
    grey = values if values.shape[1] == 1 else (values * _LUMA).sum(axis=1, keepdims=True)
    mean = grey.mean(axis=(1, 2, 3), keepdims=True)
    moved = np.float32(factor) * values + np.float32(1 - factor) * mean
    return np.clip(moved, 0, 1, dtype=np.float32)


def _stretch(values: Floats, size_hw: Size) -> Floats:
    """Resize float32 (N, c, h, w) by a triangle as wide as a pixel of the coarser image."""
    if tuple(values.shape[-2:]) == tuple(size_hw):
        return values
    out = np.empty((*values.shape[:2], *size_hw), np.float32)
    for place in np.ndindex(*values.shape[:2]):
        plane = Image.fromarray(np.ascontiguousarray(values[place]))
        out[place] = np.asarray(plane.resize(size_hw[::-1], Image.Resampling.BILINEAR))
    return out


def _mirror(values: Floats, variant: Variant) -> Floats:
    """Mirror (..., h, w) as a variant does, which also undoes it."""
    axes = [axis for axis, wanted in ((-1, variant.hflip), (-2, variant.vflip)) if wanted]
    return np.flip(values, tuple(axes)) if axes else values


def _logits(compute: Compute, values: Floats, setting: Setting, rows: Floats | None) -> Floats:
    if setting.window is None:
        whole = np.ascontiguousarray(values)
        return compute(whole) if rows is None else compute(whole, rows)
    return blend(compute, values, setting.window, setting.overlap, setting.batch, rows)


def _add(total: Floats, logits: Floats, variant: Variant, setting: Setting) -> None:
    """Add what one form gave to the sum; as `predict` does, a few classes at a time."""
    is_logit = setting.average == "logits"
    size = (int(total.shape[-2]), int(total.shape[-1]))
    few = class_chunks(total.shape[1], size)
    for classes in few if is_logit or setting.activation == "sigmoid" else [slice(None)]:
        part = enlarge(_mirror(logits[:, classes], variant), size)
        total[:, classes] += part if is_logit else activate(part, setting.activation)


def importance(window_hw: Size) -> Floats:
    """Return how much a window's pixels count, as `sliding_window.importance`."""
    rows, columns = (
        np.exp(-0.5 * ((np.arange(side) - (side - 1) / 2) / (SIGMA * side)) ** 2)
        for side in window_hw
    )
    weights = (rows[:, None] * columns).astype(np.float32)
    return np.maximum(weights, max(float(weights.min()), LEAST), dtype=np.float32)


def blend(
    compute: Compute,
    images: Floats,
    window_hw: Size,
    overlap: float,
    batch: int,
    rows: Floats | None = None,
) -> Floats:
    """Return what a network says about images that it sees window by window, (N, C, h, w).

    As `sliding_window.blend`; images that are smaller than a window are padded with black.

    Args:
        compute: (n, c, *window_hw) -> (n, C, h', w'), which is enlarged to the window.
        images: normalised, float32 (N, c, h, w).
        window_hw: a window's height and width.
        overlap: how much of a window's side the next one repeats, 0 up to below 1.
        batch: windows at a time, of any of the images.
        rows: what is known of the images, float32 (N, k): `compute` is given those of its windows,
            (n, k), as a second argument; None: it is given none.
    """
    (height, width), (high, wide) = images.shape[-2:], window_hw
    bottom, right = max(high - height, 0), max(wide - width, 0)
    top, left = bottom // 2, right // 2
    padded = images
    if bottom or right:
        black = normalize(np.zeros((images.shape[1], 1, 1), np.uint8))
        around = ((0, 0), (0, 0), (top, bottom - top), (left, right - left))
        padded = np.pad(images - black, around) + black
    corners = window_corners((padded.shape[-2], padded.shape[-1]), window_hw, overlap)
    weights, norm = importance(window_hw), np.zeros(padded.shape[-2:], np.float32)
    for y, x in corners:
        norm[y : y + high, x : x + wide] += weights
    total: Floats | None = None
    for part in even_parts(list(product(range(len(padded)), corners)), batch):
        cut = np.stack([padded[n, :, y : y + high, x : x + wide] for n, (y, x) in part])
        outputs = compute(cut) if rows is None else compute(cut, rows[[n for n, _ in part]])
        if total is None:
            shape = (len(padded), outputs.shape[1], *padded.shape[-2:])
            total = np.zeros(shape, np.float32)
        for (n, (y, x)), output in zip(part, outputs, strict=True):
            place = (slice(y, y + high), slice(x, x + wide))
            share = weights / norm[place]
            total[(n, slice(None), *place)] += enlarge(output, window_hw) * share
    if total is None:
        raise ValueError("windows: expected at least one image, found none")
    return total[..., top : top + height, left : left + width]


def predict_semantic(
    compute: Compute, frames: Iterable[NetworkInput], labels: LabelSpace, setting: Setting
) -> Iterator[Prediction]:
    """Yield one prediction a frame, in order.

    Raises:
        DivergedError: the network gives NaN; names the first of the images.
    """
    for shape, run in groupby(frames, lambda frame: frame.image.shape):
        count = images_at_a_time(
            (shape[0], shape[1]), setting.window, setting.overlap, setting.batch
        )
        while part := list(islice(run, count)):
            images = np.stack([channels_first(frame.image) for frame in part])
            known = [frame.metadata for frame in part if frame.metadata is not None]
            rows = np.stack(known) if known else None
            try:
                planes = probabilities(compute, images, setting, rows)
            except DivergedError as error:
                raise DivergedError(f"'{part[0].key}': {error}") from None
            for frame, probs in zip(part, planes, strict=True):
                yield to_prediction(frame.key, frame.size_hw, probs, labels)
