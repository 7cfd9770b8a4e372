"""TIFF of a plane, or of several as pages or channels.

uint8 has 255 for 1, uint16 65535, floats are probabilities; whole numbers in one plane may also be
those of classes or objects.
"""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from converters.errors import one_line
from converters.files.image_headers import BROKEN

SUFFIXES = (".tif", ".tiff")
FULL_16 = 65535
_KINDS = ("TIFF",)
_REMEDY = "save it as NPY (numpy.save)"


def is_tiff(path: Path) -> bool:
    """Tell by its name whether a file is a TIFF."""
    return path.suffix.lower() in SUFFIXES


def read_tiff(path: Path) -> npt.NDArray[np.generic]:
    """Return what a TIFF holds.

    Returns:
        (H, W) of one page; (pages, H, W) of several, or (H, W, channels), red first. The indexes of
        a palette, uint8, in place of its colours.

    Raises:
        ValueError: not a TIFF, a damaged one, one of pages that differ, or one that cannot be read
            without a loss.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path}: expected a TIFF, found: {error.strerror}") from None
    indexes = _check(path, content)
    if indexes is not None:
        return indexes
    try:
        _, pages = cv2.imdecodemulti(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        pages = ()
    if not pages:
        raise ValueError(
            f"{path}: expected a TIFF that OpenCV reads, found another or a damaged one: {_REMEDY}"
        )
    if len({(page.shape, page.dtype) for page in pages}) > 1:
        shapes = sorted({page.shape for page in pages})
        raise ValueError(f"{path}: expected pages of one size and kind, found {shapes}: {_REMEDY}")
    return (
        np.stack([_ordered(path, page) for page in pages])
        if pages[1:]
        else _ordered(path, pages[0])
    )


def _ordered(path: Path, page: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    """A page with its channels as they lie in the file."""
    if page.ndim == 2:
        return page
    if page.shape[2] == 4 and page.dtype == np.uint8:
        # OpenCV multiplies three of them by the fourth.
        raise ValueError(f"{path}: expected pages of one channel, found four of 8 bits: {_REMEDY}")
    return page[..., [2, 1, 0, 3][: page.shape[2]]]


def _check(path: Path, content: bytes) -> npt.NDArray[np.uint8] | None:
    """Decode a TIFF by Pillow, as OpenCV gives pixels also of a damaged one.

    Returns:
        The indexes of a palette; None where there is none.
    """
    try:
        with (
            warnings.catch_warnings(action="ignore"),
            Image.open(io.BytesIO(content), formats=_KINDS) as image,
        ):
            for number in range(getattr(image, "n_frames", 1)):
                image.seek(number)
                image.load()
            return np.array(image, np.uint8) if image.mode == "P" else None
    except UnidentifiedImageError:
        return None  # of channels that Pillow does not know
    except (*BROKEN, Image.DecompressionBombError) as error:
        raise ValueError(f"{path}: expected a whole TIFF, found: {one_line(error)}") from None
