"""Outlines that cross themselves or leave the image, as findings."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from shapely.geometry import MultiPolygon, Polygon, box

from converters.audit.geometry import check_outlines
from converters.masks import rasterize
from converters.types import Frame, Instance, Sample

LOOP = [(10, 10), (60, 10), (60, 46), (64, 50), (64, 46), (60, 50), (10, 50)]
WIDE = (80, 120)


def sample(*instances, size_hw=WIDE):
    return Sample("train/DCM/ID001/image1", Path("none.png"), size_hw, instances, "ID001")


def test_a_small_loop_is_cut_off_by_the_edit():
    (found,) = check_outlines(sample(Instance("Lunate", Polygon(LOOP))))
    assert (found.kind, found.labels) == ("crossing", ("Lunate",))
    x, y, width, height = found.box_xywh
    assert x <= 62
    assert y <= 46
    assert x + width >= 64
    assert y + height >= 48
    (ring,) = found.edit["replace"]["polygons"]
    assert Polygon(ring).is_valid
    before = rasterize(Polygon(LOOP), WIDE).full(WIDE)
    after = rasterize(Polygon(ring), WIDE).full(WIDE)
    # Both agree but for the loop's few pixels.
    assert np.argwhere(before != after)[:, 1].min() >= 60


def test_a_large_loop_is_left_to_people():
    (found,) = check_outlines(
        sample(Instance("Lunate", Polygon([(5, 5), (40, 40), (40, 5), (5, 40)])))
    )
    assert found.score == 1
    assert found.edit is None


def test_a_hole_is_looked_at_and_cannot_be_drawn_anew():
    hole = [(20, 20), (40, 36), (40, 20), (20, 36)]
    (found,) = check_outlines(
        sample(Instance("Radius", Polygon(box(5, 5, 60, 60).exterior, [hole])))
    )
    assert found.kind == "crossing"
    assert found.edit is None


OUTSIDE = {
    # name: polygon, how far beyond 120 x 80 pixels, None is not at all
    "to the last pixel's centre": (box(0, 0, 119, 79), None),
    "to the last pixel's edge": (box(-0.5, -0.5, 119.5, 79.5), None),
    "half a pixel beyond the edge": (box(50, 0, 120, 80), None),
    "one pixel beyond the edge": (box(50, 0, 120.5, 79), 1.0),
    "to the left": (box(-5, 10, 60, 60), 4.5),
    "below": (box(5, 10, 60, 89.5), 10.0),
}


@pytest.mark.parametrize("name", OUTSIDE)
def test_outside_begins_half_a_pixel_beyond_the_edge(name):
    polygon, far = OUTSIDE[name]
    found = list(check_outlines(sample(Instance("Ulna", polygon))))
    assert [f.kind for f in found] == ([] if far is None else ["outside"])
    if far is not None:
        assert f"{far:.1f} px beyond" in found[0].what


def test_what_is_cut_off_costs_no_pixel():
    parts = MultiPolygon([box(-3, 10, 60, 60), box(80, 10, 90, 20)])
    (found,) = check_outlines(sample(Instance("Ulna", parts)))
    drawn = MultiPolygon([Polygon(ring) for ring in found.edit["replace"]["polygons"]])
    assert (rasterize(drawn, WIDE).full(WIDE) == rasterize(parts, WIDE).full(WIDE)).all()


def test_a_bone_half_outside_is_left_to_people():
    (found,) = check_outlines(sample(Instance("Ulna", box(-31, 10, 30, 60))))
    assert found.edit is None
    assert "50 % of it inside" in found.what


def test_a_bone_wholly_outside_has_no_box():
    (found,) = check_outlines(sample(Instance("Ulna", box(200, 200, 230, 260))))
    assert found.box_xywh is None


def test_a_crop_cuts_bones():
    crop = replace(
        sample(Instance("Ulna", box(-30, 10, 30, 60))), frame=Frame((0, 0, 120, 80), (200, 200))
    )
    assert list(check_outlines(crop)) == []
