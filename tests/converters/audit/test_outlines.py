"""Rings that cross themselves, and rings that only touch themselves."""

import pytest
from shapely.geometry import LinearRing, Polygon, box

from converters.audit.outlines import find_crossing

SQUARE = [(0, 0), (20, 0), (20, 20), (0, 20)]
TWO_SQUARES = [(0, 0), (9, 0), (9, 9), (18, 9), (18, 18), (9, 18), (9, 9), (0, 9)]
HOLE = [(9, 9), (9, 20), (20, 20), (20, 9), (9, 9)]
TINY_LOOP = [(10, 20), (11, 21), (10, 21), (11, 20)]
CORNER_LOOP = [(0, 0), (20, 0), (20, 16), (26, 22), (26, 16), (20, 22), (0, 20)]
HARMLESS = {
    "square": SQUARE,
    "square the other way round": SQUARE[::-1],
    "a vertex that comes twice in a row": [*SQUARE[:2], *SQUARE[1:]],
    "two squares that meet in a vertex": TWO_SQUARES,
    "a line walked there and back": [*SQUARE[:3], (30, 30), *SQUARE[2:]],
    "a hole on a bridge": [(0, 0), (30, 0), (30, 30), (0, 30), (0, 0), *HOLE],
    "no area": [(3, 3), (3, 3), (3, 3)],
    "a loop of less than a pixel": [*SQUARE[:3], *TINY_LOOP, SQUARE[3]],
}
CROSSING = {
    # name: ring, area that is enclosed the wrong way or twice
    "bow-tie": ([(0, 0), (20, 20), (20, 0), (0, 20)], 100),
    "a loop at a corner": (CORNER_LOOP, 9),
    "around twice": ([*SQUARE, (0, 0), (10, 0), (10, 10), (0, 10)], 100),
}


@pytest.mark.parametrize("name", HARMLESS)
def test_touching_is_no_crossing(name):
    assert find_crossing(LinearRing(HARMLESS[name])) is None


@pytest.mark.parametrize("name", CROSSING)
def test_crossing_is_found_where_it_is(name):
    ring, wrong_px = CROSSING[name]
    found = find_crossing(LinearRing(ring))
    assert found is not None
    assert not Polygon(ring).is_valid
    assert found.wrong_px == pytest.approx(wrong_px)
    assert found.mended.is_valid
    # The wrong part lies within the ring.
    assert box(*found.bounds).within(Polygon(ring).envelope.buffer(1e-9))


def test_a_mended_loop_is_the_outline_without_it():
    found = find_crossing(LinearRing(CORNER_LOOP))
    assert found.bounds == pytest.approx((23, 16, 26, 22))
    assert found.wrong_px == pytest.approx(9)
    assert found.mended.area == pytest.approx(found.wrong_px / found.share - found.wrong_px)
