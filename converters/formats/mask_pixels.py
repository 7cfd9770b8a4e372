"""One mask file's pixels, as they are stored: bits, numbers, or the indexes of a palette."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from converters.files.image_headers import BROKEN
from converters.files.png import pixels_only

_KINDS = ("PNG",)
# PNG specification, third edition, section 11.2.1: where a file says the bits of a sample.
_DEPTH_AT = 24
# PASCAL VOC's palette: what number 255 means there, at the borders of objects, is drawn so.
VOID, VOID_COLOUR = 255, (224, 224, 192)
# Its numbers of classes are 1 to 20.
_VOC_COLOURS = 3 * 21

Pixels = npt.NDArray[Any]


@dataclass(frozen=True)
class MaskPixels:
    """What a mask file holds.

    Attributes:
        values: grey values or a palette's indexes, uint8 or uint16 (H, W), or colours, uint8 or
            uint16 (H, W, 3 or 4), red first.
        top: the largest value that the file could hold.
        has_void: whether 255 is PASCAL VOC's "void", no class, by the colour in the palette.
    """

    values: Pixels
    top: int = 255
    has_void: bool = False

    def describe(self) -> str:
        """Return in words what kind of image it is."""
        channels = {2: "grey", 3: "RGB", 4: "RGBA"}
        kind = channels[2 if self.values.ndim == 2 else self.values.shape[2]]
        return f"{8 * self.values.dtype.itemsize}-bit {kind}"


def used_values(values: Pixels) -> list[int]:
    """Return the different values of an array of whole numbers, sorted.

    In masks one follows another that is the same, mostly: only those that do not are sorted.

    >>> used_values(np.array([[3, 3, 0], [0, 3, 3]]))
    [0, 3]
    """
    flat = values.reshape(-1)
    changed = flat[1:][flat[1:] != flat[:-1]]
    found: list[int] = np.unique(np.concatenate([flat[:1], changed])).tolist()
    return found


def read_mask_pixels(content: bytes, size_hw: tuple[int, int] | None = None) -> MaskPixels:
    """Decode a mask file; nothing is decoded that has not the size.

    Args:
        content: of the file.
        size_hw: the image's height and width; None where they are not known.

    Raises:
        ValueError: not a PNG, a damaged one, or one of another size.
    """
    mode, palette = _read_header(content, size_hw)
    try:
        # Pillow does not compare the checksums of all pixels.
        plain = pixels_only(content)
        decoded = cv2.imdecode(np.frombuffer(plain, np.uint8), cv2.IMREAD_UNCHANGED)
    except (cv2.error, ValueError):
        decoded = None
    if decoded is None:
        raise ValueError("expected a whole PNG, found a damaged one")
    if mode == "P":
        with Image.open(io.BytesIO(content), formats=_KINDS) as image:
            indexes = np.array(image, np.uint8)
        return MaskPixels(indexes, has_void=palette[3 * VOID : 3 * VOID + 3] == VOID_COLOUR)
    if decoded.ndim == 3:
        order = [2, 1, 0, 3][: decoded.shape[2]]
        return MaskPixels(np.ascontiguousarray(decoded[..., order]))
    top = 2 ** content[_DEPTH_AT] - 1
    # OpenCV stretches what has fewer bits than eight.
    return MaskPixels(decoded // (VOID // top) if top < VOID else decoded, top)


def check_mask_size(path: Path, size_hw: tuple[int, int]) -> None:
    """Make sure that a mask is there and has a size, by its header alone.

    Raises:
        ValueError: no such file, not a PNG, or one of another size.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ValueError(f"expected a mask: {error.strerror}") from None
    _read_header(content, size_hw)


def has_voc_palette(path: Path, or_none: bool = False) -> bool:
    """Tell whether a mask has PASCAL VOC's palette, or cannot be read, which others say.

    Args:
        path: PNG.
        or_none: whether a mask without any palette is one, too.
    """
    try:
        mode, palette = _read_header(path.read_bytes(), None)
    except (OSError, ValueError):
        return True
    if mode != "P":
        return or_none
    return palette[:_VOC_COLOURS] == tuple(voc_palette()[:_VOC_COLOURS])


def voc_palette() -> list[int]:
    """Return PASCAL VOC's palette: red, green and blue of 256 numbers in turn.

    That is the `VOClabelcolormap` of its development kit.

    >>> voc_palette()[:9]
    [0, 0, 0, 128, 0, 0, 0, 128, 0]
    """
    shifts = range(8)
    return [
        sum((number >> (3 * shift + channel) & 1) << (7 - shift) for shift in shifts)
        for number in range(256)
        for channel in range(3)
    ]


def _read_header(content: bytes, size_hw: tuple[int, int] | None) -> tuple[str, tuple[int, ...]]:
    """Pillow's mode, and a palette's red, green and blue in turn."""
    try:
        with (
            warnings.catch_warnings(action="ignore"),
            Image.open(io.BytesIO(content), formats=_KINDS) as header,
        ):
            found, mode = (header.height, header.width), header.mode
            palette = tuple(header.getpalette() or ()) if mode == "P" else ()
    except Image.DecompressionBombError:
        most = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        raise ValueError(f"expected a mask of at most {most} pixels, found more") from None
    except BROKEN:
        raise ValueError("expected a PNG, found a file that is none") from None
    if size_hw is not None and found != tuple(size_hw):
        raise ValueError(f"expected a mask of {tuple(size_hw)}, found {found}")
    return mode, palette
