"""Image files: which they are, how large, and the pixels that a sample means."""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol, cast

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from converters.errors import ImageError, one_line
from converters.files import dicom
from converters.files.grey_levels import stretch
from converters.files.image_headers import (
    BROKEN,
    DICOM,
    GREY_MODES,
    JSRT_HW,
    JSRT_MOST,
    JSRT_NAME,
    JSRT_SUFFIX,
    Header,
    is_jsrt,
    is_white_least,
    read_header,
)
from converters.files.png import SIGNATURE, is_still, pixels_only
from converters.files.provenance import copy_file, link_or_copy
from converters.types import ImageFile, Sample

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", *dicom.SUFFIXES})
SPACING = "spacing_mm"
# An image that is written anew keeps its suffix where that is a lossless format.
_LOSSLESS = frozenset({".png", ".bmp", ".tif", ".tiff"})

# A pixel whose channels differ by no more is grey; an image with a smaller share of others, too.
_GREY_BELOW, _COLORED_SHARE = 16, 0.01

# Some hundred bytes each.
_HEADERS = 1 << 14
_TIFF = (b"II", b"MM")
Pixels = npt.NDArray[np.uint8]
Enlarge = Callable[[Pixels, tuple[int, int]], Pixels]
"""Takes pixels (h, w) or (h, w, 3) and the wanted (height, width); gives them at that size."""


def is_image(path: Path) -> bool:
    """Tell by its name whether a file is an image; hidden files are none.

    File managers leave hidden files such as `._image.png`. A file without a suffix is an image if
    it is DICOM by its first bytes; such files are what archives send. One that ends in `.img` is
    one if it is called as the JSRT's radiographs: others are disks, or volumes.

    >>> is_image(Path("image1_R.PNG")), is_image(Path("._image1_R.png"))
    (True, False)
    """
    if path.name.startswith("."):
        return False
    suffix = path.suffix.lower()
    if suffix == JSRT_SUFFIX:
        return bool(JSRT_NAME.fullmatch(path.stem))
    return suffix in SUFFIXES or (not suffix and _is_unnamed_dicom(path))


def _is_unnamed_dicom(path: Path) -> bool:
    try:
        if not dicom.is_named_dicom(path.name) or not path.is_file():
            return False
        with path.open("rb") as file:
            return dicom.is_dicom(file.read(dicom.HEAD_BYTES))
    except OSError:
        return False


def read_size_hw(path: Path) -> tuple[int, int]:
    """Read height and width in pixels from an image's header, as it is shown.

    An image that an EXIF tag turns has the size that it has then. The pixels stay unread. An alpha
    channel is dropped, as OpenCV and Pillow drop it; but for a TIFF's, which must be opaque.
    DICOM and grey of 16 bits become 8 bits by a window (`decode_image`). Libraries read colours of
    16 bits, or in CMYK, in different ways; masks would not fit what a network sees. They are
    refused.

    Raises:
        ImageError: the file is missing, cut off, has no header that can be read, is larger than
            Pillow allows, or is an image of such a kind.
        MissingDependency: it is DICOM, and pydicom is not installed.
    """
    if not path.is_file():
        found = "a folder" if path.is_dir() else "no file" if path.exists() else "nothing there"
        raise ImageError(path, f"expected an image, found {found}")
    try:
        return _header(path).size_hw
    except OSError as error:
        what = f"expected an image that can be read, found: {error.strerror}"
        raise ImageError(path, what) from None
    except ValueError as error:
        raise ImageError(path, error) from None


def stored_size_hw(content: bytes) -> tuple[int, int]:
    """Read height and width of an image from its file's content; as `read_size_hw`.

    Raises:
        ValueError: as `read_size_hw`.
    """
    return read_header(io.BytesIO(content), len(content)).size_hw


def _header(image: ImageFile) -> Header:
    """Read an image's header; raises OSError and ValueError."""
    if isinstance(image, Path):
        known = image.stat()
        return _stored_header(str(image), known.st_size, known.st_mtime_ns, known.st_ino)
    content = image.read_bytes()
    return read_header(io.BytesIO(content), len(content))


# Whoever reads, writes and counts images asks for each of them three times.
@lru_cache(maxsize=_HEADERS)
def _stored_header(path: str, *_: int) -> Header:
    """Read the header of a file, whose size, time and number tell it from what was there before."""
    with open(path, "rb") as file:
        return read_header(file, os.fstat(file.fileno()).st_size)


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
    if not _header(image).is_turned:
        return ""
    return (
        ", because an EXIF tag turns the image: save it upright, with the annotations in its pixels"
    )


def with_spacing(sample: Sample) -> Sample:
    """Return a sample of a DICOM image with the attribute `spacing_mm`; others as they are.

    It is how far the centres of the file's pixels lie apart, down and right, in mm
    (`converters.files.dicom.read_spacing_mm`). A crop has that of the original. What a data set
    says itself stays.
    """
    image = sample.image
    if not isinstance(image, Path) or image.suffix.lower() not in {"", *dicom.SUFFIXES}:
        return sample
    with image.open("rb") as file:
        spacing_mm = dicom.read_spacing_mm(file)
    if spacing_mm is None:
        return sample
    return replace(sample, attributes={SPACING: spacing_mm, **sample.attributes})


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

    DICOM is decoded as a screen shows it (`converters.files.dicom`); grey of 16 bits, and of the
    JSRT's 12, of which no file says how bright it is, is stretched from the 0.5 to the 99.5
    percentile of its own values (`converters.files.grey_levels.stretch`). Both are the same
    wherever an image is read.

    Args:
        content: of the file.
        way: OpenCV's `IMREAD_GRAYSCALE` or `IMREAD_COLOR`.

    Returns:
        uint8 (H, W), or (H, W, 3) in OpenCV's order BGR.

    Raises:
        ValueError: not an image, a PNG whose checksums are wrong, a TIFF that cannot be decoded,
            or an image of more pixels than OpenCV allows.
        MissingDependency: it is DICOM, and pydicom is not installed.
    """
    if dicom.is_dicom(content[: dicom.HEAD_BYTES]):
        return dicom.decode_dicom(content, way == cv2.IMREAD_GRAYSCALE)
    if is_jsrt(content[: dicom.HEAD_BYTES], len(content)):
        # As the DICOM standard's MONOCHROME1, the least value is white.
        levels = np.frombuffer(content, ">u2").astype(np.uint16)
        if levels.max() > JSRT_MOST:
            raise ValueError(f"expected 12 bits of grey, big-endian, found {levels.max()}")
        grey = (np.uint8(255) - stretch(levels)).reshape(JSRT_HW)
        return grey if way == cv2.IMREAD_GRAYSCALE else cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR)
    depth = way | cv2.IMREAD_ANYDEPTH
    if content.startswith(SIGNATURE):
        content = pixels_only(content)
    elif content[:2] in _TIFF:
        _check_tiff(content)
    try:
        pixels = cv2.imdecode(np.frombuffer(content, np.uint8), depth) if content else None
    except cv2.error:
        pixels = None
    if pixels is None:
        raise ValueError("expected an image, found a file that is none")
    return cast("Pixels", pixels if pixels.dtype == np.uint8 else _of_16_bits(pixels, content))


def _check_tiff(content: bytes) -> None:
    """Decode a TIFF by Pillow, because OpenCV gives pixels also of one that is damaged."""
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(content)) as image:
            image.load()
    except Image.DecompressionBombError:
        raise ValueError("expected fewer pixels, found more than Pillow allows") from None
    except BROKEN as error:
        raise ValueError(
            f"expected a whole image, found a damaged one ({one_line(error)})"
        ) from None


def _of_16_bits(pixels: npt.NDArray[Any], content: bytes) -> Pixels:
    """Bring pixels that were decoded deeper than 8 bits to these, with as many channels."""
    grey = pixels if pixels.ndim == 2 else pixels[..., 0]
    if pixels.dtype != np.uint16 or (pixels.ndim == 3 and (pixels != grey[..., None]).any()):
        raise ValueError(f"expected 16 bits of grey, found colours or {pixels.dtype}")
    shown = stretch(grey)
    if is_white_least(content):
        shown = np.uint8(255) - shown
    return shown if pixels.ndim == 2 else cv2.cvtColor(shown, cv2.COLOR_GRAY2BGR)


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
    without alpha channel. Of DICOM, and of grey of 16 bits, it is a PNG of 8 bits (a BMP or TIFF
    keeps its kind), as networks see it; nothing of a DICOM header goes with it.

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


def is_plain_png(sample: Sample) -> bool:
    """Tell whether an image is, as it is, a PNG of grey or colours of 8 bits, of one frame.

    Raises:
        OSError: no such file.
        ValueError: not an image.
    """
    if sample.image.suffix.lower() != ".png" or _is_made(sample):
        return False
    return _header(sample.image).mode in ("L", "RGB") and is_still(sample.image.read_bytes())


def count_channels(sample: Sample) -> int:
    """Return how many channels a sample's image has as networks see it: 1 of grey, or 3.

    A palette has colours.

    Raises:
        OSError: no such file.
        ValueError: as `read_pixels`.
    """
    mode = _header(sample.image).mode
    if mode == DICOM:
        pixels = read_pixels(sample, grey=False)
        return 1 if (pixels == pixels[..., :1]).all() else 3
    return 1 if mode in GREY_MODES else 3


def count_windowed(samples: Iterable[Sample]) -> int:
    """Return of how many samples the image is written as 8 bits of what its file holds."""
    count = 0
    for sample in samples:
        with suppress(OSError, ValueError):
            count += _header(sample.image).is_windowed
    return count


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
    try:
        return not _header(sample.image).is_plain
    except (OSError, ValueError):
        # Whoever copies it says what is wrong.
        return False
