"""One mask file's pixels, as they are stored: bits, numbers, or the indexes of a palette."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from converters.masks import Mask

# Formats without loss: what has lost something holds other numbers than were drawn.
_KINDS = ("PNG", "BMP", "TIFF")
# PNG specification, third edition, section 11.2.1: where its header says the bits of a sample.
_PNG_DEPTH = 24
_GREY_BITS = {"1": 1, "L": 8}
# PASCAL VOC's palette: what number 255 means there, at the borders of objects, is drawn so.
VOID, _VOID_COLOUR = 255, (224, 224, 192)

Pixels = npt.NDArray[Any]


@dataclass(frozen=True)
class MaskPixels:
    """What a mask file holds.

    Attributes:
        values: grey values or a palette's indexes, uint8 or uint16 (H, W), or colours, uint8 or
            uint16 (H, W, 3 or 4), red first.
        has_void: whether 255 is PASCAL VOC's "void": no class, as its palette says.
    """

    values: Pixels
    has_void: bool = False

    def describe(self) -> str:
        """Return in words what kind of image it is."""
        bits = 8 * self.values.dtype.itemsize
        channels = {2: "grey", 3: "RGB", 4: "RGBA"}
        kind = channels[2 if self.values.ndim == 2 else self.values.shape[2]]
        return f"an image of {bits}-bit {kind}"


def read_mask_pixels(content: bytes, size_hw: tuple[int, int] | None = None) -> MaskPixels:
    """Decode a mask file; nothing is decoded that has not the size.

    Args:
        content: of the file.
        size_hw: the image's height and width; None where they are not known.

    Raises:
        ValueError: not such an image, a damaged one, or one of another size.
    """
    mode, depth, palette = _read_header(content, size_hw)
    try:
        decoded = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        decoded = None
    if decoded is None:
        raise ValueError("expected a whole mask image, found a damaged one")
    if mode == "P":
        # OpenCV has checked the file, but knows colours only.
        with Image.open(io.BytesIO(content), formats=_KINDS) as image:
            indexes = np.array(image, np.uint8)
        place = slice(3 * VOID, 3 * VOID + 3)
        return MaskPixels(indexes, tuple(palette[place]) == _VOID_COLOUR)
    if decoded.ndim == 3:
        order = [2, 1, 0, 3][: decoded.shape[2]]
        return MaskPixels(np.ascontiguousarray(decoded[..., order]))
    return MaskPixels(decoded // (255 // (2**depth - 1)) if depth < 8 else decoded)


def _read_header(content: bytes, size_hw: tuple[int, int] | None) -> tuple[str, int, list[int]]:
    """Pillow's mode, bits of a grey value, and the palette's red, green and blue in turn."""
    try:
        with (
            warnings.catch_warnings(action="ignore"),
            Image.open(io.BytesIO(content), formats=_KINDS) as header,
        ):
            found, mode = (header.height, header.width), header.mode
            palette = (header.getpalette() or []) if mode == "P" else []
            is_png = header.format == "PNG"
    except Image.DecompressionBombError:
        most = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        raise ValueError(f"expected a mask of at most {most} pixels, found more") from None
    # What Pillow raises on broken headers depends on where they are broken.
    except (Exception,):
        raise
    if size_hw is not None and found != tuple(size_hw):
        raise ValueError(f"expected a mask of {tuple(size_hw)}, found {found}")
    depth = content[_PNG_DEPTH] if is_png and mode in _GREY_BITS else _GREY_BITS.get(mode, 8)
    return mode, depth, palette
