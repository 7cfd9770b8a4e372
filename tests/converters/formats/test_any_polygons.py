"""What holds for any polygons: degenerate, crossing themselves, partly or wholly outside."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco
from shapely.geometry import MultiPolygon, Polygon, box

from converters.formats.single_ring import joined_ring
from converters.masks import (
    EMPTY,
    decode_coco_rle,
    decode_rle,
    encode_coco_rle,
    encode_rle,
    outline,
    pack,
    rasterize,
    rasterize_labels,
    rings,
    unpack,
)
from converters.types import Instance

pytestmark = pytest.mark.slow

QUICK = settings(max_examples=30, deadline=None)
AREA = (23, 31)
NAMES = ["finger-1", "finger-9", "Ulna"]
coordinates = st.one_of(
    st.integers(-20, 50), st.floats(-20, 50), st.sampled_from([-0.5, 0.5, 22.5, 30.5])
)
closed_rings = st.lists(st.tuples(coordinates, coordinates), min_size=3, max_size=9)
polygons = st.builds(Polygon, closed_rings, st.lists(closed_rings, max_size=2))
geometries = st.one_of(polygons, st.lists(polygons, min_size=2, max_size=3).map(MultiPolygon))

BOW_TIE = Polygon([(2, 2), (20, 18), (20, 2), (2, 18)])
CERTAIN = {
    "a point": Polygon([(7, 9)] * 3),
    "a line": Polygon([(3, 4), (20, 11), (3, 4)]),
    "crosses itself": BOW_TIE,
    "half pixels at the border": box(-0.5, -0.5, 30.5, 22.5),
    "beyond all borders": box(-20, -20, 50, 50),
    "outside": box(40, 30, 50, 50),
    "a hole at its border": Polygon(box(2, 2, 20, 20).exterior, [box(2, 5, 9, 9).exterior]),
    "a hole larger than all": Polygon(box(5, 5, 9, 9).exterior, [box(2, 2, 20, 20).exterior]),
    "parts that overlap": MultiPolygon([BOW_TIE, box(4, 4, 25, 12), box(22, 2, 28, 20)]),
}


def for_any_polygons(test: Callable[[Polygon | MultiPolygon], None]) -> Callable[[], None]:
    for geometry in CERTAIN.values():
        test = example(geometry)(test)
    return QUICK(given(geometries)(test))


def filled(geometry: Polygon | MultiPolygon) -> np.ndarray:
    """Every polygon filled on a whole image, then joined."""
    plane = np.zeros(AREA, np.uint8)
    for polygon in getattr(geometry, "geoms", [geometry]):
        lines = [polygon.exterior, *polygon.interiors]
        whole = [np.floor(np.array(line.coords)[:-1] + 0.5).astype(np.int32) for line in lines]
        plane |= cv2.fillPoly(np.zeros(AREA, np.uint8), whole, (1,))
    return plane


@for_any_polygons
def test_any_polygons_become_the_pixels_of_fillpoly(geometry):
    np.testing.assert_array_equal(rasterize(geometry, AREA).full(AREA), filled(geometry))


@for_any_polygons
def test_outlines_of_any_polygons_have_the_same_pixels(geometry):
    mask = rasterize(geometry, AREA)
    if mask.area:
        again = rasterize(outline(mask), AREA)
        np.testing.assert_array_equal(again.full(AREA), mask.full(AREA))


@for_any_polygons
def test_a_ring_for_each_part_of_any_polygons_has_the_same_pixels(geometry):
    mask = rasterize(geometry, AREA)
    plane = np.zeros(AREA, np.uint8)
    for part in rings(mask):
        plane |= rasterize(Polygon(joined_ring([part])), AREA).full(AREA)
    np.testing.assert_array_equal(plane, mask.full(AREA))


@for_any_polygons
def test_one_ring_for_any_polygons_has_all_their_pixels(geometry):
    mask = rasterize(geometry, AREA)
    if parts := rings(mask):
        joined = rasterize(Polygon(joined_ring(parts)), AREA).full(AREA)
        assert (joined >= mask.full(AREA)).all()
        assert len(parts) > 1 or joined.sum() == mask.area


@for_any_polygons
def test_codes_of_any_polygons_come_back(geometry):
    mask = rasterize(geometry, AREA)
    plane = mask.full(AREA)
    np.testing.assert_array_equal(decode_rle(encode_rle(mask, AREA), AREA).full(AREA), plane)
    theirs = coco.encode(np.asfortranarray(plane))
    ours = encode_coco_rle(mask, AREA)
    assert ours["counts"] == theirs["counts"].decode()
    np.testing.assert_array_equal(decode_coco_rle(theirs).full(AREA), plane)


@QUICK
@given(
    names=st.lists(st.sampled_from(["finger-1", "finger-9", "Ulna"]), max_size=4), data=st.data()
)
def test_packed_masks_of_any_polygons_come_back(labels, names, data):
    instances = [Instance(name, data.draw(geometries)) for name in names]
    masks = rasterize_labels(instances, AREA)
    planes = unpack(pack(masks, labels, AREA), len(labels))
    for c, label in enumerate(labels.names):
        wanted = masks.get(label, EMPTY).full(AREA)
        np.testing.assert_array_equal(planes[c], wanted)


@QUICK
@given(st.one_of(st.text("0123456789 -.x\n"), st.lists(st.integers(-3, 2**70)).map(str)))
def test_any_text_is_a_code_or_a_value_error(text):
    for decode in (
        lambda: decode_rle(text.strip("[]").replace(",", ""), AREA),
        lambda: decode_coco_rle({"size": AREA, "counts": text}),
    ):
        try:
            mask = decode()
        except ValueError:
            continue
        assert mask.full(AREA).sum() == mask.area
