"""DICOM images: their size, what they say of themselves, and their pixels as they are shown.

One image a file: grey of up to 16 bits, or RGB of 8. Stored values become what a screen shows by
the standard's own steps (DICOM PS3.3, C.11; PS3.4, N.2):

1. The modality's table, or RescaleSlope and RescaleIntercept.
2. The VOI table where there is one; else the window, WindowCenter and WindowWidth by
   VOILUTFunction; of several the first. Where the file states neither, black is the 0.5
   percentile of the image's values and white the 99.5 (`converters.files.grey_levels`); pixels of
   PixelPaddingValue do not count.
3. MONOCHROME1, whose least value is white, is inverted.

The result has 8 bits. Bits beyond BitsStored, overlays and presentation states are not shown.
Names and numbers of patients are read only where a group is made of them.
"""

from __future__ import annotations

import io
import struct
import warnings
from collections.abc import Mapping
from contextlib import AbstractContextManager
from functools import cache
from types import ModuleType
from typing import Any, BinaryIO

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from converters.errors import import_optional, one_line
from converters.files.grey_levels import Levels, Pixels, percentile_range, to_8_bits

SUFFIXES = frozenset({".dcm", ".dicom"})
# The mark that stands behind the preamble (PS3.10, 7.1).
_MARK, _MARK_AT = b"DICM", 128
# As a file begins that has no preamble: with one of the first elements of group 2 or 8.
_BARE = (b"\x02\x00", b"\x08\x00")
HEAD_BYTES = _MARK_AT + len(_MARK)
# Lists the files of a disk, and has no image.
_DIRECTORY = "DICOMDIR"
_GREY, _COLOUR = ("MONOCHROME1", "MONOCHROME2"), ("RGB", "YBR_FULL", "YBR_FULL_422")
_J2K_COLOUR = ("YBR_ICT", "YBR_RCT")
# Where compressed pixels end (PS3.5, A.4).
_END = b"\xfe\xff\xdd\xe0"
_TAIL = 1 << 16
_SPACINGS = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing")
_NEEDED = (
    *("Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation"),
    *("BitsAllocated", "BitsStored", "Modality", *_SPACINGS),
)
# Narrower than any two levels differ.
_THRESHOLD = 1e-6
# What pydicom raises on broken files; which of them depends on where they are broken.
_BROKEN = (
    *(OSError, EOFError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError),
    *(AssertionError, RuntimeError, struct.error),
)
# Of an entry of a table (PS3.3, C.11.2.1.1).
_MOST_BITS = 16
Dataset = Any


def is_dicom(head: bytes) -> bool:
    """Tell by a file's first 132 bytes whether it is DICOM, with or without a preamble."""
    return head[_MARK_AT:HEAD_BYTES] == _MARK or (head[:2] in _BARE and head[3:4] == b"\0")


def is_named_dicom(name: str) -> bool:
    """Tell whether a file without a suffix may be an image of DICOM's; DICOMDIR is none."""
    return name.upper() != _DIRECTORY


@cache
def _pydicom() -> ModuleType:
    """Import pydicom; raises MissingDependency."""
    module = import_optional("pydicom", "dicom")
    config = import_optional("pydicom.config", "dicom")
    import_optional("pydicom.pixels", "dicom")
    # Values that break a rule of the standard are met everywhere, and its warnings help nobody.
    config.settings.reading_validation_mode = config.IGNORE
    return module


def _quietly() -> AbstractContextManager[object]:
    """What pydicom warns of is either an error here, or changes nothing."""
    return warnings.catch_warnings(action="ignore")


# --- the header


def read_size_hw(file: BinaryIO, length: int) -> tuple[int, int]:
    """Read height and width in pixels, and check that the image can be used.

    Args:
        file: at its start; can be sought.
        length: of the file, in bytes.

    Raises:
        ValueError: no image, one of a kind that is not read, or one that is cut off.
        MissingDependency: pydicom is not installed.
    """
    try:
        with _quietly():
            dataset = _pydicom().dcmread(
                file, stop_before_pixels=True, force=True, specific_tags=list(_NEEDED)
            )
            problem = _find_problem(dataset) or _find_cut(dataset, file, length)
        size_hw = (0, 0) if problem else (int(dataset.Rows), int(dataset.Columns))
    except _BROKEN as error:
        raise ValueError(f"expected DICOM, found a damaged file: {one_line(error)}") from None
    if problem:
        raise ValueError(problem)
    return size_hw


def _find_problem(dataset: Dataset) -> str:
    """Say why an image cannot be used; "" where it can."""
    height, width = int(dataset.get("Rows") or 0), int(dataset.get("Columns") or 0)
    if min(height, width) < 1:
        kind = dataset.get("Modality")
        return f"expected an image, found DICOM without one{f' (modality {kind})' if kind else ''}"
    if height * width > (most := 2 * (Image.MAX_IMAGE_PIXELS or height * width)):
        return f"expected at most {most} pixels, found more"
    frames = int(dataset.get("NumberOfFrames") or 1)
    if frames > 1:
        return f"expected one image, found {frames} frames: save each as a file of its own"
    if kind := _unlike(dataset):
        return (
            f"expected grey of 8 or 16 bits or RGB of 8, found {kind}: save it as 8-bit grey or RGB"
        )
    return _undecodable(_syntax(dataset))


def _unlike(dataset: Dataset) -> str:
    """What is neither grey nor RGB of such bits; "" where there is nothing of the kind."""
    samples, bits = int(dataset.get("SamplesPerPixel") or 1), int(dataset.get("BitsAllocated") or 0)
    meaning = str(dataset.get("PhotometricInterpretation") or "no PhotometricInterpretation")
    is_grey = samples == 1 and meaning in _GREY and bits in (8, 16)
    is_colour = samples == 3 and meaning in (*_COLOUR, *_J2K_COLOUR) and bits == 8
    return "" if is_grey or is_colour else f"{meaning} of {bits} bits"


def _syntax(dataset: Dataset) -> Any:
    """How pixels are stored; old files do not say it, but show it by how they are written."""
    from_meta = dataset.file_meta.get("TransferSyntaxUID")
    if from_meta:
        return from_meta
    uids = import_optional("pydicom.uid", "dicom")
    implicit, little = dataset.original_encoding
    if implicit:
        return uids.ImplicitVRLittleEndian
    return uids.ExplicitVRLittleEndian if little else uids.ExplicitVRBigEndian


def _undecodable(syntax: Any) -> str:
    """What to install for a transfer syntax; "" where pixels can be decoded."""
    found = f"expected pixels that can be decoded, found transfer syntax {syntax.name} ({syntax})"
    try:
        decoder = _pydicom().pixels.get_decoder(syntax)
    except NotImplementedError:
        return f"{found}, which pydicom does not read: save it uncompressed"
    if decoder.is_available:
        return ""
    return f"{found}: install {_decoders(decoder)}, or save it uncompressed"


def _decoders(decoder: Any) -> str:
    """The packages that pydicom could decode a transfer syntax with, if they were there."""
    # Such as "gdcm - requires gdcm>=3.0.10": the package that brings it is called otherwise.
    return " or ".join(
        needs.partition(" requires ")[2].replace("gdcm>=", "python-gdcm>=")
        for needs in decoder.missing_dependencies
    )


def _find_cut(dataset: Dataset, file: BinaryIO, length: int) -> str:
    """Say whether pixels are missing at the end; "" where all are there."""
    syntax = _syntax(dataset)
    if syntax.is_deflated:
        return ""
    begin = file.tell()
    if syntax.is_compressed:
        file.seek(max(begin, length - _TAIL))
        is_whole = _END in file.read()
        if not is_whole:
            file.seek(begin)
            is_whole = _END in file.read()
    else:
        bits = int(dataset.BitsAllocated) * int(dataset.get("SamplesPerPixel") or 1)
        # One pixel in two has colours.
        bits = bits * 2 // 3 if dataset.PhotometricInterpretation == "YBR_FULL_422" else bits
        # Before the pixels are tag and length, and the type where it is explicit (PS3.5, 7.1).
        begin += 8 if syntax.is_implicit_VR else 12
        is_whole = begin + int(dataset.Rows) * int(dataset.Columns) * bits // 8 <= length
    return "" if is_whole else "expected a whole image, found one that is cut off"


def read_spacing_mm(file: BinaryIO) -> list[float] | None:
    """Read how far the centres of neighbouring pixels lie apart.

    Args:
        file: at its start; can be sought.

    Returns:
        Down and right, in mm: PixelSpacing, which is calibrated; else ImagerPixelSpacing, at the
        detector; else NominalScannedPixelSpacing. None where the file does not say it.
    """
    try:
        with _quietly():
            dataset = _pydicom().dcmread(
                file, stop_before_pixels=True, force=True, specific_tags=list(_SPACINGS)
            )
        for name in _SPACINGS:
            down, right = (float(value) for value in dataset.get(name) or (0, 0))
            if 0 < down < np.inf and 0 < right < np.inf:
                return [down, right]
    except _BROKEN:
        return None
    return None


def read_element(file: BinaryIO, keyword: str) -> str:
    """Read an element as text, such as PatientID; "" where the file does not have it.

    Raises:
        ValueError: no keyword of the standard's, or no DICOM.
    """
    dictionary = import_optional("pydicom.datadict", "dicom")
    if dictionary.tag_for_keyword(keyword) is None:
        raise ValueError(f"expected a keyword of DICOM's such as PatientID, found '{keyword}'")
    if not is_dicom(file.read(HEAD_BYTES)):
        raise ValueError("expected DICOM, found another kind of file")
    file.seek(0)
    try:
        with _quietly():
            dataset = _pydicom().dcmread(
                file, stop_before_pixels=True, force=True, specific_tags=[keyword]
            )
        return str(dataset.get(keyword) or "").strip()
    except _BROKEN as error:
        raise ValueError(f"expected DICOM, found a damaged file: {one_line(error)}") from None


# --- pixels


def decode_dicom(content: bytes, grey: bool) -> Pixels:
    """Decode a DICOM image as it is shown; see the module.

    Args:
        content: of the file.
        grey: grey or colour.

    Returns:
        uint8 (H, W), or (H, W, 3) in OpenCV's order BGR.

    Raises:
        ValueError: as `read_size_hw`, or pixels that are damaged.
        MissingDependency: pydicom is not installed.
    """
    read_size_hw(io.BytesIO(content), len(content))
    pydicom = _pydicom()
    try:
        with _quietly():
            dataset = pydicom.dcmread(io.BytesIO(content), force=True)
            dataset.file_meta.TransferSyntaxUID = _syntax(dataset)
            stored = pydicom.pixels.pixel_array(dataset)
        if stored.ndim == 2:
            shown = _shown(stored, dataset)
            return shown if grey else cv2.cvtColor(shown, cv2.COLOR_GRAY2BGR)  # type: ignore[return-value]
        way = cv2.COLOR_RGB2GRAY if grey else cv2.COLOR_RGB2BGR
        return cv2.cvtColor(stored, way)  # type: ignore[return-value]
    except (*_BROKEN, cv2.error) as error:
        what = f"expected an image, found damaged pixels: {one_line(error)}"
        raise ValueError(f"{what}{_other_decoder(content)}") from None


def _other_decoder(content: bytes) -> str:
    """What else may read compressed pixels; "" where nothing would."""
    dataset = _pydicom().dcmread(io.BytesIO(content), stop_before_pixels=True, force=True)
    syntax = _syntax(dataset)
    others = _decoders(_pydicom().pixels.get_decoder(syntax))
    return f"; if {syntax.name} is not damaged, install {others}" if others else ""


def _shown(stored: npt.NDArray[Any], dataset: Dataset) -> Pixels:
    """Grey values as a screen shows them, uint8 (H, W), by a table of all that occur."""
    first = int(stored.min())
    places = stored.astype(np.int32) - first
    inputs = np.arange(first, int(stored.max()) + 1)
    levels = _levels(inputs, dataset)
    table = _of_voi_table(levels, dataset)
    if table is None:
        table = _windowed(levels, dataset)
    if table is None:
        counts = np.bincount(places.ravel(), minlength=len(inputs))
        table = to_8_bits(levels, *percentile_range(levels, _unpadded(counts, inputs, dataset)))
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        table = 255 - table
    return np.ascontiguousarray(table[places])


def _levels(inputs: npt.NDArray[np.int64], dataset: Dataset) -> Levels:
    """What stored values mean, by the modality's table or its rescaling.

    Raises:
        ValueError: the rescaling has no numbers, or makes all values the same.
    """
    for name in ("RescaleSlope", "RescaleIntercept"):
        value = dataset.get(name, 0)
        if not isinstance(value, int | float) or not np.isfinite(float(value)):
            raise ValueError(f"expected {name} to be a number, found {str(value)!r:.40}")
    levels = np.asarray(_pydicom().pixels.apply_modality_lut(inputs, dataset), np.float64)
    if len(levels) > 1 and not levels.min() < levels.max():
        raise ValueError("expected a rescaling that tells values apart, found all become one")
    return levels


def _unpadded(
    counts: npt.NDArray[np.int64], inputs: npt.NDArray[np.int64], dataset: Dataset
) -> npt.NDArray[np.int64]:
    """Counts without pixels that only fill up the frame, unless there are no others."""
    padding = dataset.get("PixelPaddingValue")
    if padding is None:
        return counts
    limit = dataset.get("PixelPaddingRangeLimit")
    ends = sorted((int(padding), int(padding if limit is None else limit)))
    left = np.where((inputs >= ends[0]) & (inputs <= ends[1]), 0, counts)
    return left if left.any() else counts


def _of_voi_table(levels: Levels, dataset: Dataset) -> Pixels | None:
    """Levels by the first table of VOILUTSequence; None where there is none (PS3.3, C.11.2.1.1)."""
    tables = dataset.get("VOILUTSequence")
    if not tables:
        return None
    entries, first, bits = (int(value) for value in tables[0].LUTDescriptor)
    if not 1 <= bits <= _MOST_BITS:
        raise ValueError(f"expected LUTDescriptor to say 8 to {_MOST_BITS} bits, found {bits}")
    data = tables[0].LUTData
    if isinstance(data, bytes):
        data = np.frombuffer(data, "<u2" if _syntax(dataset).is_little_endian else ">u2")
    outputs = np.asarray(data, np.float64)[: entries or 1 << 16]
    if first >= 1 << 15 and levels.min() < 0:
        first -= 1 << 16  # a signed number that was read as one without sign
    places = np.clip(np.rint(levels - first), 0, len(outputs) - 1).astype(np.int64)
    return to_8_bits(outputs[places], 0, 2**bits - 1)


def _windowed(levels: Levels, dataset: Dataset) -> Pixels | None:
    """Levels by the first window; None where there is none that can be used (PS3.3, C.11.2.1)."""
    centre, width = _first(dataset, "WindowCenter"), _first(dataset, "WindowWidth")
    function = str(dataset.get("VOILUTFunction") or "LINEAR").upper()
    if centre is None or width is None or width <= 0:
        return None
    if function == "SIGMOID":
        # The exponent's bound keeps it within a float's range.
        shares = 1 / (1 + np.exp(np.clip(-4 * (levels - centre) / width, -700, 700)))
        return to_8_bits(shares, 0, 1)
    if function == "LINEAR_EXACT":
        return to_8_bits(levels, centre - width / 2, centre + width / 2)
    if width < 1:
        return None
    low = centre - 0.5 - (width - 1) / 2
    # A window of width 1 is a threshold.
    return to_8_bits(levels, low, low + max(width - 1, _THRESHOLD))


def _first(dataset: Mapping[str, Any], name: str) -> float | None:
    """The first of an element's numbers; None without a finite one."""
    value = dataset.get(name)
    if value is None or value == "":
        return None
    number = float(value if isinstance(value, (int, float)) else value[0])
    return number if np.isfinite(number) else None
