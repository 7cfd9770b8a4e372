"""Coordinates in JSON, all of an image at once, without a Python number for each.

Nearly all files write coordinates in a few digits. Eight characters fit into a machine word, in
which the digits of a number are added up in three steps (D. Lemire, "Quickly parsing eight digits",
2018). Whatever is written otherwise is left to `json`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

_SPACES = b" \t\r\n"
_LETTERS = 8
_COMMA = ord(",")
_ZEROS = np.uint64(0x3030303030303030)
# Digits have this bit, the decimal point has not.
_DIGIT = np.uint64(0x1010101010101010)
# Pairs, fours and eights of digits: what takes two neighbours together, and where the sum is.
_SUMS = (
    (0x0F0F0F0F0F0F0F0F, 2561, 8),
    (0x00FF00FF00FF00FF, 6553601, 16),
    (0x0000FFFF0000FFFF, 42949672960001, 32),
)
# By the place of the point in the word, times eight: how far the digits behind it are moved.
_POWERS = 10.0 ** np.arange(_LETTERS - 1, -1, -1)
Numbers = npt.NDArray[np.intp]
Words = npt.NDArray[np.uint64]


def read_rings(texts: Sequence[Any]) -> tuple[npt.NDArray[np.float64], Numbers, Numbers] | None:
    """Return the numbers of lists of lists, the same to the last bit as `json` reads them.

    Args:
        texts: `[[x1, y1, ...], ...]` each, as bytes or a buffer; known to be JSON.

    Returns:
        All numbers, float64; how many are in each of the inner lists; how many of these are in
        each text. None where a text is something else, a list is empty, or a number is not written
        in at most eight digits and a point.

    >>> read_rings([b"[[1, 2.5], [30]]", b"[[4]]"])
    (array([ 1. ,  2.5, 30. ,  4. ]), array([2, 1, 1]), array([2, 1]))
    """
    joined = b",".join(texts)
    brackets = joined.translate(None, b"0123456789." + _SPACES)
    if not (brackets.startswith(b"[[") and brackets.endswith(b"]]")):
        return None
    lists = [own.split(b"],[") for own in brackets[2:-2].split(b"]],[[")]
    inner = [ring for own in lists for ring in own]
    if len(lists) != len(texts) or b"".join(inner).strip(b","):
        return None
    numbers = _read(joined.translate(None, b"[]" + _SPACES))
    lengths = np.array([len(ring) + 1 for ring in inner])
    if numbers is None or len(numbers) != lengths.sum():
        return None
    return numbers, lengths, np.array([len(own) for own in lists])


def _read(text: bytes) -> npt.NDArray[np.float64] | None:
    """Read numbers with commas between them."""
    letters = np.frombuffer(b"0" * _LETTERS + text + b",", np.uint8)
    stops = np.flatnonzero(letters == _COMMA)
    sizes = np.diff(stops, prepend=_LETTERS - 1) - 1
    if sizes.min() < 1 or sizes.max() > _LETTERS:
        return None
    # The eight letters before each comma; those of the number before become zeros.
    before = np.ndarray(len(letters) - _LETTERS + 1, f"V{_LETTERS}", letters.data, strides=(1,))
    words = before[stops - _LETTERS].view("<u8").astype(np.uint64)
    others = ~np.uint64(0) >> (8 * sizes).astype(np.uint64)
    others[sizes == _LETTERS] = 0
    words = (words & ~others) | (_ZEROS & others)
    points = ~words & _DIGIT
    broken = np.flatnonzero(points)
    place = points[broken] >> np.uint64(4)
    low = place - np.uint64(1)
    # The letters before the point move up into its place.
    own = words[broken]
    words[broken] = (own & ~(low | (place * np.uint64(255)))) | ((own & low) << np.uint64(8)) | 48
    numbers = _add_digits(words).astype(np.float64)
    numbers[broken] /= _POWERS[np.searchsorted(_PLACES, place)]
    return numbers


_PLACES = np.uint64(1) << np.arange(0, 8 * _LETTERS, 8, dtype=np.uint64)


def _add_digits(words: Words) -> Words:
    for mask, factor, shift in _SUMS:
        words = (words & np.uint64(mask)) * np.uint64(factor) >> np.uint64(shift)
    return words
