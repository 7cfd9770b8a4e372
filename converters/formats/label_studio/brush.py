"""Label Studio's run-length code of brush strokes.

It is a stream of bits, the highest of a byte first, that packs an image of four channels (RGBA), by
rows: 32 bits with the number of values, 5 with the bits of a value less 1, four times 4 with the
bits that a length may have less 1. Then come blocks: a bit that tells a run from single values, 2
with the place of the length's bits among the four, the length less 1, and one value for a run, else
as many as the length says.

Source: `decode_rle` in label-studio-converter's brush.py, which is `decode` of
thi.ng/umbrella's packages/rle-pack. `ls_rle_to_coco_rle` there counts pixels whose alpha is not 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from converters.masks import CropMask, crop

_CHANNELS, _ALPHA = 4, 3
_COUNT_BITS, _WORD_BITS, _SIZE_BITS, _SIZES, _PLACE_BITS = 32, 5, 4, 4, 2


def decode_brush(code: Any, size_hw: tuple[int, int]) -> CropMask:
    """Return the pixels on which a brush has left anything.

    Args:
        code: the bytes, as numbers 0 to 255.
        size_hw: the image's height and width.

    Raises:
        ValueError: no such code, one of another size, or one that is cut off.
    """
    try:
        bits = _Bits(bytes(code) if isinstance(code, list) else b"")
    except (TypeError, ValueError):
        raise ValueError(f"expected 'rle' to be bytes, found {code!r:.40}") from None
    height, width = size_hw
    count = bits.read(_COUNT_BITS)
    if count != height * width * _CHANNELS:
        raise ValueError(
            f"expected 'rle' of {height} x {width} pixels in {_CHANNELS} channels, found {count} "
            "values"
        )
    word = bits.read(_WORD_BITS) + 1
    sizes = [bits.read(_SIZE_BITS) + 1 for _ in range(_SIZES)]
    is_set = np.zeros(count, np.bool_)
    start = 0
    while start < count:
        is_run = bits.read(1)
        end = start + bits.read(sizes[bits.read(_PLACE_BITS)]) + 1
        if end > count:
            raise ValueError(f"expected 'rle' of {count} values, found more")
        is_set[start:end] = bits.read(word) > 0 if is_run else bits.read_set(end - start, word)
        start = end
    return crop(is_set.reshape(height, width, _CHANNELS)[..., _ALPHA])


class _Bits:
    """Reads numbers of some bits each, the highest bit first."""

    def __init__(self, data: bytes) -> None:
        self._data, self._bits = data, np.unpackbits(np.frombuffer(data, np.uint8))
        self._at = 0

    def read(self, count: int) -> int:
        """Return the next number.

        Raises:
            ValueError: there are not so many bits left.
        """
        start = self._advance(count)
        first, last = start // 8, -(-self._at // 8)
        number = int.from_bytes(self._data[first:last], "big") >> (8 * last - self._at)
        return number & ((1 << count) - 1)

    def read_set(self, times: int, count: int) -> np.ndarray[Any, Any]:
        """Tell which of the next numbers are not 0, bool (times,); raises as `read`."""
        start = self._advance(times * count)
        return np.asarray(self._bits[start : self._at].reshape(times, count).any(axis=1))

    def _advance(self, count: int) -> int:
        start, self._at = self._at, self._at + count
        if self._at > len(self._bits):
            raise ValueError("expected a whole 'rle', found one that is cut off")
        return start
