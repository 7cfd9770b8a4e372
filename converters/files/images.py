"""Image files: which they are, how large, and the pixels that a sample means."""

from __future__ import annotations

import io
import os
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast

import cv2
import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageFile

from converters.files.provenance import copy_file, link_or_copy
from converters.types import Sample

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})
# A crop keeps its image's suffix where that is a lossless format.
_LOSSLESS = frozenset({".png", ".bmp", ".tif", ".tiff"})
# What Pillow may take a file for, whatever its suffix.
_KINDS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")
# What all networks and vendors read in the same way: grey, colour, or a palette without alpha.
_MODES = frozenset({"1", "L", "P", "RGB"})
_UPRIGHT = 1
_PNG_END = b"IEND\xaeB`\x82"
_JPEG_END = b"\xff\xd9"
# PNG may carry its EXIF tags behind the pixels, and cameras leave notes behind a JPEG's end.
_TAIL = 1 << 16
# TIFF's tags: where the strips or tiles of pixels are, and their lengths in bytes.
_TIFF_PIECES = ((273, 279), (324, 325))
# What Pillow raises on broken headers; which of them depends on where they are broken.
_BROKEN = (
    *(OSError, EOFError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError),
    *(AttributeError, AssertionError, NotImplementedError, struct.error, zlib.error),
)

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
    """Read height and width in pixels from an image's header; the pixels stay unread.

    Libraries read images of 16 bits, with transparency, in CMYK, or turned by an EXIF tag in
    different ways; masks would not fit what a network sees. They are refused.

    Raises:
        ValueError: the file is missing, cut off, has no header that can be read, is larger than
            Pillow allows, or is an image of such a kind.
    """
    if not path.is_file():
        found = "a folder" if path.is_dir() else "no file" if path.exists() else "nothing there"
        raise ValueError(f"expected an image, found {found}")
    try:
        with path.open("rb") as file:
            return _checked_size(file, os.fstat(file.fileno()).st_size)
    except OSError as error:
        raise ValueError(f"expected an image that can be read, found: {error.strerror}") from None


def stored_size_hw(content: bytes) -> tuple[int, int]:
    """Read height and width of an image from its file's content; as `read_size_hw`.

    Raises:
        ValueError: as `read_size_hw`.
    """
    return _checked_size(io.BytesIO(content), len(content))


def _checked_size(file: BinaryIO, length: int) -> tuple[int, int]:
    try:
        # Pillow warns of odd tags, and of large images that it opens nevertheless.
        with (
            warnings.catch_warnings(action="ignore"),
            Image.open(file, formats=_KINDS) as header,
        ):
            size_hw = header.height, header.width
            problem = _find_problem(header, file, length)
    except Image.DecompressionBombError:
        most = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        raise ValueError(f"expected at most {most} pixels, found more") from None
    except _BROKEN:
        raise ValueError("expected an image, found a file without a readable header") from None
    if problem:
        raise ValueError(problem)
    return size_hw


def _find_problem(header: ImageFile.ImageFile, file: BinaryIO, length: int) -> str:
    """Say why an image cannot be used; "" where it can."""
    behind = file.tell()
    file.seek(max(0, length - _TAIL))
    tail = file.read()
    if min(header.size) < 1:
        return f"expected pixels, found {header.height} x {header.width}"
    if not _is_whole(header, file, tail, behind, length):
        return "expected a whole image, found one that is cut off"
    if kind := _unlike(header):
        return f"expected 8 bits of grey or RGB, found {kind}: save it as 8-bit grey or RGB"
    if (turned := _orientation(header, tail)) not in (0, _UPRIGHT):
        return f"expected an upright image, found EXIF orientation {turned}: save it upright"
    return ""


def _unlike(header: ImageFile.ImageFile) -> str:
    """What libraries read in different ways; "" where there is nothing of the kind."""
    if header.mode not in _MODES:
        return f"mode {header.mode}"
    if "transparency" in header.info:
        return "transparency"
    # Pillow's mode of 16-bit colour is RGB; only the way in which it is stored tells.
    if header.format in ("PNG", "TIFF") and ";16" in str(_storage(header)[2][0]):
        return "16 bits"
    return ""


def _storage(header: ImageFile.ImageFile) -> tuple[str, int, tuple[Any, ...]]:
    """How pixels are stored: codec, offset in the file, and what Pillow tells the codec."""
    codec, _, offset, told = header.tile[0]
    return codec, offset, told if isinstance(told, tuple) else (told,)


def _orientation(header: ImageFile.ImageFile, tail: bytes) -> int:
    # Pillow decodes a PNG to look for tags behind the pixels: only where there are some.
    if header.format == "PNG" and b"eXIf" not in tail:
        exif = Image.Image.getexif(header)
    else:
        exif = header.getexif()
    return int(exif.get(ExifTags.Base.Orientation, _UPRIGHT))


def _is_whole(
    header: ImageFile.ImageFile, file: BinaryIO, tail: bytes, behind: int, length: int
) -> bool:
    """Tell whether the file goes on to the image's end, wherever that is stored.

    Args:
        header: the opened image.
        file: its file.
        tail: the file's last bytes.
        behind: where in the file the header ends.
        length: of the file, in bytes.
    """
    match header.format:
        case "PNG":
            return _PNG_END in tail or _PNG_END in _rest(file, 0)
        case "JPEG" | "MPO":
            # A thumbnail in the header has an end of its own.
            near = tail[max(0, behind - (length - len(tail))) :]
            return _JPEG_END in near or _JPEG_END in _rest(file, behind)
        case "BMP":
            codec, offset, told = _storage(header)
            return codec != "raw" or offset + told[1] * header.height <= length
        case "TIFF":
            return _last_byte(header) <= length
    return True


def _rest(file: BinaryIO, start: int) -> bytes:
    file.seek(start)
    return file.read()


def _last_byte(header: ImageFile.ImageFile) -> int:
    tags: Any = getattr(header, "tag_v2", {})
    pieces = (zip(tags.get(at, ()), tags.get(size, ()), strict=True) for at, size in _TIFF_PIECES)
    return max((at + size for piece in pieces for at, size in piece), default=0)


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
    try:
        flags = way | cv2.IMREAD_IGNORE_ORIENTATION
        pixels = cv2.imdecode(content, flags) if content.size else None
    except cv2.error:
        pixels = None
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


class PutImage(Protocol):
    """Puts a sample's image at a path."""

    def __call__(self, sample: Sample, target: Path) -> None:
        """Put it there."""


def put_image(
    sample: Sample, target: Path, enlarge: Enlarge = lanczos, links: bool = False
) -> None:
    """Put a sample's image at `target`: a copy, or the crop.

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
    if isinstance(sample.image, Path) and not _is_pending(sample):
        (link_or_copy if links else copy_file)(sample.image, target)
        return
    content = image_bytes(sample, enlarge)
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("xb") as file:
        file.write(content)


def _is_pending(sample: Sample) -> bool:
    return sample.frame is not None and not sample.frame.is_stored
