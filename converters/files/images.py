"""Image files: which they are, how large, and the pixels that a sample means."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, cast

import cv2
import numpy as np
import numpy.typing as npt

from converters.files.image_headers import read_header
from converters.files.provenance import copy_file, link_or_copy
from converters.types import Sample

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})
# An image that is written anew keeps its suffix where that is a lossless format.
_LOSSLESS = frozenset({".png", ".bmp", ".tif", ".tiff"})

# A pixel whose channels differ by no more is grey; an image with a smaller share of others, too.
_GREY_BELOW, _COLORED_SHARE = 16, 0.01

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
    """Read height and width in pixels from an image's header, as it is shown.

    An image that an EXIF tag turns has the size that it has then. The pixels stay unread. An alpha
    channel is dropped, as OpenCV and Pillow drop it; but for a TIFF's, which must be opaque.
    Libraries read images of 16 bits or in CMYK in different ways; masks would not fit what a
    network sees. They are refused.

    Raises:
        ValueError: the file is missing, cut off, has no header that can be read, is larger than
            Pillow allows, or is an image of such a kind.
    """
    if not path.is_file():
        found = "a folder" if path.is_dir() else "no file" if path.exists() else "nothing there"
        raise ValueError(f"expected an image, found {found}")
    try:
        with path.open("rb") as file:
            return read_header(file, os.fstat(file.fileno()).st_size).size_hw
    except OSError as error:
        raise ValueError(f"expected an image that can be read, found: {error.strerror}") from None


def stored_size_hw(content: bytes) -> tuple[int, int]:
    """Read height and width of an image from its file's content; as `read_size_hw`.

    Raises:
        ValueError: as `read_size_hw`.
    """
    return read_header(io.BytesIO(content), len(content)).size_hw


def turn_remedy(image: Path, said_hw: tuple[Any, ...], size_hw: tuple[int, int]) -> str:
    """Say what to do where annotations are in the pixels of an image before its EXIF tag turns it.

    Args:
        image: its file.
        said_hw: the height and width that the annotations speak of.
        size_hw: those of the image as it is shown.

    Returns:
        The end of a message; "" where the image is not turned, or the sizes differ otherwise.
    """
    if said_hw != size_hw[::-1]:
        return ""
    with image.open("rb") as file:
        if not read_header(file, os.fstat(file.fileno()).st_size).is_turned:
            return ""
    return (
        ", because an EXIF tag turns the image: save it upright, with the annotations in its pixels"
    )


# --- the pixels that a sample means


def lanczos(pixels: Pixels, size_hw: tuple[int, int]) -> Pixels:
    """Enlarge pixels by Lanczos' kernel over 8 x 8 neighbours (OpenCV's `INTER_LANCZOS4`)."""
    resized = cv2.resize(pixels, size_hw[::-1], interpolation=cv2.INTER_LANCZOS4)
    return cast("Pixels", resized)


def read_pixels(sample: Sample, *, grey: bool = True, enlarge: Enlarge = lanczos) -> Pixels:
    """Read a sample's pixels, upright; a crop that is not stored is cut out and scaled.

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
        content = sample.image.read_bytes()
    except OSError as error:
        raise ValueError(f"{sample.image}: expected an image: {error.strerror}") from None
    try:
        return decode_image(content, way)
    except ValueError as error:
        raise ValueError(f"{sample.image}: {error}") from None


def decode_image(content: bytes, way: int) -> Pixels:
    """Decode an image file's content, turned by its EXIF tag, without its alpha channel.

    Args:
        content: of the file.
        way: OpenCV's `IMREAD_GRAYSCALE` or `IMREAD_COLOR`.

    Returns:
        uint8 (H, W), or (H, W, 3) in OpenCV's order BGR.

    Raises:
        ValueError: not an image, or one of more pixels than OpenCV allows.
    """
    try:
        pixels = cv2.imdecode(np.frombuffer(content, np.uint8), way) if content else None
    except cv2.error:
        pixels = None
    if pixels is None:
        raise ValueError("expected an image, found a file that is none")
    return cast("Pixels", pixels)


def has_colors(pixels: Pixels) -> bool:
    """Tell whether pixels, uint8 (H, W, 3), are of more than one hue of grey.

    Radiographs are often stored in three channels, and JPEG changes each a little: one pixel in a
    hundred must differ between its channels by more than 16 of 255.
    """
    return float(np.mean(np.ptp(pixels, axis=2) > _GREY_BELOW)) > _COLORED_SHARE


def image_suffix(sample: Sample) -> str:
    """Return the suffix of the file that `put_image` makes."""
    suffix = sample.image.suffix
    return ".png" if suffix.lower() not in _LOSSLESS and _is_made(sample) else suffix


def image_bytes(sample: Sample, enlarge: Enlarge = lanczos) -> bytes:
    """Return the content of the file that `put_image` makes.

    It is the image's own, or a lossless one of a crop that is not stored, and of an image that a
    program without EXIF tags or with transparency would see differently: upright, without tag and
    without alpha channel.

    Raises:
        OSError: no such file.
        ValueError: as `read_pixels`.
    """
    if not _is_made(sample):
        return sample.image.read_bytes()
    pixels = read_pixels(sample, grey=False, enlarge=enlarge)
    if (pixels == pixels[..., :1]).all():
        pixels = np.ascontiguousarray(pixels[..., 0])
    return bytes(cv2.imencode(image_suffix(sample), pixels)[1])


class PutImage(Protocol):
    """Puts a sample's image at a path."""

    def __call__(self, sample: Sample, target: Path) -> None:
        """Put it there."""


def put_image(
    sample: Sample, target: Path, enlarge: Enlarge = lanczos, links: bool = False
) -> None:
    """Put a sample's image at `target`: a copy, or a new file.

    Args:
        sample: whose image it is.
        target: the file to write.
        enlarge: how a crop comes to its size.
        links: a hard link instead of a copy, where possible: it takes no room, and what is written
            into it changes the source.

    Raises:
        OSError: no such file, or `target` exists.
        ValueError: as `read_pixels`.
    """
    if isinstance(sample.image, Path) and not _is_made(sample):
        (link_or_copy if links else copy_file)(sample.image, target)
        return
    content = image_bytes(sample, enlarge)
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("xb") as file:
        file.write(content)


def _is_made(sample: Sample) -> bool:
    """Tell whether a sample's image is not written as its file is."""
    if sample.frame is not None and not sample.frame.is_stored:
        return True
    image = sample.image
    try:
        if isinstance(image, Path):
            with image.open("rb") as file:
                return not read_header(file, os.fstat(file.fileno()).st_size).is_plain
        content = image.read_bytes()
        return not read_header(io.BytesIO(content), len(content)).is_plain
    except (OSError, ValueError):
        # Whoever copies it says what is wrong.
        return False
