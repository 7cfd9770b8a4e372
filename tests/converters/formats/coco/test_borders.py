from __future__ import annotations

import cv2
import numpy as np
import pytest
from pycocotools import mask as pycoco

from converters.formats.coco.borders import borders
from converters.formats.coco.filling import fill
from converters.masks import crop, rings

# pycocotools does not know NumPy 2's keyword.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SIZE = (7, 9)
SHAPES = {
    "one pixel": [(3, 4)],
    "a row": [(3, x) for x in range(2, 8)],
    "a column to the border": [(y, 8) for y in range(2, 7)],
    "a diagonal": [(i, i) for i in range(6)],
    "a corner": [(2, x) for x in range(6)] + [(y, 2) for y in range(6)],
    "two parts": [(1, 1), (1, 2), (5, 6)],
    "touching diagonally": [(1, 1), (1, 2), (2, 3), (2, 4)],
    "full": [(y, x) for y in range(7) for x in range(9)],
}


def plane(pixels):
    mask = np.zeros(SIZE, np.uint8)
    mask[tuple(np.array(pixels).T)] = 1
    return mask


def lines(mask):
    return [line / 2 for line in borders([shell for shell, _ in rings(crop(mask))])]


def pycoco_pixels(polygons, size_hw):
    flat = [polygon.ravel().tolist() for polygon in polygons]
    return pycoco.decode(pycoco.merge(pycoco.frPyObjects(flat, *size_hw)))


@pytest.fixture(params=SHAPES)
def mask(request):
    return plane(SHAPES[request.param])


def test_border_holds_the_pixels(mask):
    np.testing.assert_array_equal(fill(lines(mask), SIZE).full(SIZE), mask)


def test_border_holds_the_pixels_for_pycocotools(mask):
    np.testing.assert_array_equal(pycoco_pixels(lines(mask), SIZE), mask)


@pytest.mark.parametrize("seed", range(5))
def test_noise_without_holes(seed):
    rng = np.random.default_rng(seed)
    for share in rng.random(20):
        mask = (rng.random((23, 31)) < share).astype(np.uint8)
        shells, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
        mask = cv2.drawContours(mask, shells, -1, 1, -1)
        if mask.any():
            np.testing.assert_array_equal(fill(lines(mask), mask.shape).full(mask.shape), mask)
            np.testing.assert_array_equal(pycoco_pixels(lines(mask), mask.shape), mask)


def test_a_square_has_its_corners_cut_and_no_other_points():
    square = plane([(y, x) for y in (2, 3, 4) for x in (2, 3, 4)])
    (line,) = lines(square)
    assert len(line) == 8
    assert line.min(axis=0).tolist() == [2, 2]
    assert line.max(axis=0).tolist() == [5, 5]


def test_no_shells_have_no_borders():
    assert borders([]) == []
