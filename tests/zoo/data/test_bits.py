from __future__ import annotations

import numpy as np
import pytest

from converters.masks import CropMask, pack
from converters.types import LabelSpace
from zoo.data.area_targets import shrink
from zoo.data.bits import BitMask, window_shares
from zoo.data.reading import resize_packed

LABELS = LabelSpace("eleven", tuple(f"c{i}" for i in range(11)))
SIZE = (40, 28)


def _blob(y: int, x: int, height: int, width: int) -> CropMask:
    return CropMask(x, y, np.ones((height, width), np.uint8))


def _masks() -> dict[str, CropMask]:
    """A hole, two parts, an overlap, a full mask, single pixels in corners, and empty ones."""
    ring = np.ones((13, 9), np.uint8)
    ring[4:7, 3:8] = 0
    parts = np.zeros((20, 17), np.uint8)
    parts[:4, :3] = parts[15:, 9:] = 1
    return {
        "c0": CropMask(3, 5, ring),
        "c1": CropMask(7, 9, parts),
        "c2": _blob(8, 4, 11, 10),
        "c4": _blob(0, 0, *SIZE),
        "c7": _blob(39, 27, 1, 1),
        "c8": _blob(0, 0, 1, 1),
        "c9": CropMask(2, 2, np.zeros((3, 3), np.uint8)),
        "c10": _blob(20, 0, 9, 28),
    }


def _mask() -> BitMask:
    return BitMask.of_masks(_masks(), LABELS, SIZE)


def test_planes_are_the_packed_mask() -> None:
    assert np.array_equal(_mask().planes(), pack(_masks(), LABELS, SIZE))


@pytest.mark.parametrize("channels", [1, 2, 4])
@pytest.mark.parametrize("share", [0.0, 0.002, 0.5, 1.0])
def test_a_packed_mask_comes_back(channels: int, share: float) -> None:
    generator = np.random.default_rng(channels)
    bits = generator.random((17, 23, 8 * channels)) < share
    packed = np.packbits(bits, axis=-1, bitorder="little")
    mask = BitMask.of_packed(packed)
    assert (mask.size_hw, mask.channels) == ((17, 23), channels)
    assert np.array_equal(mask.planes(), packed)


def test_a_label_of_another_space() -> None:
    with pytest.raises(ValueError, match="expected a label of 'eleven', found 'c11'"):
        BitMask.of_masks({"c11": _blob(0, 0, 2, 2)}, LABELS, SIZE)


BOXES = [
    (0, 0, 28, 40),
    (5, 7, 9, 13),
    (-6, -3, 20, 20),
    (20, 33, 30, 30),
    (-4, -4, 40, 60),
    (50, 60, 4, 5),
]


@pytest.mark.parametrize("box", BOXES)
def test_a_window_is_that_part_of_the_planes(box: tuple[int, int, int, int]) -> None:
    x, y, width, height = box
    wide = np.pad(_mask().planes(), ((60, 60), (60, 60), (0, 0)))
    expected = wide[60 + y : 60 + y + height, 60 + x : 60 + x + width]
    assert np.array_equal(_mask().window(box), expected)


@pytest.mark.parametrize("box", BOXES)
def test_a_window_of_shares_is_that_part_of_the_planes(box: tuple[int, int, int, int]) -> None:
    x, y, width, height = box
    mask = shrink(np.repeat(_mask().planes(), 2, axis=0), 11, SIZE)
    wide = np.pad(mask.planes(), ((60, 60), (60, 60), (0, 0)))
    expected = wide[60 + y : 60 + y + height, 60 + x : 60 + x + width]
    assert np.array_equal(window_shares(mask, box), expected)


@pytest.mark.parametrize(
    "size", [(20, 14), (13, 28), (7, 5), (40, 28), (81, 56), (33, 91), (1, 1), (39, 27)]
)
def test_resizing_is_that_of_a_packed_mask(size: tuple[int, int]) -> None:
    found = _mask().resized(size)
    assert found.size_hw == size
    assert np.array_equal(found.planes(), resize_packed(_mask().planes(), size))


@pytest.mark.parametrize("size", [(20, 14), (10, 7), (40, 28), (20, 28), (17, 9), (60, 50)])
def test_shrinking_is_that_of_a_packed_mask(size: tuple[int, int]) -> None:
    found, expected = _mask().shrunk(11, size), shrink(_mask().planes(), 11, size)
    assert np.array_equal(found.planes(), expected.planes())


def test_crops_are_the_masks() -> None:
    found = {LABELS.names[bit]: crop for bit, crop in _mask().crops()}
    for name, mask in _masks().items():
        full = found[name].full(SIZE) if name in found else np.zeros(SIZE, np.uint8)
        assert np.array_equal(full, mask.full(SIZE))


def test_what_it_takes_in_memory_is_a_bit_a_pixel_of_the_boxes() -> None:
    labels = LabelSpace("one", ("c",))
    mask = BitMask.of_masks({"c": _blob(3, 4, 10, 20)}, labels, (500, 500))
    assert mask.nbytes == 10 * 3
