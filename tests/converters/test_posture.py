from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from shapely import affinity
from shapely.geometry import MultiPolygon, Point, Polygon, box

from converters.masks import rasterize
from converters.posture import angle_deg, bend_deg, is_bent, long_axis
from converters.types import Instance, LabelSpace, Sample
from zoo.phantom.anatomy import BENT, NEUTRAL, draw_hands
from zoo.phantom.annotation import draw_polygons

SIZE = (300, 360)


def bone(angle, centre=(180, 150), length=160, width=40):
    """An upright ellipse, turned clockwise on the screen."""
    outline = affinity.scale(Point(0, 0).buffer(1), width / 2, length / 2)
    return affinity.translate(affinity.rotate(outline, angle, origin=(0, 0)), *centre)


def upright(angle):
    return np.array([-np.sin(np.radians(angle)), np.cos(np.radians(angle))])


@pytest.mark.parametrize("angle", [0, 12, 45, 80, 90, 135, 170])
def test_axis_of_a_bone_inside_the_image(angle):
    axis = long_axis(rasterize(bone(angle), SIZE), SIZE)
    assert angle_deg(axis, upright(angle)) < 0.5


@pytest.mark.parametrize(
    ("turn", "centre"),
    [(0, (180, 300)), (90, (0, 150)), (180, (180, 0)), (270, (360, 150))],
    ids=["below", "left", "above", "right"],
)
@pytest.mark.parametrize("lean", [-15, -8, 0, 15])
def test_axis_of_a_shaft_that_a_border_cuts(turn, centre, lean):
    # So short that its second moments would point across it or along the border.
    shaft = affinity.rotate(box(-45, -90, 45, 200), turn + lean, origin=(0, 0))
    axis = long_axis(rasterize(affinity.translate(shaft, *centre), SIZE), SIZE)
    assert angle_deg(axis, upright(turn + lean)) < 6


def test_a_bone_that_only_touches_the_border_is_not_cut():
    outline = bone(40, centre=(180, 150))
    touching = affinity.translate(outline, 0, SIZE[0] - 1 - outline.bounds[3])
    assert angle_deg(long_axis(rasterize(touching, SIZE), SIZE), upright(40)) < 0.5


@pytest.mark.parametrize("length", [40, 44])
def test_a_round_bone_has_no_axis(length):
    assert long_axis(rasterize(bone(0, length=length), SIZE), SIZE) is None


def test_a_bone_outside_the_image_has_no_axis():
    assert long_axis(rasterize(bone(0, centre=(900, 900)), SIZE), SIZE) is None


def hand(bend, *, without="", parts=False):
    distal = bone(bend, centre=(180, 90), length=120)
    if parts:
        distal = MultiPolygon([distal, affinity.translate(distal, 0.4, 0)])
    outlines = {"finger-11": distal, "Radius": box(140, 200, 220, 400)}
    instances = tuple(Instance(n, o) for n, o in outlines.items() if n != without)
    return Sample("image_1", Path("x.png"), SIZE, instances)


@pytest.mark.parametrize(
    ("bend", "bent"), [(0, False), (17, False), (-17, False), (21, True), (-40, True)]
)
@pytest.mark.parametrize("parts", [False, True])
def test_bend_either_way(labels, bend, bent, parts):
    sample = hand(bend, parts=parts)
    assert bend_deg(sample, labels) == pytest.approx(abs(bend), abs=0.5)
    assert is_bent(sample, labels) is bent


@pytest.mark.parametrize("without", ["finger-11", "Radius"])
def test_no_posture_without_both_bones(labels, without):
    assert bend_deg(hand(30, without=without), labels) is None
    assert is_bent(hand(30, without=without), labels) is None


def test_no_posture_in_a_label_space_without_one():
    plain = LabelSpace("plain", ("finger-11", "Radius"))
    assert is_bent(hand(30), plain) is None


def test_an_outline_that_crosses_itself_does_no_harm(labels):
    bow = Polygon([(160, 20), (200, 160), (160, 160), (200, 20)])
    shaft = Instance("Radius", box(140, 200, 220, 400))
    sample = Sample("image_1", Path("x.png"), SIZE, (Instance("finger-11", bow), shaft))
    assert bend_deg(sample, labels) == pytest.approx(0, abs=1)


def phantom(labels, number, posture, size):
    seeds = [np.random.default_rng([number, posture, size, i]) for i in range(5)]
    for index, drawn in enumerate(draw_hands(seeds[0], tuple(seeds[1:3]), posture, size)):
        polygons = draw_polygons(drawn, seeds[3 + index], 0.0)
        bones = tuple(Instance(labels.names[b], Polygon(points)) for b, points in polygons)
        yield Sample(f"image_{number}_{index}", Path("x.png"), (size, size), bones)


@pytest.mark.parametrize("size", [256, 512])
@pytest.mark.parametrize("posture", [NEUTRAL, BENT])
@pytest.mark.slow
def test_the_shipped_threshold_knows_the_phantoms_posture(labels, size, posture):
    found = [is_bent(s, labels) for n in range(30) for s in phantom(labels, n, posture, size)]
    assert found == [posture == BENT] * 60
