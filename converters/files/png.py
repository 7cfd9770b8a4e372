"""PNG files by their chunks: checked, and without what OpenCV would only grumble about; written.

OpenCV decodes by libpng, which writes what it does not like to the process' standard error by
itself. So damage is found here, by the checksums, and chunks that say nothing of pixels, such as
colour profiles that many programs write wrong, do not reach it.

Most of a mask is empty, and OpenCV compresses that anew for each. Here rows of zeros are compressed
once, and joined with those that have pixels: parts of deflate that end on a byte and refer to
nothing before them may lie one behind the other.

Sources: PNG specification, third edition, sections 5.3 (chunks and their checksums), 5.4 (names),
9.2 (filters) and 11.2 (IHDR, IDAT); RFC 1950 (Adler-32), RFC 1951, section 3.2.4.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import numpy.typing as npt

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_FRAME = 12
# Bit 5 of a name's first byte is set where a reader may pass the chunk over.
_MAY_BE_PASSED_OVER = 0x20
_NEEDED = frozenset({b"IHDR", b"PLTE", b"IDAT", b"IEND"})
# Of the others: transparency and orientation, and the frames of animations.
_KEPT = _NEEDED | {b"tRNS", b"eXIf", b"acTL", b"fcTL", b"fdAT"}
_BITS, _GREY = 8, 0
# Window of 32 kB, fastest; then an empty last block.
_ZLIB_HEAD, _LAST_BLOCK = b"\x78\x01", b"\x03\x00"
_ADLER = 65521


def check_png(content: bytes) -> None:
    """Compare the checksums of all chunks.

    Raises:
        ValueError: no PNG, or one that is cut off or damaged.
    """
    for at, kind, end in _chunks(content):
        _check(content, at, kind, end)


def is_still(content: bytes) -> bool:
    """Tell whether a file is a PNG of one frame.

    Args:
        content: of the file, from its start.
    """
    head = content[: content.find(b"IDAT")]
    return content.startswith(SIGNATURE) and b"acTL" not in head


def pixels_only(content: bytes) -> bytes:
    """Return a PNG's content without the chunks that say nothing of pixels.

    Args:
        content: of a PNG file.

    Raises:
        ValueError: it is cut off or damaged, but for chunks that are left out.
    """
    parts, start = [content[: len(SIGNATURE)]], len(SIGNATURE)
    last = start
    for at, kind, end in _chunks(content):
        if kind in _KEPT or not kind[0] & _MAY_BE_PASSED_OVER:
            _check(content, at, kind, end)
        else:
            parts.append(content[start:at])
            start = end
        last = end
    if len(parts) == 1:
        return content
    return b"".join([*parts, content[start:last]])


def _chunks(content: bytes) -> Iterator[tuple[int, bytes, int]]:
    """Yield where each chunk begins, its name, and where it ends."""
    if not content.startswith(SIGNATURE):
        raise ValueError("expected a PNG, found a file that is none")
    at, kind = len(SIGNATURE), b""
    while kind != b"IEND":
        length = int.from_bytes(content[at : at + 4], "big")
        end = at + _FRAME + length
        kind = content[at + 4 : at + 8]
        if end > len(content):
            raise ValueError("expected a whole image, found one that is cut off")
        yield at, kind, end
        at = end


def _check(content: bytes, at: int, kind: bytes, end: int) -> None:
    checksum = zlib.crc32(memoryview(content)[at + 4 : end - 4])
    is_unknown = not kind[0] & _MAY_BE_PASSED_OVER and kind not in _NEEDED
    if is_unknown or checksum != int.from_bytes(content[end - 4 : end], "big"):
        raise ValueError(f"expected a whole image, found one that is damaged at byte {at}")


def encode_grey(pixels: npt.NDArray[np.uint8], x: int, y: int, size_hw: tuple[int, int]) -> bytes:
    """Return the PNG of an image that is 0 but for one box, 8 bits of grey.

    Args:
        pixels: uint8 (h, w), what is in the box; may be (0, 0).
        x: column of the box's left edge.
        y: row of its upper edge.
        size_hw: the image's height and width.
    """
    height, width = size_hw
    rows = np.zeros((len(pixels), 1 + width), np.uint8)  # each after the number of its filter
    rows[:, 1 + x : 1 + x + pixels.shape[1]] = pixels
    above, below = y, height - y - len(pixels)
    checksum = zlib.adler32(rows.data, _after_zeros(1, above * (1 + width)))
    checksum = _after_zeros(checksum, below * (1 + width))
    packer = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS, strategy=zlib.Z_RLE)
    parts = (
        *(_ZLIB_HEAD, _empty_rows(above, width)),
        *(packer.compress(rows.data), packer.flush(zlib.Z_FULL_FLUSH)),
        *(_empty_rows(below, width), _LAST_BLOCK, checksum.to_bytes(4, "big")),
    )
    head = struct.pack(">IIBBBBB", width, height, _BITS, _GREY, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", b"".join(parts)), (b"IEND", b""))
    return SIGNATURE + b"".join(_chunk(kind, content) for kind, content in chunks)


def _chunk(kind: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(content, zlib.crc32(kind)).to_bytes(4, "big")
    return len(content).to_bytes(4, "big") + kind + content + checksum


def _empty_rows(count: int, width: int) -> bytes:
    """Rows of zeros as a part of deflate, by doublings."""
    return b"".join(
        _doubled_row(width, power) for power in range(count.bit_length()) if count >> power & 1
    )


@lru_cache(maxsize=64)
def _doubled_row(width: int, power: int) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return packer.compress(bytes((1 + width) << power)) + packer.flush(zlib.Z_FULL_FLUSH)


def _after_zeros(checksum: int, count: int) -> int:
    """Adler-32 of bytes of which it is known, with so many zeros behind them."""
    low, high = checksum & 0xFFFF, checksum >> 16
    return (high + count * low) % _ADLER << 16 | low
