"""The numbers in one map of a Hugging Face data set.

`datasets` keeps a file as it was. Of an image in memory it makes a PNG, or a TIFF where the image
has a palette or more than eight bits (`image_to_bytes` in its features/image.py).
"""

from __future__ import annotations

import io
import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from converters.files.image_headers import BROKEN
from converters.formats.mask_pixels import read_mask_pixels

_TIFF = (b"II*\0", b"MM\0*")
# Pillow's modes of grey values and of palettes.
_NUMBERS = frozenset({"1", "L", "P", "I", "I;16", "I;16B", "I;16L"})
_LARGEST = 65535

Numbers = npt.NDArray[Any]


def read_numbers(content: bytes, column: str, size_hw: tuple[int, int] | None = None) -> Numbers:
    """Return the class numbers of a map, uint8 or uint16 (H, W).

    Args:
        content: of the PNG or TIFF.
        column: in which it lies, for messages.
        size_hw: the image's height and width; None where they are not known.

    Raises:
        ValueError: another file, a damaged one, one of another size, or one without numbers.
    """
    expected = f"{column}: expected class numbers, a grey image or one with a palette, found"
    if content.startswith(_TIFF):
        return _read_tiff(content, size_hw, expected)
    pixels = read_mask_pixels(content, size_hw)
    if pixels.values.ndim != 2:
        raise ValueError(f"{expected} {pixels.describe()}")
    return pixels.values


def _read_tiff(content: bytes, size_hw: tuple[int, int] | None, expected: str) -> Numbers:
    try:
        with (
            warnings.catch_warnings(action="ignore"),
            Image.open(io.BytesIO(content), formats=("TIFF",)) as image,
        ):
            found, mode = (image.height, image.width), image.mode
            is_meant = mode in _NUMBERS and found == (size_hw or found)
            values = np.array(image) if is_meant else np.zeros((0, 0))
    except Image.DecompressionBombError:
        most = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        raise ValueError(f"expected a mask of at most {most} pixels, found more") from None
    except BROKEN:
        raise ValueError("expected a whole TIFF, found a damaged one") from None
    if size_hw is not None and found != tuple(size_hw):
        raise ValueError(f"expected a mask of {tuple(size_hw)}, found {found}")
    if mode not in _NUMBERS:
        raise ValueError(f"{expected} a TIFF of mode {mode}")
    if values.min() < 0 or values.max() > _LARGEST:
        odd = values.min() if values.min() < 0 else values.max()
        raise ValueError(f"expected class numbers from 0 to {_LARGEST}, found {odd}")
    return values.astype(np.uint16)
