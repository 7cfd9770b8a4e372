from __future__ import annotations

import numpy as np
import pytest
from pycocotools import mask as pycoco

from converters.formats.coco.filling import fill, fill_each

# pycocotools does not know NumPy 2's keyword.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SIZE = (7, 9)


def pycoco_pixels(polygons, size_hw):
    flat = [polygon.ravel().tolist() for polygon in polygons]
    return pycoco.decode(pycoco.merge(pycoco.frPyObjects(flat, *size_hw)))


def along_a_line(rng, count, size):
    start, way = rng.random((2, 2)) * size
    return start + np.linspace(0, 1, count)[:, None] * way + rng.normal(0, 0.3, (count, 2))


KINDS = {
    "anything": lambda rng, count, size: rng.random((count, 2)) * size,
    "thin": along_a_line,
    "tiny": lambda rng, count, size: rng.random(2) * size + rng.random((count, 2)) * 2,
    "whole": lambda rng, count, size: np.round(rng.random((count, 2)) * size),
    "halves": lambda rng, count, size: np.round(rng.random((count, 2)) * size * 2) / 2,
    "tenths": lambda rng, count, size: np.round(rng.random((count, 2)) * size * 10) / 10,
    "rectangles and repeated points": lambda rng, count, size: (
        np.round(rng.random((count, 2)) * size / 7) * 7
    ),
    "leaving the image": lambda rng, count, size: (rng.random((count, 2)) - 0.5) * size * 4,
    "at the border, from outside": lambda rng, count, size: (
        np.round((rng.random((count, 2)) - 0.9) * size * 2) / 2
    ),
    "far outside": lambda rng, count, size: (rng.random((count, 2)) - 0.5) * size * 100,
}


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_same_pixels_as_pycocotools(kind):
    rng = np.random.default_rng(7)
    for _ in range(150):
        height, width = rng.integers(1, 60, 2).tolist()
        size = np.array([width, height])
        polygons = [kind(rng, int(rng.integers(3, 12)), size) for _ in range(rng.integers(1, 4))]
        ours = fill(polygons, (height, width)).full((height, width))
        np.testing.assert_array_equal(ours, pycoco_pixels(polygons, (height, width)), polygons)


def test_two_triangles_with_diagonals():
    polygons = [
        np.array(p, np.float64) for p in ([(0, 0), (4, 0), (4, 4)], [(5, 0), (9, 0), (5, 5)])
    ]
    assert fill(polygons, (6, 10)).area == 16


@pytest.mark.parametrize(
    ("polygon", "pixels"),
    [
        ([(1, 1), (3, 1), (3, 3), (1, 3)], [(1, 1), (1, 2), (2, 1), (2, 2)]),
        ([(-5, -5), (1, -5), (1, 1), (-5, 1)], [(0, 0)]),
        ([(8, 6), (20, 6), (20, 20), (8, 20)], [(6, 8)]),
        ([(1, 1), (4, 1), (1, 3), (4, 3)], [(1, 2), (2, 2)]),
    ],
)
def test_plain_polygons_hold_the_pixels_whose_centres_are_inside(polygon, pixels):
    mask = fill([np.array(polygon, np.float64)], SIZE)
    assert [tuple(place) for place in np.argwhere(mask.full(SIZE)).tolist()] == pixels


@pytest.mark.parametrize("polygon", [[(20, 2), (30, 2), (30, 9)], [(1.6, 1), (2.4, 1), (2.4, 6)]])
def test_polygons_without_a_centre_are_empty(polygon):
    assert fill([np.array(polygon, np.float64)], SIZE).area == 0


def test_objects_filled_together_are_those_of_each():
    rng = np.random.default_rng(5)
    size = np.array([50, 40])
    kinds = list(KINDS.values())
    objects = [
        [kinds[i % len(kinds)](rng, 9, size) for _ in range(rng.integers(1, 4))] for i in range(60)
    ]
    for filled, polygons in zip(fill_each(objects, (40, 50)), objects, strict=True):
        np.testing.assert_array_equal(
            filled.full((40, 50)), pycoco_pixels(polygons, (40, 50)), str(polygons)
        )
    assert fill_each([], (40, 50)) == []
