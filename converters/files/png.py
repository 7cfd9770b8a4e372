"""PNG files by their chunks: checked, and without what OpenCV would only grumble about.

OpenCV decodes by libpng, which writes what it does not like to the process' standard error by
itself. So damage is found here, by the checksums, and chunks that say nothing of pixels, such as
colour profiles that many programs write wrong, do not reach it.

Source: PNG specification, third edition, sections 5.3 (chunks and their checksums) and 5.4 (names).
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_FRAME = 12
# Bit 5 of a name's first byte is set where a reader may pass the chunk over.
_MAY_BE_PASSED_OVER = 0x20
_NEEDED = frozenset({b"IHDR", b"PLTE", b"IDAT", b"IEND"})
# Of the others: transparency and orientation, and the frames of animations.
_KEPT = _NEEDED | {b"tRNS", b"eXIf", b"acTL", b"fcTL", b"fdAT"}


def check_png(content: bytes) -> None:
    """Compare the checksums of all chunks.

    Raises:
        ValueError: no PNG, or one that is cut off or damaged.
    """
    for at, kind, end in _chunks(content):
        _check(content, at, kind, end)


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
