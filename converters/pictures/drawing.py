"""An image and masks on it, as far as a view shows them."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from converters.files.images import read_pixels
from converters.masks import CropMask
from converters.pictures.colors import MUTED, Color
from converters.types import Sample

Floats = npt.NDArray[np.float32]

STRIPE = 9
LINE = 5


@dataclass(frozen=True)
class View:
    """The part of an image that all pictures of a case show.

    Attributes:
        box_xywh: whole pixels of the image.
        size_hw: of the pictures, in pixels.
    """

    box_xywh: tuple[int, int, int, int]
    size_hw: tuple[int, int]

    @property
    def scale(self) -> float:
        """Pixels of a picture for one pixel of the image."""
        return self.size_hw[1] / self.box_xywh[2]


def read_view(sample: Sample, view: View) -> Floats:
    """Read a sample's image in a view, float32 (h, w, 3) RGB in 0..1, its contrast stretched.

    What the view shows beyond the image is black.

    Raises:
        ValueError: the file is no image, or has another size than the sample.
    """
    image = read_pixels(sample, grey=False)
    x, y, width, height = view.box_xywh
    left, top = max(0, x), max(0, y)
    part = image[top : max(0, y + height), left : max(0, x + width), ::-1].astype(np.float32)
    low, high = np.percentile(part, (0.5, 99.7)) if part.size else (0.0, 1.0)
    stretched = np.zeros((height, width, 3), np.float32)
    inside = stretched[top - y : top - y + part.shape[0], left - x : left - x + part.shape[1]]
    np.clip((part - low) / max(float(high - low), 1.0), 0, 1, out=inside)
    smooth = cv2.INTER_CUBIC if view.scale > 1 else cv2.INTER_AREA
    resized = cv2.resize(stretched, view.size_hw[::-1], interpolation=smooth)
    return np.asarray(np.clip(resized, 0, 1), np.float32)


def coverage(mask: CropMask, view: View) -> Floats:
    """Return how much of each pixel of the view a mask covers, float32 (h, w) in 0..1."""
    window = mask.window(view.box_xywh).astype(np.float32)
    if view.scale <= 1:
        return np.asarray(
            cv2.resize(window, view.size_hw[::-1], interpolation=cv2.INTER_AREA), np.float32
        )
    soft = cv2.resize(window, view.size_hw[::-1], interpolation=cv2.INTER_LINEAR)
    # The slope of the enlarged edge is 1 / scale; make it one pixel wide.
    return np.asarray(np.clip((soft - 0.5) * view.scale + 0.5, 0, 1), np.float32)


def draw_masks(
    image: Floats, masks: Mapping[str, CropMask], view: View, colors: Mapping[str, Color]
) -> Floats:
    """Draw masks as translucent fills with outlines; where several meet, in stripes of all.

    Args:
        image: float32 (h, w, 3) in 0..1.
        masks: label -> mask.
        view: what the image shows.
        colors: label -> colour; other labels are drawn muted.

    Returns:
        float32 (h, w, 3) in 0..1.
    """
    layers = list(layers_of(masks, view))
    # Muted ones first, so that their outlines lie below.
    layers.sort(key=lambda layer: layer[0] in colors)
    count = np.zeros(view.size_hw, np.uint8)
    for _, alpha in layers:
        count += alpha >= 0.5
    stripe, rank = stripes(view), np.zeros(view.size_hw, np.uint8)
    out = image.copy()
    for label, alpha in layers:
        turn = (count < 2) | (stripe % np.maximum(count, 1) == rank)
        strength = np.where(count > 1, 0.72, 0.38 if label in colors else 0.16)
        blend(out, colors.get(label, MUTED), alpha * turn * strength)
        rank += alpha >= 0.5
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (LINE, LINE))
    for label, alpha in layers:
        line = alpha - cv2.erode(alpha, kernel)
        blend(out, colors.get(label, MUTED), line * (0.95 if label in colors else 0.6))
    return out


def layers_of(masks: Mapping[str, CropMask], view: View) -> Iterator[tuple[str, Floats]]:
    """Yield label and coverage of each mask that a view shows."""
    for label, mask in masks.items():
        if mask.window(view.box_xywh).any():
            yield label, coverage(mask, view)


def stripes(view: View) -> npt.NDArray[np.intp]:
    """Return the number of the diagonal stripe that each pixel of a view lies in, int (h, w)."""
    rows, columns = np.indices(view.size_hw, sparse=True)
    return np.asarray((rows + columns) // STRIPE)


def blend(picture: Floats, color: Color, alpha: npt.NDArray[np.floating]) -> None:
    """Lay a colour over a picture, float32 (h, w, 3) in 0..1, in place; alpha (h, w) in 0..1."""
    weight = np.asarray(alpha, np.float32)[..., None]
    picture += weight * (np.array(color, np.float32) / 255 - picture)


def encode_jpeg(picture: Floats, quality: int = 86) -> str:
    """Return a picture, float32 (h, w, 3) RGB in 0..1, as the data URI of a JPEG."""
    pixels = np.rint(picture[..., ::-1] * 255).astype(np.uint8)
    # Full colour resolution: thin coloured lines are what the pictures are about.
    sampling = cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444
    options = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_OPTIMIZE, 1]
    _, data = cv2.imencode(".jpg", pixels, [*options, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, sampling])
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode("ascii")
