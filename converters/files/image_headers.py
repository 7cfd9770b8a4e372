"""What an image file's header says, and whether all programs read the image alike."""

from __future__ import annotations

import io
import logging
import re
import struct
import warnings
import zlib
from dataclasses import dataclass
from typing import Any, BinaryIO

from PIL import ExifTags, Image, ImageFile, TiffImagePlugin

from converters.files import dicom, git_lfs

# Without a handler Python prints what Pillow notes of such files, before the one line that we say.
logging.getLogger(TiffImagePlugin.__name__).addHandler(logging.NullHandler())
# What Pillow may take a file for, whatever its suffix.
_KINDS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")
# What all networks and vendors read in the same way: grey, colour, or a palette.
_MODES = frozenset({"1", "L", "P", "RGB"})
# The same with an alpha channel, which OpenCV and Pillow drop, and so does whoever reads by them.
_ALPHA_MODES = frozenset({"LA", "RGBA"})
# Grey of 16 bits, which is brought to 8 by `converters.files.grey_levels`.
_DEEP_MODES = frozenset({"I;16", "I;16B"})
_DEEP_STORAGE = re.compile(r"I;16[BNR]?")
DICOM = "DICOM"
# The JSRT's radiographs have no header: 12 bits of grey in big-endian words, the least is white
# (Shiraishi et al., AJR 174, 2000).
JSRT, JSRT_SUFFIX = "JSRT", ".img"
JSRT_NAME = re.compile(r"JPC(LN|NN)\d{3}", re.IGNORECASE)
JSRT_HW, JSRT_MOST = (2048, 2048), 0x0FFF
# Kinds that have one channel; DICOM may have one or three.
GREY_MODES = frozenset({"1", "L", "LA", JSRT}) | _DEEP_MODES
_JSRT_BYTES = 2 * JSRT_HW[0] * JSRT_HW[1]
_OPAQUE = (255, 255)
_UPRIGHT = 1
# Of EXIF's orientations; all other numbers mean upright, for OpenCV and Pillow alike.
_TURNED = range(2, 9)
_LYING = range(5, 9)
# As Adobe's XMP specification has it, part 3, 1.1.3; and as Pillow looks for it.
_XMP = b"http://ns.adobe.com/xap/1.0/\0"
_XMP_ORIENTATION = re.compile(rb'tiff:Orientation(?:="|>)([0-9])')
_PNG_END = b"IEND\xaeB`\x82"
_JPEG_END = b"\xff\xd9"
# PNG may carry its EXIF tags behind the pixels, and cameras leave notes behind a JPEG's end.
_TAIL = 1 << 16
# TIFF's tags of width and height.
_WIDTH, _LENGTH = 256, 257
# Its tag that says what 0 is, and the value that says white (TIFF 6.0, section 3).
_PHOTOMETRIC, _WHITE_IS_ZERO = 262, 0
# TIFF's tags: where the strips or tiles of pixels are, and their lengths in bytes.
_TIFF_PIECES = ((273, 279), (324, 325))
# Of how many channels pixels are, of how many bits and in which form each is (sections 8, 19).
_CHANNELS, _BITS, _FORM = 277, 258, 339
_FORMS = {2: " with a sign", 3: ", not whole numbers"}
_HEAD = 64
# How kinds of images begin that are not read.
_UNREAD = {
    b"GIF8": "GIF",
    b"8BPS": "a Photoshop file",
    b"%PDF": "a PDF",
    b"\0\0\0\x0cjP": "JPEG 2000",
}
# TIFF's tag of what a page is, and the bit that says a smaller copy of another (section 8).
_SUBFILE, _REDUCED = 254, 1
# What Pillow raises on broken headers; which of them depends on where they are broken.
BROKEN = (
    *(OSError, EOFError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError),
    *(AttributeError, AssertionError, NotImplementedError, struct.error, zlib.error),
)


@dataclass(frozen=True)
class Header:
    """What is known of an image file that can be used.

    Attributes:
        size_hw: height and width in pixels as programs show the image, turned by its EXIF tag.
        is_turned: whether such a tag turns or mirrors it.
        has_alpha: whether it has an alpha channel, which is dropped.
        mode: Pillow's name of its kind of pixels, such as `L` or `I;16`; or `DICOM`, `JSRT`.
    """

    size_hw: tuple[int, int]
    is_turned: bool
    has_alpha: bool
    mode: str = "L"

    @property
    def is_windowed(self) -> bool:
        """Whether its grey values become 8 bits by a window: those of more than 8."""
        return self.mode in (DICOM, JSRT) or self.mode in _DEEP_MODES

    @property
    def is_plain(self) -> bool:
        """Whether any program sees the same image, also without EXIF tags, alpha and windows."""
        return not (self.is_turned or self.has_alpha or self.is_windowed)


def read_header(file: BinaryIO, length: int) -> Header:
    """Read and check the header of an image file.

    The pixels stay unread, but where some may be transparent.

    Args:
        file: at its start; can be sought.
        length: of the file, in bytes.

    Raises:
        ValueError: no image, one that is cut off or damaged or larger than Pillow allows, or one
            that libraries read in different ways.
        MissingDependency: DICOM, and pydicom is not installed.
    """
    is_dicom = dicom.is_dicom(file.read(dicom.HEAD_BYTES))
    file.seek(0)
    if is_dicom:
        return Header(dicom.read_size_hw(file, length), False, False, DICOM)
    head = file.read(_HEAD)
    file.seek(0)
    if is_jsrt(head, length):
        return Header(JSRT_HW, False, False, JSRT)
    try:
        # Pillow warns of odd tags, and of large images that it opens nevertheless.
        with (
            warnings.catch_warnings(action="ignore"),
            Image.open(file, formats=_KINDS) as header,
        ):
            size_hw = _stored_size(header)
            tail = _tail(file, length)
            if problem := _find_problem(header, file, tail, length):
                raise _ProblemFound(problem)
            orientation = _orientation(header, tail)
            mode = str(header.mode)
            has_alpha = header.mode in _ALPHA_MODES or "transparency" in header.info
            # TIFF's readers multiply colours by alpha; all others drop it, whatever it is.
            if has_alpha and header.format == "TIFF" and (kind := _transparent(header)):
                raise _ProblemFound(_unusable(kind))
    except Image.DecompressionBombError:
        most = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        raise ValueError(f"expected at most {most} pixels, found more") from None
    except _ProblemFound as problem:
        raise ValueError(str(problem)) from None
    except BROKEN:
        if kind := _unread_tiff(file):
            raise ValueError(_unusable(kind)) from None
        file.seek(0)
        raise ValueError(f"expected an image, found {_other(file.read(_HEAD))}") from None
    shown_hw = size_hw[::-1] if orientation in _LYING else size_hw
    return Header(shown_hw, orientation in _TURNED, has_alpha, mode)


def is_jsrt(head: bytes, length: int) -> bool:
    """Tell by its first bytes and its length whether a file is a radiograph of the JSRT."""
    return length == _JSRT_BYTES and max(head[::2]) <= JSRT_MOST >> 8


def _other(head: bytes) -> str:
    """Say what a file is that is no image of a kind that is read, by its first bytes."""
    if not head:
        return "an empty file"
    if git_lfs.is_pointer(head):
        return git_lfs.WHAT
    if head.lstrip().lower().startswith((b"<!doctype html", b"<html")):
        return "a web page: fetch the image again"
    for start, kind in _UNREAD.items():
        if head.startswith(start):
            return f"{kind}: save it as PNG"
    return "a file without a readable header"


def _unread_tiff(file: BinaryIO) -> str:
    """Say of what pixels a TIFF is that Pillow does not know, as satellites' are; "" of others."""
    file.seek(0)
    try:
        tags = TiffImagePlugin.ImageFileDirectory_v2(file.read(8))
        file.seek(tags.next)
        tags.load(file)
        channels, bits = int(tags.get(_CHANNELS, 1)), tags.get(_BITS, (1,))
        form = _FORMS.get(max(tags.get(_FORM, (1,))), "")
        many = f"{channels} channels of " if channels > 1 else ""
        return f"a TIFF of {many}{max(bits)} bits{form}"
    except BROKEN:
        return ""


class _ProblemFound(Exception):  # noqa: N818 (it is no error of the code)
    """What is wrong with an image; no `ValueError`, which Pillow raises, too."""


def _stored_size(header: ImageFile.ImageFile) -> tuple[int, int]:
    """Height and width before any turn; newer Pillows turn a TIFF's size by themselves."""
    tags: Any = getattr(header, "tag_v2", {})
    return int(tags.get(_LENGTH, header.height)), int(tags.get(_WIDTH, header.width))


def _tail(file: BinaryIO, length: int) -> bytes:
    behind = file.tell()
    file.seek(max(0, length - _TAIL))
    tail = file.read()
    file.seek(behind)
    return tail


def _find_problem(header: ImageFile.ImageFile, file: BinaryIO, tail: bytes, length: int) -> str:
    """Say why an image cannot be used, whatever its pixels are; "" where it can."""
    behind = file.tell()
    if min(header.size) < 1:
        return f"expected pixels, found {header.height} x {header.width}"
    if not _is_whole(header, file, tail, behind, length):
        return "expected a whole image, found one that is cut off"
    if header.format == "TIFF" and (pages := _pages(header)) > 1:
        return f"expected one image, found {pages} pages: save each as a file of its own"
    if kind := _unlike(header):
        return _unusable(kind)
    return ""


def _pages(header: ImageFile.ImageFile) -> int:
    """How many pages of a TIFF are as large as the first, without smaller copies of others."""
    size, found = header.size, 1
    for page in range(1, getattr(header, "n_frames", 1)):
        header.seek(page)
        tags: Any = getattr(header, "tag_v2", {})
        found += header.size == size and not int(tags.get(_SUBFILE, 0)) & _REDUCED
    header.seek(0)
    return found


def _unusable(kind: str) -> str:
    return (
        f"expected 8 bits of grey or RGB, or 16 of grey, found {kind}: save it as 8-bit grey or RGB"
    )


def _unlike(header: ImageFile.ImageFile) -> str:
    """What libraries read in different ways; "" where there is nothing of the kind."""
    if header.mode in _DEEP_MODES:
        # Of 12 bits, packed, or signed: not all libraries read them.
        stored = str(_storage(header)[2][0])
        return "" if _DEEP_STORAGE.fullmatch(stored) else f"mode {header.mode}, stored as {stored}"
    if header.mode not in _MODES | _ALPHA_MODES:
        return f"mode {header.mode}"
    # Pillow's mode of 16-bit colour is RGB; only the way in which it is stored tells.
    if header.format in ("PNG", "TIFF") and ";16" in str(_storage(header)[2][0]):
        return "16 bits"
    return ""


def is_white_least(content: bytes) -> bool:
    """Tell whether an image is a TIFF whose least value is white, which OpenCV does not invert."""
    if content[:2] not in (b"II", b"MM"):
        return False
    try:
        with Image.open(io.BytesIO(content), formats=("TIFF",)) as header:
            tags: Any = getattr(header, "tag_v2", {})
            return bool(tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO)
    except BROKEN:
        return False


def _transparent(header: ImageFile.ImageFile) -> str:
    """Where some pixels are transparent, how the image says so; "" where none is."""
    named = f"mode {header.mode}" if header.mode in _ALPHA_MODES else "transparency"
    try:
        image = header if header.mode in _ALPHA_MODES else header.convert("RGBA")
        extremes = image.getchannel("A").getextrema()
    except BROKEN:
        raise _ProblemFound("expected a whole image, found one that is damaged") from None
    return "" if extremes == _OPAQUE else f"{named} with pixels that are not opaque"


def _storage(header: ImageFile.ImageFile) -> tuple[str, int, tuple[Any, ...]]:
    """How pixels are stored: codec, offset in the file, and what Pillow tells the codec."""
    codec, _, offset, told = header.tile[0]
    return codec, offset, told if isinstance(told, tuple) else (told,)


def _orientation(header: ImageFile.ImageFile, tail: bytes) -> int:
    """EXIF's orientation, 1 where there is none."""
    # Pillow decodes a PNG to look for tags behind the pixels: only where there are some.
    if header.format == "PNG" and b"eXIf" not in tail:
        exif = Image.Image.getexif(header)
    else:
        exif = header.getexif()
    told = int(exif.get(ExifTags.Base.Orientation, _xmp_orientation(header)))
    if told in _TURNED and told != _exif_orientation(header):
        raise _ProblemFound(
            f"expected an upright image, found orientation {told} in notes that only some "
            "programs read: save it upright"
        )
    return told


def _xmp_orientation(header: ImageFile.ImageFile) -> int:
    """What a JPEG's XMP says, which Pillow reads since 11.2."""
    for _, content in getattr(header, "applist", ()):
        if content.startswith(_XMP) and (found := _XMP_ORIENTATION.search(content)):
            return int(found[1])
    return _UPRIGHT


def _exif_orientation(header: ImageFile.ImageFile) -> int:
    """What stands where every program looks for it: not in XMP, nor in a PNG's texts."""
    if header.format == "TIFF":
        return int(header.getexif().get(ExifTags.Base.Orientation, _UPRIGHT))
    exif = Image.Exif()
    exif.load(header.info.get("exif", b""))
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
