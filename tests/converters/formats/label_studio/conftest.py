"""Label Studio's brush strokes, packed from the layout of their bits alone."""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby

import numpy as np
import pytest

SIZES = (3, 4, 8, 16)


def header(count, word=8, sizes=SIZES):
    return f"{count:032b}{word - 1:05b}" + "".join(f"{size - 1:04b}" for size in sizes)


def to_bytes(bits):
    padded = bits + "0" * (-len(bits) % 8)
    return [int(padded[i : i + 8], 2) for i in range(0, len(padded), 8)]


def encode(alpha, *, word=8, sizes=SIZES, singles=False):
    """Pack an image whose four channels are its alpha, as Label Studio's editor makes it.

    Values that occur once are written one by one in a block, where `singles` says so.
    """
    values = np.repeat(np.asarray(alpha).ravel(), 4).tolist()
    bits = [header(len(values), word, sizes)]

    def block(is_run, length, written):
        place = next(i for i, size in enumerate(sizes) if length <= 2**size)
        bits.append(f"{int(is_run)}{place:02b}{length - 1:0{sizes[place]}b}")
        bits.extend(f"{value:0{word}b}" for value in written)

    for value, group in groupby(values):
        left = len(list(group))
        while left:
            length = min(left, 2 ** sizes[-1])
            if singles and length <= 8:
                block(False, length, [value] * length)
            else:
                block(True, length, [value])
            left -= length
    return to_bytes("".join(bits))


@pytest.fixture(scope="session")
def encode_brush() -> Callable[..., list[int]]:
    return encode


@pytest.fixture(scope="session")
def brush_header() -> Callable[..., str]:
    """The first bits, of a number of values."""
    return header


@pytest.fixture(scope="session")
def bits_to_bytes() -> Callable[[str], list[int]]:
    return to_bytes
