"""Image files: which they are, how large, and the pixels that a sample means."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image

from converters.files import link_or_copy
from converters.types import ImageFile, Sample

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})
# A crop keeps its image's suffix where that is a lossless format.
_LOSSLESS = frozenset({".png", ".bmp", ".tif", ".tiff"})
# What all networks and vendors read in the same way: grey, colour, or a palette without alpha.
_MODES = frozenset({"1", "L", "P", "RGB"})
_UPRIGHT = 1
_PNG_END = b"IEND\xaeB`\x82"
_TAIL = 64

Pixels = npt.NDArray[np.uint8]
Enlarge = Callable[[Pixels, tuple[int, int]], Pixels]
"""Takes pixels (h, w) or (h, w, 3) and the wanted (height, width); gives them at that size."""


def is_image(path: Path) -> bool:
    """Tell by its name whether a file is an image; hidden files are none.

    File managers leave hidden files such as `._image.png`.

    >>> is_image(Path("image1_R.PNG")), is_image(Path("._image1_R.png"))
    (True, False)
    """
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def read_size_hw(path: Path) -> tuple[int, int]:
    """Read height and width in pixels from an image's header.

    Libraries read images of 16 bits, with transparency, in CMYK, or turned by an EXIF tag in
    different ways; masks would not fit what a network sees. They are refused.

    Raises:
        ValueError: the file is missing, cut off, has no header that can be read, or is an image
            of such a kind.
    """
    try:
        with path.open("rb") as file:
            return _checked_size(file, os.fstat(file.fileno()).st_size)
    except FileNotFoundError:
        raise ValueError("expected an image, found nothing there") from None


def stored_size_hw(content: bytes) -> tuple[int, int]:
    """Read height and width of an image from its file's content; as `read_size_hw`.

    Raises:
        ValueError: as `read_size_hw`.
    """
    return _checked_size(io.BytesIO(content), len(content))


def _checked_size(file: Any, length: int) -> tuple[int, int]:
    try:
        with Image.open(file) as header:
            size_hw, mode, kind = (header.height, header.width), header.mode, header.format
            is_transparent = "transparency" in header.info
            turned = header.getexif().get(ExifTags.Base.Orientation, _UPRIGHT)
            file.seek(max(0, length - _TAIL))
            tail = file.read()
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        raise ValueError("expected an image, found a file without a readable header") from None
    if (kind == "PNG" and _PNG_END not in tail) or (kind == "JPEG" and b"\xff\xd9" not in tail):
        raise ValueError("expected a whole image, found one that is cut off")
    if mode not in _MODES or is_transparent:
        what = "transparency" if is_transparent else f"mode {mode}"
        raise ValueError(
            f"expected 8 bits of grey or RGB, found {what}: save it as 8-bit grey or RGB"
        )
    if turned not in (0, _UPRIGHT):
        raise ValueError(
            f"expected an upright image, found EXIF orientation {turned}: save it upright"
        )
    return size_hw


# --- the pixels that a sample means


def lanczos(pixels: Pixels, size_hw: tuple[int, int]) -> Pixels:
    """Enlarge pixels by Lanczos' kernel over 8 x 8 neighbours (OpenCV's `INTER_LANCZOS4`)."""
    resized = cv2.resize(pixels, size_hw[::-1], interpolation=cv2.INTER_LANCZOS4)
    return cast("Pixels", resized)


def read_pixels(sample: Sample, *, grey: bool = True, enlarge: Enlarge = lanczos) -> Pixels:
    """Read a sample's pixels; a crop that is not stored is cut out and scaled.

    Args:
        sample: whose image is read.
        grey: grey or colour.
        enlarge: how a crop comes to the sample's size.

    Returns:
        uint8 (H, W), or (H, W, 3) in OpenCV's order BGR.

    Raises:
        ValueError: not an image, or of another size than the sample says.
    """
    way = cv2.IMREAD_GRAYSCALE if grey else cv2.IMREAD_COLOR
    pixels = _decode(sample, way)
    frame = sample.frame
    expected = tuple(sample.size_hw if frame is None or frame.is_stored else frame.full_hw)
    if pixels.shape[:2] != expected:
        raise ValueError(f"{sample.image}: expected {expected}, found {pixels.shape[:2]}")
    if frame is None or frame.is_stored:
        return pixels
    x, y, width, height = frame.box_xywh
    part = np.ascontiguousarray(pixels[y : y + height, x : x + width])
    return part if part.shape[:2] == tuple(sample.size_hw) else enlarge(part, sample.size_hw)


def _decode(sample: Sample, way: int) -> Pixels:
    try:
        content = np.frombuffer(sample.image.read_bytes(), np.uint8)
    except OSError as error:
        raise ValueError(f"{sample.image}: expected an image: {error.strerror}") from None
    flags = way | cv2.IMREAD_IGNORE_ORIENTATION
    pixels = cv2.imdecode(content, flags) if content.size else None
    if pixels is None:
        raise ValueError(f"{sample.image}: expected an image, found a file that is none")
    return cast("Pixels", pixels)


def image_suffix(sample: Sample) -> str:
    """Return the suffix of the file that `put_image` makes."""
    suffix = sample.image.suffix
    return ".png" if _is_pending(sample) and suffix.lower() not in _LOSSLESS else suffix


def image_bytes(sample: Sample, enlarge: Enlarge = lanczos) -> bytes:
    """Return the content of a sample's image file; of a crop that is not stored, a lossless one.

    Raises:
        OSError: no such file.
        ValueError: as `read_pixels`.
    """
    if not _is_pending(sample):
        return sample.image.read_bytes()
    pixels = read_pixels(sample, grey=False, enlarge=enlarge)
    if (pixels == pixels[..., :1]).all():
        pixels = np.ascontiguousarray(pixels[..., 0])
    return bytes(cv2.imencode(image_suffix(sample), pixels)[1])


def put_image(sample: Sample, target: Path, enlarge: Enlarge = lanczos) -> None:
    """Put a sample's image at `target`: a hard link where possible, else a copy, or the crop.

    Raises:
        OSError: no such file, or `target` exists.
        ValueError: as `read_pixels`.
    """
    if isinstance(sample.image, Path) and not _is_pending(sample):
        link_or_copy(sample.image, target)
        return
    content = image_bytes(sample, enlarge)
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("xb") as file:
        file.write(content)


def _is_pending(sample: Sample) -> bool:
    return sample.frame is not None and not sample.frame.is_stored
